//! Request bodies: read within a limit, parsed as JSON or YAML.

use std::collections::HashSet;

use bytes::Bytes;
use gate::Problems;
use http::HeaderMap;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use object::{Reason, Status};
use schema::{FieldValidation, Kind};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_saphyr::Spanned;

use crate::negotiate::{content_type, listed};
use crate::route::Target;
use crate::{cbor, protobuf};

/// Of a body that is too long, so much more is read and thrown away: a client that still sends would not see the answer if its
/// connection ended first.
const THROWN_AWAY: usize = 16 << 20;

/// The whole body, or the 413 of one that is too long.
pub(crate) async fn read(mut body: Incoming, limit: usize) -> Result<Bytes, Status> {
    match Limited::new(&mut body, limit).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            throw_away(body).await;
            let why = format!("Request entity too large: limit is {limit}");
            Err(Status::new(Reason::RequestEntityTooLarge, why))
        }
        Err(error) => Err(Status::bad_request(format!("unable to read the request's body: {error}"))),
    }
}

async fn throw_away(mut body: Incoming) {
    let mut read = 0;
    while read < THROWN_AWAY
        && let Some(Ok(frame)) = body.frame().await
    {
        read += frame.data_ref().map_or(0, Bytes::len);
    }
}

/// The type of a request's body: the kind's own, or that of a subresource (`autoscaling.v1.Scale`, `core.v1.Binding`).
pub(crate) fn type_name(target: &Target) -> String {
    match target.kind.subresource(&target.subresource).and_then(|one| one.gvk) {
        Some((group, version, kind)) => {
            let group = if group.is_empty() { "core" } else { group.split('.').next().unwrap_or(group) };
            format!("{group}.{version}.{kind}")
        }
        None => target.kind.type_name.to_owned(),
    }
}

/// How a body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    Cbor,
    Json,
    Protobuf,
    Yaml,
}

/// The encoding of an object's body; a body without a content type is JSON. `cbor`: it is read too.
pub(crate) fn encoding(headers: &HeaderMap, cbor: bool) -> Result<Encoding, Status> {
    match content_type(headers) {
        "application/cbor" if cbor => Ok(Encoding::Cbor),
        "" | "application/json" | "*/*" => Ok(Encoding::Json),
        "application/vnd.kubernetes.protobuf" => Ok(Encoding::Protobuf),
        "application/yaml" => Ok(Encoding::Yaml),
        _ => Err(unsupported(&listed(cbor))),
    }
}

pub(crate) fn unsupported(accepted: &str) -> Status {
    Status::new(
        Reason::UnsupportedMediaType,
        format!(
            "the body of the request was in an unknown format - accepted media types include: {accepted}"
        ),
    )
}

/// A body as a tree, and what is wrong with it that can be lived with.
/// `type_name` is the body's type, which a subresource may have of its own.
pub(crate) fn parse(
    kind: &Kind,
    type_name: &str,
    encoding: Encoding,
    text: &Bytes,
) -> Result<(Value, Problems), Status> {
    let is_custom = kind.custom.is_some() && type_name == kind.type_name;
    match encoding {
        Encoding::Cbor => cbor::decode(text)
            .map(|value| (value, Problems::default()))
            .map_err(|why| Status::bad_request(format!("error decoding CBOR: {why}"))),
        Encoding::Protobuf if is_custom => {
            // It has no numbers for its fields.
            Err(unsupported("application/json, application/yaml"))
        }
        Encoding::Protobuf => {
            protobuf::decode(type_name, text).map(|value| (value, Problems::default())).map_err(|why| {
                Status::bad_request(format!(
                    "the object provided is unrecognized (must be of type {}): {why}",
                    kind.kind
                ))
            })
        }
        Encoding::Json => match schema::parse_json(text) {
            Ok((value, duplicates)) => {
                let told = duplicates.into_iter().map(|path| format!("duplicate field \"{path}\""));
                let text = (!is_custom).then(|| text.clone());
                Ok((value, Problems { told: told.collect(), text }))
            }
            Err(error) => {
                // The decoder has upstream's words for a text that is no JSON.
                let told = kinds::decode(kind, text, FieldValidation::Ignore).err();
                Err(told.unwrap_or_else(|| Status::bad_request(error.to_string())))
            }
        },
        Encoding::Yaml => {
            let read = yaml_with_repeats(text);
            let (value, told) =
                read.map_err(|why| Status::bad_request(format!("error decoding YAML: {why}")))?;
            Ok((value, Problems { told, text: None }))
        }
    }
}

/// YAML as JSON. JSON is YAML, and its own parser is the faster one.
pub fn yaml(text: &[u8]) -> Result<Value, String> {
    if let Ok(value) = serde_json::from_slice(text) {
        return Ok(value);
    }
    let text = std::str::from_utf8(text).map_err(|error| error.to_string())?;
    serde_saphyr::from_str(text).map_err(|error| error.to_string())
}

/// What upstream's reader of YAML says before what stands there twice: one line each.
pub(crate) const YAML_REPEATS: &str = "yaml: unmarshal errors:\n";

