//! JSON patch (RFC 6902) as upstream's library has it, which differs from the letter: a member that is not there can be replaced and
//! copied (as null), a negative index counts from the end, and what stands before the first slash of a pointer is not looked at.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::{MOST_OPERATIONS, PatchError};
use crate::go;

/// The most that `copy` operations may add to an object: each of a few could double it.
const MOST_COPIED_BYTES: usize = 3 * 1024 * 1024;
/// A document this deep is not read from a body either. Everything that walks a value recurses, so no patch may make a deeper one: a
/// value copied into its own deepest member doubles the depth with each operation.
const TOO_DEEP: usize = 128;

/// Applies a JSON patch: all of its operations, or none.
pub fn json(target: &mut Value, patch: &Value) -> Result<(), PatchError> {
    let operations = match patch {
        Value::Null => &[][..],
        Value::Array(operations) => operations,
        other => return Err(ill_typed(other, "jsonpatch.Patch")),
    };
    if operations.len() > MOST_OPERATIONS {
        return Err(PatchError::TooManyOperations(operations.len()));
    }
    let nothing = Map::new();
    let members = |operation| match operation {
        &Value::Null => Ok(&nothing),
        Value::Object(members) => Ok(members),
        other => Err(ill_typed(other, "jsonpatch.Operation")),
    };
    let operations = operations.iter().map(members).collect::<Result<Vec<_>, _>>()?;
    let mut result = target.clone();
    let mut copied_bytes = 0;
    for operation in operations {
        apply(&mut result, &Operation(operation), &mut copied_bytes)?;
    }
    *target = result;
    Ok(())
}

fn ill_typed(value: &Value, wanted: &str) -> PatchError {
    PatchError::Document(format!("json: cannot unmarshal {} into Go value of type {wanted}", go::noun(value)))
}

/// One step of a patch.
struct Operation<'a>(&'a Map<String, Value>);

impl<'a> Operation<'a> {
    fn kind(&self) -> &'a str {
        self.0.get("op").and_then(Value::as_str).unwrap_or("unknown")
    }

    fn path(&self) -> Result<&'a str, PatchError> {
        let path = self.0.get("path").and_then(Value::as_str);
        path.ok_or_else(|| {
            mismatch(format!("{} operation failed to decode path: missing value", self.kind()))
        })
    }

    fn from(&self) -> Result<&'a str, PatchError> {
        let from = self.0.get("from").and_then(Value::as_str);
        from.ok_or_else(|| {
            let kind = self.kind();
            mismatch(format!(
                "{kind} operation failed to decode from: operation, missing from field: missing value"
            ))
        })
    }

    /// None: it says none, which is null to whoever adds or replaces.
    fn value(&self) -> Option<&'a Value> {
        self.0.get("value")
    }
}

fn mismatch(why: impl Into<String>) -> PatchError {
    PatchError::Mismatch(why.into())
}

fn apply(target: &mut Value, operation: &Operation<'_>, copied_bytes: &mut usize) -> Result<(), PatchError> {
    match operation.kind() {
        "add" => {
            let path = operation.path()?;
            let value = operation.value().cloned().unwrap_or_default();
            let place = place(target, path).ok_or_else(|| {
                mismatch(format!(
                    "add operation does not apply: doc is missing path: \"{path}\": missing value"
                ))
            })?;
            add(place, path, value).map_err(|why| mismatch(format!("error in add for path: '{path}': {why}")))
        }
        "remove" => {
            let path = operation.path()?;
            let place = place(target, path).ok_or_else(|| {
                mismatch(format!(
                    "remove operation does not apply: doc is missing path: \"{path}\": missing value"
                ))
            })?;
            remove(place)
                .map(drop)
                .map_err(|why| mismatch(format!("error in remove for path: '{path}': {why}")))
        }
        "replace" => replace(target, operation),
        "move" => r#move(target, operation),
        "copy" => copy(target, operation, copied_bytes),
        "test" => test(target, operation),
        other => Err(mismatch(format!("Unexpected kind: {other}"))),
    }
}

fn replace(target: &mut Value, operation: &Operation<'_>) -> Result<(), PatchError> {
    let path = operation.path()?;
    let value = operation.value().cloned().unwrap_or_default();
    if path.is_empty() {
        if !value.is_object() && !value.is_array() {
            return Err(mismatch("replace operation value must be object or array"));
        }
        check_depth(path, &value).map_err(mismatch)?;
        *target = value;
        return Ok(());
    }
    check_depth(path, &value).map_err(mismatch)?;
    let missing = |what: &str| {
        mismatch(format!("replace operation does not apply: doc is missing {what}: {path}: missing value"))
    };
    match place(target, path).ok_or_else(|| missing("path"))? {
        Place::Member(members, name) => {
            members.insert(name.into_owned(), value);
        }
        Place::Item(items, token) => {
            let at = index(&token, items.len(), items.len()).map_err(|_| missing("key"))?;
            items[at] = value;
        }
    }
    Ok(())
}

