//! What is wrong with a custom resource, in the words of upstream's validator (kube-openapi).
//!
//! A value that an update leaves as it was is not held against it, even where the schema has become stricter meanwhile
//! (ratcheting, KEP-4008).

use std::collections::HashMap;

use serde_json::Value;

use super::Custom;
use super::format;
use super::node::{Additional, Checks, JsonType, List, Node};
use super::rules::{Asked, Which};
use crate::{At, Violation, ViolationKind, go, names};

/// What all rules may cost on one object.
const RULES_BUDGET: u64 = 10_000_000;
/// What a value must not have for its rules to be asked: they are compiled for its type and size.
const BLOCKING: [ViolationKind; 5] = [
    ViolationKind::NotSupported,
    ViolationKind::Required,
    ViolationKind::TooLong,
    ViolationKind::TooMany,
    ViolationKind::TypeInvalid,
];
const UNCHECKED: &str = "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation";

/// How upstream names the place of what is said about a whole object.
const NOWHERE: &str = "<nil>";

/// Everything that a definition has against an object but its rules, added to what is wrong with its metadata.
///
/// `has_status`: the status is written by itself.
pub(crate) fn violations(
    custom: &Custom,
    has_status: bool,
    new: &Value,
    old: Option<&Value>,
    found: &mut Vec<Violation>,
) {
    let (root, at) = (&*custom.schema, At::root(""));
    let others = found.len();
    value(root, new, old, at, found);
    // What is written by itself is judged as if it stood alone.
    for one in found[others..].iter_mut().filter(|one| has_status && one.field.starts_with("status.")) {
        one.detail = one.detail.strip_prefix("status.").unwrap_or(&one.detail).to_owned();
    }
    if let Some(scale) = &custom.scale {
        scale.violations(new, found);
    }
    embedded(root, new, at, true, found);
    // What was let in once stays.
    let mut before = Vec::new();
    if let Some(old) = old {
        repeated(root, old, at, &mut before);
    }
    if before.is_empty() {
        repeated(root, new, at, found);
    }
}

/// What a definition's rules have against an object; None: it has no rules. `found`: what else is wrong.
pub(crate) fn broken_rules(
    root: &Node,
    new: &Value,
    old: Option<&Value>,
    found: &[Violation],
) -> Option<Vec<Violation>> {
    if !has_rules(root) {
        return None;
    }
    if found.iter().any(|one| BLOCKING.contains(&one.kind)) {
        return Some(vec![Violation { value: "null".to_owned(), ..placeless(UNCHECKED.to_owned()) }]);
    }
    Some(ruled(root, new, old, At::root(""), Which::Violations))
}

/// What rules have against values that an update leaves as they were: it is told, and nothing is refused for it. `found`: what is wrong.
pub(crate) fn ratcheted(root: &Node, new: &Value, old: &Value, found: &[Violation]) -> Vec<Violation> {
    if !has_rules(root) || found.iter().any(|one| BLOCKING.contains(&one.kind)) {
        return Vec::new();
    }
    ruled(root, new, Some(old), At::root(""), Which::Warnings)
}

/// What the rules of a schema, and of those within, have against a value.
pub(super) fn ruled(
    node: &Node,
    new: &Value,
    old: Option<&Value>,
    at: At<'_>,
    which: Which,
) -> Vec<Violation> {
    let mut walk = Walk { which, budget: RULES_BUDGET, is_over: false, found: Vec::new() };
    walk.node(node, Asked { new, old, at, is_unchanged: old == Some(new) });
    walk.found
}

/// Everything that a schema has against a default, but for its rules. Upstream judges it as if it stood alone: its place is told in front.
pub(super) fn default_violations(node: &Node, default: &Value, at: At<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    embedded(node, default, at, false, &mut found);
    if !found.is_empty() {
        return found;
    }
    value(node, default, None, At::root(""), &mut found);
    for one in &mut found {
        one.field = match &*one.field {
            NOWHERE => at.to_string(),
            inner => format!("{at}.{inner}"),
        };
    }
    found
}

