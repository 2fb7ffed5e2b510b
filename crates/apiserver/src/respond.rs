//! Answers: bodies, status objects, headers.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use object::Status;
use serde_json::Value;

use crate::indent::indented;
use crate::negotiate::{Media, Wants};
use crate::{body, cbor, compress, protobuf, yaml};

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

/// A tree as JSON, for whoever reads nothing else.
pub(crate) fn json(code: StatusCode, value: &Value) -> Answer {
    bytes(code, JSON, object::json::text(value))
}

/// The same in lines: what upstream writes without asking how it is read.
pub(crate) fn raw(code: StatusCode, value: &Value) -> Answer {
    bytes(code, JSON, format!("{value:#}"))
}

/// A failure says besides that it is text and nothing else, as Go's `http.Error` does.
pub(crate) fn text(code: StatusCode, text: impl Into<String>) -> Answer {
    let mut answer = bytes(code, "text/plain; charset=utf-8", text.into());
    if !code.is_success() {
        forbid_sniffing(answer.headers_mut());
    }
    answer
}

pub(crate) fn forbid_sniffing(headers: &mut HeaderMap) {
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
}

/// A path that leads nowhere, as Go's own server says it.
pub(crate) fn no_page() -> Answer {
    text(StatusCode::NOT_FOUND, "404 page not found\n")
}

/// Marks an answer whose encoding the client has chosen: it may be indented and compressed for them.
#[derive(Clone, Copy)]
struct Negotiated;

/// An answer in the encoding that was asked for, which may yet be indented and compressed.
pub(crate) fn negotiated(media: Media, code: StatusCode, body: Body) -> Answer {
    let mut answer = Response::new(body);
    *answer.status_mut() = code;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media.name()));
    answer.extensions_mut().insert(Negotiated);
    answer
}

/// Up to this size a text is copied for the sake of the line's end behind it.
const COPIED_BYTES: usize = 16 * 1024;

/// The same of a text that is there; in JSON it ends with its line.
pub(crate) fn encoded(media: Media, code: StatusCode, text: Bytes) -> Answer {
    let body = match media {
        Media::Json if text.len() > COPIED_BYTES => {
            Pieces([text, Bytes::from_static(b"\n")].into()).boxed_unsync()
        }
        Media::Json => full([&text, &b"\n"[..]].concat()),
        _ => full(text),
    };
    negotiated(media, code, body)
}

/// Texts one behind the other.
struct Pieces(VecDeque<Bytes>);

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        Poll::Ready(self.0.pop_front().map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.iter().map(|piece| piece.len() as u64).sum())
    }
}

/// A document that was made as a tree, in the encoding that was asked for.
pub(crate) fn document(media: Media, code: StatusCode, value: &Value) -> Answer {
    match encode(media, value) {
        Ok(text) => encoded(media, code, text.into()),
        Err(status) => failure(&status),
    }
}

/// A tree in this encoding.
pub(crate) fn encode(media: Media, value: &Value) -> Result<Vec<u8>, Status> {
    match media {
        Media::Cbor => Ok(cbor::encode(value)),
        Media::Json => Ok(object::json::text(value)),
        Media::Protobuf => protobuf::document(value),
        Media::Yaml => Ok(yaml::encode(value)),
    }
}

/// The `metav1.Status` of a failure, kept beside its JSON until it is known what the client reads.
#[derive(Clone)]
struct Failed(Value);

/// An answer as its client reads it best: a failure in their encoding, JSON indented for people, what is long compressed.
/// `above` has the bytes above which something is long.
pub(crate) fn finished(answer: Answer, wants: &Wants, above: usize) -> Answer {
    let mut answer = answer;
    let mut is_pretty = wants.pretty;
    if let Some(Failed(status)) = answer.extensions_mut().remove() {
        let media = wants.of_failure.unwrap_or(Media::Json);
        // Who reads nothing that is served may be a person.
        is_pretty |= wants.of_failure.is_none();
        if let (true, Ok(text)) = (media != Media::Json, encode(media, &status)) {
            *answer.body_mut() = full(text);
            answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media.name()));
        }
    }
    if answer.extensions_mut().remove::<Negotiated>().is_none() {
        return answer;
    }
    let is_long = answer.body().size_hint().exact().is_none_or(|bytes| bytes > above as u64);
    let media = answer.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    if is_pretty && (media == JSON.as_bytes() || media.starts_with(b"application/json;")) {
        answer = answer.map(|body| indented(body).boxed_unsync());
    }
    if is_long && wants.gzip {
        answer = answer.map(|body| compress::gzip(body).boxed_unsync());
        compress::mark(answer.headers_mut());
    }
    answer
}

/// A failure as `metav1.Status`.
pub(crate) fn failure(status: &Status) -> Answer {
    let mut answer = failure_document(status.code, status.to_json());
    if let Some(seconds) = status.retry_after_seconds {
        answer.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    warn(&mut answer, &status.warnings);
    answer
}

/// A failure that was made as a tree.
pub(crate) fn failure_document(code: u16, status: Value) -> Answer {
    let code = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut answer = encoded(Media::Json, code, status.to_string().into());
    answer.extensions_mut().insert(Failed(status));
    answer
}

/// So much of all warnings together is told whole; of more, each is told in part.
const WARNINGS_CHARS: usize = 4 * 1024;
const WARNING_CHARS: usize = 256;

/// Takes the warnings off an answer, for others to come first.
pub(crate) fn take_warnings(answer: &mut Answer) -> Vec<HeaderValue> {
    let taken = answer.headers().get_all(header::WARNING).iter().cloned().collect();
    answer.headers_mut().remove(header::WARNING);
    taken
}

pub(crate) fn give_warnings(answer: &mut Answer, warnings: Vec<HeaderValue>) {
    for warning in warnings {
        answer.headers_mut().append(header::WARNING, warning);
    }
}

/// Adds a `Warning: 299` header for each text (RFC 7234, section 5.5, as upstream uses it), and none twice.
pub(crate) fn warn(answer: &mut Answer, warnings: &[String]) {
    let name = HeaderName::from_static("warning");
    // What the reader of YAML found comes as one text.
    let warnings: Vec<&str> = warnings
        .iter()
        .flat_map(|text| match text.split_once(body::YAML_REPEATS) {
            Some((_, lines)) => lines.lines().map(str::trim).collect(),
            None => vec![&**text],
        })
        .collect();
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
