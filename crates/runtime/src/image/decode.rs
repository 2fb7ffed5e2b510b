//! Decompression of layers and archives, told apart by their first bytes: gzip (RFC 1952), zstd (RFC 8878), or plain.
//! Several members or frames in a row are one stream, as seekable layers (eStargz, zstd:chunked) need.

use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use super::limits::{Limits, OverLimit};

/// The window a frame may ask for; `zstd --long=27` wants as much.
const ZSTD_WINDOW_BYTES: u64 = 128 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compression {
    None,
    Gzip,
    Zstd,
}

/// What the first bytes of a stream say; four are enough.
pub(super) fn sniff(head: &[u8]) -> Compression {
    match head {
        [0x1f, 0x8b, ..] => Compression::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Compression::Zstd,
        // A skippable frame, which zstd:chunked may start with.
        [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Compression::Zstd,
        _ => Compression::None,
    }
}

/// The decompressed stream, bounded in size and in ratio.
pub(super) struct Decoder<R: Read> {
    codec: Codec<R>,
    out_bytes: u64,
    total_bytes: u64,
    ratio: u64,
    ratio_floor_bytes: u64,
}

enum Codec<R: Read> {
    Plain(Counted<R>),
    Gzip(Box<MultiGzDecoder<Counted<R>>>),
    Zstd(Box<Zstd<R>>),
}

impl<R: Read> Decoder<R> {
    pub(super) fn new(raw: R, limits: &Limits) -> io::Result<Self> {
        let mut raw = Counted { inner: BufReader::with_capacity(128 << 10, raw), taken: 0 };
        let codec = match sniff(raw.inner.fill_buf()?) {
            Compression::None => Codec::Plain(raw),
            Compression::Gzip => Codec::Gzip(Box::new(MultiGzDecoder::new(raw))),
            Compression::Zstd => Codec::Zstd(Box::new(Zstd::new(raw))),
        };
        Ok(Decoder {
            codec,
            out_bytes: 0,
            total_bytes: limits.total_bytes,
            ratio: limits.ratio,
            ratio_floor_bytes: limits.ratio_floor_bytes,
        })
    }

    fn check(&self) -> Result<(), OverLimit> {
        if self.out_bytes > self.total_bytes {
            return Err(OverLimit { what: "the unpacked size", limit: self.total_bytes });
        }
        let in_bytes = match &self.codec {
            Codec::Plain(_) => return Ok(()),
            Codec::Gzip(gzip) => gzip.get_ref().taken,
            Codec::Zstd(zstd) => zstd.raw.taken,
        };
        if self.out_bytes > self.ratio_floor_bytes && self.out_bytes / in_bytes.max(1) > self.ratio {
            return Err(OverLimit { what: "the compression ratio", limit: self.ratio });
        }
        Ok(())
    }
}

impl<R: Read> Read for Decoder<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = match &mut self.codec {
            Codec::Plain(plain) => plain.read(buf)?,
            Codec::Gzip(gzip) => gzip.read(buf)?,
            Codec::Zstd(zstd) => zstd.read(buf)?,
        };
        self.out_bytes += n as u64;
        self.check().map_err(io::Error::other)?;
        Ok(n)
    }
}

/// Counts what is consumed, so that the ratio can be watched.
struct Counted<R> {
    inner: BufReader<R>,
    taken: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.taken += n as u64;
        Ok(n)
    }
}

impl<R: Read> BufRead for Counted<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.inner.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        self.taken += amount as u64;
        self.inner.consume(amount);
    }
}

struct Zstd<R: Read> {
    raw: Counted<R>,
    frame: FrameDecoder,
    in_frame: bool,
}

impl<R: Read> Zstd<R> {
    fn new(raw: Counted<R>) -> Self {
        let mut frame = FrameDecoder::new();
        frame.set_max_window_size(ZSTD_WINDOW_BYTES);
        Zstd { raw, frame, in_frame: false }
    }

    /// Moves to the next data frame; false at the end of the stream.
    fn start_frame(&mut self) -> io::Result<bool> {
        loop {
            if self.raw.fill_buf()?.is_empty() {
                return Ok(false);
            }
            match self.frame.reset(&mut self.raw) {
                Ok(()) => return Ok(true),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => {
                    let skipped = io::copy(&mut (&mut self.raw).take(length.into()), &mut io::sink())?;
                    if skipped < u64::from(length) {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                Err(error) => return Err(bad_zstd(error)),
            }
        }
    }
}

impl<R: Read> Read for Zstd<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            if !self.in_frame {
                if !self.start_frame()? {
                    return Ok(0);
                }
                self.in_frame = true;
            }
            if self.frame.can_collect() > 0 {
                return self.frame.read(buf);
            }
            if self.frame.is_finished() {
                self.in_frame = false;
                continue;
            }
            self.frame
                .decode_blocks(&mut self.raw, BlockDecodingStrategy::UptoBlocks(1))
                .map_err(bad_zstd)?;
        }
    }
}

fn bad_zstd(error: FrameDecoderError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("zstd: {error}"))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::write::GzEncoder;
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};

    use super::*;

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(data: &[u8]) -> Vec<u8> {
        compress_to_vec(data, CompressionLevel::Fastest)
    }

    fn decode(data: &[u8], limits: &Limits) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        Decoder::new(data, limits)?.read_to_end(&mut out)?;
        Ok(out)
    }

    #[test]
    fn members_and_frames_in_a_row_are_one_stream() {
        let text: Vec<u8> = (0..300_000u32).flat_map(u32::to_le_bytes).collect();
        let (first, second) = text.split_at(500_000);
        let skippable = [&0x184D_2A51u32.to_le_bytes()[..], &5u32.to_le_bytes(), b"table"].concat();
        let cases = [
            ("plain", text.clone()),
            ("gzip", gzip(&text)),
            ("gzip members", [gzip(first), gzip(second)].concat()),
            ("zstd", zstd(&text)),
            (
                "zstd frames",
                [skippable.clone(), zstd(first), skippable.clone(), zstd(second), skippable].concat(),
            ),
        ];
        for (name, data) in cases {
            let out = decode(&data, &Limits::default()).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert!(out == text, "{name}");
        }
        assert_eq!(decode(b"", &Limits::default()).unwrap(), b"");
    }

    #[test]
    fn cut_and_garbled_streams_fail() {
        let text = vec![7; 100_000];
        for packed in [gzip(&text), zstd(&text)] {
            for cut in [5, packed.len() / 2, packed.len() - 1] {
                assert!(
                    decode(&packed[..cut], &Limits::default()).is_err(),
                    "cut at {cut} of {}",
                    packed.len()
                );
            }
        }
        assert!(decode(&[zstd(b"x"), b"trailing".to_vec()].concat(), &Limits::default()).is_err());
    }

    #[test]
    fn bombs_are_stopped() {
        let bomb = vec![0; 4 << 20];
        let ratio = Limits { ratio: 100, ratio_floor_bytes: 1 << 20, ..Limits::default() };
        let total = Limits { total_bytes: 1 << 20, ..Limits::default() };
        for packed in [gzip(&bomb), zstd(&bomb)] {
            let error = decode(&packed, &ratio).unwrap_err().to_string();
            assert!(error.contains("compression ratio is over the limit of 100"), "{error}");
        }
        for packed in [gzip(&bomb), zstd(&bomb), bomb.clone()] {
            let error = decode(&packed, &total).unwrap_err().to_string();
            assert!(error.contains("unpacked size is over the limit"), "{error}");
        }
    }
}