fn value(node: &Node, new: &Value, old: Option<&Value>, at: At<'_>, found: &mut Vec<Violation>) {
    if old == Some(new) {
        return;
    }
    if new.is_null() {
        if !node.nullable && (node.r#type.is_some() || node.int_or_string) {
            found.push(of_type(at, &type_names(node), "null"));
        }
        return;
    }
    if let Some(wrong) = wrong_type(node, new) {
        // A format is told in place of the type, and the value as Go's decoder made it; texts and lists are told by the type.
        match node.checks.format.as_deref().filter(|format| format::is_of(format, node.r#type)) {
            Some(_) if node.r#type == Some(JsonType::String) && new.is_array() => {}
            Some(format) if !new.is_string() && !new.is_array() => {
                let is = if new.is_number() { go::type_of(new) } else { "" };
                found.push(of_type(at, format, is));
            }
            _ => found.push(of_type(at, &type_names(node), wrong)),
        }
    }
    composed(&node.checks, new, at, found);
    match new {
        Value::String(text) => string(&node.checks, text, at, found),
        Value::Number(_) => number(node, new, at, found),
        _ => {}
    }
    if let Some(options) = &node.checks.options
        && !options.iter().any(|option| same(option, new))
    {
        let options: Vec<String> = options.iter().map(plain).collect();
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        found.push(Violation::not_supported(at, new, &options));
    }
    match new {
        Value::Array(items) => list(node, items, old, at, found),
        Value::Object(_) => object(node, new, old, at, found),
        _ => {}
    }
}

/// JSON's own name of what a value is; a number without a fraction is an integer.
fn json_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) if is_whole(value) => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn is_whole(value: &Value) -> bool {
    value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|number| number.fract() == 0.0)
}

fn type_names(node: &Node) -> String {
    match node.r#type {
        Some(one) => one.name().to_owned(),
        None => "integer,string".to_owned(),
    }
}

/// The type of a value that may not stand here.
fn wrong_type(node: &Node, value: &Value) -> Option<&'static str> {
    let is = json_type(value);
    let fits = match node.r#type {
        None if node.int_or_string => matches!(is, "integer" | "string"),
        None => true,
        Some(JsonType::Number) => matches!(is, "integer" | "number"),
        Some(wanted) => wanted.name() == is,
    };
    (!fits).then_some(is)
}

fn of_type(at: At<'_>, wanted: &str, is: &str) -> Violation {
    Violation {
        kind: ViolationKind::TypeInvalid,
        field: field(at),
        value: format!("\"{is}\""),
        detail: format!("{at} in body must be of type {wanted}: \"{is}\""),
    }
}

fn field(at: At<'_>) -> String {
    let text = at.to_string();
    if text.is_empty() { NOWHERE.to_owned() } else { text }
}

fn invalid(at: At<'_>, value: &Value, rule: String) -> Violation {
    Violation {
        kind: ViolationKind::Invalid,
        field: field(at),
        value: value.to_string(),
        detail: format!("{at} in body {rule}"),
    }
}

/// What has no place of its own: upstream tells the place in the words.
fn placeless(detail: String) -> Violation {
    Violation { kind: ViolationKind::Invalid, field: NOWHERE.to_owned(), value: "\"\"".to_owned(), detail }
}

/// Of lengths and the pattern the first that does not hold is told.
fn string(checks: &Checks, text: &str, at: At<'_>, found: &mut Vec<Violation>) {
    let value = Value::from(text);
    let length = || text.chars().count() as u64;
    if let Some(most) = checks.max_length
        && length() > most
    {
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        found.push(Violation { field: field(at), ..Violation::too_long(at, most) });
    } else if let Some(least) = checks.min_length
        && length() < least
    {
        found.push(invalid(at, &value, format!("should be at least {least} chars long")));
    } else if let Some(pattern) = &checks.pattern
        && !pattern.matches(text)
    {
        found.push(invalid(at, &value, format!("should match '{}'", pattern.text)));
    }
    if let Some(name) = &checks.format
        && !format::fits(name, text)
    {
        found.push(Violation {
            kind: ViolationKind::TypeInvalid,
            ..invalid(at, &value, format!("must be of type {name}: {value}"))
        });
    }
}

