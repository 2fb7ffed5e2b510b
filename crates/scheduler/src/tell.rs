//! What pods and people are told: bindings, conditions, events.

use object::{Object, Snapshot, Time};
use plan::{Expect, Occurrence, Plan, Write};
use serde_json::{Value, json};

use crate::pod::Pod;

/// The scheduler of pods that name none.
pub const NAME: &str = "default-scheduler";

/// Longer messages of events are cut.
const MOST_EVENT_BYTES: usize = 1024;

/// The binding, and the event that says so once it is done.
pub fn bind(pod: &Pod, node: &str) -> Plan {
    let message = format!("Successfully assigned {}/{} to {node}", pod.key.namespace, pod.key.name);
    Plan {
        writes: vec![Write::Bind { pod: pod.key.clone(), uid: pod.uid.clone(), node: node.into() }],
        events: vec![occurrence(pod, false, "Scheduled", message)],
        wake_at: None,
    }
}

pub fn occurrence(pod: &Pod, warning: bool, reason: &'static str, message: String) -> Occurrence {
    Occurrence {
        about: pod.key.clone(),
        api_version: "v1".into(),
        kind: "Pod".into(),
        uid: pod.uid.clone(),
        field_path: "".into(),
        warning,
        reason,
        message,
    }
}

/// An event's message, no longer than events may be.
pub fn cut(mut message: String) -> String {
    const END: &str = " ...";
    if message.len() > MOST_EVENT_BYTES {
        let mut at = MOST_EVENT_BYTES - END.len();
        while !message.is_char_boundary(at) {
            at -= 1;
        }
        message.truncate(at);
        message.push_str(END);
    }
    message
}

/// The condition `PodScheduled` and, after a preemption, the node that is being cleared; nothing if they are there.
pub fn unschedulable(
    snapshot: &Snapshot,
    pod: &Pod,
    message: &str,
    node: Option<&str>,
    now: Time,
) -> Option<Write> {
    let object = snapshot.get(&pod.key)?;
    let condition = json!({
        "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message,
        "lastProbeTime": null, "observedGeneration": object.meta.generation,
    });
    with_condition(object, condition, node, now)
}

/// The condition `DisruptionTarget` of a pod that has to go for another.
pub fn victim(object: &Object, pod: &Pod, now: Time) -> Option<Write> {
    let scheduler = if pod.scheduler_name.is_empty() { NAME } else { &pod.scheduler_name };
    let condition = json!({
        "type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler",
        "message": format!("{scheduler}: preempting to accommodate a higher priority pod"),
        "observedGeneration": object.meta.generation,
    });
    with_condition(object, condition, None, now)
}

/// A merge patch replaces lists, so it carries all conditions; hence it holds only for the pod that was read.
fn with_condition(object: &Object, mut condition: Value, node: Option<&str>, now: Time) -> Option<Write> {
    let pod = object.to_value().ok()?;
    let mut conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let held = conditions.iter().position(|held| held["type"] == condition["type"]);
    let same = |held: &Value, field: &str| held[field] == condition[field];
    let is_told = held.is_some_and(|at| {
        ["status", "reason", "message"].into_iter().all(|field| same(&conditions[at], field))
    });
    let is_promised = node.is_none_or(|node| pod["status"]["nominatedNodeName"] == node);
    if is_told && is_promised {
        return None;
    }
    condition["lastTransitionTime"] = match held {
        Some(at) if same(&conditions[at], "status") => conditions[at]["lastTransitionTime"].clone(),
        _ => now.to_string().into(),
    };
    match held {
        Some(at) => conditions[at] = condition,
        None => conditions.push(condition),
    }
    let mut status = json!({"conditions": conditions});
    if let Some(node) = node {
        status["nominatedNodeName"] = node.into();
    }
    Some(Write::Merge {
        key: object.key.clone(),
        expect: Expect::unchanged(object),
        subresource: "status",
        patch: json!({"status": status}),
    })
}
