//! An answer as the messages of a WebSocket, for browsers: logs as upstream's `wsstream.Reader` tells them, watches as its `WatchServer`.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use object::{Reason, Status};
use tokio::io::AsyncWriteExt;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};
use tracing::debug;

use crate::respond::{self, Answer, Body};

/// What a WebSocket's subprotocol that is a bearer token begins with.
pub(crate) const SUBPROTOCOL_TOKEN: &str = "base64url.bearer.authorization.k8s.io.";

/// How long a client may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(5);
/// The subprotocols of a log, and how their messages are written. The empty one is for who offers none.
const OF_LOGS: [(&str, Messages); 3] =
    [("", Messages::Binary), ("binary.k8s.io", Messages::Binary), ("base64.binary.k8s.io", Messages::Base64)];

/// What a message carries of a piece of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Messages {
    Base64,
    Binary,
    Text,
}

/// A client that waits for its connection to become a WebSocket.
pub(crate) struct Opening {
    upgrade: OnUpgrade,
    accept: HeaderValue,
    /// None: none is told.
    protocol: Option<HeaderValue>,
    messages: Messages,
    /// The first message is an empty one: browsers hear that it has begun.
    greets: bool,
}

/// Takes what asks for a WebSocket out of a request for a log, so that the rest can be asked of a server that knows none.
///
/// # Errors
/// It asks for one in a way, or with subprotocols, that are not spoken here.
pub(crate) fn of_log(request: &mut Request<Incoming>) -> Result<Option<Opening>, Status> {
    if !is_asked(request.headers()) {
        return Ok(None);
    }
    check_version(request.headers())?;
    let (protocol, messages) = choose(request.headers())?;
    let protocol = Some(protocol).filter(|name| !name.is_empty()).map(HeaderValue::from_static);
    take(request, protocol, messages, true).map(Some)
}

/// The same of a watch, whose events are messages of their own. Upstream leaves this one to Go's own server of WebSockets, which takes
/// the only subprotocol that is offered, whatever it is, and nobody who does not say where they come from.
///
/// # Errors
/// 400 of several subprotocols, 403 without an `Origin` that is one.
pub(crate) fn of_watch(
    request: &mut Request<Incoming>,
    messages: Messages,
) -> Result<Option<Opening>, Status> {
    let headers = request.headers();
    if !is_asked(headers) {
        return Ok(None);
    }
    check_version(headers)?;
    if !headers.get(header::ORIGIN).and_then(|origin| origin.to_str().ok()).is_some_and(is_uri) {
        let why = "a watch over a WebSocket needs the header Origin with a URI in it";
        return Err(Status::new(Reason::Forbidden, why));
    }
    let protocol = match *offered(headers) {
        [] => None,
        [only] => Some(HeaderValue::from_str(only).map_err(|why| Status::bad_request(why.to_string()))?),
        _ => return Err(Status::bad_request("a watch over a WebSocket takes one subprotocol")),
    };
    take(request, protocol, messages, false).map(Some)
}

