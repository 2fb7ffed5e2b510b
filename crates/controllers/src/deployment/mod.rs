//! Moves a Deployment's pods from one template to the next, through ReplicaSets.
//!
//! One run takes one step: it makes the ReplicaSet of the current template, or scales some, or cleans up, and always tells the status.
//! The next step follows from what the ReplicaSets report.
//!
//! <https://kubernetes.io/docs/concepts/workloads/controllers/deployment/>

mod revision;
mod rollout;
mod scale;
mod status;

use std::collections::BTreeMap;
use std::sync::Arc;

use object::{Change, Event, Key, Object, Snapshot, Status, Time};
use plan::{Expect, Plan, Write};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::ownership::{Kind, own_key, selector_of};
use crate::views::{Annotated, Condition, IntOrPercent, Template, set_condition, status_of};
use crate::writes::{event, write_status};
use crate::{Controller, Settings, Watch, replica_set};
use kinds::{DEPLOYMENTS, PODS, REPLICA_SETS};

pub static CONTROLLER: Controller = Controller {
    name: "deployment-controller",
    user: "deployment-controller",
    watches: &[
        Watch { resource: DEPLOYMENTS, keys: own_key },
        Watch { resource: REPLICA_SETS, keys: of_replica_set },
        Watch { resource: PODS, keys: of_pod },
    ],
    reconcile,
    refused: Some(refused),
    resync_secs: None,
};

const KIND: Kind = Kind { api_version: "apps/v1", kind: "Deployment", resource: DEPLOYMENTS };

/// The label that tells the pods of one template from those of another.
const POD_TEMPLATE_HASH: &str = "pod-template-hash";
/// `progressDeadlineSeconds` of a Deployment that never times out.
const NO_DEADLINE: i64 = i32::MAX as i64;

/// A Deployment, as it was read.
struct Deployment {
    object: Arc<Object>,
    annotations: BTreeMap<String, String>,
    spec: Spec,
    status: DeploymentStatus,
    /// The status as it stands, to be compared with the next.
    old_status: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    replicas: Option<i64>,
    #[serde(default)]
    paused: bool,
    #[serde(default)]
    min_ready_seconds: i64,
    revision_history_limit: Option<i64>,
    progress_deadline_seconds: Option<i64>,
    #[serde(default)]
    selector: Value,
    #[serde(default)]
    strategy: Strategy,
    template: Template,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Strategy {
    #[serde(rename = "type")]
    kind: String,
    rolling_update: Option<RollingUpdate>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RollingUpdate {
    max_unavailable: Option<IntOrPercent>,
    max_surge: Option<IntOrPercent>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct DeploymentStatus {
    replicas: i64,
    updated_replicas: i64,
    ready_replicas: i64,
    available_replicas: i64,
    collision_count: Option<i64>,
    conditions: Vec<Condition>,
}

/// A ReplicaSet of the Deployment.
#[derive(Clone)]
struct Set {
    object: Arc<Object>,
    annotations: BTreeMap<String, String>,
    replicas: i64,
    min_ready_seconds: i64,
    template: Template,
    status: SetStatus,
}

#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SetStatus {
    replicas: i64,
    ready_replicas: i64,
    available_replicas: i64,
    terminating_replicas: Option<i64>,
    observed_generation: i64,
    conditions: Vec<Condition>,
}

impl Deployment {
    fn read(object: &Arc<Object>) -> Option<Self> {
        #[derive(Deserialize)]
        struct Wire {
            metadata: Annotated,
            spec: Spec,
            #[serde(default)]
            status: DeploymentStatus,
        }
        let Wire { metadata, spec, status } = object.decode().ok()?;
        Some(Self {
            object: object.clone(),
            annotations: metadata.annotations.unwrap_or_default(),
            spec,
            status,
            old_status: status_of(object),
        })
    }

    fn name(&self) -> &str {
        &self.object.key.name
    }

    fn replicas(&self) -> i64 {
        self.spec.replicas.unwrap_or(1)
    }

    fn is_rolling(&self) -> bool {
        self.spec.strategy.kind != "Recreate"
    }

    /// (maxSurge, maxUnavailable) in pods. Both zero would let nothing happen, so then one pod may be unavailable.
    fn bounds(&self) -> (i64, i64) {
        let rolling = self.spec.strategy.rolling_update.as_ref();
        let quarter = IntOrPercent::Percent("25%".into());
        let part = |field: Option<&IntOrPercent>, up| field.unwrap_or(&quarter).of(self.replicas(), up);
        let surge = part(rolling.and_then(|rolling| rolling.max_surge.as_ref()), true);
        let unavailable = part(rolling.and_then(|rolling| rolling.max_unavailable.as_ref()), false);
        if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable.min(self.replicas())) }
    }

