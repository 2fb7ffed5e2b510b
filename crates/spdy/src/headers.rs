//! Header blocks: names and values, compressed by zlib over the whole life of a connection.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use crate::frame::FrameError;

/// A block that unpacks to more is refused; Kubernetes' have a hundred bytes.
pub(crate) const BLOCK_LIMIT_BYTES: usize = 64 << 10;
const CHUNK_BYTES: usize = 4 << 10;

/// Names in lower case, each once; several values of one name are separated by NUL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Vec<(String, String)>);

impl Headers {
    pub fn new(pairs: &[(&str, &str)]) -> Self {
        Self(pairs.iter().map(|(name, value)| (name.to_ascii_lowercase(), (*value).to_owned())).collect())
    }

    /// The first value of a name, which is given in lower case.
    pub fn get(&self, name: &str) -> Option<&str> {
        let (_, values) = self.0.iter().find(|(held, _)| held == name)?;
        values.split('\0').next()
    }

    fn encode(&self) -> Vec<u8> {
        let mut block = Vec::new();
        put_length(&mut block, self.0.len());
        for (name, value) in &self.0 {
            for text in [name, value] {
                put_length(&mut block, text.len());
                block.extend_from_slice(text.as_bytes());
            }
        }
        block
    }

    fn decode(mut block: &[u8]) -> Result<Self, FrameError> {
        let count = take_length(&mut block)?;
        let mut pairs: Vec<(String, String)> = Vec::new();
        for _ in 0..count {
            // A count that lies runs out of bytes, long before it takes memory.
            let (name, value) = (take_text(&mut block)?, take_text(&mut block)?);
            if name.is_empty() || pairs.iter().any(|(held, _)| *held == name) {
                return Err(FrameError::Malformed("a header without a name, or twice"));
            }
            pairs.push((name.to_ascii_lowercase(), value));
        }
        if block.is_empty() { Ok(Self(pairs)) } else { Err(FrameError::Malformed("more than its headers")) }
    }
}

fn put_length(block: &mut Vec<u8>, length: usize) {
    // What is sent is ours, and short.
    block.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
}

fn take_length(block: &mut &[u8]) -> Result<usize, FrameError> {
    let (length, rest) = block.split_first_chunk::<4>().ok_or(FrameError::Malformed("a cut header block"))?;
    *block = rest;
    Ok(u32::from_be_bytes(*length) as usize)
}

fn take_text(block: &mut &[u8]) -> Result<String, FrameError> {
    let length = take_length(block)?;
    let (text, rest) = block.split_at_checked(length).ok_or(FrameError::Malformed("a cut header block"))?;
    *block = rest;
    String::from_utf8(text.to_vec()).map_err(|_| FrameError::Malformed("a header that is not text"))
}

/// Packs the blocks of one direction.
pub(crate) struct Packer(Compress);

impl Packer {
    pub(crate) fn new() -> Result<Self, FrameError> {
        let mut zlib = Compress::new(Compression::best(), true);
        zlib.set_dictionary(&dictionary()).map_err(|error| FrameError::Zlib(error.to_string()))?;
        Ok(Self(zlib))
    }

    pub(crate) fn pack(&mut self, headers: &Headers) -> Result<Vec<u8>, FrameError> {
        let block = headers.encode();
        let (mut packed, mut rest) = (Vec::new(), &block[..]);
        loop {
            packed.reserve(CHUNK_BYTES);
            let before = self.0.total_in();
            let packing = self.0.compress_vec(rest, &mut packed, FlushCompress::Sync);
            packing.map_err(|error| FrameError::Zlib(error.to_string()))?;
            rest = rest.get((self.0.total_in() - before) as usize..).unwrap_or_default();
            // Room that is left says that everything is out.
            if rest.is_empty() && packed.len() < packed.capacity() {
                return Ok(packed);
            }
        }
    }
}

/// Unpacks the blocks of one direction.
pub(crate) struct Unpacker(Decompress);

impl Unpacker {
    pub(crate) fn new() -> Self {
        Self(Decompress::new(true))
    }

