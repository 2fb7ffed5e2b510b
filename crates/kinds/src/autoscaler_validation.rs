//! What a HorizontalPodAutoscaler must be.

use schema::{At, Quantity, Violation, names, path};
use serde_json::Value;

use crate::spec::check::{self, Found};
use crate::spec::resources;

/// (the type, the field of its source), in the order in which upstream looks for them: it judges the first that is there.
const SOURCES: [(&str, &str); 5] = [
    ("Object", "object"),
    ("External", "external"),
    ("Pods", "pods"),
    ("Resource", "resource"),
    ("ContainerResource", "containerResource"),
];
const TYPES: [&str; 5] = ["ContainerResource", "External", "Object", "Pods", "Resource"];
const WINDOW_MAX_SECONDS: i64 = 3600;
const PERIOD_MAX_SECONDS: i64 = 1800;

pub fn validate(autoscaler: &Value, old: Option<&Value>) -> Vec<Violation> {
    let mut found = Vec::new();
    let (spec, at) = (&autoscaler["spec"], At::root("spec"));
    let least = path::int(spec, "minReplicas");
    if let Some(least) = least.filter(|&least| least < 1) {
        found.push(Violation::invalid(at.field("minReplicas"), least, "must be greater than or equal to 1"));
    }
    let most = path::int(spec, "maxReplicas").unwrap_or_default();
    let most_at = at.field("maxReplicas");
    if most == 0 {
        found.push(Violation::required(most_at, "must be set and greater than 0"));
    } else if most < 0 {
        found.push(Violation::invalid(most_at, most, "must be greater than or equal to 1"));
    }
    if least.is_some_and(|least| most < least) {
        found.push(Violation::invalid(most_at, most, "must be greater than or equal to `minReplicas`"));
    }
    let is_kept = old.is_some_and(|old| old["spec"]["scaleTargetRef"] == spec["scaleTargetRef"]);
    target(&spec["scaleTargetRef"], is_kept, at.field("scaleTargetRef"), &mut found);
    for (index, metric) in path::list(spec, "metrics").iter().enumerate() {
        let at = at.field("metrics");
        one_metric(metric, at.index(index), &mut found);
    }
    let wakes = |metric: &Value| matches!(path::text(metric, "type"), "External" | "Object");
    if least == Some(0) && !path::list(spec, "metrics").iter().any(wakes) {
        let detail =
            "must specify at least one Object or External metric to support scaling to zero replicas";
        found.push(Violation::forbidden(at.field("metrics"), detail));
    }
    if let Some(behavior) = spec.get("behavior") {
        for field in ["scaleUp", "scaleDown"] {
            if let Some(rules) = behavior.get(field) {
                let at = at.field("behavior");
                scaling(rules, at.field(field), &mut found);
            }
        }
    }
    for field in ["currentReplicas", "desiredReplicas"] {
        check::not_negative(&autoscaler["status"], field, At::root("status"), &mut found);
    }
    found
}

fn target(reference: &Value, is_kept: bool, at: At<'_>, found: &mut Found) {
    for field in ["kind", "name"] {
        check::required_name(reference, field, names::path_segment, at, found);
    }
    let text = path::text(reference, "apiVersion");
    let at = at.field("apiVersion");
    if text.matches('/').count() > 1 {
        found.push(Violation::invalid(at, text, format!("unexpected GroupVersion string: {text}")));
    } else if !text.contains('/') && path::text(reference, "kind") != "ReplicationController" && !is_kept {
        found.push(Violation::invalid(at, text, "apiVersion must specify API group"));
    }
}

fn one_metric(metric: &Value, at: At<'_>, found: &mut Found) {
    let kind = path::text(metric, "type");
    if kind.is_empty() {
        found.push(Violation::required(at.field("type"), "must specify a metric source type"));
    }
    // Upstream looks twice.
    let unknown = || Violation::not_supported(at.field("type"), kind, &TYPES);
    let wanted = SOURCES.iter().find(|(name, _)| *name == kind);
    found.extend(wanted.is_none().then(unknown));
    let there: Vec<&str> =
        SOURCES.iter().map(|(_, source)| *source).filter(|one| metric.get(one).is_some()).collect();
    if let Some(first) = there.first() {
        one_source(&metric[*first], first, at.field(first), found);
    }
    match wanted {
        None => found.push(unknown()),
        Some((_, source)) if !there.contains(source) => {
            let detail = "must populate information for the given metric source";
            found.push(Violation::required(at.field(source), detail));
        }
        Some(_) => {}
    }
    if there.len() != 1 {
        for other in there.iter().filter(|one| wanted.is_none_or(|(_, source)| source != *one)) {
            found.push(Violation::forbidden(at.field(other), "must populate the given metric source only"));
        }
    }
}

