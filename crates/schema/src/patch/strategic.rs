//! Strategic merge patch: a merge patch that knows the types.
//!
//! Lists whose field has a merge key are merged item by item:
//!
//! ```text
//! object  containers: [{name: a, image: x}, {name: b}]
//! patch   containers: [{name: a, image: y}, {name: b, $patch: delete}]
//! result  containers: [{name: a, image: y}]
//! ```
//!
//! The items of a patch come in its order, new ones before those that it does not name; those it does not name stay before what stood
//! behind them. `$setElementOrder` gives another order than the patch's own.
//!
//! The directives: <https://github.com/kubernetes/community/blob/main/contributors/devel/sig-api-machinery/strategic-merge-patch.md>.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use super::PatchError;
use crate::go;
use crate::types::{Expr, Field, Types};

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM: &str = "$deleteFromPrimitiveList";
const SET_ORDER: &str = "$setElementOrder";

impl Types {
    /// Applies a strategic merge patch to an object of the named type.
    pub fn strategic_merge(
        &self,
        type_name: &str,
        target: &mut Value,
        patch: &Value,
    ) -> Result<(), PatchError> {
        let expr = self.expr_of(type_name).unwrap_or(Expr::Object);
        match (target, patch) {
            (_, Value::Null) => Ok(()),
            (Value::Object(target), Value::Object(patch)) => {
                merge_members(self, &expr, target, patch.clone())
            }
            (_, patch) => {
                let noun = go::noun(patch);
                let why =
                    format!("json: cannot unmarshal {noun} into Go value of type map[string]interface {{}}");
                Err(PatchError::Document(why))
            }
        }
    }
}

fn merge_members(
    types: &Types,
    expr: &Expr,
    target: &mut Map<String, Value>,
    mut patch: Map<String, Value>,
) -> Result<(), PatchError> {
    match patch.get(DIRECTIVE).map(|directive| directive.as_str().unwrap_or_default()) {
        None => {}
        Some("delete") => {
            target.clear();
            return Ok(());
        }
        Some("replace") => {
            patch.remove(DIRECTIVE);
            *target = patch;
            return Ok(());
        }
        Some(_) => return Err(unknown_directive(&Value::Object(patch))),
    }
    retain_keys(target, &mut patch)?;
    for (name, order) in take_prefixed(&mut patch, SET_ORDER)? {
        set_order(types, field_of(types, expr, &name), target, &mut patch, &name, order)?;
    }
    for (name, values) in take_prefixed(&mut patch, DELETE_FROM)? {
        delete_from_list(target, &name, &values);
    }
    for (name, change) in patch {
        let field = field_of(types, expr, &name);
        merge_member(types, expr, field, target, name, change)?;
    }
    Ok(())
}

/// Of an object that carries a directive which there is none of.
fn unknown_directive(patch: &Value) -> PatchError {
    let directive = patch.get(DIRECTIVE).unwrap_or(&Value::Null);
    let (directive, patch) = (go::printed(directive), go::printed(patch));
    PatchError::Unforeseen(format!("unknown patch type: {directive} in map: {patch}"))
}

fn no_merge_key(item: &Value, key: &str) -> PatchError {
    PatchError::Unforeseen(format!("map: {} does not contain declared merge key: {key}", go::printed(item)))
}

fn bad_type(expected: &str, actual: &Value) -> PatchError {
    PatchError::Unforeseen(format!("expected a {expected}, but received a {}", go::type_of(actual)))
}

fn field_of<'t>(types: &'t Types, expr: &Expr, name: &str) -> Option<&'t Field> {
    match expr {
        Expr::Struct(index) => types.at(*index).field(name),
        _ => None,
    }
}

fn merge_member(
    types: &Types,
    owner: &Expr,
    field: Option<&Field>,
    target: &mut Map<String, Value>,
    name: String,
    change: Value,
) -> Result<(), PatchError> {
    if change.is_null() {
        target.remove(&name);
        return Ok(());
    }
    let expr = match (field, owner) {
        (Some(field), _) => &field.expr,
        (None, Expr::Map(item)) => item,
        _ => &Expr::Any,
    };
    match (target.get_mut(&name), change) {
        (Some(Value::Object(before)), Value::Object(change)) => {
            if field.is_some_and(|field| field.patch.replace) {
                *before = change;
                return Ok(());
            }
            merge_members(types, expr, before, change)
        }
        (Some(Value::Array(before)), Value::Array(change)) => merge_lists(types, expr, field, before, change),
        (_, change) => {
            match taken(change) {
                Some(change) => drop(target.insert(name, change)),
                None => drop(target.remove(&name)),
            }
            Ok(())
        }
    }
}

