//! What runs where, and what is left: a fold over the log.
//!
//! It holds only what scheduling adds up over and over; whatever is asked for rarely (claims, volumes, classes) is read
//! from the snapshot. A property test holds the fold against a rebuild.

use std::collections::BTreeMap;
use std::sync::Arc;

use object::{Change, Event, Key, LabelSelector, Object, Resource, Snapshot};
use serde::Deserialize;

use crate::affinity::{Affinities, Labels, Stated};
use crate::node::{GroupKey, HOSTNAME, Node, Picked, ZONE};
use crate::pod::Pod;

/// The state of the cluster that scheduling works on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cluster {
    /// By name. One that is gone stays as long as pods are on it.
    nodes: Vec<Node>,
    /// Nodes that are there.
    count: usize,
    /// The node of every pod that has one.
    placed: BTreeMap<Key, Arc<str>>,
    /// How many placed pods state pod (anti-)affinity: none of it is looked at while there is none.
    with_affinity: usize,
    /// Placed pods by namespace and labels. Replicas share their labels, so that spreading them looks
    /// at groups instead of pods.
    groups: BTreeMap<GroupKey, Group>,
    namespaces: BTreeMap<Arc<str>, Labels>,
    /// How many nodes say that they are this host; and how many say of any.
    hosts: BTreeMap<Box<str>, usize>,
    with_host: usize,
    /// How many nodes have an image.
    images: BTreeMap<Box<str>, usize>,
    /// Selectors of Services and of the workloads that own pods, for the spreading that every pod gets.
    selectors: BTreeMap<Key, LabelSelector>,
    /// Pods for which a preemption is making room, by node.
    nominated: BTreeMap<Arc<str>, BTreeMap<Key, Arc<Pod>>>,
    /// (available healthy pods may go, selector) of each disruption budget.
    budgets: BTreeMap<Key, Budget>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Budget {
    pub selector: Option<LabelSelector>,
    pub disruptions_allowed: i64,
}

