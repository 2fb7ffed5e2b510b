//! The node's loop: one task decides for every pod; what it decides is carried out by tasks of their own, which report back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use kinds::{NODES, PODS, SERVICES};
use kubelet::{Event, Input, Pod, Step};
use object::{Change as ObjectChange, Key, Time};
use plan::node::RuntimeEvent;
use plan::pod::{OpKey, PodOp, ProbeState};
use tokio::sync::{broadcast, mpsc};
use tokio::task::JoinSet;
use tracing::warn;

use crate::clock;
use crate::mirror::{Change, Source};
use crate::ops::{self, Done, Tools};
use crate::probes::Outcome;
use crate::references::{self, References};
use crate::worker::{STATUS_RETRY_SECONDS, Worker, occurrence};

/// Everything that the loop hears of.
pub struct Inputs {
    pub changes: mpsc::UnboundedReceiver<Change>,
    pub runtime_events: broadcast::Receiver<RuntimeEvent>,
    pub probe_outcomes: mpsc::UnboundedReceiver<Outcome>,
    pub done: mpsc::UnboundedReceiver<(String, Done)>,
}

/// Where its tasks report.
#[derive(Clone)]
pub struct Outputs {
    pub probe_outcomes: mpsc::UnboundedSender<Outcome>,
    pub done: mpsc::UnboundedSender<(String, Done)>,
}

pub struct Kubelet {
    tools: Arc<Tools>,
    outputs: Outputs,
    workers: BTreeMap<String, Worker>,
    references: References,
    timers: BTreeSet<(Time, String)>,
    pods_source: Source,
    dirty: BTreeSet<String>,
    /// Ops and status writes that are under way.
    tasks: JoinSet<()>,
}

impl Kubelet {
    pub fn new(tools: Arc<Tools>, outputs: Outputs, pods_source: Source) -> Self {
        Self {
            tools,
            outputs,
            workers: BTreeMap::new(),
            references: References::default(),
            timers: BTreeSet::new(),
            pods_source,
            dirty: BTreeSet::new(),
            tasks: JoinSet::new(),
        }
    }

    /// Runs until one of its inputs is closed.
    pub async fn run(mut self, mut inputs: Inputs) {
        loop {
            let next = self.timers.first().map(|(at, _)| *at);
            tokio::select! {
                change = inputs.changes.recv() => match change {
                    Some(change) => self.on_change(change),
                    None => return,
                },
                event = inputs.runtime_events.recv() => match event {
                    Ok(event) => self.on_runtime(event),
                    // Some were missed: look at everything.
                    Err(broadcast::error::RecvError::Lagged(_)) => self.dirty.extend(self.workers.keys().cloned()),
                    Err(broadcast::error::RecvError::Closed) => return,
                },
                Some(outcome) = inputs.probe_outcomes.recv() => self.on_probe(outcome),
                Some((uid, done)) = inputs.done.recv() => self.on_done(&uid, done),
                () = sleep_until(next) => self.on_timer(),
            }
            // Take in what has come meanwhile, so that a burst makes one decision.
            while let Ok(change) = inputs.changes.try_recv() {
                self.on_change(change);
            }
            while let Ok(event) = inputs.runtime_events.try_recv() {
                self.on_runtime(event);
            }
            while self.tasks.try_join_next().is_some() {}
            for uid in std::mem::take(&mut self.dirty) {
                self.sync(&uid);
            }
        }
    }

    fn on_change(&mut self, change: Change) {
        match change {
            Change::Synced(source) if source == self.pods_source => self.adopt_orphans(),
            Change::Synced(source) if source.resource == SERVICES => {
                self.dirty.extend(self.workers.keys().cloned())
            }
            Change::Synced(source) => self.dirty.extend(self.references.users(&source)),
            Change::Object(event) if event.key().resource == PODS => self.on_pod(&event),
            Change::Object(event) if matches!(event.key().resource.as_str(), "configmaps" | "secrets") => {
                let Key { resource, namespace, name } = event.key();
                let source = references::source(resource.as_str() == "secrets", namespace, name);
                self.dirty.extend(self.references.users(&source));
            }
            Change::Object(_) => {}
        }
    }