/// `$retainKeys` names the members that stay: how a union changes its branch.
fn retain_keys(target: &mut Map<String, Value>, patch: &mut Map<String, Value>) -> Result<(), PatchError> {
    let Some(keys) = patch.remove(RETAIN_KEYS) else {
        return Ok(());
    };
    let wrong = || PatchError::Document("invalid patch format of retainKeys".into());
    let Value::Array(keys) = keys else { return Err(wrong()) };
    let is_kept = |name: &str| keys.iter().any(|key| key.as_str() == Some(name));
    let is_order = |name: &str| name.starts_with(DELETE_FROM) || name.starts_with(SET_ORDER);
    if patch.iter().any(|(name, value)| !value.is_null() && !is_order(name) && !is_kept(name)) {
        return Err(wrong());
    }
    target.retain(|name, _| is_kept(name));
    Ok(())
}

/// What is no list is passed over, as upstream does.
fn delete_from_list(target: &mut Map<String, Value>, name: &str, values: &Value) {
    match (target.get_mut(name), values) {
        (Some(_), Value::Null) => drop(target.remove(name)),
        (Some(Value::Array(items)), Value::Array(values)) => {
            let values: HashSet<String> = values.iter().map(Value::to_string).collect();
            items.retain(|item| !values.contains(&item.to_string()));
        }
        _ => {}
    }
}

/// Takes the members `prefix/name` out, by their names.
fn take_prefixed(
    patch: &mut Map<String, Value>,
    prefix: &'static str,
) -> Result<Vec<(String, Value)>, PatchError> {
    if !patch.keys().any(|name| name.starts_with(prefix)) {
        return Ok(Vec::new());
    }
    let (taken, left): (Vec<_>, Vec<_>) =
        std::mem::take(patch).into_iter().partition(|(name, _)| name.starts_with(prefix));
    patch.extend(left);
    let named = taken.into_iter().map(|(name, value)| match name[prefix.len()..].strip_prefix('/') {
        Some(name) => Ok((name.to_owned(), value)),
        None => {
            let what = if prefix == SET_ORDER { "setElementOrder list" } else { "primitive list" };
            Err(PatchError::Document(format!("invalid patch format of {what}")))
        }
    });
    named.collect()
}

/// A list and the order that its items shall have, which also names those that the patch says.
fn set_order(
    types: &Types,
    field: Option<&Field>,
    target: &mut Map<String, Value>,
    patch: &mut Map<String, Value>,
    name: &str,
    order: Value,
) -> Result<(), PatchError> {
    const LIST: &str = "[]interface {}";
    let Value::Array(order) = order else { return Err(bad_type(LIST, &order)) };
    if let Some(other) = [target.get(name), patch.get(name)].into_iter().flatten().find(|one| !one.is_array())
    {
        return Err(bad_type(LIST, other));
    }
    let held = match target.get_mut(name) {
        Some(Value::Array(held)) => Some(held),
        _ => None,
    };
    let change = match patch.remove(name) {
        Some(Value::Array(change)) => Some(change),
        _ => None,
    };
    let key = field.and_then(|field| field.merge_key);
    check_order(change.as_deref().unwrap_or_default(), &order, key)?;
    let mut items: Vec<Value> = match (held, change) {
        (None, None) => return Ok(()),
        (None, Some(change)) => change.into_iter().filter_map(taken).collect(),
        (Some(held), change) => {
            let before = places(held, key);
            let mut items = std::mem::take(held);
            if let Some(change) = change {
                let expr = field.map_or(&Expr::Any, |field| &field.expr);
                merge_lists(types, expr, field, &mut items, change)?;
            }
            check_keys(items.iter().chain(&order), key)?;
            sort_by(&mut items, &places(&order, key), &before, key);
            *held = items;
            return Ok(());
        }
    };
    check_keys(items.iter().chain(&order), key)?;
    sort_by(&mut items, &places(&order, key), &HashMap::new(), key);
    target.insert(name.to_owned(), items.into());
    Ok(())
}