    fn max_surge(&self) -> i64 {
        if self.is_rolling() { self.bounds().0 } else { 0 }
    }

    fn max_unavailable(&self) -> i64 {
        if self.is_rolling() && self.replicas() > 0 { self.bounds().1 } else { 0 }
    }

    fn has_progress_deadline(&self) -> bool {
        self.spec.progress_deadline_seconds.is_some_and(|seconds| seconds != NO_DEADLINE)
    }
}

impl Set {
    fn read(object: &Arc<Object>) -> Option<Self> {
        #[derive(Deserialize)]
        struct Wire {
            metadata: Annotated,
            spec: SetSpec,
            #[serde(default)]
            status: SetStatus,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct SetSpec {
            replicas: Option<i64>,
            #[serde(default)]
            min_ready_seconds: i64,
            #[serde(default)]
            template: Template,
        }
        let Wire { metadata, spec, status } = object.decode().ok()?;
        Some(Self {
            object: object.clone(),
            annotations: metadata.annotations.unwrap_or_default(),
            replicas: spec.replicas.unwrap_or(1),
            min_ready_seconds: spec.min_ready_seconds,
            template: spec.template,
            status,
        })
    }

    fn name(&self) -> &str {
        &self.object.key.name
    }

    /// A number that the deployment controller keeps in an annotation; 0 without it.
    fn number(&self, annotation: &str) -> i64 {
        self.annotations.get(annotation).and_then(|text| text.parse().ok()).unwrap_or(0)
    }
}

/// What one run works with: the Deployment, its sets, and the plan that grows.
struct Run<'a> {
    deployment: &'a Deployment,
    /// The set of the current template, if it exists.
    new: Option<Set>,
    /// All others, oldest first.
    old: Vec<Set>,
    now: Time,
    plan: Plan,
}

impl Run<'_> {
    fn all(&self) -> impl Iterator<Item = &Set> {
        self.old.iter().chain(&self.new)
    }

    fn event(&mut self, warning: bool, reason: &'static str, message: String) {
        event(&mut self.plan, &self.deployment.object, &KIND, warning, reason, message);
    }
}

fn of_replica_set(snapshot: &Snapshot, event: &Event) -> Vec<Key> {
    KIND.keys_of_dependent(snapshot, event)
}

/// Recreate waits for the last pod of the old template to be gone.
fn of_pod(snapshot: &Snapshot, event: &Event) -> Vec<Key> {
    if event.change != Change::Deleted {
        return Vec::new();
    }
    let set = replica_set::KIND.controller(snapshot, &event.object);
    set.and_then(|set| KIND.controller_key(set)).into_iter().collect()
}

