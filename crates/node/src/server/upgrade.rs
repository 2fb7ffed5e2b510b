//! From an HTTP request to a stream of the client's choice: a WebSocket (RFC 6455, section 4.2), or SPDY/3.1.

use std::time::Duration;

use http::header::{
    CONNECTION, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, UPGRADE,
};
use http::{Request, Response, StatusCode};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tracing::debug;

use super::reply::{Refusal, Reply, refuse};

/// Clients that send their whole input at once fit in; nobody can make us hold much more.
const MESSAGE_LIMIT_BYTES: usize = 4 << 20;
const TIMEOUT: Duration = Duration::from_secs(10);

const SPDY: &str = "SPDY/3.1";
/// Where SPDY names what is spoken on its streams.
const STREAM_PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");
const ACCEPTED_PROTOCOLS: HeaderName = HeaderName::from_static("x-accepted-stream-protocol-versions");

/// What is spoken here, in each way of speaking.
#[derive(Clone, Copy, Debug)]
pub struct Offer<'a> {
    /// Subprotocols of a WebSocket; `""` for a client that names none.
    pub websocket: &'a [&'static str],
    pub spdy: &'a [&'static str],
}

/// What was agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Agreed {
    WebSocket(&'static str),
    Spdy(&'static str),
}

/// A request that is answered with 101 and turns into a stream of bytes then.
#[derive(Debug)]
pub struct Upgrading(OnUpgrade);

impl Upgrading {
    /// The bytes, once the answer is sent. `None`: the client has left.
    pub async fn bytes(self) -> Option<TokioIo<Upgraded>> {
        match tokio::time::timeout(TIMEOUT, self.0).await {
            Ok(Ok(upgraded)) => Some(TokioIo::new(upgraded)),
            Ok(Err(error)) => {
                debug!(%error, "an upgrade failed");
                None
            }
            Err(_) => None,
        }
    }

    /// The bytes as a WebSocket.
    pub async fn socket(self) -> Option<WebSocketStream<TokioIo<Upgraded>>> {
        let bytes = self.bytes().await?;
        let config = WebSocketConfig::default()
            .max_message_size(Some(MESSAGE_LIMIT_BYTES))
            .max_frame_size(Some(MESSAGE_LIMIT_BYTES));
        Some(WebSocketStream::from_raw_socket(bytes, Role::Server, Some(config)).await)
    }
}

/// Agrees on the first of the client's protocols that the offer has. Returns the answer, what becomes of the connection,
/// and what is spoken on it.
///
/// # Errors
/// 400 for what is no upgrade, 403 without a common protocol, as upstream.
pub fn accept(
    request: &mut Request<hyper::body::Incoming>,
    offer: Offer<'_>,
) -> Result<(Response<Reply>, Upgrading, Agreed), Refusal> {
    let (response, agreed) = agree(request.headers(), offer)?;
    Ok((response, Upgrading(hyper::upgrade::on(request)), agreed))
}

fn agree(headers: &HeaderMap, offer: Offer<'_>) -> Result<(Response<Reply>, Agreed), Refusal> {
    let upgrade = words(headers, &UPGRADE);
    if !words(headers, &CONNECTION).iter().any(|word| word.eq_ignore_ascii_case("upgrade"))
        || upgrade.is_empty()
    {
        return Err(refuse(
            StatusCode::BAD_REQUEST,
            "unable to upgrade: missing upgrade headers in request: a WebSocket or SPDY/3.1 is needed here",
        ));
    }
    if upgrade.iter().any(|word| word.eq_ignore_ascii_case(SPDY)) {
        return agree_on_spdy(headers, offer.spdy);
    }
    agree_on_websocket(headers, &upgrade, offer.websocket)
}

fn agree_on_spdy(
    headers: &HeaderMap,
    supported: &[&'static str],
) -> Result<(Response<Reply>, Agreed), Refusal> {
    let asked = words(headers, &STREAM_PROTOCOL);
    if asked.is_empty() {
        let message = "unable to upgrade: X-Stream-Protocol-Version is required";
        return Err(refuse(StatusCode::BAD_REQUEST, message));
    }
    let protocol = common(&asked, supported)?;
    let mut response = switching(SPDY);
    let headers = response.headers_mut();
    headers.insert(STREAM_PROTOCOL, HeaderValue::from_static(protocol));
    for one in supported {
        headers.append(ACCEPTED_PROTOCOLS, HeaderValue::from_static(one));
    }
    Ok((response, Agreed::Spdy(protocol)))
}

fn agree_on_websocket(
    headers: &HeaderMap,
    upgrade: &[String],
    supported: &[&'static str],
) -> Result<(Response<Reply>, Agreed), Refusal> {
    let wrong = |message: &str| refuse(StatusCode::BAD_REQUEST, message);
    let key = headers.get(SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes);
    let version = headers.get("sec-websocket-version").map(HeaderValue::as_bytes);
    let Some(key) = key.filter(|_| upgrade.iter().any(|word| word.eq_ignore_ascii_case("websocket"))) else {
        return Err(wrong("unable to upgrade: a WebSocket (RFC 6455) or SPDY/3.1 is needed here"));
    };
    if version != Some(b"13") {
        return Err(wrong("unable to upgrade: WebSocket version 13 is needed"));
    }
    let mut asked = words(headers, &SEC_WEBSOCKET_PROTOCOL);
    if asked.is_empty() {
        asked.push(String::new());
    }
    let protocol = common(&asked, supported)?;
    let mut response = switching("websocket");
    let accept = HeaderValue::from_str(&derive_accept_key(key)).map_err(|error| wrong(&error.to_string()))?;
    let headers = response.headers_mut();
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    if !protocol.is_empty() {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
    }
    Ok((response, Agreed::WebSocket(protocol)))
}

fn switching(to: &'static str) -> Response<Reply> {
    let mut response = Response::new(Reply::Whole(None));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    response.headers_mut().insert(UPGRADE, HeaderValue::from_static(to));
    response
}

/// The first that the client asks for and we support.
fn common(asked: &[String], supported: &[&'static str]) -> Result<&'static str, Refusal> {
    let find = |asked: &String| supported.iter().copied().find(|one| one == asked);
    asked.iter().find_map(find).ok_or_else(|| {
        let known: Vec<&str> = supported.iter().copied().filter(|one| !one.is_empty()).collect();
        let message = format!(
            "unable to upgrade: unable to negotiate protocol: client supports [{}], server accepts [{}]",
            asked.join(" "),
            known.join(" ")
        );
        refuse(StatusCode::FORBIDDEN, message)
    })
}

/// What a header lists, over all its lines.
fn words(headers: &HeaderMap, name: &HeaderName) -> Vec<String> {
    let lines = headers.get_all(name).iter().filter_map(|line| line.to_str().ok());
    lines
        .flat_map(|line| line.split(','))
        .map(|word| word.trim().to_owned())
        .filter(|word| !word.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(lines: &[(&'static str, &'static str)], want: Result<Agreed, (u16, &str)>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_static(value));
        }
        let offer = Offer {
            websocket: &["v5.channel.k8s.io", "v4.channel.k8s.io", ""],
            spdy: &["v4.channel.k8s.io", "channel.k8s.io"],
        };
        match (agree(&headers, offer), want) {
            (Ok((response, agreed)), Ok(want)) => {
                assert_eq!(agreed, want);
                assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
                return response.headers().clone();
            }
            (Err(refusal), Err((code, part))) => {
                assert_eq!(refusal.code.as_u16(), code);
                assert!(refusal.message.contains(part), "{}", refusal.message);
            }
            (got, want) => panic!("{:?} is not {want:?}", got.map(|(_, agreed)| agreed)),
        }
        HeaderMap::new()
    }

    #[test]
    fn websockets_are_agreed_on() {
        // The key and the answer to it are those of RFC 6455, section 1.3.
        let base = [
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        let with = |protocol: &'static str| [&base[..], &[("sec-websocket-protocol", protocol)]].concat();
        let answer = check(&base, Ok(Agreed::WebSocket("")));
        assert_eq!(answer[SEC_WEBSOCKET_ACCEPT], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert!(!answer.contains_key(SEC_WEBSOCKET_PROTOCOL));
        let answer = check(&with("v5.channel.k8s.io"), Ok(Agreed::WebSocket("v5.channel.k8s.io")));
        assert_eq!(answer[SEC_WEBSOCKET_PROTOCOL], "v5.channel.k8s.io");
        check(
            &with("v9.channel.k8s.io, v4.channel.k8s.io,v5.channel.k8s.io"),
            Ok(Agreed::WebSocket("v4.channel.k8s.io")),
        );
        check(&with("SPDY/3.1+portforward.k8s.io"), Err((403, "unable to negotiate protocol")));
        check(&base[1..], Err((400, "missing upgrade headers")));
        check(&base[..3], Err((400, "WebSocket (RFC 6455)")));
        check(&[base[0], base[1], base[3]], Err((400, "version 13")));
    }

    #[test]
    fn spdy_is_agreed_on() {
        let base = [("connection", "Upgrade"), ("upgrade", "SPDY/3.1")];
        let with = |protocols: &[&'static str]| {
            let lines = protocols.iter().map(|one| ("x-stream-protocol-version", *one));
            base.into_iter().chain(lines).collect::<Vec<_>>()
        };
        let answer = check(&with(&["v9.k8s.io", "channel.k8s.io"]), Ok(Agreed::Spdy("channel.k8s.io")));
        assert_eq!(answer[STREAM_PROTOCOL], "channel.k8s.io");
        assert_eq!(answer[UPGRADE], "SPDY/3.1");
        check(&base, Err((400, "X-Stream-Protocol-Version is required")));
        check(&with(&["v5.channel.k8s.io"]), Err((403, "client supports [v5.channel.k8s.io]")));
        check(&[base[0], ("upgrade", "SPDY/2")], Err((400, "SPDY/3.1 is needed")));
    }
}
