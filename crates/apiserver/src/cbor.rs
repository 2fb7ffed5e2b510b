//! `application/cbor` (RFC 8949, KEP-4222), behind its switch: JSON's values in another dress.
//!
//! As upstream has it: texts are byte strings, which need not be checked; an item begins with the tag that says what it is; a byte string
//! in tag 22 stands for its base64. Both kinds of strings, and lengths that are not told beforehand, are read.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use serde_json::{Map, Number, Value};

/// Tag 55799: "this is CBOR".
const SELF_DESCRIBED: &[u8] = &[0xd9, 0xd9, 0xf7];
/// The depth of the innermost list or map that JSON's reader takes, which counts 127 of them.
const DEEPEST: usize = 126;

const UNSIGNED: u8 = 0;
const NEGATIVE: u8 = 1;
const BYTES: u8 = 2;
const TEXT: u8 = 3;
const LIST: u8 = 4;
const MAP: u8 = 5;
const TAG: u8 = 6;
const SIMPLE: u8 = 7;
/// The end of what has no length.
const BREAK: u8 = 0xff;

/// A value as one data item.
pub(crate) fn encode(value: &Value) -> Vec<u8> {
    let mut made = SELF_DESCRIBED.to_vec();
    item(value, &mut made);
    made
}

fn head(major: u8, count: u64, to: &mut Vec<u8>) {
    let major = major << 5;
    let wide = count.to_be_bytes();
    match count {
        0..24 => to.push(major | wide[7]),
        24..0x100 => to.extend([major | 24, wide[7]]),
        0x100..0x1_0000 => to.extend([&[major | 25], &wide[6..]].concat()),
        0x1_0000..0x1_0000_0000 => to.extend([&[major | 26], &wide[4..]].concat()),
        _ => to.extend([&[major | 27], &wide[..]].concat()),
    }
}

fn text(words: &str, to: &mut Vec<u8>) {
    head(BYTES, words.len() as u64, to);
    to.extend_from_slice(words.as_bytes());
}

fn item(value: &Value, to: &mut Vec<u8>) {
    match value {
        Value::Null => to.push(SIMPLE << 5 | 22),
        Value::Bool(truth) => to.push(SIMPLE << 5 | if *truth { 21 } else { 20 }),
        Value::Number(number) => match (number.as_u64(), number.as_i64()) {
            (Some(count), _) => head(UNSIGNED, count, to),
            (None, Some(below)) => head(NEGATIVE, !below.cast_unsigned(), to),
            (None, None) => double(number.as_f64().unwrap_or_default(), to),
        },
        Value::String(words) => text(words, to),
        Value::Array(items) => {
            head(LIST, items.len() as u64, to);
            items.iter().for_each(|one| item(one, to));
        }
        Value::Object(members) => {
            head(MAP, members.len() as u64, to);
            let mut sorted: Vec<_> = members.iter().collect();
            // As their encoded bytes are sorted: the length stands first.
            sorted.sort_by_key(|(name, _)| (name.len(), name.as_str()));
            for (name, value) in sorted {
                text(name, to);
                item(value, to);
            }
        }
    }
}

/// In the smaller of two widths that keeps it.
fn double(number: f64, to: &mut Vec<u8>) {
    #[expect(clippy::cast_possible_truncation, reason = "compared with what it was")]
    let single = number as f32;
    if f64::from(single) == number {
        to.push(SIMPLE << 5 | 26);
        to.extend_from_slice(&single.to_be_bytes());
    } else {
        to.push(SIMPLE << 5 | 27);
        to.extend_from_slice(&number.to_be_bytes());
    }
}

/// The one data item that a body is.
pub fn decode(body: &[u8]) -> Result<Value, String> {
    let mut reader = Reader(body);
    let value = reader.value(0)?;
    if reader.0.is_empty() {
        Ok(value)
    } else {
        Err(format!("cbor: {} bytes of extraneous data", reader.0.len()))
    }
}

struct Reader<'a>(&'a [u8]);

