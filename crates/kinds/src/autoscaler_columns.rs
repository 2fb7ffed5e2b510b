//! What `kubectl get hpa` shows, of both versions.

use object::Time;
use schema::{Column, path};
use serde_json::Value;

use crate::column::{AGE, NAME, column, int};
use crate::horizontal_pod_autoscaler::to_stored;

const SHOWN: usize = 2;
const UNKNOWN: &str = "<unknown>";

pub const V2: &[Column] = &columns(|object, _| targets(object).into());

/// The same of v1, whose metrics are elsewhere.
pub const V1: &[Column] = &columns(|object, _| targets(&to_stored(object.clone())).into());

const fn columns(targets: fn(&Value, Time) -> Value) -> [Column; 7] {
    [
        NAME,
        column("Reference", "string", "What it scales.", |object, _| {
            let target = |field| path::text(object, field);
            format!("{}/{}", target("spec.scaleTargetRef.kind"), target("spec.scaleTargetRef.name")).into()
        }),
        column("Targets", "string", "What it measures, and what that should be.", targets),
        column("MinPods", "string", "How many pods there are at least.", |object, _| {
            path::int(object, "spec.minReplicas").map_or("<unset>".into(), |least| least.to_string().into())
        }),
        column("MaxPods", "string", "How many pods there are at most.", |object, _| {
            int(object, "spec.maxReplicas")
        }),
        column("Replicas", "string", "How many pods there are.", |object, _| {
            int(object, "status.currentReplicas")
        }),
        AGE,
    ]
}

fn targets(autoscaler: &Value) -> String {
    let metrics = path::list(autoscaler, "spec.metrics");
    if metrics.is_empty() {
        return "<none>".into();
    }
    let current = path::list(autoscaler, "status.currentMetrics");
    let texts: Vec<String> = metrics
        .iter()
        .take(SHOWN)
        .enumerate()
        .map(|(index, metric)| target(metric, current.get(index)))
        .collect();
    let front = texts.join(", ");
    match metrics.len().saturating_sub(SHOWN) {
        0 => front,
        more => format!("{front} + {more} more..."),
    }
}

fn target(metric: &Value, current: Option<&Value>) -> String {
    let (source, has_name) = match path::text(metric, "type") {
        "ContainerResource" => ("containerResource", true),
        "External" => ("external", false),
        "Object" => ("object", false),
        "Pods" => ("pods", false),
        "Resource" => ("resource", true),
        _ => return "<unknown type>".into(),
    };
    let own = &metric[source];
    let held = |field: &str| -> Option<String> {
        match current.and_then(|one| path::get(&one[source], "current")).and_then(|one| one.get(field))? {
            Value::String(text) => Some(text.clone()),
            Value::Null => None,
            other => Some(other.to_string()),
        }
    };
    let average = path::text(own, "target.averageValue");
    let unknown = || UNKNOWN.to_owned();
    if has_name {
        let name = path::text(own, "name");
        if !average.is_empty() {
            return format!("{name}: {}/{average}", held("averageValue").unwrap_or_else(unknown));
        }
        let wanted =
            path::int(own, "target.averageUtilization").map_or("<auto>".into(), |share| format!("{share}%"));
        let have = held("averageUtilization").map_or_else(unknown, |share| format!("{share}%"));
        return format!("{name}: {have}/{wanted}");
    }
    if source == "pods" {
        return format!("{}/{average}", held("averageValue").unwrap_or_else(unknown));
    }
    if !average.is_empty() {
        return format!("{}/{average} (avg)", held("averageValue").unwrap_or_else(unknown));
    }
    format!("{}/{}", held("value").unwrap_or_else(unknown), path::text(own, "target.value"))
}
