//! `format`: the ones that upstream checks. Others are allowed and mean nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use object::Time;
use serde_json::Value;

use super::node::JsonType;
use crate::names;

/// (name, what a text of it looks like)
type Format = (&'static str, fn(&str) -> bool);

/// By name.
const FORMATS: &[Format] = &[
    ("bsonobjectid", |text| text.len() == 24 && is_hex(text)),
    ("byte", base64),
    ("cidr", cidr),
    ("creditcard", credit_card),
    ("date", date),
    ("date-time", date_time),
    ("datetime", date_time),
    ("duration", duration),
    ("email", email),
    ("hexcolor", hex_color),
    ("hostname", hostname),
    ("ipv4", |text| text.parse::<Ipv4Addr>().is_ok()),
    ("ipv6", |text| text.parse::<Ipv6Addr>().is_ok()),
    ("isbn", |text| isbn10(text) || isbn13(text)),
    ("isbn10", isbn10),
    ("isbn13", isbn13),
    ("k8s-long-name", |text| names::dns_subdomain(text).is_empty()),
    ("k8s-short-name", |text| names::dns_label(text).is_empty()),
    ("mac", mac),
    ("password", |_| true),
    ("rgbcolor", rgb_color),
    ("ssn", |text| groups(text, &[3, 2, 4], |byte| byte.is_ascii_digit())),
    ("uri", uri),
    ("uuid", |text| uuid(text, None)),
    ("uuid3", |text| uuid(text, Some('3'))),
    ("uuid4", |text| uuid(text, Some('4'))),
    ("uuid5", |text| uuid(text, Some('5'))),
];

/// Whether a text is of a format.
pub(super) fn fits(format: &str, text: &str) -> bool {
    FORMATS.iter().find(|(name, _)| *name == format).is_none_or(|(_, check)| check(text))
}

/// Whether a number is in the range of a format.
pub(super) fn holds(format: &str, number: f64) -> bool {
    match format {
        "int32" => (f64::from(i32::MIN)..=f64::from(i32::MAX)).contains(&number) && number.fract() == 0.0,
        // The ends of the range are no exact f64; what is beyond them was no integer for the parser either.
        "int64" => number.fract() == 0.0 && number.abs() <= 9.3e18,
        "float" => number.abs() <= f64::from(f32::MAX),
        _ => true,
    }
}

/// Whether values of a type are checked by a format.
pub(super) fn is_of(format: &str, of: Option<JsonType>) -> bool {
    match of {
        None | Some(JsonType::String) => {
            FORMATS.iter().any(|(name, _)| name.replace('-', "") == format.replace('-', ""))
        }
        Some(JsonType::Integer) => matches!(format, "int32" | "int64"),
        Some(JsonType::Number) => matches!(format, "float" | "double"),
        Some(JsonType::Array | JsonType::Boolean | JsonType::Object) => false,
    }
}

/// The formats in a schema that nothing is checked by, as often as they are there.
pub fn unknown_formats(schema: &Value) -> Vec<String> {
    let format = schema.get("format").and_then(Value::as_str).unwrap_or_default();
    let is_known = match schema.get("type").and_then(Value::as_str) {
        None | Some("") => is_of(format, None),
        Some(name) => JsonType::parse(name).is_some_and(|of| is_of(format, Some(of))),
    };
    let mut found = Vec::new();
    if !format.is_empty() && !is_known {
        found.push(format.to_owned());
    }
    let within = ["items", "allOf", "anyOf", "oneOf", "not", "properties", "additionalProperties"];
    for (name, inner) in within.into_iter().filter_map(|name| Some((name, schema.get(name)?))) {
        match inner {
            Value::Array(all) => found.extend(all.iter().flat_map(unknown_formats)),
            Value::Object(all) if name == "properties" => {
                found.extend(all.values().flat_map(unknown_formats));
            }
            Value::Object(_) => found.extend(unknown_formats(inner)),
            _ => {}
        }
    }
    found
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// `123-45-6789` of groups of these lengths.
fn groups(text: &str, lengths: &[usize], is_part: fn(u8) -> bool) -> bool {
    let parts: Vec<&str> = text.split(['-', ' ']).collect();
    parts.len() == lengths.len()
        && parts.iter().zip(lengths).all(|(part, length)| part.len() == *length && part.bytes().all(is_part))
}

fn base64(text: &str) -> bool {
    let body = text.trim_end_matches('=');
    text.len().is_multiple_of(4)
        && text.len() - body.len() <= 2
        && body.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/')
}

fn cidr(text: &str) -> bool {
    let Some((address, bits)) = text.split_once('/') else { return false };
    let most = match address.parse() {
        Ok(IpAddr::V4(_)) => 32,
        Ok(IpAddr::V6(_)) => 128,
        Err(_) => return false,
    };
    is_digits(bits) && bits.parse().is_ok_and(|bits: u32| bits <= most)
}

fn credit_card(text: &str) -> bool {
    let digits: Vec<u32> =
        text.chars().filter(|c| !matches!(c, ' ' | '-')).map_while(|c| c.to_digit(10)).collect();
    let wanted = text.chars().filter(|c| !matches!(c, ' ' | '-')).count();
    let luhn = digits.iter().rev().enumerate().map(|(index, digit)| match (index % 2, digit * 2) {
        (0, _) => *digit,
        (_, twice) if twice > 9 => twice - 9,
        (_, twice) => twice,
    });
    digits.len() == wanted && (12..=19).contains(&wanted) && luhn.sum::<u32>() % 10 == 0
}

fn date(text: &str) -> bool {
    text.len() == 10 && format!("{text}T00:00:00Z").parse::<Time>().is_ok()
}

fn date_time(text: &str) -> bool {
    matches!(text.as_bytes().get(10), Some(b'T' | b't')) && text.parse::<Time>().is_ok()
}

/// Go's durations, and those in words: `1h30m`, `-1.5s`, `3 weeks`.
fn duration(text: &str) -> bool {
    const UNITS: [&str; 8] = ["ns", "us", "µs", "μs", "ms", "s", "m", "h"];
    const WORDS: [&str; 10] = ["ns", "us", "ms", "s", "sec", "m", "min", "h", "hr", "d"];
    const LONG: [&str; 8] = ["nano", "micro", "milli", "second", "minute", "hour", "day", "week"];
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    if rest == "0" {
        return true;
    }
    let mut parts = 0;
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (digits, tail) = rest.split_at(number);
        let blank = tail.trim_start();
        let unit = blank.find(|c: char| !c.is_alphabetic()).unwrap_or(blank.len());
        let (unit, tail) = blank.split_at(unit);
        let single = unit.strip_suffix('s').filter(|one| !one.is_empty()).unwrap_or(unit);
        let known = UNITS.contains(&unit)
            || WORDS.contains(&unit)
            || LONG.iter().any(|one| single.starts_with(one))
            || single == "w";
        if digits.parse::<f64>().is_err() || !known {
            return false;
        }
        parts += 1;
        rest = tail.trim_start();
    }
    parts > 0
}

fn email(text: &str) -> bool {
    let Some((local, domain)) = text.rsplit_once('@') else { return false };
    let is_atom = |c: char| c.is_alphanumeric() || "!#$%&'*+-/=?^_`{|}~.".contains(c);
    !local.is_empty()
        && local.chars().all(is_atom)
        && !local.starts_with('.')
        && !local.ends_with('.')
        && !local.contains("..")
        && hostname(domain)
}

fn hex_color(text: &str) -> bool {
    let digits = text.strip_prefix('#').unwrap_or(text);
    matches!(digits.len(), 3 | 6) && is_hex(digits)
}

fn hostname(text: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(|c| c.is_alphanumeric() || c == '-')
    };
    text.len() <= 255 && text.strip_suffix('.').unwrap_or(text).split('.').all(is_label)
}

