//! One claim: what it has, what it could take, or whom it waits for.

use kinds::{PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES};
use object::{Object, Snapshot};
use plan::{Expect, Plan, Write};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{BOUND_BY_CONTROLLER, Side, amount, class};
use crate::ownership::Kind;
use crate::views::status_of;
use crate::writes::{event, merge, write_status};

const KIND: Kind =
    Kind { api_version: "v1", kind: "PersistentVolumeClaim", resource: PERSISTENT_VOLUME_CLAIMS };
const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
const STORAGE_PROVISIONER: &str = "volume.kubernetes.io/storage-provisioner";

/// `storage.k8s.io/v1` `StorageClass`, as far as claims follow from it.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ClassView {
    provisioner: String,
    volume_binding_mode: String,
}

pub fn reconcile(snapshot: &Snapshot, claim: &Side, plan: &mut Plan) {
    if !claim.spec.volume_name.is_empty() {
        return keep(snapshot, claim, plan);
    }
    if claim.object.meta.is_deleting() {
        return;
    }
    let volumes: Vec<Side> = snapshot.list(PERSISTENT_VOLUMES, "").filter_map(Side::read).collect();
    if let Some(volume) = volumes.iter().find(|volume| volume.is_for(claim)) {
        return bind(claim, volume, plan);
    }
    let class = class(snapshot, claim);
    let view = class.and_then(|class| class.decode::<ClassView>().ok()).unwrap_or_default();
    let node = claim.annotations.get(SELECTED_NODE);
    if view.volume_binding_mode == "WaitForFirstConsumer" && node.is_none() {
        let message = "waiting for first consumer to be created before binding";
        event(plan, &claim.object, &KIND, false, "WaitForFirstConsumer", message);
        return tell(claim, "Pending", None, plan);
    }
    if let Some(volume) = best(claim, &volumes).filter(|_| node.is_none()) {
        return bind(claim, volume, plan);
    }
    tell(claim, "Pending", None, plan);
    match class {
        Some(_) => request(claim, &view, plan),
        None if claim.class().is_empty() => {
            let message = "no persistent volumes available for this claim and no storage class is set";
            event(plan, &claim.object, &KIND, false, "FailedBinding", message);
        }
        None => {
            let message = format!("storageclass.storage.k8s.io \"{}\" not found", claim.class());
            event(plan, &claim.object, &KIND, true, "ProvisioningFailed", message);
        }
    }
}

/// The smallest free volume that is large enough and of the right kind.
fn best<'v>(claim: &Side, volumes: &'v [Side]) -> Option<&'v Side> {
    let wanted = amount(&claim.spec.resources.requests).unwrap_or_default();
    let fits = |volume: &&Side| {
        volume.spec.claim_ref.is_none()
            && !volume.object.meta.is_deleting()
            && volume.class() == claim.class()
            && volume.mode() == claim.mode()
            && claim.spec.access_modes.iter().all(|mode| volume.spec.access_modes.contains(mode))
            && claim
                .spec
                .selector
                .as_ref()
                .is_none_or(|selector| selector.matches(&volume.object.meta.labels))
            && amount(&volume.spec.capacity).is_some_and(|capacity| capacity >= wanted)
    };
    let size = |volume: &&Side| amount(&volume.spec.capacity).unwrap_or_default();
    volumes.iter().filter(fits).min_by(|a, b| size(a).cmp(&size(b)).then_with(|| a.name().cmp(b.name())))
}

/// Both sides name each other: the volume first, so that nobody else takes it.
fn bind(claim: &Side, volume: &Side, plan: &mut Plan) {
    let is_pinned = volume.spec.claim_ref.as_ref().is_some_and(|meant| !meant.uid.is_empty());
    if !is_pinned {
        let mut patch = json!({"spec": {"claimRef": reference(claim)}});
        if volume.spec.claim_ref.is_none() {
            patch["metadata"] = json!({"annotations": {BOUND_BY_CONTROLLER: "yes"}});
        }
        plan.write(merge(&volume.object, patch));
    }
    let annotations = json!({BIND_COMPLETED: "yes", BOUND_BY_CONTROLLER: "yes"});
    let patch = json!({"metadata": {"annotations": annotations}, "spec": {"volumeName": volume.name()}});
    plan.write(merge(&claim.object, patch));
    tell(claim, "Bound", Some(volume), plan);
}

fn reference(claim: &Side) -> Value {
    let key = &claim.object.key;
    json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": &*key.namespace, "name": &*key.name,
        "uid": claim.object.meta.uid,
    })
}

/// A claim that names its volume: bound if the volume agrees, lost if it is gone.
fn keep(snapshot: &Snapshot, claim: &Side, plan: &mut Plan) {
    let was_bound = claim.annotations.contains_key(BIND_COMPLETED);
    let volume = snapshot.find(PERSISTENT_VOLUMES, "", &claim.spec.volume_name).and_then(Side::read);
    match volume {
        None if was_bound => {
            if phase(&claim.object) != "Lost" {
                let message = "Bound claim has lost its PersistentVolume. Data on the volume is lost!";
                event(plan, &claim.object, &KIND, true, "ClaimLost", message);
            }
            tell(claim, "Lost", None, plan);
        }
        None => tell(claim, "Pending", None, plan),
        Some(volume) if volume.is_for(claim) || volume.spec.claim_ref.is_none() => {
            let is_done =
                was_bound && volume.spec.claim_ref.as_ref().is_some_and(|meant| !meant.uid.is_empty());
            if is_done {
                tell(claim, "Bound", Some(&volume), plan);
            } else {
                bind(claim, &volume, plan);
            }
        }
        Some(_) if was_bound => {
            if phase(&claim.object) != "Lost" {
                let message = "Two claims are bound to the same volume, this one is bound incorrectly";
                event(plan, &claim.object, &KIND, true, "ClaimMisbound", message);
            }
            tell(claim, "Lost", None, plan);
        }
        Some(_) => tell(claim, "Pending", None, plan),
    }
}

fn phase(claim: &Object) -> String {
    status_of(claim).get("phase").and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn tell(claim: &Side, phase: &str, volume: Option<&Side>, plan: &mut Plan) {
    let old = status_of(&claim.object);
    let mut new = if old.is_object() { old.clone() } else { json!({}) };
    new["phase"] = phase.into();
    if let Some(volume) = volume {
        new["accessModes"] = json!(volume.spec.access_modes);
        new["capacity"] = json!(volume.spec.capacity);
    } else if let Some(members) = new.as_object_mut() {
        members.remove("accessModes");
        members.remove("capacity");
    }
    write_status(plan, &claim.object, &old, new);
}

/// Asks the class's provisioner for a volume, once.
fn request(claim: &Side, view: &ClassView, plan: &mut Plan) {
    let provisioner = &view.provisioner;
    let is_asked = claim.annotations.get(STORAGE_PROVISIONER) == Some(provisioner);
    if is_asked || provisioner == "kubernetes.io/no-provisioner" {
        return;
    }
    let annotations = json!({
        STORAGE_PROVISIONER: provisioner,
        "volume.beta.kubernetes.io/storage-provisioner": provisioner,
    });
    plan.write(Write::Merge {
        key: claim.object.key.clone(),
        expect: Expect::same(&claim.object),
        subresource: "",
        patch: json!({"metadata": {"annotations": annotations}}),
    });
    let message = format!(
        "Waiting for a volume to be created either by the external provisioner '{provisioner}' or manually by the system administrator. If volume creation is delayed, please verify that the provisioner is running and correctly registered."
    );
    event(plan, &claim.object, &KIND, false, "ExternalProvisioning", message);
}
