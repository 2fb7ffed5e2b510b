//! Between JSON and values: what a schema says decides what a text or a number is.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value as Json, json};

use crate::types::Type;
use crate::value::{Key, Text, Value};

/// A document's value, seen as a type. What does not fit the type is seen as what it is.
pub fn from_json<'a>(json: &'a Json, of: &'a Type) -> Value<'a> {
    match json {
        Json::Null => Value::Null,
        Json::Bool(flag) => Value::Bool(*flag),
        Json::Number(number) => {
            let as_double = || Value::Double(number.as_f64().unwrap_or_default());
            match of {
                Type::Double => as_double(),
                Type::Uint => number.as_u64().map_or_else(as_double, Value::Uint),
                _ => match number.as_i64() {
                    Some(whole) => Value::Int(whole),
                    None => number.as_u64().map_or_else(as_double, Value::Uint),
                },
            }
        }
        Json::String(text) => from_text(text, of),
        Json::Array(values) => match of {
            Type::List(element) => Value::Array(values, element),
            _ => Value::Array(values, &Type::Dyn),
        },
        Json::Object(entries) => match of {
            Type::Object(object) => Value::Object(entries, object),
            Type::Map(_, value) => Value::Entries(entries, value),
            _ => Value::Entries(entries, &Type::Dyn),
        },
    }
}

fn from_text<'a>(text: &'a str, of: &Type) -> Value<'a> {
    let parsed = match of {
        Type::Timestamp => text.parse().ok().map(Value::Timestamp),
        Type::Duration => crate::functions::duration(text).map(Value::Duration),
        Type::Bytes => STANDARD.decode(text).ok().map(|bytes| Value::Bytes(bytes.into())),
        _ => None,
    };
    parsed.unwrap_or(Value::String(Text::Borrowed(text)))
}

/// A value as a document, for what expressions produce (patches, messages). None if it is nothing that a document can hold.
pub fn to_json(value: &Value) -> Option<Json> {
    Some(match value {
        Value::Null => Json::Null,
        Value::Bool(flag) => json!(flag),
        Value::Int(number) => json!(number),
        Value::Uint(number) => json!(number),
        Value::Double(number) => json!(number),
        Value::String(text) => json!(&**text),
        Value::Bytes(bytes) => json!(STANDARD.encode(bytes)),
        Value::Timestamp(at) => json!(at.to_string()),
        Value::Duration(length) => json!(crate::functions::duration_text(*length)),
        Value::List(values) => Json::Array(values.iter().map(to_json).collect::<Option<_>>()?),
        Value::Array(values, _) => Json::Array(values.to_vec()),
        Value::Entries(entries, _) | Value::Object(entries, _) => Json::Object((*entries).clone()),
        Value::Map(entries) => {
            let mut object = Map::new();
            for (key, value) in entries.iter() {
                let Key::String(name) = key else { return None };
                object.insert(name.to_string(), to_json(value)?);
            }
            Json::Object(object)
        }
        Value::Message(_, fields) => {
            let mut object = Map::new();
            for (name, value) in fields.iter() {
                object.insert(unescape(name), to_json(value)?);
            }
            Json::Object(object)
        }
        Value::Optional(Some(inner)) => return to_json(&Arc::clone(inner)),
        Value::Optional(None) | Value::Type(_) | Value::Opaque(_) => return None,
    })
}

/// What CEL cannot say in a name, and how Kubernetes writes it. Longer ones first.
const ESCAPES: &[(&str, &str)] =
    &[("__", "__underscores__"), (".", "__dot__"), ("-", "__dash__"), ("/", "__slash__")];

/// Words that are no names.
const KEYWORDS: &[&str] = &[
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
];

/// The name by which expressions reach a property; one that cannot be reached at all keeps its name.
/// <https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#validation-rules>
pub fn escape(name: &str) -> String {
    if KEYWORDS.contains(&name) {
        return format!("__{name}__");
    }
    let mut escaped = String::with_capacity(name.len());
    let mut rest = name;
    'next: while let Some(c) = rest.chars().next() {
        for (what, word) in ESCAPES {
            if let Some(left) = rest.strip_prefix(what) {
                escaped.push_str(word);
                rest = left;
                continue 'next;
            }
        }
        escaped.push(c);
        rest = &rest[c.len_utf8()..];
    }
    escaped
}

fn unescape(name: &str) -> String {
    let keyword = name.strip_prefix("__").and_then(|name| name.strip_suffix("__"));
    if let Some(keyword) = keyword.filter(|keyword| KEYWORDS.contains(keyword)) {
        return keyword.to_owned();
    }
    ESCAPES.iter().rev().fold(name.to_owned(), |name, (what, word)| name.replace(word, what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped_as_kubernetes_documents() {
        for (name, escaped) in [
            ("foo", "foo"),
            ("a-b", "a__dash__b"),
            ("a.b/c", "a__dot__b__slash__c"),
            ("a__b", "a__underscores__b"),
            ("namespace", "__namespace__"),
            ("x_y", "x_y"),
        ] {
            assert_eq!(escape(name), escaped);
            assert_eq!(unescape(escaped), name);
        }
    }
}
