//! How much of each kind an account has: AWS's own quotas for a new one, and one on instances, each of which is a machine of this host.
//! <https://docs.aws.amazon.com/vpc/latest/userguide/amazon-vpc-limits.html>

use serde_json::Value;

use super::noun::{Noun, find, text};
use super::record::{
    Address, Instance, InternetGateway, LaunchTemplate, LaunchTemplateVersion, NatGateway, NetworkInterface,
    RouteTable, SecurityGroup, State, Subnet, Vpc,
};
use crate::state::{self, Record};
use crate::{Context, Fault};

const ADDRESSES: usize = 5;
/// Of all pods on Fargate together. AWS gives a new account 6 and more to whoever asks; here nobody can be asked, so there are as many as
/// 256 of the smallest pods have. <https://docs.aws.amazon.com/eks/latest/userguide/service-quotas.html>
const FARGATE_VCPUS: u64 = 64;
const INSTANCES: u64 = 1_000;
const INTERFACES: usize = 5_000;
const INTERNET_GATEWAYS: usize = 5;
const LAUNCH_TEMPLATES: usize = 5_000;
const LAUNCH_TEMPLATE_VERSIONS: usize = 10_000;
const NAT_GATEWAYS_OF_A_ZONE: usize = 5;
const ROUTES_OF_A_TABLE: usize = 500;
const ROUTE_TABLES_OF_A_VPC: usize = 200;
const SECURITY_GROUPS: usize = 2_500;
const SUBNETS_OF_A_VPC: usize = 200;
const VPCS: usize = 5;

/// Refuses one more where there are `most` already.
fn room(there: usize, most: usize, noun: &str, things: &str) -> Result<(), Fault> {
    if there < most {
        return Ok(());
    }
    let message = format!("The maximum number of {things} has been reached.");
    Err(Fault::new(format!("{noun}LimitExceeded"), message))
}

fn count<T: Record>(context: &Context, of: &str, is: impl Fn(&T) -> bool) -> usize {
    state::list::<T>(context.state, of).iter().filter(|kept| is(&kept.record)).count()
}

pub fn addresses(context: &Context) -> Result<(), Fault> {
    room(count(context, "", |_: &Address| true), ADDRESSES, "Address", "addresses")
}

pub fn vpcs(context: &Context) -> Result<(), Fault> {
    room(count(context, "", |_: &Vpc| true), VPCS, "Vpc", "VPCs")
}

pub fn subnets(context: &Context, input: &Value) -> Result<(), Fault> {
    let there = count(context, "", |one: &Subnet| one.vpc_id == text(input, "VpcId"));
    room(there, SUBNETS_OF_A_VPC, "Subnet", "subnets")
}

pub fn internet_gateways(context: &Context) -> Result<(), Fault> {
    let there = count(context, "", |_: &InternetGateway| true);
    room(there, INTERNET_GATEWAYS, "InternetGateway", "internet gateways")
}

pub fn nat_gateways(context: &Context, input: &Value) -> Result<(), Fault> {
    let zone_of = |id: &str| {
        let subnet = state::get::<Subnet>(context.state, "", id);
        subnet.map(|subnet| subnet.record.availability_zone)
    };
    let Some(zone) = zone_of(text(input, "SubnetId")) else { return Ok(()) };
    let is_there =
        |one: &NatGateway| one.deleted.is_none() && zone_of(&one.subnet_id).as_ref() == Some(&zone);
    room(count(context, "", is_there), NAT_GATEWAYS_OF_A_ZONE, "NatGateway", "NAT gateways")
}

pub fn security_groups(context: &Context) -> Result<(), Fault> {
    let there = count(context, "", |_: &SecurityGroup| true);
    room(there, SECURITY_GROUPS, "SecurityGroup", "security groups")
}

pub fn route_tables(context: &Context, input: &Value) -> Result<(), Fault> {
    let there = count(context, "", |one: &RouteTable| one.vpc_id == text(input, "VpcId"));
    room(there, ROUTE_TABLES_OF_A_VPC, "RouteTable", "route tables")
}

pub fn routes(context: &Context, input: &Value) -> Result<(), Fault> {
    let table = find::<RouteTable>(context.state, text(input, "RouteTableId"))?;
    room(table.record.routes.len(), ROUTES_OF_A_TABLE, "Route", "routes")
}

pub fn interfaces(context: &Context) -> Result<(), Fault> {
    let there = count(context, "", |_: &NetworkInterface| true);
    room(there, INTERFACES, "NetworkInterface", "network interfaces")
}

pub fn launch_templates(context: &Context) -> Result<(), Fault> {
    let there = count(context, "", |_: &LaunchTemplate| true);
    room(there, LAUNCH_TEMPLATES, "LaunchTemplate", "launch templates")
}

pub fn launch_template_versions(context: &Context, input: &Value) -> Result<(), Fault> {
    let Ok(template) = super::launch_template::named(context, input) else { return Ok(()) };
    let there = count(context, template.record.id(), |_: &LaunchTemplateVersion| true);
    room(there, LAUNCH_TEMPLATE_VERSIONS, "LaunchTemplateVersion", "versions of a launch template")
}

pub fn instances(context: &Context, input: &Value) -> Result<(), Fault> {
    let there = count(context, "", |one: &Instance| one.state != State::Terminated);
    let wanted = input["MaxCount"].as_u64().unwrap_or_default();
    if u64::try_from(there).unwrap_or(u64::MAX).saturating_add(wanted) <= INSTANCES {
        return Ok(());
    }
    let message = format!(
        "You have requested more instances ({wanted}) than your current instance limit of {INSTANCES} allows for the specified instance type."
    );
    Err(Fault::new("InstanceLimitExceeded", message))
}

/// Thousandths of vCPUs that pods on Fargate may take yet. Those that have ended count as long as their machines are there.
pub fn fargate_milli_left(context: &Context) -> u64 {
    let instances = state::list::<Instance>(context.state, "").into_iter().map(|kept| kept.record);
    let there = instances.filter(|one| one.state != State::Terminated).filter_map(|one| one.fargate);
    let taken: u64 = there.map(|task| u64::from(task.cpu_milli)).sum();
    (FARGATE_VCPUS * 1_000).saturating_sub(taken)
}

/// What a pod is told that needs more than is left.
pub fn fargate_reached() -> String {
    format!(
        "Your AWS account has reached the limit on the number of vCPUs of Fargate pods it can run concurrently: {FARGATE_VCPUS}"
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn one_more_than_the_most_is_refused() {
        assert_eq!(room(4, 5, "Vpc", "VPCs"), Ok(()));
        let refused = room(5, 5, "Vpc", "VPCs").expect_err("refused");
        assert_eq!(refused.code, "VpcLimitExceeded");
        assert_eq!(refused.message, "The maximum number of VPCs has been reached.");
        assert_eq!(refused.members, json!({}));
    }
}
