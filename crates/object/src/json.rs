//! JSON text with numbers as Go's encoder writes them: `1`, `0.5`, `100000000000000000000`, `1e+300`, `1e-7`.
//!
//! Go reads a whole number that no `int64` holds as one with a fraction, and so it comes back rounded.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::Value;
use serde_json::ser::{Formatter, Serializer};

/// What is not written with an exponent: [1e-6, 1e21), and zero.
const PLAIN: std::ops::Range<f64> = 1e-6..1e21;

struct Go;

impl Formatter for Go {
    fn write_u64<W: Write + ?Sized>(&mut self, to: &mut W, number: u64) -> io::Result<()> {
        match i64::try_from(number) {
            Ok(number) => self.write_i64(to, number),
            #[expect(clippy::cast_precision_loss, reason = "as Go reads it")]
            Err(_) => self.write_f64(to, number as f64),
        }
    }

    fn write_f64<W: Write + ?Sized>(&mut self, to: &mut W, number: f64) -> io::Result<()> {
        if number == 0.0 || PLAIN.contains(&number.abs()) {
            return write!(to, "{number}");
        }
        let text = format!("{number:e}");
        match text.split_once('e') {
            Some((digits, exponent)) if !exponent.starts_with('-') => write!(to, "{digits}e+{exponent}"),
            _ => to.write_all(text.as_bytes()),
        }
    }
}

/// Adds a tree's text.
pub fn write(to: &mut Vec<u8>, value: &Value) {
    // Writing to memory cannot fail: keys are strings and numbers are finite.
    let _ = value.serialize(&mut Serializer::with_formatter(to, Go));
}

/// A tree's text.
pub fn text(value: &Value) -> Vec<u8> {
    let mut text = Vec::with_capacity(128);
    write(&mut text, value);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_go_does() {
        for (given, expected) in [
            ("1", "1"),
            ("-5", "-5"),
            ("1.0", "1"),
            ("-0.0", "-0"),
            ("0.5", "0.5"),
            ("1e20", "100000000000000000000"),
            ("1e21", "1e+21"),
            ("1e300", "1e+300"),
            ("-2.5e300", "-2.5e+300"),
            ("0.000001", "0.000001"),
            ("0.00000012", "1.2e-7"),
            ("1e-7", "1e-7"),
            ("1e-300", "1e-300"),
            ("9223372036854775807", "9223372036854775807"),
            ("10000000000000000001", "10000000000000000000"),
            (r#"{"a":[1e300,"<"]}"#, r#"{"a":[1e+300,"<"]}"#),
        ] {
            let value: Value = serde_json::from_str(given).expect("JSON");
            assert_eq!(String::from_utf8(text(&value)).expect("text"), expected, "{given}");
        }
    }
}
