//! The small checks that every validation is made of.

use std::borrow::Cow;
use std::collections::HashSet;
use std::net::IpAddr;

use schema::{At, Violation, names, path};
use serde_json::Value;

pub type Found = Vec<Violation>;

/// The values that have been met in a list, to find the second of each. Lists are as long as clients make them, so that to compare each
/// item with each before it would take a client's liberty with the server's time.
#[derive(Default)]
pub struct Seen<'a>(HashSet<Cow<'a, str>>);

impl<'a> Seen<'a> {
    /// Whether the value has been met before; now it has.
    pub fn repeats(&mut self, value: impl Into<Cow<'a, str>>) -> bool {
        !self.0.insert(value.into())
    }
}

/// A text that must be there.
pub fn required(value: &Value, field: &str, at: At<'_>, found: &mut Found) -> bool {
    let is_there = !path::text(value, field).is_empty();
    if !is_there {
        found.push(Violation::required(at.field(field), ""));
    }
    is_there
}

/// A text that must follow a rule, if it is there.
pub fn follows(value: &Value, field: &str, rule: names::Check, at: At<'_>, found: &mut Found) {
    let text = path::text(value, field);
    if !text.is_empty() {
        found.extend(Violation::all_invalid(at.field(field), text, rule(text)));
    }
}

/// A text that must follow a rule if it is there, be it empty: what is a pointer in Go.
pub fn follows_if_set(value: &Value, field: &str, rule: names::Check, at: At<'_>, found: &mut Found) {
    if let Some(text) = value.get(field).and_then(Value::as_str) {
        found.extend(Violation::all_invalid(at.field(field), text, rule(text)));
    }
}

/// A text that must be there and follow a rule.
pub fn required_name(value: &Value, field: &str, rule: names::Check, at: At<'_>, found: &mut Found) {
    if required(value, field, at, found) {
        follows(value, field, rule, at, found);
    }
}

/// A text that must be one of a few, if it is there.
pub fn one_of(value: &Value, field: &str, supported: &[&str], at: At<'_>, found: &mut Found) {
    if let Some(text) = value.get(field).and_then(Value::as_str)
        && !supported.contains(&text)
    {
        found.push(Violation::not_supported(at.field(field), text, supported));
    }
}

/// A text that must be there and be one of a few.
pub fn required_one_of(value: &Value, field: &str, supported: &[&str], at: At<'_>, found: &mut Found) {
    if required(value, field, at, found) {
        one_of(value, field, supported, at, found);
    }
}

/// A text that must be one of a few; none is not.
pub fn always_one_of(value: &Value, field: &str, supported: &[&str], at: At<'_>, found: &mut Found) {
    let text = path::text(value, field);
    if !supported.contains(&text) {
        found.push(Violation::not_supported(at.field(field), text, supported));
    }
}

/// A number that may not be negative, if it is there.
pub fn not_negative(value: &Value, field: &str, at: At<'_>, found: &mut Found) {
    if path::int(value, field).is_some_and(|number| number < 0) {
        let detail = "must be greater than or equal to 0";
        found.push(Violation::invalid(at.field(field), &value[field], detail));
    }
}

/// Counts of pods in a status: none is more than there are, nor are more available than ready.
pub fn replica_counts(status: &Value, fields: &[&str], at: At<'_>, found: &mut Found) {
    let count = |field: &str| path::int(status, field).unwrap_or_default();
    for field in fields {
        if count(field) > count("replicas") {
            let detail = "cannot be greater than status.replicas";
            found.push(Violation::invalid(at.field(field), count(field), detail));
        }
    }
    if count("availableReplicas") > count("readyReplicas") {
        let detail = "cannot be greater than readyReplicas";
        found.push(Violation::invalid(at.field("availableReplicas"), count("availableReplicas"), detail));
    }
}

/// A number within a range that includes its ends, if it is there.
pub fn between(value: &Value, field: &str, least: i64, most: i64, at: At<'_>, found: &mut Found) {
    if let Some(number) = path::int(value, field) {
        found.extend(Violation::all_invalid(at.field(field), number, names::between(number, least, most)));
    }
}

/// A field that may not change.
pub fn immutable(new: &Value, old: &Value, field: &str, at: At<'_>, found: &mut Found) {
    if path::get(new, field) != path::get(old, field) {
        let value = path::get(new, field).unwrap_or(&Value::Null);
        found.push(Violation::immutable(at.field(field), value));
    }
}

/// A port's number or name.
pub fn port(value: &Value, field: &str, at: At<'_>, found: &mut Found) {
    let at = at.field(field);
    match &value[field] {
        Value::Number(number) => {
            let port = number.as_i64().unwrap_or_default();
            found.extend(Violation::all_invalid(at, port, names::port_number(port)));
        }
        Value::String(text) => found.extend(Violation::all_invalid(at, text, names::port_name(text))),
        _ => found.extend(Violation::all_invalid(at, 0, names::port_number(0))),
    }
}

