use serde::Deserialize;
use serde_json::Value;

use super::{MOST_OPERATIONS, PatchError};

/// The most that `copy` operations may add to an object: each of a few could double it.
const MOST_COPIED_BYTES: usize = 3 * 1024 * 1024;
/// A document this deep is not read from a body either. Everything that walks a value recurses, so no patch may make a deeper one: a
/// value copied into its own deepest member doubles the depth with each operation.
const TOO_DEEP: usize = 128;

#[derive(Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
enum Operation {
    Add {
        path: String,
        value: Value,
    },
    Copy {
        from: String,
        path: String,
    },
    Move {
        from: String,
        path: String,
    },
    Remove {
        path: String,
    },
    Replace {
        path: String,
        value: Value,
    },
    Test {
        path: String,
        #[serde(default)]
        value: Value,
    },
}

/// Applies a JSON patch (RFC 6902): all of its operations, or none.
pub fn json(target: &mut Value, patch: &Value) -> Result<(), PatchError> {
    let count = patch.as_array().map_or(0, Vec::len);
    if count > MOST_OPERATIONS {
        return Err(PatchError::TooManyOperations(count));
    }
    let operations: Vec<Operation> =
        Vec::deserialize(patch).map_err(|error| PatchError::Document(error.to_string()))?;
    let mut result = target.clone();
    let mut copied_bytes = 0;
    for operation in operations {
        apply(&mut result, operation, &mut copied_bytes)?;
    }
    *target = result;
    Ok(())
}

fn apply(target: &mut Value, operation: Operation, copied_bytes: &mut usize) -> Result<(), PatchError> {
    match operation {
        Operation::Add { path, value } => add(target, &path, value),
        Operation::Remove { path } => remove(target, &path).map(drop),
        Operation::Replace { path, value } => {
            check_depth(&path, &value)?;
            *find_mut(target, &path)? = value;
            Ok(())
        }
        Operation::Move { from, path } => {
            let value = remove(target, &from)?;
            add(target, &path, value)
        }
        Operation::Copy { from, path } => {
            let value = find_mut(target, &from)?.clone();
            *copied_bytes += value.to_string().len();
            if *copied_bytes > MOST_COPIED_BYTES {
                return Err(PatchError::Mismatch(format!("copies of more than {MOST_COPIED_BYTES} bytes")));
            }
            add(target, &path, value)
        }
        Operation::Test { path, value } => {
            let found = find_mut(target, &path).map(|found| &*found);
            // An absent member passes for null, as upstream's library has it.
            match found {
                Ok(found) if *found == value => Ok(()),
                Err(_) if value.is_null() => Ok(()),
                _ => Err(PatchError::TestFailed(format!("testing value {path} failed: test failed"))),
            }
        }
    }
}

/// The parent's pointer and the last token; None: the pointer is the whole document's.
fn split(path: &str) -> Result<Option<(&str, String)>, PatchError> {
    if path.is_empty() {
        return Ok(None);
    }
    let (parent, last) =
        path.rsplit_once('/').ok_or_else(|| PatchError::Mismatch(format!("{path:?} is no JSON pointer")))?;
    Ok(Some((parent, last.replace("~1", "/").replace("~0", "~"))))
}

fn missing(path: &str) -> PatchError {
    PatchError::Mismatch(format!("doc is missing path: {path:?}: missing value"))
}

fn find_mut<'a>(target: &'a mut Value, path: &str) -> Result<&'a mut Value, PatchError> {
    target.pointer_mut(path).ok_or_else(|| missing(path))
}

/// An index into a list of `len` items that may also name the place behind the last one.
fn index(token: &str, len: usize, path: &str) -> Result<usize, PatchError> {
    let is_canonical = token == "0" || !token.starts_with('0');
    let index = token.parse().ok().filter(|&index: &usize| is_canonical && index <= len);
    index.ok_or_else(|| missing(path))
}

/// The objects and lists around the path's place, and those within the value.
fn check_depth(path: &str, value: &Value) -> Result<(), PatchError> {
    let around = path.bytes().filter(|&byte| byte == b'/').count();
    match around < TOO_DEEP && is_shallower(value, TOO_DEEP - around) {
        true => Ok(()),
        false => Err(PatchError::Mismatch(format!("a result that is {TOO_DEEP} levels deep or deeper"))),
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

fn add(target: &mut Value, path: &str, value: Value) -> Result<(), PatchError> {
    check_depth(path, &value)?;
    let Some((parent, last)) = split(path)? else {
        *target = value;
        return Ok(());
    };
    match find_mut(target, parent)? {
        Value::Object(members) => {
            members.insert(last, value);
        }
        Value::Array(items) => {
            let at = if last == "-" { items.len() } else { index(&last, items.len(), path)? };
            items.insert(at, value);
        }
        _ => return Err(missing(path)),
    }
    Ok(())
}

fn remove(target: &mut Value, path: &str) -> Result<Value, PatchError> {
    let Some((parent, last)) = split(path)? else {
        return Ok(target.take());
    };
    let removed = match find_mut(target, parent)? {
        Value::Object(members) => members.remove(&last),
        Value::Array(items) => {
            let at = index(&last, items.len(), path)?;
            (at < items.len()).then(|| items.remove(at))
        }
        _ => None,
    };
    removed.ok_or_else(|| missing(path))
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
            json!([{"op": "replace", "path": "/x", "value": 1}]),
            json!([{"op": "add", "path": "/l/3", "value": 1}]),
            json!([{"op": "add", "path": "/l/01", "value": 1}]),
            json!([{"op": "add", "path": "b", "value": 1}]),
            json!([{"op": "nonsense", "path": "/a"}]),
            json!([{"op": "add", "path": "/b"}]),
            json!({"op": "add"}),
        ] {
            check(json!({"a": 1, "l": [1, 2]}), patch, None);
        }
    }

    #[test]
    fn no_patch_makes_what_could_not_be_read_again() {
        // Each copies the whole into its own deepest member: 1, 2, 4, … levels.
        let doubling = |times: u32| -> Value {
            let copies = (0..times).map(|time| {
                let deepest = "/a".repeat(1 << time);
                json!({"op": "copy", "from": "", "path": deepest})
            });
            Value::Array(copies.collect())
        };
        let mut value = json!({"a": 1});
        json(&mut value, &doubling(6)).expect("64 levels");
        let error = json(&mut value.clone(), &json!([{"op": "copy", "from": "", "path": "/a".repeat(64)}]));
        assert!(matches!(error, Err(PatchError::Mismatch(_))), "{error:?}");
        check(json!({"a": 1}), doubling(14), None);

        let deep = |levels: usize| -> Value {
            serde_json::from_str(&format!("{}1{}", "[".repeat(levels), "]".repeat(levels))).expect("a value")
        };
        for (levels, path, is_read) in [(126, "/a", true), (127, "/a", false), (127, "", true)] {
            for op in ["add", "replace"] {
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
