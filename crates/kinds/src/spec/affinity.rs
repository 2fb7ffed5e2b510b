//! Where pods want to be: near nodes, near and far from other pods.

use schema::{At, Violation, names, path};
use serde_json::Value;

use super::check::Found;
use super::label_selector;
use super::scheduling::match_label_keys;

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

pub fn validate(affinity: &Value, at: At<'_>, found: &mut Found) {
    if let Some(node) = affinity.get("nodeAffinity") {
        let at = at.field("nodeAffinity");
        if let Some(selector) = node.get(REQUIRED) {
            node_selector(selector, at.field(REQUIRED), found);
        }
        for (index, preference) in path::list(node, PREFERRED).iter().enumerate() {
            let at = at.field(PREFERRED);
            let at = at.index(index);
            weight(preference, at, found);
            node_selector_term(&preference["preference"], false, at.field("preference"), found);
        }
    }
    for name in ["podAffinity", "podAntiAffinity"] {
        let Some(pods) = affinity.get(name) else { continue };
        let at = at.field(name);
        for (index, term) in path::list(pods, REQUIRED).iter().enumerate() {
            let at = at.field(REQUIRED);
            pod_term(term, at.index(index), found);
        }
        for (index, weighted) in path::list(pods, PREFERRED).iter().enumerate() {
            let at = at.field(PREFERRED);
            let at = at.index(index);
            weight(weighted, at, found);
            pod_term(&weighted["podAffinityTerm"], at.field("podAffinityTerm"), found);
        }
    }
}

fn weight(weighted: &Value, at: At<'_>, found: &mut Found) {
    let weight = path::int(weighted, "weight").unwrap_or_default();
    if !(1..=100).contains(&weight) {
        found.push(Violation::invalid(at.field("weight"), weight, "must be in the range 1-100"));
    }
}

/// `core.v1.NodeSelector`: at least one term, of which one must hold.
pub fn node_selector(selector: &Value, at: At<'_>, found: &mut Found) {
    let terms = path::list(selector, "nodeSelectorTerms");
    let at = at.field("nodeSelectorTerms");
    if terms.is_empty() {
        found.push(Violation::required(at, "must have at least one node selector term"));
    }
    for (index, term) in terms.iter().enumerate() {
        node_selector_term(term, true, at.index(index), found);
    }
}

fn node_selector_term(term: &Value, checks_values: bool, at: At<'_>, found: &mut Found) {
    for (index, requirement) in path::list(term, "matchExpressions").iter().enumerate() {
        let at = at.field("matchExpressions");
        node_expression(requirement, checks_values, at.index(index), found);
    }
    for (index, requirement) in path::list(term, "matchFields").iter().enumerate() {
        let at = at.field("matchFields");
        node_field(requirement, at.index(index), found);
    }
}

fn node_expression(requirement: &Value, checks_values: bool, at: At<'_>, found: &mut Found) {
    let values = path::list(requirement, "values");
    match path::text(requirement, "operator") {
        "In" | "NotIn" if values.is_empty() => {
            let detail = "must be specified when `operator` is 'In' or 'NotIn'";
            found.push(Violation::required(at.field("values"), detail));
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
            found.push(Violation::forbidden(at.field("values"), detail));
        }
        "Gt" | "Lt" if values.len() != 1 => {
            let detail = "must be specified single value when `operator` is 'Lt' or 'Gt'";
            found.push(Violation::required(at.field("values"), detail));
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
        other => found.push(Violation::invalid(at.field("operator"), other, "not a valid selector operator")),
    }
    let key = path::text(requirement, "key");
    found.extend(Violation::all_invalid(at.field("key"), key, names::qualified_name(key)));
    if !checks_values {
        return;
    }
    for (index, value) in values.iter().enumerate() {
        let value = value.as_str().unwrap_or_default();
        let at = at.field("values");
        found.extend(Violation::all_invalid(at.index(index), value, names::label_value(value)));
    }
}

fn node_field(requirement: &Value, at: At<'_>, found: &mut Found) {
    let values = path::list(requirement, "values");
    match path::text(requirement, "operator") {
        "In" | "NotIn" if values.len() != 1 => {
            let detail = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
            found.push(Violation::required(at.field("values"), detail));
        }
        "In" | "NotIn" => {}
        other => found.push(Violation::invalid(at.field("operator"), other, "not a valid selector operator")),
    }
    let key = path::text(requirement, "key");
    if key != "metadata.name" {
        found.push(Violation::invalid(at.field("key"), key, "not a valid field selector key"));
        return;
    }
    for (index, value) in values.iter().enumerate() {
        let value = value.as_str().unwrap_or_default();
        let at = at.field("values");
        found.extend(Violation::all_invalid(at.index(index), value, names::dns_subdomain(value)));
    }
}

fn pod_term(term: &Value, at: At<'_>, found: &mut Found) {
    for field in ["labelSelector", "namespaceSelector"] {
        if let Some(selector) = term.get(field) {
            label_selector::validate(selector, at.field(field), found);
        }
    }
    for namespace in path::list(term, "namespaces") {
        let namespace = namespace.as_str().unwrap_or_default();
        found.extend(Violation::all_invalid(at.field("namespace"), namespace, names::dns_label(namespace)));
    }
    match_label_keys(term, at, found);
    let key = path::text(term, "topologyKey");
    if key.is_empty() {
        found.push(Violation::required(at.field("topologyKey"), "can not be empty"));
    }
    found.extend(Violation::all_invalid(at.field("topologyKey"), key, names::qualified_name(key)));
}
