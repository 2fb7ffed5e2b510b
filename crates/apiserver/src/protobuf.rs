//! `application/vnd.kubernetes.protobuf` as a tree: typed Go clients write their bodies in it.
//!
//! ```text
//! "k8s\0", then runtime.Unknown { 1: TypeMeta { 1: apiVersion, 2: kind }, 2: raw }, and in raw the object's own message
//! ```
//!
//! What a field is comes from the table of types, its number from `data/protobuf.tsv`. Go writes the zero of a field that is no
//! pointer, where its JSON would leave the field out; the table knows which those are.

use std::collections::HashMap;
use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use object::Time;
use schema::{Expr, Type};
use serde_json::{Map, Value, json};

const MAGIC: &[u8] = b"k8s\0";
/// Deeper messages are refused; the deepest of the API has about half of that.
const DEEPEST: u32 = 64;

/// One member of a message.
#[derive(Debug)]
struct Member {
    /// Field numbers from the type's own message inwards.
    path: Vec<u32>,
    name: &'static str,
    zero_is_absent: bool,
}

type Table = HashMap<&'static str, Vec<Member>>;

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let lines = include_str!("../data/protobuf.tsv").lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| line.split_once('\t'))
        .map(|(name, members)| (name, members.split(' ').filter_map(member).collect()))
        .collect()
});

