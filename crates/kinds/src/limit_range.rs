use std::collections::BTreeSet;

use object::Resource;
use schema::{At, Kind, Quantity, Strategy, Violation, names, path};
use serde_json::Value;

use crate::column::{CREATED_AT, NAME};
use crate::spec::check::{Found, Seen};
use crate::spec::resources;
use crate::{row, strategy};

pub const LIMIT_RANGES: Resource = Resource::new("limitranges");

pub static KIND: Kind = Kind {
    resource: LIMIT_RANGES,
    group: "",
    version: "v1",
    kind: "LimitRange",
    singular: "limitrange",
    short_names: &["limits"],
    namespaced: true,
    type_name: "core.v1.LimitRange",
    columns: &[NAME, CREATED_AT],
    strategy: Strategy { prepare, ..strategy::CREATE_ON_UPDATE },
    default,
    validate,
    ..row::BASE
};

/// Nothing is stored of an empty list.
fn prepare(range: &mut Value, _old: Option<&Value>) {
    if path::list(range, "spec.limits").is_empty() {
        path::remove(range, "spec.limits");
    }
}

/// A container is limited to the most there may be, and requests what it is limited to.
fn default(range: &mut Value) {
    let Some(Value::Array(items)) = path::get_mut(range, "spec.limits") else { return };
    for item in items.iter_mut().filter(|item| path::text(item, "type") == "Container") {
        for (field, from) in [("default", "max"), ("defaultRequest", "default"), ("defaultRequest", "min")] {
            let Some(Value::Object(amounts)) = item.get(from).cloned() else { continue };
            for (resource, amount) in amounts {
                if item[field].get(&resource).is_none() {
                    item[field][resource] = amount;
                }
            }
        }
    }
}

fn validate(range: &Value, _old: Option<&Value>) -> Vec<Violation> {
    let mut found = Vec::new();
    let items = path::list(range, "spec.limits");
    let list = At::root("spec.limits");
    let mut seen = Seen::default();
    for (index, item) in items.iter().enumerate() {
        let at = list.index(index);
        let kind = path::text(item, "type");
        let wrong = names::qualified_name(kind);
        if wrong.is_empty()
            && !kind.contains('/')
            && !matches!(kind, "Container" | "PersistentVolumeClaim" | "Pod")
        {
            let detail = "must be a standard limit type or fully qualified";
            found.push(Violation::invalid(at.field("type"), kind, detail));
        }
        found.extend(Violation::all_invalid(at.field("type"), kind, wrong));
        if seen.repeats(kind) {
            found.push(Violation::duplicate(at.field("type"), kind));
        }
        let rule: resources::NameRule = if matches!(kind, "Container" | "Pod") {
            resources::container_name
        } else {
            resources::validate_name
        };
        let named = |lists: &[&str], found: &mut Vec<Violation>| {
            for list in lists {
                for (resource, _) in path::members(item, list) {
                    rule(resource, at.field(list).key(resource), found);
                }
            }
        };
        named(&["max", "min"], &mut found);
        if kind == "Pod" {
            for field in ["default", "defaultRequest"] {
                if path::members(item, field).next().is_some() {
                    let detail = "may not be specified when `type` is 'Pod'";
                    found.push(Violation::forbidden(at.field(field), detail));
                }
            }
        } else {
            named(&["default", "defaultRequest"], &mut found);
        }
        let has_size = ["max", "min"].iter().any(|list| item[*list].get("storage").is_some());
        if kind == "PersistentVolumeClaim" && !has_size {
            let detail = "either minimum or maximum storage value is required, but neither was provided";
            found.push(Violation::required(at.field("limits"), detail));
        }
        named(&["maxLimitRequestRatio"], &mut found);
        amounts(item, at, &mut found);
    }
    found
}

/// A list of amounts, and what upstream calls one of them.
type Bound = (&'static str, &'static str);

/// Two bounds of which the first may not be above the second: (the field, its words) of each, and whether the second is the one that is
/// blamed, and shown.
const ORDER: [(Bound, Bound, bool, bool); 6] = [
    (("min", "min"), ("max", "max"), false, false),
    (("min", "min"), ("defaultRequest", "default request"), true, true),
    (("defaultRequest", "default request"), ("max", "max"), false, false),
    (("defaultRequest", "default request"), ("default", "default limit"), false, false),
    // Upstream shows the bound here.
    (("min", "min"), ("default", "default"), true, false),
    (("default", "default"), ("max", "max"), false, true),
];

/// Of each resource: least ≤ requested by default ≤ limited by default ≤ most.
fn amounts(item: &Value, at: At<'_>, found: &mut Found) {
    const LISTS: [&str; 4] = ["max", "min", "default", "defaultRequest"];
    let is_pod = path::text(item, "type") == "Pod";
    let names: BTreeSet<&String> = LISTS
        .iter()
        .chain(&["maxLimitRequestRatio"])
        .flat_map(|list| path::members(item, list))
        .map(|(name, _)| name)
        .collect();
    for name in names {
        let held = |field: &str| match field {
            "default" | "defaultRequest" if is_pod => None,
            _ => resources::amount(&item[field], name),
        };
        for ((low_field, low_words), (high_field, high_words), blames_high, shows_high) in ORDER {
            let (Some(low), Some(high)) = (held(low_field), held(high_field)) else { continue };
            if low > high {
                let detail = format!("{low_words} value {low} is greater than {high_words} value {high}");
                let at = at.field(if blames_high { high_field } else { low_field });
                found.push(Violation::invalid(at.key(name), if shows_high { high } else { low }, detail));
            }
        }
        ratio(item, name, at, found);
        let (limit, request) = (held("default"), held("defaultRequest"));
        if let (Some(limit), Some(request)) = (limit, request)
            && limit != request
            && !resources::can_overcommit(name)
        {
            let detail =
                format!("default value {limit} must equal to defaultRequest value {request} in {name}");
            found.push(Violation::invalid(at.field("defaultRequest").key(name), request, detail));
        }
    }
}

fn ratio(item: &Value, resource: &str, at: At<'_>, found: &mut Found) {
    let held = |field: &str| resources::amount(&item[field], resource);
    let Some(ratio) = held("maxLimitRequestRatio") else { return };
    let at = at.field("maxLimitRequestRatio");
    if ratio < Quantity::from_units(1) {
        found.push(Violation::invalid(at.key(resource), ratio, format!("ratio {ratio} is less than 1")));
    }
    if let (Some(least), Some(most)) = (held("min"), held("max")) {
        let widest = most.as_f64() / least.as_f64();
        if ratio.as_f64() > widest {
            let detail = format!("ratio {ratio} is greater than max/min = {widest:.6}");
            found.push(Violation::invalid(at.key(resource), ratio, detail));
        }
    }
}
