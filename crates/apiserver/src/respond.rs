//! Answers: bodies, status objects, headers.

use std::convert::Infallible;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use object::Status;
use serde_json::Value;

/// Whatever a response carries: one buffer, a stream of chunks, a proxied body.
pub(crate) type Body = UnsyncBoxBody<Bytes, std::io::Error>;
pub(crate) type Answer = Response<Body>;

pub(crate) const JSON: &str = "application/json";

pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never: Infallible| match never {}).boxed_unsync()
}

pub(crate) fn bytes(code: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(full(body));
    *answer.status_mut() = code;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

pub(crate) fn json(code: StatusCode, value: &Value) -> Answer {
    bytes(code, JSON, value.to_string())
}

pub(crate) fn text(code: StatusCode, text: impl Into<String>) -> Answer {
    bytes(code, "text/plain; charset=utf-8", text.into())
}

/// A failure as `metav1.Status`.
pub(crate) fn failure(status: &Status) -> Answer {
    let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut answer = json(code, &status.to_json());
    if let Some(seconds) = status.retry_after_seconds {
        answer.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    answer
}

/// Adds a `Warning: 299` header for each text (RFC 7234, section 5.5, as upstream uses it).
pub(crate) fn warn(answer: &mut Answer, warnings: &[String]) {
    for text in warnings {
        let escaped = text.replace('\\', "\\\\").replace('"', "\\\"").replace(['\n', '\r'], " ");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{escaped}\"")) {
            answer.headers_mut().append(HeaderName::from_static("warning"), value);
        }
    }
}
