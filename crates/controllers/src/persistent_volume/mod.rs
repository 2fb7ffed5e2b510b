//! Brings claims and volumes together, and asks the provisioner of a claim's class for a volume where there is none.
//!
//! A binding is written on both sides: `spec.claimRef` of the volume first, then `spec.volumeName` of the claim. A claim that waits for
//! its first consumer is left to the scheduler until that has chosen a node.
//!
//! <https://kubernetes.io/docs/concepts/storage/persistent-volumes/#lifecycle-of-a-volume-and-claim>

mod claim;

use std::collections::BTreeMap;
use std::sync::Arc;

use kinds::{PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, STORAGE_CLASSES};
use object::{Change, Event, Key, LabelSelector, Object, Snapshot, Time};
use plan::Plan;
use schema::Quantity;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::views::{Annotated, status_of};
use crate::writes::{merge, write_status};
use crate::{Controller, Settings, Watch};

pub static CONTROLLER: Controller = Controller {
    name: "persistentvolume-controller",
    user: "persistent-volume-binder",
    watches: &[
        Watch { resource: PERSISTENT_VOLUME_CLAIMS, keys: of_claim },
        Watch { resource: PERSISTENT_VOLUMES, keys: of_volume },
        Watch { resource: STORAGE_CLASSES, keys: of_class },
    ],
    reconcile,
    refused: None,
    resync_secs: None,
};

/// On what was brought together here or by the scheduler.
const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";

