//! What an engine drives: see the crate's head.

use std::collections::BTreeMap;
use std::sync::Arc;

use object::{Change, Event, Key, Object, Snapshot, Time};
use plan::{Expect, Plan, Propagation, Write};
use serde_json::json;

use crate::cluster::Cluster;
use crate::explain::Unschedulable;
use crate::node::Node;
use crate::pick::{Fit, mix, schedule};
use crate::plugins::{Plugin, Plugins};
use crate::pod::Pod;
use crate::preemption::{self, Candidate};
use crate::queue::Queue;
use crate::tell;
use crate::volumes::{self, Progress, Waiting};

/// A pod that waits longer for its volumes is tried anew.
const LONGEST_VOLUME_WAIT_SECONDS: i64 = 10 * 60;

/// Waits for room: plugins that a pod leaving a node can satisfy.
const ROOM: Plugins = Plugins::of(&[
    Plugin::InterPodAffinity,
    Plugin::NodePorts,
    Plugin::NodeResourcesFit,
    Plugin::PodTopologySpread,
    Plugin::VolumeBinding,
]);
const COMPANY: Plugins = Plugins::of(&[Plugin::InterPodAffinity, Plugin::PodTopologySpread]);
const VOLUMES: Plugins = Plugins::of(&[Plugin::VolumeBinding, Plugin::VolumeZone]);
const NODES: Plugins = Plugins::of(&[
    Plugin::InterPodAffinity,
    Plugin::NodeAffinity,
    Plugin::NodeName,
    Plugin::NodePorts,
    Plugin::NodeResourcesFit,
    Plugin::NodeUnschedulable,
    Plugin::PodTopologySpread,
    Plugin::TaintToleration,
    Plugin::VolumeBinding,
    Plugin::VolumeZone,
]);

/// What is to be done for one pod.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    pub pod: Key,
    pub plan: Plan,
}

/// One try to place a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    pub pod: Key,
    /// Whether a node was found.
    pub placed: bool,
    /// Counts from one.
    pub number: u32,
    /// When the pod came.
    pub since: Time,
    /// Whether pods of lower priority were looked at; and how many of them have to go.
    pub preempted: Option<usize>,
}

/// Places pods: folds events in, hands plans out.
#[derive(Debug)]
pub struct Scheduler {
    cluster: Cluster,
    queue: Queue,
    /// Pods that count as placed though no event has said so yet.
    assumed: BTreeMap<Key, Arc<Pod>>,
    /// Pods with a node whose volumes are being bound.
    waiting: BTreeMap<Key, Waiting>,
    /// Pods whose volumes are bound by now.
    ready: Vec<Key>,
    /// Claims have changed: those who wait for volumes are to be looked at.
    volumes_changed: bool,
    /// What the last call of [`Self::next`] tried.
    attempts: Vec<Attempt>,
    seed: u64,
    tries: u64,
    start: usize,
}

impl Scheduler {
    /// Everything that is true at a snapshot. Later events go through [`Self::apply`].
    pub fn new(snapshot: &Snapshot, seed: u64, now: Time) -> Self {
        let mut scheduler = Self {
            cluster: Cluster::of(snapshot),
            queue: Queue::default(),
            assumed: BTreeMap::new(),
            waiting: BTreeMap::new(),
            ready: Vec::new(),
            volumes_changed: false,
            attempts: Vec::new(),
            seed,
            tries: 0,
            start: 0,
        };
        let unplaced = |object: &&Arc<Object>| object.fields.first().is_none_or(|node| node.is_empty());
        for object in snapshot.list(kinds::PODS, "").filter(unplaced) {
            if let Ok(pod) = Pod::read(object)
                && is_ours(&pod)
            {
                let since = pod.created.unwrap_or(now);
                scheduler.queue.put(Arc::new(pod), since);
            }
        }
        scheduler
    }

    /// Takes one change in. Every event of the log comes here, in order.
    pub fn apply(&mut self, event: &Event, now: Time) {
        match event.key().resource {
            kinds::PODS => self.apply_pod(event, now),
            kinds::NODES => self.apply_node(event, now),
            kinds::PERSISTENT_VOLUME_CLAIMS | kinds::PERSISTENT_VOLUMES | kinds::STORAGE_CLASSES => {
                self.volumes_changed = true;
                self.queue.changed(VOLUMES, now);
            }
            kinds::NAMESPACES => {
                self.cluster.apply(event);
                let labels = |object: &Object| object.meta.labels.clone();
                if event.previous.as_deref().map(labels) != Some(labels(&event.object)) {
                    self.queue.changed(COMPANY, now);
                }
            }
            _ => self.cluster.apply(event),
        }
    }

    fn apply_node(&mut self, event: &Event, now: Time) {
        let name = &event.key().name;
        let before = self.cluster.node(name).map(Offer::of);
        self.cluster.apply(event);
        let after = self.cluster.node(name).map(Offer::of);
        if after.is_some() && before != after {
            self.queue.changed(NODES, now);
        }
    }

