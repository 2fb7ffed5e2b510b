//! Deletes pods from nodes whose NoExecute taints they do not tolerate, or tolerate only for a while.
//!
//! <https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/#taint-based-evictions>

use kinds::{NODES, PODS};
use object::{Change, Event, Key, Snapshot, Time};
use plan::{Expect, Plan, Write};
use serde_json::json;

use crate::nodes::Node;
use crate::ownership::{Kind, own_key};
use crate::pod_gc::conditions_with;
use crate::views::{Condition, Pod, Taint, Toleration};
use crate::writes::{delete, event};
use crate::{Controller, Settings, Watch};

pub static CONTROLLER: Controller = Controller {
    name: "taint-eviction-controller",
    user: "node-controller",
    watches: &[Watch { resource: NODES, keys: of_node }, Watch { resource: PODS, keys: own_key }],
    reconcile,
    refused: None,
    resync_secs: None,
};

const KIND: Kind = Kind { api_version: "v1", kind: "Pod", resource: PODS };

fn of_node(snapshot: &Snapshot, event: &Event) -> Vec<Key> {
    let taints = |object| Node::read(object).map(|node: Node| evicting(&node)).unwrap_or_default();
    let before = event.previous.as_ref().map(taints).unwrap_or_default();
    if event.change == Change::Deleted || before == taints(&event.object) {
        return Vec::new();
    }
    snapshot.list_by_field(PODS, &event.key().name).map(|pod| pod.key.clone()).collect()
}

fn evicting(node: &Node) -> Vec<Taint> {
    node.spec.taints.iter().filter(|taint| taint.effect == "NoExecute").cloned().collect()
}

fn reconcile(snapshot: &Snapshot, key: &Key, now: Time, _: &Settings) -> Plan {
    let mut plan = Plan::default();
    let Some(pod) = snapshot.get(key).map(Pod::read).filter(|pod| pod.is_active()) else { return plan };
    let node = pod.node().and_then(|node| snapshot.find(NODES, "", node)).and_then(Node::read);
    let taints = node.map(|node| evicting(&node)).unwrap_or_default();
    match eviction_time(&taints, &pod.spec.tolerations, now) {
        None => {}
        Some(at) if at > now => plan.wake(at),
        Some(_) => evict(&pod, now, &mut plan),
    }
    plan
}

/// When the pod must go; None if it may stay. A taint without a time counts from now; the node controller soon adds one.
fn eviction_time(taints: &[Taint], tolerations: &[Toleration], now: Time) -> Option<Time> {
    let mut earliest = None;
    for taint in taints {
        let since = taint.time_added.unwrap_or(now);
        let mut tolerated = tolerations.iter().filter(|toleration| toleration.tolerates(taint)).peekable();
        if tolerated.peek().is_none() {
            return Some(now);
        }
        let limit = tolerated.filter_map(|toleration| toleration.toleration_seconds).min();
        let until = limit.map(|seconds| since.plus_secs(seconds.max(0)));
        earliest = match (earliest, until) {
            (Some(known), Some(until)) => Some(until.min(known)),
            (known, until) => known.or(until),
        };
    }
    earliest
}

fn evict(pod: &Pod, now: Time, plan: &mut Plan) {
    let message = "Taint manager: deleting due to NoExecute taint";
    let told = Condition::new("DisruptionTarget", "True", "DeletionByTaintManager", message, now);
    plan.write(Write::Merge {
        key: pod.object.key.clone(),
        expect: Expect::unchanged(&pod.object),
        subresource: "status",
        patch: json!({"status": {"conditions": conditions_with(pod, told)}}),
    });
    plan.write(delete(&pod.object));
    let message = format!("Marking for deletion Pod {}", pod.object.key.path());
    event(plan, &pod.object, &KIND, false, "TaintManagerEviction", message);
}
