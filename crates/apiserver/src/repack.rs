//! Compressed text that is changed on its way: unpacked, handed to whoever changes it, and packed again as it was.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::{DeflateDecoder, DeflateEncoder, GzDecoder, GzEncoder, ZlibDecoder, ZlibEncoder};

/// So much is unpacked at a time: what packs well becomes a thousand times as long, and never all of it at once.
const PIECE_BYTES: usize = 1024;

/// The content codings of HTTP that are known; `deflate` is sent with a head (RFC 9110, section 8.4.1.2) and without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coding {
    Deflate,
    Gzip,
}

impl Coding {
    pub(crate) fn named(name: &str) -> Option<Self> {
        match name.trim() {
            "deflate" => Some(Self::Deflate),
            "gzip" => Some(Self::Gzip),
            _ => None,
        }
    }
}

/// A text on its way.
pub(crate) struct Repack {
    coding: Coding,
    /// From the first byte on, which tells whether there is a head.
    way: Option<Way>,
    plain: Sink,
    packed: Sink,
}

/// What takes in the packed text, and what packs it again; the latter writes its end when it is dropped.
struct Way {
    unpack: Box<dyn Write + Send>,
    /// The packed text has ended.
    is_over: bool,
    pack: Box<dyn Write + Send>,
}

impl Repack {
    pub(crate) fn new(coding: Coding) -> Self {
        Self { coding, way: None, plain: Sink::default(), packed: Sink::default() }
    }

    /// Packed text in pieces to feed one after another: others have their turn between them.
    pub(crate) fn pieces(mut bytes: Bytes) -> impl Iterator<Item = Bytes> {
        std::iter::from_fn(move || (!bytes.is_empty()).then(|| bytes.split_to(PIECE_BYTES.min(bytes.len()))))
    }

    /// What goes on of one more piece of packed text, as `change` makes it.
    ///
    /// # Errors
    /// It is not packed as it says.
    pub(crate) fn feed(
        &mut self,
        bytes: &[u8],
        change: impl FnOnce(&[u8]) -> Vec<u8>,
    ) -> io::Result<Vec<u8>> {
        let Some(first) = bytes.first() else { return Ok(Vec::new()) };
        let (coding, plain, packed) = (self.coding, &self.plain, &self.packed);
        let way = self.way.get_or_insert_with(|| Way::new(coding, *first, plain, packed));
        way.unpack(coding, bytes, plain)?;
        way.pack.write_all(&change(&plain.take()))?;
        // A page may be told slowly, and is read as it comes.
        way.pack.flush()?;
        Ok(packed.take())
    }

    /// The end of the packed text, behind what was held back of the plain one.
    ///
    /// # Errors
    /// Those of writing to memory: none.
    pub(crate) fn end(&mut self, rest: &[u8]) -> io::Result<Vec<u8>> {
        if let Some(mut way) = self.way.take() {
            way.pack.write_all(rest)?;
        }
        Ok(self.packed.take())
    }
}

impl Way {
    fn new(coding: Coding, first: u8, plain: &Sink, packed: &Sink) -> Self {
        const HEAD: u8 = 0x78;
        let (plain, packed, level) = (plain.clone(), packed.clone(), Compression::fast());
        match coding {
            Coding::Gzip => Self {
                unpack: Box::new(GzDecoder::new(plain)),
                is_over: false,
                pack: Box::new(GzEncoder::new(packed, level)),
            },
            Coding::Deflate if first == HEAD => Self {
                unpack: Box::new(ZlibDecoder::new(plain)),
                is_over: false,
                pack: Box::new(ZlibEncoder::new(packed, level)),
            },
            Coding::Deflate => Self {
                unpack: Box::new(DeflateDecoder::new(plain)),
                is_over: false,
                pack: Box::new(DeflateEncoder::new(packed, level)),
            },
        }
    }

