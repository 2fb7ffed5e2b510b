//! Keeps as many pods of a ReplicaSet (or a ReplicationController) as it asks for.
//!
//! <https://kubernetes.io/docs/concepts/workloads/controllers/replicaset/>

use std::cmp::{Ordering, Reverse};
use std::collections::HashMap;
use std::sync::Arc;

use object::{Event, Key, LabelSelector, Object, Snapshot, Status, Time};
use plan::{Expect, Plan, Write};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::naming::Names;
use crate::ownership::{Kind, own_key};
use crate::views::{Condition, Pod, Template, condition, status_of};
use crate::writes::{delete, event, pod_of, wake_if_later, without_empty, write_status};
use crate::{Controller, Settings, Watch};
use kinds::{PODS, REPLICA_SETS};

pub static CONTROLLER: Controller = Controller {
    name: "replicaset-controller",
    user: "replicaset-controller",
    watches: &[Watch { resource: REPLICA_SETS, keys: own_key }, Watch { resource: PODS, keys: of_pod }],
    reconcile,
    refused: Some(refused),
    resync_secs: None,
};

pub const KIND: Kind = Kind { api_version: "apps/v1", kind: "ReplicaSet", resource: REPLICA_SETS };

/// Pods made or deleted by one plan; the next run goes on.
const BURST: usize = 500;

#[derive(Deserialize)]
struct View {
    spec: Spec,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    replicas: Option<i64>,
    #[serde(default)]
    min_ready_seconds: i64,
    #[serde(default)]
    template: Template,
}

fn of_pod(snapshot: &Snapshot, event: &Event) -> Vec<Key> {
    KIND.keys_of_dependent(snapshot, event)
}

fn reconcile(snapshot: &Snapshot, key: &Key, now: Time, _: &Settings) -> Plan {
    keep_replicas(&KIND, snapshot, key, now)
}

fn refused(snapshot: &Snapshot, key: &Key, now: Time, write: &Write, status: &Status) -> Plan {
    tell_refusal(&KIND, snapshot, key, now, write, status)
}

/// The whole of both replicating controllers.
pub fn keep_replicas(kind: &Kind, snapshot: &Snapshot, key: &Key, now: Time) -> Plan {
    let mut plan = Plan::default();
    let Some(owner) = snapshot.get(key) else { return plan };
    let Ok(View { spec }) = owner.decode() else { return plan };
    let Some(selector) = crate::ownership::selector_of(owner).filter(|selector| !selector.is_everything())
    else {
        return plan;
    };
    let pods = claimed_pods(kind, snapshot, owner, &selector, &mut plan);
    let (active, rest): (Vec<Pod>, Vec<Pod>) = pods.into_iter().partition(Pod::is_active);
    // Counts come first, so that they stand even if the gate refuses the pods behind them.
    let terminating = rest.iter().filter(|pod| pod.is_deleting() && !pod.is_finished()).count();
    let status = status(owner, &spec, &active, terminating, now, &mut plan);
    write_status(&mut plan, owner, &status_of(owner), status);
    if !owner.meta.is_deleting() {
        let wanted = usize::try_from(spec.replicas.unwrap_or(1)).unwrap_or(0);
        if active.len() < wanted {
            create_pods(kind, snapshot, owner, &spec, wanted - active.len(), &mut plan);
        } else if active.len() > wanted {
            delete_pods(kind, snapshot, owner, &active, active.len() - wanted, now, &mut plan);
        }
    }
    forget_refusal(owner, &mut plan);
    plan
}

/// A plan that gets this far had nothing refused: what was told of a refusal is over.
fn forget_refusal(owner: &Object, plan: &mut Plan) {
    let mut conditions = conditions_of(owner);
    let before = conditions.len();
    conditions.retain(|held| held.kind != "ReplicaFailure");
    if conditions.len() < before {
        plan.write(Write::Merge {
            key: owner.key.clone(),
            expect: Expect::same(owner),
            subresource: "status",
            patch: json!({"status": {"conditions": if conditions.is_empty() { Value::Null } else { json!(conditions) }}}),
        });
    }
}

