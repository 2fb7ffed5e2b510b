//! Notices nodes that no longer report, and keeps the taints that say what is wrong with a node.
//!
//! A node that was not heard of for the grace period gets Unknown conditions, its pods are no longer ready, and its taints keep new pods
//! away and, after their toleration, evict the old ones. If no node at all is ready, the fault is more likely here than there: then
//! nothing is evicted.
//!
//! <https://kubernetes.io/docs/concepts/architecture/nodes/#node-controller>

use std::sync::Arc;

use kinds::{LEASES, NODES, PODS};
use object::{Change, Event, Key, Object, Snapshot, Time};
use plan::{Expect, Plan, Write};
use serde::Deserialize;
use serde_json::json;

use crate::nodes::{KIND, Node};
use crate::ownership::Kind;
use crate::views::{Condition, Pod, Taint, condition, set_condition, whole_second};
use crate::writes::{event, merge};
use crate::{Controller, Settings, Watch};

pub static CONTROLLER: Controller = Controller {
    name: "node-controller",
    user: "node-controller",
    watches: &[
        Watch { resource: LEASES, keys: of_lease },
        Watch { resource: NODES, keys: of_node },
        Watch { resource: PODS, keys: of_pod },
    ],
    reconcile,
    refused: None,
    resync_secs: None,
};

const POD: Kind = Kind { api_version: "v1", kind: "Pod", resource: PODS };
const LEASE_NAMESPACE: &str = "kube-node-lease";
/// A node found silent for so much longer than it should have been means that nobody was looking: this machine slept, or the server
/// was down. Then the kubelets had no chance either.
const OVERSLEPT_SECS: i64 = 10;
/// Until when a node is given time after that: RFC 3339.
const GRACE_UNTIL: &str = "node.ekso.dev/grace-until";
const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// (condition, its value, the NoSchedule taint that goes with it)
const CONDITION_TAINTS: [(&str, &str, &str); 6] = [
    ("Ready", "False", NOT_READY),
    ("Ready", "Unknown", UNREACHABLE),
    ("MemoryPressure", "True", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "True", "node.kubernetes.io/network-unavailable"),
];
/// What a kubelet reports, and what becomes Unknown without it.
const REPORTED: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

fn of_lease(_: &Snapshot, event: &Event) -> Vec<Key> {
    let key = event.key();
    if *key.namespace == *LEASE_NAMESPACE { vec![Key::cluster(NODES, key.name.clone())] } else { Vec::new() }
}

/// A node's readiness decides whether others may be evicted from.
fn of_node(snapshot: &Snapshot, event: &Event) -> Vec<Key> {
    let readiness =
        |object: &Arc<Object>| Node::read(object).and_then(|node| node.readiness().map(str::to_owned));
    let before = event.previous.as_ref().and_then(readiness);
    let is_gone = event.change == Change::Deleted;
    if !is_gone && before == readiness(&event.object) {
        return vec![event.key().clone()];
    }
    snapshot.list(NODES, "").map(|node| node.key.clone()).collect()
}

/// A pod that says it is ready on a node that does not.
fn of_pod(_: &Snapshot, event: &Event) -> Vec<Key> {
    let pod = Pod::read(&event.object);
    let node = pod.node().filter(|_| pod.is_ready() && event.change != Change::Deleted);
    node.map(|node| Key::cluster(NODES, node)).into_iter().collect()
}

fn reconcile(snapshot: &Snapshot, key: &Key, now: Time, settings: &Settings) -> Plan {
    let mut plan = Plan::default();
    let Some(node) = snapshot.get(key).filter(|node| !node.meta.is_deleting()).and_then(Node::read) else {
        return plan;
    };
    match silence(snapshot, &node, now, settings) {
        Silence::No { until } => plan.wake(until),
        Silence::Overslept => {
            let until = now.plus_secs(settings.node_monitor_grace_secs);
            let patch = json!({"metadata": {"annotations": {GRACE_UNTIL: until.to_string()}}});
            plan.write(merge(&node.object, patch));
            return plan;
        }
        Silence::Yes if node.readiness() != Some("Unknown") => {
            tell_silence(&node, now, &mut plan);
            return plan;
        }
        Silence::Yes => {}
    }
    keep_taints(snapshot, &node, now, &mut plan);
    if node.readiness().is_some_and(|ready| ready != "True") {
        unready_pods(snapshot, &node, now, &mut plan);
    }
    plan
}

enum Silence {
    No { until: Time },
    Yes,
    Overslept,
}

fn silence(snapshot: &Snapshot, node: &Node, now: Time, settings: &Settings) -> Silence {
    let heard = last_heard(snapshot, node);
    let deadline = match heard {
        Some(heard) => heard.plus_secs(settings.node_monitor_grace_secs),
        None => {
            let created = node.object.meta.creation_timestamp.unwrap_or(now);
            created.plus_secs(settings.node_startup_grace_secs)
        }
    };
    let grace: Option<Time> = node.annotations.get(GRACE_UNTIL).and_then(|text| text.parse().ok());
    // Grace that was given for an earlier silence is spent.
    let grace = grace.filter(|until| *until > deadline);
    let until = grace.unwrap_or(deadline);
    if now < until {
        Silence::No { until }
    } else if grace.is_none() && now.secs_since(until) > OVERSLEPT_SECS && node.readiness() == Some("True") {
        Silence::Overslept
    } else {
        Silence::Yes
    }
}

