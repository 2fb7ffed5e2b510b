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
use crate::types::{Expr, Field, Types};

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";
const SET_ORDER: &str = "$setElementOrder/";

impl Types {
    /// Applies a strategic merge patch to an object of the named type.
    pub fn strategic_merge(
        &self,
        type_name: &str,
        target: &mut Value,
        patch: &Value,
    ) -> Result<(), PatchError> {
        let expr = self.expr_of(type_name).unwrap_or(Expr::Object);
        let (Value::Object(target), Value::Object(patch)) = (target, patch) else {
            return Err(PatchError::Document("a strategic merge patch is a JSON object".into()));
        };
        merge_members(self, &expr, target, patch.clone())
    }
}

fn merge_members(
    types: &Types,
    expr: &Expr,
    target: &mut Map<String, Value>,
    mut patch: Map<String, Value>,
) -> Result<(), PatchError> {
    match patch.remove(DIRECTIVE) {
        None => {}
        Some(Value::String(directive)) => match directive.as_str() {
            "delete" => {
                target.clear();
                return Ok(());
            }
            "replace" => {
                *target = without_directives(patch);
                return Ok(());
            }
            "merge" => {}
            other => return Err(unknown_directive(other)),
        },
        Some(other) => return Err(unknown_directive(&other.to_string())),
    }
    retain_keys(target, &mut patch)?;
    delete_from_lists(target, &mut patch)?;
    let merge_key = |name: &str| field_of(types, expr, name).and_then(|field| field.merge_key);
    let mut orders = Vec::new();
    for (name, order) in take_orders(&mut patch)? {
        let held = target.get(&name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        orders.push((places(held, merge_key(&name)), name, order));
    }
    for (name, change) in patch {
        let field = field_of(types, expr, &name);
        merge_member(types, expr, field, target, name, change)?;
    }
    for (before, name, order) in orders {
        if let Some(Value::Array(items)) = target.get_mut(&name) {
            let key = merge_key(&name);
            sort_by(items, &places(&order, key), &before, key);
        }
    }
    Ok(())
}

fn unknown_directive(directive: &str) -> PatchError {
    PatchError::Directive(format!("unknown patch type found: {directive}"))
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
    let replaces = field.is_some_and(|field| field.patch.replace);
    match (target.get_mut(&name), change) {
        (Some(Value::Object(before)), Value::Object(change)) if !replaces => {
            merge_members(types, expr, before, change)
        }
        (Some(Value::Array(before)), Value::Array(change))
            if field.is_some_and(|field| field.patch.merge) =>
        {
            let item = if let Expr::List(item) = expr { item } else { &Expr::Any };
            merge_list(types, item, field.and_then(|field| field.merge_key), before, change)
        }
        (_, change) => {
            target.insert(name, stripped(change));
            Ok(())
        }
    }
}

/// `$retainKeys` names the members that stay: how a union changes its branch.
fn retain_keys(target: &mut Map<String, Value>, patch: &mut Map<String, Value>) -> Result<(), PatchError> {
    let Some(keys) = patch.remove(RETAIN_KEYS) else {
        return Ok(());
    };
    let Value::Array(keys) = keys else {
        return Err(PatchError::Directive("invalid patch format of retainKeys".into()));
    };
    let is_kept = |name: &str| keys.iter().any(|key| key.as_str() == Some(name));
    if patch.iter().any(|(name, value)| !value.is_null() && !name.starts_with('$') && !is_kept(name)) {
        return Err(PatchError::Directive("patch contains fields not in retainKeys list".into()));
    }
    target.retain(|name, _| is_kept(name));
    Ok(())
}

fn delete_from_lists(
    target: &mut Map<String, Value>,
    patch: &mut Map<String, Value>,
) -> Result<(), PatchError> {
    for (name, values) in take_prefixed(patch, DELETE_FROM) {
        let Value::Array(values) = values else {
            return Err(PatchError::Directive("invalid patch format of primitive list".into()));
        };
        let values: HashSet<String> = values.iter().map(Value::to_string).collect();
        if let Some(Value::Array(items)) = target.get_mut(&name) {
            items.retain(|item| !values.contains(&item.to_string()));
        }
    }
    Ok(())
}

fn take_orders(patch: &mut Map<String, Value>) -> Result<Vec<(String, Vec<Value>)>, PatchError> {
    let lists = take_prefixed(patch, SET_ORDER).into_iter().map(|(name, order)| match order {
        Value::Array(order) => Ok((name, order)),
        _ => Err(PatchError::Directive("invalid patch format of setElementOrder list".into())),
    });
    lists.collect()
}

/// Takes the members `prefix/name` out, by their names.
fn take_prefixed(patch: &mut Map<String, Value>, prefix: &str) -> Vec<(String, Value)> {
    if !patch.keys().any(|name| name.starts_with(prefix)) {
        return Vec::new();
    }
    let (taken, left): (Vec<_>, Vec<_>) =
        std::mem::take(patch).into_iter().partition(|(name, _)| name.starts_with(prefix));
    patch.extend(left);
    taken.into_iter().map(|(name, value)| (name[prefix.len()..].to_owned(), value)).collect()
}

fn merge_list(
    types: &Types,
    item: &Expr,
    merge_key: Option<&str>,
    target: &mut Vec<Value>,
    mut patch: Vec<Value>,
) -> Result<(), PatchError> {
    let before = places(target, merge_key);
    let order = places(&patch, merge_key);
    let Some(key) = merge_key else {
        // A list of plain values is a set.
        let mut held: HashSet<String> = target.iter().map(Value::to_string).collect();
        target.extend(patch.into_iter().filter(|value| held.insert(value.to_string())));
        sort_by(target, &order, &before, merge_key);
        return Ok(());
    };
    let is_replace = |one: &Value| one.get(DIRECTIVE).and_then(Value::as_str) == Some("replace");
    if patch.iter().any(is_replace) {
        patch.retain(|one| !is_replace(one));
        *target = patch.into_iter().map(stripped).collect();
        return Ok(());
    }
    // Deletions come first, so that an item may be deleted and made anew.
    let mut deleted = HashSet::new();
    let mut changes = Vec::new();
    for change in patch {
        let Value::Object(mut change) = change else {
            return Err(PatchError::Mismatch("expected a list of objects".into()));
        };
        let Some(wanted) = change.get(key).map(Value::to_string) else {
            return Err(PatchError::Mismatch(format!("map does not contain declared merge key: {key}")));
        };
        match change.remove(DIRECTIVE) {
            Some(directive) if directive == "delete" => {
                deleted.insert(wanted);
            }
            Some(directive) if directive != "merge" => {
                return Err(unknown_directive(directive.as_str().unwrap_or_default()));
            }
            _ => changes.push((wanted, change)),
        }
    }
    if !deleted.is_empty() {
        target.retain(|one| !deleted.contains(&identity(one, merge_key)));
    }
    let mut places = places(target, merge_key);
    for (wanted, change) in changes {
        match places.get(&wanted).and_then(|&at| target.get_mut(at)) {
            Some(Value::Object(before)) => merge_members(types, item, before, change)?,
            _ => {
                places.insert(wanted, target.len());
                target.push(stripped(Value::Object(change)));
            }
        }
    }
    sort_by(target, &order, &before, merge_key);
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

/// What a patch says where the object has nothing: its values without nulls and directives.
fn stripped(value: Value) -> Value {
    match value {
        Value::Object(members) => Value::Object(without_directives(members)),
        Value::Array(items) => {
            let is_delete = |one: &Value| one.get(DIRECTIVE).and_then(Value::as_str) == Some("delete");
            items.into_iter().filter(|one| !is_delete(one)).map(stripped).collect()
        }
        other => other,
    }
}

fn without_directives(members: Map<String, Value>) -> Map<String, Value> {
    let is_kept = |(name, value): &(String, Value)| {
        let is_directive = name == DIRECTIVE || name == RETAIN_KEYS;
        !value.is_null() && !is_directive && !name.starts_with(DELETE_FROM) && !name.starts_with(SET_ORDER)
    };
    members.into_iter().filter(is_kept).map(|(name, value)| (name, stripped(value))).collect()
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
            json!({"pods": [{"name": "a", "image": "y", "ports": [{"port": 2}, {"port": 1}]}, {"name": "c"}, {"name": "b"}]}),
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
    fn what_does_not_fit_is_refused() {
        for patch in [
            json!({"pods": [{"image": "x"}]}),
            json!({"$patch": "nonsense"}),
            json!({"$setElementOrder/pods": 1}),
            json!({"union": {"$retainKeys": ["a"], "type": "x"}}),
        ] {
            let mut value = json!({"pods": [{"name": "a"}], "union": {}});
            types().strategic_merge("T", &mut value, &patch).expect_err(&patch.to_string());
        }
    }
}