fn reconcile(snapshot: &Snapshot, key: &Key, now: Time, _: &Settings) -> Plan {
    let Some(deployment) = snapshot.get(key).and_then(Deployment::read) else { return Plan::default() };
    let object = &deployment.object;
    let mut plan = Plan::default();
    let Some(selector) = selector_of(object).filter(|selector| !selector.is_everything()) else {
        let message = "This deployment is selecting all pods. A non-empty selector is required.";
        event(&mut plan, object, &KIND, true, "SelectingAll", message);
        return plan;
    };
    let claimed = KIND.claim(snapshot, object, &selector, REPLICA_SETS, |_| true, &mut plan);
    let mut sets: Vec<Set> = claimed.iter().filter_map(Set::read).collect();
    sets.sort_by(|a, b| age_order(&a.object, &b.object));
    let new = revision::find_new(&deployment, &sets).map(|index| sets.remove(index));
    let mut run = Run { deployment: &deployment, new, old: sets, now, plan };
    if object.meta.is_deleting() {
        status::tell(&mut run);
    } else if !tell_pause(&mut run) {
        step(&mut run, snapshot);
    }
    run.plan
}

/// Oldest first; names decide between twins.
fn age_order(a: &Object, b: &Object) -> std::cmp::Ordering {
    (a.meta.creation_timestamp, &a.key.name).cmp(&(b.meta.creation_timestamp, &b.key.name))
}

fn step(run: &mut Run, snapshot: &Snapshot) {
    let deployment = run.deployment;
    if revision::update_new(run) {
        status::tell(run);
    } else if deployment.spec.paused || deployment.is_rolling() && scale::is_due(run) {
        scale::scale(run);
        if deployment.spec.paused {
            revision::clean_up(run);
        }
        status::tell(run);
    } else if deployment.is_rolling() {
        rollout::rolling_update(run, snapshot);
    } else {
        rollout::recreate(run, snapshot);
    }
}

/// Notes in the condition Progressing that the Deployment was paused or resumed. True if that is all for this run.
fn tell_pause(run: &mut Run) -> bool {
    let deployment = run.deployment;
    if !deployment.has_progress_deadline() {
        return false;
    }
    let progressing = status::progressing(deployment);
    if progressing.is_some_and(|held| held.reason == "ProgressDeadlineExceeded") {
        return false;
    }
    let is_told = progressing.is_some_and(|held| held.reason == "DeploymentPaused");
    let (reason, message) = match (deployment.spec.paused, is_told) {
        (true, false) => ("DeploymentPaused", "Deployment is paused"),
        (false, true) => ("DeploymentResumed", "Deployment is resumed"),
        _ => return false,
    };
    let mut conditions = deployment.status.conditions.clone();
    set_condition(
        &mut conditions,
        status::condition("Progressing", "Unknown", reason, message.into(), run.now),
    );
    let mut new = deployment.old_status.clone();
    if !new.is_object() {
        new = json!({});
    }
    new["conditions"] = json!(conditions);
    write_status(&mut run.plan, &deployment.object, &deployment.old_status, new);
    true
}

/// A ReplicaSet that could not be made ends progress for as long as that lasts.
fn refused(snapshot: &Snapshot, key: &Key, now: Time, write: &Write, refusal: &Status) -> Plan {
    let mut plan = Plan::default();
    let Write::Create { resource: REPLICA_SETS, object } = write else { return plan };
    let Some(deployment) = snapshot.get(key).and_then(Deployment::read) else { return plan };
    let name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
    let message = format!("Failed to create new replica set \"{name}\": {refusal}");
    event(&mut plan, &deployment.object, &KIND, true, "ReplicaSetCreateError", message.as_str());
    let held = status::progressing(&deployment);
    if !deployment.has_progress_deadline() || held.is_some_and(|held| held.message == message) {
        return plan;
    }
    let mut conditions = deployment.status.conditions.clone();
    set_condition(
        &mut conditions,
        status::condition("Progressing", "False", "ReplicaSetCreateError", message, now),
    );
    plan.write(Write::Merge {
        key: key.clone(),
        expect: Expect::unchanged(&deployment.object),
        subresource: "status",
        patch: json!({"status": {"conditions": conditions}}),
    });
    plan
}
