//! What is wrong with a custom resource, in the words of upstream's validator (kube-openapi).
//!
//! A value that an update leaves as it was is not held against it, even where the schema has become stricter meanwhile
//! (ratcheting, KEP-4008).

use serde_json::Value;

use super::format;
use super::node::{Additional, Checks, JsonType, List, Node};
use crate::{At, Violation, ViolationKind, names};

/// What all rules may cost on one object.
const RULES_BUDGET: u64 = 10_000_000;
/// What a value must not have for its rules to be asked: they are compiled for its type and size.
const BLOCKING: [ViolationKind; 4] =
    [ViolationKind::Required, ViolationKind::TooLong, ViolationKind::TooMany, ViolationKind::TypeInvalid];
const UNCHECKED: &str = "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation";

/// How upstream names the place of what is said about a whole object.
const NOWHERE: &str = "<nil>";

/// Everything that the schema has against an object.
pub(crate) fn violations(root: &Node, new: &Value, old: Option<&Value>) -> Vec<Violation> {
    let mut found = Vec::new();
    let at = At::root("");
    value(root, new, old, at, &mut found);
    repeated(root, new, old, at, &mut found);
    embedded(root, new, at, true, &mut found);
    if found.iter().any(|one| BLOCKING.contains(&one.kind)) {
        if has_rules(root) {
            found.push(Violation { value: "null".to_owned(), ..placeless(UNCHECKED.to_owned()) });
        }
    } else {
        rules(root, new, old, at, &mut { RULES_BUDGET }, &mut found);
    }
    found
}

/// Everything that the schema has against a value that is no whole object: a default.
pub(super) fn value_violations(node: &Node, new: &Value, at: At<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    value(node, new, None, at, &mut found);
    repeated(node, new, None, at, &mut found);
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
        found.push(of_type(at, &type_names(node), wrong));
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

fn string(checks: &Checks, text: &str, at: At<'_>, found: &mut Vec<Violation>) {
    let value = Value::from(text);
    let length = || text.chars().count() as u64;
    if let Some(most) = checks.max_length
        && length() > most
    {
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        found.push(Violation { field: field(at), ..Violation::too_long(at, most) });
    }
    if let Some(least) = checks.min_length
        && length() < least
    {
        found.push(invalid(at, &value, format!("should be at least {least} chars long")));
    }
    if let Some(pattern) = &checks.pattern
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
    if let (Some(format), Some(kind)) = (&checks.format, node.r#type)
        && !format::holds(format, number)
    {
        let kind = kind.name();
        found.push(placeless(format!("Checked value must be of type {kind} with format {format} in {at}")));
    }
    if let Some(of) = checks.multiple_of
        && ((number / of).fract()).abs() > f64::EPSILON
    {
        found.push(invalid(at, value, format!("should be a multiple of {}", go_float(of))));
    }
    if let Some((most, exclusive)) = checks.maximum
        && (number > most || exclusive && number == most)
    {
        let rule = if exclusive { "less than" } else { "less than or equal to" };
        found.push(invalid(at, value, format!("should be {rule} {}", go_float(most))));
    }
    if let Some((least, exclusive)) = checks.minimum
        && (number < least || exclusive && number == least)
    {
        let rule = if exclusive { "greater than" } else { "greater than or equal to" };
        found.push(invalid(at, value, format!("should be {rule} {}", go_float(least))));
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
            found.extend(fewest(tried));
        }
    }
    if !checks.one_of.is_empty() {
        let tried = try_each(&checks.one_of);
        let good = tried.iter().filter(|found| found.is_empty()).count();
        let only = format!("{place} must validate one and only one schema (oneOf).");
        if good == 0 {
            found.push(placeless(format!("{only} Found none valid")));
            found.extend(fewest(tried));
        } else if good > 1 {
            found.push(placeless(format!("{only} Found {good} valid alternatives")));
        }
    }
    if !checks.all_of.is_empty() {
        let tried = try_each(&checks.all_of);
        let good = tried.iter().filter(|found| found.is_empty()).count();
        if good < tried.len() {
            let none = if good == 0 { ". None validated" } else { "" };
            found.push(placeless(format!("{place} must validate all the schemas (allOf){none}")));
        }
        found.extend(tried.into_iter().flatten());
    }
    if let Some(not) = &checks.not {
        let mut inner = Vec::new();
        value(not, new, None, at, &mut inner);
        if inner.is_empty() {
            found.push(placeless(format!("{place} must not validate the schema (not)")));
        }
    }
}

/// What comes closest, told beside the failure of all.
fn fewest(tried: Vec<Vec<Violation>>) -> Vec<Violation> {
    tried.into_iter().min_by_key(Vec::len).unwrap_or_default()
}

/// Sets that hold a value twice, and keyed lists that hold a key twice.
fn repeated(node: &Node, new: &Value, old: Option<&Value>, at: At<'_>, found: &mut Vec<Violation>) {
    if old == Some(new) {
        return;
    }
    match new {
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
                repeated(inner, item, old_item(node, item, old), at.index(index), found);
            }
        }
        Value::Object(members) => {
            for (name, member) in members {
                let Some(inner) = node.member(name) else { continue };
                let old = old.and_then(|old| old.get(name));
                let at =
                    if node.properties.contains_key(name.as_str()) { at.field(name) } else { at.key(name) };
                repeated(inner, member, old, at, found);
            }
        }
        _ => {}
    }
}

