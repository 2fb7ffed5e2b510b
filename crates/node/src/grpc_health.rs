//! One question of the gRPC health protocol, as a probe asks it.
//!
//! <https://github.com/grpc/grpc/blob/master/doc/health-checking.md>. Both messages have one field, so that they are put together by hand:
//! `HealthCheckRequest{1: service}` and `HealthCheckResponse{1: status}`.

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::task::Task;

const PATH: &str = "/grpc.health.v1.Health/Check";
/// An answer is a few bytes.
const ANSWER_LIMIT: usize = 1 << 10;
const SERVING: u64 = 1;
const UNIMPLEMENTED: &str = "12";

/// Asks for a service; the error is the probe's, in upstream's words.
pub async fn check(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    authority: &str,
    service: &str,
) -> Result<(), String> {
    let failed = |error: &dyn std::fmt::Display| format!("error: health rpc probe failed: {error}");
    let (mut sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.map_err(|error| failed(&error))?;
    let _connection = Task::spawn(async move {
        // How it ends is told by the answer.
        let _ = connection.await;
    });
    let request = Request::post(format!("http://{authority}{PATH}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", "kube-probe/1.36")
        .body(Full::new(question(service)))
        .map_err(|error| failed(&error))?;
    let response = sender.send_request(request).await.map_err(|error| failed(&error))?;
    let (head, body) = response.into_parts();
    let body = Limited::new(body, ANSWER_LIMIT).collect().await.map_err(|error| failed(&error))?;
    // A server that has nothing to say sends its status with the headers.
    let trailers = body.trailers().cloned().unwrap_or(head.headers);
    verdict(&trailers, &body.to_bytes())
}

fn question(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(1 << 3 | 2);
        put_varint(&mut message, service.len() as u64);
        message.put_slice(service.as_bytes());
    }
    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    framed.put(message);
    framed.freeze()
}

fn put_varint(to: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        to.put_u8((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    to.put_u8(value as u8);
}

fn verdict(trailers: &HeaderMap, body: &[u8]) -> Result<(), String> {
    let text = |name: &str| trailers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    match text("grpc-status") {
        "0" => {}
        UNIMPLEMENTED => {
            let why = text("grpc-message");
            return Err(format!(
                "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {why}"
            ));
        }
        "" => return Err("error: health rpc probe failed: the answer has no grpc-status".into()),
        code => {
            return Err(format!(
                "error: health rpc probe failed: code = {code} desc = {}",
                text("grpc-message")
            ));
        }
    }
    match status(body) {
        Some(SERVING) => Ok(()),
        other => {
            let name = match other {
                Some(0) => "UNKNOWN",
                Some(2) => "NOT_SERVING",
                Some(3) => "SERVICE_UNKNOWN",
                _ => "an answer that cannot be read",
            };
            Err(format!("service unhealthy (responded with \"{name}\")"))
        }
    }
}

/// The status in a framed answer: UNKNOWN if it is left out, none if the frame is not as it should be.
fn status(body: &[u8]) -> Option<u64> {
    let (head, message) = body.split_at_checked(5)?;
    let length = u32::from_be_bytes(head[1..5].try_into().ok()?);
    if head[0] != 0 || message.len() != usize::try_from(length).ok()? {
        return None;
    }
    match message {
        [] => Some(0),
        [8, value] => Some(u64::from(*value)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_as_the_protocol_says() {
        assert_eq!(question("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(question("a.b")[..], [0, 0, 0, 0, 5, 10, 3, b'a', b'.', b'b']);
        assert_eq!(question(&"x".repeat(300))[..8], [0, 0, 0, 1, 47, 10, 0xac, 2]);
    }

    #[test]
    fn only_serving_is_healthy() {
        let answered = |code: &str, body: &[u8]| {
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", code.parse().expect("a value"));
            verdict(&trailers, body)
        };
        assert_eq!(answered("0", &[0, 0, 0, 0, 2, 8, 1]), Ok(()));
        for (code, body, said) in [
            ("0", &[0, 0, 0, 0, 2, 8, 2][..], "service unhealthy (responded with \"NOT_SERVING\")"),
            ("0", &[0, 0, 0, 0, 0], "service unhealthy (responded with \"UNKNOWN\")"),
            (
                "0",
                &[0, 0, 0, 0, 9, 8, 1],
                "service unhealthy (responded with \"an answer that cannot be read\")",
            ),
            (
                "12",
                &[],
                "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): ",
            ),
            ("5", &[], "error: health rpc probe failed: code = 5 desc = "),
        ] {
            assert_eq!(answered(code, body), Err(said.to_owned()));
        }
        assert!(verdict(&HeaderMap::new(), &[]).is_err());
    }

    #[tokio::test]
    async fn a_server_is_asked_over_http2() {
        let (here, there) = tokio::io::duplex(1 << 16);
        let service = hyper::service::service_fn(|request: Request<hyper::body::Incoming>| async move {
            assert_eq!(request.uri().path(), PATH);
            let asked = request.into_body().collect().await?.to_bytes();
            let code = if asked[..] == question("web")[..] { 1 } else { 2 };
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
            let body = Full::new(Bytes::from(vec![0, 0, 0, 0, 2, 8, code]));
            let body = body.with_trailers(std::future::ready(Some(Ok(trailers))));
            Ok::<_, hyper::Error>(http::Response::new(body))
        });
        let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        let _server = Task::spawn(async move {
            let _ = server.serve_connection(TokioIo::new(there), service).await;
        });
        assert_eq!(check(here, "10.0.0.1:80", "web").await, Ok(()));
    }
}
