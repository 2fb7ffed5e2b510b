//! The plugins, one file each: what they filter, what they score. Two tables list them.

pub mod image_locality;
pub mod inter_pod_affinity;
pub mod node_affinity;
pub mod node_name;
pub mod node_ports;
pub mod node_resources;
pub mod node_unschedulable;
pub mod pod_topology_spread;
pub mod taint_toleration;
pub mod volume_binding;
pub mod volume_zone;

use object::Snapshot;

use crate::cluster::Cluster;
use crate::explain::{Rejection, Unschedulable};
use crate::node::Node;
use crate::pod::Pod;

/// Who can say no, by upstream's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plugin {
    InterPodAffinity,
    NodeAffinity,
    NodeName,
    NodePorts,
    NodeResourcesFit,
    NodeUnschedulable,
    PodTopologySpread,
    SchedulingGates,
    TaintToleration,
    VolumeBinding,
    VolumeZone,
}

/// A set of plugins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Plugins(u16);

impl Plugins {
    pub const fn with(self, plugin: Plugin) -> Self {
        Self(self.0 | 1 << plugin as u16)
    }

    pub const fn of(plugins: &[Plugin]) -> Self {
        let mut set = Self(0);
        let mut at = 0;
        while at < plugins.len() {
            set = set.with(plugins[at]);
            at += 1;
        }
        set
    }

    pub const fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// One pod looking for a node: what the plugins have worked out about it before they look at nodes.
pub struct Round<'a> {
    pub cluster: &'a Cluster,
    pub pod: &'a Pod,
    pub(crate) affinity: inter_pod_affinity::Required,
    pub(crate) spread: pod_topology_spread::Required,
    pub(crate) volumes: volume_binding::Needs,
}

impl<'a> Round<'a> {
    /// Err: the pod itself stands in the way. `without` are pods that are taken as gone.
    pub fn new(
        cluster: &'a Cluster,
        snapshot: &Snapshot,
        pod: &'a Pod,
        without: &[object::Key],
    ) -> Result<Self, Unschedulable> {
        Ok(Self {
            cluster,
            pod,
            affinity: inter_pod_affinity::Required::of(cluster, pod, without),
            spread: pod_topology_spread::Required::of(cluster, pod, without),
            volumes: volume_binding::Needs::of(cluster, snapshot, pod)?,
        })
    }

    /// The first filter's no, if there is one. Node resources tell everything that is short.
    pub fn check(&self, node: &Node) -> Result<(), Rejection> {
        FILTERS.iter().try_for_each(|filter| (filter.check)(self, node))
    }
}

/// One row: may the pod go to this node?
pub struct Filter {
    pub plugin: Plugin,
    pub check: fn(&Round, &Node) -> Result<(), Rejection>,
}

/// In upstream's order: cheap ones first.
pub static FILTERS: &[Filter] = &[
    Filter { plugin: Plugin::NodeUnschedulable, check: node_unschedulable::check },
    Filter { plugin: Plugin::NodeName, check: node_name::check },
    Filter { plugin: Plugin::TaintToleration, check: taint_toleration::check },
    Filter { plugin: Plugin::NodeAffinity, check: node_affinity::check },
    Filter { plugin: Plugin::NodePorts, check: node_ports::check },
    Filter { plugin: Plugin::NodeResourcesFit, check: node_resources::check },
    Filter { plugin: Plugin::VolumeBinding, check: volume_binding::check },
    Filter { plugin: Plugin::VolumeZone, check: volume_zone::check },
    Filter { plugin: Plugin::PodTopologySpread, check: pod_topology_spread::check },
    Filter { plugin: Plugin::InterPodAffinity, check: inter_pod_affinity::check },
];

/// The best score of a plugin; the worst is 0.
pub const MAX_SCORE: i64 = 100;

/// One row: how good are these nodes, each from 0 to [`MAX_SCORE`]? None: they are all the same to this plugin.
pub struct Score {
    pub name: &'static str,
    pub weight: i64,
    pub score: fn(&Round, &[&Node]) -> Option<Vec<i64>>,
}

/// With upstream's default weights.
pub static SCORES: &[Score] = &[
    Score { name: "TaintToleration", weight: 3, score: taint_toleration::score },
    Score { name: "NodeAffinity", weight: 2, score: node_affinity::score },
    Score { name: "PodTopologySpread", weight: 2, score: pod_topology_spread::score },
    Score { name: "InterPodAffinity", weight: 2, score: inter_pod_affinity::score },
    Score { name: "NodeResourcesFit", weight: 1, score: node_resources::least_allocated },
    Score { name: "NodeResourcesBalancedAllocation", weight: 1, score: node_resources::balanced },
    Score { name: "ImageLocality", weight: 1, score: image_locality::score },
];

/// Stretches scores so that the highest becomes [`MAX_SCORE`]; `is_cost` turns them around.
pub(crate) fn normalise(mut scores: Vec<i64>, is_cost: bool) -> Vec<i64> {
    let most = scores.iter().copied().max().unwrap_or(0);
    for score in &mut scores {
        *score = if most == 0 { 0 } else { *score * MAX_SCORE / most };
        if is_cost {
            *score = MAX_SCORE - *score;
        }
    }
    scores
}
