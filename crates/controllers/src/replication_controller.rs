//! The ReplicaSet's ancestor: the same work for another kind.
//!
//! <https://kubernetes.io/docs/concepts/workloads/controllers/replicationcontroller/>

use object::{Event, Key, Snapshot, Status, Time};
use plan::{Plan, Write};

use crate::ownership::{Kind, own_key};
use crate::replica_set::{keep_replicas, tell_refusal};
use crate::{Controller, Settings, Watch};
use kinds::{PODS, REPLICATION_CONTROLLERS};

pub static CONTROLLER: Controller = Controller {
    name: "replication-controller",
    user: "replication-controller",
    watches: &[
        Watch { resource: REPLICATION_CONTROLLERS, keys: own_key },
        Watch { resource: PODS, keys: of_pod },
    ],
    reconcile,
    refused: Some(refused),
    resync_secs: None,
};

pub const KIND: Kind =
    Kind { api_version: "v1", kind: "ReplicationController", resource: REPLICATION_CONTROLLERS };

fn of_pod(snapshot: &Snapshot, event: &Event) -> Vec<Key> {
    KIND.keys_of_dependent(snapshot, event)
}

fn reconcile(snapshot: &Snapshot, key: &Key, now: Time, _: &Settings) -> Plan {
    keep_replicas(&KIND, snapshot, key, now)
}

fn refused(snapshot: &Snapshot, key: &Key, now: Time, write: &Write, status: &Status) -> Plan {
    tell_refusal(&KIND, snapshot, key, now, write, status)
}
