//! Pods with names that last: one after the other up, in reverse order down, each with its own claims.
//!
//! <https://kubernetes.io/docs/concepts/workloads/controllers/statefulset/>

mod claims;
mod pods;

use std::collections::BTreeMap;
use std::sync::Arc;

use kinds::{PERSISTENT_VOLUME_CLAIMS, PODS, STATEFUL_SETS};
use object::{Event, Key, Object, Snapshot, Status, Time};
use plan::{Plan, Write};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::ownership::{Kind, own_key, selector_of};
use crate::revisions::{History, Revision};
use crate::views::{IntOrPercent, Pod, Template, status_of};
use crate::writes::{delete, event, wake_if_later, without_empty, write_status};
use crate::{Controller, Settings, Watch};

pub static CONTROLLER: Controller = Controller {
    name: "statefulset-controller",
    user: "statefulset-controller",
    watches: &[
        Watch { resource: STATEFUL_SETS, keys: own_key },
        Watch { resource: PERSISTENT_VOLUME_CLAIMS, keys: of_claim },
        Watch { resource: PODS, keys: of_pod },
    ],
    reconcile,
    refused: Some(refused),
    resync_secs: None,
};

const KIND: Kind = Kind { api_version: "apps/v1", kind: "StatefulSet", resource: STATEFUL_SETS };
const REVISION: &str = "controller-revision-hash";