fn number(node: &Node, value: &Value, at: At<'_>, found: &mut Vec<Violation>) {
    let checks = &node.checks;
    let number = value.as_f64().unwrap_or_default();
    let is_integer = node.r#type == Some(JsonType::Integer);
    if let (Some(format), Some(kind)) = (&checks.format, node.r#type)
        && !format::holds(format, number)
    {
        let kind = kind.name();
        found.push(placeless(format!("Checked value must be of type {kind} with format {format} in {at}")));
    } else if is_integer && checks.format.is_none() && number.fract() != 0.0 {
        found.push(placeless(format!("Checked value must be of type integer (default format) in {at}")));
    }
    if let Some(of) = checks.multiple_of
        && ((number / of).fract()).abs() > f64::EPSILON
    {
        found.push(invalid(at, value, format!("should be a multiple of {}", go::float(of))));
    }
    if let Some((most, exclusive)) = checks.maximum
        && (number > most || exclusive && number == most)
    {
        let rule = if exclusive { "less than" } else { "less than or equal to" };
        found.push(invalid(at, value, format!("should be {rule} {}", go::float(most))));
    }
    if let Some((least, exclusive)) = checks.minimum
        && (number < least || exclusive && number == least)
    {
        let rule = if exclusive { "greater than" } else { "greater than or equal to" };
        found.push(invalid(at, value, format!("should be {rule} {}", go::float(least))));
    }
}

fn list(node: &Node, items: &[Value], old: Option<&Value>, at: At<'_>, found: &mut Vec<Violation>) {
    let count = items.len() as u64;
    if let Some(most) = node.checks.max_items
        && count > most
    {
        found.push(Violation::too_many(at, items.len(), usize::try_from(most).unwrap_or(usize::MAX)));
    }
    if let Some(least) = node.checks.min_items
        && count < least
    {
        found.push(invalid(at, &items.len().into(), format!("should have at least {least} items")));
    }
    if node.checks.unique_items && first_repeated(items.iter().map(Value::to_string)).is_some() {
        found.push(invalid(at, &"".into(), "shouldn't contain duplicates".into()));
    }
    let Some(inner) = node.items.as_deref() else { return };
    for (index, item) in items.iter().enumerate() {
        value(inner, item, old_item(node, item, old), at.index(index), found);
    }
}

/// The item of the old list that is the same one: only lists with keys can tell.
fn old_item<'a>(node: &Node, item: &Value, old: Option<&'a Value>) -> Option<&'a Value> {
    let List::Map(keys) = &node.list else { return None };
    let old = old?.as_array()?;
    old.iter().find(|one| keys.iter().all(|key| one.get(&**key) == item.get(&**key)))
}

fn object(node: &Node, new: &Value, old: Option<&Value>, at: At<'_>, found: &mut Vec<Violation>) {
    let Some(members) = new.as_object() else { return };
    let checks = &node.checks;
    let count = members.len() as u64;
    if let Some(most) = checks.max_properties
        && count > most
    {
        found.push(Violation::too_many(at, members.len(), usize::try_from(most).unwrap_or(usize::MAX)));
    }
    if let Some(least) = checks.min_properties
        && count < least
    {
        found.push(invalid(at, &members.len().into(), format!("should have at least {least} properties")));
    }
    for name in checks.required.iter().filter(|name| !members.contains_key(&***name)) {
        found.push(Violation::required(at.field(name), ""));
    }
    for (name, member) in members {
        let inner = match (node.properties.get(name.as_str()), &node.additional) {
            (Some(inner), _) => inner,
            (None, Some(Additional::Node(inner))) => inner,
            (None, Some(Additional::None)) => {
                let at = at.field(name);
                found.push(placeless(format!("{at} in body is a forbidden property")));
                continue;
            }
            (None, _) => continue,
        };
        let old = old.and_then(|old| old.get(name));
        value(inner, member, old, at.field(name), found);
    }
}