    fn apply_pod(&mut self, event: &Event, now: Time) {
        let key = event.key();
        let read = (event.change != Change::Deleted).then(|| Pod::read(&event.object).ok()).flatten();
        let Some(pod) = read else { return self.forget(key, now) };
        if pod.is_over || (pod.node.is_empty() && pod.is_deleting) {
            return self.forget(key, now);
        }
        if !pod.node.is_empty() {
            self.assumed.remove(key);
            self.waiting.remove(key);
            self.queue.remove(key);
            let changed = match self.cluster.pod(key) {
                Some(held) if held.requests != pod.requests => ROOM,
                Some(held) if held.labels == pod.labels && held.node == pod.node => Plugins::default(),
                _ => COMPANY,
            };
            self.cluster.put_pod(Arc::new(pod));
            return self.queue.changed(changed, now);
        }
        if !is_ours(&pod) {
            return;
        }
        let pod = Arc::new(pod);
        if !self.assumed.contains_key(key) {
            self.cluster.put_pod(pod.clone());
        }
        self.queue.put(pod, now);
    }

    fn forget(&mut self, key: &Key, now: Time) {
        let promised = self.queue.get(key).is_some_and(|pod| !pod.nominated.is_empty());
        let held_room = promised || self.cluster.pod(key).is_some();
        self.assumed.remove(key);
        self.waiting.remove(key);
        self.queue.remove(key);
        self.cluster.remove_pod(key);
        if held_room {
            self.queue.changed(ROOM, now);
        }
    }

    /// A step's plan did not go through (or only in part): the pod is tried again after a while.
    pub fn failed(&mut self, pod: &Key, now: Time) {
        self.take_back(pod, now);
        self.queue.failed(pod, now);
    }

    /// Whoever was kept out by a pod that is not there after all is to be told.
    fn take_back(&mut self, key: &Key, now: Time) {
        self.waiting.remove(key);
        if self.assumed.remove(key).is_some() {
            self.cluster.remove_pod(key);
            if let Some(pod) = self.queue.get(key) {
                self.cluster.put_pod(pod.clone());
            }
            self.queue.changed(ROOM, now);
        }
    }

    /// What to do next; None: nothing before the next event or [`Self::wake_at`].
    ///
    /// The snapshot is read for what the fold leaves out (volumes, conditions); it must be at the last event applied.
    pub fn next(&mut self, snapshot: &Snapshot, now: Time) -> Option<Step> {
        self.attempts.clear();
        if let Some(step) = self.finish(snapshot, now) {
            return Some(step);
        }
        loop {
            let pod = self.queue.pop(now)?;
            self.tries += 1;
            let (since, number) = self.queue.tried(&pod.key).unwrap_or((now, 1));
            let attempt = Attempt { pod: pod.key.clone(), placed: false, number, since, preempted: None };
            self.attempts.push(attempt);
            let tie = mix(self.seed ^ mix(self.tries));
            let plan = match schedule(&self.cluster, snapshot, &pod, tie, self.start) {
                Ok(Fit { node, looked_at, volumes }) => {
                    self.start = (self.start + looked_at) % self.cluster.nodes().len().max(1);
                    let (waiting, writes) = volumes::bind(snapshot, volumes, node, now);
                    let node = node.name.clone();
                    self.place(&pod, &node, waiting, writes)
                }
                Err(why) => self.reject(snapshot, &pod, why, now),
            };
            if !plan.is_empty() {
                return Some(Step { pod: pod.key.clone(), plan });
            }
        }
    }

    /// When [`Self::next`] has something again even if nothing changes.
    pub fn wake_at(&self) -> Option<Time> {
        let volumes =
            self.waiting.values().map(|waiting| waiting.since.plus_secs(LONGEST_VOLUME_WAIT_SECONDS)).min();
        [self.queue.wake_at(), volumes].into_iter().flatten().min()
    }

    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Pods that have no node yet.
    pub fn queue(&self) -> &Queue {
        &self.queue
    }

    /// Every pod that the last call of [`Self::next`] looked at, for metrics.
    pub fn attempts(&self) -> &[Attempt] {
        &self.attempts
    }

    /// Pods that count as placed though no event has said so yet.
    pub fn assumed(&self) -> usize {
        self.assumed.len()
    }

    fn place(&mut self, pod: &Arc<Pod>, node: &Arc<str>, waiting: Waiting, writes: Vec<Write>) -> Plan {
        if let Some(attempt) = self.attempts.last_mut() {
            attempt.placed = true;
        }
        let placed = Arc::new(Pod { node: node.clone(), nominated: "".into(), ..(**pod).clone() });
        self.cluster.put_pod(placed.clone());
        self.assumed.insert(pod.key.clone(), placed);
        if writes.is_empty() {
            return tell::bind(pod, node);
        }
        self.waiting.insert(pod.key.clone(), waiting);
        Plan { writes, ..Plan::default() }
    }