    pub(crate) fn unpack(&mut self, packed: &[u8]) -> Result<Headers, FrameError> {
        let (mut block, mut rest) = (Vec::new(), packed);
        loop {
            block.reserve(CHUNK_BYTES);
            let (before, length) = (self.0.total_in(), block.len());
            let unpacked = self.0.decompress_vec(rest, &mut block, FlushDecompress::Sync);
            rest = rest.get((self.0.total_in() - before) as usize..).unwrap_or_default();
            match unpacked {
                Err(error) if error.needs_dictionary().is_some() => {
                    let set = self.0.set_dictionary(&dictionary());
                    set.map_err(|error| FrameError::Zlib(error.to_string()))?;
                    continue;
                }
                Err(error) => return Err(FrameError::Zlib(error.to_string())),
                Ok(Status::StreamEnd) => {
                    return Err(FrameError::Malformed("a header block ends the headers"));
                }
                Ok(Status::Ok | Status::BufError) => {}
            }
            if block.len() > BLOCK_LIMIT_BYTES {
                return Err(FrameError::HeadersTooLong);
            }
            if rest.is_empty() && block.len() < block.capacity() {
                return Headers::decode(&block);
            }
            if before == self.0.total_in() && length == block.len() {
                return Err(FrameError::Malformed("a header block that zlib makes nothing of"));
            }
        }
    }
}

/// What both sides take as said before the first block: section 2.6.10.1 of the protocol.
fn dictionary() -> Vec<u8> {
    let mut dictionary = Vec::new();
    for word in DICTIONARY_WORDS {
        put_length(&mut dictionary, word.len());
        dictionary.extend_from_slice(word.as_bytes());
    }
    dictionary.extend_from_slice(DICTIONARY_TAIL.as_bytes());
    dictionary
}

#[rustfmt::skip]
const DICTIONARY_WORDS: &[&str] = &[
    "options", "head", "post", "put", "delete", "trace", "accept", "accept-charset", "accept-encoding",
    "accept-language", "accept-ranges", "age", "allow", "authorization", "cache-control", "connection",
    "content-base", "content-encoding", "content-language", "content-length", "content-location", "content-md5",
    "content-range", "content-type", "date", "etag", "expect", "expires", "from", "host", "if-match",
    "if-modified-since", "if-none-match", "if-range", "if-unmodified-since", "last-modified", "location",
    "max-forwards", "pragma", "proxy-authenticate", "proxy-authorization", "range", "referer", "retry-after",
    "server", "te", "trailer", "transfer-encoding", "upgrade", "user-agent", "vary", "via", "warning",
    "www-authenticate", "method", "get", "status", "200 OK", "version", "HTTP/1.1", "url", "public", "set-cookie",
    "keep-alive", "origin",
];

const DICTIONARY_TAIL: &str = concat!(
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505",
    "203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized",
    "403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable",
    "Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT",
    "chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,",
    "text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.",
);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_dictionary_is_the_one_of_the_protocol() {
        assert_eq!(dictionary().len(), 1423);
        // Its Adler-32, by which zlib names it in every stream.
        let set = Compress::new(Compression::best(), true).set_dictionary(&dictionary());
        assert_eq!(set.expect("set"), 0xe3c6_a7c2);
    }

    #[test]
    fn blocks_that_lie_are_refused() {
        let check = |block: &[u8], want: &str| {
            let error = Headers::decode(block).expect_err("refused").to_string();
            assert!(error.contains(want), "{error}");
        };
        check(&[], "cut");
        check(&[0, 0, 0, 1], "cut");
        check(&[255, 255, 255, 255, 255, 255, 255, 255], "cut");
        check(&[0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0], "without a name");
        check(&[0, 0, 0, 1, 0, 0, 0, 1, 0xff, 0, 0, 0, 0], "not text");
        check(&[0, 0, 0, 0, 7], "more than");
    }

    #[test]
    fn a_small_block_does_not_unpack_to_much() {
        let long = "x".repeat(BLOCK_LIMIT_BYTES + 1);
        let packed = Packer::new().expect("a packer").pack(&Headers::new(&[("a", &long)])).expect("packed");
        assert!(packed.len() < 1_000);
        assert!(matches!(Unpacker::new().unpack(&packed), Err(FrameError::HeadersTooLong)));
    }

    proptest! {
        #[test]
        fn what_is_packed_unpacks(blocks in prop::collection::vec(
            prop::collection::btree_map("[a-z-]{1,20}", "[ -~]{0,3000}", 0..5), 1..6,
        )) {
            let (mut packer, mut unpacker) = (Packer::new().expect("a packer"), Unpacker::new());
            for block in blocks {
                let headers = Headers(block.into_iter().collect());
                let packed = packer.pack(&headers).expect("packed");
                prop_assert_eq!(unpacker.unpack(&packed).expect("unpacked"), headers);
            }
        }
    }
}
