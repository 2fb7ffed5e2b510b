//! The table, and what goes through it and back.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use schema::Expr;
use serde_json::{Map, Value, json};

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
    for (owner, members) in kinds::types().all().iter().zip(TABLE.iter()) {
        for member in members {
            assert!(owner.field(member.name).is_some(), "{} {}", owner.name, member.name);
        }
        let bare = |name: &str| matches!(name, "apiVersion" | "kind");
        for field in owner.fields.iter().filter(|field| !bare(field.name)) {
            let known = members.iter().any(|member| member.name == field.name);
            assert!(known, "{} {} has no number", owner.name, field.name);
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

/// A value of a type with every field set; `seed` makes values differ.
fn sample(expr: &Expr, union: Option<Union>, depth: u32, seed: u64) -> Value {
    let word = || format!("w{seed}");
    let even = seed.is_multiple_of(2);
    match (union, expr) {
        (Some(Union::Truth), _) if even => seed.is_multiple_of(4).into(),
        (Some(Union::Texts), Expr::Any) if even => json!([word(), "x"]),
        (Some(Union::Schemas), _) if even => json!([{"type": word()}, {"format": "x"}]),
        (Some(_), Expr::Any) => json!({"description": word()}),
        (_, Expr::Any) => json!({"any": [1, word(), null]}),
        (_, Expr::Boolean) => true.into(),
        (_, Expr::Bytes) => STANDARD.encode(word()).into(),
        (_, Expr::Double) => json!(seed as f64 + 0.5),
        (_, Expr::Int32) => (-7 - (seed % 99) as i32).into(),
        (_, Expr::Int64) => (i64::MIN + seed as i64).into(),
        (_, Expr::IntOrString) if even => (seed as i32 as i64).into(),
        (_, Expr::IntOrString) => format!("{seed}%").into(),
        (_, Expr::List(item)) => {
            (0..2 + seed % 2).map(|more| sample(item, union, depth, seed + more)).collect()
        }
        (_, Expr::Map(item)) => {
            json!({"a": sample(item, union, depth, seed), "b/c": sample(item, union, depth, seed + 1)})
        }
        (_, Expr::MicroTime) => "2026-01-02T03:04:05.000007Z".into(),
        (_, Expr::Object) => json!({"kept": {"as": ["it", "is"]}}),
        (_, Expr::Quantity) => format!("{}m", seed + 1).into(),
        (_, Expr::ResourceList) => json!({"cpu": "1", "memory": format!("{}Mi", seed + 1)}),
        (_, Expr::String) => word().into(),
        (_, Expr::Time) => "2026-01-02T03:04:05Z".into(),
        (_, Expr::Struct(index)) => object_of(*index, depth + 1, seed),
    }
}

fn object_of(index: usize, depth: u32, seed: u64) -> Value {
    let owner = &kinds::types().all()[index];
    let mut made = Map::new();
    for (at, member) in members(index).iter().enumerate() {
        let field = owner.field(member.name).expect("a field");
        // Schemas hold schemas: one level of them tells enough.
        if owner.name == SCHEMA && depth > 0 && !matches!(field.expr, Expr::String | Expr::Boolean) {
            continue;
        }
        made.insert(member.name.into(), sample(&field.expr, member.union, depth, seed + at as u64));
    }
    made.into()
}

/// What a type can say, it says the same way round: JSON, protobuf, JSON.
#[test]
fn every_type_goes_there_and_back() {
    for (index, owner) in kinds::types().all().iter().enumerate() {
        for seed in 0..4 {
            let object = object_of(index, 0, seed);
            let mut encoded = Vec::new();
            whole(owner.name, "g/v1", "K", object.to_string().as_bytes(), &mut encoded)
                .unwrap_or_else(|status| panic!("{}: {}", owner.name, status.message));
            assert_eq!(identity(&encoded), Ok(("g/v1".into(), "K".into())));
            let mut back = decode(owner.name, &encoded).unwrap_or_else(|why| panic!("{}: {why}", owner.name));
            let fields = back.as_object_mut().expect("an object");
            // What the envelope says, unless the message has such fields itself.
            for name in ["apiVersion", "kind"] {
                if !members(index).iter().any(|member| member.name == name) {
                    fields.remove(name);
                }
            }
            assert_eq!(back, object, "{}", owner.name);
        }
    }
}

/// The bytes that client-go 0.36 makes of these, but for the order of fields and for what it writes of empty ones.
#[test]
fn bytes_are_as_upstream_has_them() {
    let mut made = Vec::new();
    let text = br#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a","labels":null},"data":{"k":"v"},"more":1}"#;
    whole("core.v1.ConfigMap", "v1", "ConfigMap", text, &mut made).expect("encoded");
    let meta = [bytes(1, b"v1"), bytes(2, b"ConfigMap")].concat();
    let raw = [bytes(1, &bytes(1, b"a")), bytes(2, &[bytes(1, b"k"), bytes(2, b"v")].concat())].concat();
    assert_eq!(made, [MAGIC, &bytes(1, &meta), &bytes(2, &raw), LIST_TAIL].concat());

    let mut framed = Vec::new();
    event("ADDED", &made, &mut framed);
    let told = [bytes(1, b"ADDED"), bytes(2, &bytes(1, &made))].concat();
    assert_eq!(framed, [&(told.len() as u32).to_be_bytes()[..], &told].concat());

    let mut items = Vec::new();
    item("core.v1.ConfigMap", text, &mut items).expect("encoded");
    let head = list_head("v1", "ConfigMapList", &json!({"resourceVersion": "7"}), items.len() as u64)
        .expect("encoded");
    let list = [&head, &items[..], LIST_TAIL].concat();
    let meta = [bytes(1, b"v1"), bytes(2, b"ConfigMapList")].concat();
    let listed = [bytes(1, &bytes(2, b"7")), bytes(2, &raw)].concat();
    assert_eq!(list, [MAGIC, &bytes(1, &meta), &bytes(2, &listed), LIST_TAIL].concat());
}

/// Older stores may hold it: Go reads base64 over lines and whatever is in its spare bits.
#[test]
fn base64_is_read_as_go_reads_it() {
    for text in ["YWI=", "YWJ=", "YW\r\nI=\n"] {
        let mut made = Vec::new();
        let secret = json!({"data": {"k": text}}).to_string();
        whole("core.v1.Secret", "v1", "Secret", secret.as_bytes(), &mut made).expect(text);
        assert_eq!(decode("core.v1.Secret", &made).expect(text)["data"], json!({"k": "YWI="}), "{text:?}");
    }
}

#[test]
fn null_is_an_entry_of_a_list_of_anything() {
    let schema = json!({"enum": ["a", null, 1]});
    let mut made = Vec::new();
    whole(SCHEMA, "v1", "X", schema.to_string().as_bytes(), &mut made).expect("encoded");
    assert_eq!(decode(SCHEMA, &made).expect("decoded")["enum"], schema["enum"]);
}

#[test]
fn times_are_of_years_with_four_digits() {
    for (seconds, is_read) in
        [(0, true), (253_402_300_799, true), (253_402_300_800, false), (i64::MIN, false)]
    {
        let mut stamp = vec![1 << 3];
        super::wire::varint(i64::cast_unsigned(seconds), &mut stamp);
        let metadata = bytes(1, &bytes(8, &stamp));
        assert_eq!(decode("core.v1.ConfigMap", &envelope(&metadata)).is_ok(), is_read, "{seconds}");
    }
}

#[test]
fn what_does_not_fit_its_type_is_an_error() {
    for text in [
        "[]",
        r#"{"data":[]}"#,
        r#"{"data":{"k":1}}"#,
        r#"{"immutable":"x"}"#,
        r#"{"metadata":{"creationTimestamp":"x"}}"#,
        "{",
    ] {
        assert!(
            whole("core.v1.ConfigMap", "v1", "ConfigMap", text.as_bytes(), &mut Vec::new()).is_err(),
            "{text}"
        );
    }
}
