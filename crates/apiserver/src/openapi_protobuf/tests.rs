//! The files are gnostic's own: `ParseDocument` of `openapiv2` and `openapiv3` (gnostic-models 0.7.0) made each `.pb` of the `.json`
//! beside it, which has every member that the tables have.

use serde_json::{Map, Value, json};

use super::*;
use crate::protobuf::wire::{Reader, Wire};

fn check(version: &Version, document: &str, theirs: &[u8]) {
    let wanted: Value = serde_json::from_str(document).expect("a document");
    assert_eq!(read(version.document, theirs), wanted, "gnostic's");
    assert_eq!(read(version.document, &encode(version, &wanted)), wanted, "ours");
}

#[test]
fn gnostic_writes_version_2_in_these_fields() {
    let theirs = include_bytes!("../../testdata/openapi/v2.pb");
    check(&V2, include_str!("../../testdata/openapi/v2.json"), theirs);
}

#[test]
fn gnostic_writes_version_3_in_these_fields() {
    let theirs = include_bytes!("../../testdata/openapi/v3.pb");
    check(&V3, include_str!("../../testdata/openapi/v3.json"), theirs);
}

#[test]
fn what_is_no_such_value_is_left_out() {
    let odd = json!({"openapi": 3, "info": [], "tags": "a", "components": {"schemas": {"a": {
        "maximum": "1", "maxLength": 1.5, "required": ["a", 1], "items": [], "default": {"a": 1}, "unknown": true,
    }, "b": true}}});
    let left = json!({"components": {"schemas": {"a": {"required": ["a"], "default": null, "items": null}, "b": null}}});
    assert_eq!(read(&v3::DOCUMENT, &encode(&V3, &odd)), left);
}

/// What a message says, by the table: the other way round. A field that is not in the table fails.
fn read(of: &Message, bytes: &[u8]) -> Value {
    let mut object = Map::new();
    let mut fields: Vec<(u32, Vec<Wire<'_>>)> = Vec::new();
    for (number, wire) in entries(bytes) {
        let of_a_member = of.others.filter(|(held, _)| *held == number).map(|(_, shape)| shape);
        let of_an_extension = (number == of.extensions).then_some(&Any);
        if let Some(shape) = of_an_extension.or(of_a_member) {
            let (name, value) = member(shape, &wire);
            object.insert(name, value);
        } else if let Some((_, wires)) = fields.iter_mut().find(|(held, _)| *held == number) {
            wires.push(wire);
        } else {
            fields.push((number, vec![wire]));
        }
    }
    for (number, wires) in fields {
        let row = of.fields.iter().find(|(_, held, _)| *held == number);
        let (name, _, shape) = row.unwrap_or_else(|| panic!("a field {number} beside {:?}", object.keys()));
        object.insert((*name).to_owned(), value(shape, &wires));
    }
    object.into()
}

fn entries(bytes: &[u8]) -> Vec<(u32, Wire<'_>)> {
    let mut reader = Reader(bytes);
    std::iter::from_fn(|| reader.field().expect("a message")).collect()
}

fn member(shape: &Shape, wire: &Wire<'_>) -> (String, Value) {
    let (mut name, mut held) = (String::new(), Vec::new());
    for (number, wire) in entries(content(wire)) {
        match number {
            1 => name = text(&wire),
            _ => held.push(wire),
        }
    }
    (name, value(shape, &held))
}

fn value(shape: &Shape, wires: &[Wire<'_>]) -> Value {
    let Some(wire) = wires.first() else { return Value::Null };
    let of_field = |wanted: u32, shape: &Shape| {
        let fields = entries(content(wire)).into_iter().filter(|(number, _)| *number == wanted);
        value(shape, &fields.map(|(_, wire)| wire).collect::<Vec<_>>())
    };
    match (shape, wire) {
        (Any, _) => serde_saphyr::from_str(&text_of(content(wire), 2)).expect("YAML"),
        (Double, Wire::Fixed64(bits)) => number(f64::from_bits(*bits)),
        (Each(shape), _) => {
            wires.iter().map(|wire| value(shape, std::slice::from_ref(wire))).collect::<Vec<_>>().into()
        }
        (Flag, Wire::Varint(flag)) => (*flag == 1).into(),
        (Integer, Wire::Varint(integer)) => integer.cast_signed().into(),
        (One(of), _) => read(of, content(wire)),
        (OrFlag(shape), _) => match of_field(1, shape) {
            Value::Null => of_field(2, &Flag),
            read => read,
        },
        (OrReference(of), _) => match of_field(1, &One(of)) {
            Value::Null => of_field(2, &One(&REFERENCE)),
            read => read,
        },
        (Scalar, _) => {
            let all = [of_field(1, &Double), of_field(2, &Flag), of_field(3, &Text)];
            all.into_iter().find(|read| !read.is_null()).unwrap_or_default()
        }
        (Text, _) => text(wire).into(),
        (Within(number, shape), _) => of_field(*number, shape),
        _ => panic!("another kind of field"),
    }
}

/// As JSON would have it: a whole number without its fraction.
fn number(double: f64) -> Value {
    if double.fract() == 0.0 { json!(double as i64) } else { json!(double) }
}

fn content<'a>(wire: &Wire<'a>) -> &'a [u8] {
    let Wire::Bytes(bytes) = wire else { panic!("no message") };
    bytes
}

fn text(wire: &Wire<'_>) -> String {
    String::from_utf8(content(wire).to_vec()).expect("text")
}

fn text_of(bytes: &[u8], wanted: u32) -> String {
    let fields = entries(bytes);
    fields.iter().find(|(number, _)| *number == wanted).map(|(_, wire)| text(wire)).unwrap_or_default()
}
