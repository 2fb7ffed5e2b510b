//! What the system writes into an object's metadata, whatever the client says.
//!
//! Rules: <https://kubernetes.io/docs/reference/using-api/api-concepts/> and the `ObjectMeta` page of the API reference.

use object::{Key, Object, Status, Time};
use schema::{Kind, path};
use serde_json::{Map, Value, json};

/// The object's metadata; an object without any gets an empty map.
pub(crate) fn metadata(object: &mut Value) -> &mut Map<String, Value> {
    if !object["metadata"].is_object() {
        object["metadata"] = json!({});
    }
    match &mut object["metadata"] {
        Value::Object(map) => map,
        _ => unreachable!("made an object above"),
    }
}

/// `metadata.{field}` as text; empty if it is absent.
pub(crate) fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object["metadata"][field].as_str().unwrap_or_default()
}

/// Where owners are named again only then.
pub(crate) const AFTER_ADMISSION: &str = " after mutating admission happens";

/// A client says that nobody shall own anything: by a list of entries that has none. Decoding leaves it out.
pub(crate) fn gives_up_tracking(body: &Value) -> bool {
    body["metadata"]["managedFields"].as_array().is_some_and(Vec::is_empty)
}

pub(crate) fn give_up_tracking(object: &mut Value, gives_up: bool) {
    if gives_up {
        metadata(object).insert("managedFields".into(), json!([]));
    }
}

/// Drops owners that are named again; returns what the client is warned of. `after`: what admission has done is told of.
pub(crate) fn drop_repeated_owners(object: &mut Value, after: &str) -> Option<String> {
    let Some(Value::Array(owners)) = path::get_mut(object, "metadata.ownerReferences") else { return None };
    let mut kept: Vec<Value> = Vec::with_capacity(owners.len());
    let mut repeated = Vec::new();
    let mut seen = std::collections::HashSet::new();
    for owner in std::mem::take(owners) {
        if seen.insert(owner.to_string()) {
            kept.push(owner);
        } else {
            repeated.push(path::text(&owner, "uid").to_owned());
        }
    }
    *owners = kept;
    (!repeated.is_empty()).then(|| {
        format!(
            ".metadata.ownerReferences contains duplicate entries{after}; API server dedups owner references in 1.20+, and may reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: {}",
            repeated.join(", ")
        )
    })
}

/// What a new object gets, before its kind has its say.
pub(crate) fn begin(object: &mut Value, uid: String, now: Time) {
    let metadata = metadata(object);
    metadata.insert("uid".into(), uid.into());
    metadata.insert("creationTimestamp".into(), now.to_string().into());
    for field in ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink"] {
        metadata.remove(field);
    }
}

/// What an update may not change is taken from the stored object.
pub(crate) fn carry_over(new: &mut Value, old: &Value, stored: &Object) {
    let metadata = metadata(new);
    for field in ["uid", "creationTimestamp", "generation", "resourceVersion"] {
        match old["metadata"].get(field) {
            Some(value) => metadata.insert(field.into(), value.clone()),
            None => metadata.remove(field),
        };
    }
    if stored.meta.is_deleting() {
        for field in ["deletionTimestamp", "deletionGracePeriodSeconds"] {
            if let Some(value) = old["metadata"].get(field) {
                metadata.insert(field.into(), value.clone());
            }
        }
    }
}

/// Readies an object for a create or an update of the main resource: what such a write cannot set is as it was, the kind has its
/// say, the generation is counted.
pub(crate) fn prepare(kind: &Kind, new: &mut Value, old: Option<&Value>) {
    for field in kind.strategy.main_keeps {
        match old.and_then(|old| path::get(old, field)) {
            Some(kept) => path::set(new, field, kept.clone()),
            None => drop(path::remove(new, field)),
        }
    }
    match old {
        None => {
            // What does not count it keeps what it is given, as upstream.
            if !kind.strategy.generation.is_empty() {
                path::set(new, "metadata.generation", 1.into());
            }
            (kind.strategy.prepare)(new, None);
        }
        Some(old) => {
            (kind.strategy.prepare)(new, Some(old));
            count_generation(kind, new, old);
        }
    }
}

/// Raises the generation if the fields that count have changed.
pub(crate) fn count_generation(kind: &Kind, new: &mut Value, old: &Value) {
    let changed = if kind.strategy.generation == schema::WHOLE {
        differs_in_substance(kind, new, old)
    } else {
        kind.strategy.generation.iter().any(|at| path::get(new, at) != path::get(old, at))
    };
    if changed {
        raise_generation(new);
    }
}

/// Whether anything differs but metadata and what this write cannot set.
fn differs_in_substance(kind: &Kind, new: &Value, old: &Value) -> bool {
    let kept = |name: &str| name == "metadata" || kind.strategy.main_keeps.contains(&name);
    let substance = |object: &Value| -> Map<String, Value> {
        let members = object.as_object().into_iter().flatten();
        members.filter(|(name, _)| !kept(name)).map(|(name, value)| (name.clone(), value.clone())).collect()
    };
    substance(new) != substance(old)
}

pub(crate) fn raise_generation(object: &mut Value) {
    let generation = object["metadata"]["generation"].as_i64().unwrap_or(0) + 1;
    metadata(object).insert("generation".into(), generation.into());
}

/// The 409 of a uid in the body that is not the stored one's.
pub(crate) fn other_uid(key: &Key, asked: &str, stored: &str) -> Status {
    let mut path = format!("/registry/{}", key.resource.plural());
    for part in [&key.namespace, &key.name] {
        if !part.is_empty() {
            path.push('/');
            path.push_str(part);
        }
    }
    let why = format!(
        "StorageError: invalid object, Code: 4, Key: {path}, ResourceVersion: 0, AdditionalErrorMsg: \
         Precondition failed: UID in precondition: {asked}, UID in object meta: {stored}"
    );
    Status::conflict(key, &why)
}
