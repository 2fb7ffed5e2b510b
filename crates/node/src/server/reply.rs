//! Answers: texts and JSON whole, logs as they come.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::mpsc;

/// A body.
pub enum Reply {
    Whole(Option<Bytes>),
    /// Each item is sent on as it comes; an error cuts the connection, so that nobody takes a part for the whole.
    Stream(mpsc::Receiver<io::Result<Bytes>>),
}

impl Body for Reply {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self.get_mut() {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Stream(pieces) => pieces.poll_recv(context).map(|piece| Some(piece?.map(Frame::data))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Stream(_) => SizeHint::default(),
        }
    }
}

/// Why a request is not served: sent as plain text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub code: StatusCode,
    pub message: String,
}

pub fn refuse(code: StatusCode, message: impl Into<String>) -> Refusal {
    Refusal { code, message: message.into() }
}

impl Refusal {
    pub fn into_response(self) -> Response<Reply> {
        let mut response = whole("text/plain; charset=utf-8", self.message);
        *response.status_mut() = self.code;
        response
    }
}

pub fn text(text: &'static str) -> Response<Reply> {
    whole("text/plain; charset=utf-8", text)
}

pub fn json(text: String) -> Response<Reply> {
    whole("application/json", text)
}

/// In the text format of Prometheus.
pub fn metrics(text: String) -> Response<Reply> {
    whole("text/plain; version=0.0.4; charset=utf-8", text)
}

pub fn stream(pieces: mpsc::Receiver<io::Result<Bytes>>) -> Response<Reply> {
    let mut response = Response::new(Reply::Stream(pieces));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}

fn whole(content_type: &'static str, body: impl Into<Bytes>) -> Response<Reply> {
    let mut response = Response::new(Reply::Whole(Some(body.into())));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
