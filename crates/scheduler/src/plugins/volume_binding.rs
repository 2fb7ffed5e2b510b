//! The claims of a pod, bound or to be bound: <https://kubernetes.io/docs/concepts/storage/storage-classes/#volume-binding-mode>.

use object::Snapshot;

use super::{Plugin, Round};
use crate::cluster::Cluster;
use crate::explain::{Rejection, Unschedulable};
use crate::node::Node;
use crate::pod::Pod;
use crate::volumes::{self, Claimed, Volume};

/// What the pod's claims ask of a node.
#[derive(Debug, Default)]
pub struct Needs {
    /// Volumes that are there and may be tied to nodes.
    pub bound: Vec<Volume>,
    /// Claims that are bound once the pod has a node: free volumes that would do, and whether one can be made.
    pub unbound: Vec<Unbound>,
    /// Another pod uses a volume that only one may use.
    pub is_in_use: bool,
}

#[derive(Debug)]
pub struct Unbound {
    pub claim: object::Key,
    pub candidates: Vec<Volume>,
    pub can_be_made: bool,
    /// Where a new volume may be made; none: anywhere.
    pub topologies: Option<crate::affinity::NodeSelector>,
}

impl Needs {
    pub fn of(cluster: &Cluster, snapshot: &Snapshot, pod: &Pod) -> Result<Self, Unschedulable> {
        let mut needs = Self::default();
        let nodes = cluster.count();
        for claim in &pod.claims {
            match volumes::find(snapshot, pod, claim) {
                Ok(Claimed::Bound(volume)) => needs.bound.push(volume),
                Ok(Claimed::Waiting(unbound)) => needs.unbound.push(unbound),
                Err(why) => return Err(Unschedulable::of_pod(nodes, Plugin::VolumeBinding, why)),
            }
        }
        needs.is_in_use = volumes::is_exclusive_elsewhere(cluster, snapshot, pod);
        Ok(needs)
    }
}

pub fn check(round: &Round, node: &Node) -> Result<(), Rejection> {
    let needs = &round.volumes;
    let no = |text| Err(Rejection::lasting(Plugin::VolumeBinding, text));
    if needs.is_in_use {
        let text = "node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by another pod";
        return Err(Rejection::resolvable(Plugin::VolumeBinding, text));
    }
    if needs.bound.iter().any(|volume| !volume.is_at(node)) {
        return no("node(s) didn't match PersistentVolume's node affinity");
    }
    let served = |unbound: &Unbound| {
        let made = unbound.can_be_made && unbound.topologies.as_ref().is_none_or(|all| all.matches(node));
        made || unbound.candidates.iter().any(|volume| volume.is_at(node))
    };
    if !needs.unbound.iter().all(served) {
        return no("node(s) didn't find available persistent volumes to bind");
    }
    Ok(())
}
