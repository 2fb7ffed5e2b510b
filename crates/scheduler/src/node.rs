//! One node, and what its pods take of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use object::{Key, Object};
use schema::Quantity;
use serde::Deserialize;

use crate::affinity::{Labels, Stated};
use crate::amounts::Amounts;
use crate::pod::{HostPort, Pod, Taint};

pub const HOSTNAME: &str = "kubernetes.io/hostname";
pub const ZONE: &str = "topology.kubernetes.io/zone";

/// (namespace, labels)
pub(crate) type GroupKey = (Arc<str>, Arc<Labels>);

/// The groups that a selector picks in a namespace, by the address of their labels.
pub struct Picked(Vec<*const Labels>);

impl Picked {
    pub(crate) fn of<'a>(labels: impl Iterator<Item = &'a Arc<Labels>>) -> Self {
        let mut picked: Vec<_> = labels.map(Arc::as_ptr).collect();
        picked.sort_unstable();
        Self(picked)
    }
}

/// Pods, and those of them that are not being deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Count {
    pub all: i64,
    pub staying: i64,
}

impl Count {
    fn change(&mut self, pod: &Pod, by: i64) {
        self.all += by;
        if !pod.is_deleting {
            self.staying += by;
        }
    }
}

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
    /// How many pods are of which group.
    pub(crate) groups: BTreeMap<GroupKey, Count>,
    pub host_ports: Vec<HostPort>,
    /// What its pods say about other pods.
    pub(crate) stated: Stated,
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
        let Self { name, requested, scored, pods, groups, host_ports, stated, images, .. } = gone;
        *self = Self { name, requested, scored, pods, groups, host_ports, stated, ..Self::default() };
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
        self.stated.add(&pod.affinities);
        self.groups.entry(pod.group()).or_default().change(&pod, 1);
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
        self.stated.remove(&pod.affinities);
        let key = pod.group();
        if let Some(count) = self.groups.get_mut(&key) {
            count.change(&pod, -1);
            if count.all == 0 {
                self.groups.remove(&key);
            }
        }
        Some(pod)
    }

    /// How many of its pods are of the groups picked. Looks at addresses only: this is the innermost loop.
    pub(crate) fn count(&self, picked: &Picked) -> Count {
        let mut sum = Count::default();
        for ((_, labels), count) in &self.groups {
            if picked.0.binary_search(&Arc::as_ptr(labels)).is_ok() {
                sum.all += count.all;
                sum.staying += count.staying;
            }
        }
        sum
    }

    pub(crate) fn zone(&self) -> Option<&str> {
        self.labels.get(ZONE).map(|zone| &**zone)
    }
}

impl Pod {
    pub(crate) fn group(&self) -> GroupKey {
        (self.key.namespace.clone(), self.labels.clone())
    }
}
