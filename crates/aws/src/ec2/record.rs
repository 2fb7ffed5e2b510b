//! What EC2 keeps. A record's key is its id; the owner is empty, but for versions of launch templates, whose owner is the template's id.
//!
//! `state` of an instance is what is true, `wanted` what was asked for: whoever follows the account makes the first the second.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use object::{Resource, Time};
use plan::net::Cidr;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::state::Record;

pub type Tags = BTreeMap<String, String>;

/// Which public addresses the account gives out; one record, written by whoever knows the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublicPool {
    pub first: Ipv4Addr,
    pub last: Ipv4Addr,
}

/// The name of that record.
pub const POOL: &str = "pool";

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Vpc {
    pub vpc_id: String,
    pub cidr_block: Cidr,
    pub cidr_association_id: String,
    /// Further ranges, by the id of their association.
    #[serde(default)]
    pub more_cidr_blocks: BTreeMap<String, Cidr>,
    pub is_default: bool,
    pub enable_dns_support: bool,
    pub enable_dns_hostnames: bool,
    #[serde(default)]
    pub enable_network_address_usage_metrics: bool,
    /// Its default network ACL, which lets everything through.
    pub network_acl_id: String,
    #[serde(default)]
    pub tags: Tags,
}

impl Vpc {
    pub fn ranges(&self) -> impl Iterator<Item = Cidr> + '_ {
        std::iter::once(self.cidr_block).chain(self.more_cidr_blocks.values().copied())
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Subnet {
    pub subnet_id: String,
    pub vpc_id: String,
    pub cidr_block: Cidr,
    /// `us-east-1a`
    pub availability_zone: String,
    pub map_public_ip_on_launch: bool,
    pub default_for_az: bool,
    #[serde(default)]
    pub tags: Tags,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteTable {
    pub route_table_id: String,
    pub vpc_id: String,
    /// Besides the one within the VPC.
    pub routes: Vec<Route>,
    pub associations: Vec<Association>,
    #[serde(default)]
    pub tags: Tags,
}

impl RouteTable {
    pub fn is_main(&self) -> bool {
        self.associations.iter().any(|association| association.subnet_id.is_none())
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Route {
    pub destination: Cidr,
    pub target: Target,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Target {
    InternetGateway(String),
    NatGateway(String),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Association {
    pub id: String,
    /// None for the VPC's main table.
    pub subnet_id: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InternetGateway {
    pub internet_gateway_id: String,
    pub vpc_id: Option<String>,
    #[serde(default)]
    pub tags: Tags,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NatGateway {
    pub nat_gateway_id: String,
    pub vpc_id: String,
    pub subnet_id: String,
    pub network_interface_id: String,
    pub allocation_id: String,
    pub private_ip: Ipv4Addr,
    pub public_ip: Ipv4Addr,
    pub created: Time,
    /// When it was deleted: it is shown for an hour more.
    #[serde(default)]
    pub deleted: Option<Time>,
    #[serde(default)]
    pub tags: Tags,
}

/// An elastic IP address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Address {
    pub allocation_id: String,
    pub public_ip: Ipv4Addr,
    #[serde(default)]
    pub association: Option<AddressAssociation>,
    #[serde(default)]
    pub tags: Tags,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AddressAssociation {
    pub association_id: String,
    pub network_interface_id: String,
    pub private_ip: Ipv4Addr,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecurityGroup {
    pub group_id: String,
    pub group_name: String,
    pub description: String,
    pub vpc_id: String,
    pub rules: Vec<GroupRule>,
    #[serde(default)]
    pub tags: Tags,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GroupRule {
    pub rule_id: String,
    pub is_egress: bool,
    /// `tcp`, `udp`, `icmp`, `icmpv6`, `-1` or another protocol's number.
    pub protocol: String,
    /// Ports, or ICMP's type; -1 is any.
    pub from: i32,
    /// Ports, or ICMP's code; -1 is any.
    pub to: i32,
    pub peer: Peer,
    #[serde(default)]
    pub description: Option<String>,
    #[serde(default)]
    pub tags: Tags,
}

impl GroupRule {
    /// Whether two rules say the same, whatever they are called.
    pub fn says_the_same(&self, other: &Self) -> bool {
        let of = |rule: &Self| (rule.is_egress, rule.protocol.clone(), rule.from, rule.to, rule.peer.clone());
        of(self) == of(other)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Peer {
    Ipv4(Cidr),
    /// Kept and shown; there is no IPv6 here that it could let through.
    Ipv6(String),
    Group(String),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NetworkInterface {
    pub network_interface_id: String,
    pub vpc_id: String,
    pub subnet_id: String,
    pub availability_zone: String,
    pub description: String,
    pub groups: Vec<String>,
    /// `02:…`
    pub mac_address: String,
    pub private_ip: Ipv4Addr,
    #[serde(default)]
    pub secondary: Vec<Ipv4Addr>,
    /// A delegated range, from which pods have their addresses; its clients see it in parts of 16.
    #[serde(default)]
    pub prefix: Option<Cidr>,
    /// Given to it for as long as its instance runs; an elastic one stands with the address.
    #[serde(default)]
    pub public_ip: Option<Ipv4Addr>,
    #[serde(default)]
    pub attachment: Option<Attachment>,
    /// `interface`, `nat_gateway`
    pub interface_type: String,
    /// Who made it, if it was a service: nobody else deletes it.
    #[serde(default)]
    pub requester: Option<String>,
    pub source_dest_check: bool,
    #[serde(default)]
    pub tags: Tags,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attachment {
    pub attachment_id: String,
    /// None for those of services.
    pub instance_id: Option<String>,
    pub device_index: u32,
    pub delete_on_termination: bool,
    pub attached: Time,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LaunchTemplate {
    pub launch_template_id: String,
    pub launch_template_name: String,
    pub created: Time,
    pub created_by: String,
    pub default_version: u32,
    pub latest_version: u32,
    #[serde(default)]
    pub tags: Tags,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LaunchTemplateVersion {
    pub version: u32,
    pub description: Option<String>,
    pub created: Time,
    pub created_by: String,
    /// As `RequestLaunchTemplateData`.
    pub data: Value,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Instance {
    pub instance_id: String,
    pub reservation_id: String,
    pub client_token: String,
    pub launch_index: u32,
    pub image_id: String,
    pub instance_type: String,
    pub vpc_id: String,
    pub subnet_id: String,
    pub availability_zone: String,
    /// `ip-172-31-0-10.ec2.internal`
    pub private_dns_name: String,
    pub key_name: Option<String>,
    /// ARN and id of its instance profile.
    pub profile: Option<(String, String)>,
    /// Base64, as it was given.
    pub user_data: Option<String>,
    pub metadata: MetadataOptions,
    pub is_spot: bool,
    pub disable_api_termination: bool,
    /// As it was asked for. Types of today's families are so without being asked.
    #[serde(default)]
    pub ebs_optimized: bool,
    pub launched: Time,
    pub wanted: Wanted,
    /// Grows with each reboot that is asked for.
    #[serde(default)]
    pub reboots: u32,
    pub state: State,
    /// The cluster whose node it became.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub joined: Option<String>,
    /// Which node of the site's own it is, if it is one: no call makes it so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site_node: Option<SiteNode>,
    /// What it is for on Fargate, if it is the machine of a pod there: it is shown to nobody, and no call reaches it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fargate: Option<FargateTask>,
    /// Code and message: why it is not running.
    #[serde(default)]
    pub reason: Option<(String, String)>,
    /// When it was terminated: it is shown for an hour more.
    #[serde(default)]
    pub terminated: Option<Time>,
    #[serde(default)]
    pub tags: Tags,
}

impl Instance {
    /// What its node is called.
    pub fn node_name(&self) -> &str {
        self.site_node.as_ref().map_or(&self.private_dns_name, |node| &node.name)
    }

    /// What tells it from all others in its node's provider id.
    pub fn provider_part(&self) -> &str {
        self.fargate.as_ref().map_or(&self.instance_id, |task| &task.task)
    }

    /// `aws:///us-east-1a/i-0123456789abcdef0`
    pub fn provider_id(&self) -> String {
        let zone = &self.availability_zone;
        match &self.fargate {
            Some(task) => format!("aws:///{zone}/{}/{}", task.task, self.private_dns_name),
            None => format!("aws:///{zone}/{}", self.instance_id),
        }
    }

    pub fn is_running(&self) -> bool {
        self.state == State::Running
    }

    /// Whether it runs, or is about to.
    pub fn is_alive(&self) -> bool {
        self.wanted == Wanted::Running && matches!(self.state, State::Pending | State::Running)
    }
}

/// The machine of one pod on Fargate, as large as the pod needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FargateTask {
    pub cluster: String,
    /// `0123456789-0123456789abcdef0123456789abcdef`
    pub task: String,
    /// The only pod that its node takes.
    #[serde(default)]
    pub pod_uid: String,
    pub cpu_milli: u32,
    pub memory_mib: u32,
}

/// A node that the owner of the site asked for by a number, `ekso up --nodes 3`: it is as large as the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SiteNode {
    pub cluster: String,
    /// `dev-1`
    pub name: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MetadataOptions {
    pub is_enabled: bool,
    /// How many hops an answer with a token survives; 1 keeps it from pods.
    pub hop_limit: u8,
    pub shows_tags: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wanted {
    Running,
    Stopped,
    Terminated,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    Pending,
    Running,
    ShuttingDown,
    Terminated,
    Stopping,
    Stopped,
}

impl State {
    /// Code and name. <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_InstanceState.html>
    pub fn told(self) -> (u16, &'static str) {
        match self {
            Self::Pending => (0, "pending"),
            Self::Running => (16, "running"),
            Self::ShuttingDown => (32, "shutting-down"),
            Self::Terminated => (48, "terminated"),
            Self::Stopping => (64, "stopping"),
            Self::Stopped => (80, "stopped"),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyPair {
    pub key_pair_id: String,
    pub key_name: String,
    pub fingerprint: String,
    /// `ed25519`, `rsa`
    pub key_type: String,
    /// As in `authorized_keys`.
    pub public_key: String,
    pub created: Time,
    #[serde(default)]
    pub tags: Tags,
}

macro_rules! records {
    ($($record:ty => $resource:literal;)*) => {
        $(impl Record for $record {
            const RESOURCE: Resource = Resource::new($resource);
        })*
    };
}

records! {
    Address => "addresses.ec2";
    Instance => "instances.ec2";
    InternetGateway => "internet-gateways.ec2";
    KeyPair => "key-pairs.ec2";
    LaunchTemplate => "launch-templates.ec2";
    LaunchTemplateVersion => "launch-template-versions.ec2";
    NatGateway => "nat-gateways.ec2";
    NetworkInterface => "network-interfaces.ec2";
    PublicPool => "public-pools.ec2";
    RouteTable => "route-tables.ec2";
    SecurityGroup => "security-groups.ec2";
    Subnet => "subnets.ec2";
    Vpc => "vpcs.ec2";
}
