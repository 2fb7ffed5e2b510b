//! Lets a PersistentVolumeClaim that is being deleted go when no pod on a node uses it any more.
//!
//! <https://kubernetes.io/docs/concepts/storage/persistent-volumes/#storage-object-in-use-protection>

use std::collections::BTreeSet;

use kinds::{PERSISTENT_VOLUME_CLAIMS, PODS};
use object::{Change, Event, Key, Object, Snapshot, Time};
use plan::Plan;
use serde::Deserialize;

use crate::ownership::own_key;
use crate::writes::drop_finalizer;
use crate::{Controller, Settings, Watch};

pub static CONTROLLER: Controller = Controller {
    name: "persistentvolumeclaim-protection-controller",
    user: "pvc-protection-controller",
    watches: &[
        Watch { resource: PERSISTENT_VOLUME_CLAIMS, keys: own_key },
        Watch { resource: PODS, keys: of_pod },
    ],
    reconcile,
    refused: None,
    resync_secs: None,
};

const FINALIZER: &str = "kubernetes.io/pvc-protection";

#[derive(Default, Deserialize)]
#[serde(default)]
struct View {
    spec: Spec,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    node_name: String,
    volumes: Vec<Volume>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Volume {
    name: String,
    persistent_volume_claim: Option<Source>,
    ephemeral: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Source {
    claim_name: String,
}

/// The claims that a pod names, itself or through ephemeral volumes.
fn claims(pod: &Object, spec: &Spec) -> BTreeSet<String> {
    let name = |volume: &Volume| match (&volume.persistent_volume_claim, &volume.ephemeral) {
        (Some(source), _) => Some(source.claim_name.clone()),
        (None, Some(_)) => Some(format!("{}-{}", pod.key.name, volume.name)),
        (None, None) => None,
    };
    spec.volumes.iter().filter_map(name).collect()
}

/// Only a pod that is gone frees a claim.
fn of_pod(_: &Snapshot, event: &Event) -> Vec<Key> {
    if event.change != Change::Deleted {
        return Vec::new();
    }
    let View { spec } = event.object.decode().unwrap_or_default();
    let namespace = &event.key().namespace;
    let claims = claims(&event.object, &spec).into_iter();
    claims.map(|name| Key::new(PERSISTENT_VOLUME_CLAIMS, namespace.clone(), name)).collect()
}

fn reconcile(snapshot: &Snapshot, key: &Key, _: Time, _: &Settings) -> Plan {
    let mut plan = Plan::default();
    let held =
        |claim: &&std::sync::Arc<Object>| claim.meta.is_deleting() && claim.meta.has_finalizer(FINALIZER);
    let Some(claim) = snapshot.get(key).filter(held) else { return plan };
    // A pod without a node has not started, and cannot any more.
    let uses = |pod: &std::sync::Arc<Object>| {
        let View { spec } = pod.decode().unwrap_or_default();
        !spec.node_name.is_empty() && claims(pod, &spec).contains(&*key.name)
    };
    if !snapshot.list(PODS, &key.namespace).any(uses) {
        plan.write(drop_finalizer(claim, FINALIZER));
    }
    plan
}