fn isbn_digits(text: &str) -> Option<Vec<u32>> {
    let plain: Vec<char> = text.chars().filter(|c| !matches!(c, ' ' | '-')).collect();
    let last = plain.len().checked_sub(1)?;
    plain
        .iter()
        .enumerate()
        .map(|(index, c)| match c {
            'X' | 'x' if index == last => Some(10),
            other => other.to_digit(10),
        })
        .collect()
}

fn isbn10(text: &str) -> bool {
    let weigh = |digits: Vec<u32>| {
        digits.iter().zip((1..=10).rev()).map(|(digit, weight)| digit * weight).sum::<u32>()
    };
    isbn_digits(text).is_some_and(|digits| digits.len() == 10 && weigh(digits) % 11 == 0)
}

fn isbn13(text: &str) -> bool {
    let weigh = |digits: Vec<u32>| {
        digits.iter().zip([1, 3].into_iter().cycle()).map(|(digit, weight)| digit * weight).sum::<u32>()
    };
    isbn_digits(text)
        .is_some_and(|digits| digits.len() == 13 && !digits.contains(&10) && weigh(digits) % 10 == 0)
}

fn mac(text: &str) -> bool {
    let separator = if text.contains(':') { ':' } else { '-' };
    let parts: Vec<&str> = text.split(separator).collect();
    matches!(parts.len(), 6 | 8 | 20) && parts.iter().all(|part| part.len() == 2 && is_hex(part))
}

