//! Says in each PodDisruptionBudget how many of its pods may be evicted now.
//!
//! <https://kubernetes.io/docs/concepts/workloads/pods/disruptions/#pod-disruption-budgets>

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kinds::{
    DEPLOYMENTS, POD_DISRUPTION_BUDGETS, PODS, REPLICA_SETS, REPLICATION_CONTROLLERS, STATEFUL_SETS,
};
use object::{Event, Key, LabelSelector, Object, Snapshot, Time};
use plan::{Expect, Plan, Write};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::ownership::{Kind, own_key};
use crate::views::{Condition, IntOrPercent, Pod, condition, set_condition, status_of};
use crate::writes::{difference, without_empty};
use crate::{Controller, Settings, Watch};

pub static CONTROLLER: Controller = Controller {
    name: "disruption-controller",
    user: "disruption-controller",
    watches: &[
        Watch { resource: DEPLOYMENTS, keys: of_workload },
        Watch { resource: POD_DISRUPTION_BUDGETS, keys: own_key },
        Watch { resource: PODS, keys: of_pod },
        Watch { resource: REPLICA_SETS, keys: of_workload },
        Watch { resource: REPLICATION_CONTROLLERS, keys: of_workload },
        Watch { resource: STATEFUL_SETS, keys: of_workload },
    ],
    reconcile,
    refused: None,
    resync_secs: None,
};

/// An eviction that was granted this long ago and did not happen no longer counts.
const EVICTION_SECS: i64 = 120;
/// Workloads whose size says how many pods there should be.
const WORKLOADS: [Kind; 3] = [
    crate::replica_set::KIND,
    crate::replication_controller::KIND,
    Kind { api_version: "apps/v1", kind: "StatefulSet", resource: STATEFUL_SETS },
];
const DEPLOYMENT: Kind = Kind { api_version: "apps/v1", kind: "Deployment", resource: DEPLOYMENTS };

