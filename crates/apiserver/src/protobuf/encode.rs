//! JSON text as protobuf: each field is written as it is read, and no tree is built.

use std::borrow::Cow;
use std::fmt;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::general_purpose::{GeneralPurpose, PAD};
use object::{Status, Time};
use schema::Expr;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use super::wire::{bytes, close, double, number, open, varint, width};
use crate::negotiate::Meta;

use super::{MAGIC, Member, SCHEMA, Union, members};

/// What follows the items of a list: `contentEncoding` and `contentType`, which upstream writes empty.
pub(crate) const LIST_TAIL: &[u8] = &[0x1a, 0, 0x22, 0];

/// As Go reads base64: what stands in the bits behind the last byte does not matter.
const BASE64: GeneralPurpose = GeneralPurpose::new(&STANDARD, PAD.with_decode_allow_trailing_bits(true));

const META: &str = "meta.v1.ObjectMeta";

/// A body that cannot be told in protobuf: a fault of whatever stored it.
fn broken(type_name: &str, error: &serde_json::Error) -> Status {
    Status::internal(format!("encoding {type_name} as protobuf: {error}"))
}

/// A document with its envelope. `json` is of the type `type_name`.
pub(crate) fn whole(
    type_name: &str,
    api_version: &str,
    kind: &str,
    json: &[u8],
    to: &mut Vec<u8>,
) -> Result<(), Status> {
    enveloped(api_version, kind, to, |to| message(type_name, json, to))
}

/// `PartialObjectMetadata` of an object's text.
pub(crate) fn partial(meta: Meta, json: &[u8], to: &mut Vec<u8>) -> Result<(), Status> {
    enveloped(meta.api_version(), "PartialObjectMetadata", to, |to| metadata(json, to))
}

/// A document that was made as a tree; what it is says it itself.
pub(crate) fn document(value: &Value) -> Result<Vec<u8>, Status> {
    let (api_version, kind) = (schema::path::text(value, "apiVersion"), schema::path::text(value, "kind"));
    let mut made = Vec::new();
    whole(&type_of(api_version, kind), api_version, kind, value.to_string().as_bytes(), &mut made)?;
    Ok(made)
}

/// What belongs to no group; of some of it, upstream writes no version.
const OF_META: [&str; 5] = ["APIGroup", "APIGroupList", "APIResourceList", "APIVersions", "Status"];

/// The name in the table of types: `autoscaling.v1.Scale` of `autoscaling/v1` and `Scale`.
fn type_of(api_version: &str, kind: &str) -> String {
    match api_version.split_once('/') {
        Some((group, version)) => {
            format!("{}.{version}.{kind}", group.split('.').next().unwrap_or(group))
        }
        None if OF_META.contains(&kind) => format!("meta.v1.{kind}"),
        None => format!("core.{api_version}.{kind}"),
    }
}

/// One object of a list.
pub(crate) fn item(type_name: &str, json: &[u8], to: &mut Vec<u8>) -> Result<(), Status> {
    let begin = open(2, to);
    message(type_name, json, to)?;
    close(begin, to);
    Ok(())
}

/// One object of a `PartialObjectMetadataList`.
pub(crate) fn metadata_item(json: &[u8], to: &mut Vec<u8>) -> Result<(), Status> {
    let begin = open(2, to);
    metadata(json, to)?;
    close(begin, to);
    Ok(())
}

/// Everything of a list before its items, which take so many bytes.
pub(crate) fn list_head(
    api_version: &str,
    kind: &str,
    list_meta: &Value,
    items: u64,
) -> Result<Vec<u8>, Status> {
    let mut own = Vec::new();
    let begin = open(1, &mut own);
    message("meta.v1.ListMeta", list_meta.to_string().as_bytes(), &mut own)?;
    close(begin, &mut own);
    let mut head = Vec::with_capacity(own.len() + 64);
    envelope_head(api_version, kind, &mut head);
    head.push(2 << 3 | 2);
    varint(own.len() as u64 + items, &mut head);
    head.extend_from_slice(&own);
    Ok(head)
}

