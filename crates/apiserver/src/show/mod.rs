//! Objects in the shape that a client asked for.

pub(crate) mod table;

use object::{Object, Time, body};
use schema::Kind;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::negotiate::{Meta, Shape};

#[derive(Deserialize)]
struct WithMetadata<'a> {
    #[serde(borrow)]
    metadata: &'a RawValue,
}

/// Writes an object as an item of a list or as a whole answer.
pub(crate) fn object(kind: &Kind, shape: Shape, object: &Object, now: Time, to: &mut Vec<u8>) {
    match shape {
        Shape::Whole => whole(kind, object, to),
        Shape::Metadata(meta) => metadata(meta, &object.body, to),
        Shape::Table(include, meta) => table::single(kind, include, meta, object, true, now, to),
    }
}

/// The object in the version that was asked for: its bytes as they are, if that is the stored one.
pub(crate) fn whole(kind: &Kind, object: &Object, to: &mut Vec<u8>) {
    if kind.reads_as_stored(object) {
        return to.extend_from_slice(&object.body);
    }
    match object.to_value() {
        Ok(value) => object::json::write(to, &kind.read_stored(value)),
        Err(_) => to.extend_from_slice(&object.body),
    }
}

/// As an item of a list of a built-in kind, without what the list says of all of them.
pub(crate) fn item(kind: &Kind, object: &Object, to: &mut Vec<u8>) {
    let stored = Some(object).filter(|object| kind.reads_as_stored(object));
    if let Some(rest) = stored.and_then(|object| body::without_type(&object.body)) {
        to.push(b'{');
        return to.extend_from_slice(rest);
    }
    let mut value = value(kind, object);
    if let Some(members) = value.as_object_mut() {
        members.remove("apiVersion");
        members.remove("kind");
    }
    object::json::write(to, &value);
}

/// `PartialObjectMetadata` of a body.
pub(crate) fn metadata(meta: Meta, body: &[u8], to: &mut Vec<u8>) {
    let read: Result<WithMetadata<'_>, _> = serde_json::from_slice(body);
    let metadata = read.as_ref().map_or("{}", |read| read.metadata.get());
    to.extend_from_slice(b"{\"kind\":\"PartialObjectMetadata\",\"apiVersion\":\"");
    to.extend_from_slice(meta.api_version().as_bytes());
    to.extend_from_slice(b"\",\"metadata\":");
    to.extend_from_slice(metadata.as_bytes());
    to.push(b'}');
}

/// The object's tree in the version that was asked for.
pub(crate) fn value(kind: &Kind, object: &Object) -> Value {
    let value = object.to_value().unwrap_or_default();
    if kind.reads_as_stored(object) { value } else { kind.read_stored(value) }
}