#[derive(Deserialize)]
struct View {
    spec: Spec,
    #[serde(default)]
    status: BudgetStatus,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    selector: Option<LabelSelector>,
    min_available: Option<IntOrPercent>,
    max_unavailable: Option<IntOrPercent>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct BudgetStatus {
    disrupted_pods: Option<BTreeMap<String, Time>>,
    conditions: Vec<Condition>,
}

fn of_pod(snapshot: &Snapshot, event: &Event) -> Vec<Key> {
    let new = &event.object;
    let old = event.previous.as_ref().map(|previous| &previous.meta.labels);
    let concerns = |budget: &&Arc<Object>| {
        let selector = budget.decode::<View>().ok().and_then(|view| view.spec.selector);
        selector.is_some_and(|selector| {
            selector.matches(&new.meta.labels) || old.is_some_and(|labels| selector.matches(labels))
        })
    };
    let budgets = snapshot.list(POD_DISRUPTION_BUDGETS, &new.key.namespace).filter(concerns);
    budgets.map(|budget| budget.key.clone()).collect()
}

/// A change of the wanted number; changes of a status do not matter.
fn of_workload(snapshot: &Snapshot, event: &Event) -> Vec<Key> {
    let before = event.previous.as_ref().map(|previous| replicas(previous));
    if before == Some(replicas(&event.object)) {
        return Vec::new();
    }
    let budgets = snapshot.list(POD_DISRUPTION_BUDGETS, &event.key().namespace);
    budgets.map(|budget| budget.key.clone()).collect()
}

fn replicas(workload: &Object) -> i64 {
    #[derive(Deserialize)]
    struct Wire {
        spec: Spec,
    }
    #[derive(Deserialize)]
    struct Spec {
        replicas: Option<i64>,
    }
    workload.decode::<Wire>().ok().and_then(|wire| wire.spec.replicas).unwrap_or(1)
}

/// What a budget comes to.
struct Count {
    expected: i64,
    desired: i64,
}

fn reconcile(snapshot: &Snapshot, key: &Key, now: Time, _: &Settings) -> Plan {
    let mut plan = Plan::default();
    let Some(budget) = snapshot.get(key) else { return plan };
    let Ok(View { spec, status }) = budget.decode() else { return plan };
    let selected = spec.selector.iter().flat_map(|selector| snapshot.select(PODS, &key.namespace, selector));
    let pods: Vec<Pod> = selected.map(Pod::read).collect();
    let disrupted = still_disrupted(&status, &pods, now, &mut plan);
    let counted = count(snapshot, &spec, &pods);
    let healthy = pods
        .iter()
        .filter(|pod| !pod.is_deleting() && pod.is_ready() && !disrupted.contains_key(pod.name()))
        .count();
    let healthy = i64::try_from(healthy).unwrap_or(i64::MAX);
    let mut conditions = status.conditions;
    let (allowed, told) = match &counted {
        Ok(Count { expected, desired }) => {
            let allowed = if *expected <= 0 { 0 } else { (healthy - desired).max(0) };
            let (state, reason) =
                if allowed > 0 { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
            (allowed, Condition::new("DisruptionAllowed", state, reason, "", now))
        }
        Err(why) => (0, Condition::new("DisruptionAllowed", "False", "SyncFailed", why.as_str(), now)),
    };
    let told = Condition { observed_generation: Some(budget.meta.generation), ..told };
    let same = |held: &Condition| {
        (&held.status, &held.reason, held.observed_generation)
            == (&told.status, &told.reason, told.observed_generation)
    };
    if !condition(&conditions, &told.kind).is_some_and(same) {
        set_condition(&mut conditions, told);
    }
    let conditions: Vec<Value> = conditions.iter().map(with_message).collect();
    let old = status_of(budget);
    let held = |name: &str| old.get(name).cloned().unwrap_or_else(|| 0.into());
    // What could not be counted stays as it was.
    let (expected, desired, current) = match counted {
        Ok(Count { expected, desired }) => (expected.into(), desired.into(), healthy.into()),
        Err(_) => (held("expectedPods"), held("desiredHealthy"), held("currentHealthy")),
    };
    let new = without_empty(
        json!({
            "currentHealthy": current, "desiredHealthy": desired, "disruptionsAllowed": allowed,
            "expectedPods": expected, "disruptedPods": disrupted, "conditions": conditions,
            "observedGeneration": budget.meta.generation,
        }),
        &["currentHealthy", "desiredHealthy", "disruptionsAllowed", "expectedPods"],
    );
    let patch = difference(&old, new);
    if !patch.is_empty() {
        // Evictions write here too: a grant since the snapshot must not be lost.
        plan.write(Write::Merge {
            key: key.clone(),
            expect: Expect::unchanged(budget),
            subresource: "status",
            patch: json!({"status": patch}),
        });
    }
    plan
}

/// A `metav1.Condition` has its message even if that is empty.
fn with_message(condition: &Condition) -> Value {
    let mut value = json!(condition);
    value["message"] = condition.message.as_str().into();
    value
}

/// The granted evictions that may still be on their way.
fn still_disrupted(
    status: &BudgetStatus,
    pods: &[Pod],
    now: Time,
    plan: &mut Plan,
) -> BTreeMap<String, Time> {
    let mut still = BTreeMap::new();
    for (name, at) in status.disrupted_pods.iter().flatten() {
        let over = at.plus_secs(EVICTION_SECS);
        if over > now && pods.iter().any(|pod| pod.name() == name && !pod.is_deleting()) {
            plan.wake(over);
            still.insert(name.clone(), *at);
        }
    }
    still
}

/// How many pods there should be, and how many of them must be well. The error is the message of the condition.
fn count(snapshot: &Snapshot, spec: &Spec, pods: &[Pod]) -> Result<Count, String> {
    if let Some(most) = &spec.max_unavailable {
        let expected = scale(snapshot, pods)?;
        return Ok(Count { expected, desired: (expected - most.of(expected, true)).max(0) });
    }
    match &spec.min_available {
        Some(IntOrPercent::Int(least)) => {
            Ok(Count { expected: i64::try_from(pods.len()).unwrap_or(i64::MAX), desired: *least })
        }
        Some(percent) => {
            let expected = scale(snapshot, pods)?;
            Ok(Count { expected, desired: percent.of(expected, true) })
        }
        None => Ok(Count { expected: 0, desired: 0 }),
    }
}

/// The sum of what the pods' workloads ask for. Pods without a controller do not count.
fn scale(snapshot: &Snapshot, pods: &[Pod]) -> Result<i64, String> {
    let mut seen: BTreeSet<Box<str>> = BTreeSet::new();
    let mut total = 0;
    for pod in pods.iter().filter(|pod| pod.object.meta.controller().is_some()) {
        let Some(workload) = workload(snapshot, &pod.object) else {
            return Err(format!("found no controllers for pod \"{}\"", pod.name()));
        };
        if seen.insert(workload.meta.uid.clone()) {
            total += replicas(workload);
        }
    }
    Ok(total)
}

fn workload<'a>(snapshot: &'a Snapshot, pod: &Object) -> Option<&'a Arc<Object>> {
    let direct = WORKLOADS.iter().find_map(|kind| kind.controller(snapshot, pod))?;
    DEPLOYMENT.controller(snapshot, direct).or(Some(direct))
}
