//! Request bodies: read within a limit, parsed as JSON or YAML.

use bytes::Bytes;
use http::HeaderMap;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use object::{Reason, Status};
use schema::{FieldValidation, Kind};
use serde_json::Value;

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

/// A body as a tree, and what is wrong with it that can be lived with (`duplicate field "spec.replicas"`).
/// `type_name` is the body's type, which a subresource may have of its own.
pub(crate) fn parse(
    kind: &Kind,
    type_name: &str,
    encoding: Encoding,
    text: &[u8],
) -> Result<(Value, Vec<String>), Status> {
    match encoding {
        Encoding::Cbor => cbor::decode(text)
            .map(|value| (value, Vec::new()))
            .map_err(|why| Status::bad_request(format!("error decoding CBOR: {why}"))),
        Encoding::Protobuf if kind.custom.is_some() && type_name == kind.type_name => {
            // It has no numbers for its fields.
            Err(unsupported("application/json, application/yaml"))
        }
        Encoding::Protobuf => {
            protobuf::decode(type_name, text).map(|value| (value, Vec::new())).map_err(|why| {
                Status::bad_request(format!(
                    "the object provided is unrecognized (must be of type {}): {why}",
                    kind.kind
                ))
            })
        }
        Encoding::Json => match schema::parse_json(text) {
            Ok((value, duplicates)) => Ok((
                value,
                duplicates.into_iter().map(|path| format!("duplicate field \"{path}\"")).collect(),
            )),
            Err(error) => {
                // The decoder has upstream's words for a text that is no JSON.
                let told = kinds::decode(kind, text, FieldValidation::Ignore).err();
                Err(told.unwrap_or_else(|| Status::bad_request(error.to_string())))
            }
        },
        Encoding::Yaml => {
            yaml_with_repeats(text).map_err(|why| Status::bad_request(format!("error decoding YAML: {why}")))
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
pub(crate) const YAML_REPEATS: &str = "error converting YAML to JSON: yaml: unmarshal errors:\n";

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
    let serde_saphyr::Error::DuplicateMappingKey { key, location } = error.without_snippet() else {
        // Not all of JSON is YAML: tabs.
        return serde_json::from_slice(text).map(|value| (value, Vec::new())).map_err(|_| go_words(&error));
    };
    let (line, key) = (location.line(), key.as_deref().unwrap_or_default());
    let told = format!("{YAML_REPEATS}  line {line}: key {key:?} already set in map");
    let last = serde_saphyr::options! { duplicate_keys: serde_saphyr::DuplicateKeyPolicy::LastWins };
    let text = std::str::from_utf8(text).map_err(|error| error.to_string())?;
    let value = serde_saphyr::from_str_with_options(text, last).map_err(|error| go_words(&error))?;
    Ok((value, vec![told]))
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
