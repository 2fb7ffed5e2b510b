//! One pod on this node: what was seen of it, and what was said.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use kinds::PODS;
use kubelet::{Event, Pod, Rejection};
use object::{Key, Revision, Time};
use plan::Occurrence;
use plan::pod::{DiskUse, Failure, Observed, PodOp};
use serde::Deserialize;
use serde_json::Value;
use tokio::task::JoinSet;
use tracing::debug;

use crate::api::{ApiError, PatchKind};
use crate::ops::{self, Done, Tools};
use crate::patience::Patience;
use crate::pods::Outputs;
use crate::probes::Probes;

/// A status that could not be written is tried again after this long.
pub const STATUS_RETRY_SECONDS: i64 = 1;

pub struct Worker {
    pub pod: Arc<Pod>,
    /// The revision of `pod`.
    revision: Revision,
    pub is_gone: bool,
    /// Whether the node takes the pod; none until it was asked.
    pub admission: Option<Result<(), Rejection>>,
    /// What only this process has seen; sandboxes and containers are asked of the runtime each time.
    pub seen: Observed,
    pub probes: Probes,
    pub patience: Patience,
    told: BTreeSet<(&'static str, String, String)>,
    /// The status that the API server has, and the one on its way there.
    posted: Option<Posted>,
    pub is_posting: bool,
    pub retry_status_at: Option<Time>,
    pub wakes_at: Option<Time>,
    /// When the tokens of its volumes must be renewed.
    pub tokens_due: Option<Time>,
}

/// A status that was written, and the revision that the pod had then.
struct Posted {
    status: Value,
    revision: Revision,
}

impl Worker {
    pub fn new(pod: Arc<Pod>) -> Self {
        Self {
            pod,
            revision: 0,
            is_gone: false,
            admission: None,
            seen: Observed::default(),
            probes: Probes::default(),
            patience: Patience::default(),
            told: BTreeSet::new(),
            posted: None,
            is_posting: false,
            retry_status_at: None,
            wakes_at: None,
            tokens_due: None,
        }
    }

    /// The pod as the API server has it now.
    pub fn heard(&mut self, pod: Arc<Pod>, revision: Revision, now: Time) {
        if revision < self.revision {
            // The cluster was put back to an older state: nothing is known of what it has.
            self.posted = None;
        }
        self.pod = pod;
        self.revision = revision;
        self.is_gone = false;
        self.see_if_overwritten(now);
    }

    /// The answer to a write and what others write after it come on two ways, in any order.
    fn see_if_overwritten(&mut self, now: Time) {
        let is_overwritten = |posted: &Posted| {
            self.revision > posted.revision && kubelet::is_overwritten(&posted.status, &self.pod)
        };
        if self.posted.as_ref().is_some_and(is_overwritten) {
            self.posted = None;
            // Not at once: who overwrote it will do so again as long as it takes this node for lost.
            self.retry_status_at = Some(now.plus_secs(STATUS_RETRY_SECONDS));
        }
    }

    /// What is true of the pod now.
    pub fn observe(&mut self, tools: &Tools) -> Observed {
        let uid = &self.pod.metadata.uid;
        let runtime::Listing { sandboxes, containers } = tools.runtime.list_pod(uid);
        self.seen.termination_messages.retain(|id, _| containers.iter().any(|one| one.id == *id));
        for container in &containers {
            if !self.seen.termination_messages.contains_key(&container.id)
                && let Some(message) = ops::termination_message(container)
            {
                self.seen.termination_messages.insert(container.id.clone(), message);
            }
        }
        self.seen.probes.retain(|(id, _), _| containers.iter().any(|one| one.id == *id));
        let spec = &self.pod.spec;
        for image in spec.images() {
            match tools.image_id(image) {
                Some(id) => self.seen.images.insert(image.to_owned(), id),
                None => self.seen.images.remove(image),
            };
        }
        Observed { sandboxes, containers, ..self.seen.clone() }
    }