/// A path below a volume: relative, and it does not climb.
pub fn relative_path(text: &str, at: At<'_>, found: &mut Found) {
    if text.starts_with('/') {
        found.push(Violation::invalid(at, text, "must be a relative path"));
    }
    no_backsteps(text, at, found);
}

/// No `..` in a path.
pub fn no_backsteps(text: &str, at: At<'_>, found: &mut Found) {
    if text.split('/').any(|part| part == "..") {
        found.push(Violation::invalid(at, text, "must not contain '..'"));
    }
}

/// As a relative path, and it does not start with two dots.
pub fn relative_item_path(text: &str, at: At<'_>, found: &mut Found) {
    relative_path(text, at, found);
    if text.starts_with("..") && text.split('/').next() != Some("..") {
        found.push(Violation::invalid(at, text, "must not start with '..'"));
    }
}

/// A number that is not negative or a percentage; what an update may take or add at once.
pub fn share(value: &Value, field: &str, at: At<'_>, found: &mut Found) {
    let at = at.field(field);
    match value.get(field) {
        Some(Value::Number(number)) if number.as_i64().is_none_or(|number| number < 0) => {
            found.push(Violation::invalid(at, number, "must be greater than or equal to 0"));
        }
        Some(Value::String(text)) => found.extend(Violation::all_invalid(at, text, names::percent(text))),
        _ => {}
    }
}

/// At most the whole of something.
pub fn at_most_all(value: &Value, field: &str, at: At<'_>, found: &mut Found) {
    if let Some(share) = value.get(field)
        && schema::int_or_string::percent(share).is_some_and(|percent| percent > 100)
    {
        found.push(Violation::invalid(at.field(field), share, "must not be greater than 100%"));
    }
}

/// Neither a number nor a percentage above nothing.
pub fn is_zero(share: &Value) -> bool {
    share.as_i64() == Some(0) || share.is_null() || schema::int_or_string::percent(share) == Some(0)
}

/// An address that others can reach: no loopback, no link-local one. `before` are texts that an update may leave as they are, whatever
/// they look like.
pub fn outside_ip(text: &str, before: &[Value]) -> Vec<String> {
    let wrong = if before.iter().any(|one| one == text) { Vec::new() } else { names::ip(text) };
    if wrong.is_empty() { reachable(text) } else { wrong }
}

/// What others cannot reach at an address, however it is written.
pub fn reachable(text: &str) -> Vec<String> {
    let Some(address) = names::lenient_ip(text) else { return vec!["must be a valid IP address".into()] };
    let (is_link_local, is_link_multicast) = match address {
        IpAddr::V4(v4) => (v4.is_link_local(), v4.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(v6) => (v6.segments()[0] & 0xffc0 == 0xfe80, v6.segments()[0] & 0xff0f == 0xff02),
    };
    let text = match () {
        () if address.is_unspecified() => format!("may not be unspecified ({text})"),
        () if address.is_loopback() => "may not be in the loopback range (127.0.0.0/8, ::1/128)".into(),
        () if is_link_local => "may not be in the link-local range (169.254.0.0/16, fe80::/10)".into(),
        () if is_link_multicast => {
            "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)".into()
        }
        () => return Vec::new(),
    };
    vec![text]
}

/// How many bytes a base64 text stands for.
pub fn base64_len(value: &Value) -> usize {
    let text = value.as_str().unwrap_or_default();
    let padding = text.bytes().rev().take_while(|byte| *byte == b'=').count();
    (text.len() / 4 * 3).saturating_sub(padding)
}

/// A range's first bits and how many of them there are, and whether it is one of IPv6. Older servers took zeros in front of numbers.
fn range(text: &str) -> Option<(u128, u32, bool)> {
    let (address, length) = text.split_once('/')?;
    let length: u32 = length.parse().ok()?;
    match names::lenient_ip(address)? {
        IpAddr::V4(v4) => Some((u128::from(u32::from(v4)) << 96, length, false)).filter(|_| length <= 32),
        IpAddr::V6(v6) => Some((u128::from(v6), length, true)).filter(|_| length <= 128),
    }
}

/// Whether a text is a range at all, however it is written.
pub fn is_range(text: &str) -> bool {
    range(text).is_some()
}

/// Whether a range lies within another and is smaller.
pub fn is_strict_subnet(inner: &str, outer: &str) -> bool {
    let (Some((inner, inner_length, inner_is_v6)), Some((outer, length, outer_is_v6))) =
        (range(inner), range(outer))
    else {
        return false;
    };
    let front = |address: u128| if length == 0 { 0 } else { address >> (128 - length) };
    inner_is_v6 == outer_is_v6 && inner_length > length && front(inner) == front(outer)
}
