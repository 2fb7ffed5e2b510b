//! Amazon EKS: <https://docs.aws.amazon.com/eks/latest/APIReference/>. A noun a file; an operation a function and a row.
//!
//! A call records what is wanted and says `CREATING`, `UPDATING`, `DELETING`; who follows the account store makes it so and writes back
//! what became of it (`crate::control`).

mod access_entry;
mod access_policy;
mod addon;
mod addon_catalog;
mod addon_settings;
mod cluster;
mod cluster_config;
mod fargate_node;
mod fargate_profile;
mod fault;
mod forget;
mod identity_provider;
mod insight;
mod node_group;
mod node_group_update;
mod node_repair;
mod node_template;
pub mod observed;
mod pod_identity;
mod refused;
mod request;
mod subject;
mod surroundings;
mod tags;
mod update;
mod version;

pub use access_entry::{AccessEntry, AssociatedPolicy, Scope};
pub use access_policy::POLICIES as ACCESS_POLICIES;
pub use addon::Addon;
pub use cluster::{
    AuthenticationMode, CertificateAuthority, Cluster, ClusterRecord, Health, Identity, Issue, Oidc,
    VpcConfig, failed,
};
pub use fargate_node::{FargateNode, FargateState, PodRef};
pub use fargate_profile::{FargateProfile, FargateProfileRecord, Selector};
pub use forget::{begin as begin_to_go, end_nodes, forget};
pub use identity_provider::{IdentityProvider, believed};
pub use node_group::{
    Before, NodeGroup, NodeGroupRecord, Phase, Rollout, Scaling, Taint, Template, UpdateConfig, Waiting,
    newest_release,
};
pub use node_repair::NodeRepair;
pub use node_template::remove as remove_template;
pub use pod_identity::PodIdentityAssociation;
pub use surroundings::{REQUESTER, control_plane_interfaces};
pub use update::{Update, UpdateError, UpdateRecord};
pub use version::{DEFAULT as DEFAULT_VERSION, VERSIONS, support_of};

use crate::{Operation, Service, repeated};

pub static SERVICE: Service = Service { signing_name: "eks", action_prefix: "eks", operations: OPERATIONS };

const fn row(name: &'static str, subject: Subject, run: Run) -> Operation {
    Operation { name, subject, run }
}

type Subject = fn(&crate::Context, &serde_json::Value) -> crate::Subject;
type Run = fn(&mut crate::Context, &serde_json::Value) -> Result<crate::Answer, crate::Fault>;

/// A change of what is there, made once for its `clientRequestToken`: sent again it gives the same update.
macro_rules! once {
    ($operation:literal, $run:expr) => {
        |context, input| {
            repeated::once($operation, context, input, &TOKENS, repeated::Again::SameAnswer, $run)
        }
    };
}

const TOKENS: repeated::Tokens = repeated::Tokens {
    member: "clientRequestToken",
    mismatch: || fault::invalid_request("The clientRequestToken was used by a request with other parameters"),
};

