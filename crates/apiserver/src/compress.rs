//! gzip of long answers (RFC 1952), chunk by chunk.

use std::io::{Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use http::{HeaderMap, HeaderValue, header};
use http_body::{Body, Frame};

/// A body whose data is compressed as it passes.
pub(crate) struct Gzip<B> {
    inner: B,
    /// None: the end has been written.
    encoder: Option<GzEncoder<Vec<u8>>>,
}

pub(crate) fn gzip<B>(inner: B) -> Gzip<B> {
    Gzip { inner, encoder: Some(GzEncoder::new(Vec::new(), Compression::fast())) }
}

/// Says in the headers what was done to the body.
pub(crate) fn mark(headers: &mut HeaderMap) {
    headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    headers.append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
}

/// A whole buffer at once.
pub(crate) fn bytes(plain: &[u8]) -> std::io::Result<Bytes> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(plain)?;
    encoder.finish().map(Bytes::from)
}

/// What [`bytes`] made, as it was.
pub(crate) fn unpack(small: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut plain = Vec::with_capacity(small.len() * 8);
    GzDecoder::new(small).read_to_end(&mut plain)?;
    Ok(plain)
}

impl<B: Body<Data = Bytes, Error = std::io::Error> + Unpin> Body for Gzip<B> {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        let this = &mut *self;
        loop {
            let Some(encoder) = &mut this.encoder else { return Poll::Ready(None) };
            let frame = match ready!(Pin::new(&mut this.inner).poll_frame(context)) {
                Some(frame) => frame?,
                None => {
                    let rest = this.encoder.take().map(GzEncoder::finish).transpose()?;
                    return Poll::Ready(rest.map(|rest| Ok(Frame::data(rest.into()))));
                }
            };
            if let Ok(data) = frame.into_data() {
                encoder.write_all(&data)?;
                let ready = std::mem::take(encoder.get_mut());
                if !ready.is_empty() {
                    return Poll::Ready(Some(Ok(Frame::data(ready.into()))));
                }
            }
        }
    }
}