/// The newest sign of life: the Lease that a kubelet renews every ten seconds, or its status.
fn last_heard(snapshot: &Snapshot, node: &Node) -> Option<Time> {
    #[derive(Deserialize)]
    struct Lease {
        spec: LeaseSpec,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct LeaseSpec {
        renew_time: Option<Time>,
    }
    let lease = snapshot.find(LEASES, LEASE_NAMESPACE, node.name());
    let renewed = lease.and_then(|lease| lease.decode::<Lease>().ok()?.spec.renew_time);
    renewed.max(node.last_heartbeat())
}

fn tell_silence(node: &Node, now: Time, plan: &mut Plan) {
    let mut conditions = node.status.conditions.clone();
    for kind in REPORTED {
        let known = condition(&conditions, kind);
        let (reason, message) = match known {
            Some(_) => ("NodeStatusUnknown", "Kubelet stopped posting node status."),
            None => ("NodeStatusNeverUpdated", "Kubelet never posted node status."),
        };
        let heartbeat = known.map_or(node.object.meta.creation_timestamp, |known| known.last_heartbeat_time);
        let new = Condition {
            last_heartbeat_time: heartbeat,
            ..Condition::new(kind, "Unknown", reason, message, now)
        };
        set_condition(&mut conditions, new);
    }
    plan.write(Write::Merge {
        key: node.object.key.clone(),
        expect: Expect::unchanged(&node.object),
        subresource: "status",
        patch: json!({"status": {"conditions": conditions}}),
    });
    if node.readiness() == Some("True") {
        let message = format!("Node {} status is now: NodeNotReady", node.name());
        event(plan, &node.object, &KIND, false, "NodeNotReady", message);
    }
}

/// The taints that follow from the conditions; those of others stay as they are.
fn keep_taints(snapshot: &Snapshot, node: &Node, now: Time, plan: &mut Plan) {
    let holds = |kind: &str, status: &str| {
        condition(&node.status.conditions, kind).is_some_and(|held| held.status == status)
    };
    let mut wanted: Vec<(&str, &str)> = CONDITION_TAINTS
        .iter()
        .filter(|(kind, status, _)| holds(kind, status))
        .map(|(_, _, taint)| (*taint, "NoSchedule"))
        .collect();
    if node.spec.unschedulable {
        wanted.push((UNSCHEDULABLE, "NoSchedule"));
    }
    let silence = [("False", NOT_READY), ("Unknown", UNREACHABLE)]
        .into_iter()
        .find(|(status, _)| holds("Ready", status));
    if let Some((_, taint)) = silence.filter(|_| some_node_is_ready(snapshot)) {
        wanted.push((taint, "NoExecute"));
    }
    let is_ours = |taint: &Taint| {
        let by_condition = CONDITION_TAINTS.iter().any(|(_, _, key)| *key == taint.key);
        match taint.effect.as_str() {
            "NoSchedule" => by_condition || taint.key == UNSCHEDULABLE,
            "NoExecute" => taint.key == NOT_READY || taint.key == UNREACHABLE,
            _ => false,
        }
    };
    let is_wanted = |taint: &Taint| wanted.contains(&(taint.key.as_str(), taint.effect.as_str()));
    let mut taints: Vec<Taint> =
        node.spec.taints.iter().filter(|taint| !is_ours(taint) || is_wanted(taint)).cloned().collect();
    for (key, effect) in wanted {
        if !taints.iter().any(|held| held.key == key && held.effect == effect) {
            taints.push(Taint { key: key.into(), effect: effect.into(), ..Taint::default() });
        }
    }
    // Evictions count from here.
    for taint in taints.iter_mut().filter(|taint| taint.effect == "NoExecute") {
        taint.time_added.get_or_insert(whole_second(now));
    }
    if taints != node.spec.taints {
        let taints = if taints.is_empty() { serde_json::Value::Null } else { json!(taints) };
        plan.write(merge(&node.object, json!({"spec": {"taints": taints}})));
    }
}

fn some_node_is_ready(snapshot: &Snapshot) -> bool {
    snapshot.list(NODES, "").filter_map(Node::read).any(|node| node.readiness() == Some("True"))
}

/// Traffic must not go to pods that nobody watches over.
fn unready_pods(snapshot: &Snapshot, node: &Node, now: Time, plan: &mut Plan) {
    for pod in snapshot.list_by_field(PODS, node.name()).map(Pod::read).filter(Pod::is_ready) {
        let mut conditions = pod.status.conditions.clone();
        if let Some(ready) = conditions.iter_mut().find(|held| held.kind == "Ready") {
            ready.status = "False".into();
            ready.last_transition_time = Some(whole_second(now));
        }
        plan.write(Write::Merge {
            key: pod.object.key.clone(),
            expect: Expect::unchanged(&pod.object),
            subresource: "status",
            patch: json!({"status": {"conditions": conditions}}),
        });
        event(plan, &pod.object, &POD, true, "NodeNotReady", "Node is not ready");
    }
}