/// What a patch says of a list must be in the list's new order, and in that order.
fn check_order(patch: &[Value], order: &[Value], key: Option<&str>) -> Result<(), PatchError> {
    if patch.is_empty() || order.is_empty() {
        return Ok(());
    }
    let is_delete = |one: &&Value| one.get(DIRECTIVE).and_then(Value::as_str) == Some("delete");
    let kept = patch.iter().filter(|one| key.is_none() || !is_delete(one));
    let kept: Vec<&Value> = kept.filter(|one| one.get(DIRECTIVE).is_none()).collect();
    if key.is_some()
        && let Some(other) = patch.iter().chain(order).find(|one| !one.is_object())
    {
        return Err(bad_type("map[string]interface {}", other));
    }
    check_keys(kept.iter().copied().chain(order), key)?;
    let mut kept = kept.into_iter().peekable();
    for one in order {
        kept.next_if(|next| identity(next, key) == identity(one, key));
    }
    if kept.peek().is_none() {
        return Ok(());
    }
    let list = |items: &[Value]| go::printed(&Value::Array(items.to_vec()));
    let (patch, order) = (list(patch), list(order));
    Err(PatchError::Unforeseen(format!(
        "The order in patch list:\n{patch}\n doesn't match $setElementOrder list:\n{order}\n"
    )))
}

fn check_keys<'v>(mut items: impl Iterator<Item = &'v Value>, key: Option<&str>) -> Result<(), PatchError> {
    let Some(key) = key else { return Ok(()) };
    match items.find(|item| item.get(key).is_none()) {
        Some(item) => Err(no_merge_key(item, key)),
        None => Ok(()),
    }
}

/// Two lists of a field, whose items are merged if its type says so.
fn merge_lists(
    types: &Types,
    expr: &Expr,
    field: Option<&Field>,
    target: &mut Vec<Value>,
    patch: Vec<Value>,
) -> Result<(), PatchError> {
    if !field.is_some_and(|field| field.patch.merge) {
        *target = patch;
        return Ok(());
    }
    let Some(first) = target.first().or(patch.first()) else { return Ok(()) };
    if first.is_array() {
        return Err(PatchError::Mismatch("lists of lists are not supported".into()));
    }
    if target.iter().chain(&patch).any(|one| go::type_of(one) != go::type_of(first)) {
        let lists = go::printed(&Value::Array(vec![target.clone().into(), patch.into()]));
        return Err(PatchError::Unforeseen(format!("list element types are not identical: {lists}")));
    }
    if first.is_object() {
        let item = if let Expr::List(item) = expr { item } else { &Expr::Any };
        let Some(key) = field.and_then(|field| field.merge_key) else {
            let why = "cannot merge lists without merge key for struct";
            return Err(PatchError::Unforeseen(why.into()));
        };
        return merge_items(types, item, key, target, patch);
    }
    // A list of plain values is a set.
    let (before, order) = (places(target, None), places(&patch, None));
    let mut held = HashSet::new();
    target.extend(patch);
    target.retain(|value| held.insert(value.to_string()));
    sort_by(target, &order, &before, None);
    Ok(())
}

/// Two lists of objects that are known by a member of theirs.
fn merge_items(
    types: &Types,
    item: &Expr,
    key: &str,
    target: &mut Vec<Value>,
    patch: Vec<Value>,
) -> Result<(), PatchError> {
    let mut is_replaced = false;
    let mut deleted = HashSet::new();
    let mut changes = Vec::new();
    for change in patch {
        match change.get(DIRECTIVE).map(|directive| directive.as_str().unwrap_or_default()) {
            None => changes.push(change),
            Some("delete") => {
                let wanted = change.get(key).ok_or_else(|| no_merge_key(&change, key))?;
                deleted.insert(wanted.to_string());
            }
            Some("replace") => is_replaced = true,
            Some("merge") => {
                let why = "merging lists cannot yet be specified in the patch";
                return Err(PatchError::Unforeseen(why.into()));
            }
            Some(_) => return Err(unknown_directive(&change)),
        }
    }
    // Deletions come first, so that an item may be deleted and made anew.
    if !deleted.is_empty() {
        target.retain(|one| !deleted.contains(&identity(one, Some(key))));
    }
    if is_replaced {
        check_keys(changes.iter(), Some(key))?;
        *target = changes;
        return Ok(());
    }
    check_keys(changes.iter(), Some(key))?;
    let (before, order) = (places(target, Some(key)), places(&changes, Some(key)));
    let mut places = before.clone();
    for change in changes {
        let wanted = identity(&change, Some(key));
        match (places.get(&wanted).and_then(|&at| target.get_mut(at)), change) {
            (Some(Value::Object(before)), Value::Object(change)) => {
                merge_members(types, item, before, change)?;
            }
            (_, change) => {
                places.insert(wanted, target.len());
                target.push(change);
            }
        }
    }
    sort_by(target, &order, &before, Some(key));
    Ok(())
}