/// The length that an event begins with.
pub(crate) const LENGTH_BYTES: usize = 4;

/// A watch event in its frame: four bytes of length, then `WatchEvent { 1: type, 2: RawExtension { 1: object } }`.
pub(crate) fn event(change: &str, object: &[u8], to: &mut Vec<u8>) {
    // The lengths are known, so that the object is copied once: tag and length of each message around it.
    let raw = 1 + width(object.len() as u64) + object.len();
    let extension = 1 + width(raw as u64) + raw;
    let event = 2 + change.len() + extension;
    to.reserve(LENGTH_BYTES + event);
    to.extend_from_slice(&u32::try_from(event).unwrap_or(u32::MAX).to_be_bytes());
    bytes(1, change.as_bytes(), to);
    to.push(2 << 3 | 2);
    varint(raw as u64, to);
    bytes(1, object, to);
}

fn enveloped(
    api_version: &str,
    kind: &str,
    to: &mut Vec<u8>,
    write: impl FnOnce(&mut Vec<u8>) -> Result<(), Status>,
) -> Result<(), Status> {
    envelope_head(api_version, kind, to);
    let begin = open(2, to);
    write(to)?;
    close(begin, to);
    to.extend_from_slice(LIST_TAIL);
    Ok(())
}

fn envelope_head(api_version: &str, kind: &str, to: &mut Vec<u8>) {
    to.extend_from_slice(MAGIC);
    let begin = open(1, to);
    bytes(1, api_version.as_bytes(), to);
    bytes(2, kind.as_bytes(), to);
    close(begin, to);
}

/// The message of an object, without its length.
fn message(type_name: &str, json: &[u8], to: &mut Vec<u8>) -> Result<(), Status> {
    let owner = kinds::types()
        .index(type_name)
        .ok_or_else(|| Status::internal(format!("no protobuf is known of {type_name}")))?;
    let mut reader = serde_json::Deserializer::from_slice(json);
    Message { owner, to }.deserialize(&mut reader).map_err(|error| broken(type_name, &error))
}

/// A message whose only field is an object's metadata.
fn metadata(json: &[u8], to: &mut Vec<u8>) -> Result<(), Status> {
    #[derive(Deserialize)]
    struct Partial<'a> {
        #[serde(borrow)]
        metadata: &'a RawValue,
    }
    let read: Partial<'_> = serde_json::from_slice(json).map_err(|error| broken(META, &error))?;
    let begin = open(1, to);
    message(META, read.metadata.get().as_bytes(), to)?;
    close(begin, to);
    Ok(())
}

/// Writes the members of one JSON object as the fields of a message.
struct Message<'a> {
    /// The type's place in the table of types.
    owner: usize,
    to: &'a mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for Message<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Message<'_> {
    type Value = ();

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("an object")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let to = self.to;
        while let Some(found) = map.next_key_seed(Name(members(self.owner)))? {
            let fields = kinds::types().all().get(self.owner);
            let field = found.and_then(|member| Some((member, fields?.field(member.name)?)));
            let Some((member, field)) = field else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            // What JSON writes inline stands in messages of its own.
            let (last, outer) =
                member.path.split_last().ok_or_else(|| A::Error::custom("no field number"))?;
            let before = to.len();
            let begun: Vec<usize> = outer.iter().map(|number| open(*number, to)).collect();
            let inside = to.len();
            map.next_value_seed(Field {
                expr: &field.expr,
                number: *last,
                union: member.union,
                is_entry: false,
                to: &mut *to,
            })?;
            if to.len() == inside {
                to.truncate(before);
            } else {
                begun.into_iter().rev().for_each(|begin| close(begin, to));
            }
        }
        Ok(())
    }
}