/// Finished pods are neither adopted nor counted.
fn claimed_pods(
    kind: &Kind,
    snapshot: &Snapshot,
    owner: &Object,
    selector: &LabelSelector,
    plan: &mut Plan,
) -> Vec<Pod> {
    let may_adopt = |object: &Arc<Object>| Pod::read(object).is_active();
    let claimed = kind.claim(snapshot, owner, selector, PODS, may_adopt, plan);
    claimed.iter().map(Pod::read).collect()
}

fn create_pods(kind: &Kind, snapshot: &Snapshot, owner: &Object, spec: &Spec, count: usize, plan: &mut Plan) {
    let mut names = Names::new(snapshot, PODS, &owner.key.namespace);
    let prefix = format!("{}-", owner.key.name);
    for _ in 0..count.min(BURST) {
        let name = names.next(&prefix, &owner.meta.uid);
        let mut pod = pod_of(&spec.template, &owner.key.namespace, &name, kind.controller_ref(owner));
        pod["metadata"]["generateName"] = prefix.as_str().into();
        plan.write(Write::Create { resource: PODS, object: pod });
        event(plan, owner, kind, false, "SuccessfulCreate", format!("Created pod: {name}"));
    }
}

fn delete_pods(
    kind: &Kind,
    snapshot: &Snapshot,
    owner: &Object,
    active: &[Pod],
    count: usize,
    now: Time,
    plan: &mut Plan,
) {
    let neighbours = neighbours_per_node(snapshot, owner, active);
    let mut ranked: Vec<&Pod> = active.iter().collect();
    ranked.sort_by(|a, b| deletion_order(a, b, &neighbours, now));
    for pod in ranked.into_iter().take(count.min(BURST)) {
        plan.write(delete(&pod.object));
        event(plan, owner, kind, false, "SuccessfulDelete", format!("Deleted pod: {}", pod.name()));
    }
}

/// How many active pods each node has of this set and of its siblings (the other ReplicaSets of the same Deployment).
fn neighbours_per_node(snapshot: &Snapshot, owner: &Object, active: &[Pod]) -> HashMap<String, usize> {
    let mut nodes = HashMap::new();
    let mut count = |pod: &Pod| {
        if let Some(node) = pod.node() {
            *nodes.entry(node.to_owned()).or_insert(0) += 1;
        }
    };
    active.iter().for_each(&mut count);
    let siblings = owner.meta.controller().into_iter().flat_map(|parent| snapshot.owned_by(&parent.uid));
    for sibling in siblings.filter(|sibling| sibling.key.resource == REPLICA_SETS && sibling.key != owner.key)
    {
        let pods = snapshot.owned_by(&sibling.meta.uid).filter(|owned| owned.key.resource == PODS);
        pods.map(Pod::read).filter(Pod::is_active).for_each(|pod| count(&pod));
    }
    nodes
}

/// Which of two pods goes first. Upstream's `ActivePodsWithRanks`: unassigned, pending, unready, cheap, crowded, lately ready, often
/// restarted, young. Times are compared by the logarithm of the age, so that among pods of about the same age chance (the uid) decides.
fn deletion_order(a: &Pod, b: &Pod, neighbours: &HashMap<String, usize>, now: Time) -> Ordering {
    let crowd = |pod: &Pod| pod.node().and_then(|node| neighbours.get(node)).copied().unwrap_or(0);
    let phase = |pod: &Pod| match pod.status.phase.as_str() {
        "Pending" | "" => 0,
        "Unknown" => 1,
        _ => 2,
    };
    let age = |since: Option<Time>| since.map_or(0, |since| magnitude(now, since));
    let ready_age = |pod: &Pod| if pod.is_ready() { age(pod.ready_since()) } else { 0 };
    let created_age = |pod: &Pod| age(pod.object.meta.creation_timestamp);
    a.node()
        .is_some()
        .cmp(&b.node().is_some())
        .then_with(|| phase(a).cmp(&phase(b)))
        .then_with(|| a.is_ready().cmp(&b.is_ready()))
        .then_with(|| deletion_cost(a).cmp(&deletion_cost(b)))
        .then_with(|| Reverse(crowd(a)).cmp(&Reverse(crowd(b))))
        .then_with(|| ready_age(a).cmp(&ready_age(b)))
        .then_with(|| Reverse(a.restarts()).cmp(&Reverse(b.restarts())))
        .then_with(|| created_age(a).cmp(&created_age(b)))
        .then_with(|| a.object.meta.uid.cmp(&b.object.meta.uid))
}

