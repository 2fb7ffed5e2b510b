use serde_json::{Map, Value};

/// Applies a merge patch (RFC 7396): members replace members, null removes, everything but objects replaces. As upstream's library has it,
/// nulls are taken out of the objects of a list too.
pub fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(members) = patch else {
        let was_object = target.is_object();
        *target = patch.clone();
        if !was_object {
            without_nulls(target);
        }
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(object) = target else { return };
    for (name, change) in members {
        if change.is_null() {
            object.remove(name);
        } else if let Some(before) = object.get_mut(name) {
            merge(before, change);
        } else {
            let mut added = Value::Null;
            merge(&mut added, change);
            object.insert(name.clone(), added);
        }
    }
}

/// Takes away the members that are null, wherever they are.
fn without_nulls(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|_, member| !member.is_null());
            members.values_mut().for_each(without_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(without_nulls),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_examples_of_rfc_7396_hold() {
        for (before, patch, after) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
            (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
            (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
            (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
            (json!([1, 2]), json!({"a": "b", "c": null}), json!({"a": "b"})),
            (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
            // Upstream's own.
            (
                json!({"a": [1]}),
                json!({"a": [null, {"b": null, "c": [{"d": null}]}]}),
                json!({"a": [null, {"c": [{}]}]}),
            ),
        ] {
            let mut value = before;
            merge(&mut value, &patch);
            assert_eq!(value, after);
        }
    }
}
