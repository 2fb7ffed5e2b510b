//! Frames to bytes and back.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::headers::{Headers, Packer, Unpacker};

const VERSION: u16 = 3;
const HEADER_BYTES: usize = 8;
/// Of a control frame that is looked into.
const CONTROL_LIMIT_BYTES: usize = 32 << 10;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;

const FLAG_FIN: u8 = 1;
const FLAG_UNIDIRECTIONAL: u8 = 2;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    SynStream {
        stream: u32,
        fin: bool,
        unidirectional: bool,
        headers: Headers,
    },
    SynReply {
        stream: u32,
        fin: bool,
        headers: Headers,
    },
    RstStream {
        stream: u32,
        status: u32,
    },
    Ping {
        id: u32,
    },
    GoAway {
        last_stream: u32,
        status: u32,
    },
    Headers {
        stream: u32,
        fin: bool,
        headers: Headers,
    },
    /// A long one is decoded in several parts; the last part has the `fin`.
    Data {
        stream: u32,
        fin: bool,
        data: Bytes,
    },
}

/// Why a connection cannot go on: its bytes are no SPDY/3.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    #[error("a frame of SPDY version {0}, and not 3")]
    Version(u16),
    #[error("a control frame of type {kind} with {length} bytes; the limit is {CONTROL_LIMIT_BYTES}")]
    TooLong { kind: u16, length: usize },
    #[error("a header block unpacks to more than the limit")]
    HeadersTooLong,
    #[error("malformed: {0}")]
    Malformed(&'static str),
    #[error("header compression: {0}")]
    Zlib(String),
}

/// Bytes of one direction to frames.
pub struct Decoder {
    unpacker: Unpacker,
    rest: Rest,
}

/// What is still to come of a frame that is not held whole.
enum Rest {
    None,
    Data {
        stream: u32,
        fin: bool,
        left: usize,
    },
    /// Of a frame that is read over: SETTINGS, WINDOW_UPDATE, CREDENTIAL, and what nobody knows.
    Skipped {
        left: usize,
    },
}

/// What the head of a frame led to.
enum Begun {
    Whole(Frame),
    /// For the rest of a control frame.
    Waits,
    /// It is given or skipped in parts.
    HasRest,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { unpacker: Unpacker::new(), rest: Rest::None }
    }
}

impl Decoder {
    /// The next frame in the buffer, which it is taken out of; none if more bytes are needed. Holds no more than a control
    /// frame's limit.
    ///
    /// # Errors
    /// When the bytes are no SPDY/3; what follows them makes no sense then.
    pub fn next(&mut self, buffer: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        loop {
            match &mut self.rest {
                Rest::Data { left, .. } if *left > 0 && buffer.is_empty() => return Ok(None),
                Rest::Data { stream, fin, left } => {
                    let data = buffer.split_to(buffer.len().min(*left)).freeze();
                    *left -= data.len();
                    let (stream, fin, is_last) = (*stream, *fin, *left == 0);
                    if is_last {
                        self.rest = Rest::None;
                    }
                    return Ok(Some(Frame::Data { stream, fin: fin && is_last, data }));
                }
                Rest::Skipped { left } => {
                    let skipped = buffer.len().min(*left);
                    buffer.advance(skipped);
                    *left -= skipped;
                    if *left > 0 {
                        return Ok(None);
                    }
                    self.rest = Rest::None;
                }
                Rest::None => {
                    let Some(head) = buffer.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
                    match self.begin(*head, buffer)? {
                        Begun::Whole(frame) => return Ok(Some(frame)),
                        Begun::Waits => return Ok(None),
                        Begun::HasRest => {}
                    }
                }
            }
        }
    }

    fn begin(&mut self, head: [u8; HEADER_BYTES], buffer: &mut BytesMut) -> Result<Begun, FrameError> {
        let [a, b, c, d, flags, length @ ..] = head;
        let length = usize::from(length[0]) << 16 | usize::from(length[1]) << 8 | usize::from(length[2]);
        if a & 0x80 == 0 {
            buffer.advance(HEADER_BYTES);
            let stream = u32::from_be_bytes([a, b, c, d]);
            self.rest = Rest::Data { stream, fin: flags & FLAG_FIN != 0, left: length };
            return Ok(Begun::HasRest);
        }
        let version = u16::from_be_bytes([a & 0x7f, b]);
        if version != VERSION {
            return Err(FrameError::Version(version));
        }
        let kind = u16::from_be_bytes([c, d]);
        if !matches!(kind, SYN_STREAM | SYN_REPLY | RST_STREAM | PING | GOAWAY | HEADERS) {
            buffer.advance(HEADER_BYTES);
            self.rest = Rest::Skipped { left: length };
            return Ok(Begun::HasRest);
        }
        if length > CONTROL_LIMIT_BYTES {
            return Err(FrameError::TooLong { kind, length });
        }
        if buffer.len() < HEADER_BYTES + length {
            return Ok(Begun::Waits);
        }
        buffer.advance(HEADER_BYTES);
        let body = buffer.split_to(length).freeze();
        self.control(kind, flags, body).map(Begun::Whole)
    }