/// The binary logarithm of an age in microseconds.
fn magnitude(now: Time, since: Time) -> u32 {
    let age = now.as_micros().saturating_sub(since.as_micros());
    u64::try_from(age).ok().and_then(u64::checked_ilog2).map_or(0, |log| log + 1)
}

/// <https://kubernetes.io/docs/reference/labels-annotations-taints/#pod-deletion-cost>; text that is not a number costs nothing.
fn deletion_cost(pod: &Pod) -> i32 {
    let cost = pod.annotations.get("controller.kubernetes.io/pod-deletion-cost");
    cost.and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn status(
    owner: &Object,
    spec: &Spec,
    active: &[Pod],
    terminating: usize,
    now: Time,
    plan: &mut Plan,
) -> Value {
    let wanted_labels = spec.template.labels();
    let has_all_labels = |pod: &&Pod| {
        wanted_labels.iter().all(|(name, value)| pod.object.meta.labels.get(name) == Some(value))
    };
    let is_available = |pod: &&Pod| pod.is_available(spec.min_ready_seconds, now);
    for at in active.iter().filter_map(|pod| pod.available_at(spec.min_ready_seconds)) {
        wake_if_later(plan, at, now);
    }
    let mut status = without_empty(
        json!({
            "replicas": active.len(),
            "fullyLabeledReplicas": active.iter().filter(has_all_labels).count(),
            "readyReplicas": active.iter().filter(|pod| pod.is_ready()).count(),
            "availableReplicas": active.iter().filter(is_available).count(),
            "observedGeneration": owner.meta.generation,
            "conditions": conditions_of(owner),
        }),
        &["replicas"],
    );
    if owner.key.resource == REPLICA_SETS {
        status["terminatingReplicas"] = terminating.into();
    }
    status
}

fn conditions_of(owner: &Object) -> Vec<Condition> {
    let conditions = status_of(owner).get("conditions").cloned().unwrap_or_default();
    serde_json::from_value(conditions).unwrap_or_default()
}

/// A refused pod becomes the condition ReplicaFailure and an event.
pub fn tell_refusal(
    kind: &Kind,
    snapshot: &Snapshot,
    key: &Key,
    now: Time,
    write: &Write,
    refusal: &Status,
) -> Plan {
    let mut plan = Plan::default();
    let Some(owner) = snapshot.get(key) else { return plan };
    let (reason, doing) = match write {
        Write::Create { .. } => ("FailedCreate", "creating"),
        Write::Delete { .. } => ("FailedDelete", "deleting"),
        _ => return plan,
    };
    event(&mut plan, owner, kind, true, reason, format!("Error {doing}: {refusal}"));
    let mut conditions = conditions_of(owner);
    if condition(&conditions, "ReplicaFailure").is_none() {
        conditions.push(Condition::new("ReplicaFailure", "True", reason, refusal.message.as_str(), now));
        let old = status_of(owner);
        let mut new = if old.is_object() { old.clone() } else { json!({"replicas": 0}) };
        new["conditions"] = json!(conditions);
        write_status(&mut plan, owner, &old, new);
    }
    plan
}