    /// Unpacks some more. What is behind the end of gzip and begins as its beginning belongs to the text (RFC 1952, section 2.2); anything
    /// else there does not, and is let go.
    fn unpack(&mut self, coding: Coding, mut bytes: &[u8], plain: &Sink) -> io::Result<()> {
        const MEMBER: u8 = 0x1f;
        while let Some(first) = bytes.first().filter(|_| !self.is_over) {
            match self.unpack.write(bytes)? {
                0 if coding == Coding::Gzip && *first == MEMBER => {
                    self.unpack.flush()?;
                    self.unpack = Box::new(GzDecoder::new(plain.clone()));
                }
                0 => self.is_over = true,
                taken => bytes = &bytes[taken..],
            }
        }
        self.unpack.flush()
    }
}

/// Where something is written to that is then taken away.
#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Sink {
    fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read;

    use super::*;

    fn packed(coding: &str, text: &[u8]) -> Vec<u8> {
        let mut packed = Vec::new();
        let read = match coding {
            "gzip" => read::GzEncoder::new(text, Compression::best()).read_to_end(&mut packed),
            "head" => read::ZlibEncoder::new(text, Compression::best()).read_to_end(&mut packed),
            _ => read::DeflateEncoder::new(text, Compression::best()).read_to_end(&mut packed),
        };
        read.expect("packed");
        packed
    }

    fn unpacked(coding: &str, packed: &[u8]) -> Vec<u8> {
        let mut text = Vec::new();
        let read = match coding {
            "gzip" => read::GzDecoder::new(packed).read_to_end(&mut text),
            "head" => read::ZlibDecoder::new(packed).read_to_end(&mut text),
            _ => read::DeflateDecoder::new(packed).read_to_end(&mut text),
        };
        read.expect("unpacked");
        text
    }

    #[test]
    fn what_is_packed_stays_packed() {
        let text = "so it goes ".repeat(20_000);
        for (name, coding) in [("gzip", Coding::Gzip), ("head", Coding::Deflate), ("none", Coding::Deflate)] {
            for piece in [1, 100, 1 << 20] {
                let mut repack = Repack::new(coding);
                let mut told = Vec::new();
                for bytes in packed(name, text.as_bytes()).chunks(piece) {
                    told.extend(
                        repack.feed(bytes, |plain| plain.to_ascii_uppercase()).expect("it is packed"),
                    );
                }
                told.extend(repack.end(b"!").expect("an end"));
                let wanted = text.to_uppercase() + "!";
                assert!(unpacked(name, &told) == wanted.as_bytes(), "{name} in pieces of {piece}");
            }
        }
    }

    #[test]
    fn a_text_of_several_members_is_one() {
        let two = [packed("gzip", b"so it "), packed("gzip", b"goes")].concat();
        let padded = [&two[..], &[0; 512]].concat();
        let of = |name| [packed(name, b"so it goes"), b"more".to_vec()].concat();
        for (name, coding, whole) in [
            ("gzip", Coding::Gzip, two),
            ("gzip", Coding::Gzip, padded),
            ("head", Coding::Deflate, of("head")),
            ("none", Coding::Deflate, of("none")),
        ] {
            for piece in [1, 7, whole.len()] {
                let mut repack = Repack::new(coding);
                let mut told = Vec::new();
                for bytes in whole.chunks(piece) {
                    told.extend(repack.feed(bytes, |plain| plain.to_vec()).expect("it is packed"));
                }
                told.extend(repack.end(b"!").expect("an end"));
                assert_eq!(unpacked(name, &told), b"so it goes!", "{name} in pieces of {piece}");
            }
        }
    }

    #[test]
    fn what_is_not_packed_as_it_says_is_an_error() {
        let mut repack = Repack::new(Coding::Gzip);
        assert!(repack.feed(b"<html>no gzip at all</html>", |plain| plain.to_vec()).is_err());
        assert_eq!(Coding::named("br"), None);
    }
}
