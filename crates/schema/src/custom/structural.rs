//! What a schema must be to be structural, as it is written in a definition.
//!
//! <https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#specifying-a-structural-schema>
//!
//! Three things are looked at, one after the other as upstream does, since what is told hangs on it: the structure, whose faults are told
//! in the order of their words; the defaults, if the structure is sound; and each schema by itself (`open_api`), whatever the others found.

use serde_json::{Value, json};

use super::fit;
use super::node::Node;
use super::open_api;
use super::pattern::Pattern;
use super::validate;
use crate::{At, Types, Violation};

/// Where in its parent a schema stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Root,
    Field,
    Item,
}

/// What is wrong with a schema of whole objects, but for its rules.
pub struct Review {
    pub found: Vec<Violation>,
    /// It has a structure that rules can be compiled for, though single schemas of it may be wrong.
    pub is_sound: bool,
}

pub fn review(types: &Types, schema: &Value, at: At<'_>) -> Review {
    let mut found = Vec::new();
    if flag(schema, "nullable") {
        found.push(Violation::forbidden(at.field("nullable"), "nullable cannot be true at the root"));
    }
    let unread = unreadable(schema);
    let mut is_sound = unread.is_none();
    if is_sound {
        let mut wrong = structure(schema, at);
        if wrong.is_empty() {
            defaults(types, schema, at, false, &mut wrong);
        }
        is_sound = wrong.is_empty();
        found.append(&mut wrong);
    }
    open_api::check(schema, at, &mut found);
    // Most of what cannot be read as a structure was told in better words.
    if let Some(why) = unread.filter(|_| found.is_empty()) {
        found.push(Violation::invalid(at, "", why));
    }
    Review { found, is_sound }
}

/// What keeps a schema from having a structure.
pub fn structure(schema: &Value, at: At<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    invariants(schema, Level::Root, at, &mut found);
    completeness(schema, Some(schema), at, at, &mut found);
    found.sort_by_cached_key(|one| format!("{}: {}", one.field, one.body()));
    found
}

pub(super) fn flag(schema: &Value, name: &str) -> bool {
    schema.get(name).and_then(Value::as_bool).unwrap_or_default()
}

pub(super) fn text<'a>(schema: &'a Value, name: &str) -> &'a str {
    schema.get(name).and_then(Value::as_str).unwrap_or_default()
}

pub(super) fn list<'a>(schema: &'a Value, name: &str) -> &'a [Value] {
    schema.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

pub(super) fn members<'a>(schema: &'a Value, name: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    schema.get(name).and_then(Value::as_object).into_iter().flatten()
}

pub(super) fn has_properties(schema: &Value) -> bool {
    members(schema, "properties").next().is_some()
}

pub(super) fn is_there(schema: &Value, name: &str) -> bool {
    schema.get(name).is_some_and(|value| !value.is_null())
}

/// A schema within, if there is one.
pub(super) fn inner<'a>(schema: &'a Value, name: &str) -> Option<&'a Value> {
    schema.get(name).filter(|inner| inner.is_object())
}

pub(super) const PRESERVE: &str = "x-kubernetes-preserve-unknown-fields";
pub(super) const EMBEDDED: &str = "x-kubernetes-embedded-resource";
const INT_OR_STRING: &str = "x-kubernetes-int-or-string";
pub(super) const LIST_TYPE: &str = "x-kubernetes-list-type";
pub(super) const LIST_KEYS: &str = "x-kubernetes-list-map-keys";
pub(super) const MAP_TYPE: &str = "x-kubernetes-map-type";
pub(super) const RULES: &str = "x-kubernetes-validations";

/// The junctors that have a list of schemas.
pub(super) const JUNCTORS: [&str; 3] = ["allOf", "oneOf", "anyOf"];