    fn on_pod(&mut self, event: &object::Event) {
        let uid = event.object.meta.uid.to_string();
        let pod: Pod = match event.object.decode() {
            Ok(pod) => pod,
            Err(error) => return warn!(key = %event.key(), %error, "a pod that cannot be read is left alone"),
        };
        // A pod of the same name that replaced another takes its uid with it: the old one is gone.
        if let Some(previous) = event.previous.as_ref().filter(|previous| *previous.meta.uid != *uid) {
            self.lose(previous.meta.uid.as_ref());
        }
        if event.change == ObjectChange::Deleted {
            return self.lose(&uid);
        }
        let worker = self.workers.entry(uid.clone()).or_insert_with(|| Worker::new(Arc::default()));
        worker.heard(Arc::new(pod), event.object.revision, clock::now());
        self.dirty.insert(uid);
    }

    fn lose(&mut self, uid: &str) {
        if let Some(worker) = self.workers.get_mut(uid) {
            worker.is_gone = true;
            self.dirty.insert(uid.to_owned());
        }
    }

    /// Sandboxes whose pods the API no longer has are of pods that went while this process was away.
    fn adopt_orphans(&mut self) {
        let sandboxes = self.tools.runtime.list().sandboxes;
        for sandbox in &sandboxes {
            let config = &sandbox.config;
            if !self.workers.contains_key(&config.pod_uid) {
                let mut pod = Pod::default();
                pod.metadata.uid.clone_from(&config.pod_uid);
                pod.metadata.name.clone_from(&config.name);
                pod.metadata.namespace.clone_from(&config.namespace);
                let mut worker = Worker::new(Arc::new(pod));
                worker.is_gone = true;
                self.workers.insert(config.pod_uid.clone(), worker);
                self.dirty.insert(config.pod_uid.clone());
            }
        }
        self.tools.network.retain_pods(&sandboxes);
    }

    fn on_runtime(&mut self, event: RuntimeEvent) {
        match event {
            RuntimeEvent::ContainerChanged { pod_uid, container_id, .. } => {
                self.read_termination_message(&pod_uid, &container_id);
                self.dirty.insert(pod_uid);
            }
            RuntimeEvent::SandboxLost { pod_uid, .. } => {
                self.dirty.insert(pod_uid);
            }
        }
    }

    fn read_termination_message(&mut self, pod_uid: &str, container_id: &str) {
        let Some(worker) = self.workers.get_mut(pod_uid) else { return };
        let container = self.tools.containers(pod_uid).into_iter().find(|one| one.id == container_id);
        if let Some(message) = container.as_ref().and_then(ops::termination_message) {
            worker.seen.termination_messages.insert(container_id.to_owned(), message);
        }
    }

    fn on_probe(&mut self, outcome: Outcome) {
        let Outcome { pod_uid, probe, failure } = outcome;
        let Some(worker) = self.workers.get_mut(&pod_uid) else { return };
        let state: &mut ProbeState =
            worker.seen.probes.entry((probe.container_id.clone(), probe.kind)).or_default();
        let changed = state.record(failure.is_none(), &probe);
        if let Some(output) = failure {
            let message = kubelet::failure_message(probe.kind, &output);
            let event = Event { warning: true, reason: "Unhealthy", message, container: probe.container };
            self.tools.reports.tell(occurrence(&worker.pod, event));
        }
        if changed {
            self.dirty.insert(pod_uid);
        }
    }

    fn on_timer(&mut self) {
        let now = clock::now();
        while let Some((at, uid)) = self.timers.first().cloned().filter(|(at, _)| *at <= now) {
            self.timers.remove(&(at, uid.clone()));
            if let Some(worker) = self.workers.get_mut(&uid) {
                worker.wakes_at = None;
            }
            self.dirty.insert(uid);
        }
    }

    fn on_done(&mut self, uid: &str, done: Done) {
        let Some(worker) = self.workers.get_mut(uid) else { return };
        let now = clock::now();
        match done {
            Done::Forgotten if worker.is_gone || worker.pod.is_deleting() => {
                self.references.drop_pod(&self.tools.mirror, uid);
                self.workers.remove(uid);
            }
            Done::ForgetFailed { message } => {
                worker.seen.in_flight.remove(&OpKey::Forget);
                warn!(pod = %worker.pod.full_name(), message, "a pod could not be cleaned up; trying again");
                self.timers.insert((now.plus_secs(STATUS_RETRY_SECONDS), uid.to_owned()));
            }
            other => {
                worker.take_in(&self.tools, other, now);
                self.dirty.insert(uid.to_owned());
            }
        }
    }