/// The head of an item: its major type, and its count; None: it ends with a break.
type Head = (u8, Option<u64>);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or("cbor: unexpected EOF")?;
        self.0 = rest;
        Ok(taken)
    }

    fn head(&mut self) -> Result<Head, String> {
        let first = self.take(1)?[0];
        let wide = |bytes: &[u8]| bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
        let count = match first & 31 {
            small @ 0..24 => Some(small.into()),
            size @ 24..28 => Some(wide(self.take(1 << (size - 24))?)),
            31 => None,
            reserved => return Err(format!("cbor: invalid additional information {reserved}")),
        };
        Ok((first >> 5, count))
    }

    fn value(&mut self, depth: usize) -> Result<Value, String> {
        if depth > DEEPEST {
            return Err(format!("cbor: nested deeper than {DEEPEST}"));
        }
        let floats = self.0.first().copied();
        let (major, count) = self.head()?;
        match (major, count) {
            (UNSIGNED, Some(count)) => {
                i64::try_from(count).map(Value::from).map_err(|_| format!("cbor: {count} overflows int64"))
            }
            (NEGATIVE, Some(count)) => {
                let below = i64::try_from(count).map_err(|_| format!("cbor: -1-{count} overflows int64"))?;
                Ok((-1 - below).into())
            }
            (BYTES | TEXT, count) => {
                let bytes = self.string(major, count)?;
                String::from_utf8(bytes).map(Value::from).map_err(|_| "cbor: invalid UTF-8 string".into())
            }
            (LIST, count) => {
                let mut items = Vec::new();
                while self.goes_on(count, items.len())? {
                    items.push(self.value(depth + 1)?);
                }
                Ok(items.into())
            }
            (MAP, count) => self.map(count, depth),
            (TAG, Some(tag)) => self.tagged(tag, depth),
            (SIMPLE, Some(count)) => simple(floats.unwrap_or_default() & 31, count),
            _ => Err("cbor: unexpected \"break\" code".into()),
        }
    }

    /// Whether a list or a map has one more.
    fn goes_on(&mut self, count: Option<u64>, have: usize) -> Result<bool, String> {
        match count {
            Some(count) => Ok((have as u64) < count),
            None if self.0.first() == Some(&BREAK) => self.take(1).map(|_| false),
            None => Ok(true),
        }
    }

    fn string(&mut self, major: u8, count: Option<u64>) -> Result<Vec<u8>, String> {
        let length = |count: u64| usize::try_from(count).map_err(|_| "cbor: unexpected EOF".to_owned());
        if let Some(count) = count {
            return Ok(self.take(length(count)?)?.to_vec());
        }
        let mut whole = Vec::new();
        while self.goes_on(None, 0)? {
            match self.head()? {
                (piece, Some(count)) if piece == major => whole.extend_from_slice(self.take(length(count)?)?),
                _ => return Err("cbor: wrong piece of a string".into()),
            }
        }
        Ok(whole)
    }

    fn map(&mut self, count: Option<u64>, depth: usize) -> Result<Value, String> {
        let mut members = Map::new();
        while self.goes_on(count, members.len())? {
            let Value::String(name) = self.value(depth + 1)? else {
                return Err("cbor: the key of a map is no string".into());
            };
            let value = self.value(depth + 1)?;
            if members.contains_key(&name) {
                return Err(format!("cbor: found duplicate map key {name:?}"));
            }
            members.insert(name, value);
        }
        Ok(members.into())
    }

    /// Tags 21 to 23 say how bytes are written as text; others say nothing that JSON could.
    fn tagged(&mut self, tag: u64, depth: usize) -> Result<Value, String> {
        let is_bytes = self.0.first().is_some_and(|first| first >> 5 == BYTES);
        if !(21..=23).contains(&tag) || !is_bytes {
            return match tag {
                2 | 3 => Err("cbor: numbers of any size are not read".into()),
                _ => self.value(depth + 1),
            };
        }
        let (major, count) = self.head()?;
        let bytes = self.string(major, count)?;
        Ok(match tag {
            21 => URL_SAFE.encode(bytes).into(),
            22 => STANDARD.encode(bytes).into(),
            _ => bytes.iter().map(|byte| format!("{byte:02X}")).collect::<String>().into(),
        })
    }
}