fn rgb_color(text: &str) -> bool {
    let Some(inner) = text.strip_prefix("rgb(").and_then(|rest| rest.strip_suffix(')')) else { return false };
    let parts: Vec<&str> = inner.split(',').map(str::trim).collect();
    parts.len() == 3 && parts.iter().all(|part| part.parse::<u8>().is_ok())
}

/// An absolute URI, or a path: what Go's `url.ParseRequestURI` reads.
fn uri(text: &str) -> bool {
    let has_scheme = text.split_once(':').is_some_and(|(scheme, rest)| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
            && !rest.is_empty()
    });
    (has_scheme || text.starts_with('/')) && !text.chars().any(|c| c.is_control() || c == ' ')
}

fn uuid(text: &str, version: Option<char>) -> bool {
    let plain: String = text.chars().filter(|c| *c != '-').collect();
    let has_places = text.len() == 32 || groups(text, &[8, 4, 4, 4, 12], |byte| byte.is_ascii_hexdigit());
    let is_version = version.is_none_or(|version| plain.chars().nth(12) == Some(version));
    let is_variant =
        matches!(version, None | Some('3')) || plain.chars().nth(16).is_some_and(|c| "89abAB".contains(c));
    has_places && is_hex(&plain) && plain.len() == 32 && is_version && is_variant
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_told_apart() {
        assert!(FORMATS.is_sorted_by_key(|(name, _)| *name));
        for (format, yes, no) in [
            ("date-time", "2026-01-02T03:04:05.6Z", "2026-01-02 03:04:05"),
            ("date", "2026-01-02", "2026-13-02"),
            ("duration", "1h30m", "1 fortnight"),
            ("duration", "3 weeks", "h"),
            ("ipv4", "10.0.0.1", "::1"),
            ("ipv6", "::1", "10.0.0.1"),
            ("cidr", "10.0.0.0/8", "10.0.0.0/33"),
            ("uri", "http://a.b/c", "a b"),
            ("hostname", "a-b.c", "a_b"),
            ("email", "a.b@c.d", "a@b@"),
            ("byte", "YWI=", "YWI"),
            ("uuid", "6ba7b810-9dad-11d1-80b4-00c04fd430c8", "6ba7b810"),
            ("uuid4", "9b2f1a3c-1d2e-4f3a-8b4c-5d6e7f8a9b0c", "6ba7b810-9dad-11d1-80b4-00c04fd430c8"),
            ("mac", "00:1a:2b:3c:4d:5e", "00:1a"),
            ("hexcolor", "#fff", "#ffff"),
            ("rgbcolor", "rgb(1, 2, 255)", "rgb(1,2,256)"),
            ("creditcard", "4111 1111 1111 1111", "4111 1111 1111 1112"),
            ("isbn", "0-306-40615-2", "0-306-40615-3"),
            ("isbn13", "978-3-16-148410-0", "978-3-16-148410-1"),
            ("ssn", "123-45-6789", "123-45-678"),
            ("k8s-short-name", "abc", "A"),
        ] {
            assert!(fits(format, yes), "{format} {yes}");
            assert!(!fits(format, no), "{format} {no}");
        }
        assert!(fits("of-nobody", "anything"));
        assert!(holds("int32", 7.0) && !holds("int32", 3e9));
    }
}