/// Puts the items that have a place in `order` into it. Each of the others goes before the first of them that stood behind it `before`;
/// nothing stood before what is new.
fn sort_by(
    items: &mut Vec<Value>,
    order: &HashMap<String, usize>,
    before: &HashMap<String, usize>,
    merge_key: Option<&str>,
) {
    let mut ordered = Vec::new();
    let mut others = Vec::new();
    for item in std::mem::take(items) {
        let identity = identity(&item, merge_key);
        let stood = before.get(&identity).copied();
        match order.get(&identity) {
            Some(&at) => ordered.push((at, stood, item)),
            None => others.push((stood, item)),
        }
    }
    ordered.sort_by_key(|(at, ..)| *at);
    let mut others = others.into_iter().peekable();
    for (_, stood, item) in ordered {
        let stood_behind =
            |other: Option<usize>| other.zip(stood).is_some_and(|(other, stood)| other < stood);
        while let Some((_, other)) = others.next_if(|(other, _)| stood_behind(*other)) {
            items.push(other);
        }
        items.push(item);
    }
    items.extend(others.map(|(_, other)| other));
}

/// Where each item of a list stands; of several with the same identity, the first.
fn places(items: &[Value], merge_key: Option<&str>) -> HashMap<String, usize> {
    let mut places = HashMap::with_capacity(items.len());
    for (at, one) in items.iter().enumerate() {
        places.entry(identity(one, merge_key)).or_insert(at);
    }
    places
}

/// What an item is known by: its merge key, or itself.
fn identity(one: &Value, merge_key: Option<&str>) -> String {
    merge_key.map_or(Some(one), |key| one.get(key)).map(Value::to_string).unwrap_or_default()
}

