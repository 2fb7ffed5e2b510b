//! Protobuf as a tree.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use object::Time;
use schema::Expr;
use serde_json::{Map, Value, json};

use super::wire::{Reader, Wire};
use super::{DEEPEST, MAGIC, Member, SCHEMA, Union, members};

/// What the envelope says of itself: `apiVersion` and `kind`.
pub fn identity(body: &[u8]) -> Result<(String, String), String> {
    let (mut identity, _) = envelope(body)?;
    let mut text = |name: &str| match identity.remove(name) {
        Some(Value::String(text)) => text,
        _ => String::new(),
    };
    Ok((text("apiVersion"), text("kind")))
}

/// The object in a body, with `apiVersion` and `kind` as the envelope says. `type_name` is what the path expects.
pub fn decode(type_name: &str, body: &[u8]) -> Result<Value, String> {
    let (mut object, raw) = envelope(body)?;
    let owner = kinds::types().index(type_name).ok_or_else(|| format!("no type {type_name}"))?;
    message(owner, &mut Vec::new(), raw, &mut object, 0)?;
    Ok(object.into())
}

/// `apiVersion` and `kind`, and the message of the object.
fn envelope(body: &[u8]) -> Result<(Map<String, Value>, &[u8]), String> {
    let body = body
        .strip_prefix(MAGIC)
        .ok_or("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")?;
    let mut object = Map::new();
    let mut raw: &[u8] = &[];
    let mut envelope = Reader(body);
    while let Some((number, wire)) = envelope.field()? {
        match (number, wire) {
            (1, Wire::Bytes(bytes)) => {
                let mut meta = Reader(bytes);
                while let Some((number, wire)) = meta.field()? {
                    let name = if number == 1 { "apiVersion" } else { "kind" };
                    if let (1 | 2, Wire::Bytes(bytes)) = (number, wire) {
                        object.insert(name.into(), text(bytes)?.into());
                    }
                }
            }
            (2, Wire::Bytes(bytes)) => raw = bytes,
            _ => {}
        }
    }
    Ok((object, raw))
}

/// Reads one message into the members of an object. `at` is where it stands inside the type's own message.
fn message(
    owner: usize,
    at: &mut Vec<u32>,
    bytes: &[u8],
    to: &mut Map<String, Value>,
    depth: u32,
) -> Result<(), String> {
    if depth > DEEPEST {
        return Err("message nested too deeply".into());
    }
    let members = members(owner);
    let fields = kinds::types().all().get(owner).ok_or("a type that is not in the table")?;
    let mut reader = Reader(bytes);
    while let Some((number, wire)) = reader.field()? {
        at.push(number);
        let known = members.iter().find(|member| member.path == *at);
        match (known, wire) {
            (Some(member), wire) => {
                if let Some(field) = fields.field(member.name) {
                    put(&field.expr, member, wire, to, depth)?;
                }
            }
            (None, Wire::Bytes(inner)) if members.iter().any(|member| member.path.starts_with(at)) => {
                message(owner, at, inner, to, depth + 1)?;
            }
            _ => {}
        }
        at.pop();
    }
    Ok(())
}

/// Puts one occurrence of a field where it belongs: repeated ones are collected.
fn put(
    expr: &Expr,
    member: &Member,
    wire: Wire<'_>,
    to: &mut Map<String, Value>,
    depth: u32,
) -> Result<(), String> {
    if let (Some(union), Wire::Bytes(bytes), Expr::Any) = (member.union, &wire, expr) {
        if let Some(value) = either(union, bytes, depth)? {
            to.insert(member.name.into(), value);
        }
        return Ok(());
    }
    match expr {
        Expr::List(item) => {
            let list = to.entry(member.name).or_insert_with(|| json!([]));
            let Value::Array(list) = list else { return Ok(()) };
            match (wire, is_number(item)) {
                // Numbers may come packed.
                (Wire::Bytes(bytes), true) => {
                    let mut packed = Reader(bytes);
                    while !packed.0.is_empty() {
                        list.push((packed.varint()? as i64).into());
                    }
                }
                (wire, _) => list.push(value(item, wire, depth)?.unwrap_or(Value::Null)),
            }
        }
        Expr::Map(item) => entry(item, member, wire, to, depth)?,
        Expr::ResourceList => entry(&Expr::Quantity, member, wire, to, depth)?,
        other => {
            let Some(value) = value(other, wire, depth)? else { return Ok(()) };
            let zero = match &value {
                Value::Bool(value) => !value,
                Value::Number(number) => number.as_f64() == Some(0.0),
                Value::String(text) => text.is_empty(),
                _ => false,
            };
            if !(zero && member.zero_is_absent) {
                to.insert(member.name.into(), value);
            }
        }
    }
    Ok(())
}

