//! From an HTTP request to a WebSocket: RFC 6455, section 4.2.

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

pub type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// A request that is answered with 101 and turns into a socket then.
#[derive(Debug)]
pub struct Upgrading(OnUpgrade);

impl Upgrading {
    /// The socket, once the answer is sent. `None`: the client has left.
    pub async fn socket(self) -> Option<Socket> {
        let upgraded = match tokio::time::timeout(TIMEOUT, self.0).await {
            Ok(Ok(upgraded)) => upgraded,
            Ok(Err(error)) => {
                debug!(%error, "an upgrade failed");
                return None;
            }
            Err(_) => return None,
        };
        let config = WebSocketConfig::default()
            .max_message_size(Some(MESSAGE_LIMIT_BYTES))
            .max_frame_size(Some(MESSAGE_LIMIT_BYTES));
        Some(WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await)
    }
}

/// Agrees on the first of the client's subprotocols that `supported` has; a client that names none gets `""`, if that
/// is supported. Returns the answer, its socket to be, and the protocol.
///
/// # Errors
/// 400 for what is no upgrade to a WebSocket, 403 without a common protocol, as upstream.
pub fn accept(
    request: &mut Request<hyper::body::Incoming>,
    supported: &[&'static str],
) -> Result<(Response<Reply>, Upgrading, &'static str), Refusal> {
    let (response, protocol) = agree(request.headers(), supported)?;
    Ok((response, Upgrading(hyper::upgrade::on(request)), protocol))
}

fn agree(
    headers: &HeaderMap,
    supported: &[&'static str],
) -> Result<(Response<Reply>, &'static str), Refusal> {
    let wrong = |message: &str| refuse(StatusCode::BAD_REQUEST, message);
    let upgrade = words(headers, UPGRADE);
    if !words(headers, CONNECTION).iter().any(|word| word.eq_ignore_ascii_case("upgrade"))
        || upgrade.is_empty()
    {
        return Err(wrong(
            "unable to upgrade: missing upgrade headers in request: a WebSocket is needed here",
        ));
    }
    if upgrade.iter().any(|word| word.to_ascii_uppercase().starts_with("SPDY/")) {
        return Err(wrong(
            "unable to upgrade: this node does not speak SPDY, which kubectl port-forward needs; kubectl exec and attach speak WebSocket from 1.31 on",
        ));
    }
    let key = headers.get(SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes);
    let version = headers.get("sec-websocket-version").map(HeaderValue::as_bytes);
    let Some(key) = key.filter(|_| upgrade.iter().any(|word| word.eq_ignore_ascii_case("websocket"))) else {
        return Err(wrong("unable to upgrade: a WebSocket (RFC 6455) is needed here"));
    };
    if version != Some(b"13") {
        return Err(wrong("unable to upgrade: WebSocket version 13 is needed"));
    }
    let asked = words(headers, SEC_WEBSOCKET_PROTOCOL);
    let find = |asked: &str| supported.iter().copied().find(|one| *one == asked);
    let agreed = if asked.is_empty() { find("") } else { asked.iter().find_map(|one| find(one)) };
    let Some(protocol) = agreed else {
        let known: Vec<&str> = supported.iter().copied().filter(|one| !one.is_empty()).collect();
        let message = format!(
            "unable to upgrade: unable to negotiate protocol: client supports [{}], server accepts [{}]",
            asked.join(" "),
            known.join(" ")
        );
        return Err(refuse(StatusCode::FORBIDDEN, message));
    };
    let mut response = Response::new(Reply::Whole(None));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let accept = HeaderValue::from_str(&derive_accept_key(key)).map_err(|error| wrong(&error.to_string()))?;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    if !protocol.is_empty() {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
    }
    Ok((response, protocol))
}

/// What a header lists, over all its lines.
fn words(headers: &HeaderMap, name: HeaderName) -> Vec<String> {
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

    fn check(lines: &[(&'static str, &'static str)], want: Result<(&str, &str), (u16, &str)>) {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_static(value));
        }
        match (agree(&headers, &["v5.channel.k8s.io", "v4.channel.k8s.io", ""]), want) {
            (Ok((response, protocol)), Ok((want, accept))) => {
                assert_eq!(protocol, want);
                assert_eq!(response.headers()[SEC_WEBSOCKET_ACCEPT], accept);
                assert_eq!(response.headers().contains_key(SEC_WEBSOCKET_PROTOCOL), !want.is_empty());
            }
            (Err(refusal), Err((code, part))) => {
                assert_eq!(refusal.code.as_u16(), code);
                assert!(refusal.message.contains(part), "{}", refusal.message);
            }
            (got, want) => panic!("{:?} is not {want:?}", got.map(|(_, protocol)| protocol)),
        }
    }

    #[test]
    fn protocols_are_agreed_on() {
        // The key and the answer to it are those of RFC 6455, section 1.3.
        let base = [
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
        let with = |protocol: &'static str| [&base[..], &[("sec-websocket-protocol", protocol)]].concat();
        check(&base, Ok(("", ACCEPT)));
        check(&with("v5.channel.k8s.io"), Ok(("v5.channel.k8s.io", ACCEPT)));
        check(
            &with("v9.channel.k8s.io, v4.channel.k8s.io,v5.channel.k8s.io"),
            Ok(("v4.channel.k8s.io", ACCEPT)),
        );
        check(&with("SPDY/3.1+portforward.k8s.io"), Err((403, "unable to negotiate protocol")));
        check(&base[1..], Err((400, "missing upgrade headers")));
        check(&base[..3], Err((400, "WebSocket (RFC 6455) is needed")));
        check(&[base[0], ("upgrade", "SPDY/3.1")], Err((400, "does not speak SPDY")));
        check(&[base[0], base[1], base[3]], Err((400, "version 13")));
    }
}