/// Why a schema, or one within, cannot be read as a structure at all.
fn unreadable(schema: &Value) -> Option<String> {
    let unsupported = |name: &str| Some(format!("OpenAPIV3Schema '{name}' is not supported"));
    for (name, told) in [("id", "id"), ("$schema", "schema"), ("$ref", "$ref")] {
        if !text(schema, name).is_empty() {
            return unsupported(told);
        }
    }
    for name in ["patternProperties", "dependencies", "definitions"] {
        if members(schema, name).next().is_some() {
            return unsupported(name);
        }
    }
    if is_there(schema, "additionalItems") {
        return unsupported("additionalItems");
    }
    if schema.get(PRESERVE) == Some(&Value::Bool(false)) {
        return Some(format!("internal error: '{PRESERVE}' must be true or undefined"));
    }
    if schema.get("items").is_some_and(Value::is_array) {
        return Some("OpenAPIV3Schema 'items' must be a schema, but is an array".into());
    }
    let alone = ["not", "items", "additionalProperties"].into_iter().filter_map(|name| inner(schema, name));
    let of_lists = JUNCTORS.into_iter().flat_map(|name| list(schema, name));
    let of_properties = members(schema, "properties").map(|(_, inner)| inner);
    alone.chain(of_lists).chain(of_properties).find_map(unreadable)
}

fn invariants(schema: &Value, level: Level, at: At<'_>, found: &mut Vec<Violation>) {
    if text(schema, "type") == "array" && inner(schema, "items").is_none() {
        found.push(Violation::required(at.field("items"), "must be specified"));
    }
    if let Some(inner) = inner(schema, "items") {
        invariants(inner, Level::Item, at.field("items"), found);
    }
    let properties_at = at.field("properties");
    for (name, inner) in members(schema, "properties") {
        invariants(inner, Level::Field, properties_at.key(name), found);
    }
    let additional_at = at.field("additionalProperties");
    if is_there(schema, "additionalProperties") && level == Level::Root {
        found.push(Violation::forbidden(additional_at, "must not be used at the root"));
    }
    if let Some(inner) = inner(schema, "additionalProperties") {
        invariants(inner, Level::Field, additional_at, found);
    }
    validations(schema, at, found);
    let is_embedded = flag(schema, EMBEDDED);
    if flag(schema, INT_OR_STRING) {
        for name in [PRESERVE, EMBEDDED] {
            if flag(schema, name) {
                let why = "must be false if x-kubernetes-int-or-string is true";
                found.push(Violation::invalid(at.field(name), true, why));
            }
        }
    }
    type_of(schema, level, at, found);
    if is_embedded && is_there(schema, "additionalProperties") {
        let why = "must not be used if x-kubernetes-embedded-resource is set";
        found.push(Violation::forbidden(additional_at, why));
    }
    if is_embedded && !flag(schema, PRESERVE) && !has_properties(schema) {
        let why = "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields";
        found.push(Violation::required(properties_at, why));
    }
    own_fields(schema, level, properties_at, found);
}

fn type_of(schema: &Value, level: Level, at: At<'_>, found: &mut Vec<Violation>) {
    let (name, at) = (text(schema, "type"), at.field("type"));
    let may_lack = flag(schema, INT_OR_STRING) || flag(schema, PRESERVE);
    if flag(schema, EMBEDDED) && name != "object" {
        let why = "must be object if x-kubernetes-embedded-resource is true";
        found.push(match name {
            "" => Violation::required(at, why),
            name => Violation::invalid(at, name, why),
        });
    } else if name.is_empty() && !may_lack {
        let why = match level {
            Level::Root => "must not be empty at the root",
            Level::Item => "must not be empty for specified array items",
            Level::Field => "must not be empty for specified object fields",
        };
        found.push(Violation::required(at, why));
    }
    if level == Level::Root && !matches!(name, "" | "object") {
        found.push(Violation::invalid(at, name, "must be object at the root"));
    }
}