fn one_source(own: &Value, source: &str, at: At<'_>, found: &mut Found) {
    let target = &own["target"];
    let (value, average) = (target.get("value"), target.get("averageValue"));
    match source {
        "resource" | "containerResource" => {
            match path::text(own, "name") {
                "" => found.push(Violation::required(at.field("name"), "must specify a resource name")),
                name if source == "containerResource" => {
                    resources::container_name(name, at.field("name"), found);
                }
                _ => {}
            }
            if source == "containerResource" {
                if path::text(own, "container").is_empty() {
                    found.push(Violation::required(at.field("container"), "must specify a container"));
                }
                check::follows(own, "container", names::dns_label, at, found);
            }
            metric_target(target, at.field("target"), found);
            resource_target(target, at.field("target"), found);
            return;
        }
        "object" => object_reference(&own["describedObject"], at.field("describedObject"), found),
        _ => {}
    }
    metric_name(path::text(own, "metric.name"), at.field("metric.name"), found);
    metric_target(target, at.field("target"), found);
    let at = at.field("target");
    let missing = match source {
        "pods" if average.is_none() => "must specify a positive target averageValue",
        "object" if value.or(average).is_none() => "must set either a target value or averageValue",
        "external" if value.or(average).is_none() => {
            "must set either a target value for metric or a per-pod target"
        }
        _ => "",
    };
    if !missing.is_empty() {
        found.push(Violation::required(at.field("averageValue"), missing));
    }
    if source == "external" && value.is_some() && average.is_some() {
        let detail = "may not set both a target value for metric and a per-pod target";
        found.push(Violation::forbidden(at.field("value"), detail));
    }
}

/// What a metric is of. Upstream takes any version here.
fn object_reference(reference: &Value, at: At<'_>, found: &mut Found) {
    for field in ["kind", "name"] {
        check::required_name(reference, field, names::path_segment, at, found);
    }
    let text = path::text(reference, "apiVersion");
    if text.matches('/').count() > 1 {
        let detail = format!("unexpected GroupVersion string: {text}");
        found.push(Violation::invalid(at.field("apiVersion"), text, detail));
    }
}

fn metric_name(name: &str, at: At<'_>, found: &mut Found) {
    if name.is_empty() {
        found.push(Violation::required(at, "must specify a metric name"));
    } else {
        found.extend(Violation::all_invalid(at, name, names::path_segment(name)));
    }
}

fn metric_target(target: &Value, at: At<'_>, found: &mut Found) {
    if path::text(target, "type").is_empty() {
        found.push(Violation::required(at.field("type"), "must specify a metric target type"));
    }
    match path::text(target, "type") {
        "Utilization" | "Value" | "AverageValue" => {}
        other => {
            let detail = "must be either Utilization, Value, or AverageValue";
            found.push(Violation::invalid(at.field("type"), other, detail));
        }
    }
    for field in ["value", "averageValue"] {
        let held = target.get(field).and_then(Value::as_str).and_then(|text| text.parse::<Quantity>().ok());
        if let Some(held) = held.filter(|held| *held <= Quantity::ZERO) {
            found.push(Violation::invalid(at.field(field), held, "must be positive"));
        }
    }
    if let Some(share) = path::int(target, "averageUtilization").filter(|&share| share < 1) {
        found.push(Violation::invalid(at.field("averageUtilization"), share, "must be greater than 0"));
    }
}

fn resource_target(target: &Value, at: At<'_>, found: &mut Found) {
    match (target.get("averageUtilization"), target.get("averageValue")) {
        (None, None) => {
            let detail = "must set either a target raw value or a target utilization";
            found.push(Violation::required(at.field("averageUtilization"), detail));
        }
        (Some(_), Some(_)) => {
            let detail = "may not set both a target raw value and a target utilization";
            found.push(Violation::forbidden(at.field("averageValue"), detail));
        }
        _ => {}
    }
}

fn scaling(rules: &Value, at: At<'_>, found: &mut Found) {
    if let Some(window) = path::int(rules, "stabilizationWindowSeconds") {
        let at = at.field("stabilizationWindowSeconds");
        if window < 0 {
            found.push(Violation::invalid(at, window, "must be greater than or equal to zero"));
        } else if window > WINDOW_MAX_SECONDS {
            let detail = format!("must be less than or equal to {WINDOW_MAX_SECONDS}");
            found.push(Violation::invalid(at, window, detail));
        }
    }
    let tolerance = path::text(rules, "tolerance");
    if tolerance.starts_with('-') {
        let detail = "must be greater than or equal to 0";
        found.push(Violation::invalid(at.field("tolerance"), tolerance, detail));
    }
    check::one_of(rules, "selectPolicy", &["Disabled", "Max", "Min"], at, found);
    let policies = path::list(rules, "policies");
    let list = at.field("policies");
    if policies.is_empty() {
        found.push(Violation::required(list, "must specify at least one Policy"));
    }
    for (index, policy) in policies.iter().enumerate() {
        let at = list.index(index);
        check::one_of(policy, "type", &["Percent", "Pods"], at, found);
        let positive = |field: &str| path::int(policy, field).unwrap_or_default();
        for field in ["value", "periodSeconds"] {
            if positive(field) <= 0 {
                found.push(Violation::invalid(at.field(field), positive(field), "must be greater than zero"));
            }
        }
        if positive("periodSeconds") > PERIOD_MAX_SECONDS {
            let detail = format!("must be less than or equal to {PERIOD_MAX_SECONDS}");
            found.push(Violation::invalid(at.field("periodSeconds"), positive("periodSeconds"), detail));
        }
    }
}
