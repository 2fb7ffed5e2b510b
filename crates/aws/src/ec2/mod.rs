//! Amazon EC2, what clusters need of it: <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/>. A noun a file; an operation a function
//! and a row.
//!
//! [`record`] is what is kept, [`noun`] what all kinds share. Networks are true as soon as whoever follows the account has read them;
//! an instance says in its state what has become of it.

mod address;
mod allocate;
mod gateway;
pub mod genesis;
pub mod instance;
mod instance_show;
pub mod instance_type;
pub mod interface;
mod key_pair;
pub mod launch;
mod launch_options;
mod launch_subject;
pub mod launch_template;
pub mod metadata;
mod nat_gateway;
mod noun;
mod permission;
pub mod place;
pub mod pods;
pub(crate) mod quota;
pub mod record;
mod route_table;
pub mod security_group;
mod subnet;
mod tags;
pub mod user_data;
mod vpc;

pub use address::public_of;

use serde_json::{Value, json};

use noun::{describe, subject, subject_of_new, unsupported};
use record::{Address, Instance, InternetGateway, NatGateway, NetworkInterface, RouteTable, Subnet, Vpc};

use crate::repeated::Again::{self, Looks, SameAnswer};
use crate::repeated::{self, Tokens};
use crate::service::{Operation, Service, Subject};
use crate::{Answer, Context, Fault};

macro_rules! operations {
    ($($name:literal, $subject:expr, $run:expr;)*) => {
        &[$(Operation { name: $name, subject: $subject, run: $run }),*]
    };
}

fn any(_: &Context, _: &Value) -> Subject {
    Subject::any()
}

/// What nobody can make is in no list. Asking for one by its id is asking for what is not there.
fn none(list: &'static str, input: &Value) -> Result<Answer, Fault> {
    let ids = input.as_object().into_iter().flatten().filter(|(name, _)| name.ends_with("Ids"));
    if let Some(id) = ids.filter_map(|(_, ids)| ids.get(0)?.as_str()).next() {
        return Err(Fault::new("InvalidID.NotFound", format!("The ID '{id}' does not exist")));
    }
    Ok(Answer::read(json!({(list): []})))
}

type Run = fn(&mut Context, &Value) -> Result<Answer, Fault>;

/// Runs a call once for its `ClientToken`.
fn once(
    operation: &'static str,
    context: &mut Context,
    input: &Value,
    again: Again,
    run: Run,
) -> Result<Answer, Fault> {
    const TOKENS: Tokens = Tokens {
        member: "ClientToken",
        mismatch: || {
            let message = "Arguments on this idempotent request are inconsistent with arguments used in previous request(s).";
            Fault::new("IdempotentParameterMismatch", message)
        },
    };
    repeated::once(operation, context, input, &TOKENS, again, run)
}

fn refuse(what: &str) -> Result<Answer, Fault> {
    Err(unsupported(what))
}