    /// Binds a pod whose volumes are bound by now.
    fn finish(&mut self, snapshot: &Snapshot, now: Time) -> Option<Step> {
        let late = |waiting: &Waiting| now >= waiting.since.plus_secs(LONGEST_VOLUME_WAIT_SECONDS);
        if self.volumes_changed || self.waiting.values().any(late) {
            self.look_at_volumes(snapshot, late, now);
        }
        while let Some(key) = self.ready.pop() {
            if let Some(pod) = self.assumed.get(&key) {
                return Some(Step { pod: key, plan: tell::bind(pod, &pod.node) });
            }
        }
        None
    }

    fn look_at_volumes(&mut self, snapshot: &Snapshot, late: impl Fn(&Waiting) -> bool, now: Time) {
        self.volumes_changed = false;
        for (key, mut waiting) in std::mem::take(&mut self.waiting) {
            let Some(pod) = self.assumed.get(&key) else { continue };
            match waiting.progress(snapshot, &pod.node) {
                Progress::Bound => self.ready.push(key),
                Progress::Waiting if !late(&waiting) => {
                    self.waiting.insert(key, waiting);
                }
                Progress::Waiting | Progress::Lost => self.failed(&key, now),
            }
        }
    }

    fn reject(&mut self, snapshot: &Snapshot, pod: &Arc<Pod>, mut why: Unschedulable, now: Time) -> Plan {
        let start = usize::try_from(self.tries).unwrap_or(0);
        let cleared = match why.nodes {
            0 => None,
            _ => match preemption::preempt(&self.cluster, snapshot, pod, &why, start) {
                Ok(candidate) => Some(candidate),
                Err(text) => {
                    why.preemption = Some(text);
                    None
                }
            },
        };
        if let (Some(attempt), true) = (self.attempts.last_mut(), why.nodes > 0) {
            attempt.preempted = Some(cleared.as_ref().map_or(0, |candidate| candidate.victims.len()));
        }
        match cleared {
            // Should the promise be lost on its way, the next try makes it again; once it is kept, that try only waits.
            Some(_) => self.queue.failed(&pod.key, now),
            // Without a node nobody says no: any node is worth another try.
            None if why.plugins.is_empty() => self.queue.rejected(&pod.key, NODES, now),
            None => self.queue.rejected(&pod.key, why.plugins, now),
        }
        let message = why.to_string();
        let mut plan = Plan::default();
        if let Some(candidate) = &cleared {
            self.evict(snapshot, pod, candidate, now, &mut plan);
        }
        let node = cleared.as_ref().map(|candidate| &*candidate.node);
        plan.writes.extend(tell::unschedulable(snapshot, pod, &message, node, now));
        plan.events.push(tell::occurrence(pod, true, "FailedScheduling", tell::cut(message)));
        plan
    }

    fn evict(&self, snapshot: &Snapshot, pod: &Pod, candidate: &Candidate, now: Time, plan: &mut Plan) {
        for victim in candidate.victims.iter().filter(|victim| !victim.is_deleting) {
            let Some(object) = snapshot.get(&victim.key) else { continue };
            plan.writes.extend(tell::victim(object, pod, now));
            plan.write(Write::Delete {
                key: victim.key.clone(),
                expect: Expect::same(object),
                grace_seconds: None,
                propagation: Some(Propagation::Background),
            });
            let message = format!("Preempted by pod {} on node {}", pod.uid, candidate.node);
            plan.events.push(tell::occurrence(victim, false, "Preempted", message));
        }
        // Pods of lower priority lose the promise of this node, and look for another.
        for other in self.cluster.nominated_to(&candidate.node).filter(|other| other.priority < pod.priority)
        {
            let Some(object) = snapshot.get(&other.key) else { continue };
            plan.write(Write::Merge {
                key: other.key.clone(),
                expect: Expect::same(object),
                subresource: "status",
                patch: json!({"status": {"nominatedNodeName": null}}),
            });
        }
    }
}

/// What of a node makes a difference to pods that wait.
#[derive(PartialEq)]
struct Offer {
    labels: crate::affinity::Labels,
    taints: Vec<crate::pod::Taint>,
    unschedulable: bool,
    allocatable: crate::Amounts,
    allowed_pods: i64,
}

impl Offer {
    fn of(node: &Node) -> Self {
        Self {
            labels: node.labels.clone(),
            taints: node.taints.clone(),
            unschedulable: node.unschedulable,
            allocatable: node.allocatable.clone(),
            allowed_pods: node.allowed_pods,
        }
    }
}

fn is_ours(pod: &Pod) -> bool {
    let named = pod.scheduler_name.is_empty() || &*pod.scheduler_name == tell::NAME;
    named && pod.node.is_empty() && !pod.is_deleting && !pod.is_over
}
