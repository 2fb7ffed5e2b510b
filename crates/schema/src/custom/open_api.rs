//! What each schema of a definition must be by itself, whatever stands around it: what of OpenAPI may be said, how lists and maps are kept,
//! and in which words rules are written.
//!
//! <https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#validation>

use serde_json::Value;

use super::field_path;
use super::node::JsonType;
use super::structural::{
    EMBEDDED, JUNCTORS, LIST_KEYS, LIST_TYPE, MAP_TYPE, PRESERVE, RULES, flag, has_properties, inner,
    is_there, list, members, text,
};
use crate::{At, Violation};

/// The reasons that a rule may give.
pub const REASONS: [&str; 4] =
    ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];

/// What of the surroundings counts.
#[derive(Clone, Copy, Default)]
struct Place<'a> {
    is_root: bool,
    /// In `apiVersion`, `kind` or `metadata` of a resource, embedded ones included.
    in_own_fields: bool,
    /// Why there may be no defaults: `in top-level metadata`.
    no_defaults: Option<&'a str>,
}

/// Everything that is wrong with the schemas of whole objects, each by itself.
pub(super) fn check(schema: &Value, at: At<'_>, found: &mut Vec<Violation>) {
    node(schema, Place { is_root: true, ..Place::default() }, at, found);
}

fn node(schema: &Value, place: Place<'_>, at: At<'_>, found: &mut Vec<Violation>) {
    unsupported(schema, place, at, found);
    if flag(schema, "uniqueItems") {
        let why = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        found.push(Violation::forbidden(at.field("uniqueItems"), why));
    }
    let around = Place { is_root: false, ..place };
    within(schema, place, around, at, found);
    if schema.get(PRESERVE) == Some(&Value::Bool(false)) {
        found.push(Violation::invalid(at.field(PRESERVE), false, "must be true or undefined"));
    }
    map_type(schema, at, found);
    list_type(schema, at, found);
    keyed_items(schema, at, found);
    for (index, rule) in list(schema, RULES).iter().enumerate() {
        let at = at.field(RULES);
        words(schema, rule, at.index(index), found);
    }
}

/// What JSON schema has and custom resources do not.
fn unsupported(schema: &Value, place: Place<'_>, at: At<'_>, found: &mut Vec<Violation>) {
    let name = text(schema, "type");
    if !name.is_empty() && JsonType::parse(name).is_none() {
        found.push(Violation::not_supported(at.field("type"), name, &JsonType::NAMES));
    }
    if let Some(why) = place.no_defaults.filter(|_| is_there(schema, "default")) {
        found.push(Violation::forbidden(at.field("default"), format!("must not be set {why}")));
    }
    let says = |name: &str| match schema.get(name) {
        Some(Value::Object(members)) => {
            name == "dependencies" || name == "additionalItems" || !members.is_empty()
        }
        Some(Value::String(text)) => name == "$ref" || !text.is_empty(),
        Some(Value::Null) | None => false,
        Some(_) => true,
    };
    for name in ["id", "additionalItems", "patternProperties", "definitions", "dependencies", "$ref"] {
        if says(name) {
            found.push(Violation::forbidden(at.field(name), format!("{name} is not supported")));
        }
    }
    if name == "null" {
        let why = "type cannot be set to null, use nullable as an alternative";
        found.push(Violation::forbidden(at.field("type"), why));
    }
    if !list(schema, "items").is_empty() {
        let why = "items must be a schema object and not an array";
        found.push(Violation::forbidden(at.field("items"), why));
    }
    if place.in_own_fields && flag(schema, EMBEDDED) {
        found.push(Violation::forbidden(at.field(EMBEDDED), "must not be used inside of resource meta"));
    }
}