const OPERATIONS: &[Operation] = &[
    row("AssociateAccessPolicy", subject::access_entry, access_entry::associate_policy),
    row("AssociateEncryptionConfig", subject::settings, refused::encryption),
    row("AssociateIdentityProviderConfig", subject::settings, identity_provider::associate),
    row("CreateAccessEntry", subject::new_access_entry, access_entry::create),
    row("CreateAddon", subject::new_of_cluster, addon::create),
    row("CreateCapability", subject::cluster, refused::capability),
    row("CreateCluster", subject::new_cluster, cluster::create),
    row("CreateEksAnywhereSubscription", subject::any, refused::anywhere),
    row("CreateFargateProfile", subject::new_of_cluster, fargate_profile::create),
    row("CreateNodegroup", subject::new_of_cluster, node_group::create),
    row("CreatePodIdentityAssociation", subject::new_of_cluster, pod_identity::create),
    row("DeleteAccessEntry", subject::access_entry, access_entry::delete),
    row("DeleteAddon", subject::addon, addon::delete),
    row("DeleteCapability", subject::cluster, refused::no_capability),
    row("DeleteCluster", subject::cluster, cluster::delete),
    row("DeleteEksAnywhereSubscription", subject::any, refused::no_subscription),
    row("DeleteFargateProfile", subject::fargate_profile, fargate_profile::delete),
    row("DeleteNodegroup", subject::node_group, node_group::delete),
    row("DeletePodIdentityAssociation", subject::pod_identity, pod_identity::delete),
    row("DeregisterCluster", subject::cluster, refused::deregister),
    row("DescribeAccessEntry", subject::access_entry, access_entry::describe),
    row("DescribeAddon", subject::addon, addon::describe),
    row("DescribeAddonConfiguration", subject::any, addon_catalog::describe_configuration),
    row("DescribeAddonVersions", subject::any, addon_catalog::describe_versions),
    row("DescribeCapability", subject::cluster, refused::no_capability),
    row("DescribeCluster", subject::cluster, cluster::describe),
    row("DescribeClusterVersions", subject::any, version::describe),
    row("DescribeEksAnywhereSubscription", subject::any, refused::no_subscription),
    row("DescribeFargateProfile", subject::fargate_profile, fargate_profile::describe),
    row("DescribeIdentityProviderConfig", subject::identity_provider, identity_provider::describe),
    row("DescribeInsight", subject::cluster, insight::describe),
    row("DescribeInsightsRefresh", subject::cluster, observed::describe_refresh),
    row("DescribeNodegroup", subject::node_group, node_group::describe),
    row("DescribePodIdentityAssociation", subject::pod_identity, pod_identity::describe),
    row("DescribeUpdate", subject::cluster, update::describe),
    row("DisassociateAccessPolicy", subject::access_entry, access_entry::disassociate_policy),
    row("DisassociateIdentityProviderConfig", subject::identity_provider, identity_provider::disassociate),
    row("ListAccessEntries", subject::cluster, access_entry::list),
    row("ListAccessPolicies", subject::any, access_policy::list),
    row("ListAddons", subject::cluster, addon::list),
    row("ListAssociatedAccessPolicies", subject::access_entry, access_entry::list_policies),
    row("ListCapabilities", subject::cluster, refused::no_capabilities),
    row("ListClusters", subject::clusters, cluster::list),
    row("ListEksAnywhereSubscriptions", subject::any, refused::no_subscriptions),
    row("ListFargateProfiles", subject::cluster, fargate_profile::list),
    row("ListIdentityProviderConfigs", subject::cluster, identity_provider::list),
    row("ListInsights", subject::cluster, insight::list),
    row("ListNodegroups", subject::cluster, node_group::list),
    row("ListPodIdentityAssociations", subject::cluster, pod_identity::list),
    row("ListTagsForResource", subject::tagged, tags::list),
    row("ListUpdates", subject::cluster, update::list),
    row("RegisterCluster", subject::any, refused::register),
    row("StartInsightsRefresh", subject::cluster, observed::start_refresh),
    row("TagResource", subject::tagged, tags::tag),
    row("UntagResource", subject::tagged, tags::untag),
    row("UpdateAccessEntry", subject::access_entry, once!("UpdateAccessEntry", access_entry::update)),
    row("UpdateAddon", subject::addon, once!("UpdateAddon", addon::update)),
    row("UpdateCapability", subject::cluster, refused::no_capability),
    row("UpdateClusterConfig", subject::settings, once!("UpdateClusterConfig", cluster_config::update)),
    row(
        "UpdateClusterVersion",
        subject::settings,
        once!("UpdateClusterVersion", cluster_config::update_version),
    ),
    row("UpdateEksAnywhereSubscription", subject::any, refused::no_subscription),
    row(
        "UpdateNodegroupConfig",
        subject::node_group,
        once!("UpdateNodegroupConfig", node_group_update::config),
    ),
    row(
        "UpdateNodegroupVersion",
        subject::node_group,
        once!("UpdateNodegroupVersion", node_group_update::version),
    ),
    row(
        "UpdatePodIdentityAssociation",
        subject::pod_identity,
        once!("UpdatePodIdentityAssociation", pod_identity::update),
    ),
];

#[cfg(test)]
mod tests;
#[cfg(test)]
pub use tests::members::account as account_with_everything;
