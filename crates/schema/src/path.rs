//! Reading and writing a tree by a path of field names: `spec.template.metadata`.

use serde_json::{Map, Value};

/// The value at a path of member names, if every step of it is there.
pub fn get<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(value, |at, name| at.get(name))
}

pub fn get_mut<'a>(value: &'a mut Value, path: &str) -> Option<&'a mut Value> {
    path.split('.').try_fold(value, |at, name| at.get_mut(name))
}

/// The text at a path; empty if there is none.
pub fn text<'a>(value: &'a Value, path: &str) -> &'a str {
    get(value, path).and_then(Value::as_str).unwrap_or_default()
}

/// The whole number at a path.
pub fn int(value: &Value, path: &str) -> Option<i64> {
    get(value, path).and_then(Value::as_i64)
}

pub fn bool(value: &Value, path: &str) -> bool {
    get(value, path).and_then(Value::as_bool).unwrap_or_default()
}

/// The list at a path; empty if there is none.
pub fn list<'a>(value: &'a Value, path: &str) -> &'a [Value] {
    get(value, path).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// The members of the object at a path; none if there is no object.
pub fn members<'a>(value: &'a Value, path: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    get(value, path).and_then(Value::as_object).into_iter().flatten()
}

/// Puts a value at a path, making the objects on the way. What is no object on the way is replaced.
pub fn set(value: &mut Value, path: &str, new: Value) {
    let mut at = value;
    for name in path.split('.') {
        if !at.is_object() {
            *at = Value::Object(Map::new());
        }
        at = &mut at[name];
    }
    *at = new;
}

/// Puts a value at a path where there is none, or null.
pub fn set_default(value: &mut Value, path: &str, new: impl Into<Value>) {
    if get(value, path).is_none_or(Value::is_null) {
        set(value, path, new.into());
    }
}

/// Takes the value at a path away.
pub fn remove(value: &mut Value, path: &str) -> Option<Value> {
    let (parent, name) = match path.rsplit_once('.') {
        Some((parent, name)) => (get_mut(value, parent)?, name),
        None => (value, path),
    };
    parent.as_object_mut()?.remove(name)
}
