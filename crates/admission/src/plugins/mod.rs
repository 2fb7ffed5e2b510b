//! The plugins, one file each, in upstream's order.

mod certificate_approval;
mod certificate_signing;
mod certificate_subject_restriction;
mod default_ingress_class;
mod default_storage_class;
mod default_toleration_seconds;
pub(crate) mod fargate;
mod limit_ranger;
mod mountable_secrets;
mod namespace_lifecycle;
mod node_declared_features;
mod node_restriction;
mod persistent_volume_claim_resize;
pub(crate) mod pod_identity;
mod pod_resize;
pub(crate) mod pod_security;
mod pod_topology_labels;
mod priority;
pub(crate) mod resource_quota;
mod runtime_class;
mod service_account;
mod storage_object_in_use_protection;
mod taint_nodes_by_condition;

use crate::Step;

/// What is on by default upstream, in upstream's order (`pkg/kubeapiserver/options/plugins.go`), and before the webhooks what webhooks of EKS
/// do. Four of upstream's are about features that are off by default and have nothing to decide: PodGroupProtection,
/// ClusterTrustBundleAttest, PodGroupWorkloadExists and JobValidation.
pub static CHAIN: &[Step] = &[
    Step::Plugins(&[
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
        node_declared_features::PLUGIN,
        pod_resize::PLUGIN,
    ]),
    Step::MutatingPolicies,
    Step::Plugins(&[fargate::PLUGIN, pod_identity::PLUGIN]),
    Step::MutatingWebhooks,
    Step::ValidatingPolicies,
    Step::ValidatingWebhooks,
    // What it charges is charged for a request that everybody else has let pass.
    Step::Charge(resource_quota::NAME, resource_quota::charge),
];
