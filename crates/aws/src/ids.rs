//! Names that nobody chose: ids, keys, uuids.

use ring::digest::{SHA256, digest};

/// Random-looking names out of one random seed: each call gets a seed of its own, so that a handler needs no randomness.
pub struct Ids {
    seed: [u8; 32],
    drawn: u64,
}

impl Ids {
    /// `seed` must be secret and used once: keys are drawn from it too.
    pub fn new(seed: [u8; 32]) -> Self {
        Self { seed, drawn: 0 }
    }

    /// 32 bytes that were never drawn before.
    pub fn bytes(&mut self) -> [u8; 32] {
        let mut text = self.seed.to_vec();
        text.extend_from_slice(&self.drawn.to_be_bytes());
        self.drawn += 1;
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, &text).as_ref());
        bytes
    }

    /// `len` lower-case hex digits, 64 at most: the tail of `i-0123456789abcdef0` (17) or of a request id.
    pub fn hex(&mut self, len: usize) -> String {
        let text: String = self.bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        text[..len.min(64)].to_owned()
    }

    /// `len` characters of `alphabet`, 32 at most.
    pub fn of(&mut self, alphabet: &[u8], len: usize) -> String {
        self.bytes()
            .iter()
            .take(len)
            .map(|byte| char::from(alphabet[usize::from(*byte) % alphabet.len()]))
            .collect()
    }

    /// `i-0123456789abcdef0`: a prefix, a dash, 17 hex digits.
    pub fn resource(&mut self, prefix: &str) -> String {
        format!("{prefix}-0{}", self.hex(16))
    }

    /// `AIDA`, `AROA`, `AKIA`, `ASIA` and what follows it: the id of an IAM principal (21 characters) or of a key (20).
    pub fn unique(&mut self, prefix: &str) -> String {
        let len = if matches!(prefix, "AKIA" | "ASIA") { 16 } else { 17 };
        format!("{prefix}{}", self.of(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", len))
    }

    /// A secret access key: 40 characters of base64, 240 bits.
    pub fn secret(&mut self) -> String {
        const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        self.of(LETTERS, 20) + &self.of(LETTERS, 20)
    }

    /// A version 4 UUID.
    pub fn uuid(&mut self) -> String {
        let hex = self.hex(32);
        format!("{}-{}-4{}-a{}-{}", &hex[..8], &hex[8..12], &hex[13..16], &hex[17..20], &hex[20..32])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_drawn_twice() {
        let mut ids = Ids::new([7; 32]);
        let first = ids.resource("i");
        assert_eq!((first.len(), &first[..3]), (19, "i-0"));
        assert_ne!(first, ids.resource("i"));
        assert_eq!(ids.uuid().len(), 36);
        assert_eq!(Ids::new([7; 32]).resource("i"), first);
    }
}