fn r#move(target: &mut Value, operation: &Operation<'_>) -> Result<(), PatchError> {
    let from = operation.from()?;
    let source = place(target, from).ok_or_else(|| {
        mismatch(format!("move operation does not apply: doc is missing from path: {from}: missing value"))
    })?;
    let value = remove(source).map_err(|why| mismatch(format!("error in move for path: '{from}': {why}")))?;
    let path = operation.path()?;
    let place = place(target, path).ok_or_else(|| {
        mismatch(format!(
            "move operation does not apply: doc is missing destination path: {path}: missing value"
        ))
    })?;
    add(place, path, value).map_err(|why| mismatch(format!("error in move for path: '{path}': {why}")))
}

fn copy(target: &mut Value, operation: &Operation<'_>, copied_bytes: &mut usize) -> Result<(), PatchError> {
    let from = operation.from()?;
    let source = place(target, from).ok_or_else(|| {
        mismatch(format!("copy operation does not apply: doc is missing from path: {from}: missing value"))
    })?;
    let value = held(source).map_err(|why| mismatch(format!("error in copy for from: '{from}': {why}")))?;
    let value = value.cloned().unwrap_or_default();
    let path = operation.path()?;
    let place = place(target, path).ok_or_else(|| {
        mismatch(format!(
            "copy operation does not apply: doc is missing destination path: {path}: missing value"
        ))
    })?;
    *copied_bytes += value.to_string().len();
    if *copied_bytes > MOST_COPIED_BYTES {
        return Err(mismatch(format!(
            "Unable to complete the copy, the accumulated size increase of copy is {copied_bytes}, exceeding the limit {MOST_COPIED_BYTES}"
        )));
    }
    add(place, path, value).map_err(|why| mismatch(format!("error while adding value during copy: {why}")))
}

fn test(target: &mut Value, operation: &Operation<'_>) -> Result<(), PatchError> {
    let path = operation.path()?;
    let wanted = operation.value();
    let found = if path.is_empty() {
        Some(&*target)
    } else {
        let place = place(target, path).ok_or_else(|| {
            mismatch(format!("test operation does not apply: is missing path: {path}: missing value"))
        })?;
        held(place).map_err(|why| mismatch(format!("error in test for path: '{path}': {why}")))?
    };
    // What is not there is null, and so is a value that is not said.
    let holds = match found {
        Some(found) => wanted == Some(found),
        None => wanted.is_none_or(Value::is_null),
    };
    if holds {
        Ok(())
    } else {
        Err(PatchError::TestFailed(format!("testing value {path} failed: test failed")))
    }
}

/// Where a pointer leads to: a container, and what its last token says of it.
enum Place<'v, 'p> {
    Member(&'v mut Map<String, Value>, Cow<'p, str>),
    Item(&'v mut Vec<Value>, Cow<'p, str>),
}

/// None: there is no such container, or the pointer is the whole document's.
fn place<'v, 'p>(document: &'v mut Value, path: &'p str) -> Option<Place<'v, 'p>> {
    let (parents, last) = path.rsplit_once('/')?;
    let mut there = document;
    for token in parents.split('/').skip(1) {
        there = match container(there, unescaped(token))? {
            Place::Member(members, name) => members.get_mut(&*name)?,
            Place::Item(items, token) => {
                let at = index(&token, items.len(), items.len()).ok()?;
                items.get_mut(at)?
            }
        };
    }
    container(there, unescaped(last))
}

fn container<'v, 'p>(value: &'v mut Value, token: Cow<'p, str>) -> Option<Place<'v, 'p>> {
    match value {
        Value::Object(members) => Some(Place::Member(members, token)),
        Value::Array(items) => Some(Place::Item(items, token)),
        _ => None,
    }
}

fn unescaped(token: &str) -> Cow<'_, str> {
    if token.contains('~') { token.replace("~1", "/").replace("~0", "~").into() } else { token.into() }
}

/// The place of an item among `len`, which may be below zero and then counts from `end`.
fn index(token: &str, len: usize, end: usize) -> Result<usize, String> {
    let index: i64 = token.parse().map_err(|_| format!("strconv.Atoi: parsing {token:?}: invalid syntax"))?;
    let from_the_end = || i64::try_from(end).ok().and_then(|end| end.checked_add(index));
    let at = if index < 0 { from_the_end() } else { Some(index) };
    let at = at.and_then(|at| usize::try_from(at).ok()).filter(|at| *at < len);
    at.ok_or_else(|| format!("Unable to access invalid index: {index}: invalid index referenced"))
}