/// `allOf`, `anyOf`, `oneOf`, `not`.
///
/// What is under them is judged as if it were new: whether an alternative holds must not hang on which fields an update leaves alone.
fn composed(checks: &Checks, new: &Value, at: At<'_>, found: &mut Vec<Violation>) {
    let try_each = |nodes: &[Node]| -> Vec<Vec<Violation>> {
        let one = |node: &Node| {
            let mut found = Vec::new();
            value(node, new, None, at, &mut found);
            found
        };
        nodes.iter().map(one).collect()
    };
    let place = Value::from(at.to_string());
    if !checks.any_of.is_empty() {
        let tried = try_each(&checks.any_of);
        if tried.iter().all(|found| !found.is_empty()) {
            found.push(placeless(format!("{place} must validate at least one schema (anyOf)")));
            found.extend(first(tried));
        }
    }
    if !checks.one_of.is_empty() {
        let tried = try_each(&checks.one_of);
        let good = tried.iter().filter(|found| found.is_empty()).count();
        let only = format!("{place} must validate one and only one schema (oneOf).");
        if good == 0 {
            found.push(placeless(format!("{only} Found none valid")));
            found.extend(first(tried));
        } else if good > 1 {
            found.push(placeless(format!("{only} Found {good} valid alternatives")));
        }
    }
    if !checks.all_of.is_empty() {
        let tried = try_each(&checks.all_of);
        let (all, good) = (tried.len(), tried.iter().filter(|found| found.is_empty()).count());
        found.extend(tried.into_iter().flatten());
        if good < all {
            let none = if good == 0 { ". None validated" } else { "" };
            found.push(placeless(format!("{place} must validate all the schemas (allOf){none}")));
        }
    }
    if let Some(not) = &checks.not {
        let mut inner = Vec::new();
        value(not, new, None, at, &mut inner);
        if inner.is_empty() {
            found.push(placeless(format!("{place} must not validate the schema (not)")));
        }
    }
}

/// What the first alternative has against the value, told beside the failure of all.
fn first(tried: Vec<Vec<Violation>>) -> Vec<Violation> {
    tried.into_iter().next().unwrap_or_default()
}

/// Sets that hold a value twice, and keyed lists that hold a key twice.
fn repeated(node: &Node, value: &Value, at: At<'_>, found: &mut Vec<Violation>) {
    match value {
        Value::Array(items) => {
            match &node.list {
                List::Atomic => {}
                List::Set => duplicates(items.iter().cloned(), at, found),
                List::Map(keys) => {
                    let item_keys = |item: &Value| -> Value {
                        let pairs =
                            keys.iter().filter_map(|key| Some((key.to_string(), item.get(&**key)?.clone())));
                        Value::Object(pairs.collect())
                    };
                    duplicates(items.iter().map(item_keys), at, found);
                }
            }
            let Some(inner) = node.items.as_deref() else { return };
            for (index, item) in items.iter().enumerate() {
                repeated(inner, item, at.index(index), found);
            }
        }
        Value::Object(members) => {
            for (name, member) in members {
                let Some(inner) = node.member(name) else { continue };
                repeated(inner, member, member_at(node, name, &at), found);
            }
        }
        _ => {}
    }
}

/// Each value that stands in a list more than once, where it stands for the second time.
fn duplicates(items: impl Iterator<Item = Value>, at: At<'_>, found: &mut Vec<Violation>) {
    let mut seen: HashMap<String, usize> = HashMap::new();
    for (index, item) in items.enumerate() {
        let times = seen.entry(item.to_string()).or_default();
        *times += 1;
        if *times == 2 {
            found.push(Violation::duplicate(at.index(index), &item));
        }
    }
}

/// Members that the schema names are fields, others are keys of a map.
fn member_at<'a>(node: &Node, name: &'a str, at: &'a At<'a>) -> At<'a> {
    if node.properties.contains_key(name) { at.field(name) } else { at.key(name) }
}

fn first_repeated(items: impl Iterator<Item = String>) -> Option<usize> {
    let mut seen = std::collections::HashSet::new();
    items.enumerate().find_map(|(index, item)| (!seen.insert(item)).then_some(index))
}