    /// Notes an op that is to be done. Whether it is one to begin: a stop that is under way is only hurried.
    pub fn begin(&mut self, tools: &Tools, op: &PodOp, now: Time) -> bool {
        if let PodOp::KillContainer(kill) = op {
            self.patience.give(&kill.id, Duration::from_secs(kill.grace_seconds.max(0).unsigned_abs()));
            self.seen.stopping.insert(kill.id.clone(), now.plus_secs(kill.grace_seconds));
        }
        let is_new = self.seen.in_flight.insert(op.key());
        if let PodOp::KillContainer(kill) = op
            && !is_new
        {
            self.tell(tools, false, "Killing", kill.message.clone(), &kill.name);
        }
        is_new
    }

    /// Learns what became of an op.
    pub fn take_in(&mut self, tools: &Tools, done: Done, now: Time) {
        if let Some(key) = done.key() {
            self.seen.in_flight.remove(&key);
        }
        let seen = &mut self.seen;
        match done {
            Done::Claims(claims) => seen.claims = claims,
            Done::Volumes { volumes, tokens_due } => {
                seen.volumes = Some(volumes);
                seen.volume_failure = None;
                self.tokens_due = tokens_due;
            }
            Done::VolumesFailed { message } => {
                again(&mut seen.volume_failure, "FailedMount", message.clone(), now);
                self.tell(tools, true, "FailedMount", message, "");
            }
            Done::Pulled { image, id } => {
                seen.pull_failures.remove(&image);
                seen.pulled.insert(image.clone());
                seen.images.insert(image, id);
            }
            Done::PullFailed { image, reason, message } => {
                again_of(&mut seen.pull_failures, image, &reason, message, now);
            }
            Done::Sandbox => seen.sandbox_failure = None,
            Done::SandboxFailed { message } => {
                again(&mut seen.sandbox_failure, "FailedCreatePodSandBox", message.clone(), now);
                let told = format!("Failed to create pod sandbox: {message}");
                self.tell(tools, true, "FailedCreatePodSandBox", told, "");
            }
            Done::Resized => seen.resize_failure = None,
            Done::ResizeFailed { message } => again(&mut seen.resize_failure, "Error", message, now),
            Done::Disk(used) => seen.disk = Some(used),
            // Looked at again when it is due.
            Done::DiskUnknown => seen.disk = Some(DiskUse { at: now, ..DiskUse::default() }),
            Done::Started { name } => {
                seen.start_failures.remove(&name);
            }
            Done::StartFailed { name, reason, message } => {
                again_of(&mut seen.start_failures, name, &reason, message, now);
            }
            Done::PostStartBegan { container_id } => {
                seen.post_start_running.insert(container_id);
            }
            Done::PostStartEnded { container_id } => {
                seen.post_start_running.remove(&container_id);
            }
            Done::Status { status, result } => self.on_status(status, result, now),
            Done::Container { id } => {
                seen.stopping.remove(&id);
                self.patience.forget(&id);
            }
            Done::Forgotten | Done::ForgetFailed { .. } => {}
        }
    }

    fn on_status(&mut self, status: Value, result: Result<Revision, ApiError>, now: Time) {
        self.is_posting = false;
        match result {
            Ok(revision) => {
                self.posted = Some(Posted { status, revision });
                self.see_if_overwritten(now);
            }
            // The pod is gone or another one by now; its deletion is an event of its own.
            Err(error) if error.is_not_found() || error.is_conflict() => {
                self.posted = Some(Posted { status, revision: self.revision });
            }
            Err(error) => {
                debug!(%error, "a pod's status could not be written");
                self.retry_status_at = Some(now.plus_secs(STATUS_RETRY_SECONDS));
            }
        }
    }

    /// Writes the status if it is new. Whether the API server has it.
    pub fn post(
        &mut self,
        uid: &str,
        status: Value,
        tools: &Arc<Tools>,
        outputs: &Outputs,
        tasks: &mut JoinSet<()>,
        now: Time,
    ) -> bool {
        if self.is_gone || self.posted.as_ref().is_some_and(|posted| posted.status == status) {
            return true;
        }
        if self.is_posting || self.retry_status_at.is_some_and(|at| at > now) {
            return false;
        }
        self.is_posting = true;
        self.retry_status_at = None;
        let (tools, done, uid) = (tools.clone(), outputs.done.clone(), uid.to_owned());
        let metadata = &self.pod.metadata;
        let path = format!("/api/v1/namespaces/{}/pods/{}/status", metadata.namespace, metadata.name);
        tasks.spawn(async move {
            let patch = kubelet::status_patch(&uid, &status);
            let result: Result<Written, ApiError> =
                tools.api.patch(&path, PatchKind::Strategic, &patch).await;
            let result = result.map(|pod| pod.metadata.resource_version.parse().unwrap_or_default());
            // The loop is gone only when the node stops.
            let _ = done.send((uid, Done::Status { status, result }));
        });
        false
    }

