//! Query strings, and the options that they carry.

use std::time::Duration;

use object::{FieldSelector, LabelSelector, Status};
use schema::{Violation, ViolationKind, go};

/// The decoded pairs of a query, in their order.
#[derive(Debug, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    /// As Go reads a query: a pair with a broken escape is not there. Bytes that are no UTF-8 stay, as replacement characters: a
    /// selector that was dropped would select everything.
    pub(crate) fn parse(text: &str) -> Self {
        let decoded = |text: &str| {
            let bytes = decoded_bytes(text, true)?;
            Some(
                String::from_utf8(bytes)
                    .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()),
            )
        };
        let pair = |part: &str| {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            Some((decoded(key)?, decoded(value)?))
        };
        let parts = text.split('&').filter(|part| !part.is_empty() && !part.contains(';'));
        Self(parts.filter_map(pair).collect())
    }

    /// The first value of a key; empty if it is absent.
    pub(crate) fn get(&self, key: &str) -> &str {
        self.0.iter().find(|(held, _)| held == key).map_or("", |(_, value)| value)
    }

    pub(crate) fn has(&self, key: &str) -> bool {
        self.0.iter().any(|(held, _)| held == key)
    }

    pub(crate) fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(held, _)| held == key).map(|(_, value)| &**value)
    }

    /// Go's rule for booleans in a query: present means true unless it says `false` or `0`.
    pub(crate) fn flag(&self, key: &str) -> bool {
        self.has(key) && !matches!(self.get(key), "0" | "false" | "False" | "FALSE" | "f" | "F")
    }

    fn number(&self, key: &str) -> Result<Option<i64>, Status> {
        match self.get(key) {
            "" => Ok(None),
            text => whole(text).map(Some),
        }
    }
}

/// Percent-decoding of a part of a path. None if an escape is broken or the text is not UTF-8.
pub(crate) fn percent_decode(text: &str) -> Option<String> {
    String::from_utf8(decoded_bytes(text, false)?).ok()
}

/// Percent-decoding, with `+` for a blank in queries. None if an escape is broken.
fn decoded_bytes(text: &str, plus: bool) -> Option<Vec<u8>> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                let high = digit(bytes.next())?;
                (high * 16 + digit(bytes.next())?) as u8
            }
            b'+' if plus => b' ',
            other => other,
        });
    }
    Some(decoded)
}

/// How long a client wants to wait at most, by the parameter `timeout`. None: it does not say, or as long as the server likes.
///
/// # Errors
/// The 400 of what is no duration.
pub(crate) fn timeout(query: &Query) -> Result<Option<Duration>, Status> {
    let text = query.get("timeout");
    if text.is_empty() {
        return Ok(None);
    }
    let wanted = duration(text).map_err(|why| {
        Status::bad_request(format!("invalid timeout specified in the request URL - {why}"))
    })?;
    Ok(Some(wanted).filter(|wanted| !wanted.is_zero()))
}

/// A duration as Go writes it: `30s`, `1m30s`, `1.5h`; what is below zero is zero. The errors are Go's.
fn duration(text: &str) -> Result<Duration, String> {
    let quoted = go::quoted(text);
    let invalid = || format!("time: invalid duration {quoted}");
    let is_negative = text.starts_with('-');
    let mut rest = text.strip_prefix(['+', '-']).unwrap_or(text);
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let number: f64 = rest[..end].parse().map_err(|_| invalid())?;
        rest = &rest[end..];
        let unit = &rest[..rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len())];
        rest = &rest[unit.len()..];
        seconds += number
            * match unit {
                "ns" => 1e-9,
                "us" | "µs" | "μs" => 1e-6,
                "ms" => 1e-3,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                "" => return Err(format!("time: missing unit in duration {quoted}")),
                other => {
                    let unit = go::quoted(other);
                    return Err(format!("time: unknown unit {unit} in duration {quoted}"));
                }
            };
    }
    if is_negative { Ok(Duration::ZERO) } else { Duration::try_from_secs_f64(seconds).map_err(|_| invalid()) }
}

/// A whole number as Go reads it.
pub(crate) fn whole(text: &str) -> Result<i64, Status> {
    text.parse().map_err(|_| {
        let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
        let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        let why = if is_number { "value out of range" } else { "invalid syntax" };
        Status::bad_request(format!("strconv.ParseInt: parsing {}: {why}", go::quoted(text)))
    })
}

/// `metav1.ListOptions`.
#[derive(Debug, Default)]
pub(crate) struct ListOptions {
    pub(crate) labels: LabelSelector,
    pub(crate) fields: FieldSelector,
    pub(crate) limit: usize,
    pub(crate) token: String,
    /// As it was sent; empty if it was not.
    pub(crate) resource_version: String,
    pub(crate) version_match: Option<VersionMatch>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) bookmarks: bool,
    pub(crate) initial_events: Option<bool>,
}

/// `resourceVersionMatch`
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum VersionMatch {
    Exact,
    NotOlderThan,
    /// Refused, beside whatever else is wrong.
    Unknown(String),
}

impl VersionMatch {
    fn text(&self) -> &str {
        match self {
            Self::Exact => "Exact",
            Self::NotOlderThan => "NotOlderThan",
            Self::Unknown(text) => text,
        }
    }
}