/// The name of a member; None: it is no field of the message.
struct Name(&'static [Member]);

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Option<&'static Member>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Name {
    type Value = Option<&'static Member>;

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        let members: &'static [Member] = self.0;
        Ok(members.binary_search_by(|member| member.name.cmp(name)).ok().map(|at| &members[at]))
    }
}

/// Writes one JSON value as a field, tag and all; null is no field.
struct Field<'a> {
    expr: &'a Expr,
    number: u32,
    union: Option<Union>,
    /// Of a list or a map, where null of any JSON is an empty message.
    is_entry: bool,
    to: &'a mut Vec<u8>,
}

impl Field<'_> {
    /// The same for an item of a list or a map.
    fn item<'b>(&'b mut self, expr: &'b Expr, number: u32) -> Field<'b> {
        Field { expr, number, union: self.union, is_entry: true, to: &mut *self.to }
    }

    fn wrong(&self, what: &str) -> String {
        format!("{what} where {:?} is expected", self.expr)
    }

    /// `Timestamp`: 1 seconds, 2 nanoseconds.
    fn time(self, text: &str) -> Result<(), String> {
        let time: Time = text.parse().map_err(|error| format!("time {text:?}: {error:?}"))?;
        let micros = time.as_micros();
        let begin = open(self.number, self.to);
        number(1, micros.div_euclid(1_000_000).cast_unsigned(), self.to);
        number(2, (micros.rem_euclid(1_000_000) * 1_000).cast_unsigned(), self.to);
        close(begin, self.to);
        Ok(())
    }

    /// `IntOrString`: 1 type (0 number, 1 text), 2 number, 3 text; upstream writes all three.
    fn int_or_string(self, of_text: bool, value: i64, text: &str) {
        let begin = open(self.number, self.to);
        number(1, of_text.into(), self.to);
        number(2, value.cast_unsigned(), self.to);
        bytes(3, text.as_bytes(), self.to);
        close(begin, self.to);
    }

    fn integer(self, value: i64) -> Result<(), String> {
        match (self.union, self.expr) {
            (None, Expr::Int32 | Expr::Int64) => number(self.number, value.cast_unsigned(), self.to),
            #[expect(clippy::cast_precision_loss, reason = "as Go reads it")]
            (None, Expr::Double) => double(self.number, value as f64, self.to),
            (None, Expr::IntOrString) => self.int_or_string(false, value, ""),
            (None, Expr::Quantity) => self.quantity(&value.to_string()),
            _ => return Err(self.wrong("a number")),
        }
        Ok(())
    }

    /// `Quantity`: 1 its text.
    fn quantity(self, text: &str) {
        let begin = open(self.number, self.to);
        bytes(1, text.as_bytes(), self.to);
        close(begin, self.to);
    }

    fn text(self, text: &str) -> Result<(), String> {
        match self.expr {
            Expr::String => bytes(self.number, text.as_bytes(), self.to),
            Expr::Quantity => self.quantity(text),
            Expr::IntOrString => self.int_or_string(true, 0, text),
            Expr::Time | Expr::MicroTime => self.time(text)?,
            Expr::Bytes => {
                let begin = open(self.number, self.to);
                let text = one_line(text);
                BASE64.decode_vec(&*text, self.to).map_err(|error| format!("base64: {error}"))?;
                close(begin, self.to);
            }
            _ => return Err(self.wrong("a text")),
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Field<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.union.is_some() || !matches!(self.expr, Expr::Any | Expr::Object) {
            return deserializer.deserialize_any(self);
        }
        // RawExtension, FieldsV1 and JSON: a message around JSON text.
        let raw = <&RawValue>::deserialize(deserializer)?;
        let is_null = raw.get() == "null";
        if is_null && !self.is_entry {
            return Ok(());
        }
        let begin = open(self.number, self.to);
        if !is_null {
            bytes(1, raw.get().as_bytes(), self.to);
        }
        close(begin, self.to);
        Ok(())
    }
}