/// Placed pods of a namespace that have the same labels.
#[derive(Clone, Debug, Default, PartialEq)]
struct Group {
    pods: i64,
    /// Those that are staying, on nodes that are in a zone.
    zones: BTreeMap<Box<str>, i64>,
    stated: Stated,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct SelectorView {
    spec: SelectorSpec,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct SelectorSpec {
    selector: Option<serde_json::Value>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct BudgetView {
    spec: BudgetSpec,
    status: BudgetStatus,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct BudgetSpec {
    selector: Option<LabelSelector>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct BudgetStatus {
    disruptions_allowed: i64,
}

/// The resources that the fold looks at.
const FOLDED: [Resource; 8] = [
    kinds::NAMESPACES,
    kinds::NODES,
    kinds::POD_DISRUPTION_BUDGETS,
    kinds::PODS,
    kinds::REPLICATION_CONTROLLERS,
    kinds::REPLICA_SETS,
    kinds::SERVICES,
    kinds::STATEFUL_SETS,
];

impl Cluster {
    pub fn of(snapshot: &Snapshot) -> Self {
        let mut cluster = Self::default();
        for resource in FOLDED {
            for object in snapshot.list(resource, "") {
                cluster.put(object);
            }
        }
        cluster
    }

    /// Takes one change in.
    pub fn apply(&mut self, event: &Event) {
        match event.change {
            Change::Deleted => self.remove(event.key()),
            Change::Created | Change::Updated => self.put(&event.object),
        }
    }

    fn put(&mut self, object: &Object) {
        match object.key.resource {
            kinds::NODES => self.put_node(object),
            kinds::PODS => match Pod::read(object) {
                Ok(pod) => self.put_pod(Arc::new(pod)),
                Err(_) => self.remove_pod(&object.key),
            },
            kinds::NAMESPACES => {
                self.namespaces.insert(object.key.name.clone(), object.meta.labels.clone());
            }
            kinds::POD_DISRUPTION_BUDGETS => {
                let view: BudgetView = object.decode().unwrap_or_default();
                let budget = Budget {
                    selector: view.spec.selector,
                    disruptions_allowed: view.status.disruptions_allowed,
                };
                self.budgets.insert(object.key.clone(), budget);
            }
            kinds::REPLICATION_CONTROLLERS | kinds::REPLICA_SETS | kinds::SERVICES | kinds::STATEFUL_SETS => {
                self.put_selector(object);
            }
            _ => {}
        }
    }

    fn remove(&mut self, key: &Key) {
        match key.resource {
            kinds::NODES => self.remove_node(&key.name),
            kinds::PODS => self.remove_pod(key),
            kinds::NAMESPACES => {
                self.namespaces.remove(&key.name);
            }
            kinds::POD_DISRUPTION_BUDGETS => {
                self.budgets.remove(key);
            }
            _ => {
                self.selectors.remove(key);
            }
        }
    }

    /// Services and replication controllers have maps for selectors, the others label selectors.
    fn put_selector(&mut self, object: &Object) {
        let view: SelectorView = object.decode().unwrap_or_default();
        let by_map = matches!(object.key.resource, kinds::SERVICES | kinds::REPLICATION_CONTROLLERS);
        let selector = view.spec.selector.and_then(|selector| {
            if by_map {
                let map: BTreeMap<String, String> = serde_json::from_value(selector).ok()?;
                let labels = map.iter().map(|(key, value)| (key.as_str(), value.as_str()));
                Some(LabelSelector::of_labels(labels))
            } else {
                serde_json::from_value(selector).ok()
            }
        });
        match selector.filter(|selector: &LabelSelector| !selector.is_everything()) {
            Some(selector) => self.selectors.insert(object.key.clone(), selector),
            None => self.selectors.remove(&object.key),
        };
    }

    fn put_node(&mut self, object: &Object) {
        let at = self.slot(&object.key.name);
        let moves = self.nodes[at].labels.get(ZONE) != object.meta.labels.get(ZONE);
        if moves {
            self.zone_all(at, -1);
        }
        self.count += usize::from(!self.nodes[at].exists);
        self.count_host_out(at);
        let old = self.nodes[at].describe(object);
        if let Some(host) = self.nodes[at].labels.get(HOSTNAME) {
            self.with_host += 1;
            count_in(&mut self.hosts, host.clone());
        }
        let new: Vec<Box<str>> = self.nodes[at].images.keys().cloned().collect();
        if moves {
            self.zone_all(at, 1);
        }
        self.count_images(old.into_keys(), new.into_iter());
    }

    fn remove_node(&mut self, name: &str) {
        let Ok(at) = self.find(name) else { return };
        self.zone_all(at, -1);
        self.count -= usize::from(self.nodes[at].exists);
        self.count_host_out(at);
        let images = self.nodes[at].vanish();
        self.count_images(images.into_keys(), std::iter::empty());
        self.tidy(at);
    }

    fn count_images(&mut self, less: impl Iterator<Item = Box<str>>, more: impl Iterator<Item = Box<str>>) {
        more.for_each(|name| count_in(&mut self.images, name));
        less.for_each(|name| count_out(&mut self.images, &name));
    }

    fn count_host_out(&mut self, at: usize) {
        if let Some(host) = self.nodes[at].labels.get(HOSTNAME) {
            self.with_host -= 1;
            count_out(&mut self.hosts, host);
        }
    }

    /// Puts a pod in its place, or in none. Also how a pod is assumed to be where it is about to be bound.
    pub fn put_pod(&mut self, mut pod: Arc<Pod>) {
        self.remove_pod(&pod.key);
        if pod.is_over {
            return;
        }
        if pod.node.is_empty() {
            if !pod.nominated.is_empty() && !pod.is_deleting {
                self.nominated.entry(pod.nominated.clone()).or_default().insert(pod.key.clone(), pod);
            }
            return;
        }
        let at = self.slot(&pod.node);
        self.placed.insert(pod.key.clone(), pod.node.clone());
        self.with_affinity += usize::from(!pod.affinities.is_empty());
        self.join(at, &mut pod);
        self.nodes[at].add(pod);
    }

    pub fn remove_pod(&mut self, key: &Key) {
        self.nominated.retain(|_, pods| {
            pods.remove(key);
            !pods.is_empty()
        });
        let Some(name) = self.placed.remove(key) else { return };
        let Ok(at) = self.find(&name) else { return };
        if let Some(pod) = self.nodes[at].take(key) {
            self.with_affinity -= usize::from(!pod.affinities.is_empty());
            self.leave(at, &pod);
        }
        self.tidy(at);
    }

    /// Counts a pod into its group, and gives it the group's labels and affinities in place of its own.
    fn join(&mut self, at: usize, pod: &mut Arc<Pod>) {
        let key = pod.group();
        let shared = self.groups.get_key_value(&key).map_or(key, |(shared, _)| shared.clone());
        let group = self.groups.entry(shared.clone()).or_default();
        group.pods += 1;
        if !pod.is_deleting {
            group.zone(self.nodes[at].zone(), 1);
        }
        let affinities = group.stated.add(&pod.affinities);
        if !Arc::ptr_eq(&shared.1, &pod.labels) || !Arc::ptr_eq(&affinities, &pod.affinities) {
            let own = Arc::make_mut(pod);
            own.labels = shared.1;
            own.affinities = affinities;
        }
    }

    fn leave(&mut self, at: usize, pod: &Pod) {
        let key = pod.group();
        let Some(group) = self.groups.get_mut(&key) else { return };
        group.pods -= 1;
        if !pod.is_deleting {
            group.zone(self.nodes[at].zone(), -1);
        }
        group.stated.remove(&pod.affinities);
        if group.pods == 0 {
            self.groups.remove(&key);
        }
    }

    /// A node's pods come into its zone, or leave it with it.
    fn zone_all(&mut self, at: usize, sign: i64) {
        let node = &self.nodes[at];
        for (key, count) in &node.groups {
            if let Some(group) = self.groups.get_mut(key) {
                group.zone(node.zone(), sign * count.staying);
            }
        }
    }

    fn groups_of<'a, 'b>(
        &'a self,
        namespace: &'b Arc<str>,
        selector: &'b LabelSelector,
    ) -> impl Iterator<Item = (&'a Arc<Labels>, &'a Group)> {
        let start = (namespace.clone(), Arc::new(Labels::new()));
        let groups = self.groups.range(start..).take_while(move |((held, _), _)| held == namespace);
        groups.filter(|((_, labels), _)| selector.matches(labels)).map(|((_, labels), group)| (labels, group))
    }

    /// How many staying pods of a namespace that a selector picks are in which zone.
    pub fn by_zone(&self, namespace: &Arc<str>, selector: &LabelSelector) -> BTreeMap<&str, i64> {
        let mut zones = BTreeMap::new();
        for (_, group) in self.groups_of(namespace, selector) {
            group.zones.iter().for_each(|(zone, count)| *zones.entry(&**zone).or_default() += count);
        }
        zones
    }

    /// For [`Node::count`].
    pub fn pick(&self, namespace: &Arc<str>, selector: &LabelSelector) -> Picked {
        Picked::of(self.groups_of(namespace, selector).map(|(labels, _)| labels))
    }

    /// The same, of all namespaces.
    pub fn pick_all(&self, is_picked: impl Fn(&Arc<str>, &Labels) -> bool) -> Picked {
        let groups = self.groups.keys().filter(|(namespace, labels)| is_picked(namespace, labels));
        Picked::of(groups.map(|(_, labels)| labels))
    }

    fn find(&self, name: &str) -> Result<usize, usize> {
        self.nodes.binary_search_by(|node| (*node.name).cmp(name))
    }

    /// The place of the node of this name, made if there is none.
    fn slot(&mut self, name: &Arc<str>) -> usize {
        match self.find(name) {
            Ok(at) => at,
            Err(at) => {
                self.nodes.insert(at, Node { name: name.clone(), ..Node::default() });
                at
            }
        }
    }

    fn tidy(&mut self, at: usize) {
        if !self.nodes[at].exists && self.nodes[at].pods.is_empty() {
            self.nodes.remove(at);
        }
    }

    /// Every node by name, those included that are gone while pods are on them.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    pub fn node(&self, name: &str) -> Option<&Node> {
        self.find(name).ok().map(|at| &self.nodes[at]).filter(|node| node.exists)
    }

    /// A placed pod.
    pub fn pod(&self, key: &Key) -> Option<&Arc<Pod>> {
        let at = self.find(self.placed.get(key)?).ok()?;
        self.nodes[at].pods.get(key)
    }

    /// How many nodes there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// How many pods have a node, or are assumed to.
    pub fn placed(&self) -> usize {
        self.placed.len()
    }

    /// Does any placed pod state pod (anti-)affinity?
    pub fn has_affinity(&self) -> bool {
        self.with_affinity > 0
    }

    /// What the placed pods state of pod (anti-)affinity, once for all that share it.
    pub(crate) fn stated(&self) -> impl Iterator<Item = &Arc<Affinities>> {
        self.groups.values().flat_map(|group| group.stated.iter()).map(|(affinities, _)| affinities)
    }

    /// Is every node the only one of its value of this topology key?
    pub(crate) fn is_alone(&self, topology_key: &str) -> bool {
        topology_key == HOSTNAME && self.hosts.len() == self.with_host
    }

    pub fn namespace_labels(&self, namespace: &str) -> Option<&Labels> {
        self.namespaces.get(namespace)
    }

    /// On how many nodes this image is.
    pub fn nodes_with_image(&self, name: &str) -> usize {
        self.images.get(name).copied().unwrap_or(0)
    }

    /// Pods that were promised this node.
    pub fn nominated_to(&self, node: &str) -> impl Iterator<Item = &Arc<Pod>> {
        self.nominated.get(node).into_iter().flat_map(BTreeMap::values)
    }

    pub fn has_nominated(&self) -> bool {
        !self.nominated.is_empty()
    }

    pub fn budgets(&self, namespace: &str) -> impl Iterator<Item = (&Key, &Budget)> {
        self.budgets.iter().filter(move |(key, _)| *key.namespace == *namespace)
    }

    /// What the Services that pick this pod and the workload that owns it have in common: all their requirements.
    /// None: there are none, and the pod is not spread by default.
    pub fn spread_selector(&self, pod: &Pod) -> Option<LabelSelector> {
        let namespace = &pod.key.namespace;
        let start = Key::new(kinds::SERVICES, namespace.clone(), "");
        let services = self
            .selectors
            .range(start..)
            .take_while(|(key, _)| key.resource == kinds::SERVICES && key.namespace == *namespace);
        let mut requirements = Vec::new();
        for (_, selector) in services.filter(|(_, selector)| selector.matches(&pod.labels)) {
            requirements.extend(selector.0.iter().cloned());
        }
        if let Some((kind, name)) = &pod.owner {
            let resource = match &**kind {
                "ReplicaSet" => Some(kinds::REPLICA_SETS),
                "ReplicationController" => Some(kinds::REPLICATION_CONTROLLERS),
                "StatefulSet" => Some(kinds::STATEFUL_SETS),
                _ => None,
            };
            let key = resource.map(|resource| Key::new(resource, namespace.clone(), name.as_ref()));
            if let Some(selector) = key.and_then(|key| self.selectors.get(&key)) {
                // Mostly the same as the Service's.
                for requirement in &selector.0 {
                    if !requirements.contains(requirement) {
                        requirements.push(requirement.clone());
                    }
                }
            }
        }
        (!requirements.is_empty()).then_some(LabelSelector(requirements))
    }
}

fn count_in(counts: &mut BTreeMap<Box<str>, usize>, name: Box<str>) {
    *counts.entry(name).or_default() += 1;
}

fn count_out(counts: &mut BTreeMap<Box<str>, usize>, name: &str) {
    if let Some(count) = counts.get_mut(name) {
        *count -= 1;
        if *count == 0 {
            counts.remove(name);
        }
    }
}

impl Group {
    fn zone(&mut self, zone: Option<&str>, by: i64) {
        let Some(zone) = zone else { return };
        let count = self.zones.entry(zone.into()).or_default();
        *count += by;
        if *count == 0 {
            self.zones.remove(zone);
        }
    }
}
