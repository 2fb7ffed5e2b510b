//! Deletes pods that no kubelet will ever finish: on nodes that are gone or written off, and finished ones beyond the threshold.
//!
//! <https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-garbage-collection>

use std::sync::Arc;

use kinds::{NODES, PODS};
use object::{Change, Event, Key, Object, Snapshot, Time};
use plan::{Expect, Plan, Write};
use serde_json::{Value, json};

use crate::nodes::Node;
use crate::views::{Condition, Pod, set_condition};
use crate::{Controller, Settings, Watch};

pub static CONTROLLER: Controller = Controller {
    name: "pod-garbage-collector-controller",
    user: "pod-garbage-collector",
    watches: &[Watch { resource: NODES, keys: of_node }, Watch { resource: PODS, keys: of_pod }],
    reconcile,
    refused: None,
    resync_secs: None,
};

const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";
/// Finished pods deleted by one plan.
const BATCH: usize = 500;

/// The key of all finished pods together.
fn finished_pods() -> Key {
    Key::cluster(PODS, "")
}

fn of_pod(_: &Snapshot, event: &Event) -> Vec<Key> {
    if event.change == Change::Deleted {
        return Vec::new();
    }
    let phase = |object: &Object| phase(object).to_owned();
    let was = event.previous.as_ref().map(|previous| phase(previous));
    let is = phase(&event.object);
    let mut keys = vec![event.key().clone()];
    if is_final(&is) && was.as_deref() != Some(&is) {
        keys.push(finished_pods());
    }
    keys
}

fn of_node(snapshot: &Snapshot, event: &Event) -> Vec<Key> {
    let was = event.previous.as_ref().is_some_and(is_out_of_service);
    if event.change == Change::Deleted || was != is_out_of_service(&event.object) {
        return snapshot.list_by_field(PODS, &event.key().name).map(|pod| pod.key.clone()).collect();
    }
    Vec::new()
}

/// `status.phase`, which is among the selectable fields, so that no body is read.
fn phase(pod: &Object) -> &str {
    let selectable = kinds::of(PODS).map_or(&[][..], |row| row.selectable);
    let index = selectable.iter().position(|field| *field == "status.phase");
    index.and_then(|index| pod.fields.get(index)).map_or("", |value| value)
}

fn is_final(phase: &str) -> bool {
    matches!(phase, "Succeeded" | "Failed")
}

fn reconcile(snapshot: &Snapshot, key: &Key, now: Time, settings: &Settings) -> Plan {
    let mut plan = Plan::default();
    if *key == finished_pods() {
        delete_surplus(snapshot, settings.terminated_pod_threshold, &mut plan);
        return plan;
    }
    let Some(pod) = snapshot.get(key).map(Pod::read) else { return plan };
    match pod.node() {
        None if pod.is_deleting() => fail_and_delete(&pod, None, &mut plan),
        None => {}
        Some(node) => match snapshot.find(NODES, "", node) {
            None => {
                let message = "PodGC: node no longer exists";
                let told = Condition::new("DisruptionTarget", "True", "DeletionByPodGC", message, now);
                fail_and_delete(&pod, Some(told), &mut plan);
            }
            Some(node) if pod.is_deleting() && is_out_of_service(node) && !is_ready(node) => {
                fail_and_delete(&pod, None, &mut plan);
            }
            Some(_) => {}
        },
    }
    plan
}

fn is_out_of_service(node: &Arc<Object>) -> bool {
    Node::read(node).is_some_and(|node| node.spec.taints.iter().any(|taint| taint.key == OUT_OF_SERVICE))
}

fn is_ready(node: &Arc<Object>) -> bool {
    Node::read(node).is_some_and(|node| node.readiness() == Some("True"))
}

/// Jobs must see how a pod ended, so it fails before it goes; then it goes at once.
fn fail_and_delete(pod: &Pod, told: Option<Condition>, plan: &mut Plan) {
    if !pod.is_finished() {
        let mut conditions = pod.status.conditions.clone();
        told.into_iter().for_each(|told| set_condition(&mut conditions, told));
        plan.write(Write::Merge {
            key: pod.object.key.clone(),
            expect: Expect::unchanged(&pod.object),
            subresource: "status",
            patch: json!({"status": {"phase": "Failed", "conditions": conditions}}),
        });
    }
    if pod.object.meta.finalizers.is_empty() || !pod.is_deleting() {
        plan.write(Write::Delete {
            key: pod.object.key.clone(),
            expect: Expect::same(&pod.object),
            grace_seconds: Some(0),
            propagation: None,
        });
    }
}

fn delete_surplus(snapshot: &Snapshot, threshold: usize, plan: &mut Plan) {
    if threshold == 0 {
        return;
    }
    let is_candidate = |pod: &&Arc<Object>| is_final(phase(pod)) && !pod.meta.is_deleting();
    let mut finished: Vec<&Arc<Object>> = snapshot.list(PODS, "").filter(is_candidate).collect();
    let Some(surplus) = finished.len().checked_sub(threshold).filter(|surplus| *surplus > 0) else { return };
    finished.sort_by_key(|pod| (pod.meta.creation_timestamp, pod.key.clone()));
    for pod in finished.into_iter().take(surplus.min(BATCH)) {
        plan.write(Write::Delete {
            key: pod.key.clone(),
            expect: Expect::same(pod),
            grace_seconds: Some(0),
            propagation: None,
        });
    }
}

/// A pod's conditions as JSON with one more: what a controller that evicts writes before it deletes.
pub fn conditions_with(pod: &Pod, told: Condition) -> Value {
    let mut conditions = pod.status.conditions.clone();
    set_condition(&mut conditions, told);
    json!(conditions)
}