/// Embedded resources say what they are, and have metadata like any.
fn embedded(node: &Node, value: &Value, at: At<'_>, is_root: bool, found: &mut Vec<Violation>) {
    match value {
        Value::Object(members) => {
            if node.is_embedded && !is_root {
                identity(value, at, found);
            }
            for (name, member) in members {
                let Some(inner) = node.member(name) else { continue };
                embedded(inner, member, member_at(node, name, &at), false, found);
            }
        }
        Value::Array(items) => {
            let Some(inner) = node.items.as_deref() else { return };
            for (index, item) in items.iter().enumerate() {
                embedded(inner, item, at.index(index), false, found);
            }
        }
        _ => {}
    }
}

fn identity(value: &Value, at: At<'_>, found: &mut Vec<Violation>) {
    for name in ["apiVersion", "kind"] {
        let at = at.field(name);
        match value.get(name) {
            None => found.push(Violation::required(at, "")),
            Some(Value::String(text)) if text.is_empty() => {
                found.push(Violation::invalid(at, text, "must not be empty"));
            }
            Some(Value::String(text)) if name == "kind" => {
                for wrong in names::dns_1035_label(&text.to_lowercase()) {
                    let why = format!("may have mixed case, but should otherwise match: {wrong}");
                    found.push(Violation::invalid(at, text, why));
                }
            }
            Some(Value::String(text)) if text.matches('/').count() > 1 => {
                let why = format!("unexpected GroupVersion string: {text}");
                found.push(Violation::invalid(at, text, why));
            }
            Some(Value::String(_)) => {}
            Some(other) => found.push(Violation::invalid(at, other, "must be a string")),
        }
    }
    let at = at.field("metadata");
    let metadata = &value["metadata"];
    for (field, check) in [
        ("generateName", names::path_segment as names::Check),
        ("name", names::path_segment),
        ("namespace", names::dns_label),
    ] {
        let text = metadata.get(field).and_then(Value::as_str).filter(|text| !text.is_empty());
        if let Some(text) = text {
            found.extend(Violation::all_invalid(at.field(field), text, check(text)));
        }
    }
    crate::metadata::labels(metadata.get("labels"), at.field("labels"), found);
    crate::metadata::annotations(metadata.get("annotations"), at.field("annotations"), found);
}

fn has_rules(node: &Node) -> bool {
    let additional = match &node.additional {
        Some(Additional::Node(inner)) => Some(&**inner),
        _ => None,
    };
    let mut inner = node.properties.values().chain(additional).chain(node.items.as_deref());
    node.rules.is_some() || inner.any(has_rules)
}

/// The way through an object, schema by schema, that asks its rules.
struct Walk {
    which: Which,
    /// What all rules together may still cost.
    budget: u64,
    /// The budget was spent: no further rule is asked.
    is_over: bool,
    found: Vec<Violation>,
}

impl Walk {
    fn node(&mut self, node: &Node, asked: Asked<'_>) {
        if self.is_over || asked.new.is_null() {
            return;
        }
        if let Some(rules) = &node.rules {
            let answer = rules.violations(asked, self.which, &mut self.budget);
            self.found.extend(answer.found);
            self.is_over = answer.is_over;
        }
        let Asked { new, old, at, is_unchanged } = asked;
        match new {
            Value::Object(members) => {
                for (name, member) in members {
                    let Some(inner) = node.member(name) else { continue };
                    let old = old.and_then(|old| old.get(name));
                    // What the root calls itself is never held to be what it was: both are of one version.
                    let is_name = node.is_resource && matches!(name.as_str(), "apiVersion" | "kind");
                    let is_unchanged = !is_name && (is_unchanged || old == Some(member));
                    let at = member_at(node, name, &at);
                    self.node(inner, Asked { new: member, old, at, is_unchanged });
                }
            }
            Value::Array(items) => {
                let Some(inner) = node.items.as_deref() else { return };
                for (index, item) in items.iter().enumerate() {
                    let old = old_item(node, item, old);
                    let is_unchanged = is_unchanged || old == Some(item);
                    self.node(inner, Asked { new: item, old, at: at.index(index), is_unchanged });
                }
            }
            _ => {}
        }
    }
}

/// Whether two values are the same one; `1` and `1.0` are.
fn same(one: &Value, other: &Value) -> bool {
    one == other || one.is_number() && other.is_number() && one.as_f64() == other.as_f64()
}

/// A value without the quotes that JSON puts around a text.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