fn member(text: &'static str) -> Option<Member> {
    let (name, place) = text.split_once('=')?;
    let zero_is_absent = place.ends_with('z');
    let path =
        place.trim_end_matches('z').split('.').map(|number| number.parse().ok()).collect::<Option<_>>()?;
    Some(Member { path, name, zero_is_absent })
}

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
    let owner = kinds::types().get(type_name).ok_or_else(|| format!("no type {type_name}"))?;
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
    owner: &Type,
    at: &mut Vec<u32>,
    bytes: &[u8],
    to: &mut Map<String, Value>,
    depth: u32,
) -> Result<(), String> {
    if depth > DEEPEST {
        return Err("message nested too deeply".into());
    }
    let members = TABLE.get(owner.name).map_or(&[][..], Vec::as_slice);
    let mut reader = Reader(bytes);
    while let Some((number, wire)) = reader.field()? {
        at.push(number);
        let known = members.iter().find(|member| member.path == *at);
        match (known, wire) {
            (Some(member), wire) => {
                if let Some(field) = owner.field(member.name) {
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
        Expr::Map(item) => entry(item, member.name, wire, to, depth)?,
        Expr::ResourceList => entry(&Expr::Quantity, member.name, wire, to, depth)?,
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
    name: &str,
    wire: Wire<'_>,
    to: &mut Map<String, Value>,
    depth: u32,
) -> Result<(), String> {
    let Wire::Bytes(bytes) = wire else { return Err(format!("{name}: a map entry is a message")) };
    let (mut key, mut held) = (String::new(), None);
    let mut reader = Reader(bytes);
    while let Some((number, wire)) = reader.field()? {
        match (number, wire) {
            (1, Wire::Bytes(bytes)) => key = text(bytes)?,
            // A list as a map's value is a message of its own: ExtraValue { 1: items }.
            (2, Wire::Bytes(bytes)) if matches!(item, Expr::List(_)) => held = Some(items(bytes)?),
            (2, wire) => held = value(item, wire, depth)?,
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
            let owner = kinds::types().all().get(*index).ok_or("a type that is not in the table")?;
            let mut members = Map::new();
            message(owner, &mut Vec::new(), bytes, &mut members, depth + 1)?;
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
    Ok(Some(Time::from_micros(seconds.saturating_mul(1_000_000).saturating_add(nanos / 1_000))))
}

fn text(bytes: &[u8]) -> Result<String, String> {
    String::from_utf8(bytes.to_vec()).map_err(|_| "proto: string field contains invalid UTF-8".into())
}

enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32,
}

/// A cursor over a message. <https://protobuf.dev/programming-guides/encoding/>
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn field(&mut self) -> Result<Option<(u32, Wire<'a>)>, String> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).map_err(|_| "proto: illegal tag")?;
        let wire = match tag & 7 {
            0 => Wire::Varint(self.varint()?),
            1 => {
                let bytes = self.take(8)?;
                Wire::Fixed64(u64::from_le_bytes(bytes.try_into().map_err(|_| END)?))
            }
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| END)?;
                Wire::Bytes(self.take(length)?)
            }
            5 => {
                self.take(4)?;
                Wire::Fixed32
            }
            other => return Err(format!("proto: illegal wireType {other}")),
        };
        Ok(Some((number, wire)))
    }

    fn varint(&mut self) -> Result<u64, String> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err("proto: integer overflow".into())
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        if count > self.0.len() {
            return Err(END.into());
        }
        let (taken, rest) = self.0.split_at(count);
        self.0 = rest;
        Ok(taken)
    }
}

const END: &str = "unexpected EOF";

#[cfg(test)]
mod tests {
    use super::*;

    /// Field number and content, length-delimited.
    fn bytes(number: u8, content: &[u8]) -> Vec<u8> {
        [&[number << 3 | 2, content.len() as u8], content].concat()
    }

    fn envelope(raw: &[u8]) -> Vec<u8> {
        let meta = [bytes(1, b"v1"), bytes(2, b"X")].concat();
        [MAGIC, &bytes(1, &meta), &bytes(2, raw), &bytes(3, b""), &bytes(4, b"")].concat()
    }

    fn check(type_name: &str, raw: &[u8], expected: Value) {
        let mut found = decode(type_name, &envelope(raw)).expect("an object");
        let members = found.as_object_mut().expect("members");
        members.remove("apiVersion");
        members.remove("kind");
        assert_eq!(found, expected);
    }

    #[test]
    fn messages_become_trees() {
        let metadata = bytes(1, &[bytes(1, b"a"), bytes(2, b""), bytes(8, b"")].concat());
        let data = bytes(2, &[bytes(1, b"k"), bytes(2, b"v")].concat());
        check(
            "core.v1.ConfigMap",
            &[metadata, data].concat(),
            json!({"metadata": {"name": "a"}, "data": {"k": "v"}}),
        );
        // A member that JSON writes inline, and a boolean behind a pointer.
        let selector = [bytes(1, &bytes(1, b"c")), bytes(2, b"k"), vec![3 << 3, 0]].concat();
        check("core.v1.ConfigMapKeySelector", &selector, json!({"name": "c", "key": "k", "optional": false}));
        // A probe's port, with zeros that stand for nothing.
        let port = [vec![1 << 3, 0, 2 << 3, 80], bytes(3, b"")].concat();
        let get = bytes(2, &[bytes(1, b"/x"), bytes(2, &port), bytes(3, b""), bytes(4, b"")].concat());
        let probe = [bytes(1, &get), vec![2 << 3, 0, 3 << 3, 1]].concat();
        check("core.v1.Probe", &probe, json!({"httpGet": {"path": "/x", "port": 80}, "timeoutSeconds": 1}));
        let limits = bytes(1, &[bytes(1, b"cpu"), bytes(2, &bytes(1, b"100m"))].concat());
        check("core.v1.ResourceRequirements", &limits, json!({"limits": {"cpu": "100m"}}));
    }

    #[test]
    fn every_number_of_the_table_is_a_field_of_its_type() {
        for (name, members) in TABLE.iter() {
            let owner = kinds::types().get(name).unwrap_or_else(|| panic!("{name}"));
            for member in members {
                assert!(owner.field(member.name).is_some(), "{name} {}", member.name);
            }
        }
    }

    #[test]
    fn a_broken_message_is_refused() {
        let whole = envelope(&bytes(1, &bytes(1, b"a")));
        for end in 0..whole.len() - 4 {
            // Cut anywhere, it is refused or read as a shorter message; it never panics.
            let _ = decode("core.v1.ConfigMap", &whole[..end]);
        }
        assert!(decode("core.v1.ConfigMap", b"{}").is_err());
        assert!(decode("core.v1.ConfigMap", &envelope(&[0x0a, 0x7f])).is_err());
    }
}
