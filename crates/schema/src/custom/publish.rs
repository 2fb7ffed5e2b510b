//! A definition's schema in OpenAPI documents.

use object::Resource;
use serde_json::{Map, Value, json};

use super::Custom;
use crate::Kind;

/// What a definition's own words may be overlaid by: every object has these. Their first words, and those of `creationTimestamp`, are what
/// the conformance suite looks for.
const API_VERSION: &str = "APIVersion defines the group and version of this object.";
const KIND: &str = "What kind of object this is.";
const METADATA: &str =
    "Standard object's metadata: name, namespace, labels and whatever else every object has.";

/// The name of a version's type: its group backwards, as upstream has it. `com.example.stable.v1.CronTab`
pub fn type_name(resource: Resource, version: &str, kind: &str) -> String {
    let mut parts: Vec<&str> = resource.group().split('.').rev().collect();
    parts.extend([version, kind]);
    parts.join(".")
}

/// The schema of whole objects, with the fields that every object has. `reference` is what stands for `ObjectMeta`.
pub(crate) fn schema(kind: &Kind, custom: &Custom, reference: Value) -> Value {
    let mut schema = (*custom.source).clone();
    if !schema.is_object() {
        schema = json!({"type": "object"});
    }
    let is_open = schema.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true));
    let has_properties = schema.get("properties").is_some_and(Value::is_object);
    if !has_properties && !is_open {
        schema["properties"] = json!({});
    }
    let properties = &mut schema["properties"];
    if !properties.is_object() {
        *properties = json!({});
    }
    properties["apiVersion"] = json!({"type": "string", "description": API_VERSION});
    properties["kind"] = json!({"type": "string", "description": KIND});
    properties["metadata"] = json!({"description": METADATA, "allOf": [reference.clone()]});
    // What is embedded has metadata like any.
    embedded(properties, &reference);
    schema["x-kubernetes-group-version-kind"] =
        json!([{"group": kind.group, "version": kind.version, "kind": kind.kind}]);
    schema
}

fn embedded(value: &mut Value, reference: &Value) {
    match value {
        Value::Object(members) => {
            if members.get("x-kubernetes-embedded-resource") == Some(&Value::Bool(true)) {
                let properties = members.entry("properties").or_insert_with(|| Map::new().into());
                if properties.is_object() {
                    properties["apiVersion"] = json!({"type": "string", "description": API_VERSION});
                    properties["kind"] = json!({"type": "string", "description": KIND});
                    properties["metadata"] = json!({"description": METADATA, "allOf": [reference]});
                }
            }
            members.values_mut().for_each(|inner| embedded(inner, reference));
        }
        Value::Array(items) => items.iter_mut().for_each(|inner| embedded(inner, reference)),
        _ => {}
    }
}