/// What claims and volumes have in common in their specs.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    access_modes: Vec<String>,
    storage_class_name: Option<String>,
    volume_mode: Option<String>,
    /// Of a claim: the volume it has.
    volume_name: String,
    /// Of a claim: which volumes it takes.
    selector: Option<LabelSelector>,
    resources: Resources,
    /// Of a volume.
    capacity: BTreeMap<String, Value>,
    claim_ref: Option<ClaimRef>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Resources {
    requests: BTreeMap<String, Value>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
struct ClaimRef {
    namespace: String,
    name: String,
    uid: String,
}

/// A claim or a volume.
struct Side {
    object: Arc<Object>,
    annotations: BTreeMap<String, String>,
    spec: Spec,
}

impl Side {
    fn read(object: &Arc<Object>) -> Option<Self> {
        #[derive(Deserialize)]
        struct Wire {
            metadata: Annotated,
            #[serde(default)]
            spec: Spec,
        }
        let Wire { metadata, spec } = object.decode().ok()?;
        Some(Self { object: object.clone(), annotations: metadata.annotations.unwrap_or_default(), spec })
    }

    fn name(&self) -> &str {
        &self.object.key.name
    }

    fn mode(&self) -> &str {
        self.spec.volume_mode.as_deref().unwrap_or("Filesystem")
    }

    fn class(&self) -> &str {
        self.spec.storage_class_name.as_deref().unwrap_or_default()
    }

    /// Is this volume meant for that claim, by name, and not for an earlier one of the same name?
    fn is_for(&self, claim: &Side) -> bool {
        self.spec.claim_ref.as_ref().is_some_and(|meant| {
            *meant.namespace == *claim.object.key.namespace
                && meant.name == claim.name()
                && (meant.uid.is_empty() || *meant.uid == *claim.object.meta.uid)
        })
    }
}

fn amount(amounts: &BTreeMap<String, Value>) -> Option<Quantity> {
    match amounts.get("storage")? {
        Value::String(text) => text.parse().ok(),
        number => number.to_string().parse().ok(),
    }
}

/// A claim, and the volume that is (or was) its own.
fn of_claim(snapshot: &Snapshot, event: &Event) -> Vec<Key> {
    let key = event.key().clone();
    let mut keys: Vec<Key> = Vec::new();
    if let Some(claim) = Side::read(&event.object) {
        let is_for = |volume: &&Arc<Object>| Side::read(volume).is_some_and(|volume| volume.is_for(&claim));
        let named = snapshot.list(PERSISTENT_VOLUMES, "").filter(is_for);
        keys.extend(named.map(|volume| volume.key.clone()));
    }
    if event.change != Change::Deleted {
        keys.push(key);
    }
    keys
}

/// A volume, the claim it is for, and all claims that might take a volume that is free.
fn of_volume(snapshot: &Snapshot, event: &Event) -> Vec<Key> {
    let own = (event.change != Change::Deleted).then(|| event.key().clone());
    let mut keys: Vec<Key> = own.into_iter().collect();
    match Side::read(&event.object).and_then(|volume| volume.spec.claim_ref) {
        Some(meant) => keys.push(Key::new(PERSISTENT_VOLUME_CLAIMS, meant.namespace, meant.name)),
        None => keys.extend(unbound_claims(snapshot)),
    }
    keys
}

fn of_class(snapshot: &Snapshot, _: &Event) -> Vec<Key> {
    unbound_claims(snapshot)
}

fn unbound_claims(snapshot: &Snapshot) -> Vec<Key> {
    let is_unbound =
        |claim: &&Arc<Object>| Side::read(claim).is_some_and(|claim| claim.spec.volume_name.is_empty());
    let claims = snapshot.list(PERSISTENT_VOLUME_CLAIMS, "").filter(is_unbound);
    claims.map(|claim| claim.key.clone()).collect()
}

fn reconcile(snapshot: &Snapshot, key: &Key, _: Time, _: &Settings) -> Plan {
    let mut plan = Plan::default();
    let Some(side) = snapshot.get(key).and_then(Side::read) else { return plan };
    if key.resource == PERSISTENT_VOLUMES {
        follow_claim(snapshot, &side, &mut plan);
    } else {
        claim::reconcile(snapshot, &side, &mut plan);
    }
    plan
}

/// A volume is Available, Bound or Released as its claim says; to reclaim a released one is for the provisioner that made it.
fn follow_claim(snapshot: &Snapshot, volume: &Side, plan: &mut Plan) {
    let claim = volume.spec.claim_ref.as_ref().map(|meant| {
        let found = snapshot.find(PERSISTENT_VOLUME_CLAIMS, &meant.namespace, &meant.name);
        found.filter(|claim| meant.uid.is_empty() || *claim.meta.uid == *meant.uid).and_then(Side::read)
    });
    let is_pinned = volume.spec.claim_ref.as_ref().is_some_and(|meant| !meant.uid.is_empty());
    let phase = match &claim {
        None => "Available",
        Some(None) if !is_pinned => "Available",
        Some(None) => "Released",
        Some(Some(claim)) if claim.spec.volume_name == volume.name() => "Bound",
        Some(Some(_)) => "Available",
    };
    if let Some(Some(claim)) = &claim
        && !claim.spec.volume_name.is_empty()
        && claim.spec.volume_name != volume.name()
    {
        unbind(volume, plan);
    }
    let old = status_of(&volume.object);
    let mut new = if old.is_object() { old.clone() } else { json!({}) };
    new["phase"] = phase.into();
    write_status(plan, &volume.object, &old, new);
}

/// A volume whose claim has come by another one meanwhile is free again: two that bind at a time may each have taken one. Whom its author
/// meant it for, stays.
fn unbind(volume: &Side, plan: &mut Plan) {
    if volume.annotations.contains_key(BOUND_BY_CONTROLLER) {
        let patch =
            json!({"metadata": {"annotations": {BOUND_BY_CONTROLLER: null}}, "spec": {"claimRef": null}});
        plan.write(merge(&volume.object, patch));
    } else if volume.spec.claim_ref.as_ref().is_some_and(|meant| !meant.uid.is_empty()) {
        plan.write(merge(&volume.object, json!({"spec": {"claimRef": {"uid": null}}})));
    }
}

/// The class of a claim.
fn class<'a>(snapshot: &'a Snapshot, claim: &Side) -> Option<&'a Arc<Object>> {
    snapshot.find(STORAGE_CLASSES, "", claim.class()).filter(|_| !claim.class().is_empty())
}