pub const SERVICE: Service = Service {
    signing_name: "ec2",
    action_prefix: "ec2",
    operations: operations! {
        "AllocateAddress", |c, i| subject_of_new(c, i, "elastic-ip"), |c, i| quota::addresses(c).and_then(|()| address::allocate(c, i));
        "AssignPrivateIpAddresses", |c, i| subject::<NetworkInterface>(c, i, "NetworkInterfaceId"), interface::assign;
        "AssociateAddress", |c, i| subject::<Address>(c, i, "AllocationId"), address::associate;
        "AssociateRouteTable", |c, i| subject::<RouteTable>(c, i, "RouteTableId"), route_table::associate;
        "AssociateVpcCidrBlock", |c, i| subject::<Vpc>(c, i, "VpcId"), vpc::associate_cidr;
        "AttachInternetGateway", |c, i| subject::<InternetGateway>(c, i, "InternetGatewayId"), gateway::attach;
        "AttachNetworkInterface", |c, i| subject::<Instance>(c, i, "InstanceId"), interface::attach;
        "AuthorizeSecurityGroupEgress", security_group::subject, security_group::authorize_egress;
        "AuthorizeSecurityGroupIngress", security_group::subject, security_group::authorize_ingress;
        "CreateInternetGateway", |c, i| subject_of_new(c, i, "internet-gateway"), |c, i| quota::internet_gateways(c).and_then(|()| gateway::create(c, i));
        "CreateKeyPair", |c, i| subject_of_new(c, i, "key-pair"), key_pair::create;
        "CreateLaunchTemplate", |c, i| subject_of_new(c, i, "launch-template"), |c, i| once("CreateLaunchTemplate", c, i, SameAnswer, |c, i| quota::launch_templates(c).and_then(|()| launch_template::create(c, i)));
        "CreateLaunchTemplateVersion", launch_template::subject, |c, i| once("CreateLaunchTemplateVersion", c, i, SameAnswer, |c, i| quota::launch_template_versions(c, i).and_then(|()| launch_template::create_version(c, i)));
        "CreateNatGateway", |c, i| subject_of_new(c, i, "natgateway"), |c, i| once("CreateNatGateway", c, i, Looks, |c, i| quota::nat_gateways(c, i).and_then(|()| nat_gateway::create(c, i)));
        "CreateNetworkAcl", |c, i| vpc::subject_of_inhabitant(c, i, "network-acl"), |_, _| refuse("network ACLs besides the default ones: use security groups");
        "CreateNetworkAclEntry", any, |_, _| refuse("rules of network ACLs: use security groups");
        "CreateNetworkInterface", |c, i| subject_of_new(c, i, "network-interface"), |c, i| once("CreateNetworkInterface", c, i, SameAnswer, |c, i| quota::interfaces(c).and_then(|()| interface::create(c, i)));
        "CreateRoute", |c, i| subject::<RouteTable>(c, i, "RouteTableId"), |c, i| quota::routes(c, i).and_then(|()| route_table::create_route(c, i));
        "CreateRouteTable", |c, i| vpc::subject_of_inhabitant(c, i, "route-table"), |c, i| once("CreateRouteTable", c, i, SameAnswer, |c, i| quota::route_tables(c, i).and_then(|()| route_table::create(c, i)));
        "CreateSecurityGroup", |c, i| vpc::subject_of_inhabitant(c, i, "security-group"), |c, i| quota::security_groups(c).and_then(|()| security_group::create(c, i));
        "CreateSubnet", |c, i| vpc::subject_of_inhabitant(c, i, "subnet"), |c, i| quota::subnets(c, i).and_then(|()| subnet::create(c, i));
        "CreateTags", tags::subject, tags::create;
        "CreateVpc", |c, i| subject_of_new(c, i, "vpc"), |c, i| quota::vpcs(c).and_then(|()| vpc::create(c, i));
        "DeleteInternetGateway", |c, i| subject::<InternetGateway>(c, i, "InternetGatewayId"), gateway::delete;
        "DeleteKeyPair", any, key_pair::delete;
        "DeleteLaunchTemplate", launch_template::subject, launch_template::delete;
        "DeleteLaunchTemplateVersions", launch_template::subject, launch_template::delete_versions;
        "DeleteNatGateway", |c, i| subject::<NatGateway>(c, i, "NatGatewayId"), nat_gateway::delete;
        "DeleteNetworkInterface", |c, i| subject::<NetworkInterface>(c, i, "NetworkInterfaceId"), interface::delete;
        "DeleteRoute", |c, i| subject::<RouteTable>(c, i, "RouteTableId"), route_table::delete_route;
        "DeleteRouteTable", |c, i| subject::<RouteTable>(c, i, "RouteTableId"), route_table::delete;
        "DeleteSecurityGroup", security_group::subject, security_group::delete;
        "DeleteSubnet", |c, i| subject::<Subnet>(c, i, "SubnetId"), subnet::delete;
        "DeleteTags", tags::subject, tags::delete;
        "DeleteVpc", |c, i| subject::<Vpc>(c, i, "VpcId"), vpc::delete;
        "DescribeAccountAttributes", any, vpc::describe_account;
        "DescribeAddresses", any, address::describe;
        "DescribeAddressesAttribute", any, address::describe_attributes;
        "DescribeAvailabilityZones", any, place::describe_zones;
        "DescribeDhcpOptions", any, vpc::describe_dhcp_options;
        "DescribeEgressOnlyInternetGateways", any, |_, i| none("EgressOnlyInternetGateways", i);
        "DescribeImages", any, place::describe_images;
        "DescribeInstanceAttribute", |c, i| subject::<Instance>(c, i, "InstanceId"), instance::describe_attribute;
        "DescribeInstanceStatus", any, instance::describe_status;
        "DescribeInstanceTypeOfferings", any, instance_type::offerings;
        "DescribeInstanceTypes", any, instance_type::describe;
        "DescribeInstances", any, instance::describe;
        "DescribeInternetGateways", any, describe::<InternetGateway>;
        "DescribeKeyPairs", any, key_pair::describe;
        "DescribeLaunchTemplateVersions", any, launch_template::describe_versions;
        "DescribeLaunchTemplates", any, launch_template::describe;
        "DescribeNatGateways", any, nat_gateway::describe;
        "DescribeNetworkAcls", any, vpc::describe_acls;
        "DescribeNetworkInterfaceAttribute", any, interface::describe_attribute;
        "DescribeNetworkInterfaces", any, describe::<NetworkInterface>;
        "DescribePlacementGroups", any, |_, i| none("PlacementGroups", i);
        "DescribeRegions", any, place::describe_regions;
        "DescribeRouteTables", any, describe::<RouteTable>;
        "DescribeSecurityGroupRules", any, security_group::describe_rules;
        "DescribeSecurityGroups", any, security_group::describe;
        "DescribeSnapshots", any, |_, i| none("Snapshots", i);
        "DescribeSubnets", any, describe::<Subnet>;
        "DescribeTags", any, tags::describe;
        "DescribeVolumes", any, |_, i| none("Volumes", i);
        "DescribeVpcAttribute", |c, i| subject::<Vpc>(c, i, "VpcId"), vpc::describe_attribute;
        "DescribeVpcEndpoints", any, |_, i| none("VpcEndpoints", i);
        "DescribeVpcPeeringConnections", any, |_, i| none("VpcPeeringConnections", i);
        "DescribeVpcs", any, describe::<Vpc>;
        "DescribeVpnGateways", any, |_, i| none("VpnGateways", i);
        "DetachInternetGateway", |c, i| subject::<InternetGateway>(c, i, "InternetGatewayId"), gateway::detach;
        "DetachNetworkInterface", any, interface::detach;
        "DisassociateAddress", any, address::disassociate;
        "DisassociateRouteTable", any, route_table::disassociate;
        "DisassociateVpcCidrBlock", any, vpc::disassociate_cidr;
        "GetSecurityGroupsForVpc", |c, i| subject::<Vpc>(c, i, "VpcId"), security_group::for_vpc;
        "ImportKeyPair", |c, i| subject_of_new(c, i, "key-pair"), key_pair::import;
        "ModifyInstanceAttribute", |c, i| subject::<Instance>(c, i, "InstanceId"), instance::modify;
        "ModifyInstanceMetadataOptions", |c, i| subject::<Instance>(c, i, "InstanceId"), instance::modify_metadata;
        "ModifyLaunchTemplate", launch_template::subject, launch_template::modify;
        "ModifyNetworkInterfaceAttribute", |c, i| subject::<NetworkInterface>(c, i, "NetworkInterfaceId"), interface::modify;
        "ModifySecurityGroupRules", security_group::subject, security_group::modify_rules;
        "ModifySubnetAttribute", |c, i| subject::<Subnet>(c, i, "SubnetId"), subnet::modify;
        "ModifyVpcAttribute", |c, i| subject::<Vpc>(c, i, "VpcId"), vpc::modify;
        "RebootInstances", |c, i| subject::<Instance>(c, i, "InstanceIds"), instance::reboot;
        "ReleaseAddress", |c, i| subject::<Address>(c, i, "AllocationId"), address::release;
        "ReplaceRoute", |c, i| subject::<RouteTable>(c, i, "RouteTableId"), route_table::replace_route;
        "ReplaceRouteTableAssociation", |c, i| subject::<RouteTable>(c, i, "RouteTableId"), route_table::replace_association;
        "RevokeSecurityGroupEgress", security_group::subject, security_group::revoke_egress;
        "RevokeSecurityGroupIngress", security_group::subject, security_group::revoke_ingress;
        "RunInstances", launch_subject::of_run, |c, i| once("RunInstances", c, i, Looks, |c, i| quota::instances(c, i).and_then(|()| launch::run(c, i)));
        "StartInstances", |c, i| subject::<Instance>(c, i, "InstanceIds"), instance::start;
        "StopInstances", |c, i| subject::<Instance>(c, i, "InstanceIds"), instance::stop;
        "TerminateInstances", |c, i| subject::<Instance>(c, i, "InstanceIds"), instance::terminate;
        "UnassignPrivateIpAddresses", |c, i| subject::<NetworkInterface>(c, i, "NetworkInterfaceId"), interface::unassign;
        "UpdateSecurityGroupRuleDescriptionsEgress", security_group::subject, security_group::describe_egress_rules;
        "UpdateSecurityGroupRuleDescriptionsIngress", security_group::subject, security_group::describe_ingress_rules;
    },
};