fn is_number(expr: &Expr) -> bool {
    matches!(expr, Expr::Boolean | Expr::Int32 | Expr::Int64)
}

/// One entry of a map: a message of key and value.
fn entry(
    item: &Expr,
    member: &Member,
    wire: Wire<'_>,
    to: &mut Map<String, Value>,
    depth: u32,
) -> Result<(), String> {
    let name = member.name;
    let Wire::Bytes(bytes) = wire else { return Err(format!("{name}: a map entry is a message")) };
    let (mut key, mut held) = (String::new(), None);
    let mut reader = Reader(bytes);
    while let Some((number, wire)) = reader.field()? {
        match (number, wire) {
            (1, Wire::Bytes(bytes)) => key = text(bytes)?,
            // A list as a map's value is a message of its own: ExtraValue { 1: items }.
            (2, Wire::Bytes(bytes)) if matches!(item, Expr::List(_)) => held = Some(items(bytes)?),
            (2, wire) => {
                held = match (member.union, wire) {
                    (Some(union), Wire::Bytes(bytes)) => either(union, bytes, depth)?,
                    (_, wire) => value(item, wire, depth)?,
                }
            }
            _ => {}
        }
    }
    let map = to.entry(name).or_insert_with(|| json!({}));
    if let Value::Object(map) = map {
        map.insert(
            key,
            held.unwrap_or_else(|| match item {
                Expr::Struct(_) => json!({}),
                Expr::Time | Expr::MicroTime => Value::Null,
                _ => json!(""),
            }),
        );
    }
    Ok(())
}

/// A schema, or what stands in its place.
fn either(union: Union, bytes: &[u8], depth: u32) -> Result<Option<Value>, String> {
    let schema = kinds::types().index(SCHEMA).ok_or("no type of schemas")?;
    let (own, other) = union.fields();
    let mut found = None;
    let mut reader = Reader(bytes);
    while let Some((number, wire)) = reader.field()? {
        match (union, wire) {
            (_, Wire::Bytes(bytes)) if number == own => {
                found = value(&Expr::Struct(schema), Wire::Bytes(bytes), depth)?;
            }
            // Beside a schema it says nothing.
            (Union::Truth, Wire::Varint(truth)) if number == other => {
                found = found.or(Some((truth != 0).into()));
            }
            (Union::Schemas | Union::Texts, Wire::Bytes(bytes)) if number == other => {
                let item = match union {
                    Union::Schemas => value(&Expr::Struct(schema), Wire::Bytes(bytes), depth)?,
                    _ => Some(text(bytes)?.into()),
                };
                if let Value::Array(list) = found.get_or_insert_with(|| json!([])) {
                    list.extend(item);
                }
            }
            _ => {}
        }
    }
    Ok(found)
}

fn items(bytes: &[u8]) -> Result<Value, String> {
    let mut list = Vec::new();
    let mut reader = Reader(bytes);
    while let Some((number, wire)) = reader.field()? {
        if let (1, Wire::Bytes(bytes)) = (number, wire) {
            list.push(Value::from(text(bytes)?));
        }
    }
    Ok(list.into())
}

