//! What a schema must be to be structural, as it is written in a definition.
//!
//! <https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#specifying-a-structural-schema>

use serde_json::Value;

use super::fit;
use super::node::{JsonType, Node};
use super::pattern::Pattern;
use super::validate;
use crate::{At, Types, Violation, names};

/// Where in its parent a schema stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Root,
    Property,
    Item,
    /// In the root's `metadata`.
    Metadata,
}

/// Everything that is wrong with the schema of whole objects, but for its rules.
pub fn violations(types: &Types, schema: &Value, at: At<'_>) -> Vec<Violation> {
    let mut check = Check { types, found: Vec::new() };
    if flag(schema, "nullable") {
        check.forbidden(at.field("nullable"), "nullable cannot be true at the root");
    }
    check.node(schema, at, Place::Root);
    check.found
}

struct Check<'a> {
    types: &'a Types,
    found: Vec<Violation>,
}

fn flag(schema: &Value, name: &str) -> bool {
    schema.get(name).and_then(Value::as_bool).unwrap_or_default()
}

fn text<'a>(schema: &'a Value, name: &str) -> &'a str {
    schema.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn list<'a>(schema: &'a Value, name: &str) -> &'a [Value] {
    schema.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn has_properties(schema: &Value) -> bool {
    schema.get("properties").and_then(Value::as_object).is_some_and(|all| !all.is_empty())
}

const PRESERVE: &str = "x-kubernetes-preserve-unknown-fields";
const EMBEDDED: &str = "x-kubernetes-embedded-resource";
const INT_OR_STRING: &str = "x-kubernetes-int-or-string";
const LIST_TYPE: &str = "x-kubernetes-list-type";
const LIST_KEYS: &str = "x-kubernetes-list-map-keys";
const MAP_TYPE: &str = "x-kubernetes-map-type";
const RULES: &str = "x-kubernetes-validations";