impl<'de> Visitor<'de> for Field<'_> {
    type Value = ();

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{:?}", self.expr)
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<(), E> {
        match (self.union, self.expr) {
            (Some(union @ Union::Truth), _) => {
                let begin = open(self.number, self.to);
                number(union.fields().1, value.into(), self.to);
                close(begin, self.to);
            }
            (None, Expr::Boolean) => number(self.number, value.into(), self.to),
            _ => return Err(E::custom(self.wrong("a truth value"))),
        }
        Ok(())
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<(), E> {
        self.integer(value).map_err(E::custom)
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<(), E> {
        let value = i64::try_from(value).map_err(|_| E::custom(format!("number {value} is out of range")))?;
        self.integer(value).map_err(E::custom)
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<(), E> {
        match self.expr {
            Expr::Double => double(self.number, value, self.to),
            Expr::Quantity => self.quantity(&value.to_string()),
            #[expect(clippy::cast_possible_truncation, reason = "a whole number, as 1e3 is")]
            Expr::Int32 | Expr::Int64 if value.fract() == 0.0 => return self.visit_i64(value as i64),
            _ => return Err(E::custom(self.wrong("a fraction"))),
        }
        Ok(())
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<(), E> {
        self.text(text).map_err(E::custom)
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        match (self.union, self.expr) {
            (Some(union @ (Union::Schemas | Union::Texts)), _) => {
                let expr =
                    if union == Union::Schemas { schema().map_err(A::Error::custom)? } else { Expr::String };
                let begin = open(self.number, self.to);
                self.union = None;
                while items.next_element_seed(self.item(&expr, union.fields().1))?.is_some() {}
                close(begin, self.to);
            }
            (None, Expr::List(item)) => {
                let number = self.number;
                while items.next_element_seed(self.item(item, number))?.is_some() {}
            }
            _ => return Err(A::Error::custom(self.wrong("a list"))),
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, map: A) -> Result<(), A::Error> {
        match (self.union, self.expr) {
            (_, Expr::Map(item)) => entries(&mut self, item, map),
            (None, Expr::ResourceList) => entries(&mut self, &Expr::Quantity, map),
            (None, Expr::Struct(owner)) => {
                let begin = open(self.number, self.to);
                Message { owner: *owner, to: &mut *self.to }.visit_map(map)?;
                close(begin, self.to);
                Ok(())
            }
            (Some(union), _) => {
                let begin = open(self.number, self.to);
                if union == Union::Truth {
                    number(union.fields().1, 1, self.to);
                }
                let expr = schema().map_err(A::Error::custom)?;
                self.union = None;
                self.item(&expr, union.fields().0).visit_map(map)?;
                close(begin, self.to);
                Ok(())
            }
            _ => Err(A::Error::custom(self.wrong("an object"))),
        }
    }
}

/// Base64 without the ends of lines that it may have.
fn one_line(text: &str) -> Cow<'_, str> {
    let is_end = |symbol: char| matches!(symbol, '\r' | '\n');
    if text.contains(is_end) { text.replace(is_end, "").into() } else { text.into() }
}

fn schema() -> Result<Expr, String> {
    kinds::types().index(SCHEMA).map(Expr::Struct).ok_or_else(|| format!("no type {SCHEMA}"))
}

/// Each entry of a map is a message: 1 its key, 2 its value.
fn entries<'de, A: MapAccess<'de>>(field: &mut Field<'_>, item: &Expr, mut map: A) -> Result<(), A::Error> {
    while let Some(key) = map.next_key::<Cow<'de, str>>()? {
        let begin = open(field.number, field.to);
        bytes(1, key.as_bytes(), field.to);
        if let Expr::List(_) = item {
            // A list as a map's value is a message of its own: ExtraValue { 1: items }.
            let list = open(2, field.to);
            map.next_value_seed(field.item(item, 1))?;
            close(list, field.to);
        } else {
            map.next_value_seed(field.item(item, 2))?;
        }
        close(begin, field.to);
    }
    Ok(())
}
