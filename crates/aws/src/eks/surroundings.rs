//! What EKS looks up in the other services' records, and makes there.

use object::{Resource, Snapshot};
use plan::net::Cidr;
use serde::Deserialize;

use super::cluster::ClusterRecord;
use super::fault;
use super::node_group::{NodeGroup, NodeGroupRecord, Template, TemplateRequest};
use crate::ec2::record::{Peer, SecurityGroup};
use crate::ec2::{instance_type, security_group};
use crate::iam::{self, Trust};
use crate::state::{self, Changes, Kept};
use crate::{Context, Fault};

/// A subnet, as far as EKS asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subnet {
    pub vpc_id: String,
    /// `us-east-1a`
    pub zone: String,
}

/// A VPC's ranges, and whether it is the account's default one.
pub struct Network {
    pub ranges: Vec<Cidr>,
    pub is_default: bool,
}

/// A record of another service, by members that it shows to its own clients.
#[derive(Deserialize)]
struct Of<T> {
    spec: T,
}

fn look<T: serde::de::DeserializeOwned>(state: &Snapshot, resource: Resource, name: &str) -> Option<T> {
    let Of { spec } = state.find(resource, "", name)?.decode().ok()?;
    Some(spec)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SubnetView {
    vpc_id: String,
    availability_zone: String,
}

pub fn subnet(state: &Snapshot, id: &str) -> Result<Subnet, Fault> {
    let found: Option<SubnetView> = look(state, Resource::new("subnets.ec2"), id);
    let found = found.ok_or_else(|| fault::invalid(format!("The subnet ID '{id}' does not exist")))?;
    Ok(Subnet { vpc_id: found.vpc_id, zone: found.availability_zone })
}

/// The zone of a subnet, if there is such a subnet.
pub fn zone_of(state: &Snapshot, subnet: &str) -> Option<String> {
    let found: SubnetView = look(state, Resource::new("subnets.ec2"), subnet)?;
    Some(found.availability_zone)
}

pub fn network(state: &Snapshot, vpc: &str) -> Option<Network> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct View {
        cidr_block: Cidr_,
        is_default: bool,
    }
    #[derive(Deserialize)]
    #[serde(try_from = "String")]
    struct Cidr_(Cidr);
    impl TryFrom<String> for Cidr_ {
        type Error = String;
        fn try_from(text: String) -> Result<Self, String> {
            text.parse().map(Self)
        }
    }
    let View { cidr_block: Cidr_(range), is_default } = look(state, Resource::new("vpcs.ec2"), vpc)?;
    Some(Network { ranges: vec![range], is_default })
}

pub fn check_security_group(state: &Snapshot, id: &str, vpc: &str) -> Result<(), Fault> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct View {
        vpc_id: String,
    }
    let found: Option<View> = look(state, Resource::new("security-groups.ec2"), id);
    match found {
        None => Err(fault::invalid(format!("The security group ID '{id}' does not exist"))),
        Some(group) if group.vpc_id != vpc => {
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

/// A template that a user named by its id or its name.
pub fn launch_template(_: &Snapshot, _: &TemplateRequest) -> Result<Template, Fault> {
    Err(fault::unsupported("A launch template of your own (launchTemplate)"))
}

/// The template that EKS makes of a node group's settings.
pub fn create_template(
    context: &mut Context,
    _: &mut Changes,
    _: &Kept<ClusterRecord>,
    _: &NodeGroup,
) -> Result<Template, Fault> {
    let id = context.ids.resource("lt");
    Ok(Template { name: format!("eks-{}", context.ids.uuid()), id, version: "1".into() })
}

pub fn new_template_version(
    _: &mut Context,
    _: &mut Changes,
    _: &Kept<ClusterRecord>,
    group: &NodeGroupRecord,
) -> Result<Template, Fault> {
    let next = group.template.version.parse::<u32>().unwrap_or_default() + 1;
    Ok(Template { version: next.to_string(), ..group.template.clone() })
}
