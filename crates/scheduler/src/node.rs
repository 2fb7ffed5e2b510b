//! One node, and what its pods take of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use object::{Key, Object};
use schema::Quantity;
use serde::Deserialize;

use crate::affinity::Labels;
use crate::amounts::Amounts;
use crate::pod::{HostPort, Pod, Taint};

pub const ZONE: &str = "topology.kubernetes.io/zone";

/// (namespace, labels)
pub(crate) type GroupKey = (Arc<str>, Arc<Labels>);

/// The groups that a selector picks in a namespace, by the address of their labels.
pub struct Picked(pub(crate) Vec<*const Labels>);

/// A node and what its pods take of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Node {
    pub name: Arc<str>,
    /// False: pods are on a node of this name, but there is no such node.
    pub exists: bool,
    pub labels: Labels,
    pub taints: Vec<Taint>,
    pub unschedulable: bool,
    pub allocatable: Amounts,
    pub allowed_pods: i64,
    /// Bytes by name of image.
    pub images: BTreeMap<Box<str>, i64>,
    pub requested: Amounts,
    /// As `Pod::scored`, summed.
    pub scored: (i64, i64),
    pub pods: BTreeMap<Key, Arc<Pod>>,
    /// How many of the pods that are staying are of which group.
    pub(crate) groups: BTreeMap<GroupKey, i64>,
    pub host_ports: Vec<HostPort>,
    /// Pods on it that state pod (anti-)affinity.
    pub with_affinity: usize,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct NodeView {
    spec: NodeSpec,
    status: NodeStatus,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct NodeSpec {
    taints: Vec<Taint>,
    unschedulable: bool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct NodeStatus {
    allocatable: BTreeMap<Box<str>, Quantity>,
    images: Vec<ImageView>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ImageView {
    names: Vec<Box<str>>,
    size_bytes: i64,
}

impl Node {
    /// Takes over what a Node object says; returns the images that it had before.
    pub(crate) fn describe(&mut self, object: &Object) -> BTreeMap<Box<str>, i64> {
        let view: NodeView = object.decode().unwrap_or_default();
        let mut images = BTreeMap::new();
        for image in view.status.images {
            images.extend(image.names.into_iter().map(|name| (name, image.size_bytes)));
        }
        self.exists = true;
        self.labels.clone_from(&object.meta.labels);
        self.taints = view.spec.taints;
        self.unschedulable = view.spec.unschedulable;
        self.allowed_pods = view.status.allocatable.get("pods").map_or(0, |pods| pods.units());
        self.allocatable = Amounts::of(&view.status.allocatable);
        std::mem::replace(&mut self.images, images)
    }

    /// The Node object is gone, its pods are not yet; returns the images that it had.
    pub(crate) fn vanish(&mut self) -> BTreeMap<Box<str>, i64> {
        let gone = std::mem::take(self);
        let Self { name, requested, scored, pods, groups, host_ports, with_affinity, images, .. } = gone;
        *self = Self { name, requested, scored, pods, groups, host_ports, with_affinity, ..Self::default() };
        images
    }

    pub fn add(&mut self, pod: Arc<Pod>) {
        self.requested.add(&pod.requests);
        self.scored.0 += pod.scored.0;
        self.scored.1 += pod.scored.1;
        for port in &pod.host_ports {
            let at = self.host_ports.binary_search(port).unwrap_or_else(|at| at);
            self.host_ports.insert(at, port.clone());
        }
        self.with_affinity += usize::from(pod.has_affinity());
        if !pod.is_deleting {
            *self.groups.entry(pod.group()).or_default() += 1;
        }
        self.pods.insert(pod.key.clone(), pod);
    }

    pub fn take(&mut self, key: &Key) -> Option<Arc<Pod>> {
        let pod = self.pods.remove(key)?;
        self.requested.subtract(&pod.requests);
        self.scored.0 -= pod.scored.0;
        self.scored.1 -= pod.scored.1;
        for port in &pod.host_ports {
            if let Ok(at) = self.host_ports.binary_search(port) {
                self.host_ports.remove(at);
            }
        }
        self.with_affinity -= usize::from(pod.has_affinity());
        let key = pod.group();
        if let Some(count) = self.groups.get_mut(&key).filter(|_| !pod.is_deleting) {
            *count -= 1;
            if *count == 0 {
                self.groups.remove(&key);
            }
        }
        Some(pod)
    }

    /// How many of its staying pods are of the groups picked. Looks at addresses only: this is the innermost loop.
    pub fn count(&self, picked: &Picked) -> i64 {
        let is_picked = |labels: &Arc<Labels>| picked.0.binary_search(&Arc::as_ptr(labels)).is_ok();
        self.groups.iter().filter(|((_, labels), _)| is_picked(labels)).map(|(_, count)| count).sum()
    }

    pub(crate) fn zone(&self) -> Option<&str> {
        self.labels.get(ZONE).map(|zone| &**zone)
    }
}

impl Pod {
    pub(crate) fn has_affinity(&self) -> bool {
        !self.affinity.is_empty() || !self.anti_affinity.is_empty()
    }

    pub(crate) fn group(&self) -> GroupKey {
        (self.key.namespace.clone(), self.labels.clone())
    }
}