/// The system's own fields: of the root's metadata only the form of names may be said, the others are texts.
fn own_fields(schema: &Value, level: Level, properties_at: At<'_>, found: &mut Vec<Violation>) {
    let is_resource = level == Level::Root || flag(schema, EMBEDDED);
    let own = |name: &str| schema.get("properties").and_then(|all| all.get(name));
    for name in ["kind", "apiVersion"] {
        if let Some(own) = own(name).filter(|own| is_resource && text(own, "type") != "string") {
            let at = properties_at.key(name);
            found.push(Violation::invalid(at.field("type"), text(own, "type"), "must be string"));
        }
    }
    let Some(metadata) = own("metadata") else { return };
    let at = properties_at.key("metadata");
    if is_resource && text(metadata, "type") != "object" {
        found.push(Violation::invalid(at.field("type"), text(metadata, "type"), "must be object"));
    }
    let says_nothing = |value: &Value| {
        matches!(value, Value::Null | Value::Bool(false)) || *value == "" || *value == json!([])
    };
    let may_say = |(name, value): (&String, &Value)| match name.as_str() {
        "type" | "default" => true,
        "properties" => {
            members(metadata, "properties").all(|(name, _)| name == "name" || name == "generateName")
        }
        _ => says_nothing(value),
    };
    if level == Level::Root && !metadata.as_object().into_iter().flatten().all(may_say) {
        let why = "must not specify anything other than name and generateName, but metadata is implicitly specified";
        found.push(Violation::forbidden(at, why));
    }
}

/// The schemas that only judge values, under `allOf`, `anyOf`, `oneOf` and `not`.
fn validations(schema: &Value, at: At<'_>, found: &mut Vec<Violation>) {
    // What every integer or text is may be said, by itself or first of all.
    let is_either =
        |any_of: Option<&Value>| any_of == Some(&json!([{"type": "integer"}, {"type": "string"}]));
    for name in JUNCTORS {
        if name == "anyOf" && is_either(schema.get(name)) {
            continue;
        }
        let list_at = at.field(name);
        for (index, inner) in list(schema, name).iter().enumerate() {
            let skips_either = name == "allOf" && index == 0 && is_either(inner.get("anyOf"));
            nested(inner, skips_either, list_at.index(index), found);
        }
    }
    if let Some(inner) = inner(schema, "not") {
        nested(inner, false, at.field("not"), found);
    }
    let pattern = text(schema, "pattern");
    if let Err(why) = Pattern::new(pattern) {
        let why = format!("must be a valid regular expression, but isn't: {why}");
        found.push(Violation::invalid(at.field("pattern"), pattern, why));
    }
}

/// (a member, whether it says something, why it may not)
type NotNested = (&'static str, fn(&Value) -> bool, &'static str);

/// What a schema that only judges may not say, and in which words.
const NOT_NESTED: [NotNested; 13] = [
    ("type", is_text, "must be empty to be structural"),
    (
        "additionalProperties",
        |value| !value.is_null() && *value != Value::Bool(false),
        "must be undefined to be structural",
    ),
    ("default", |value| !value.is_null(), "must be undefined to be structural"),
    ("title", is_text, "must be empty to be structural"),
    ("description", is_text, "must be empty to be structural"),
    ("nullable", is_set, "must be false to be structural"),
    (PRESERVE, is_set, "must be false to be structural"),
    (EMBEDDED, is_set, "must be false to be structural"),
    (INT_OR_STRING, is_set, "must be false to be structural"),
    (LIST_KEYS, is_list, "must be empty to be structural"),
    (LIST_TYPE, |value| !value.is_null(), "must be undefined to be structural"),
    (MAP_TYPE, |value| !value.is_null(), "must be undefined to be structural"),
    (RULES, is_list, "must be empty to be structural"),
];

fn is_text(value: &Value) -> bool {
    value.as_str().is_some_and(|text| !text.is_empty())
}

fn is_set(value: &Value) -> bool {
    *value == Value::Bool(true)
}

