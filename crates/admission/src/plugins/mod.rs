//! The plugins, one file each, in upstream's order.

mod certificate_approval;
mod certificate_signing;
mod certificate_subject_restriction;
mod default_ingress_class;
mod default_storage_class;
mod default_toleration_seconds;
pub(crate) mod fargate;
mod limit_ranger;
mod namespace_lifecycle;
mod node_restriction;
mod persistent_volume_claim_resize;
pub(crate) mod pod_identity;
mod pod_resize;
mod pod_security;
mod pod_topology_labels;
mod priority;
mod resource_quota;
mod runtime_class;
mod service_account;
mod storage_object_in_use_protection;
mod taint_nodes_by_condition;

use crate::Plugin;

/// Every plugin that is on by default upstream and decides by itself; and Fargate and pod identity, which are webhooks on EKS and come where webhooks do.
pub static PLUGINS: &[Plugin] = &[
    namespace_lifecycle::PLUGIN,
    limit_ranger::PLUGIN,
    service_account::PLUGIN,
    node_restriction::PLUGIN,
    taint_nodes_by_condition::PLUGIN,
    pod_security::PLUGIN,
    priority::PLUGIN,
    default_toleration_seconds::PLUGIN,
    default_storage_class::PLUGIN,
    storage_object_in_use_protection::PLUGIN,
    persistent_volume_claim_resize::PLUGIN,
    runtime_class::PLUGIN,
    certificate_approval::PLUGIN,
    certificate_signing::PLUGIN,
    certificate_subject_restriction::PLUGIN,
    default_ingress_class::PLUGIN,
    pod_topology_labels::PLUGIN,
    pod_resize::PLUGIN,
    fargate::PLUGIN,
    pod_identity::PLUGIN,
    resource_quota::PLUGIN,
];