/// One value; None if it stands for an absent one.
fn value(expr: &Expr, wire: Wire<'_>, depth: u32) -> Result<Option<Value>, String> {
    Ok(Some(match (expr, wire) {
        (Expr::Boolean, Wire::Varint(number)) => (number != 0).into(),
        (Expr::Int32 | Expr::Int64, Wire::Varint(number)) => (number as i64).into(),
        (Expr::Double, Wire::Fixed64(bits)) => f64::from_bits(bits).into(),
        (Expr::String, Wire::Bytes(bytes)) => text(bytes)?.into(),
        (Expr::Bytes, Wire::Bytes(bytes)) => STANDARD.encode(bytes).into(),
        (Expr::Struct(index), Wire::Bytes(bytes)) => {
            let mut members = Map::new();
            message(*index, &mut Vec::new(), bytes, &mut members, depth + 1)?;
            members.into()
        }
        (Expr::Quantity, Wire::Bytes(bytes)) => match single(bytes)? {
            Some(bytes) => text(bytes)?.into(),
            None => "0".into(),
        },
        (Expr::IntOrString, Wire::Bytes(bytes)) => int_or_string(bytes)?,
        (Expr::Time, Wire::Bytes(bytes)) => return Ok(time(bytes)?.map(|time| time.to_string().into())),
        (Expr::MicroTime, Wire::Bytes(bytes)) => return Ok(time(bytes)?.map(|time| time.micro().into())),
        // RawExtension, FieldsV1 and JSON: a message around JSON text.
        (Expr::Any | Expr::Object, Wire::Bytes(bytes)) => match single(bytes)? {
            Some(text) => serde_json::from_slice(text).map_err(|error| error.to_string())?,
            None => return Ok(None),
        },
        (expr, _) => return Err(format!("proto: wrong wireType for {expr:?}")),
    }))
}

/// The bytes in field 1 of a message that has no other.
fn single(bytes: &[u8]) -> Result<Option<&[u8]>, String> {
    let mut reader = Reader(bytes);
    while let Some((number, wire)) = reader.field()? {
        if let (1, Wire::Bytes(bytes)) = (number, wire) {
            return Ok(Some(bytes));
        }
    }
    Ok(None)
}

/// `intstr.IntOrString`: 1 type (0 number, 1 text), 2 number, 3 text.
fn int_or_string(bytes: &[u8]) -> Result<Value, String> {
    let (mut is_text, mut number, mut words) = (false, 0, String::new());
    let mut reader = Reader(bytes);
    while let Some((field, wire)) = reader.field()? {
        match (field, wire) {
            (1, Wire::Varint(kind)) => is_text = kind == 1,
            (2, Wire::Varint(value)) => number = value as i64,
            (3, Wire::Bytes(bytes)) => words = text(bytes)?,
            _ => {}
        }
    }
    Ok(if is_text { words.into() } else { number.into() })
}

/// The years 0 to 9999, which JSON can tell, in microseconds since 1970.
const YEARS: std::ops::Range<i64> = -62_167_219_200_000_000..253_402_300_800_000_000;

/// `Timestamp`: 1 seconds, 2 nanoseconds. An empty one is Go's zero time: none.
fn time(bytes: &[u8]) -> Result<Option<Time>, String> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let (mut seconds, mut nanos) = (0_i64, 0_i64);
    let mut reader = Reader(bytes);
    while let Some((field, wire)) = reader.field()? {
        match (field, wire) {
            (1, Wire::Varint(value)) => seconds = value as i64,
            (2, Wire::Varint(value)) => nanos = value as i64,
            _ => {}
        }
    }
    let micros = seconds.saturating_mul(1_000_000).saturating_add(nanos / 1_000);
    if !YEARS.contains(&micros) {
        return Err("Time: year outside of range [0,9999]".into());
    }
    Ok(Some(Time::from_micros(micros)))
}

fn text(bytes: &[u8]) -> Result<String, String> {
    String::from_utf8(bytes.to_vec()).map_err(|_| "proto: string field contains invalid UTF-8".into())
}
