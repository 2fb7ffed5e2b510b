//! One pod on every node that fits.
//!
//! <https://kubernetes.io/docs/concepts/workloads/controllers/daemonset/>

mod node_fit;
mod update;

use std::collections::BTreeMap;
use std::sync::Arc;

use kinds::{DAEMON_SETS, NODES, PODS};
use object::{Change, Event, Key, Object, Snapshot, Status, Time};
use plan::{Plan, Write};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::naming::Names;
use crate::nodes::Node;
use crate::ownership::{Kind, own_key, selector_of};
use crate::revisions::{History, Revision};
use crate::views::{IntOrPercent, Pod, Template, annotations, status_of};
use crate::writes::{delete, event, pod_of, wake_if_later, without_empty, write_status};
use crate::{Controller, Settings, Watch};

use node_fit::Fit;

pub static CONTROLLER: Controller = Controller {
    name: "daemonset-controller",
    user: "daemon-set-controller",
    watches: &[
        Watch { resource: DAEMON_SETS, keys: own_key },
        Watch { resource: NODES, keys: of_node },
        Watch { resource: PODS, keys: of_pod },
    ],
    reconcile,
    refused: Some(refused),
    resync_secs: None,
};

const KIND: Kind = Kind { api_version: "apps/v1", kind: "DaemonSet", resource: DAEMON_SETS };
/// On revisions and on pods: the hash of the template.
const HASH: &str = "controller-revision-hash";
const GENERATION: &str = "deprecated.daemonset.template.generation";
/// Pods made or deleted by one plan.
const BURST: usize = 250;
/// A pod that failed is replaced after so long, so that a node that refuses its pod is not asked every moment.
const REPLACE_AFTER_SECS: i64 = 15;

#[derive(Deserialize)]
struct View {
    spec: Spec,
    #[serde(default)]
    status: SetStatus,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    #[serde(default)]
    update_strategy: UpdateStrategy,
    #[serde(default)]
    min_ready_seconds: i64,
    revision_history_limit: Option<i64>,
    template: Template,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct UpdateStrategy {
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

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SetStatus {
    collision_count: Option<i64>,
}

/// A node, whether the set wants a pod there, and the pods that it has there, oldest first.
struct Place {
    node: String,
    fit: Fit,
    pods: Vec<Pod>,
}

struct Run<'a> {
    snapshot: &'a Snapshot,
    set: &'a Arc<Object>,
    spec: Spec,
    update: Revision,
    now: Time,
    /// (node to make a pod on)
    create: Vec<String>,
    delete: Vec<Pod>,
    plan: Plan,
}

fn of_pod(snapshot: &Snapshot, event: &Event) -> Vec<Key> {
    KIND.keys_of_dependent(snapshot, event)
}

/// A node concerns every set when it comes, goes, or changes what sets look at; heartbeats do not.
fn of_node(snapshot: &Snapshot, event: &Event) -> Vec<Key> {
    let taints = |object: &Arc<Object>| Node::read(object).map(|node| node.spec.taints);
    if event.change == Change::Updated
        && let Some(previous) = &event.previous
        && previous.meta.labels == event.object.meta.labels
        && taints(previous) == taints(&event.object)
    {
        return Vec::new();
    }
    snapshot.list(DAEMON_SETS, "").map(|set| set.key.clone()).collect()
}

fn reconcile(snapshot: &Snapshot, key: &Key, now: Time, _: &Settings) -> Plan {
    let mut plan = Plan::default();
    let Some(set) = snapshot.get(key) else { return plan };
    let Ok(View { spec, status }) = set.decode() else { return plan };
    let Some(selector) = selector_of(set).filter(|selector| !selector.is_everything()) else {
        let message = "This daemon set is selecting all pods. A non-empty selector is required.";
        event(&mut plan, set, &KIND, true, "SelectingAll", message);
        return plan;
    };
    let claimed = KIND.claim(snapshot, set, &selector, PODS, |_| true, &mut plan);
    let collisions = status.collision_count.unwrap_or(0);
    let history = History { kind: &KIND, owner: set, selector: &selector, hash_label: HASH, collisions };
    let revisions = history.list(snapshot, &mut plan);
    let Some(update) = history.current(snapshot, &revisions, &spec.template, &mut plan) else {
        let old = status_of(set);
        let mut new = if old.is_object() { old.clone() } else { json!({}) };
        new["collisionCount"] = (collisions + 1).into();
        write_status(&mut plan, set, &old, new);
        return plan;
    };
    let limit = spec.revision_history_limit.unwrap_or(10);
    let pods: Vec<Pod> = claimed.iter().map(Pod::read).collect();
    let mut run = Run { snapshot, set, spec, update, now, create: Vec::new(), delete: Vec::new(), plan };
    let (places, stray) = run.places(pods);
    run.tell(&places, collisions);
    if !set.meta.is_deleting() {
        run.delete.extend(stray);
        places.iter().for_each(|place| run.manage(place));
        if run.spec.update_strategy.kind != "OnDelete" && run.create.is_empty() && run.delete.is_empty() {
            update::roll(&mut run, &places);
        }
        run.carry_out();
    }
    let used = |revision: &Revision| {
        let has = |pod: &Pod| pod.object.meta.label(HASH) == Some(&revision.hash);
        revision.name == run.update.name || places.iter().flat_map(|place| &place.pods).any(has)
    };
    history.truncate(&revisions, used, limit, &mut run.plan);
    run.plan
}

impl Run<'_> {
    /// Every node with its pods, and the pods that wait for a node that is not there.
    fn places(&self, pods: Vec<Pod>) -> (Vec<Place>, Vec<Pod>) {
        let mut by_node: BTreeMap<String, Vec<Pod>> = BTreeMap::new();
        let mut stray = Vec::new();
        for pod in pods {
            match pod.node().map(str::to_owned).or_else(|| node_fit::pinned_node(&pod.object)) {
                Some(node) if self.snapshot.find(NODES, "", &node).is_some() => {
                    by_node.entry(node).or_default().push(pod);
                }
                Some(_) if pod.node().is_none() && !pod.is_deleting() => stray.push(pod),
                _ => {}
            }
        }
        let requirements = node_fit::Requirements::read(&self.spec.template);
        let places = self.snapshot.list(NODES, "").filter_map(Node::read).map(|node| {
            let mut pods = by_node.remove(node.name()).unwrap_or_default();
            pods.sort_by(|a, b| age(a).cmp(&age(b)));
            Place { fit: requirements.fit(&node), node: node.name().to_owned(), pods }
        });
        (places.collect(), stray)
    }

