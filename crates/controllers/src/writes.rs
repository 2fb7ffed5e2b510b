//! The writes that most controllers make.

use object::{Object, Time};
use plan::{Expect, Occurrence, Plan, Write};
use serde_json::{Map, Value, json};

use crate::ownership::Kind;
use crate::views::Template;

/// Brings an object's status to `new`: a merge patch of what differs, or nothing.
///
/// For statuses that one controller alone writes. An earlier write of the same plan may have touched the object, so only its identity
/// is expected.
pub fn write_status(plan: &mut Plan, object: &Object, old: &Value, new: Value) {
    let patch = difference(old, new);
    if !patch.is_empty() {
        plan.write(Write::Merge {
            key: object.key.clone(),
            expect: Expect::same(object),
            subresource: "status",
            patch: json!({"status": patch}),
        });
    }
}

/// The members of a merge patch (RFC 7396) that turns `old` into `new`, one level deep: lists and inner objects are compared whole,
/// and inner objects lose the members they no longer have.
pub fn difference(old: &Value, new: Value) -> Map<String, Value> {
    let empty = Map::new();
    let old = old.as_object().unwrap_or(&empty);
    let Value::Object(new) = new else { return Map::new() };
    let mut patch = Map::new();
    for name in old.keys().filter(|name| !new.contains_key(*name)) {
        patch.insert(name.clone(), Value::Null);
    }
    for (name, value) in new {
        let before = old.get(&name);
        if before == Some(&value) {
            continue;
        }
        let value = match before {
            Some(before @ Value::Object(_)) if value.is_object() => difference(before, value).into(),
            _ => value,
        };
        patch.insert(name, value);
    }
    patch
}

/// The object without members whose value is zero, empty or null: how Go's `omitempty` writes a status.
pub fn without_empty(mut status: Value, keep: &[&str]) -> Value {
    if let Some(members) = status.as_object_mut() {
        members.retain(|name, value| keep.contains(&name.as_str()) || !is_empty(value));
    }
    status
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::Number(number) => number.as_i64() == Some(0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
    }
}

/// A merge patch of an object, provided it is as it was read.
pub fn merge(object: &Object, patch: Value) -> Write {
    Write::Merge { key: object.key.clone(), expect: Expect::unchanged(object), subresource: "", patch }
}

/// Takes a finalizer off, provided the object is as it was read.
pub fn drop_finalizer(object: &Object, name: &str) -> Write {
    let held = object.meta.finalizers.iter().map(|held| &**held);
    let kept: Vec<&str> = held.filter(|held| *held != name).collect();
    let kept = if kept.is_empty() { Value::Null } else { json!(kept) };
    merge(object, json!({"metadata": {"finalizers": kept}}))
}

/// Deletes this very object, whatever has happened to it since, with the grace that it asks for.
pub fn delete(object: &Object) -> Write {
    Write::Delete {
        key: object.key.clone(),
        expect: Expect::same(object),
        grace_seconds: None,
        propagation: None,
    }
}

pub fn event(
    plan: &mut Plan,
    about: &Object,
    kind: &Kind,
    warning: bool,
    reason: &'static str,
    message: impl Into<String>,
) {
    plan.events.push(Occurrence {
        about: about.key.clone(),
        api_version: kind.api_version.into(),
        kind: kind.kind.into(),
        uid: about.meta.uid.clone(),
        field_path: "".into(),
        warning,
        reason,
        message: message.into(),
    });
}

/// A pod of a template with a name and a controller; the caller may change it before it asks for it.
pub fn pod_of(template: &Template, namespace: &str, name: &str, controller: Value) -> Value {
    let empty = Value::Null;
    let of_template = |field: &str| template.0.pointer(field).unwrap_or(&empty).clone();
    let mut metadata = json!({"namespace": namespace, "name": name, "ownerReferences": [controller]});
    for field in ["labels", "annotations", "finalizers"] {
        let value = of_template(&format!("/metadata/{field}"));
        if !value.is_null() {
            metadata[field] = value;
        }
    }
    let spec = template.0.get("spec").cloned().unwrap_or_else(|| json!({}));
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
}

/// Wakes at a time that lies ahead.
pub fn wake_if_later(plan: &mut Plan, at: Time, now: Time) {
    if at > now {
        plan.wake(at);
    }
}
