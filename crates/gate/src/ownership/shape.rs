//! Objects as trees of fields: what an object sets, how two differ, how one is merged into another, what is taken away.
//!
//! The rules are those of structured merge: structs and maps are granular, lists are one value unless their type has keys (`map`) or
//! holds each value once (`set`), and a type may say that its whole is one value (`atomic`).
//! <https://kubernetes.io/docs/reference/using-api/server-side-apply/#merge-strategy>

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use schema::custom::{JsonType, List, Node};
use schema::{Expr, Field, Kind, ListType, MapType, Type};
use serde_json::{Map, Value};

use super::fields::{Fields, step_text};
use super::is_nothing;

/// How a value is made of parts.
#[derive(Clone, Copy)]
pub(crate) enum Shape<'t> {
    /// One value, whatever is in it.
    Leaf,
    Struct(&'t Type),
    Map(&'t Expr),
    /// A list whose items are told apart by some of their members.
    Keyed(&'t Type, &'t [&'static str]),
    Set,
    /// An object of a custom resource, as its schema has it.
    Schema(&'t Node),
    /// As [`Keyed`](Self::Keyed), by a schema.
    KeyedSchema(&'t Node, &'t [Box<str>]),
    /// What no schema tells: objects are granular, lists are one value.
    Deduced,
}

impl<'t> Shape<'t> {
    /// Of a kind's whole objects.
    pub(crate) fn of(kind: &'t Kind) -> Self {
        match kind.schema() {
            Some(schema) => Self::Schema(schema),
            None => Self::of_type(kind.type_name),
        }
    }

    fn of_type(name: &str) -> Self {
        kinds::types().get(name).map_or(Self::Leaf, Self::of_struct)
    }

    /// A type that is one value wherever it is used (a LabelSelector, an OwnerReference) has that on each of its fields.
    fn of_struct(owner: &'t Type) -> Self {
        let is_part = |field: &Field| field.map == MapType::Atomic;
        let is_one_value = !owner.fields.is_empty() && owner.fields.iter().all(is_part);
        if is_one_value { Self::Leaf } else { Self::Struct(owner) }
    }

    fn of_node(node: &'t Node) -> Self {
        match (node.r#type, &node.list) {
            (Some(JsonType::Object), _) if node.is_atomic_map => Self::Leaf,
            (Some(JsonType::Object), _) => Self::Schema(node),
            (Some(JsonType::Array), List::Set) => Self::Set,
            (Some(JsonType::Array), List::Map(keys)) => {
                node.items.as_deref().map_or(Self::Leaf, |item| Self::KeyedSchema(item, keys))
            }
            (None, _) => Self::Deduced,
            _ => Self::Leaf,
        }
    }

    fn of_expr(expr: &'t Expr, list: &'t ListType, map: MapType) -> Self {
        let quantity: &'static Expr = &Expr::Quantity;
        match (expr, list) {
            _ if map == MapType::Atomic => Self::Leaf,
            (Expr::Struct(index), _) if map == MapType::Granular => {
                kinds::types().all().get(*index).map_or(Self::Leaf, Self::Struct)
            }
            (Expr::Struct(index), _) => kinds::types().all().get(*index).map_or(Self::Leaf, Self::of_struct),
            (Expr::Map(item), _) => Self::Map(item),
            (Expr::ResourceList, _) => Self::Map(quantity),
            (Expr::List(_), ListType::Set) => Self::Set,
            (Expr::List(item), ListType::Map(keys)) => match &**item {
                Expr::Struct(index) => {
                    kinds::types().all().get(*index).map_or(Self::Leaf, |item| Self::Keyed(item, keys))
                }
                _ => Self::Leaf,
            },
            _ => Self::Leaf,
        }
    }

    fn of_field(field: &'t Field) -> Self {
        Self::of_expr(&field.expr, &field.list, field.map)
    }

    /// The shape of a member of a struct or map.
    fn member(self, name: &str) -> Self {
        match self {
            Self::Struct(owner) => owner.field(name).map_or(Self::Leaf, Self::of_field),
            Self::Map(item) => Self::of_expr(item, &ListType::Unset, MapType::Unset),
            Self::Schema(node) => match name {
                "apiVersion" | "kind" if node.is_resource => Self::Leaf,
                "metadata" if node.is_resource => Self::of_type("meta.v1.ObjectMeta"),
                _ => node.member(name).map_or(Self::Deduced, Self::of_node),
            },
            Self::Deduced => Self::Deduced,
            _ => Self::Leaf,
        }
    }
}

/// The step to an item of a list. None: the item has none of the keys, or is no object.
fn step(shape: Shape<'_>, item: &Value) -> Option<Box<str>> {
    match shape {
        Shape::Keyed(owner, keys) => {
            let mut values = Map::new();
            for &key in keys {
                // What Go writes though nobody said it stands for what is not said.
                let zero = |field: &Field| field.zero.clone().filter(|zero| !zero.is_null());
                let default =
                    || owner.field(key).and_then(|field| field.default.clone().or_else(|| zero(field)));
                if let Some(value) = item.get(key).cloned().or_else(default) {
                    values.insert(key.to_owned(), value);
                }
            }
            (!values.is_empty()).then(|| format!("k:{}", Value::Object(values)).into())
        }
        Shape::KeyedSchema(node, keys) => {
            let mut values = Map::new();
            for key in keys {
                let default = || node.properties.get(key).and_then(|property| property.default.clone());
                if let Some(value) = item.get(&**key).cloned().or_else(default) {
                    values.insert(key.to_string(), value);
                }
            }
            (!values.is_empty()).then(|| format!("k:{}", Value::Object(values)).into())
        }
        _ => Some(format!("v:{item}").into()),
    }
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// The items under each step: more than one only in lists that break the rule.
fn by_step<'a>(shape: Shape<'_>, list: &'a Value) -> BTreeMap<Box<str>, Vec<&'a Value>> {
    let mut found: BTreeMap<Box<str>, Vec<&Value>> = BTreeMap::new();
    for item in items(list) {
        if let Some(step) = step(shape, item) {
            found.entry(step).or_default().push(item);
        }
    }
    found
}

fn item_shape<'t>(list: Shape<'t>) -> Shape<'t> {
    match list {
        Shape::Keyed(item, _) => Shape::of_struct(item),
        Shape::KeyedSchema(item, _) => Shape::Schema(item),
        _ => Shape::Leaf,
    }
}

/// The fields that a configuration sets. `wrong` is what keeps it from being one: items that nothing tells apart from others.
pub(crate) fn set_by(shape: Shape<'_>, value: &Value, path: &str, to: &mut Fields, wrong: &mut Vec<String>) {
    match (shape, value) {
        (Shape::Struct(_) | Shape::Map(_) | Shape::Schema(_) | Shape::Deduced, Value::Object(members))
            if !members.is_empty() =>
        {
            for (name, inner) in members {
                let mut fields = Fields::default();
                set_by(shape.member(name), inner, &format!("{path}.{name}"), &mut fields, wrong);
                // A list without items sets nothing.
                if !fields.is_empty() {
                    to.at(format!("f:{name}")).add(&fields);
                }
            }
        }
        (Shape::Keyed(..) | Shape::KeyedSchema(..) | Shape::Set, Value::Array(list)) => {
            for (index, item) in list.iter().enumerate() {
                let Some(step) = step(shape, item) else {
                    wrong.push(format!(
                        "{path}: element {index}: associative list with keys has an element that omits all key fields [{}] (and doesn't have default values for any key fields)",
                        keys(shape)
                    ));
                    continue;
                };
                let inner_path = format!("{path}{}", step_text(&step));
                let inner = to.at(step.clone());
                if inner.here {
                    let twice = Fields {
                        here: false,
                        below: [(step, Fields { here: true, ..Fields::default() })].into(),
                    };
                    wrong.push(format!("{path}: duplicate entries for key {}", twice.paths().join("")));
                    continue;
                }
                inner.here = true;
                if let Shape::Struct(_) | Shape::Schema(_) = item_shape(shape) {
                    set_by(item_shape(shape), item, &inner_path, inner, wrong);
                }
            }
        }
        _ => to.here = true,
    }
}

/// The keys of a list as messages tell them: `"port" "protocol"`.
fn keys(list: Shape<'_>) -> String {
    let quoted: Vec<String> = match list {
        Shape::Keyed(_, keys) => keys.iter().map(|key| format!("{key:?}")).collect(),
        Shape::KeyedSchema(_, keys) => keys.iter().map(|key| format!("{key:?}")).collect(),
        _ => Vec::new(),
    };
    quoted.join(" ")
}

/// The parts of a configuration that are one value as a whole, though they have parts: who sets them takes away what is not in them.
pub(crate) fn atomics(shape: Shape<'_>, value: &Value, to: &mut Fields) {
    match (shape, value) {
        (Shape::Struct(_) | Shape::Map(_) | Shape::Schema(_) | Shape::Deduced, Value::Object(members)) => {
            for (name, inner) in members {
                atomics(shape.member(name), inner, to.at(format!("f:{name}")));
            }
        }
        (Shape::Keyed(..) | Shape::KeyedSchema(..) | Shape::Set, Value::Array(list)) => {
            for item in list {
                if let Some(step) = step(shape, item) {
                    atomics(item_shape(shape), item, to.at(step));
                }
            }
        }
        (_, Value::Array(_) | Value::Object(_)) => to.here = true,
        _ => {}
    }
}

/// How two states differ.
#[derive(Default)]
pub(crate) struct Difference {
    /// Added or changed.
    pub(crate) changed: Fields,
    pub(crate) removed: Fields,
}

impl Difference {
    pub(crate) fn between(shape: Shape<'_>, old: &Value, new: &Value) -> Self {
        let mut found = Self::default();
        compare(shape, None, Some(old), Some(new), &mut found.changed, &mut found.removed);
        found
    }
}

fn compare(
    shape: Shape<'_>,
    field: Option<&Field>,
    old: Option<&Value>,
    new: Option<&Value>,
    changed: &mut Fields,
    removed: &mut Fields,
) {
    // What Go writes as null is there, and says nothing.
    let is_null = field.is_some_and(|field| field.zero.as_ref().is_some_and(Value::is_null));
    let nothing = || is_null.then_some(&Value::Null);
    let (old, new) = match (old.or_else(nothing), new.or_else(nothing)) {
        (None, None) => return,
        (Some(old), None) => return everything(shape, old, removed),
        (None, Some(new)) => return everything(shape, new, changed),
        (Some(old), Some(new)) if old == new => return,
        (Some(old), Some(new)) => (old, new),
    };
    // Of two that are empty, none has parts to tell apart.
    if is_nothing(old) && is_nothing(new) {
        changed.here = true;
        return;
    }
    match (shape, old, new) {
        (
            Shape::Struct(_) | Shape::Map(_) | Shape::Schema(_) | Shape::Deduced,
            Value::Object(_) | Value::Null,
            Value::Object(_) | Value::Null,
        ) => {
            let (before, after) = (members(old), members(new));
            let names: BTreeSet<&String> = before.chain(after).map(|(name, _)| name).collect();
            for name in names {
                let field = match shape {
                    Shape::Struct(owner) => owner.field(name),
                    _ => None,
                };
                let step = format!("f:{name}");
                let inner = shape.member(name);
                within(changed, removed, step.into(), |changed, removed| {
                    compare(inner, field, old.get(name), new.get(name), changed, removed);
                });
            }
        }
        (
            Shape::Keyed(..) | Shape::KeyedSchema(..) | Shape::Set,
            Value::Array(_) | Value::Null,
            Value::Array(_) | Value::Null,
        ) => {
            let (mut before, mut after) = (by_step(shape, old), by_step(shape, new));
            let steps: BTreeSet<Box<str>> = before.keys().chain(after.keys()).cloned().collect();
            for step in steps {
                let (before, after) =
                    (before.remove(&step).unwrap_or_default(), after.remove(&step).unwrap_or_default());
                within(changed, removed, step, |changed, removed| match (&before[..], &after[..]) {
                    ([], []) => {}
                    ([before], [after]) => {
                        compare(item_shape(shape), None, Some(before), Some(after), changed, removed)
                    }
                    (_, []) => before.iter().for_each(|item| item_owned(shape, item, removed)),
                    ([], [after]) => item_owned(shape, after, changed),
                    (before, after) if before == after => {}
                    _ => changed.here = true,
                });
            }
        }
        _ => changed.here = true,
    }
}

fn members(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

/// Goes one step inwards in both sets, and leaves no empty element behind.
fn within(
    changed: &mut Fields,
    removed: &mut Fields,
    step: Box<str>,
    go: impl FnOnce(&mut Fields, &mut Fields),
) {
    let (mut inner_changed, mut inner_removed) = (Fields::default(), Fields::default());
    go(&mut inner_changed, &mut inner_removed);
    for (set, inner) in [(changed, inner_changed), (removed, inner_removed)] {
        if !inner.is_empty() {
            set.below.insert(step.clone(), inner);
        }
    }
}

/// All fields of a value that is there as a whole: the containers too.
fn everything(shape: Shape<'_>, value: &Value, to: &mut Fields) {
    to.here = true;
    match (shape, value) {
        (Shape::Struct(_) | Shape::Map(_) | Shape::Schema(_) | Shape::Deduced, Value::Object(members)) => {
            for (name, inner) in members {
                everything(shape.member(name), inner, to.at(format!("f:{name}")));
            }
            // Go writes these as null, which counts as said.
            let Shape::Struct(owner) = shape else { return };
            for field in owner.fields.iter().filter(|field| field.zero.as_ref().is_some_and(Value::is_null)) {
                if !members.contains_key(field.name) {
                    to.at(format!("f:{}", field.name)).here = true;
                }
            }
        }
        (Shape::Keyed(..) | Shape::KeyedSchema(..) | Shape::Set, Value::Array(_)) => {
            for (step, group) in by_step(shape, value) {
                match &group[..] {
                    [item] => item_owned(shape, item, to.at(step)),
                    _ => to.at(step).here = true,
                }
            }
        }
        _ => {}
    }
}

fn item_owned(list: Shape<'_>, item: &Value, to: &mut Fields) {
    to.here = true;
    if let Shape::Struct(_) | Shape::Schema(_) = item_shape(list) {
        everything(item_shape(list), item, to);
    }
}

/// Puts a configuration over the live state.
pub(crate) fn merge(shape: Shape<'_>, live: &mut Value, config: &Value) {
    match (shape, &mut *live, config) {
        (
            Shape::Struct(_) | Shape::Map(_) | Shape::Schema(_) | Shape::Deduced,
            Value::Object(held),
            Value::Object(wanted),
        ) => {
            for (name, value) in wanted {
                match held.get_mut(name) {
                    Some(known) => merge(shape.member(name), known, value),
                    None => drop(held.insert(name.clone(), value.clone())),
                }
            }
        }
        (
            Shape::Keyed(..) | Shape::KeyedSchema(..) | Shape::Set,
            Value::Array(held),
            Value::Array(wanted),
        ) => {
            let merged = merge_lists(shape, std::mem::take(held), wanted);
            *held = merged;
        }
        // Nothing is put over what others may have put there.
        (
            Shape::Struct(_) | Shape::Map(_) | Shape::Schema(_) | Shape::Deduced,
            Value::Object(_),
            Value::Null,
        )
        | (Shape::Keyed(..) | Shape::KeyedSchema(..) | Shape::Set, Value::Array(_), Value::Null) => {}
        _ => *live = config.clone(),
    }
}

/// Shared items follow the configuration's order; the live list's own keep their place before the next shared one.
///
/// ```text
/// live a b c d, configured c new a   →  b c d new a
/// live a b c,   configured z c a     →  b z c a
/// ```
fn merge_lists(shape: Shape<'_>, live: Vec<Value>, config: &[Value]) -> Vec<Value> {
    let wanted: Vec<Option<Box<str>>> = config.iter().map(|item| step(shape, item)).collect();
    let held: Vec<Option<Box<str>>> = live.iter().map(|item| step(shape, item)).collect();
    let asked: HashSet<&str> = wanted.iter().flatten().map(|step| &**step).collect();
    let is_shared = |step: &Option<Box<str>>| step.as_deref().is_some_and(|step| asked.contains(step));
    let mut places: HashMap<&str, usize> = HashMap::new();
    for (place, step) in held.iter().enumerate() {
        if let Some(step) = step {
            places.entry(step).or_insert(place);
        }
    }
    let place_of = |index: usize| places.get(wanted[index].as_deref()?).copied();
    // Of each configured item the next that the live list has too, maybe itself.
    let mut next: Vec<Option<&str>> = vec![None; wanted.len()];
    let mut ahead = None;
    for index in (0..wanted.len()).rev() {
        if place_of(index).is_some() {
            ahead = wanted[index].as_deref();
        }
        next[index] = ahead;
    }
    let mut merged = Vec::with_capacity(held.len() + config.len());
    let mut passed = 0;
    for (index, item) in config.iter().enumerate() {
        while passed < held.len() && (next[index].is_none() || held[passed].as_deref() != next[index]) {
            if !is_shared(&held[passed]) {
                merged.push(live[passed].clone());
            }
            passed += 1;
        }
        let value = match place_of(index) {
            Some(place) => {
                let mut value = live[place].clone();
                merge(item_shape(shape), &mut value, item);
                value
            }
            None => item.clone(),
        };
        merged.push(value);
        if next[index].is_some() && wanted[index].as_deref() == next[index] {
            passed += 1;
        }
    }
    let rest = live.into_iter().zip(&held).skip(passed).filter(|(_, step)| !is_shared(step));
    merged.extend(rest.map(|(item, _)| item));
    merged
}

/// Takes away what `last` has and `kept` has not. A field goes with everything in it once nobody keeps anything of it, and a container
/// once nothing is left in it; an item of a list goes once nobody keeps the item itself.
pub(crate) fn remove(shape: Shape<'_>, value: &mut Value, last: &Fields, kept: &Fields) {
    let nothing = Fields::default();
    match (shape, value) {
        (Shape::Struct(_) | Shape::Map(_) | Shape::Schema(_) | Shape::Deduced, Value::Object(members)) => {
            for (step, inner) in &last.below {
                let Some(name) = step.strip_prefix("f:") else { continue };
                let keep = kept.below.get(step).unwrap_or(&nothing);
                if keep.is_empty() && (inner.here || inner.below.is_empty()) {
                    members.remove(name);
                    continue;
                }
                let Some(member) = members.get_mut(name) else { continue };
                remove(shape.member(name), member, inner, keep);
                if keep.is_empty() && is_empty(member) {
                    members.remove(name);
                }
            }
        }
        (Shape::Keyed(..) | Shape::KeyedSchema(..) | Shape::Set, Value::Array(list)) => {
            list.retain_mut(|item| {
                let Some(step) = step(shape, item) else { return true };
                let Some(inner) = last.below.get(&step) else { return true };
                let keep = kept.below.get(&step).unwrap_or(&nothing);
                if inner.here && !keep.here {
                    return false;
                }
                remove(item_shape(shape), item, inner, keep);
                true
            });
        }
        _ => {}
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Object(members) => members.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn parts_that_are_one_value_are_named() {
        let deployment = kinds::of(kinds::DEPLOYMENTS).expect("a kind");
        for (config, expected) in [
            (json!({"spec": {"replicas": 1, "template": {"metadata": {"labels": {"a": "b"}}}}}), vec![]),
            (json!({"spec": {"selector": {"matchLabels": {"a": "b"}}}}), vec![".spec.selector"]),
            (
                json!({"spec": {"template": {"spec": {"containers": [{"name": "a", "args": ["b"], "image": "c"}]}}}}),
                vec![".spec.template.spec.containers[name=\"a\"].args"],
            ),
        ] {
            let mut found = Fields::default();
            atomics(Shape::of(deployment), &config, &mut found);
            assert_eq!(found.paths(), expected, "{config}");
        }
    }

    #[test]
    fn merged_lists_have_upstreams_order() {
        for (live, config, expected) in [
            ("a b c d", "c new a", "b c d new a"),
            ("a b c d", "new d", "a b c new d"),
            ("a b c d", "d new", "a b c d new"),
            ("a b c", "z c a", "b z c a"),
            ("x z", "y", "x z y"),
            ("", "a b", "a b"),
        ] {
            let list = |text: &str| text.split_whitespace().map(Value::from).collect::<Vec<_>>();
            let merged = merge_lists(Shape::Set, list(live), &list(config));
            assert_eq!(json!(merged), json!(list(expected)), "{live} + {config}");
        }
    }

    #[test]
    fn the_work_on_a_list_grows_with_its_length_only() {
        // Quadratic work on so many would not end within the patience of anybody who runs tests.
        let list = |from: usize| (from..from + 100_000).map(Value::from).collect::<Vec<_>>();
        assert_eq!(merge_lists(Shape::Set, list(0), &list(50_000)).len(), 150_000);
        let set = |from| Value::from(list(from));
        let (mut changed, mut removed) = (Fields::default(), Fields::default());
        compare(Shape::Set, None, Some(&set(0)), Some(&set(50_000)), &mut changed, &mut removed);
        assert_eq!((changed.below.len(), removed.below.len()), (50_000, 50_000));
    }
}
