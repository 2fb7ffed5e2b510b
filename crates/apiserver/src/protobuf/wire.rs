//! Tags, numbers and lengths: <https://protobuf.dev/programming-guides/encoding/>.

pub(crate) enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32,
}

/// A cursor over a message.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn field(&mut self) -> Result<Option<(u32, Wire<'a>)>, String> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).map_err(|_| "proto: illegal tag")?;
        let wire = match tag & 7 {
            0 => Wire::Varint(self.varint()?),
            1 => {
                let bytes = self.take(8)?;
                Wire::Fixed64(u64::from_le_bytes(bytes.try_into().map_err(|_| END)?))
            }
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| END)?;
                Wire::Bytes(self.take(length)?)
            }
            5 => {
                self.take(4)?;
                Wire::Fixed32
            }
            other => return Err(format!("proto: illegal wireType {other}")),
        };
        Ok(Some((number, wire)))
    }

    pub(crate) fn varint(&mut self) -> Result<u64, String> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err("proto: integer overflow".into())
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        if count > self.0.len() {
            return Err(END.into());
        }
        let (taken, rest) = self.0.split_at(count);
        self.0 = rest;
        Ok(taken)
    }
}

/// What Go says of a message that is cut.
const END: &str = "unexpected EOF";

const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const LENGTH_DELIMITED: u64 = 2;

pub(crate) fn varint(mut value: u64, to: &mut Vec<u8>) {
    while value >= 0x80 {
        #[expect(clippy::cast_possible_truncation, reason = "seven bits at a time")]
        to.push(value as u8 | 0x80);
        value >>= 7;
    }
    #[expect(clippy::cast_possible_truncation, reason = "below 0x80")]
    to.push(value as u8);
}

/// How many bytes a number takes.
pub(crate) const fn width(value: u64) -> usize {
    let bits = 64 - (value | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

fn tag(number: u32, wire: u64, to: &mut Vec<u8>) {
    varint(u64::from(number) << 3 | wire, to);
}

pub(crate) fn number(field: u32, value: u64, to: &mut Vec<u8>) {
    tag(field, VARINT, to);
    varint(value, to);
}

pub(crate) fn double(field: u32, value: f64, to: &mut Vec<u8>) {
    tag(field, FIXED64, to);
    to.extend_from_slice(&value.to_bits().to_le_bytes());
}

pub(crate) fn bytes(field: u32, content: &[u8], to: &mut Vec<u8>) {
    tag(field, LENGTH_DELIMITED, to);
    varint(content.len() as u64, to);
    to.extend_from_slice(content);
}

/// Begins a message inside another one. Its length is known when it ends: one byte is left for it, which most need no more than.
pub(crate) fn open(field: u32, to: &mut Vec<u8>) -> usize {
    tag(field, LENGTH_DELIMITED, to);
    to.push(0);
    to.len()
}

/// Ends the message that began there.
pub(crate) fn close(begin: usize, to: &mut Vec<u8>) {
    let length = to.len() - begin;
    let more = width(length as u64) - 1;
    to.resize(to.len() + more, 0);
    to.copy_within(begin..begin + length, begin + more);
    let mut rest = length;
    for (at, byte) in to[begin - 1..begin + more].iter_mut().enumerate() {
        #[expect(clippy::cast_possible_truncation, reason = "seven bits at a time")]
        let low = rest as u8 & 0x7f;
        *byte = if at < more { low | 0x80 } else { low };
        rest >>= 7;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_its_length_before_it() {
        for length in [0, 1, 127, 128, 16_383, 16_384, 3_000_000] {
            let content = vec![7; length];
            let (mut opened, mut plain) = (vec![1, 2], vec![1, 2]);
            let begin = open(3, &mut opened);
            opened.extend_from_slice(&content);
            close(begin, &mut opened);
            bytes(3, &content, &mut plain);
            assert_eq!(opened, plain, "{length}");
        }
    }
}
