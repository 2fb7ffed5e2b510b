//! An object's JSON text: how it is written, and where its resourceVersion stands.
//!
//! A stored body has no resourceVersion, because the revision is only known at the commit; in memory it has one:
//!
//! ```text
//! stored     {"apiVersion":"v1","kind":"Pod","metadata":{"name":"a"},"spec":{}}
//! in memory  {"apiVersion":"v1","kind":"Pod","metadata":{"resourceVersion":"7","name":"a"},"spec":{}}
//! ```
//!
//! `apiVersion`, `kind` and `metadata` always stand first and in this order. Both strings before `metadata` are names that validation has
//! passed, so the first `"metadata":{` of the text is the top-level one and the place to splice is found without parsing.

use bytes::Bytes;
use serde_json::{Map, Value};

use crate::{Revision, json};

const METADATA: &[u8] = b"\"metadata\":{";
const VERSION: &[u8] = b"\"resourceVersion\":\"";

/// The text of an object as it is stored: canonical, without resourceVersion.
pub fn encode(object: &Value) -> Bytes {
    let empty = Map::new();
    let object = object.as_object().unwrap_or(&empty);
    let mut text = Vec::with_capacity(512);
    text.push(b'{');
    for field in ["apiVersion", "kind"] {
        if let Some(value) = object.get(field) {
            member(&mut text, field, value);
            text.push(b',');
        }
    }
    text.extend_from_slice(METADATA);
    let mut first = true;
    for (name, value) in object.get("metadata").and_then(Value::as_object).unwrap_or(&empty) {
        if name != "resourceVersion" {
            separate(&mut text, &mut first);
            member(&mut text, name, value);
        }
    }
    text.push(b'}');
    for (name, value) in object {
        if !matches!(name.as_str(), "apiVersion" | "kind" | "metadata") {
            text.push(b',');
            member(&mut text, name, value);
        }
    }
    text.push(b'}');
    text.into()
}

fn separate(text: &mut Vec<u8>, first: &mut bool) {
    if !std::mem::replace(first, false) {
        text.push(b',');
    }
}

fn member(text: &mut Vec<u8>, name: &str, value: &Value) {
    // Writing a text to memory cannot fail.
    let _ = serde_json::to_writer(&mut *text, name);
    text.push(b':');
    json::write(text, value);
}

/// The stored text with a resourceVersion spliced in, as memory and clients see it.
pub fn with_revision(stored: &[u8], revision: Revision) -> Bytes {
    let Some(at) = after_metadata(stored) else {
        return Bytes::copy_from_slice(stored);
    };
    let mut text = Vec::with_capacity(stored.len() + VERSION.len() + 24);
    text.extend_from_slice(&stored[..at]);
    text.extend_from_slice(VERSION);
    text.extend_from_slice(revision.to_string().as_bytes());
    text.push(b'"');
    if stored.get(at) != Some(&b'}') {
        text.push(b',');
    }
    text.extend_from_slice(&stored[at..]);
    text.into()
}

/// The text of memory without its resourceVersion, as the store writes it.
pub fn without_revision(body: &[u8]) -> Bytes {
    let spliced = after_metadata(body).filter(|&at| body[at..].starts_with(VERSION));
    let Some(at) = spliced else {
        return Bytes::copy_from_slice(body);
    };
    let value = at + VERSION.len();
    let digits = body[value..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let mut rest = value + digits + 1;
    if body.get(rest) == Some(&b',') {
        rest += 1;
    }
    [&body[..at], &body[rest.min(body.len())..]].concat().into()
}

/// The text behind `{"apiVersion":…,"kind":…,`: what is left of an object where its list says what it is.
pub fn without_type(body: &[u8]) -> Option<&[u8]> {
    body.get(after_metadata(body)? - METADATA.len()..)
}

fn after_metadata(text: &[u8]) -> Option<usize> {
    text.windows(METADATA.len()).position(|window| window == METADATA).map(|at| at + METADATA.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_revision_is_spliced_in_and_out() {
        for object in [
            json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "a", "resourceVersion": "3"}, "spec": {}}),
            json!({"kind": "Pod", "apiVersion": "v1", "metadata": {}}),
            json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "\"metadata\":{"}, "data": {"metadata": "\"metadata\":{"}}),
        ] {
            let stored = encode(&object);
            let body = with_revision(&stored, 42);
            let read: Value = serde_json::from_slice(&body).expect("JSON");
            assert_eq!(read["metadata"]["resourceVersion"], "42");
            assert_eq!(read["metadata"]["name"], object["metadata"]["name"]);
            assert_eq!(without_revision(&body), stored);
            let rest = [b"{", without_type(&body).expect("metadata")].concat();
            let rest: Value = serde_json::from_slice(&rest).expect("JSON");
            assert_eq!((rest.get("kind"), &rest["metadata"]), (None, &read["metadata"]));
        }
    }
}
