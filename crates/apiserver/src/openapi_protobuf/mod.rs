//! OpenAPI documents as protobuf: what older kubectls, client-go's `OpenAPISchema()` and with it Argo CD ask for, and what reads version 3
//! without parsing JSON.
//!
//! A version is a table of gnostic's messages (<https://github.com/google/gnostic-models>), a field each row: the member of the JSON
//! document, the field's number and its [`Shape`]. What a message has no field for is a vendor extension, or is left out.

mod v2;
mod v3;

use serde_json::Value;

use crate::protobuf::wire;
use Shape::{Any, Double, Each, Flag, Integer, One, OrFlag, OrReference, Scalar, Text, Within};

/// A version of OpenAPI.
pub(crate) struct Version {
    /// The media types under which clients ask for it: the first is also what the answer says. The `@` that old clients ask with is in
    /// no media type that they can read.
    pub(crate) media_types: [&'static str; 2],
    document: &'static Message,
}

pub(crate) static V2: Version = Version {
    media_types: [
        "application/com.github.proto-openapi.spec.v2.v1.0+protobuf",
        "application/com.github.proto-openapi.spec.v2@v1.0+protobuf",
    ],
    document: &v2::DOCUMENT,
};
pub(crate) static V3: Version = Version {
    media_types: [
        "application/com.github.proto-openapi.spec.v3.v1.0+protobuf",
        "application/com.github.proto-openapi.spec.v3@v1.0+protobuf",
    ],
    document: &v3::DOCUMENT,
};

/// A message, as it is made of an object.
struct Message {
    fields: &'static [(&'static str, u32, Shape)],
    /// What holds a `Named…` message for each member that is no field and no extension: a map's.
    others: Option<(u32, &'static Shape)>,
    /// What holds the members that begin with `x-`. 0: here they are members like any.
    extensions: u32,
}

impl Message {
    const fn of(extensions: u32, fields: &'static [(&'static str, u32, Shape)]) -> Self {
        Self { fields, others: None, extensions }
    }

    /// A map, whose members may have any name.
    const fn map(shape: &'static Shape) -> Self {
        Self { fields: &[], others: Some((1, shape)), extensions: 0 }
    }
}

/// How a value is written.
enum Shape {
    /// `Any { 2: yaml }`: JSON is YAML.
    Any,
    Double,
    /// Each of a list.
    Each(&'static Shape),
    Flag,
    Integer,
    One(&'static Message),
    /// `oneof { 1: this, 2: a flag }`
    OrFlag(&'static Shape),
    /// `oneof { 1: this, 2: Reference }`
    OrReference(&'static Message),
    /// `oneof { 1: a double, 2: a flag, 3: a text }`; of lists and objects nothing can be told.
    Scalar,
    Text,
    /// A message with this field alone.
    Within(u32, &'static Shape),
}

static REFERENCE: Message =
    Message::of(0, &[("$ref", 1, Text), ("summary", 2, Text), ("description", 3, Text)]);

/// A whole document.
pub(crate) fn encode(version: &Version, document: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    message(version.document, document, &mut bytes);
    bytes
}

fn message(of: &Message, object: &Value, to: &mut Vec<u8>) {
    for (name, number, shape) in of.fields {
        if let Some(value) = object.get(*name) {
            field(*number, shape, value, to);
        }
    }
    for (name, value) in object.as_object().into_iter().flatten() {
        if of.extensions != 0 && name.starts_with("x-") {
            named(of.extensions, name, &Any, value, to);
        } else if let Some((number, shape)) = of.others
            && of.fields.iter().all(|(field, ..)| field != name)
        {
            named(number, name, shape, value, to);
        }
    }
}

/// One value of a field. What has no such shape is left out.
fn field(number: u32, shape: &Shape, value: &Value, to: &mut Vec<u8>) {
    match (shape, value) {
        (Any, _) => within(number, to, |to| wire::bytes(2, value.to_string().as_bytes(), to)),
        (Double, Value::Number(double)) => {
            if let Some(double) = double.as_f64() {
                wire::double(number, double, to);
            }
        }
        (Each(shape), Value::Array(items)) => items.iter().for_each(|item| field(number, shape, item, to)),
        (Flag, Value::Bool(flag)) => wire::number(number, (*flag).into(), to),
        (Integer, Value::Number(integer)) => {
            if let Some(integer) = integer.as_i64() {
                wire::number(number, integer.cast_unsigned(), to);
            }
        }
        (One(of), Value::Object(_)) => within(number, to, |to| message(of, value, to)),
        (OrFlag(_), Value::Bool(_)) => within(number, to, |to| field(2, &Flag, value, to)),
        (OrFlag(shape), _) => within(number, to, |to| field(1, shape, value, to)),
        (OrReference(of), Value::Object(members)) => {
            let (place, of) = if members.contains_key("$ref") { (2, &REFERENCE) } else { (1, *of) };
            within(number, to, |to| field(place, &One(of), value, to));
        }
        (Scalar, _) => within(number, to, |to| match value {
            Value::Bool(_) => field(2, &Flag, value, to),
            Value::Number(_) => field(1, &Double, value, to),
            _ => field(3, &Text, value, to),
        }),
        (Text, Value::String(text)) => wire::bytes(number, text.as_bytes(), to),
        (Within(place, shape), _) => within(number, to, |to| field(*place, shape, value, to)),
        _ => {}
    }
}

/// A member of a map: `Named… { 1: name, 2: value }`.
fn named(number: u32, name: &str, shape: &Shape, value: &Value, to: &mut Vec<u8>) {
    within(number, to, |to| {
        wire::bytes(1, name.as_bytes(), to);
        field(2, shape, value, to);
    });
}

fn within(number: u32, to: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let begin = wire::open(number, to);
    write(to);
    wire::close(begin, to);
}

#[cfg(test)]
mod tests;