impl ListOptions {
    pub(crate) fn read(query: &Query) -> Result<Self, Status> {
        let version_match = match query.get("resourceVersionMatch") {
            "" => None,
            "Exact" => Some(VersionMatch::Exact),
            "NotOlderThan" => Some(VersionMatch::NotOlderThan),
            other => Some(VersionMatch::Unknown(other.to_owned())),
        };
        let labels = LabelSelector::parse(query.get("labelSelector")).map_err(Status::bad_request)?;
        let limit = query.number("limit")?.unwrap_or(0);
        let options = Self {
            labels,
            fields: FieldSelector::parse(query.get("fieldSelector")).map_err(Status::bad_request)?,
            limit: usize::try_from(limit).unwrap_or(0),
            token: query.get("continue").to_owned(),
            resource_version: query.get("resourceVersion").to_owned(),
            version_match,
            timeout: query
                .number("timeoutSeconds")?
                .and_then(|secs| u64::try_from(secs).ok())
                .map(Duration::from_secs),
            bookmarks: query.flag("allowWatchBookmarks"),
            initial_events: query.has("sendInitialEvents").then(|| query.flag("sendInitialEvents")),
        };
        Ok(options)
    }

    /// Whether a list is of its resourceVersion, and of none that is newer.
    pub(crate) fn is_exact(&self) -> bool {
        match &self.version_match {
            Some(version_match) => *version_match == VersionMatch::Exact,
            None => self.limit > 0,
        }
    }

    /// What a list may not combine; everything that is wrong is told, in upstream's order.
    pub(crate) fn check_list(&self) -> Result<(), Status> {
        let mut found = Vec::new();
        let matched = self.version_match.is_some();
        if matched && self.resource_version.is_empty() {
            found.push(of_match("resourceVersionMatch is forbidden unless resourceVersion is provided"));
        }
        if matched && !self.token.is_empty() {
            found.push(of_match("resourceVersionMatch is forbidden when continue is provided"));
        }
        if let Some(VersionMatch::Unknown(text)) = &self.version_match {
            found.push(not_supported(text, "supported values: \"Exact\", \"NotOlderThan\", \"\""));
        }
        if self.version_match == Some(VersionMatch::Exact) && self.resource_version == "0" {
            found.push(of_match("resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\""));
        }
        if self.initial_events.is_some() {
            found.push(forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list"));
        }
        told(&found)
    }

    /// What a watch may not combine (KEP-3157).
    pub(crate) fn check_watch(&self) -> Result<(), Status> {
        let mut found = Vec::new();
        let not_older = self.version_match == Some(VersionMatch::NotOlderThan);
        if self.initial_events.is_some() && !not_older {
            found.push(of_match("sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"));
        }
        if let Some(version_match) = &self.version_match {
            if self.initial_events.is_none() {
                found.push(of_match(
                    "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
                ));
            }
            if !not_older {
                found.push(not_supported(version_match.text(), "supported values: \"NotOlderThan\""));
            }
        }
        if !self.token.is_empty() {
            found.push(of_match("resourceVersionMatch is forbidden when continue is provided"));
        }
        told(&found)
    }
}

fn told(found: &[Violation]) -> Result<(), Status> {
    if found.is_empty() { Ok(()) } else { Err(Violation::to_status(found, "meta.k8s.io", "ListOptions", "")) }
}

fn of_match(why: &str) -> Violation {
    forbidden("resourceVersionMatch", why)
}

fn forbidden(field: &str, why: &str) -> Violation {
    let (field, detail) = (field.to_owned(), why.to_owned());
    Violation { kind: ViolationKind::Forbidden, field, value: String::new(), detail }
}

fn not_supported(text: &str, supported: &str) -> Violation {
    Violation {
        kind: ViolationKind::NotSupported,
        field: "resourceVersionMatch".into(),
        value: format!("{text:?}"),
        detail: supported.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_decoded() {
        let query = Query::parse("a=1&b=x%2Cy+z&c&a=2&watch=0&d=%4&e=%ff&f=1;2");
        assert_eq!(
            (query.get("a"), query.get("b"), query.flag("c"), query.flag("watch")),
            ("1", "x,y z", true, false)
        );
        assert_eq!(query.all("a").collect::<Vec<_>>(), ["1", "2"]);
        for unreadable in ["d", "f"] {
            assert!(!query.has(unreadable), "{unreadable}");
        }
        assert_eq!(query.get("e"), "\u{fffd}", "what is no text is not left out");
    }

    #[test]
    fn durations_are_gos() {
        let invalid = |text: &str| Err(format!("time: invalid duration \"{text}\""));
        for (text, expected) in [
            ("30s", Ok(Duration::from_secs(30))),
            ("1m30s", Ok(Duration::from_secs(90))),
            ("1.5s", Ok(Duration::from_millis(1500))),
            ("250ms", Ok(Duration::from_millis(250))),
            ("0", Ok(Duration::ZERO)),
            ("-1s", Ok(Duration::ZERO)),
            ("30", Err("time: missing unit in duration \"30\"".into())),
            ("s", invalid("s")),
            ("1x", Err("time: unknown unit \"x\" in duration \"1x\"".into())),
            ("", invalid("")),
        ] {
            assert_eq!(duration(text), expected, "{text}");
        }
    }
}
