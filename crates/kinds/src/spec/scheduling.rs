//! Tolerations and the spreading of pods over topologies.

use std::collections::{HashMap, HashSet};

use schema::{At, Violation, names, path};
use serde_json::Value;

use super::check::{Found, always_one_of, one_of};
use super::label_selector;

pub fn tolerations(tolerations: &[Value], list: At<'_>, found: &mut Found) {
    for (index, toleration) in tolerations.iter().enumerate() {
        let at = list.index(index);
        let (key, operator) = (path::text(toleration, "key"), path::text(toleration, "operator"));
        if !key.is_empty() {
            found.extend(Violation::all_invalid(at.field("key"), key, names::qualified_name(key)));
        } else if operator != "Exists" {
            let detail =
                "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            found.push(Violation::invalid(at.field("operator"), operator, detail));
        }
        let effect = path::text(toleration, "effect");
        if toleration.get("tolerationSeconds").is_some() && effect != "NoExecute" {
            let detail = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            found.push(Violation::invalid(at.field("effect"), effect, detail));
        }
        let value = path::text(toleration, "value");
        match operator {
            "" | "Equal" => {
                let wrong = names::label_value(value);
                if !wrong.is_empty() {
                    found.push(Violation::invalid(at.field("operator"), value, wrong.join(";")));
                }
            }
            "Exists" if !value.is_empty() => {
                let detail = "value must be empty when `operator` is 'Exists'";
                found.push(Violation::invalid(at.field("operator"), value, detail));
            }
            "Exists" => {}
            // Known, and for those who ask for a feature that upstream has not switched on.
            "Gt" | "Lt" => {
                let supported = ["Equal", "Exists", "Lt", "Gt"];
                found.push(Violation::not_supported(at.field("operator"), operator, &supported));
            }
            other => found.push(Violation::not_supported(at.field("operator"), other, &["Equal", "Exists"])),
        }
        if !effect.is_empty() {
            one_of(toleration, "effect", &["NoSchedule", "PreferNoSchedule", "NoExecute"], at, found);
        }
    }
}

pub fn topology_spread(constraints: &[Value], list: At<'_>, found: &mut Found) {
    // The first of two is told of, as upstream does.
    let last: HashMap<_, usize> =
        constraints.iter().enumerate().map(|(index, one)| (pair(one), index)).collect();
    for (index, constraint) in constraints.iter().enumerate() {
        let at = list.index(index);
        let skew = path::int(constraint, "maxSkew").unwrap_or_default();
        if skew <= 0 {
            found.push(Violation::invalid(at.field("maxSkew"), skew, "must be greater than zero"));
        }
        let (key, when) = pair(constraint);
        if key.is_empty() {
            found.push(Violation::required(at.field("topologyKey"), "can not be empty"));
        }
        always_one_of(constraint, "whenUnsatisfiable", &["DoNotSchedule", "ScheduleAnyway"], at, found);
        if last.get(&(key, when)).is_some_and(|last| *last > index) {
            let pair = format!("{{{key}, {when}}}");
            found.push(Violation::duplicate(at.field("{topologyKey, whenUnsatisfiable}"), pair));
        }
        if let Some(domains) = path::int(constraint, "minDomains") {
            let at = at.field("minDomains");
            if domains <= 0 {
                found.push(Violation::invalid(at, domains, "must be greater than zero"));
            }
            if when != "DoNotSchedule" {
                let detail =
                    format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {when}");
                found.push(Violation::invalid(at, domains, detail));
            }
        }
        for field in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            one_of(constraint, field, &["Honor", "Ignore"], at, found);
        }
        match_label_keys(constraint, at, found);
        if let Some(selector) = constraint.get("labelSelector") {
            label_selector::validate(selector, at.field("labelSelector"), found);
        }
    }
}

/// What no two constraints have in common.
fn pair(constraint: &Value) -> (&str, &str) {
    (path::text(constraint, "topologyKey"), path::text(constraint, "whenUnsatisfiable"))
}

/// `matchLabelKeys` and `mismatchLabelKeys`: keys of labels whose values come from the pod itself.
pub fn match_label_keys(term: &Value, at: At<'_>, found: &mut Found) {
    for field in ["matchLabelKeys", "mismatchLabelKeys"] {
        let (keys, at) = (path::list(term, field), at.field(field));
        if !keys.is_empty() && term.get("labelSelector").is_none() {
            found.push(Violation::forbidden(at, "must not be specified when labelSelector is not set"));
            continue;
        }
        for (index, key) in keys.iter().enumerate() {
            let key = key.as_str().unwrap_or_default();
            found.extend(Violation::all_invalid(at.index(index), key, names::qualified_name(key)));
        }
    }
    let keys = path::list(term, "matchLabelKeys");
    // What the selector says of a key, besides what was made of the pod's label: its last place is told, in upstream's odd path.
    let labels = path::members(term, "labelSelector.matchLabels").map(|(key, _)| key.as_str());
    let mut selected: HashSet<&str> = labels.collect();
    for expression in path::list(term, "labelSelector.matchExpressions") {
        let key = path::text(expression, "key");
        let place = keys.iter().rposition(|one| one == key);
        if let Some(index) = place.filter(|_| selected.contains(key)) {
            let detail = "exists in both matchLabelKeys and labelSelector";
            found.push(Violation::invalid(at.index(index), key, detail));
        }
        selected.insert(key);
    }
    let others = path::list(term, "mismatchLabelKeys");
    for (index, key) in keys.iter().enumerate().filter(|(_, key)| others.contains(key)) {
        let at = at.field("matchLabelKeys");
        let detail = "exists in both matchLabelKeys and mismatchLabelKeys";
        found.push(Violation::invalid(at.index(index), key, detail));
    }
}