#[derive(Deserialize)]
struct View {
    spec: Spec,
    #[serde(default)]
    status: SetStatus,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    replicas: Option<i64>,
    #[serde(default)]
    service_name: String,
    #[serde(default)]
    pod_management_policy: String,
    #[serde(default)]
    update_strategy: UpdateStrategy,
    #[serde(default)]
    min_ready_seconds: i64,
    revision_history_limit: Option<i64>,
    template: Template,
    #[serde(default)]
    volume_claim_templates: Vec<Value>,
    #[serde(default)]
    persistent_volume_claim_retention_policy: RetentionPolicy,
    #[serde(default)]
    ordinals: Ordinals,
    #[serde(default)]
    selector: Selector,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Selector {
    match_labels: BTreeMap<String, String>,
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
    partition: i64,
    max_unavailable: Option<IntOrPercent>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RetentionPolicy {
    when_deleted: String,
    when_scaled: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Ordinals {
    start: i64,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SetStatus {
    current_replicas: i64,
    current_revision: String,
    collision_count: Option<i64>,
}

/// What one run works with.
struct Run<'a> {
    snapshot: &'a Snapshot,
    set: &'a Arc<Object>,
    spec: Spec,
    status: SetStatus,
    /// What pods below the partition have, and all that were not updated yet.
    current: Revision,
    /// What the template is now.
    update: Revision,
    now: Time,
    plan: Plan,
}

/// A pod of the set and the number in its name.
struct Member {
    ordinal: i64,
    pod: Pod,
}

fn of_pod(snapshot: &Snapshot, event: &Event) -> Vec<Key> {
    KIND.keys_of_dependent(snapshot, event)
}

/// Claims are named after their template, their set and an ordinal; a set that may miss one looks again.
fn of_claim(snapshot: &Snapshot, event: &Event) -> Vec<Key> {
    let key = event.key();
    let Some((base, _)) = key.name.rsplit_once('-') else { return Vec::new() };
    let is_of = |set: &&Arc<Object>| base.ends_with(&format!("-{}", set.key.name));
    snapshot.list(STATEFUL_SETS, &key.namespace).filter(is_of).map(|set| set.key.clone()).collect()
}

fn reconcile(snapshot: &Snapshot, key: &Key, now: Time, _: &Settings) -> Plan {
    let mut plan = Plan::default();
    let Some(set) = snapshot.get(key) else { return plan };
    let Ok(View { spec, status }) = set.decode() else { return plan };
    let Some(selector) = selector_of(set).filter(|selector| !selector.is_everything()) else { return plan };
    let may_adopt = |object: &Arc<Object>| ordinal_of(&set.key.name, &object.key.name).is_some();
    let claimed = KIND.claim(snapshot, set, &selector, PODS, may_adopt, &mut plan);
    let history = History {
        kind: &KIND,
        owner: set,
        selector: &selector,
        hash_label: "controller.kubernetes.io/hash",
        collisions: status.collision_count.unwrap_or(0),
    };
    let revisions = history.list(snapshot, &mut plan);
    let Some(update) = history.current(snapshot, &revisions, &spec.template, &mut plan) else {
        let old = status_of(set);
        let mut new = if old.is_object() { old.clone() } else { json!({"replicas": 0}) };
        new["collisionCount"] = (status.collision_count.unwrap_or(0) + 1).into();
        write_status(&mut plan, set, &old, new);
        return plan;
    };
    let current = revisions.iter().find(|revision| revision.name == status.current_revision);
    let current = current.unwrap_or(&update).clone();
    let mut members: Vec<Member> = claimed.iter().filter_map(|object| member(set, object)).collect();
    members.sort_by_key(|member| member.ordinal);
    let limit = spec.revision_history_limit.unwrap_or(10);
    let mut run = Run { snapshot, set, spec, status, current, update, now, plan };
    run.tell(&members);
    if !set.meta.is_deleting() {
        run.act(&members);
    }
    let is_live = |revision: &Revision| {
        let used = |member: &Member| member.pod.object.meta.label(REVISION) == Some(&revision.name);
        revision.name == run.current.name || revision.name == run.update.name || members.iter().any(used)
    };
    history.truncate(&revisions, is_live, limit, &mut run.plan);
    run.plan
}

fn member(set: &Object, object: &Arc<Object>) -> Option<Member> {
    Some(Member { ordinal: ordinal_of(&set.key.name, &object.key.name)?, pod: Pod::read(object) })
}

/// `web-12` of `web` → 12.
fn ordinal_of(set: &str, pod: &str) -> Option<i64> {
    let digits = pod.strip_prefix(set)?.strip_prefix('-')?;
    let number: i64 = digits.parse().ok()?;
    (number >= 0 && number.to_string() == digits).then_some(number)
}

impl Run<'_> {
    fn replicas(&self) -> i64 {
        self.spec.replicas.unwrap_or(1)
    }

    /// The ordinals that should exist.
    fn range(&self) -> std::ops::Range<i64> {
        self.spec.ordinals.start..self.spec.ordinals.start + self.replicas()
    }

    fn in_order(&self) -> bool {
        self.spec.pod_management_policy != "Parallel"
    }

    fn is_rolling(&self) -> bool {
        self.spec.update_strategy.kind != "OnDelete"
    }

    /// The first ordinal that an update touches.
    fn partition(&self) -> i64 {
        let partition =
            self.spec.update_strategy.rolling_update.as_ref().map_or(0, |rolling| rolling.partition);
        self.spec.ordinals.start + partition
    }

    fn is_available(&self, pod: &Pod) -> bool {
        pod.status.phase == "Running" && pod.is_available(self.spec.min_ready_seconds, self.now)
    }

    fn event(&mut self, warning: bool, reason: &'static str, message: String) {
        event(&mut self.plan, self.set, &KIND, warning, reason, message);
    }

    /// Counts what is there. When everything runs the new revision, that becomes the current one.
    fn tell(&mut self, members: &[Member]) {
        let runs = |member: &&Member| member.pod.status.phase == "Running" && member.pod.is_ready();
        let counts = |revision: &Revision| {
            let has = |member: &&Member| {
                !member.pod.is_deleting() && member.pod.object.meta.label(REVISION) == Some(&revision.name)
            };
            members.iter().filter(has).count()
        };
        for at in members.iter().filter_map(|member| member.pod.available_at(self.spec.min_ready_seconds)) {
            wake_if_later(&mut self.plan, at, self.now);
        }
        let ready = members.iter().filter(runs).count();
        let updated = counts(&self.update);
        let is_full = i64::try_from(members.len()) == Ok(self.replicas());
        let is_rolled_out =
            self.is_rolling() && is_full && updated == members.len() && ready == members.len();
        if is_rolled_out {
            self.current = self.update.clone();
        }
        let new = without_empty(
            json!({
                "observedGeneration": self.set.meta.generation,
                "replicas": members.len(),
                "readyReplicas": ready,
                "availableReplicas": members.iter().filter(|member| self.is_available(&member.pod)).count(),
                "currentReplicas": counts(&self.current),
                "updatedReplicas": updated,
                "currentRevision": self.current.name,
                "updateRevision": self.update.name,
            }),
            &["replicas", "availableReplicas"],
        );
        let mut new = new;
        new["collisionCount"] = self.status.collision_count.unwrap_or(0).into();
        let old = status_of(self.set);
        if let Some(conditions) = old.get("conditions") {
            new["conditions"] = conditions.clone();
        }
        write_status(&mut self.plan, self.set, &old, new);
    }

    /// One step towards the wanted pods; with the order kept, the first that is not well ends it.
    fn act(&mut self, members: &[Member]) {
        let by_ordinal: BTreeMap<i64, &Pod> =
            members.iter().map(|member| (member.ordinal, &member.pod)).collect();
        let range = self.range();
        for ordinal in range.clone() {
            if self.bring_up(ordinal, by_ordinal.get(&ordinal).copied()) && self.in_order() {
                return;
            }
        }
        let unhealthy =
            members.iter().find(|member| !self.is_healthy(&member.pod)).map(|member| member.ordinal);
        for member in members.iter().rev().filter(|member| !range.contains(&member.ordinal)) {
            if self.condemn(member, unhealthy) && self.in_order() {
                return;
            }
        }
        if self.is_rolling() {
            self.roll(members);
        }
    }

    fn is_healthy(&self, pod: &Pod) -> bool {
        pod.status.phase == "Running" && pod.is_ready() && !pod.is_deleting()
    }

    /// Makes or mends the pod of an ordinal. True if the next ordinal must wait for it.
    fn bring_up(&mut self, ordinal: i64, pod: Option<&Pod>) -> bool {
        let Some(pod) = pod else {
            self.create_pod(ordinal);
            return true;
        };
        if pod.is_finished() {
            if !pod.is_deleting() {
                self.recreate(pod);
            }
            return true;
        }
        if pod.is_deleting() {
            return true;
        }
        if pod.status.phase == "Pending" {
            self.create_claims(ordinal);
        }
        self.keep_claim_owners(ordinal, pod, false);
        self.keep_identity(ordinal, pod);
        !self.is_healthy(pod) || !self.is_available(pod)
    }

    fn recreate(&mut self, pod: &Pod) {
        let set = &self.set.key;
        let (reason, what) = match pod.status.phase.as_str() {
            "Failed" => ("RecreatingFailedPod", "failed"),
            _ => ("RecreatingTerminatedPod", "terminated"),
        };
        let message = format!("StatefulSet {} is recreating {what} Pod {}", set.path(), pod.name());
        self.event(reason == "RecreatingFailedPod", reason, message);
        self.plan.write(delete(&pod.object));
    }

    /// Deletes a pod beyond the wanted ones, last first. True if the one before must wait.
    fn condemn(&mut self, member: &Member, first_unhealthy: Option<i64>) -> bool {
        let pod = &member.pod;
        if pod.is_deleting() {
            return true;
        }
        // With the order kept, nothing goes while another pod is unwell, except that one.
        let waits = self.in_order()
            && first_unhealthy.is_some_and(|unhealthy| unhealthy != member.ordinal)
            && !self.is_healthy(pod);
        if waits {
            return true;
        }
        self.keep_claim_owners(member.ordinal, pod, true);
        self.delete_pod(pod);
        true
    }

    fn delete_pod(&mut self, pod: &Pod) {
        self.plan.write(delete(&pod.object));
        let message = format!("delete Pod {} in StatefulSet {} successful", pod.name(), self.set.key.name);
        self.event(false, "SuccessfulDelete", message);
    }

    /// Replaces pods of other revisions from the last ordinal down to the partition, as many at a time as may be unavailable.
    fn roll(&mut self, members: &[Member]) {
        let rolling = self.spec.update_strategy.rolling_update.as_ref();
        let limit = rolling.and_then(|rolling| rolling.max_unavailable.as_ref());
        let limit = limit.map_or(1, |limit| limit.of(self.replicas(), true).max(1));
        let range = self.range();
        let mine: Vec<&Member> = members.iter().filter(|member| range.contains(&member.ordinal)).collect();
        let mut unavailable: i64 = mine
            .iter()
            .map(|member| i64::from(!self.is_available(&member.pod) || member.pod.is_deleting()))
            .sum();
        let partition = self.partition();
        for member in mine.iter().rev().filter(|member| member.ordinal >= partition) {
            let pod = &member.pod;
            let is_updated = pod.object.meta.label(REVISION) == Some(&self.update.name);
            let is_well = self.is_available(pod) && !pod.is_deleting();
            if is_updated || pod.is_deleting() {
                if !is_well && limit == 1 {
                    return;
                }
                continue;
            }
            // An unavailable pod costs nothing to replace.
            if is_well && unavailable >= limit {
                return;
            }
            unavailable += i64::from(is_well);
            self.delete_pod(pod);
            if limit == 1 {
                return;
            }
        }
    }
}

fn refused(snapshot: &Snapshot, key: &Key, _: Time, write: &Write, refusal: &Status) -> Plan {
    let mut plan = Plan::default();
    let Some(set) = snapshot.get(key) else { return plan };
    let Write::Create { resource, object } = write else { return plan };
    let name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
    let what = match *resource {
        PODS => "Pod",
        PERSISTENT_VOLUME_CLAIMS => "Claim",
        _ => return plan,
    };
    let message = format!("create {what} {name} in StatefulSet {} failed error: {refusal}", key.name);
    event(&mut plan, set, &KIND, true, "FailedCreate", message);
    plan
}
