//! Every controller: one file each, listed once. Pure.
//!
//! Architecture invariant: a controller sees a snapshot, a key and the time, and answers with a [`Plan`]. It keeps nothing between
//! runs and knows no other controller; they meet in what stands in the snapshot.

mod api_service;
mod claim_protection;
mod cluster_ip_repair;
mod cluster_role_aggregation;
mod cron_job;
mod csr_cleaner;
mod custom_resource_definition;
mod daemon_set;
mod deployment;
mod disruption;
mod endpoint_slice;
mod endpoint_slice_mirroring;
mod endpoints;
mod event_ttl;
mod flow_control;
mod garbage_collector;
mod job;
mod kubernetes_service;
mod legacy_token_cleaner;
mod legacy_token_tracking;
mod namespace;
mod naming;
mod node_ipam;
mod node_lifecycle;
mod nodes;
mod ownership;
mod persistent_volume;
mod pod_gc;
mod replica_set;
mod replication_controller;
mod resource_quota;
mod revisions;
mod root_ca_publisher;
mod service_account;
mod service_cidr;
mod service_pods;
mod settings;
mod stateful_set;
mod taint_eviction;
mod token_cleaner;
mod token_secret;
mod ttl_after_finished;
mod validating_admission_policy;
mod views;
mod volume_class_protection;
mod volume_protection;
mod writes;

use object::{Event, Key, Resource, Snapshot, Status, Time};
use plan::{Plan, Write};

pub use settings::{Settings, Tokens};

/// One controller: what wakes it and what it does about a key.
pub struct Controller {
    /// Its name in events, metrics and logs: `deployment-controller`.
    pub name: &'static str,
    /// The service account of kube-system that it writes as: `deployment-controller`. With a colon: the user itself, which upstream's
    /// processes are to what they do not do as an account.
    pub user: &'static str,
    /// Which changes wake which of its keys. At the start every object counts as just created.
    pub watches: &'static [Watch],
    /// What should be written so that the object of the key becomes what it asks to be. Planning again after the plan was carried
    /// out gives nothing (but perhaps a later `wake_at`).
    pub reconcile: fn(&Snapshot, &Key, Time, &Settings) -> Plan,
    /// What to tell about a write of the plan that the gate refused (quota, admission, validation; not lost races): conditions and
    /// events. The key runs again after its back-off in any case.
    pub refused: Option<Refused>,
    /// Every known key runs again this often, for controllers that follow time rather than changes.
    pub resync_secs: Option<i64>,
}

impl Controller {
    /// See [`OF_EVERY_SERVER`].
    pub fn is_of_every_server(&self) -> bool {
        OF_EVERY_SERVER.iter().any(|one| one.name == self.name)
    }
}

/// See [`Controller::refused`].
pub type Refused = fn(&Snapshot, &Key, Time, &Write, &Status) -> Plan;

/// Changes to one resource, and the keys that they wake.
pub struct Watch {
    /// [`EVERY`] hears of all resources.
    pub resource: Resource,
    /// The snapshot is at least as new as the event.
    pub keys: fn(&Snapshot, &Event) -> Vec<Key>,
}

/// Stands for every resource in a [`Watch`].
pub const EVERY: Resource = Resource::new("");

/// Those that run beside each API server, as upstream's does it itself: nothing is served of a definition before its names are accepted.
/// Where several servers share a store they decide alike, and the first one's write stands.
pub static OF_EVERY_SERVER: &[&Controller] =
    &[&custom_resource_definition::CONTROLLER, &legacy_token_tracking::CONTROLLER];

/// All controllers, in alphabetical order of their names.
pub static ALL: &[&Controller] = &[
    &api_service::CONTROLLER,
    &csr_cleaner::CONTROLLER,
    &cluster_role_aggregation::CONTROLLER,
    &custom_resource_definition::CONTROLLER,
    &cron_job::CONTROLLER,
    &daemon_set::CONTROLLER,
    &deployment::CONTROLLER,
    &disruption::CONTROLLER,
    &endpoints::CONTROLLER,
    &endpoint_slice::CONTROLLER,
    &endpoint_slice_mirroring::CONTROLLER,
    &event_ttl::CONTROLLER,
    &flow_control::CONTROLLER,
    &garbage_collector::CONTROLLER,
    &cluster_ip_repair::CONTROLLER,
    &job::CONTROLLER,
    &kubernetes_service::CONTROLLER,
    &legacy_token_cleaner::CONTROLLER,
    &legacy_token_tracking::CONTROLLER,
    &namespace::CONTROLLER,
    &node_lifecycle::CONTROLLER,
    &node_ipam::CONTROLLER,
    &persistent_volume::CONTROLLER,
    &volume_protection::CONTROLLER,
    &claim_protection::CONTROLLER,
    &pod_gc::CONTROLLER,
    &replica_set::CONTROLLER,
    &replication_controller::CONTROLLER,
    &resource_quota::CONTROLLER,
    &root_ca_publisher::CONTROLLER,
    &service_cidr::CONTROLLER,
    &service_account::CONTROLLER,
    &token_secret::CONTROLLER,
    &stateful_set::CONTROLLER,
    &taint_eviction::CONTROLLER,
    &token_cleaner::CONTROLLER,
    &ttl_after_finished::CONTROLLER,
    &validating_admission_policy::CONTROLLER,
    &volume_class_protection::CONTROLLER,
];