/// The schemas within a schema.
fn within(schema: &Value, place: Place<'_>, around: Place<'_>, at: At<'_>, found: &mut Vec<Violation>) {
    let additional_at = at.field("additionalProperties");
    if has_properties(schema)
        && schema
            .get("additionalProperties")
            .is_some_and(|value| !value.is_null() && *value != Value::Bool(true))
    {
        let why = "additionalProperties and properties are mutual exclusive";
        found.push(Violation::forbidden(additional_at, why));
    }
    if let Some(inner) = inner(schema, "additionalProperties") {
        let no_defaults = match around.in_own_fields {
            true => Some("inside additionalProperties applying to object metadata"),
            false => around.no_defaults,
        };
        node(inner, Place { no_defaults, ..around }, additional_at, found);
    }
    let properties_at = at.field("properties");
    for (name, inner) in members(schema, "properties") {
        let is_own = (place.is_root || flag(schema, EMBEDDED))
            && matches!(name.as_str(), "apiVersion" | "kind" | "metadata");
        let why = format!("in top-level {name}");
        let no_defaults = if is_own && place.is_root { Some(&*why) } else { around.no_defaults };
        let in_own_fields = around.in_own_fields || is_own;
        node(inner, Place { in_own_fields, no_defaults, ..around }, properties_at.key(name), found);
    }
    if let Some(inner) = inner(schema, "not") {
        node(inner, around, at.field("not"), found);
    }
    for name in JUNCTORS {
        let list_at = at.field(name);
        for (index, inner) in list(schema, name).iter().enumerate() {
            node(inner, around, list_at.index(index), found);
        }
    }
    let definitions_at = at.field("definitions");
    for (name, inner) in members(schema, "definitions") {
        node(inner, around, definitions_at.key(name), found);
    }
    let items_at = at.field("items");
    if let Some(inner) = inner(schema, "items") {
        node(inner, around, items_at, found);
    }
    for (index, inner) in list(schema, "items").iter().enumerate() {
        node(inner, around, items_at.index(index), found);
    }
}

fn map_type(schema: &Value, at: At<'_>, found: &mut Vec<Violation>) {
    if !is_there(schema, MAP_TYPE) {
        return;
    }
    must_be(schema, "object", "must be object if x-kubernetes-map-type is specified", at, found);
    let how = text(schema, MAP_TYPE);
    if !matches!(how, "atomic" | "granular") {
        found.push(Violation::not_supported(at.field(MAP_TYPE), how, &["atomic", "granular"]));
    }
}

/// Whether a schema's type is the one that it must be.
fn must_be(schema: &Value, wanted: &str, why: &str, at: At<'_>, found: &mut Vec<Violation>) -> bool {
    let (name, at) = (text(schema, "type"), at.field("type"));
    match name {
        name if name == wanted => return true,
        "" => found.push(Violation::required(at, why)),
        name => found.push(Violation::invalid(at, name, why)),
    }
    false
}

fn list_type(schema: &Value, at: At<'_>, found: &mut Vec<Violation>) {
    let (how, keys) = (text(schema, LIST_TYPE), list(schema, LIST_KEYS));
    let says_how = is_there(schema, LIST_TYPE);
    if says_how
        && must_be(schema, "array", "must be array if x-kubernetes-list-type is specified", at, found)
        && how == "set"
    {
        set_items(schema, at.field("items"), found);
    }
    if says_how && !matches!(how, "atomic" | "set" | "map") {
        found.push(Violation::not_supported(at.field(LIST_TYPE), how, &["atomic", "set", "map"]));
    }
    if !keys.is_empty() && how != "map" {
        let why = "must be map if x-kubernetes-list-map-keys is non-empty";
        found.push(match says_how {
            false => Violation::required(at.field(LIST_TYPE), why),
            true => Violation::invalid(at.field(LIST_TYPE), how, why),
        });
    }
    if how == "map" {
        map_items(schema, keys, at, found);
    }
}

/// What a set holds is told apart as a whole.
fn set_items(schema: &Value, at: At<'_>, found: &mut Vec<Violation>) {
    let Some(items) = inner(schema, "items") else { return };
    let (field, says) = match text(items, "type") {
        "object" => (MAP_TYPE, text(items, MAP_TYPE)),
        "array" if is_there(items, LIST_TYPE) => (LIST_TYPE, text(items, LIST_TYPE)),
        _ => return,
    };
    if says != "atomic" {
        let why = "must be atomic as item of a list with x-kubernetes-list-type=set";
        // Upstream shows how the items are kept as a list, be they none.
        let shown = items.get(LIST_TYPE).unwrap_or(&Value::Null);
        found.push(Violation::invalid(at.field(field), shown, why));
    }
}

