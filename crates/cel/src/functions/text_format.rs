//! Values as text: `string()`, `format`, `quote`.

use std::fmt::Write as _;

use super::net::{Cidr, Ip};
use super::time::duration_text;
use crate::error::EvalError;
use crate::value::{Key, Value};

/// As `string()` writes it; none if it does not write such values.
pub fn plain(value: &Value) -> Option<String> {
    Some(match value {
        Value::String(text) => text.to_string(),
        Value::Bool(flag) => flag.to_string(),
        Value::Int(number) => number.to_string(),
        Value::Uint(number) => number.to_string(),
        Value::Double(number) => number.to_string(),
        Value::Timestamp(at) => at.to_string(),
        Value::Duration(length) => duration_text(*length),
        Value::Opaque(_) => match (value.as_opaque::<Ip>(), value.as_opaque::<Cidr>()) {
            (Some(ip), _) => ip.0.to_string(),
            (_, Some(cidr)) => cidr.to_string(),
            _ => return None,
        },
        _ => return None,
    })
}

/// As `%s` writes it: everything, lists and maps too.
fn shown(value: &Value) -> Result<String, EvalError> {
    if let Some(text) = plain(value) {
        return Ok(text);
    }
    match value {
        Value::Null => Ok("null".into()),
        Value::Bytes(bytes) => Ok(String::from_utf8_lossy(bytes).into_owned()),
        Value::Type(name) => Ok(name.to_string()),
        _ => {
            if let Some(elements) = value.elements() {
                let parts = elements.iter().map(shown).collect::<Result<Vec<_>, _>>()?;
                return Ok(format!("[{}]", parts.join(", ")));
            }
            let keys = value.keys().ok_or_else(|| {
                EvalError::new(format!("string clause can only be used on strings, bools, bytes, ints, doubles, maps, lists, types, durations, and timestamps, was given {}", value.type_name()))
            })?;
            let mut parts = Vec::new();
            for key in keys {
                let inner = value.index(&key)?.unwrap_or(Value::Null);
                parts.push(format!("{}: {}", Key::of(&key)?, shown(&inner)?));
            }
            parts.sort();
            Ok(format!("{{{}}}", parts.join(", ")))
        }
    }
}

/// `format` of cel-go's strings: `%s %d %f %e %b %o %x %X %%`, with a precision for `f` and `e`.
pub fn format(pattern: &str, values: &[Value]) -> Result<String, EvalError> {
    let mut out = String::new();
    let mut values_left = values.iter().enumerate();
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        if chars.peek() == Some(&'%') {
            chars.next();
            out.push('%');
            continue;
        }
        let mut precision = None;
        if chars.peek() == Some(&'.') {
            chars.next();
            let mut digits = String::new();
            while let Some(digit) = chars.next_if(char::is_ascii_digit) {
                digits.push(digit);
            }
            precision = digits.parse::<usize>().ok().filter(|precision| *precision <= 100);
        }
        let clause = chars.next().ok_or_else(|| EvalError::new("unexpected end of string"))?;
        let (index, value) = values_left
            .next()
            .ok_or_else(|| EvalError::new(format!("index {} out of range", values.len())))?;
        super::within_limit(out.len())?;
        out.push_str(&clause_of(clause, precision, value).map_err(|error| match error {
            EvalError::Failed(message) => {
                EvalError::new(format!("error during formatting: {message} (argument {index})"))
            }
            other => other,
        })?);
    }
    Ok(out)
}

fn clause_of(clause: char, precision: Option<usize>, value: &Value) -> Result<String, EvalError> {
    let wrong = || EvalError::new(format!("%{clause} cannot be used on {}", value.type_name()));
    let double = || match value {
        Value::Double(number) => Ok(*number),
        #[expect(clippy::cast_precision_loss, reason = "that is how it is shown")]
        Value::Int(number) => Ok(*number as f64),
        #[expect(clippy::cast_precision_loss, reason = "that is how it is shown")]
        Value::Uint(number) => Ok(*number as f64),
        _ => Err(wrong()),
    };
    match clause {
        's' => shown(value),
        'd' => match value {
            Value::Int(_) | Value::Uint(_) => shown(value),
            _ => Err(wrong()),
        },
        'f' => Ok(format!("{:.*}", precision.unwrap_or(6), double()?)),
        'e' => Ok(scientific(double()?, precision.unwrap_or(6))),
        'b' | 'o' | 'x' | 'X' => in_base(clause, value).ok_or_else(wrong),
        other => Err(EvalError::new(format!("unrecognized formatting clause \"{other}\""))),
    }
}

/// Rust writes `1.5e2`, Go `1.5e+02`.
fn scientific(number: f64, precision: usize) -> String {
    let text = format!("{number:.precision$e}");
    let Some((mantissa, exponent)) = text.split_once('e') else { return text };
    let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |digits| ('-', digits));
    format!("{mantissa}e{sign}{digits:0>2}")
}

fn in_base(clause: char, value: &Value) -> Option<String> {
    let (negative, magnitude) = match value {
        Value::Int(number) => (*number < 0, number.unsigned_abs()),
        Value::Uint(number) => (false, *number),
        Value::Bool(flag) if clause == 'b' => (false, u64::from(*flag)),
        Value::String(text) if matches!(clause, 'x' | 'X') => return Some(hex(text.as_bytes(), clause)),
        Value::Bytes(bytes) if matches!(clause, 'x' | 'X') => return Some(hex(bytes, clause)),
        _ => return None,
    };
    let digits = match clause {
        'b' => format!("{magnitude:b}"),
        'o' => format!("{magnitude:o}"),
        'x' => format!("{magnitude:x}"),
        _ => format!("{magnitude:X}"),
    };
    Some(if negative { format!("-{digits}") } else { digits })
}

fn hex(bytes: &[u8], clause: char) -> String {
    bytes.iter().fold(String::new(), |mut out, byte| {
        // Writing to a string cannot fail.
        let _ = if clause == 'x' { write!(out, "{byte:02x}") } else { write!(out, "{byte:02X}") };
        out
    })
}

/// A literal that says the text.
pub fn quote(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