fn simple(width: u8, bits: u64) -> Result<Value, String> {
    #[expect(clippy::cast_possible_truncation, reason = "as many bits as were read")]
    let number = match width {
        20 => return Ok(false.into()),
        21 => return Ok(true.into()),
        22 => return Ok(Value::Null),
        25 => half(bits as u16),
        26 => f32::from_bits(bits as u32).into(),
        27 => f64::from_bits(bits),
        other => return Err(format!("cbor: simple value {other} is not recognized")),
    };
    Number::from_f64(number).map(Value::Number).ok_or_else(|| "cbor: not a finite number".into())
}

/// RFC 8949, appendix D.
fn half(bits: u16) -> f64 {
    let (exponent, fraction) = (i32::from(bits >> 10 & 31), f64::from(bits & 1023));
    let size = match exponent {
        0 => fraction * 2_f64.powi(-24),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (1024.0 + fraction) * 2_f64.powi(exponent - 25),
    };
    if bits >> 15 == 1 { -size } else { size }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_go_there_and_back() {
        let long = "x".repeat(70_000);
        for value in [
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "ä"}, "empty": [{}, [], ""]}),
            json!([
                0,
                23,
                24,
                255,
                256,
                65_536,
                i64::MAX,
                -1,
                -24,
                -25,
                i64::MIN,
                1.5,
                0.1,
                -2.5e300,
                null,
                true,
                false
            ]),
            json!({"long": long, "many": vec![1; 300]}),
        ] {
            assert_eq!(decode(&encode(&value)), Ok(value));
        }
    }

    /// RFC 8949, appendix A, and what client-go writes.
    #[test]
    fn what_others_write_is_read() {
        for (bytes, expected) in [
            (&b"\xf9\x3c\x00"[..], json!(1.0)),
            (b"\xf9\xc4\x00", json!(-4.0)),
            (b"\xf9\x00\x01", json!(5.960_464_477_539_063e-8)),
            (b"\x9f\x01\x82\x02\x03\xff", json!([1, [2, 3]])),
            (b"\xbf\x61a\x01\x41b\x9f\xff\xff", json!({"a": 1, "b": []})),
            (b"\x7f\x62ab\x61c\xff", json!("abc")),
            (b"\xd6\x43abc", json!("YWJj")),
            (b"\xd7\x42\x01\xff", json!("01FF")),
            (b"\xc0\x742013-03-21T20:04:00Z", json!("2013-03-21T20:04:00Z")),
            (b"\xd9\xd9\xf7\xa1\x44kind\x43Pod", json!({"kind": "Pod"})),
        ] {
            assert_eq!(decode(bytes), Ok(expected), "{bytes:x?}");
        }
    }

    #[test]
    fn what_is_none_is_refused() {
        let mut deep = [0x81; 128];
        deep[127] = 0x80;
        assert!(
            decode(&deep[1..]).is_ok_and(|value| serde_json::from_str::<Value>(&value.to_string()).is_ok())
        );
        for bytes in [
            &b""[..],
            b"\xa1",
            b"\x01\x01",
            b"\xff",
            b"\xa1\x01\x01",
            b"\xa2\x41a\x01\x41a\x02",
            b"\x41\xff",
            b"\xf9\x7c\x00",
            b"\xf7",
            b"\x1b\xff\xff\xff\xff\xff\xff\xff\xff",
            b"\x5b\xff\xff\xff\xff\xff\xff\xff\xff",
            b"\x9b\x0f\xff\xff\xff\xff\xff\xff\xff",
            b"\xc2\x41\x01",
            b"\x1c",
            &deep,
        ] {
            assert!(decode(bytes).is_err(), "{bytes:x?}");
        }
    }
}