    fn tell(&self, tools: &Tools, warning: bool, reason: &'static str, message: String, container: &str) {
        let event = Event { warning, reason, message, container: container.to_owned() };
        tools.reports.tell(occurrence(&self.pod, event));
    }

    /// Says it unless the same was said of this pod before.
    pub fn tell_once(
        &mut self,
        tools: &Tools,
        warning: bool,
        reason: &'static str,
        message: String,
        container: &str,
    ) {
        if self.told.insert((reason, message.clone(), container.to_owned())) {
            self.tell(tools, warning, reason, message, container);
        }
    }
}

/// As much of the answer to a write as is asked for.
#[derive(Deserialize)]
struct Written {
    metadata: WrittenMetadata,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WrittenMetadata {
    resource_version: String,
}

/// One failure more, in a row.
fn again(held: &mut Option<Failure>, reason: &str, message: String, now: Time) {
    let count = held.as_ref().map_or(1, |failure| failure.count + 1);
    *held = Some(Failure { reason: reason.to_owned(), message, at: now, count });
}

fn again_of(held: &mut BTreeMap<String, Failure>, of: String, reason: &str, message: String, now: Time) {
    let mut failure = held.remove(&of);
    again(&mut failure, reason, message, now);
    held.extend(failure.map(|failure| (of, failure)));
}

/// An event about a pod, or one of its containers.
pub fn occurrence(pod: &Pod, event: Event) -> Occurrence {
    let list = |list: &[_], name: &str, container: &str| {
        let found = list.iter().any(|one: &kubelet::ContainerSpec| one.name == container);
        found.then(|| format!("spec.{name}{{{container}}}"))
    };
    let spec = &pod.spec;
    let field_path = list(&spec.containers, "containers", &event.container)
        .or_else(|| list(&spec.init_containers, "initContainers", &event.container))
        .or_else(|| list(&spec.ephemeral_containers, "ephemeralContainers", &event.container))
        .unwrap_or_default();
    Occurrence {
        about: Key::new(PODS, pod.metadata.namespace.as_str(), pod.metadata.name.as_str()),
        api_version: "v1".into(),
        kind: "Pod".into(),
        uid: pod.metadata.uid.as_str().into(),
        field_path: field_path.into(),
        warning: event.warning,
        reason: event.reason,
        message: event.message,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(ready: &str) -> Arc<Pod> {
        let pod =
            json!({"metadata": {"uid": "u"}, "status": {"conditions": [{"type": "Ready", "status": ready}]}});
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    /// A node that was taken for lost and is back: the controller writes over what it posts, until it takes the node for alive.
    #[test]
    fn a_status_that_was_overwritten_is_posted_again_in_whatever_order_it_is_told() {
        let now = Time::from_secs(1_000);
        let ready = json!({"conditions": [{"type": "Ready", "status": "True"}]});
        for (what, answer_first, revision, is_posted) in [
            ("overwritten, told after the answer", true, 11, false),
            ("overwritten, told before the answer", false, 11, false),
            ("an earlier state that comes late", true, 9, true),
            ("an earlier state", false, 9, true),
        ] {
            let mut worker = Worker::new(pod("False"));
            if answer_first {
                worker.on_status(ready.clone(), Ok(10), now);
                worker.heard(pod("False"), revision, now);
            } else {
                worker.heard(pod("False"), revision, now);
                worker.on_status(ready.clone(), Ok(10), now);
            }
            assert_eq!(worker.posted.is_some(), is_posted, "{what}");
            assert_eq!(worker.retry_status_at.is_some(), !is_posted, "{what}");
        }
    }
}