    /// Makes the pod that is missing on a node, and deletes those that are too many, finished, or not wanted there.
    fn manage(&mut self, place: &Place) {
        let present: Vec<&Pod> = place.pods.iter().filter(|pod| !pod.is_deleting()).collect();
        match place.fit {
            Fit::No => self.delete.extend(present.into_iter().cloned()),
            Fit::Stay => self.thin_out(place, &present),
            Fit::Run => {
                self.thin_out(place, &present);
                if place.pods.is_empty() {
                    self.create.push(place.node.clone());
                }
            }
        }
    }

    fn thin_out(&mut self, place: &Place, present: &[&Pod]) {
        let mut running: Vec<&Pod> = Vec::new();
        for pod in present {
            match pod.status.phase.as_str() {
                "Failed" => self.replace_failed(place, pod),
                "Succeeded" => {
                    let message = format!(
                        "Found succeeded daemon pod {} on node {}, will try to delete it",
                        pod.object.key.path(),
                        place.node
                    );
                    event(&mut self.plan, self.set, &KIND, false, "SucceededDaemonPod", message);
                    self.delete.push((*pod).clone());
                }
                _ => running.push(pod),
            }
        }
        if !update::has_surge(&self.spec) {
            self.delete.extend(running.into_iter().skip(1).cloned());
            return;
        }
        // One of the new revision may run beside one of an old one, until the new one is available.
        let is_new = |pod: &&&Pod| pod.object.meta.label(HASH) == Some(&self.update.hash);
        let (new, old): (Vec<&Pod>, Vec<&Pod>) = running.iter().partition(is_new);
        let replaced = new.iter().any(|pod| pod.is_available(self.spec.min_ready_seconds, self.now));
        self.delete.extend(new.into_iter().skip(1).cloned());
        self.delete.extend(old.into_iter().skip(usize::from(!replaced)).cloned());
    }

    fn replace_failed(&mut self, place: &Place, pod: &Pod) {
        let ended =
            pod.status.container_statuses.iter().filter_map(|one| one.state.terminated.as_ref()?.finished_at);
        let since = ended.max().or(pod.object.meta.creation_timestamp).unwrap_or(self.now);
        let at = since.plus_secs(REPLACE_AFTER_SECS);
        if at > self.now {
            self.plan.wake(at);
            return;
        }
        let message = format!(
            "Found failed daemon pod {} on node {}, will try to kill it",
            pod.object.key.path(),
            place.node
        );
        event(&mut self.plan, self.set, &KIND, true, "FailedDaemonPod", message);
        self.delete.push(pod.clone());
    }

