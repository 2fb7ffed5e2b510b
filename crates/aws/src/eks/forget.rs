//! What goes with a cluster: everything that belongs to it, in all services.

use super::access_entry::AccessEntry;
use super::cluster::ClusterRecord;
use super::node_group::NodeGroupRecord;
use super::observed::Observed;
use super::{
    Addon, FargateNode, FargateProfileRecord, IdentityProvider, PodIdentityAssociation, UpdateRecord,
    node_template, surroundings,
};
use crate::Context;
use crate::autoscaling::{Activity, Group, Member, members};
use crate::ec2::record::{Instance, State, Wanted};
use crate::state::{self, Changes, Record};
use crate::sts::jwt::{Issuer, key_of};

const DELETING: &str = "DELETING";

/// Ends the instances that were started for a cluster, at once, and forgets what would start others: node groups and Fargate profiles.
pub fn end_nodes(context: &Context, name: &str) -> Changes {
    let mut changes = Changes::default();
    let groups = state::list::<NodeGroupRecord>(context.state, name);
    let members = groups.iter().flat_map(|group| members(context.state, group.record.group_name()));
    let members: Vec<String> = members.map(|member| member.record.instance_id).collect();
    for mut instance in state::list::<Instance>(context.state, "") {
        let record = &mut instance.record;
        let is_site_node = record.site_node.as_ref().is_some_and(|node| node.cluster == name);
        let is_fargate = record.fargate.as_ref().is_some_and(|task| task.cluster == name);
        let is_its = is_site_node || is_fargate || members.contains(&record.instance_id);
        if is_its && record.wanted != Wanted::Terminated {
            (record.wanted, record.state) = (Wanted::Terminated, State::ShuttingDown);
            changes.update(&instance);
        }
    }
    all::<FargateNode>(context, &mut changes, name);
    all::<FargateProfileRecord>(context, &mut changes, name);
    for group in groups {
        let scaling = group.record.group_name();
        all::<Member>(context, &mut changes, scaling);
        all::<Activity>(context, &mut changes, scaling);
        if let Some(scaling) = state::get::<Group>(context.state, "", scaling) {
            changes.delete(&scaling);
        }
        node_template::remove(context, &mut changes, &group.record);
        changes.delete(&group);
    }
    changes
}

/// A cluster shall go: from here on nothing is made for it any more.
pub fn begin(context: &Context, name: &str) -> Changes {
    let mut changes = Changes::default();
    if let Some(mut cluster) = state::get::<ClusterRecord>(context.state, "", name)
        && cluster.record.shown.status != DELETING
    {
        cluster.record.shown.status = DELETING.into();
        changes.update(&cluster);
    }
    changes
}

/// Forgets a cluster whose control plane is gone, and whose nodes are. Self-managed nodes go on, as nobody's.
pub fn forget(context: &Context, name: &str) -> Changes {
    // What was started since its nodes were told to end.
    let mut changes = end_nodes(context, name);
    let Some(cluster) = state::get::<ClusterRecord>(context.state, "", name) else { return changes };
    for mut instance in state::list::<Instance>(context.state, "") {
        let is_written = changes.0.iter().any(|change| change.key == instance.key);
        if instance.record.joined.as_deref() == Some(name) && !is_written {
            // Another cluster may come to the name, and this is none of its nodes.
            instance.record.joined = None;
            changes.update(&instance);
        }
    }
    all::<AccessEntry>(context, &mut changes, name);
    all::<Addon>(context, &mut changes, name);
    all::<IdentityProvider>(context, &mut changes, name);
    all::<Observed>(context, &mut changes, name);
    all::<PodIdentityAssociation>(context, &mut changes, name);
    all::<UpdateRecord>(context, &mut changes, name);
    for interface in surroundings::control_plane_interfaces(context.state, name) {
        changes.delete(&interface);
    }
    surroundings::delete_cluster_security_group(context, &mut changes, &cluster);
    let issuer = cluster.record.shown.identity.as_ref().map(|identity| key_of(&identity.oidc.issuer));
    if let Some(keys) = issuer.and_then(|key| state::get::<Issuer>(context.state, "", &key)) {
        changes.delete(&keys);
    }
    changes.delete(&cluster);
    changes
}

fn all<T: Record>(context: &Context, changes: &mut Changes, owner: &str) {
    state::list::<T>(context.state, owner).iter().for_each(|kept| changes.delete(kept));
}