fn is_asked(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(header::CONNECTION).iter().filter_map(|line| line.to_str().ok());
    let upgrades =
        lines.flat_map(|line| line.split(',')).any(|word| word.trim().eq_ignore_ascii_case("upgrade"));
    let asked = headers.get(header::UPGRADE);
    upgrades && asked.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// The one version that there is (RFC 6455).
fn check_version(headers: &HeaderMap) -> Result<(), Status> {
    match headers.get(header::SEC_WEBSOCKET_VERSION) {
        Some(version) if version.as_bytes() == b"13" => Ok(()),
        _ => Err(Status::bad_request("a WebSocket needs the header Sec-WebSocket-Version: 13")),
    }
}

/// Whether Go's `url.ParseRequestURI` takes it for one, of what browsers send: `https://console.example:8443`, but not `null`.
fn is_uri(text: &str) -> bool {
    if text.starts_with('/') {
        return true;
    }
    let Some((scheme, rest)) = text.split_once(':') else { return false };
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
    let Some(rest) = rest.strip_prefix("//") else { return is_scheme };
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    // What stands behind the host, and is no port, is passed over when it is read.
    let is_authority = |read: Authority| read.port().is_some() || read.as_str().ends_with(read.host());
    is_scheme && (authority.is_empty() || authority.parse().is_ok_and(is_authority))
}

fn take(
    request: &mut Request<Incoming>,
    protocol: Option<HeaderValue>,
    messages: Messages,
    greets: bool,
) -> Result<Opening, Status> {
    let key = request.headers().get(header::SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes);
    let key = key.ok_or_else(|| Status::bad_request("a WebSocket without Sec-WebSocket-Key"))?;
    let accept = HeaderValue::from_str(&derive_accept_key(key))
        .map_err(|error| Status::bad_request(format!("Sec-WebSocket-Key: {error}")))?;
    let asking = [
        header::CONNECTION,
        header::SEC_WEBSOCKET_EXTENSIONS,
        header::SEC_WEBSOCKET_KEY,
        header::SEC_WEBSOCKET_PROTOCOL,
        header::SEC_WEBSOCKET_VERSION,
        header::UPGRADE,
    ];
    for name in asking {
        request.headers_mut().remove(name);
    }
    Ok(Opening { upgrade: hyper::upgrade::on(request), accept, protocol, messages, greets })
}

/// The subprotocols that are offered, without the one that is a token.
fn offered(headers: &HeaderMap) -> Vec<&str> {
    let lines = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    let words = lines.filter_map(|line| line.to_str().ok()).flat_map(|line| line.split(',')).map(str::trim);
    words.filter(|word| !word.is_empty() && !word.starts_with(SUBPROTOCOL_TOKEN)).collect()
}

fn choose(headers: &HeaderMap) -> Result<(&'static str, Messages), Status> {
    let offered = offered(headers);
    if offered.is_empty() {
        return Ok(OF_LOGS[0]);
    }
    let known = offered.iter().find_map(|word| OF_LOGS.iter().find(|(name, _)| name == word));
    known.copied().ok_or_else(|| {
        Status::bad_request(format!(
            "none of the subprotocols {offered:?} is spoken here: binary.k8s.io, base64.binary.k8s.io"
        ))
    })
}

impl Opening {
    /// Begins the WebSocket; what the body gives follows as messages.
    pub(crate) fn answer(self, body: Body) -> Answer {
        let Self { upgrade, accept, protocol, messages, greets } = self;
        tokio::spawn(async move {
            let connection = match upgrade.await {
                Ok(connection) => TokioIo::new(connection),
                Err(error) => return debug!(%error, "a WebSocket was not begun"),
            };
            let socket = WebSocketStream::from_raw_socket(connection, Role::Server, None).await;
            if let Err(error) = relay(socket, body, messages, greets).await {
                debug!(%error, "a WebSocket ended");
            }
        });
        let mut answer = respond::bytes(StatusCode::SWITCHING_PROTOCOLS, "text/plain", "");
        let headers = answer.headers_mut();
        headers.clear();
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
        if let Some(protocol) = protocol {
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, protocol);
        }
        answer
    }
}

/// Until the body ends or the client goes.
async fn relay(
    socket: WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>,
    mut body: Body,
    messages: Messages,
    greets: bool,
) -> Result<(), Error> {
    let (mut sink, mut heard) = socket.split();
    if greets {
        sink.send(message(Bytes::new(), messages)?).await?;
    }
    loop {
        tokio::select! {
            frame = body.frame() => match frame {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        sink.send(message(data, messages)?).await?;
                    }
                }
                Some(Err(error)) => return Err(Error::Io(error)),
                None => break,
            },
            said = heard.next() => match said {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error),
                None => return Ok(()),
            },
        }
    }
    let normal = CloseFrame { code: CloseCode::Normal, reason: "".into() };
    sink.send(Message::Close(Some(normal))).await?;
    sink.flush().await?;
    let goodbye = async { while heard.next().await.is_some_and(|said| said.is_ok()) {} };
    // Who does not answer has heard everything all the same.
    let _ = tokio::time::timeout(GOODBYE, goodbye).await;
    match heard.reunite(sink) {
        Ok(socket) => Ok(socket.into_inner().shutdown().await?),
        Err(_) => Ok(()), // they are of one socket
    }
}

fn message(data: Bytes, messages: Messages) -> Result<Message, Error> {
    Ok(match messages {
        Messages::Base64 => Message::text(STANDARD.encode(data)),
        Messages::Binary => Message::Binary(data),
        Messages::Text => Message::Text(Utf8Bytes::try_from(data).map_err(|_| Error::Utf8(String::new()))?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_a_uri() {
        for (text, expected) in [
            ("https://console.example", true),
            ("http://127.0.0.1:8080", true),
            ("http://[::1]:8080", true),
            ("chrome-extension://abc", true),
            ("file://", true),
            ("app:one", true),
            ("/", true),
            ("null", false),
            ("", false),
            ("console.example", false),
            ("://console.example", false),
            ("1x://console.example", false),
            ("https://a b", false),
            ("https://console.example:port", false),
        ] {
            assert_eq!(is_uri(text), expected, "{text:?}");
        }
    }
}
