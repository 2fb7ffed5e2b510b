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
        if kind == "Pod" {
            for field in ["default", "defaultRequest"] {
                if path::members(item, field).next().is_some() {
                    let detail = "may not be specified when `type` is 'Pod'";
                    found.push(Violation::forbidden(at.field(field), detail));
                }
            }
        }
        let has_size = ["max", "min"].iter().any(|list| item[*list].get("storage").is_some());
        if kind == "PersistentVolumeClaim" && !has_size {
            let detail = "either minimum or maximum storage value is required, but neither was provided";
            found.push(Violation::required(at.field("limits"), detail));
        }
        amounts(item, at, &mut found);
    }
    found
}

/// Of each resource: least ≤ requested by default ≤ limited by default ≤ most.
fn amounts(item: &Value, at: At<'_>, found: &mut Found) {
    const ORDER: [(&str, &str); 4] =
        [("min", "min"), ("defaultRequest", "default request"), ("default", "default"), ("max", "max")];
    let mut names: Vec<&String> =
        ORDER.iter().flat_map(|(list, _)| path::members(item, list)).map(|(name, _)| name).collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        for (place, (low_field, low_words)) in ORDER.iter().enumerate() {
            for (high_field, high_words) in &ORDER[place + 1..] {
                let held = |field: &str| resources::amount(&item[field], name);
                let (Some(low), Some(high)) = (held(low_field), held(high_field)) else { continue };
                if low > high {
                    let limit = if (*low_field, *high_field) == ("defaultRequest", "default") {
                        " limit"
                    } else {
                        ""
                    };
                    let detail =
                        format!("{low_words} value {low} is greater than {high_words}{limit} value {high}");
                    // Upstream blames the default that is out of bounds, or else the least.
                    let field =
                        if *low_field == "min" && *high_field != "max" { high_field } else { low_field };
                    let at = at.field(field);
                    let blamed = if field == low_field { low } else { high };
                    found.push(Violation::invalid(at.key(name), blamed, detail));
                }
            }
        }
        ratio(item, name, at, found);
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
