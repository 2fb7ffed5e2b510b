//! What a HorizontalPodAutoscaler must be.

use schema::{At, Quantity, Violation, names, path};
use serde_json::Value;

use crate::spec::check::{self, Found};
use crate::spec::label_selector;

/// (the type, the field of its source)
const SOURCES: [(&str, &str); 5] = [
    ("ContainerResource", "containerResource"),
    ("External", "external"),
    ("Object", "object"),
    ("Pods", "pods"),
    ("Resource", "resource"),
];
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
    if most < 1 {
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
    if let Some(behavior) = spec.get("behavior") {
        for field in ["scaleUp", "scaleDown"] {
            if let Some(rules) = behavior.get(field) {
                let at = at.field("behavior");
                scaling(rules, at.field(field), &mut found);
            }
        }
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
        return;
    }
    let Some((_, source)) = SOURCES.iter().find(|(name, _)| *name == kind) else {
        found.push(Violation::not_supported(at.field("type"), kind, &SOURCES.map(|(name, _)| name)));
        return;
    };
    for (_, other) in SOURCES.iter().filter(|(_, other)| other != source) {
        if metric.get(other).is_some() {
            found.push(Violation::forbidden(at.field(other), "must populate the given metric source only"));
        }
    }
    let at = at.field(source);
    let Some(own) = metric.get(source) else {
        found.push(Violation::required(at, "must populate information for the given metric source"));
        return;
    };
    metric_target(&own["target"], at.field("target"), found);
    match *source {
        "resource" | "containerResource" => {
            if path::text(own, "name").is_empty() {
                found.push(Violation::required(at.field("name"), "must specify a resource name"));
            }
            if *source == "containerResource" {
                if path::text(own, "container").is_empty() {
                    found.push(Violation::required(at.field("container"), "must specify a container"));
                }
                check::follows(own, "container", names::dns_label, at, found);
            }
            resource_target(&own["target"], at.field("target"), found);
        }
        _ => named_metric(own, source, at, found),
    }
}

fn named_metric(own: &Value, source: &str, at: At<'_>, found: &mut Found) {
    if path::text(own, "metric.name").is_empty() {
        found.push(Violation::required(at.field("metric.name"), "must specify a metric name"));
    }
    if let Some(selector) = path::get(own, "metric.selector") {
        label_selector::validate(selector, at.field("metric.selector"), found);
    }
    let (value, average) = (own["target"].get("value"), own["target"].get("averageValue"));
    if source == "pods" {
        if average.is_none() {
            let detail = "must specify a positive target averageValue";
            found.push(Violation::required(at.field("target.averageValue"), detail));
        }
        return;
    }
    match (value, average) {
        (None, None) => {
            let detail = "must set either a target value for metric or a per-pod target";
            found.push(Violation::required(at.field("target.averageValue"), detail));
        }
        (Some(_), Some(_)) => {
            let detail = "may not set both a target value for metric and a per-pod target";
            found.push(Violation::forbidden(at.field("target.value"), detail));
        }
        _ => {}
    }
}

fn metric_target(target: &Value, at: At<'_>, found: &mut Found) {
    match path::text(target, "type") {
        "" => found.push(Violation::required(at.field("type"), "must specify a metric target type")),
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
    let at = at.field("averageUtilization");
    match (target.get("averageUtilization"), target.get("averageValue")) {
        (None, None) => {
            let detail = "must set either a target raw value or a target utilization";
            found.push(Violation::required(at, detail));
        }
        (Some(_), Some(_)) => {
            let detail = "may not set both a target raw value and a target utilization";
            found.push(Violation::forbidden(at, detail));
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
