//! `application/vnd.kubernetes.protobuf`: what typed Go clients write and read.
//!
//! ```text
//! "k8s\0", then runtime.Unknown { 1: TypeMeta { 1: apiVersion, 2: kind }, 2: raw }, and in raw the object's own message
//! ```
//!
//! What a field is comes from the table of types, its number from `data/protobuf.tsv`. Go writes the zero of a field that is no
//! pointer, where its JSON would leave the field out; the table knows which those are.

mod decode;
mod encode;
pub(crate) mod wire;

use std::sync::LazyLock;

pub use decode::{decode, identity};
pub(crate) use encode::{
    LENGTH_BYTES, LIST_TAIL, document, event, item, list_head, metadata_item, partial, whole,
};

/// The type that a definition's schema is made of.
const SCHEMA: &str = "apiextensions.v1.JSONSchemaProps";
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
    union: Option<Union>,
}

/// What a JSON schema may have in the place of a schema. Each is a message of its own, with the schema in one field and this in another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Union {
    /// `JSONSchemaPropsOrArray`: 1 a schema, 2 schemas.
    Schemas,
    /// `JSONSchemaPropsOrBool`: 1 a truth value, which is true beside a schema; 2 a schema.
    Truth,
    /// `JSONSchemaPropsOrStringArray`: 1 a schema, 2 texts.
    Texts,
}

impl Union {
    /// The field of the schema, and that of the other.
    const fn fields(self) -> (u32, u32) {
        match self {
            Self::Schemas | Self::Texts => (1, 2),
            Self::Truth => (2, 1),
        }
    }
}

/// The members of each type, by the type's place in the table of types; sorted by name.
static TABLE: LazyLock<Vec<Vec<Member>>> = LazyLock::new(|| {
    let types = kinds::types();
    let mut table: Vec<Vec<Member>> = types.all().iter().map(|_| Vec::new()).collect();
    let lines = include_str!("../../data/protobuf.tsv").lines().filter(|line| !line.starts_with('#'));
    for (name, members) in lines.filter_map(|line| line.split_once('\t')) {
        if let Some(index) = types.index(name) {
            table[index] = members.split(' ').filter_map(member).collect();
            table[index].sort_by_key(|member| member.name);
        }
    }
    table
});

/// `name=2.1z`
fn member(text: &'static str) -> Option<Member> {
    let (name, place) = text.split_once('=')?;
    let numbers = place.trim_end_matches(|c: char| c.is_ascii_lowercase());
    let marks = &place[numbers.len()..];
    let path = numbers.split('.').map(|number| number.parse().ok()).collect::<Option<_>>()?;
    let union = marks.chars().find_map(|mark| match mark {
        'a' => Some(Union::Schemas),
        'b' => Some(Union::Truth),
        's' => Some(Union::Texts),
        _ => None,
    });
    Some(Member { path, name, zero_is_absent: marks.contains('z'), union })
}

/// The members of a type, by its place in the table of types.
fn members(index: usize) -> &'static [Member] {
    TABLE.get(index).map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests;