    /// Asks once whether the pod may run here.
    fn admit(&mut self, uid: &str) {
        let Some(worker) = self.workers.get(uid).filter(|worker| worker.admission.is_none()) else { return };
        let pod = worker.pod.clone();
        let admission = if worker.is_gone || pod.is_terminal() {
            Ok(())
        } else {
            let others = self.admitted_beside(uid).map(|worker| &*worker.pod);
            let snapshot = self.tools.mirror.snapshot();
            let node = snapshot.find(NODES, "", &self.tools.facts.name);
            kubelet::admit(&pod, others, &self.tools.facts, node.map(|node| &node.meta.labels))
        };
        if let Some(worker) = self.workers.get_mut(uid) {
            worker.admission = Some(admission);
        }
    }

    /// The other pods that the node has taken and that have not ended.
    fn admitted_beside<'a>(&'a self, uid: &'a str) -> impl Iterator<Item = &'a Worker> + Clone {
        let taken = |worker: &Worker| {
            worker.admission == Some(Ok(())) && !worker.is_gone && !worker.pod.is_terminal()
        };
        let others = self.workers.iter().filter(move |(other, worker)| *other != uid && taken(worker));
        others.map(|(_, worker)| worker)
    }

    /// Decides for one pod, and sets everything in motion.
    fn sync(&mut self, uid: &str) {
        let Some(worker) = self.workers.get_mut(uid) else { return };
        let ends = worker.is_gone || worker.pod.is_deleting();
        let known = self.references.set(&self.tools.mirror, &worker.pod) && self.tools.has_services();
        if !known && !ends {
            return;
        }
        self.admit(uid);
        let Some(worker) = self.workers.get(uid) else { return };
        let others = if kubelet::is_resize_wanted(&worker.pod) {
            self.admitted_beside(uid).map(|other| other.pod.clone()).collect()
        } else {
            Vec::new()
        };
        let Some(worker) = self.workers.get_mut(uid) else { return };
        let now = clock::now();
        let observed = worker.observe(&self.tools);
        let input = Input {
            pod: &worker.pod,
            is_gone: worker.is_gone,
            rejection: worker.admission.as_ref().and_then(|admission| admission.as_ref().err()),
            snapshot: &self.tools.mirror.snapshot(),
            observed: &observed,
            node: &self.tools.facts,
            others: &others,
            now,
        };
        let Step { mut ops, probes, status, events, wake_at } = kubelet::sync(&input);
        worker.probes.set(uid, probes, &self.tools.handlers, &self.outputs.probe_outcomes);
        for Event { warning, reason, message, container } in events {
            worker.tell_once(&self.tools, warning, reason, message, &container);
        }
        let is_posted = worker.post(uid, status, &self.tools, &self.outputs, &mut self.tasks, now);
        if worker.tokens_due.is_some_and(|due| due <= now)
            && !ends
            && let Some(volumes) = worker.seen.volumes.clone()
        {
            ops.push(PodOp::SetUpVolumes(volumes));
        }
        for op in ops {
            // The last status is written before the object goes.
            if op == PodOp::Forget && !is_posted && !worker.is_gone {
                continue;
            }
            if worker.begin(&self.tools, &op, now) {
                ops::spawn(
                    &mut self.tasks,
                    &self.tools,
                    &self.outputs.done,
                    worker.pod.clone(),
                    worker.is_gone,
                    worker.patience.clone(),
                    op,
                );
            }
        }
        let wake = [wake_at, worker.tokens_due, worker.retry_status_at]
            .into_iter()
            .flatten()
            .filter(|at| *at > now)
            .min();
        if worker.wakes_at != wake {
            if let Some(at) = worker.wakes_at.take() {
                self.timers.remove(&(at, uid.to_owned()));
            }
            if let Some(at) = wake {
                self.timers.insert((at, uid.to_owned()));
            }
            worker.wakes_at = wake;
        }
    }
}

async fn sleep_until(at: Option<Time>) {
    match at {
        Some(at) => {
            let wait = at.as_micros().saturating_sub(clock::now().as_micros()).max(0);
            tokio::time::sleep(Duration::from_micros(wait.unsigned_abs())).await;
        }
        None => std::future::pending().await,
    }
}