/// What is at a place; None: nothing, or null.
fn held<'v>(place: Place<'v, '_>) -> Result<Option<&'v Value>, String> {
    let value = match place {
        Place::Member(members, name) => members.get(&*name),
        Place::Item(items, token) => {
            let at = index(&token, items.len(), items.len())?;
            items.get(at)
        }
    };
    Ok(value.filter(|value| !value.is_null()))
}

fn add(place: Place<'_, '_>, path: &str, value: Value) -> Result<(), String> {
    check_depth(path, &value)?;
    match place {
        Place::Member(members, name) => {
            members.insert(name.into_owned(), value);
        }
        Place::Item(items, token) => {
            let behind = items.len() + 1;
            let at = if token == "-" { items.len() } else { index(&token, behind, behind)? };
            items.insert(at, value);
        }
    }
    Ok(())
}

fn remove(place: Place<'_, '_>) -> Result<Value, String> {
    match place {
        Place::Member(members, name) => members
            .remove(&*name)
            .ok_or_else(|| format!("Unable to remove nonexistent key: {name}: missing value")),
        Place::Item(items, token) => {
            let at = index(&token, items.len(), items.len())?;
            Ok(items.remove(at))
        }
    }
}

/// The objects and lists around the path's place, and those within the value.
fn check_depth(path: &str, value: &Value) -> Result<(), String> {
    let around = path.bytes().filter(|&byte| byte == b'/').count();
    match around < TOO_DEEP && is_shallower(value, TOO_DEEP - around) {
        true => Ok(()),
        false => Err(format!("a result that is {TOO_DEEP} levels deep or deeper")),
    }
}

/// Whether a value has as many levels that its text could not be read again. Whoever stores values asks this first: not all come from
/// the reader of JSON, which has the same limit.
pub fn is_too_deep(value: &Value) -> bool {
    !is_shallower(value, TOO_DEEP)
}

