//! Tolerations and the spreading of pods over topologies.

use schema::{At, Violation, names, path};
use serde_json::Value;

use super::check::{Found, Seen, one_of};
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
                found.extend(Violation::all_invalid(at.field("operator"), value, names::label_value(value)))
            }
            "Exists" if !value.is_empty() => {
                let detail = "value must be empty when `operator` is 'Exists'";
                found.push(Violation::invalid(at.field("operator"), toleration, detail));
            }
            "Exists" => {}
            other => found.push(Violation::not_supported(at.field("operator"), other, &["Equal", "Exists"])),
        }
        if !effect.is_empty() {
            one_of(toleration, "effect", &["NoSchedule", "PreferNoSchedule", "NoExecute"], at, found);
        }
    }
}

pub fn topology_spread(constraints: &[Value], list: At<'_>, found: &mut Found) {
    let mut pairs = Seen::default();
    for (index, constraint) in constraints.iter().enumerate() {
        let at = list.index(index);
        let skew = path::int(constraint, "maxSkew").unwrap_or_default();
        if skew <= 0 {
            found.push(Violation::invalid(at.field("maxSkew"), skew, "must be greater than zero"));
        }
        let (key, when) =
            (path::text(constraint, "topologyKey"), path::text(constraint, "whenUnsatisfiable"));
        if key.is_empty() {
            found.push(Violation::required(at.field("topologyKey"), "can not be empty"));
        } else {
            found.extend(Violation::all_invalid(at.field("topologyKey"), key, names::qualified_name(key)));
        }
        one_of(constraint, "whenUnsatisfiable", &["DoNotSchedule", "ScheduleAnyway"], at, found);
        if pairs.repeats(format!("{key}\n{when}")) {
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
        match_label_keys(constraint, "matchLabelKeys", at, found);
        if let Some(selector) = constraint.get("labelSelector") {
            label_selector::validate(selector, at.field("labelSelector"), found);
        }
    }
}

/// Keys of labels whose values come from the pod itself.
pub fn match_label_keys(term: &Value, field: &str, at: At<'_>, found: &mut Found) {
    let keys = path::list(term, field);
    if keys.is_empty() {
        return;
    }
    if term.get("labelSelector").is_none() {
        found.push(Violation::forbidden(
            at.field(field),
            "must not be specified when labelSelector is not set",
        ));
    }
    for (index, key) in keys.iter().enumerate() {
        let key = key.as_str().unwrap_or_default();
        let at = at.field(field);
        found.extend(Violation::all_invalid(at.index(index), key, names::qualified_name(key)));
    }
}