    fn carry_out(&mut self) {
        let mut names = Names::new(self.snapshot, PODS, &self.set.key.namespace);
        let prefix = format!("{}-", self.set.key.name);
        for node in std::mem::take(&mut self.create).iter().take(BURST) {
            let name = names.next(&prefix, &self.set.meta.uid);
            let object = self.pod(&name, &prefix, node);
            self.plan.write(Write::Create { resource: PODS, object });
            event(&mut self.plan, self.set, &KIND, false, "SuccessfulCreate", format!("Created pod: {name}"));
        }
        for pod in std::mem::take(&mut self.delete).iter().take(BURST) {
            self.plan.write(delete(&pod.object));
            let message = format!("Deleted pod: {}", pod.name());
            event(&mut self.plan, self.set, &KIND, false, "SuccessfulDelete", message);
        }
    }

    fn pod(&self, name: &str, prefix: &str, node: &str) -> Value {
        let mut pod =
            pod_of(&self.spec.template, &self.set.key.namespace, name, KIND.controller_ref(self.set));
        pod["metadata"]["generateName"] = prefix.into();
        pod["metadata"]["labels"][HASH] = self.update.hash.as_str().into();
        if let Some(generation) = annotations(self.set).get(GENERATION) {
            pod["metadata"]["labels"]["pod-template-generation"] = generation.as_str().into();
        }
        node_fit::pin(&mut pod["spec"], node);
        node_fit::tolerate(&mut pod["spec"]);
        pod
    }

    fn tell(&mut self, places: &[Place], collisions: i64) {
        let mut counts = [0_i64; 6];
        let [desired, current, misscheduled, ready, available, updated] = &mut counts;
        for place in places {
            if place.fit != Fit::Run {
                *misscheduled += i64::from(!place.pods.is_empty());
                continue;
            }
            *desired += 1;
            let Some(pod) = place.pods.first() else { continue };
            *current += 1;
            // During a surge the newest pod that is available speaks for the node.
            let best =
                place.pods.iter().rev().find(|pod| pod.is_available(self.spec.min_ready_seconds, self.now));
            let pod = best.unwrap_or(pod);
            *ready += i64::from(pod.is_ready());
            *available += i64::from(best.is_some());
            *updated += i64::from(pod.object.meta.label(HASH) == Some(&self.update.hash));
            if let Some(at) = pod.available_at(self.spec.min_ready_seconds) {
                wake_if_later(&mut self.plan, at, self.now);
            }
        }
        let [desired, current, misscheduled, ready, available, updated] = counts;
        let mut new = without_empty(
            json!({
                "currentNumberScheduled": current,
                "numberMisscheduled": misscheduled,
                "desiredNumberScheduled": desired,
                "numberReady": ready,
                "observedGeneration": self.set.meta.generation,
                "updatedNumberScheduled": updated,
                "numberAvailable": available,
                "numberUnavailable": desired - available,
            }),
            &["currentNumberScheduled", "numberMisscheduled", "desiredNumberScheduled", "numberReady"],
        );
        if collisions > 0 {
            new["collisionCount"] = collisions.into();
        }
        let old = status_of(self.set);
        if let Some(conditions) = old.get("conditions") {
            new["conditions"] = conditions.clone();
        }
        write_status(&mut self.plan, self.set, &old, new);
    }
}

/// Scheduled before unscheduled, then by age.
fn age(pod: &Pod) -> (bool, Option<Time>, &Key) {
    (pod.node().is_none(), pod.object.meta.creation_timestamp, &pod.object.key)
}

fn refused(snapshot: &Snapshot, key: &Key, _: Time, write: &Write, refusal: &Status) -> Plan {
    let mut plan = Plan::default();
    let Some(set) = snapshot.get(key) else { return plan };
    match write {
        Write::Create { resource: PODS, .. } => {
            event(&mut plan, set, &KIND, true, "FailedCreate", format!("Error creating: {refusal}"));
        }
        Write::Delete { .. } => {
            event(&mut plan, set, &KIND, true, "FailedDelete", format!("Error deleting: {refusal}"));
        }
        _ => {}
    }
    plan
}
