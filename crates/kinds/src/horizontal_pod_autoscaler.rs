use object::Resource;
use schema::{Conversion, Kind, Strategy, path};
use serde_json::{Value, json};

use crate::autoscaler_columns;
use crate::autoscaler_v1::{self, Read, Write};
use crate::autoscaler_validation::validate;
use crate::{row, strategy, subresource};

pub const HORIZONTAL_POD_AUTOSCALERS: Resource = Resource::new("horizontalpodautoscalers.autoscaling");

pub static KIND: Kind = KIND_V2;

const KIND_V2: Kind = Kind {
    resource: HORIZONTAL_POD_AUTOSCALERS,
    group: "autoscaling",
    version: "v2",
    kind: "HorizontalPodAutoscaler",
    singular: "horizontalpodautoscaler",
    short_names: &["hpa"],
    categories: &["all"],
    namespaced: true,
    subresources: &[subresource::STATUS],
    type_name: "autoscaling.v2.HorizontalPodAutoscaler",
    columns: autoscaler_columns::V2,
    strategy: Strategy { prepare, ..strategy::STATUS },
    default,
    validate,
    ..row::BASE
};

/// The version of old: a target for CPU, and the rest in annotations.
pub static V1: Kind = Kind {
    version: "v1",
    type_name: "autoscaling.v1.HorizontalPodAutoscaler",
    columns: autoscaler_columns::V1,
    default: |_| {},
    conversion: Some(Conversion { to_stored, from_stored }),
    ..KIND_V2
};

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
/// What goes into annotations of a v1 object: where it is in v2, the annotation, and how it is written and read there.
const CARRIED: [(&str, &str, Write, Read); 4] = [
    ("spec.metrics", METRICS, autoscaler_v1::write_metrics, autoscaler_v1::read_metrics),
    ("spec.behavior", BEHAVIOR, autoscaler_v1::write_behavior, autoscaler_v1::read_behavior),
    ("status.currentMetrics", CURRENT_METRICS, autoscaler_v1::write_current, autoscaler_v1::read_current),
    ("status.conditions", CONDITIONS, Value::clone, Value::clone),
];
const CPU_PERCENT: i64 = 80;
const SCALE_PERIOD_SECONDS: i64 = 15;

fn prepare(autoscaler: &mut Value, old: Option<&Value>) {
    if old.is_none() {
        autoscaler["status"] = json!({"desiredReplicas": 0});
    }
}

fn cpu_metric(percent: i64) -> Value {
    json!({"type": "Resource", "resource": {
        "name": "cpu", "target": {"type": "Utilization", "averageUtilization": percent},
    }})
}

fn default(autoscaler: &mut Value) {
    let Some(spec) = autoscaler.get_mut("spec").filter(|spec| spec.is_object()) else { return };
    if path::list(spec, "metrics").is_empty() {
        spec["metrics"] = json!([cpu_metric(CPU_PERCENT)]);
    }
    let Some(behavior) = spec.get_mut("behavior").filter(|behavior| behavior.is_object()) else { return };
    let percent = json!({"type": "Percent", "value": 100, "periodSeconds": SCALE_PERIOD_SECONDS});
    let pods = json!({"type": "Pods", "value": 4, "periodSeconds": SCALE_PERIOD_SECONDS});
    path::set_default(behavior, "scaleUp.stabilizationWindowSeconds", 0);
    for (rules, policies) in [("scaleUp", json!([pods, percent])), ("scaleDown", json!([percent]))] {
        let rules = &mut behavior[rules];
        path::set_default(rules, "selectPolicy", "Max");
        if rules.get("policies").is_none() {
            rules["policies"] = policies;
        }
    }
}

fn is_cpu_percent(metric: &Value) -> bool {
    path::text(metric, "type") == "Resource"
        && path::text(metric, "resource.name") == "cpu"
        && path::int(metric, "resource.target.averageUtilization").is_some()
}

/// The other metrics are carried in their v2 form, so that nothing is lost on the way back.
fn from_stored(mut object: Value) -> Value {
    object["apiVersion"] = "autoscaling/v1".into();
    let metrics = path::list(&object, "spec.metrics");
    let target = metrics.iter().find(|one| is_cpu_percent(one));
    let target = target.and_then(|one| path::int(one, "resource.target.averageUtilization"));
    let current = path::list(&object, "status.currentMetrics")
        .iter()
        .find(|one| path::text(one, "resource.name") == "cpu")
        .and_then(|one| path::int(one, "resource.current.averageUtilization"));
    let others: Vec<Value> = metrics.iter().filter(|one| !is_cpu_percent(one)).cloned().collect();
    if others.is_empty() {
        path::remove(&mut object, "spec.metrics");
    } else {
        path::set(&mut object, "spec.metrics", others.into());
    }
    for (at, annotation, write, _) in CARRIED {
        if let Some(value) = path::remove(&mut object, at) {
            object["metadata"]["annotations"][annotation] = write(&value).to_string().into();
        }
    }
    // No pointer there, and always written.
    if object.get("status").is_some() {
        path::set_default(&mut object, "status.currentReplicas", 0);
    }
    if let Some(percent) = target {
        path::set(&mut object, "spec.targetCPUUtilizationPercentage", percent.into());
    }
    if let Some(status) = object.get_mut("status").filter(|status| status.is_object()) {
        // There it is no number that may be missing.
        path::set_default(status, "currentReplicas", 0);
    }
    if let Some(percent) = current {
        path::set(&mut object, "status.currentCPUUtilizationPercentage", percent.into());
    }
    object
}

pub fn to_stored(mut object: Value) -> Value {
    object["apiVersion"] = "autoscaling/v2".into();
    for (at, annotation, _, read) in CARRIED {
        let carried = path::get_mut(&mut object, "metadata.annotations")
            .and_then(|all| all.as_object_mut()?.remove(annotation))
            .and_then(|text| serde_json::from_str::<Value>(text.as_str()?).ok());
        if let Some(value) = carried {
            path::set(&mut object, at, read(&value));
        }
    }
    if path::int(&object, "status.currentReplicas") == Some(0) {
        path::remove(&mut object, "status.currentReplicas");
    }
    let is_empty = path::get(&object, "metadata.annotations")
        .and_then(Value::as_object)
        .is_some_and(|all| all.is_empty());
    if is_empty {
        path::remove(&mut object, "metadata.annotations");
    }
    let target =
        path::remove(&mut object, "spec.targetCPUUtilizationPercentage").and_then(|one| one.as_i64());
    let others = path::list(&object, "spec.metrics");
    let target = target.or(others.is_empty().then_some(CPU_PERCENT));
    if let Some(percent) = target {
        let metrics: Vec<Value> = [cpu_metric(percent)].into_iter().chain(others.iter().cloned()).collect();
        path::set(&mut object, "spec.metrics", metrics.into());
    }
    if let Some(percent) = path::remove(&mut object, "status.currentCPUUtilizationPercentage") {
        let current = json!({"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": percent}}});
        let known = path::list(&object, "status.currentMetrics").to_vec();
        if !known.iter().any(|one| path::text(one, "resource.name") == "cpu") {
            path::set(&mut object, "status.currentMetrics", known.into_iter().chain([current]).collect());
        }
    }
    default(&mut object);
    object
}