fn duplicates(items: impl Iterator<Item = Value>, at: At<'_>, found: &mut Vec<Violation>) {
    let mut seen = std::collections::HashSet::new();
    for (index, item) in items.enumerate() {
        if !seen.insert(item.to_string()) {
            found.push(Violation::duplicate(at.index(index), &item));
        }
    }
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
                let at =
                    if node.properties.contains_key(name.as_str()) { at.field(name) } else { at.key(name) };
                embedded(inner, member, at, false, found);
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
        match value.get(name).and_then(Value::as_str) {
            None | Some("") => found.push(Violation::required(at.field(name), "must not be empty")),
            Some(text) if name == "kind" => {
                let wrong = names::dns_1035_label(&text.to_lowercase());
                found.extend(Violation::all_invalid(at.field(name), text, wrong));
            }
            Some(_) => {}
        }
    }
    let metadata_at = at.field("metadata");
    let metadata = &value["metadata"];
    crate::metadata::labels(metadata.get("labels"), metadata_at.field("labels"), found);
    crate::metadata::annotations(metadata.get("annotations"), metadata_at.field("annotations"), found);
}

fn has_rules(node: &Node) -> bool {
    let additional = match &node.additional {
        Some(Additional::Node(inner)) => Some(&**inner),
        _ => None,
    };
    let mut inner = node.properties.values().chain(additional).chain(node.items.as_deref());
    node.rules.is_some() || inner.any(has_rules)
}

fn rules(
    node: &Node,
    new: &Value,
    old: Option<&Value>,
    at: At<'_>,
    budget: &mut u64,
    found: &mut Vec<Violation>,
) {
    if old == Some(new) {
        return;
    }
    if let Some(rules) = &node.rules {
        found.extend(rules.violations(new, old, at, budget));
    }
    match new {
        Value::Object(members) => {
            for (name, member) in members {
                let Some(inner) = node.member(name) else { continue };
                let old = old.and_then(|old| old.get(name));
                let at =
                    if node.properties.contains_key(name.as_str()) { at.field(name) } else { at.key(name) };
                self::rules(inner, member, old, at, budget, found);
            }
        }
        Value::Array(items) => {
            let Some(inner) = node.items.as_deref() else { return };
            for (index, item) in items.iter().enumerate() {
                self::rules(inner, item, old_item(node, item, old), at.index(index), budget, found);
            }
        }
        _ => {}
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

/// A number as Go's `%v` prints it: `10`, `0.5`, `2.147483647e+09`.
fn go_float(number: f64) -> String {
    let exponent = if number == 0.0 { 0 } else { number.abs().log10().floor() as i32 };
    if (-4..6).contains(&exponent) {
        return number.to_string();
    }
    let text = format!("{number:e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |digits| ('-', digits));
    format!("{mantissa}e{sign}{digits:0>2}")
}
