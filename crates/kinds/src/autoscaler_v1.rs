//! What autoscaling/v1 has no fields for, as its annotations say it: metrics in the form of that version, behavior in the names of
//! upstream's code.

use schema::path;
use serde_json::{Map, Value, json};

/// The annotation's text for a value of v2.
pub type Write = fn(&Value) -> Value;
/// And back; what is of v2 already stays.
pub type Read = fn(&Value) -> Value;

/// How a metric of a source is told: what it is wanted to be, or is.
struct Words {
    /// The field of v2: `target`, `current`.
    amounts: &'static str,
    value: &'static str,
    average: &'static str,
    utilization: &'static str,
}

const WANTED: Words = Words {
    amounts: "target",
    value: "targetValue",
    average: "targetAverageValue",
    utilization: "targetAverageUtilization",
};
const HELD: Words = Words {
    amounts: "current",
    value: "currentValue",
    average: "currentAverageValue",
    utilization: "currentAverageUtilization",
};
const SOURCES: [&str; 5] = ["containerResource", "external", "object", "pods", "resource"];

pub fn write_metrics(metrics: &Value) -> Value {
    each(metrics, |source, own| older(source, own, &WANTED))
}

pub fn read_metrics(metrics: &Value) -> Value {
    each(metrics, |source, own| newer(source, own, &WANTED))
}

pub fn write_current(metrics: &Value) -> Value {
    each(metrics, |source, own| older(source, own, &HELD))
}

pub fn read_current(metrics: &Value) -> Value {
    each(metrics, |source, own| newer(source, own, &HELD))
}

fn each(metrics: &Value, convert: impl Fn(&str, &Value) -> Value) -> Value {
    let one = |metric: &Value| {
        let mut metric = metric.clone();
        for source in SOURCES {
            if let Some(own) = metric.get_mut(source) {
                *own = convert(source, own);
            }
        }
        metric
    };
    metrics.as_array().map(|all| all.iter().map(one).collect()).unwrap_or_default()
}

/// (where v2 says it, the field of v1) of a source, besides its amounts.
fn fields(source: &str) -> &'static [(&'static str, &'static str)] {
    match source {
        "external" => &[("metric.name", "metricName"), ("metric.selector", "metricSelector")],
        "object" => {
            &[("metric.name", "metricName"), ("metric.selector", "selector"), ("describedObject", "target")]
        }
        "pods" => &[("metric.name", "metricName"), ("metric.selector", "selector")],
        _ => &[("name", "name"), ("container", "container")],
    }
}

/// (the amount of v2, the field of v1)
fn amounts(source: &str, words: &Words) -> Vec<(&'static str, &'static str)> {
    match source {
        "external" => vec![("value", words.value), ("averageValue", words.average)],
        "object" => vec![("value", words.value), ("averageValue", "averageValue")],
        "pods" => vec![("averageValue", words.average)],
        _ => vec![("averageUtilization", words.utilization), ("averageValue", words.average)],
    }
}

fn older(source: &str, own: &Value, words: &Words) -> Value {
    let mut old = Map::new();
    for (at, field) in fields(source) {
        if let Some(value) = path::get(own, at) {
            old.insert((*field).to_owned(), value.clone());
        }
    }
    for (amount, field) in amounts(source, words) {
        if let Some(value) = own[words.amounts].get(amount) {
            old.insert(field.to_owned(), value.clone());
        } else if source == "object" && amount == "value" {
            // No pointer there.
            old.insert(field.to_owned(), "0".into());
        }
    }
    Value::Object(old)
}

fn newer(source: &str, own: &Value, words: &Words) -> Value {
    let is_new = own.get("metric").is_some() || own[words.amounts].get("type").is_some();
    if is_new || own.get("current").is_some() {
        return own.clone();
    }
    let mut new = json!({});
    for (at, field) in fields(source) {
        if let Some(value) = own.get(field) {
            path::set(&mut new, at, value.clone());
        }
    }
    let mut held = json!({});
    for (amount, field) in amounts(source, words) {
        let value = own.get(field).filter(|value| !(source == "object" && **value == "0"));
        if let Some(value) = value {
            held[amount] = value.clone();
        }
    }
    if words.amounts == "target" {
        let kinds =
            [("averageUtilization", "Utilization"), ("averageValue", "AverageValue"), ("value", "Value")];
        if let Some((_, kind)) = kinds.into_iter().find(|(field, _)| held.get(field).is_some()) {
            held["type"] = kind.into();
        }
    }
    new[words.amounts] = held;
    new
}

/// Behavior, whose members have the names of Go there, and all of them.
pub fn write_behavior(behavior: &Value) -> Value {
    let policy = |one: &Value| json!({"Type": one["type"], "Value": one["value"], "PeriodSeconds": one["periodSeconds"]});
    let rules = |rules: &Value| match rules {
        Value::Null => Value::Null,
        _ => json!({
            "StabilizationWindowSeconds": rules["stabilizationWindowSeconds"],
            "SelectPolicy": rules["selectPolicy"],
            "Policies": path::list(rules, "policies").iter().map(policy).collect::<Vec<_>>(),
            "Tolerance": rules["tolerance"],
        }),
    };
    json!({"ScaleUp": rules(&behavior["scaleUp"]), "ScaleDown": rules(&behavior["scaleDown"])})
}

/// In either spelling, as Go reads it; what is null says nothing.
pub fn read_behavior(behavior: &Value) -> Value {
    match behavior {
        Value::Object(members) => {
            let said = members.iter().filter(|(_, value)| !value.is_null());
            let spelled = said.map(|(name, value)| {
                let mut letters = name.chars();
                let first = letters.next().map(|first| first.to_ascii_lowercase());
                (first.into_iter().chain(letters).collect::<String>(), read_behavior(value))
            });
            Value::Object(spelled.collect())
        }
        Value::Array(items) => items.iter().map(read_behavior).collect(),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_as_it_was() {
        let metrics = json!([
            {"type": "Pods", "pods": {"metric": {"name": "q"}, "target": {"type": "AverageValue", "averageValue": "5"}}},
            {"type": "Object", "object": {
                "describedObject": {"kind": "Service", "name": "s", "apiVersion": "v1"},
                "metric": {"name": "q", "selector": {"matchLabels": {"a": "b"}}},
                "target": {"type": "Value", "value": "3"},
            }},
            {"type": "External", "external": {"metric": {"name": "q"}, "target": {"type": "Value", "value": "3"}}},
            {"type": "ContainerResource", "containerResource": {
                "name": "cpu", "container": "a", "target": {"type": "Utilization", "averageUtilization": 5},
            }},
        ]);
        let written = write_metrics(&metrics);
        assert_eq!(
            written[0],
            json!({"type": "Pods", "pods": {"metricName": "q", "targetAverageValue": "5"}})
        );
        assert_eq!(read_metrics(&written), metrics);
        assert_eq!(read_metrics(&metrics), metrics, "what is of v2 stays");
        let behavior = json!({"scaleDown": {
            "selectPolicy": "Max", "stabilizationWindowSeconds": 5,
            "policies": [{"type": "Pods", "value": 1, "periodSeconds": 15}],
        }});
        assert_eq!(read_behavior(&write_behavior(&behavior)), behavior);
        assert_eq!(read_behavior(&behavior), behavior);
    }
}