fn is_shallower(value: &Value, levels: usize) -> bool {
    let Some(below) = levels.checked_sub(1) else { return false };
    match value {
        Value::Object(members) => below > 0 && members.values().all(|member| is_shallower(member, below)),
        Value::Array(items) => below > 0 && items.iter().all(|item| is_shallower(item, below)),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(before: Value, patch: Value, after: Option<Value>) {
        let mut value = before.clone();
        let result = json(&mut value, &patch);
        assert_eq!(result.is_ok(), after.is_some(), "{patch}: {result:?}");
        assert_eq!(value, after.unwrap_or(before), "{patch}");
    }

    #[test]
    fn the_operations_of_rfc_6902() {
        check(
            json!({"a": 1}),
            json!([{"op": "add", "path": "/b", "value": 2}]),
            Some(json!({"a": 1, "b": 2})),
        );
        check(
            json!({"a": [1, 3]}),
            json!([{"op": "add", "path": "/a/1", "value": 2}]),
            Some(json!({"a": [1, 2, 3]})),
        );
        check(
            json!({"a": [1]}),
            json!([{"op": "add", "path": "/a/-", "value": 2}]),
            Some(json!({"a": [1, 2]})),
        );
        check(json!({"a/b": 1}), json!([{"op": "remove", "path": "/a~1b"}]), Some(json!({})));
        check(
            json!({"a": 1}),
            json!([{"op": "replace", "path": "/a", "value": null}]),
            Some(json!({"a": null})),
        );
        check(
            json!({"a": {"b": 1}}),
            json!([{"op": "move", "from": "/a/b", "path": "/c"}]),
            Some(json!({"a": {}, "c": 1})),
        );
        check(
            json!({"a": 1}),
            json!([{"op": "copy", "from": "/a", "path": "/b"}]),
            Some(json!({"a": 1, "b": 1})),
        );
        check(json!({"a": 1}), json!([{"op": "test", "path": "/a", "value": 1}]), Some(json!({"a": 1})));
    }

    #[test]
    fn a_patch_that_fails_changes_nothing() {
        for patch in [
            json!([{"op": "add", "path": "/b", "value": 1}, {"op": "test", "path": "/a", "value": 2}]),
            json!([{"op": "remove", "path": "/x"}]),
            json!([{"op": "replace", "path": "/x/y", "value": 1}]),
            json!([{"op": "add", "path": "/l/3", "value": 1}]),
            json!([{"op": "add", "path": "/l/x", "value": 1}]),
            json!([{"op": "add", "path": "/l/-4", "value": 1}]),
            json!([{"op": "remove", "path": "/l/-"}]),
            json!([{"op": "add", "path": "b", "value": 1}]),
            json!([{"op": "add", "path": "", "value": {}}]),
            json!([{"op": "replace", "path": "", "value": 1}]),
            json!([{"op": "copy", "from": "", "path": "/b"}]),
            json!([{"op": "copy", "from": "/l/2", "path": "/b"}]),
            json!([{"op": "move", "from": "/x", "path": "/b"}]),
            json!([{"op": "nonsense", "path": "/a"}]),
            json!([{"op": "add", "value": 1}]),
            json!([null]),
            json!([5]),
            json!({"op": "add"}),
        ] {
            check(json!({"a": 1, "l": [1, 2]}), patch, None);
        }
    }

    #[test]
    fn what_upstream_takes_beside_the_letter_is_taken() {
        let before = || json!({"a": 1, "l": [1, 2], "n": null});
        for (patch, after) in [
            (json!(null), before()),
            (json!([{"op": "add", "path": "/b"}]), json!({"a": 1, "l": [1, 2], "n": null, "b": null})),
            (
                json!([{"op": "replace", "path": "/b", "value": 3}]),
                json!({"a": 1, "l": [1, 2], "n": null, "b": 3}),
            ),
            (json!([{"op": "copy", "from": "/x", "path": "/n"}]), before()),
            (json!([{"op": "remove", "path": "/l/-1"}]), json!({"a": 1, "l": [1], "n": null})),
            (json!([{"op": "add", "path": "/l/-1", "value": 3}]), json!({"a": 1, "l": [1, 2, 3], "n": null})),
            (
                json!([{"op": "replace", "path": "/l/-2", "value": 3}]),
                json!({"a": 1, "l": [3, 2], "n": null}),
            ),
            (json!([{"op": "add", "path": "/l/01", "value": 3}]), json!({"a": 1, "l": [1, 3, 2], "n": null})),
            (json!([{"op": "replace", "path": "x/a", "value": 3}]), json!({"a": 3, "l": [1, 2], "n": null})),
            (json!([{"op": "test", "path": "/x"}, {"op": "test", "path": "/n", "value": null}]), before()),
            (json!([{"op": "test", "path": "", "value": before()}]), before()),
        ] {
            check(before(), patch, Some(after));
        }
    }

    #[test]
    fn no_patch_makes_what_could_not_be_read_again() {
        // Each copies a member into its own deepest one: 1, 2, 4, … levels.
        let doubling = |times: u32| -> Value {
            let copies = (0..times).map(|time| {
                let deepest = format!("/a{}", "/a".repeat(1 << time));
                json!({"op": "copy", "from": "/a", "path": deepest})
            });
            Value::Array(copies.collect())
        };
        let mut value = json!({"a": {}});
        json(&mut value, &doubling(6)).expect("65 levels");
        let error = json(
            &mut value.clone(),
            &json!([{"op": "copy", "from": "/a", "path": format!("/a{}", "/a".repeat(64))}]),
        );
        assert!(matches!(error, Err(PatchError::Mismatch(_))), "{error:?}");
        check(json!({"a": {}}), doubling(14), None);

        let deep = |levels: usize| -> Value {
            serde_json::from_str(&format!("{}1{}", "[".repeat(levels), "]".repeat(levels))).expect("a value")
        };
        for (levels, path, is_read) in [(126, "/a", true), (127, "/a", false), (127, "", true)] {
            for op in ["add", "replace"] {
                let is_read = is_read && (op == "replace" || !path.is_empty());
                let patch = json!([{"op": op, "path": path, "value": deep(levels)}]);
                let mut value = json!({"a": 1});
                assert_eq!(json(&mut value, &patch).is_ok(), is_read, "{op} {levels} {path:?}");
                assert!(serde_json::from_str::<Value>(&value.to_string()).is_ok(), "{op} {levels} {path:?}");
                assert!(!is_too_deep(&value) && is_too_deep(&json!([deep(127)])), "{op} {levels} {path:?}");
            }
        }
        let patch = json!([{"op": "move", "from": "/deep", "path": "/a/b"}]);
        check(json!({"a": {}, "deep": deep(126)}), patch, None);
    }

    #[test]
    fn the_number_of_operations_is_limited() {
        let one = json!({"op": "test", "path": "/a", "value": 1});
        let patch = Value::Array(vec![one; MOST_OPERATIONS + 1]);
        let error = json(&mut json!({"a": 1}), &patch).expect_err("too many");
        assert_eq!(error, PatchError::TooManyOperations(MOST_OPERATIONS + 1));
    }
}
