//! An answer as the messages of a WebSocket, for browsers: upstream's `wsstream.Reader`.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use object::Status;
use tokio::io::AsyncWriteExt;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::{Error, Message};
use tracing::debug;

use crate::authenticate::SUBPROTOCOL_TOKEN;
use crate::respond::{self, Answer, Body};

/// How long a client may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(5);
/// The subprotocols, and whether their messages are text in base64. The empty one is for who offers none.
const PROTOCOLS: [(&str, bool); 3] = [("", false), ("binary.k8s.io", false), ("base64.binary.k8s.io", true)];

/// A client that waits for its connection to become a WebSocket.
pub(crate) struct Opening {
    upgrade: OnUpgrade,
    accept: HeaderValue,
    protocol: &'static str,
    is_base64: bool,
}

/// Takes what asks for a WebSocket out of a request, so that the rest can be asked of a server that knows none.
///
/// # Errors
/// It asks for one in a way, or with subprotocols, that are not spoken here.
pub(crate) fn take(request: &mut Request<Incoming>) -> Result<Option<Opening>, Status> {
    let headers = request.headers();
    let is_asked = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"websocket");
    if !headers.get(header::UPGRADE).is_some_and(is_asked) {
        return Ok(None);
    }
    let key = headers.get(header::SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes);
    let key = key.ok_or_else(|| Status::bad_request("a WebSocket without Sec-WebSocket-Key"))?;
    let accept = HeaderValue::from_str(&derive_accept_key(key))
        .map_err(|error| Status::bad_request(format!("Sec-WebSocket-Key: {error}")))?;
    let (protocol, is_base64) = choose(headers)?;
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
    Ok(Some(Opening { upgrade: hyper::upgrade::on(request), accept, protocol, is_base64 }))
}

fn choose(headers: &HeaderMap) -> Result<(&'static str, bool), Status> {
    let lines = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    let words = lines.filter_map(|line| line.to_str().ok()).flat_map(|line| line.split(',')).map(str::trim);
    let offered: Vec<&str> = words.filter(|word| !word.starts_with(SUBPROTOCOL_TOKEN)).collect();
    if offered.is_empty() {
        return Ok(PROTOCOLS[0]);
    }
    let known = offered.iter().find_map(|word| PROTOCOLS.iter().find(|(name, _)| name == word));
    known.copied().ok_or_else(|| {
        Status::bad_request(format!(
            "none of the subprotocols {offered:?} is spoken here: binary.k8s.io, base64.binary.k8s.io"
        ))
    })
}

impl Opening {
    /// Begins the WebSocket; what the body gives follows as messages.
    pub(crate) fn answer(self, body: Body) -> Answer {
        let Self { upgrade, accept, protocol, is_base64 } = self;
        tokio::spawn(async move {
            let connection = match upgrade.await {
                Ok(connection) => TokioIo::new(connection),
                Err(error) => return debug!(%error, "a WebSocket was not begun"),
            };
            let socket = WebSocketStream::from_raw_socket(connection, Role::Server, None).await;
            if let Err(error) = relay(socket, body, is_base64).await {
                debug!(%error, "a WebSocket ended");
            }
        });
        let mut answer = respond::bytes(StatusCode::SWITCHING_PROTOCOLS, "text/plain", "");
        let headers = answer.headers_mut();
        headers.clear();
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
        if !protocol.is_empty() {
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
        }
        answer
    }
}

/// Until the body ends or the client goes.
async fn relay(
    socket: WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>,
    mut body: Body,
    is_base64: bool,
) -> Result<(), Error> {
    let (mut sink, mut heard) = socket.split();
    // The first one is empty, as upstream's: browsers hear that it has begun.
    sink.send(message(Bytes::new(), is_base64)).await?;
    loop {
        tokio::select! {
            frame = body.frame() => match frame {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        sink.send(message(data, is_base64)).await?;
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
    sink.close().await?;
    let goodbye = async { while heard.next().await.is_some_and(|said| said.is_ok()) {} };
    // Who does not answer has heard everything all the same.
    let _ = tokio::time::timeout(GOODBYE, goodbye).await;
    match heard.reunite(sink) {
        Ok(socket) => Ok(socket.into_inner().shutdown().await?),
        Err(_) => Ok(()), // they are of one socket
    }
}

fn message(data: Bytes, is_base64: bool) -> Message {
    if is_base64 { Message::text(STANDARD.encode(data)) } else { Message::Binary(data) }
}
