//! Answers: bodies, status objects, headers.

use std::convert::Infallible;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use object::Status;
use serde_json::Value;

use crate::negotiate::Media;
use crate::{cbor, protobuf, yaml};

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

/// A document that was made as a tree, in the encoding that was asked for.
pub(crate) fn document(media: Media, code: StatusCode, value: &Value) -> Answer {
    match encode(media, value) {
        Ok(text) => bytes(code, media.name(), text),
        Err(status) => failure(&status),
    }
}

/// A tree in this encoding.
pub(crate) fn encode(media: Media, value: &Value) -> Result<Vec<u8>, Status> {
    match media {
        Media::Cbor => Ok(cbor::encode(value)),
        Media::Json => Ok(value.to_string().into_bytes()),
        Media::Protobuf => protobuf::document(value),
        Media::Yaml => Ok(yaml::encode(value)),
    }
}

/// The `metav1.Status` of a failure, kept beside its JSON until it is known what the client reads.
#[derive(Clone)]
struct Failed(Value);

/// A failure in the encoding that its client reads; any other answer as it is.
pub(crate) fn retold(mut answer: Answer, media: Media) -> Answer {
    if media == Media::Json {
        return answer;
    }
    let Some(Failed(status)) = answer.extensions_mut().remove() else { return answer };
    if let Ok(text) = encode(media, &status) {
        *answer.body_mut() = full(text);
        answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media.name()));
    }
    answer
}

/// A failure as `metav1.Status`.
pub(crate) fn failure(status: &Status) -> Answer {
    let mut answer = failure_document(status.code, status.to_json());
    if let Some(seconds) = status.retry_after_seconds {
        answer.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    answer
}

/// A failure that was made as a tree.
pub(crate) fn failure_document(code: u16, status: Value) -> Answer {
    let code = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut answer = json(code, &status);
    answer.extensions_mut().insert(Failed(status));
    answer
}

/// So much of all warnings together is told whole; of more, each is told in part.
const WARNINGS_CHARS: usize = 4 * 1024;
const WARNING_CHARS: usize = 256;

/// Adds a `Warning: 299` header for each text (RFC 7234, section 5.5, as upstream uses it), and none twice.
pub(crate) fn warn(answer: &mut Answer, warnings: &[String]) {
    let name = HeaderName::from_static("warning");
    let all: usize = warnings.iter().map(|text| text.chars().count()).sum();
    let mut left = WARNINGS_CHARS;
    for text in warnings {
        let most = if all > WARNINGS_CHARS { WARNING_CHARS.min(left) } else { usize::MAX };
        let text: String = text.chars().take(most).collect();
        left = left.saturating_sub(text.chars().count());
        let escaped = text.replace('\\', "\\\\").replace('"', "\\\"").replace(['\n', '\r'], " ");
        let Ok(value) = HeaderValue::from_str(&format!("299 - \"{escaped}\"")) else { continue };
        let is_told = answer.headers().get_all(&name).iter().any(|told| *told == value);
        if !is_told && !text.is_empty() {
            answer.headers_mut().append(name.clone(), value);
        }
    }
}
