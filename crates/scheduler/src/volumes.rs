//! Claims and volumes, read from the snapshot when a pod has any.

use std::collections::BTreeMap;

use object::{Key, LabelSelector, Object, Revision, Snapshot, Time};
use plan::{Expect, Write};
use schema::Quantity;
use serde::Deserialize;
use serde_json::json;

use crate::affinity::NodeSelector;
use crate::cluster::Cluster;
use crate::node::Node;
use crate::plugins::volume_binding::{Needs, Unbound};
use crate::pod::{Claim, Pod};

/// Tells the provisioner where the pod will be.
const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";

/// A volume, and the nodes that reach it.
#[derive(Debug)]
pub struct Volume {
    pub key: Key,
    nodes: Option<NodeSelector>,
    capacity: Quantity,
    /// (label, one of these values), from the labels of volumes made before volumes had node affinity.
    zones: Vec<(&'static str, Vec<Box<str>>)>,
}

impl Volume {
    pub fn is_at(&self, node: &Node) -> bool {
        self.nodes.as_ref().is_none_or(|nodes| nodes.matches(node))
    }

    pub fn is_in_zone_of(&self, node: &Node) -> bool {
        self.zones
            .iter()
            .all(|(label, values)| node.labels.get(*label).is_some_and(|held| values.contains(held)))
    }
}

/// Labels that say where something is; a volume in several places has them joined by two underscores.
const ZONES: [&str; 2] = ["topology.kubernetes.io/region", "topology.kubernetes.io/zone"];

fn zones(held: &Object) -> Vec<(&'static str, Vec<Box<str>>)> {
    let values = |label| held.meta.label(label).map(|text: &str| text.split("__").map(Into::into).collect());
    ZONES.into_iter().filter_map(|label| Some((label, values(label)?))).collect()
}

/// A claim as it is.
pub enum Claimed {
    Bound(Volume),
    /// Waits for its first consumer.
    Waiting(Unbound),
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ClaimView {
    spec: ClaimSpec,
    metadata: Annotated,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ClaimSpec {
    volume_name: Box<str>,
    storage_class_name: Option<Box<str>>,
    access_modes: Vec<Box<str>>,
    volume_mode: Box<str>,
    selector: Option<LabelSelector>,
    resources: Resources,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Resources {
    requests: BTreeMap<Box<str>, Quantity>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Annotated {
    annotations: BTreeMap<Box<str>, Box<str>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct VolumeView {
    spec: VolumeSpec,
    status: VolumeStatus,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct VolumeStatus {
    phase: Box<str>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct VolumeSpec {
    node_affinity: Option<VolumeNodes>,
    claim_ref: Option<ClaimReference>,
    storage_class_name: Box<str>,
    access_modes: Vec<Box<str>>,
    volume_mode: Box<str>,
    capacity: BTreeMap<Box<str>, Quantity>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ClaimReference {
    uid: Box<str>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct VolumeNodes {
    required: Option<NodeSelector>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ClassView {
    provisioner: Box<str>,
    volume_binding_mode: Box<str>,
    allowed_topologies: Vec<TopologyView>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct TopologyView {
    match_label_expressions: Vec<serde_json::Value>,
}

/// The claim of a pod: bound, waiting for its first consumer, or why the pod cannot go anywhere yet.
pub fn find(snapshot: &Snapshot, pod: &Pod, claim: &Claim) -> Result<Claimed, String> {
    let name = &claim.name;
    let key = Key::new(kinds::PERSISTENT_VOLUME_CLAIMS, pod.key.namespace.clone(), name.as_ref());
    let Some(held) = snapshot.get(&key) else {
        return Err(if claim.is_ephemeral {
            format!("waiting for ephemeral volume controller to create the persistentvolumeclaim {name:?}")
        } else {
            format!("persistentvolumeclaim {name:?} not found")
        });
    };
    if held.meta.is_deleting() {
        return Err(format!("persistentvolumeclaim {name:?} is being deleted"));
    }
    if claim.is_ephemeral && held.meta.controller().is_none_or(|owner| owner.uid != pod.uid) {
        return Err(format!(
            "PVC {:?} was not created for pod {:?} (pod is not owner)",
            key.path(),
            pod.key.path()
        ));
    }
    let view: ClaimView =
        held.decode().map_err(|error| format!("persistentvolumeclaim {name:?}: {error}"))?;
    if !view.spec.volume_name.is_empty() {
        return bound(snapshot, name, &view);
    }
    let class = view.spec.storage_class_name.as_deref().unwrap_or_default();
    let class = snapshot.get(&Key::cluster(kinds::STORAGE_CLASSES, class));
    let class: Option<ClassView> = class.and_then(|class| class.decode().ok());
    match class.filter(|class| &*class.volume_binding_mode == "WaitForFirstConsumer") {
        Some(class) => Ok(Claimed::Waiting(waiting(snapshot, key, &view, &class))),
        None => Err("pod has unbound immediate PersistentVolumeClaims".to_owned()),
    }
}

fn bound(snapshot: &Snapshot, claim: &str, view: &ClaimView) -> Result<Claimed, String> {
    let name = &view.spec.volume_name;
    let key = Key::cluster(kinds::PERSISTENT_VOLUMES, name.as_ref());
    let Some(volume) = snapshot.get(&key).and_then(|held| read(held)) else {
        return Err(format!(
            "persistentvolumeclaim {claim:?} bound to non-existent persistentvolume {name:?}"
        ));
    };
    if !view.metadata.annotations.contains_key(BIND_COMPLETED) {
        return Err("pod has unbound immediate PersistentVolumeClaims".to_owned());
    }
    Ok(Claimed::Bound(volume.0))
}

fn read(held: &Object) -> Option<(Volume, VolumeView)> {
    let mut view: VolumeView = held.decode().ok()?;
    let nodes = view.spec.node_affinity.take().and_then(|affinity| affinity.required);
    let capacity = view.spec.capacity.get("storage").copied().unwrap_or(Quantity::ZERO);
    Some((Volume { key: held.key.clone(), nodes, capacity, zones: zones(held) }, view))
}

fn waiting(snapshot: &Snapshot, claim: Key, view: &ClaimView, class: &ClassView) -> Unbound {
    let size = view.spec.resources.requests.get("storage").copied().unwrap_or(Quantity::ZERO);
    let fits = |held: &Object, volume: &Volume, of: &VolumeView| {
        let modes = &view.spec.access_modes;
        of.spec.claim_ref.is_none()
            && &*of.status.phase == "Available"
            && Some(&of.spec.storage_class_name) == view.spec.storage_class_name.as_ref()
            && of.spec.volume_mode == view.spec.volume_mode
            && modes.iter().all(|mode| of.spec.access_modes.contains(mode))
            && volume.capacity >= size
            && view.spec.selector.as_ref().is_none_or(|selector| selector.matches(&held.meta.labels))
    };
    let mut candidates: Vec<Volume> = snapshot
        .list(kinds::PERSISTENT_VOLUMES, "")
        .filter(|held| !held.meta.is_deleting())
        .filter_map(|held| {
            let (volume, of) = read(held)?;
            fits(held, &volume, &of).then_some(volume)
        })
        .collect();
    candidates.sort_by(|a, b| a.capacity.cmp(&b.capacity).then_with(|| a.key.cmp(&b.key)));
    let topologies = class.allowed_topologies.iter().map(|held| {
        let terms: Vec<serde_json::Value> = held
            .match_label_expressions
            .iter()
            .map(|term| json!({"key": term["key"], "operator": "In", "values": term["values"]}))
            .collect();
        json!({"matchExpressions": terms})
    });
    let terms: Vec<serde_json::Value> = topologies.collect();
    let topologies = if terms.is_empty() {
        None
    } else {
        serde_json::from_value(json!({"nodeSelectorTerms": terms})).ok()
    };
    let can_be_made = &*class.provisioner != "kubernetes.io/no-provisioner" && view.spec.selector.is_none();
    Unbound { claim, candidates, can_be_made, topologies }
}

/// A pod that has a node and waits for its claims to be bound there.
#[derive(Debug)]
pub struct Waiting {
    pub since: Time,
    /// (claim, the free volume that is reserved for it); without one, a volume is to be made.
    claims: Vec<(Key, Option<Reserved>)>,
    /// Claims that were seen with the node: should they lose it, the provisioner has given it back.
    told: Vec<Key>,
}

#[derive(Debug)]
struct Reserved {
    volume: Key,
    /// The revision it was read at: the reservation holds for no other.
    read_at: Revision,
}

/// The writes that get a pod's claims bound on the node it was given: the smallest free volume that is reached from
/// there is reserved, or the provisioner is told the node.
pub fn bind(snapshot: &Snapshot, needs: Needs, node: &Node, now: Time) -> (Waiting, Vec<Write>) {
    let mut waiting = Waiting { since: now, claims: Vec::new(), told: Vec::new() };
    let mut writes = Vec::new();
    for unbound in needs.unbound {
        let Some(claim) = snapshot.get(&unbound.claim) else { continue };
        let taken = |volume: &Volume| {
            waiting.claims.iter().flat_map(|(_, held)| held).any(|held| held.volume == volume.key)
        };
        let volume = unbound.candidates.into_iter().find(|volume| volume.is_at(node) && !taken(volume));
        let reserved = volume.and_then(|volume| snapshot.get(&volume.key));
        writes.push(match reserved {
            Some(volume) => reserve(volume, claim),
            None => Write::Merge {
                key: claim.key.clone(),
                expect: Expect::same(claim),
                subresource: "",
                patch: json!({"metadata": {"annotations": {SELECTED_NODE: &*node.name}}}),
            },
        });
        let reserved =
            reserved.map(|volume| Reserved { volume: volume.key.clone(), read_at: volume.revision });
        waiting.claims.push((unbound.claim, reserved));
    }
    (waiting, writes)
}

/// Only as it was read: another pod may want it too.
fn reserve(volume: &Object, claim: &Object) -> Write {
    let reference = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "uid": claim.meta.uid,
        "namespace": &*claim.key.namespace, "name": &*claim.key.name,
        "resourceVersion": claim.revision.to_string()});
    Write::Merge {
        key: volume.key.clone(),
        expect: Expect::unchanged(volume),
        subresource: "",
        patch: json!({"metadata": {"annotations": {BOUND_BY_CONTROLLER: "yes"}}, "spec": {"claimRef": reference}}),
    }
}

/// What has become of the claims of a pod that waits for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    Bound,
    Waiting,
    /// A claim is gone, its provisioner gave the node back, or somebody else has the volume.
    Lost,
}

impl Waiting {
    pub fn progress(&mut self, snapshot: &Snapshot, node: &str) -> Progress {
        let mut all = Progress::Bound;
        for (key, reserved) in &self.claims {
            let Some(held) = snapshot.get(key).filter(|held| !held.meta.is_deleting()) else {
                return Progress::Lost;
            };
            let view: ClaimView = held.decode().unwrap_or_default();
            let completed = view.metadata.annotations.contains_key(BIND_COMPLETED);
            if !view.spec.volume_name.is_empty() && completed {
                continue;
            }
            all = Progress::Waiting;
            let selected = view.metadata.annotations.get(SELECTED_NODE);
            match (reserved, selected) {
                (Some(reserved), _) if reserved.is_lost(snapshot, &held.meta.uid) => return Progress::Lost,
                (Some(_), _) => {}
                (None, Some(selected)) if **selected != *node => return Progress::Lost,
                (None, Some(_)) if !self.told.contains(key) => self.told.push(key.clone()),
                (None, None) if self.told.contains(key) => return Progress::Lost,
                (None, _) => {}
            }
        }
        all
    }
}

impl Reserved {
    /// The volume is gone, another claim has it, or it was changed before it could be reserved.
    fn is_lost(&self, snapshot: &Snapshot, claim_uid: &str) -> bool {
        let Some(held) = snapshot.get(&self.volume) else { return true };
        let view: VolumeView = held.decode().unwrap_or_default();
        match view.spec.claim_ref {
            Some(claim) => *claim.uid != *claim_uid,
            None => held.revision != self.read_at,
        }
    }
}

/// Does another pod use a claim of this one that only one pod may use (`ReadWriteOncePod`)?
pub fn is_exclusive_elsewhere(cluster: &Cluster, snapshot: &Snapshot, pod: &Pod) -> bool {
    let exclusive: Vec<&Claim> = pod
        .claims
        .iter()
        .filter(|claim| {
            let key =
                Key::new(kinds::PERSISTENT_VOLUME_CLAIMS, pod.key.namespace.clone(), claim.name.as_ref());
            let view: Option<ClaimView> = snapshot.get(&key).and_then(|held| held.decode().ok());
            view.is_some_and(|view| view.spec.access_modes.iter().any(|mode| &**mode == "ReadWriteOncePod"))
        })
        .collect();
    if exclusive.is_empty() {
        return false;
    }
    let others = cluster.nodes().iter().flat_map(|node| node.pods.values());
    others
        .filter(|other| other.key.namespace == pod.key.namespace && other.key != pod.key)
        .any(|other| other.claims.iter().any(|held| exclusive.iter().any(|claim| claim.name == held.name)))
}