fn map_items(schema: &Value, keys: &[Value], at: At<'_>, found: &mut Vec<Violation>) {
    let (keys_at, items_at) = (at.field(LIST_KEYS), at.field("items"));
    if keys.is_empty() {
        found.push(Violation::required(keys_at, "must not be empty if x-kubernetes-list-type is map"));
    }
    let Some(items) = inner(schema, "items") else {
        let why = "must have a schema if x-kubernetes-list-type is map";
        found.push(Violation::required(items_at, why));
        return;
    };
    let name = text(items, "type");
    if name != "object" {
        let why = "must be object if parent array's x-kubernetes-list-type is map";
        found.push(Violation::invalid(items_at.field("type"), name, why));
        return;
    }
    let properties_at = items_at.field("properties");
    for (index, key) in keys.iter().enumerate() {
        let name = key.as_str().unwrap_or_default();
        match items.get("properties").and_then(|all| all.get(name)) {
            Some(property) if matches!(text(property, "type"), "array" | "object") => {
                let why = "must be a scalar type if parent array's x-kubernetes-list-type is map";
                let at = properties_at.key(name);
                // The type of the items is shown, as upstream does.
                found.push(Violation::invalid(at.field("type"), "object", why));
            }
            Some(_) => {}
            None => {
                let why = "entries must all be names of item properties";
                found.push(Violation::invalid(keys_at, keys, why));
            }
        }
        if keys[..index].contains(key) {
            found.push(Violation::invalid(keys_at, keys, "must not contain duplicate entries"));
        }
    }
}

/// What is told apart by a key is there, and so is the key.
fn keyed_items(schema: &Value, at: At<'_>, found: &mut Vec<Violation>) {
    let how = text(schema, LIST_TYPE);
    let Some(items) = inner(schema, "items").filter(|_| matches!(how, "set" | "map")) else { return };
    let at = at.field("items");
    if flag(items, "nullable") {
        let why = format!("cannot be nullable when x-kubernetes-list-type is {how}");
        found.push(Violation::forbidden(at.field("nullable"), why));
    }
    if how != "map" {
        return;
    }
    let properties_at = at.field("properties");
    for key in list(schema, LIST_KEYS) {
        let name = key.as_str().unwrap_or_default();
        let Some(property) = items.get("properties").and_then(|all| all.get(name)) else { continue };
        let at = properties_at.key(name);
        if !list(items, "required").contains(key) && !is_there(property, "default") {
            let why = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
            found.push(Violation::required(at.field("default"), why));
        }
        if flag(property, "nullable") {
            let why = "this property is in x-kubernetes-list-map-keys, so it cannot be nullable";
            found.push(Violation::forbidden(at.field("nullable"), why));
        }
    }
}

/// What a rule says besides its expressions: messages, the reason and the field that it points to.
fn words(schema: &Value, rule: &Value, at: At<'_>, found: &mut Vec<Violation>) {
    let has_lines = |text: &str| text.contains(['\n', '\r']);
    let (own, message) = (text(rule, "rule").trim(), text(rule, "message"));
    let message_at = at.field("message");
    if own.is_empty() {
        found.push(Violation::required(at.field("rule"), "rule is not specified"));
    } else if !message.is_empty() && message.trim().is_empty() {
        found.push(Violation::invalid(message_at, message, "must be non-empty if specified"));
    } else if has_lines(message.trim()) {
        found.push(Violation::invalid(message_at, message, "must not contain line breaks"));
    } else if has_lines(own) && message.trim().is_empty() {
        let why = "message must be specified if rule contains line breaks";
        found.push(Violation::required(message_at, why));
    }
    let expression = text(rule, "messageExpression");
    if !expression.is_empty() && expression.trim().is_empty() {
        let why = "messageExpression must be non-empty if specified";
        found.push(Violation::required(at.field("messageExpression"), why));
    }
    if let Some(reason) = rule.get("reason").and_then(Value::as_str).filter(|one| !REASONS.contains(one)) {
        found.push(Violation::not_supported(at.field("reason"), reason, &REASONS));
    }
    let (field, field_at) = (text(rule, "fieldPath"), at.field("fieldPath"));
    if field.is_empty() {
        return;
    }
    if field.trim().is_empty() {
        found.push(Violation::invalid(field_at, field, "must be non-empty if specified"));
    }
    if has_lines(field) {
        found.push(Violation::invalid(field_at, field, "must not contain line breaks"));
    }
    if field_path::follow(schema, field, true).is_err() {
        found.push(Violation::invalid(field_at, field, "must be a valid path"));
    }
}
