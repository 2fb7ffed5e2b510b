//! Lets a PersistentVolume that is being deleted go when no claim is bound to it any more.
//!
//! <https://kubernetes.io/docs/concepts/storage/persistent-volumes/#storage-object-in-use-protection>

use kinds::PERSISTENT_VOLUMES;
use object::{Key, Snapshot, Time};
use plan::Plan;
use serde_json::Value;

use crate::ownership::own_key;
use crate::views::status_of;
use crate::writes::drop_finalizer;
use crate::{Controller, Settings, Watch};

pub static CONTROLLER: Controller = Controller {
    name: "persistentvolume-protection-controller",
    user: "pv-protection-controller",
    watches: &[Watch { resource: PERSISTENT_VOLUMES, keys: own_key }],
    reconcile,
    refused: None,
    resync_secs: None,
};

const FINALIZER: &str = "kubernetes.io/pv-protection";

fn reconcile(snapshot: &Snapshot, key: &Key, _: Time, _: &Settings) -> Plan {
    let mut plan = Plan::default();
    let Some(volume) = snapshot.get(key) else { return plan };
    let is_bound = status_of(volume).get("phase").and_then(Value::as_str) == Some("Bound");
    if volume.meta.is_deleting() && volume.meta.has_finalizer(FINALIZER) && !is_bound {
        plan.write(drop_finalizer(volume, FINALIZER));
    }
    plan
}