fn is_list(value: &Value) -> bool {
    value.as_array().is_some_and(|items| !items.is_empty())
}

fn nested(schema: &Value, skips_either: bool, at: At<'_>, found: &mut Vec<Violation>) {
    match (skips_either, schema.as_object()) {
        (true, Some(members)) => {
            let others = members.iter().filter(|(name, _)| *name != "anyOf");
            let others = others.map(|(name, value)| (name.clone(), value.clone())).collect();
            validations(&Value::Object(others), at, found);
        }
        _ => validations(schema, at, found),
    }
    if let Some(inner) = inner(schema, "items") {
        nested(inner, false, at.field("items"), found);
    }
    let properties_at = at.field("properties");
    for (name, inner) in members(schema, "properties") {
        nested(inner, false, properties_at.key(name), found);
        if name == "metadata" {
            let why = "must not be specified in a nested context";
            found.push(Violation::forbidden(properties_at.key(name), why));
        }
    }
    for (name, says, why) in NOT_NESTED {
        if schema.get(name).is_some_and(says) {
            found.push(Violation::forbidden(at.field(name), why));
        }
    }
}

/// Schemas that only judge may speak only of what the structure around them specifies. `own_at` is where that is, `at` where they speak.
fn completeness(
    schema: &Value,
    structure: Option<&Value>,
    own_at: At<'_>,
    at: At<'_>,
    found: &mut Vec<Violation>,
) {
    if let Some(inner) = inner(schema, "not") {
        speaks_of(inner, structure, own_at, at.field("not"), found);
    }
    for name in JUNCTORS {
        let list_at = at.field(name);
        for (index, inner) in list(schema, name).iter().enumerate() {
            speaks_of(inner, structure, own_at, list_at.index(index), found);
        }
    }
}

fn speaks_of(
    schema: &Value,
    structure: Option<&Value>,
    own_at: At<'_>,
    at: At<'_>,
    found: &mut Vec<Violation>,
) {
    let Some(own) = structure else {
        found.push(Violation::required(own_at, format!("because it is defined in {at}")));
        return;
    };
    completeness(schema, structure, own_at, at, found);
    if let Some(items) = inner(schema, "items") {
        speaks_of(items, inner(own, "items"), own_at.field("items"), at.field("items"), found);
    }
    let (own_properties, properties) = (own_at.field("properties"), at.field("properties"));
    for (name, inner) in members(schema, "properties") {
        let own = own.get("properties").and_then(|all| all.get(name));
        speaks_of(inner, own, own_properties.key(name), properties.key(name), found);
    }
}

/// A default is what the schema itself would let through. Those of the system's own fields are for others to forbid or to judge.
fn defaults(types: &Types, schema: &Value, at: At<'_>, in_metadata: bool, found: &mut Vec<Violation>) {
    let in_metadata = in_metadata && !flag(schema, EMBEDDED);
    if let Some(default) = schema.get("default").filter(|default| !default.is_null()) {
        let node = Node::parse(schema);
        let at = at.field("default");
        let mut pruned = default.clone();
        match fit::prune(&node, types, &mut pruned) {
            Ok(dropped) if dropped.is_empty() || in_metadata => {
                found.extend(validate::default_violations(&node, default, at));
            }
            Ok(_) => {
                found.push(Violation::invalid(at, default, "must not have unknown fields"));
                found.extend(validate::default_violations(&node, default, at));
            }
            Err(error) => found.push(Violation::invalid(at, default, error.to_string())),
        }
    }
    if let Some(inner) = inner(schema, "items") {
        defaults(types, inner, at.field("items"), in_metadata, found);
    }
    let properties_at = at.field("properties");
    for (name, inner) in members(schema, "properties") {
        let is_own = matches!(name.as_str(), "apiVersion" | "kind" | "metadata");
        let in_metadata = in_metadata || is_own && flag(schema, EMBEDDED);
        defaults(types, inner, properties_at.key(name), in_metadata, found);
    }
}
