//! Lets a VolumeAttributesClass that is being deleted go when no claim and no volume has it, or is to have it, any more.
//!
//! <https://kubernetes.io/docs/concepts/storage/volume-attributes-classes/>, KEP-3751

use std::sync::Arc;

use kinds::{PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, VOLUME_ATTRIBUTES_CLASSES};
use object::{Event, Key, Object, Snapshot, Time};
use plan::Plan;
use serde::Deserialize;

use crate::ownership::own_key;
use crate::writes::drop_finalizer;
use crate::{Controller, Settings, Watch};

pub static CONTROLLER: Controller = Controller {
    name: "volumeattributesclass-protection-controller",
    user: "volumeattributesclass-protection-controller",
    watches: &[
        Watch { resource: PERSISTENT_VOLUME_CLAIMS, keys: of_user },
        Watch { resource: PERSISTENT_VOLUMES, keys: of_user },
        Watch { resource: VOLUME_ATTRIBUTES_CLASSES, keys: own_key },
    ],
    reconcile,
    refused: None,
    resync_secs: None,
};

const FINALIZER: &str = "kubernetes.io/vac-protection";

/// A claim or a volume.
#[derive(Default, Deserialize)]
#[serde(default)]
struct View {
    spec: Spec,
    status: Status,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    volume_attributes_class_name: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    current_volume_attributes_class_name: String,
    modify_volume_status: Option<Target>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Target {
    target_volume_attributes_class_name: String,
}

/// The classes that a claim or a volume has or is to have.
fn classes(object: &Object) -> Vec<String> {
    let View { spec, status } = object.decode().unwrap_or_default();
    let target = status.modify_volume_status.unwrap_or_default().target_volume_attributes_class_name;
    let mut names =
        vec![spec.volume_attributes_class_name, status.current_volume_attributes_class_name, target];
    names.retain(|name| !name.is_empty());
    names
}

fn of_user(_: &Snapshot, event: &Event) -> Vec<Key> {
    let gone = event.previous.iter().chain([&event.object]).flat_map(|object| classes(object));
    gone.map(|name| Key::cluster(VOLUME_ATTRIBUTES_CLASSES, name)).collect()
}

fn reconcile(snapshot: &Snapshot, key: &Key, _: Time, _: &Settings) -> Plan {
    let mut plan = Plan::default();
    let Some(class) = snapshot.get(key) else { return plan };
    if !class.meta.is_deleting() || !class.meta.has_finalizer(FINALIZER) {
        return plan;
    }
    let has_it = |object: &Arc<Object>| classes(object).iter().any(|name| **name == *key.name);
    let mut users = snapshot.list(PERSISTENT_VOLUME_CLAIMS, "").chain(snapshot.list(PERSISTENT_VOLUMES, ""));
    if !users.any(has_it) {
        plan.write(drop_finalizer(class, FINALIZER));
    }
    plan
}