/// What a patch says where the object has nothing: its values without nulls. None: it is a directive, of something that is not there.
fn taken(value: Value) -> Option<Value> {
    match value {
        Value::Object(members) => {
            let said = members.into_iter().filter(|(_, value)| !value.is_null());
            let mut kept = Map::new();
            for (name, value) in said {
                if name == DIRECTIVE {
                    return None;
                }
                kept.extend(taken(value).map(|value| (name, value)));
            }
            Some(Value::Object(kept))
        }
        Value::Array(items) => Some(items.into_iter().filter_map(taken).collect()),
        other => Some(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn types() -> Types {
        let table = "T\n\tlabels\t{string}\n\tlist\t[string]\tp=merge\n\tplain\t[string]\n\tpods\t[@U]\tp=merge\tk=name\n\tunion\t@V\tp=retainKeys\nU\n\timage\tstring\n\tname\tstring\n\tports\t[@W]\tp=merge\tk=port\nV\n\ta\t@W\n\ttype\tstring\nW\n\tport\tint32\n";
        Types::parse(table).expect("a table")
    }

    fn check(before: Value, patch: Value, after: Value) {
        let mut value = before;
        types().strategic_merge("T", &mut value, &patch).expect("it applies");
        assert_eq!(value, after, "{patch}");
    }

    #[test]
    fn lists_with_a_merge_key_are_merged_by_it() {
        let before = || json!({"pods": [{"name": "a", "image": "x", "ports": [{"port": 1}]}, {"name": "b"}]});
        check(
            before(),
            json!({"pods": [{"name": "a", "image": "y", "ports": [{"port": 2}]}, {"name": "c", "image": null}]}),
            // Decoding takes the null away.
            json!({"pods": [{"name": "a", "image": "y", "ports": [{"port": 2}, {"port": 1}]}, {"name": "c", "image": null}, {"name": "b"}]}),
        );
        check(
            before(),
            json!({"pods": [{"name": "a", "$patch": "delete"}]}),
            json!({"pods": [{"name": "b"}]}),
        );
        check(
            before(),
            json!({"pods": [{"$patch": "replace"}, {"name": "z"}]}),
            json!({"pods": [{"name": "z"}]}),
        );
        check(before(), json!({"pods": null}), json!({}));
    }

    #[test]
    fn plain_lists_are_sets_or_are_replaced() {
        let before = || json!({"list": ["a", "b"], "plain": ["a", "b"]});
        check(
            before(),
            json!({"list": ["b", "c"], "plain": ["c"]}),
            json!({"list": ["a", "b", "c"], "plain": ["c"]}),
        );
        check(
            before(),
            json!({"$deleteFromPrimitiveList/list": ["a"]}),
            json!({"list": ["b"], "plain": ["a", "b"]}),
        );
    }

    #[test]
    fn an_order_is_kept() {
        check(
            json!({"list": ["a", "b", "c", "d"]}),
            json!({"$setElementOrder/list": ["d", "b"], "list": ["d", "b"]}),
            json!({"list": ["a", "c", "d", "b"]}),
        );
        check(
            json!({"list": ["a", "b", "c"]}),
            json!({"$setElementOrder/list": ["b", "x", "a"], "list": ["x"]}),
            json!({"list": ["b", "x", "a", "c"]}),
        );
        // What is new comes before what is not named, and that before what stood behind it.
        check(json!({"list": ["a", "b"]}), json!({"list": ["x"]}), json!({"list": ["x", "a", "b"]}));
        check(
            json!({"list": ["a", "b", "c"]}),
            json!({"list": ["c", "x"]}),
            json!({"list": ["a", "b", "c", "x"]}),
        );
        check(
            json!({"pods": [{"name": "web"}]}),
            json!({"pods": [{"name": "new", "image": "i"}]}),
            json!({"pods": [{"name": "new", "image": "i"}, {"name": "web"}]}),
        );
        check(
            json!({"pods": [{"name": "a"}, {"name": "b"}]}),
            json!({"$setElementOrder/pods": [{"name": "c"}, {"name": "b"}, {"name": "a"}], "pods": [{"name": "c"}]}),
            json!({"pods": [{"name": "c"}, {"name": "b"}, {"name": "a"}]}),
        );
    }

    #[test]
    fn a_union_keeps_what_is_named() {
        check(
            json!({"union": {"type": "A", "a": {"port": 1}}}),
            json!({"union": {"$retainKeys": ["type"], "type": "B"}}),
            json!({"union": {"type": "B"}}),
        );
        check(
            json!({"labels": {"a": "b"}}),
            json!({"labels": {"$patch": "replace", "c": "d"}}),
            json!({"labels": {"c": "d"}}),
        );
    }

    #[test]
    fn a_directive_for_what_is_not_there_is_dropped() {
        check(
            json!({}),
            json!({"labels": {"$patch": "replace", "a": "b"}, "pods": [{"name": "a", "$patch": "delete"}, {"name": "b"}]}),
            json!({"pods": [{"name": "b"}]}),
        );
        check(json!({}), json!({"labels": {"$retainKeys": "x"}}), json!({"labels": {"$retainKeys": "x"}}));
        check(json!({"list": ["a"]}), json!({"$deleteFromPrimitiveList/list": null}), json!({}));
    }

    #[test]
    fn what_does_not_fit_is_refused_in_upstreams_words() {
        let unforeseen = |why: &str| PatchError::Unforeseen(why.to_owned());
        let document = |why: &str| PatchError::Document(why.to_owned());
        for (patch, error) in [
            (
                json!({"pods": [{"image": "x"}]}),
                unforeseen("map: map[image:x] does not contain declared merge key: name"),
            ),
            (
                json!({"pods": [{"name": "a", "$patch": "x"}]}),
                unforeseen("unknown patch type: x in map: map[$patch:x name:a]"),
            ),
            (
                json!({"pods": [{"name": "a", "$patch": "merge"}]}),
                unforeseen("merging lists cannot yet be specified in the patch"),
            ),
            (json!({"$patch": "merge"}), unforeseen("unknown patch type: merge in map: map[$patch:merge]")),
            (
                json!({"$setElementOrder/pods": 1}),
                unforeseen("expected a []interface {}, but received a int64"),
            ),
            (
                json!({"$setElementOrder/pods": [{"name": "c"}], "pods": [{"name": "a"}]}),
                unforeseen(
                    "The order in patch list:\n[map[name:a]]\n doesn't match $setElementOrder list:\n[map[name:c]]\n",
                ),
            ),
            (json!({"$setElementOrder": []}), document("invalid patch format of setElementOrder list")),
            (json!({"list": ["a", 5]}), unforeseen("list element types are not identical: [[x] [a 5]]")),
            (json!({"list": [["a"]]}), unforeseen("list element types are not identical: [[x] [[a]]]")),
            (
                json!({"union": {"$retainKeys": ["a"], "type": "x"}}),
                document("invalid patch format of retainKeys"),
            ),
            (json!({"union": {"$retainKeys": "a"}}), document("invalid patch format of retainKeys")),
        ] {
            let mut value = json!({"pods": [{"name": "a"}], "union": {}, "list": ["x"]});
            let found = types().strategic_merge("T", &mut value, &patch).expect_err(&patch.to_string());
            assert_eq!(found, error, "{patch}");
        }
    }
}