    fn control(&mut self, kind: u16, flags: u8, mut body: Bytes) -> Result<Frame, FrameError> {
        let fin = flags & FLAG_FIN != 0;
        let first = number(&mut body)?;
        // The highest bit of a stream's number is reserved.
        let stream = first & 0x7fff_ffff;
        Ok(match kind {
            SYN_STREAM => {
                // An associated stream, a priority and a slot: nobody minds them.
                if body.len() < 6 {
                    return Err(FrameError::Malformed("a cut SYN_STREAM"));
                }
                body.advance(6);
                let unidirectional = flags & FLAG_UNIDIRECTIONAL != 0;
                Frame::SynStream { stream, fin, unidirectional, headers: self.unpacker.unpack(&body)? }
            }
            SYN_REPLY => Frame::SynReply { stream, fin, headers: self.unpacker.unpack(&body)? },
            HEADERS => Frame::Headers { stream, fin, headers: self.unpacker.unpack(&body)? },
            RST_STREAM => Frame::RstStream { stream, status: number(&mut body)? },
            GOAWAY => Frame::GoAway { last_stream: stream, status: number(&mut body)? },
            _ => Frame::Ping { id: first },
        })
    }
}

fn number(body: &mut Bytes) -> Result<u32, FrameError> {
    body.try_get_u32().map_err(|_| FrameError::Malformed("a cut control frame"))
}

/// Frames of one direction to bytes.
pub struct Encoder {
    packer: Packer,
}

impl Encoder {
    /// # Errors
    /// When zlib does not take its dictionary.
    pub fn new() -> Result<Self, FrameError> {
        Ok(Self { packer: Packer::new()? })
    }

    /// Appends a frame; its data must be shorter than 16 MiB.
    ///
    /// # Errors
    /// When headers cannot be packed.
    pub fn encode(&mut self, frame: &Frame, to: &mut BytesMut) -> Result<(), FrameError> {
        let fin = |fin: bool| if fin { FLAG_FIN } else { 0 };
        match frame {
            Frame::SynStream { stream, fin: ends, unidirectional, headers } => {
                let packed = self.packer.pack(headers)?;
                let flags = fin(*ends) | if *unidirectional { FLAG_UNIDIRECTIONAL } else { 0 };
                control(SYN_STREAM, flags, 10 + packed.len(), to);
                to.put_u32(*stream);
                to.put_bytes(0, 6);
                to.put_slice(&packed);
            }
            Frame::SynReply { stream, fin: ends, headers } => {
                self.with_headers(SYN_REPLY, fin(*ends), *stream, headers, to)?;
            }
            Frame::Headers { stream, fin: ends, headers } => {
                self.with_headers(HEADERS, fin(*ends), *stream, headers, to)?;
            }
            Frame::RstStream { stream, status } => numbers(RST_STREAM, &[*stream, *status], to),
            Frame::Ping { id } => numbers(PING, &[*id], to),
            Frame::GoAway { last_stream, status } => numbers(GOAWAY, &[*last_stream, *status], to),
            Frame::Data { stream, fin: ends, data } => {
                to.put_u32(*stream);
                put_flags_and_length(fin(*ends), data.len(), to);
                to.put_slice(data);
            }
        }
        Ok(())
    }

    fn with_headers(
        &mut self,
        kind: u16,
        flags: u8,
        stream: u32,
        headers: &Headers,
        to: &mut BytesMut,
    ) -> Result<(), FrameError> {
        let packed = self.packer.pack(headers)?;
        control(kind, flags, 4 + packed.len(), to);
        to.put_u32(stream);
        to.put_slice(&packed);
        Ok(())
    }
}

fn numbers(kind: u16, body: &[u32], to: &mut BytesMut) {
    control(kind, 0, 4 * body.len(), to);
    body.iter().for_each(|number| to.put_u32(*number));
}

fn control(kind: u16, flags: u8, length: usize, to: &mut BytesMut) {
    to.put_u16(0x8000 | VERSION);
    to.put_u16(kind);
    put_flags_and_length(flags, length, to);
}

