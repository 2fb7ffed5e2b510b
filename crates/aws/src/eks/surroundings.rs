//! What EKS looks up in the other services' records, and makes there.

use std::collections::BTreeMap;

use object::Snapshot;

use super::cluster::{ClusterRecord, VpcConfig};
use super::fault;
use crate::ec2::record::{NetworkInterface, Peer, RouteTable, SecurityGroup, Subnet, Target, Vpc};
use crate::ec2::{instance_type, interface, security_group};
use crate::iam::{self, Trust};
use crate::state::{self, Changes, Kept};
use crate::{Context, Fault};

/// Who asks for the interfaces at which a control plane is reached.
pub const REQUESTER: &str = "amazon-eks";
/// In how many subnets a control plane has one.
const INTERFACES: usize = 2;

pub fn subnet(state: &Snapshot, id: &str) -> Result<Kept<Subnet>, Fault> {
    state::get(state, "", id).ok_or_else(|| fault::invalid(format!("The subnet ID '{id}' does not exist")))
}

/// Whether nothing on the internet reaches a subnet by itself: its route table, or the VPC's main one, leads to no internet gateway.
pub fn is_private(state: &Snapshot, id: &str) -> bool {
    let Ok(subnet) = subnet(state, id) else { return false };
    let tables: Vec<RouteTable> =
        state::list::<RouteTable>(state, "").into_iter().map(|kept| kept.record).collect();
    let is_its_own = |table: &&RouteTable| {
        table.associations.iter().any(|association| association.subnet_id.as_deref() == Some(id))
    };
    let own = tables.iter().find(is_its_own);
    let main = || tables.iter().find(|table| table.vpc_id == subnet.record.vpc_id && table.is_main());
    let routes = own.or_else(main).map(|table| &*table.routes).unwrap_or_default();
    !routes.iter().any(|route| matches!(route.target, Target::InternetGateway(_)))
}

pub fn network(state: &Snapshot, vpc: &str) -> Option<Vpc> {
    Some(state::get::<Vpc>(state, "", vpc)?.record)
}

pub fn check_security_group(state: &Snapshot, id: &str, vpc: &str) -> Result<(), Fault> {
    match state::get::<SecurityGroup>(state, "", id) {
        None => Err(fault::invalid(format!("The security group ID '{id}' does not exist"))),
        Some(group) if group.record.vpc_id != vpc => {
            Err(fault::invalid(format!("Security group {id} does not belong to the same VPC as the subnets")))
        }
        Some(_) => Ok(()),
    }
}

/// A role that EKS is handed must be there and let the service assume it.
pub fn check_role(context: &Context, arn: &str, service: &str) -> Result<(), Fault> {
    is_usable(context, arn, iam::trust(context, arn, service))
}

/// A role for pods must be there and speak of the service that hands it to them. Which of them get it, its conditions say when one asks.
pub fn check_role_of_pods(context: &Context, arn: &str) -> Result<(), Fault> {
    is_usable(context, arn, iam::names_service(context, arn, "pods.eks.amazonaws.com"))
}

fn is_usable(context: &Context, arn: &str, trust: Trust) -> Result<(), Fault> {
    let refused =
        |why: &str| Err(fault::invalid(format!("Role with arn: {arn}, could not be assumed because {why}")));
    let prefix = format!("arn:aws:iam::{}:role/", context.account);
    if !arn.starts_with(&prefix) {
        return Err(fault::invalid(format!(
            "Error in role params: {arn} is not the ARN of a role of this account"
        )));
    }
    match trust {
        Trust::Missing => refused("it does not exist or the trusted entity is not correct"),
        Trust::Refused => refused(
            "it does not exist or the trusted entity is not correct: Role could not be assumed because the trusted entity is not correct",
        ),
        Trust::Given => Ok(()),
    }
}