impl Check<'_> {
    fn forbidden(&mut self, at: At<'_>, why: &str) {
        self.found.push(Violation::forbidden(at, why));
    }

    fn required(&mut self, at: At<'_>, why: &str) {
        self.found.push(Violation::required(at, why));
    }

    fn invalid(&mut self, at: At<'_>, value: &Value, why: &str) {
        self.found.push(Violation::invalid(at, value, why));
    }

    fn node(&mut self, schema: &Value, at: At<'_>, place: Place) {
        self.unsupported(schema, at);
        self.type_of(schema, at, place);
        self.extensions(schema, at);
        self.list_type(schema, at);
        if place == Place::Root {
            self.metadata(schema, at);
        }
        if place == Place::Metadata && schema.get("default").is_some() {
            self.forbidden(at.field("default"), "must not be set in top-level metadata");
        } else {
            self.default(schema, at);
        }
        self.junctors(schema, schema, at);
        self.inner(schema, at, place);
    }

    fn inner(&mut self, schema: &Value, at: At<'_>, place: Place) {
        let properties = schema.get("properties").and_then(Value::as_object).into_iter().flatten();
        let properties_at = at.field("properties");
        for (name, inner) in properties {
            let inside = match place {
                Place::Root if name == "metadata" => Place::Metadata,
                Place::Metadata => Place::Metadata,
                _ => Place::Property,
            };
            self.node(inner, properties_at.key(name), inside);
        }
        if let Some(inner) = schema.get("additionalProperties").filter(|inner| inner.is_object()) {
            self.node(inner, at.field("additionalProperties"), Place::Property);
        }
        if let Some(inner) = schema.get("items").filter(|inner| inner.is_object()) {
            self.node(inner, at.field("items"), Place::Item);
        }
    }

    /// What JSON schema has and custom resources do not.
    fn unsupported(&mut self, schema: &Value, at: At<'_>) {
        for name in ["$ref", "additionalItems", "definitions", "dependencies", "id", "patternProperties"] {
            let is_there = schema.get(name).is_some_and(|value| match value {
                Value::Object(members) => !members.is_empty(),
                Value::String(text) => !text.is_empty(),
                Value::Null => false,
                _ => true,
            });
            if is_there {
                self.forbidden(at.field(name), &format!("{name} is not supported"));
            }
        }
        if flag(schema, "uniqueItems") {
            let why = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
            self.forbidden(at.field("uniqueItems"), why);
        }
        if schema.get("items").is_some_and(Value::is_array) {
            self.forbidden(at.field("items"), "items must be a schema object and not an array");
        }
        let additional = schema.get("additionalProperties");
        if has_properties(schema) && additional.is_some_and(|value| *value != Value::Bool(true)) {
            let why = "additionalProperties and properties are mutual exclusive";
            self.forbidden(at.field("additionalProperties"), why);
        }
        let pattern = text(schema, "pattern");
        if let Err(why) = Pattern::new(pattern) {
            let why = format!("must be a valid regular expression, but isn't: {why}");
            self.invalid(at.field("pattern"), &pattern.into(), &why);
        }
    }

    fn type_of(&mut self, schema: &Value, at: At<'_>, place: Place) {
        let name = text(schema, "type");
        let at_type = at.field("type");
        match name {
            "null" => self.forbidden(at_type, "type cannot be set to null, use nullable as an alternative"),
            "" => {}
            _ if JsonType::parse(name).is_none() => {
                self.found.push(Violation::not_supported(at_type, name, &JsonType::NAMES));
            }
            _ => {}
        }
        let may_lack = flag(schema, INT_OR_STRING) || flag(schema, PRESERVE);
        match place {
            Place::Root if name.is_empty() => self.required(at_type, "must not be empty at the root"),
            Place::Root if name != "object" => {
                self.invalid(at_type, &name.into(), "must be object at the root");
            }
            Place::Root => {
                if schema.get("additionalProperties").is_some() {
                    self.forbidden(at.field("additionalProperties"), "must not be used at the root");
                }
            }
            _ if !name.is_empty() || may_lack => {}
            Place::Item => self.required(at_type, "must not be empty for specified array items"),
            _ => self.required(at_type, "must not be empty for specified object fields"),
        }
        if name == "array" && schema.get("items").is_none_or(Value::is_null) {
            self.required(at.field("items"), "must be specified");
        }
    }

    fn extensions(&mut self, schema: &Value, at: At<'_>) {
        if schema.get(PRESERVE) == Some(&Value::Bool(false)) {
            self.invalid(at.field(PRESERVE), &false.into(), "must be true or undefined");
        }
        if flag(schema, EMBEDDED) {
            if text(schema, "type") != "object" {
                let why = "must be object if x-kubernetes-embedded-resource is true";
                self.invalid(at.field("type"), &text(schema, "type").into(), why);
            }
            if !has_properties(schema) && !flag(schema, PRESERVE) {
                let why = "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields";
                self.required(at.field("properties"), why);
            }
            if schema.get("additionalProperties").is_some() {
                let why = "must not be used if x-kubernetes-embedded-resource is set";
                self.forbidden(at.field("additionalProperties"), why);
            }
        }
        if flag(schema, INT_OR_STRING) {
            if !text(schema, "type").is_empty() {
                let why = "must be empty if x-kubernetes-int-or-string is true";
                self.invalid(at.field("type"), &text(schema, "type").into(), why);
            }
            for name in [PRESERVE, EMBEDDED] {
                if flag(schema, name) {
                    let why = "must be false if x-kubernetes-int-or-string is true";
                    self.invalid(at.field(name), &true.into(), why);
                }
            }
        }
        match text(schema, MAP_TYPE) {
            "" => {}
            "atomic" | "granular" if text(schema, "type") == "object" => {}
            "atomic" | "granular" => {
                let why = "must be object if x-kubernetes-map-type is specified";
                self.invalid(at.field("type"), &text(schema, "type").into(), why);
            }
            other => {
                let supported = ["atomic", "granular"];
                self.found.push(Violation::not_supported(at.field(MAP_TYPE), other, &supported));
            }
        }
    }

    fn list_type(&mut self, schema: &Value, at: At<'_>) {
        let how = text(schema, LIST_TYPE);
        let keys = list(schema, LIST_KEYS);
        if !how.is_empty() && text(schema, "type") != "array" {
            let why = "must be array if x-kubernetes-list-type is specified";
            match text(schema, "type") {
                "" => self.required(at.field("type"), why),
                other => self.invalid(at.field("type"), &other.into(), why),
            }
        }
        let items = schema.get("items").unwrap_or(&Value::Null);
        let items_at = at.field("items");
        match how {
            "" | "atomic" | "map" | "set" => {}
            other => {
                let supported = ["atomic", "set", "map"];
                self.found.push(Violation::not_supported(at.field(LIST_TYPE), other, &supported));
            }
        }
        if how == "set" {
            self.set_items(items, items_at);
        }
        if how == "map" {
            self.map_items(items, items_at, keys, at.field(LIST_KEYS));
        } else if !keys.is_empty() {
            let why = "must be map if x-kubernetes-list-map-keys is non-empty";
            match how {
                "" => self.required(at.field(LIST_TYPE), why),
                other => self.invalid(at.field(LIST_TYPE), &other.into(), why),
            }
        }
    }

    fn set_items(&mut self, items: &Value, at: At<'_>) {
        if flag(items, "nullable") {
            self.forbidden(at.field("nullable"), "cannot be nullable when x-kubernetes-list-type is set");
        }
        let why = "must be atomic as item of a list with x-kubernetes-list-type=set";
        let (field, value) = match text(items, "type") {
            "object" => (MAP_TYPE, text(items, MAP_TYPE)),
            "array" => (LIST_TYPE, text(items, LIST_TYPE)),
            _ => return,
        };
        let is_atomic = value == "atomic" || field == LIST_TYPE && value.is_empty();
        if !is_atomic {
            self.invalid(at.field(field), &value.into(), why);
        }
    }

    fn map_items(&mut self, items: &Value, at: At<'_>, keys: &[Value], keys_at: At<'_>) {
        if keys.is_empty() {
            self.required(keys_at, "must not be empty if x-kubernetes-list-type is map");
        }
        if text(items, "type") != "object" {
            let why = "must be object if parent array's x-kubernetes-list-type is map";
            self.invalid(at.field("type"), &text(items, "type").into(), why);
        }
        let mut seen = Vec::new();
        for (index, key) in keys.iter().enumerate() {
            let name = key.as_str().unwrap_or_default();
            if seen.contains(&name) {
                self.invalid(keys_at, &keys.into(), "must not contain duplicate entries");
            }
            seen.push(name);
            let Some(property) = items["properties"].get(name) else {
                let why = "entries must all be names of item properties";
                self.invalid(keys_at.index(index), key, why);
                continue;
            };
            let properties = at.field("properties");
            let property_at = properties.key(name);
            if matches!(text(property, "type"), "array" | "object") {
                let why = "must be a scalar type if parent array's x-kubernetes-list-type is map";
                self.invalid(property_at.field("type"), &text(property, "type").into(), why);
            }
            let is_required = list(items, "required").contains(key);
            if !is_required && property.get("default").is_none() {
                let why = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
                self.required(property_at.field("default"), why);
            }
            if flag(property, "nullable") {
                let why = "this property is in x-kubernetes-list-map-keys, so it cannot be nullable";
                self.forbidden(property_at.field("nullable"), why);
            }
        }
    }

    /// The system's own fields: of metadata only the form of names may be said, the others are texts.
    fn metadata(&mut self, schema: &Value, at: At<'_>) {
        let properties_at = at.field("properties");
        for name in ["apiVersion", "kind"] {
            if let Some(own) = schema["properties"].get(name)
                && text(own, "type") != "string"
            {
                let at = properties_at.key(name);
                self.invalid(at.field("type"), &text(own, "type").into(), "must be string");
            }
        }
        let Some(metadata) = schema["properties"].get("metadata") else { return };
        let at = properties_at.key("metadata");
        let is_plain =
            |name: &String| matches!(name.as_str(), "description" | "properties" | "title" | "type");
        let only_names = metadata.get("properties").and_then(Value::as_object).into_iter().flatten();
        let is_more = metadata.as_object().is_some_and(|members| !members.keys().all(is_plain))
            || !only_names.clone().all(|(name, _)| matches!(name.as_str(), "generateName" | "name"));
        if is_more {
            let why = "must not specify anything other than name and generateName, but metadata is implicitly specified";
            self.forbidden(at, why);
        }
        let kind = text(metadata, "type");
        if !kind.is_empty() && kind != "object" {
            self.invalid(at.field("type"), &kind.into(), "must be object");
        }
    }

    /// A default is what the schema itself would let through.
    fn default(&mut self, schema: &Value, at: At<'_>) {
        let Some(default) = schema.get("default").filter(|default| !default.is_null()) else { return };
        let node = Node::parse(schema);
        let at = at.field("default");
        let mut pruned = default.clone();
        match fit::prune(&node, self.types, &mut pruned) {
            Ok(dropped) if dropped.is_empty() => {}
            Ok(dropped) => {
                let why = format!("must not have unknown fields: {}", dropped.join(", "));
                self.invalid(at, default, &why);
            }
            Err(error) => self.invalid(at, default, &error.to_string()),
        }
        fit::default(&node, &mut pruned);
        self.found.extend(validate::value_violations(&node, &pruned, at));
    }

    /// Value validations may speak only of what the schema around them specifies.
    fn junctors(&mut self, schema: &Value, around: &Value, at: At<'_>) {
        for name in ["allOf", "anyOf", "oneOf"] {
            let list_at = at.field(name);
            for (index, inner) in list(schema, name).iter().enumerate() {
                self.nested(inner, around, list_at.index(index), name);
            }
        }
        if let Some(inner) = schema.get("not").filter(|inner| !inner.is_null()) {
            self.nested(inner, around, at.field("not"), "not");
        }
    }

    fn nested(&mut self, schema: &Value, around: &Value, at: At<'_>, junctor: &str) {
        let int_or_string = flag(around, INT_OR_STRING);
        let is_pattern =
            int_or_string && matches!(text(schema, "type"), "integer" | "string") && junctor == "anyOf";
        for name in ["title", "description", "type"] {
            let may_stand = name == "type" && is_pattern;
            if !may_stand && !text(schema, name).is_empty() {
                self.forbidden(at.field(name), "must be empty to be structural");
            }
        }
        for name in ["default", "additionalProperties"] {
            if schema.get(name).is_some_and(|value| !value.is_null()) {
                self.forbidden(at.field(name), "must be undefined to be structural");
            }
        }
        for name in ["nullable", PRESERVE, EMBEDDED, INT_OR_STRING] {
            if flag(schema, name) {
                self.forbidden(at.field(name), "must be false to be structural");
            }
        }
        for name in [LIST_TYPE, MAP_TYPE, LIST_KEYS] {
            if schema.get(name).is_some_and(|value| !value.is_null()) {
                self.forbidden(at.field(name), "must be undefined to be structural");
            }
        }
        if schema.get(RULES).is_some_and(|value| !value.is_null()) {
            self.forbidden(at.field(RULES), "must be empty to be structural");
        }
        self.unsupported(schema, at);
        let properties_at = at.field("properties");
        for (name, inner) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
            let inner_at = properties_at.key(name);
            match around["properties"].get(name) {
                Some(outer) => self.nested(inner, outer, inner_at, ""),
                None if flag(around, PRESERVE) => self.nested(inner, &Value::Null, inner_at, ""),
                None => match around.get("additionalProperties").filter(|outer| outer.is_object()) {
                    Some(outer) => self.nested(inner, outer, inner_at, ""),
                    None => self.required(inner_at, "because it is defined outside of the structural part"),
                },
            }
        }
        if let Some(inner) = schema.get("items").filter(|inner| inner.is_object()) {
            self.nested(inner, around.get("items").unwrap_or(&Value::Null), at.field("items"), "");
        }
        self.junctors(schema, around, at);
    }
}

/// Whether a text is a plain path of members: `.spec.replicas`.
pub fn simple_path(text: &str) -> bool {
    let is_name =
        |name: &str| !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-'));
    text.strip_prefix('.').is_some_and(|rest| rest.split('.').all(is_name))
        && names::path_segment(text).is_empty()
}