fn put_flags_and_length(flags: u8, length: usize, to: &mut BytesMut) {
    to.put_u32(u32::from(flags) << 24 | (length as u32 & 0x00ff_ffff));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame() -> impl Strategy<Value = Frame> {
        let headers = || {
            prop::collection::btree_map("[a-z]{1,9}", "[ -~]{0,40}", 0..4).prop_map(|pairs| {
                let pairs: Vec<_> = pairs.iter().map(|(name, value)| (&**name, &**value)).collect();
                Headers::new(&pairs)
            })
        };
        let stream = || 0_u32..0x8000_0000;
        prop_oneof![
            (stream(), any::<bool>(), any::<bool>(), headers()).prop_map(
                |(stream, fin, unidirectional, headers)| Frame::SynStream {
                    stream,
                    fin,
                    unidirectional,
                    headers
                }
            ),
            (stream(), any::<bool>(), headers()).prop_map(|(stream, fin, headers)| Frame::SynReply {
                stream,
                fin,
                headers
            }),
            (stream(), any::<bool>(), headers()).prop_map(|(stream, fin, headers)| Frame::Headers {
                stream,
                fin,
                headers
            }),
            (stream(), any::<u32>()).prop_map(|(stream, status)| Frame::RstStream { stream, status }),
            (stream(), any::<u32>()).prop_map(|(last_stream, status)| Frame::GoAway { last_stream, status }),
            any::<u32>().prop_map(|id| Frame::Ping { id }),
            (stream(), any::<bool>(), prop::collection::vec(any::<u8>(), 0..300))
                .prop_map(|(stream, fin, data)| Frame::Data { stream, fin, data: data.into() }),
        ]
    }

    /// The frames of some bytes that come in pieces; parts of one data frame are put together again.
    fn decode(bytes: &[u8], piece: usize) -> Result<Vec<Frame>, FrameError> {
        let (mut decoder, mut buffer, mut frames) =
            (Decoder::default(), BytesMut::new(), Vec::<Frame>::new());
        let mut is_open = false;
        for piece in bytes.chunks(piece) {
            buffer.extend_from_slice(piece);
            while let Some(next) = decoder.next(&mut buffer)? {
                match (frames.last_mut(), next) {
                    (Some(Frame::Data { data, fin, .. }), Frame::Data { data: more, fin: ends, .. })
                        if is_open =>
                    {
                        *data = [&data[..], &more[..]].concat().into();
                        *fin = ends;
                    }
                    (_, next) => frames.push(next),
                }
                is_open = !matches!(decoder.rest, Rest::None);
            }
        }
        Ok(frames)
    }

    proptest! {
        #[test]
        fn frames_come_back_however_they_are_cut(frames in prop::collection::vec(frame(), 1..20), piece in 1_usize..400) {
            let (mut encoder, mut bytes) = (Encoder::new().expect("an encoder"), BytesMut::new());
            for frame in &frames {
                encoder.encode(frame, &mut bytes).expect("encoded");
            }
            prop_assert_eq!(decode(&bytes, piece).expect("decoded"), frames);
        }

        #[test]
        fn any_bytes_are_frames_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..2_000), piece in 1_usize..99) {
            // No panic, and an end.
            let _ = decode(&bytes, piece);
        }

        #[test]
        fn a_flipped_bit_is_a_frame_or_refused(frames in prop::collection::vec(frame(), 1..9), at in any::<prop::sample::Index>(), bit in 0_u8..8) {
            let (mut encoder, mut bytes) = (Encoder::new().expect("an encoder"), BytesMut::new());
            for frame in &frames {
                encoder.encode(frame, &mut bytes).expect("encoded");
            }
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            let _ = decode(&bytes, 64);
        }
    }

    #[test]
    fn what_is_no_frame_of_ours_is_refused_or_read_over() {
        let check = |bytes: &[u8], want: Result<usize, &str>| match (decode(bytes, 7), want) {
            (Ok(frames), Ok(count)) => assert_eq!(frames.len(), count, "{frames:?}"),
            (Err(error), Err(want)) => assert!(error.to_string().contains(want), "{error}"),
            (got, want) => panic!("{got:?} is not {want:?}"),
        };
        let ping = [0x80, 3, 0, 6, 0, 0, 0, 4, 0, 0, 0, 1];
        let settings = [0x80, 3, 0, 4, 0, 0, 0, 4, 0, 0, 0, 0];
        let window = [0x80, 3, 0, 9, 0, 0, 0, 8, 0, 0, 0, 1, 0, 0, 0, 9];
        check(&[&settings[..], &ping, &window, &ping].concat(), Ok(2));
        check(&[0x80, 2, 0, 6, 0, 0, 0, 4, 0, 0, 0, 1], Err("version 2"));
        check(&[0x80, 3, 0, 1, 0, 1, 0, 0], Err("65536 bytes"));
        check(&[0x80, 3, 0, 1, 0, 0, 0, 4, 0, 0, 0, 1], Err("cut SYN_STREAM"));
        check(&[0x80, 3, 0, 6, 0, 0, 0, 2, 0, 0], Err("cut control frame"));
        check(&[0x80, 3, 0, 2, 0, 0, 0, 6, 0, 0, 0, 1, 9, 9], Err("header compression"));
    }
}