/// The group that the control plane and all node groups of a cluster share: its members reach each other. Returns its id.
/// <https://docs.aws.amazon.com/eks/latest/userguide/sec-group-reqs.html>
pub fn create_cluster_security_group(
    context: &mut Context,
    changes: &mut Changes,
    cluster: &str,
    vpc: &str,
) -> String {
    let name = format!("eks-cluster-sg-{cluster}-{}", context.ids.of(b"0123456789", 9));
    let description = "EKS created security group applied to ENI that is attached to EKS Control Plane master nodes, as well as any managed workloads.";
    let mut group = security_group::bare(context, &name, description, vpc);
    let own = Peer::Group(group.group_id.clone());
    let rule = security_group::rule(context, false, own);
    group.rules.push(rule);
    group.tags = [
        ("Name", name.as_str()),
        ("aws:eks:cluster-name", cluster),
        (&format!("kubernetes.io/cluster/{cluster}"), "owned"),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into();
    changes.create("", &group.group_id, &group);
    group.group_id
}

pub fn delete_cluster_security_group(
    context: &Context,
    changes: &mut Changes,
    cluster: &Kept<ClusterRecord>,
) {
    let id = &cluster.record.shown.resources_vpc_config.cluster_security_group_id;
    if let Some(group) = state::get::<SecurityGroup>(context.state, "", id) {
        changes.delete(&group);
    }
}

/// The interfaces at which nodes reach a cluster's control plane: one in each of two zones.
/// <https://docs.aws.amazon.com/eks/latest/userguide/network-reqs.html>
pub fn create_control_plane_interfaces(
    context: &mut Context,
    changes: &mut Changes,
    cluster: &str,
    vpc: &VpcConfig,
) -> Result<(), Fault> {
    let mut by_zone: BTreeMap<String, Kept<Subnet>> = BTreeMap::new();
    for id in &vpc.subnet_ids {
        let subnet = subnet(context.state, id)?;
        by_zone.entry(subnet.record.availability_zone.clone()).or_insert(subnet);
    }
    for subnet in by_zone.into_values().take(INTERFACES) {
        let made = interface::make_for_service(
            context,
            changes,
            &subnet,
            REQUESTER,
            &description_of(cluster),
            vpc.groups(),
        );
        made.map_err(|fault| fault::invalid(format!("{}: {}", subnet.record.subnet_id, fault.message)))?;
    }
    Ok(())
}

fn description_of(cluster: &str) -> String {
    format!("Amazon EKS {cluster}")
}

/// The interfaces of a cluster's control plane, in the order of their addresses.
pub fn control_plane_interfaces(state: &Snapshot, cluster: &str) -> Vec<Kept<NetworkInterface>> {
    let description = description_of(cluster);
    let mut all = state::list::<NetworkInterface>(state, "");
    all.retain(|one| {
        one.record.requester.as_deref() == Some(REQUESTER) && one.record.description == description
    });
    all.sort_by_key(|one| one.record.private_ip);
    all
}

/// A node group's role must be there and let EC2 assume it.
pub fn check_node_role(context: &Context, arn: &str) -> Result<(), Fault> {
    let prefix = format!("arn:aws:iam::{}:role/", context.account);
    let name = arn.strip_prefix(&prefix).and_then(|path| path.rsplit('/').next());
    let name = name
        .ok_or_else(|| fault::invalid(format!("nodeRole {arn} is not the ARN of a role of this account")))?;
    match iam::trust(context, arn, "ec2.amazonaws.com") {
        Trust::Missing => Err(fault::invalid(format!("The role with name {name} cannot be found."))),
        Trust::Refused => Err(fault::invalid(format!(
            "Following required service principals [ec2.amazonaws.com] were not found in the trust relationships of nodeRole {arn}"
        ))),
        Trust::Given => Ok(()),
    }
}

/// The name in the ARN of a role.
pub fn role_name(arn: &str) -> &str {
    arn.rsplit('/').next().unwrap_or_default()
}

/// Of the types that there are, those of this host's kind of processor.
pub fn check_instance_type(name: &str) -> Result<(), Fault> {
    let wrong = |why: &str| Err(fault::invalid(format!("The following instance types are {why}: [{name}]")));
    match instance_type::find(name) {
        None => wrong("not known"),
        Some(kind) if kind.is_arm != cfg!(target_arch = "aarch64") => {
            wrong("of another architecture than this host")
        }
        Some(_) => Ok(()),
    }
}