/// As [`yaml`], for what clients send: a key that is there twice is told of, and its last value counts.
pub(crate) fn yaml_with_repeats(text: &[u8]) -> Result<(Value, Vec<String>), String> {
    // JSON is YAML, and its own parser is the faster one. YAML's has the words for what is there twice.
    if let Ok((value, repeats)) = schema::parse_json(text)
        && repeats.is_empty()
    {
        return Ok((value, Vec::new()));
    }
    let strictly = match std::str::from_utf8(text) {
        Ok(text) => serde_saphyr::from_str(text),
        Err(error) => return Err(error.to_string()),
    };
    let error = match strictly {
        Ok(value) => return Ok((value, Vec::new())),
        Err(error) => error,
    };
    if !matches!(error.without_snippet(), serde_saphyr::Error::DuplicateMappingKey { .. }) {
        // Not all of JSON is YAML: tabs.
        return serde_json::from_slice(text).map(|value| (value, Vec::new())).map_err(|_| go_words(&error));
    }
    let last = serde_saphyr::options! { duplicate_keys: serde_saphyr::DuplicateKeyPolicy::LastWins };
    let text = std::str::from_utf8(text).map_err(|error| error.to_string())?;
    let again = |error| go_words(&error);
    let Repeats(repeats) = serde_saphyr::from_str_with_options(text, last.clone()).map_err(again)?;
    let value = serde_saphyr::from_str_with_options(text, last).map_err(again)?;
    Ok((value, vec![format!("{YAML_REPEATS}{}", repeats.join("\n"))]))
}

/// The keys of a YAML document that are there twice, in upstream's words; the line is where the later value begins.
struct Repeats(Vec<String>);

/// So many are told, and held: an anchor and its aliases repeat in four bytes what took a page.
const MOST_REPEATS: usize = 100;

impl Repeats {
    fn add(&mut self, more: impl IntoIterator<Item = String>) {
        let room = MOST_REPEATS - self.0.len();
        self.0.extend(more.into_iter().take(room));
    }
}

impl<'de> Deserialize<'de> for Repeats {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self(Vec::new()))
    }
}

impl<'de> Visitor<'de> for Repeats {
    type Value = Self;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<Self, A::Error> {
        while let Some(Self(inner)) = items.next_element()? {
            self.add(inner);
        }
        Ok(self)
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<Self, A::Error> {
        let mut keys = HashSet::new();
        while let Some(key) = members.next_key::<String>()? {
            let Spanned { value: Self(inner), referenced, .. } = members.next_value()?;
            self.add(inner);
            if keys.contains(&key) {
                let told = || format!("  line {}: key {key:?} already set in map", referenced.line());
                self.add(std::iter::once_with(told));
            }
            keys.insert(key);
        }
        Ok(self)
    }
}

/// What is no YAML, in the words of upstream's reader, which names no line if it is the first.
fn go_words(error: &serde_saphyr::Error) -> String {
    let error = error.without_snippet();
    let text = error.to_string();
    let Some(location) = error.location() else { return text };
    // Ours has the place behind its words.
    let place = format!(" at line {}, column {}", location.line(), location.column());
    let words = text.replace(&place, "");
    let line = if location.line() > 1 { format!("line {}: ", location.line()) } else { String::new() };
    format!("error converting YAML to JSON: yaml: {line}{words}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn no_more_repeats_are_held_than_are_told() {
        let one = "a: 1\n".repeat(MOST_REPEATS + 50);
        let items = "- {a: {b: 1, b: 2}, a: 3}\n".repeat(MOST_REPEATS);
        for (text, first, last) in [(one, (2, "a"), (101, "a")), (items, (1, "b"), (50, "a"))] {
            let Repeats(told) = serde_saphyr::from_str_with_options(
                &text,
                serde_saphyr::options! { duplicate_keys: serde_saphyr::DuplicateKeyPolicy::LastWins },
            )
            .expect("YAML");
            assert_eq!((told.len(), told.capacity() <= 2 * MOST_REPEATS), (MOST_REPEATS, true));
            for (told, (line, key)) in [(&told[0], first), (&told[MOST_REPEATS - 1], last)] {
                assert_eq!(*told, format!("  line {line}: key {key:?} already set in map"));
            }
        }
    }

    #[test]
    fn every_key_of_yaml_that_is_there_twice_is_told() {
        let text = "a: 1\na: 2\nb:\n- c: {d: 1, d: 2}\n  c:\n    e: 1\n    e: x\na: 3\n";
        let (value, told) = yaml_with_repeats(text.as_bytes()).expect("YAML");
        assert_eq!(value, json!({"a": 3, "b": [{"c": {"e": "x"}}]}));
        let lines = [(2, "a"), (4, "d"), (7, "e"), (6, "c"), (8, "a")];
        let lines = lines.map(|(line, key)| format!("  line {line}: key {key:?} already set in map"));
        assert_eq!(told, [format!("{YAML_REPEATS}{}", lines.join("\n"))]);
    }
}
