//! JSON, in bodies of restJson and awsJson alike.

use bytes::Bytes;
use http::Request;
use serde_json::{Map, Value, json};

use super::{DEPTH_LIMIT, time};
use crate::Fault;
use crate::model::{Kind, Location, Model, OperationModel, Protocol, Shape, TimestampFormat};

pub fn content_type(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Json10 => "application/x-amz-json-1.0",
        Protocol::Json11 => "application/x-amz-json-1.1",
        _ => "application/json",
    }
}

/// The operation that `X-Amz-Target` names.
pub fn find(model: &'static Model, request: &Request<Bytes>) -> Result<&'static OperationModel, Fault> {
    let target =
        request.headers().get("x-amz-target").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let named = target.rsplit_once('.').filter(|(prefix, _)| *prefix == model.target_prefix);
    named.and_then(|(_, name)| model.operation(name)).ok_or_else(|| Fault::new("UnknownOperation", ""))
}

/// A body that is the whole input.
pub fn body(model: &Model, shape: &Shape, body: &[u8]) -> Result<Value, Fault> {
    members(model, shape, &parse(body)?, 0)
}

/// The text of a body; an empty one means an empty object.
pub fn parse(body: &[u8]) -> Result<Value, Fault> {
    if body.trim_ascii().is_empty() {
        return Ok(json!({}));
    }
    let parsed: Value = serde_json::from_slice(body).map_err(|error| malformed(&error.to_string()))?;
    if parsed.is_object() { Ok(parsed) } else { Err(malformed("the body is not an object")) }
}

fn malformed(why: &str) -> Fault {
    Fault::new("Serialization", why)
}

/// The members of an object that the shape knows and that are in the body.
pub fn members(model: &Model, shape: &Shape, value: &Value, depth: usize) -> Result<Value, Fault> {
    let object = value.as_object().ok_or_else(|| mismatch(value, "an object"))?;
    let mut read = Map::new();
    for member in shape.members().iter().filter(|member| member.location == Location::Body) {
        if let Some(value) = object.get(member.wire.unwrap_or(member.name)).filter(|value| !value.is_null()) {
            read.insert(member.name.to_owned(), self::read(model, model.shape(member.of), value, depth + 1)?);
        }
    }
    Ok(Value::Object(read))
}

pub fn read(model: &Model, shape: &Shape, value: &Value, depth: usize) -> Result<Value, Fault> {
    if depth > DEPTH_LIMIT {
        return Err(malformed("the body is nested too deeply"));
    }
    match &shape.kind {
        Kind::Structure { .. } => members(model, shape, value, depth),
        Kind::List { of, .. } => {
            let list = value.as_array().ok_or_else(|| mismatch(value, "a list"))?;
            let items = list.iter().filter(|item| !item.is_null());
            items.map(|item| read(model, model.shape(*of), item, depth + 1)).collect()
        }
        Kind::Map { value: of, .. } => {
            let map = value.as_object().ok_or_else(|| mismatch(value, "a map"))?;
            let entries = map.iter().filter(|(_, value)| !value.is_null());
            let read = entries
                .map(|(key, value)| Ok((key.clone(), read(model, model.shape(*of), value, depth + 1)?)));
            Ok(Value::Object(read.collect::<Result<_, Fault>>()?))
        }
        Kind::String | Kind::Enum(_) | Kind::Blob if value.is_string() => Ok(value.clone()),
        Kind::String | Kind::Enum(_) | Kind::Blob => Err(mismatch(value, "a String")),
        Kind::Integer if value.is_i64() => Ok(value.clone()),
        // 3.0 is a whole number too.
        Kind::Integer => match value.as_f64().filter(|number| number.fract() == 0.0 && number.abs() < 9e15) {
            Some(number) => Ok(json!(number as i64)),
            None => Err(mismatch(value, "an Integer")),
        },
        Kind::Double if value.is_number() => Ok(value.clone()),
        Kind::Double => Err(mismatch(value, "a Double")),
        Kind::Boolean if value.is_boolean() => Ok(value.clone()),
        Kind::Boolean => Err(mismatch(value, "a Boolean")),
        Kind::Timestamp(_) => {
            time::read(value).map(Value::String).ok_or_else(|| mismatch(value, "a Timestamp"))
        }
    }
}

/// AWS names what it met, and what it wanted instead.
fn mismatch(value: &Value, wanted: &str) -> Fault {
    let met = match value {
        Value::Null => "NULL_VALUE",
        Value::Bool(true) => "TRUE_VALUE",
        Value::Bool(false) => "FALSE_VALUE",
        Value::Number(number) if number.is_f64() => "DECIMAL_VALUE",
        Value::Number(_) => "NUMBER_VALUE",
        Value::String(_) => "STRING_VALUE",
        Value::Array(_) => "START_OF_LIST",
        Value::Object(_) => "START_OF_STRUCTURE",
    };
    malformed(&format!("{met} can not be converted to {wanted}"))
}

/// The text of an answer.
pub fn text(model: &Model, shape: Option<&Shape>, output: &Value) -> Vec<u8> {
    let body = shape.map_or_else(|| json!({}), |shape| write(model, shape, output, TimestampFormat::Unix));
    // A value always becomes text.
    serde_json::to_vec(&body).unwrap_or_default()
}

/// A value by the names of the wire. What the shape does not know, and what is null, is left out.
pub fn write(model: &Model, shape: &Shape, value: &Value, usual: TimestampFormat) -> Value {
    match (&shape.kind, value) {
        (Kind::Structure { members, .. }, Value::Object(object)) => {
            let present = members.iter().filter(|member| member.location == Location::Body);
            let present = present.filter_map(|member| {
                let value = object.get(member.name).filter(|value| !value.is_null())?;
                let name = member.wire.unwrap_or(member.name).to_owned();
                Some((name, write(model, model.shape(member.of), value, usual)))
            });
            Value::Object(present.collect())
        }
        (Kind::List { of, .. }, Value::Array(items)) => {
            items.iter().map(|item| write(model, model.shape(*of), item, usual)).collect()
        }
        (Kind::Map { value: of, .. }, Value::Object(map)) => {
            let entries =
                map.iter().map(|(key, value)| (key.clone(), write(model, model.shape(*of), value, usual)));
            Value::Object(entries.collect())
        }
        (Kind::Timestamp(format), value) => time::write(value, format.unwrap_or(usual)),
        (_, value) => value.clone(),
    }
}
