//! VPCs. One comes with a main route table, a default security group and a network ACL that lets everything through.

use plan::net::Cidr;
use serde_json::{Value, json};

use super::noun::{
    Filters, Noun, find, in_use, invalid, lacking, missing, named, request_tags, show_tags, tags_for, text,
    texts, unsupported,
};
use super::record::{
    Association, InternetGateway, NetworkInterface, RouteTable, SecurityGroup, Subnet, Tags, Vpc,
};
use super::security_group;
use crate::state::{self, Changes, Kept};
use crate::{Answer, Context, Fault, Subject};

/// The DHCP options of every VPC: Amazon's resolver.
pub const DHCP_OPTIONS: &str = "dopt-0e0e0e0e0e0e0e0e0";

pub fn create(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    for member in ["AmazonProvidedIpv6CidrBlock", "Ipv6CidrBlock", "Ipv4IpamPoolId", "Ipv6IpamPoolId"] {
        if !input[member].is_null() && input[member] != false {
            return Err(unsupported("IPv6 and no IPAM in VPCs"));
        }
    }
    let range = range(text(input, "CidrBlock"), "InvalidVpc.Range")?;
    let tags = tags_for(input, "vpc", &[])?;
    let mut changes = Changes::default();
    let made = Made::new(context, range, false, tags);
    made.write(&mut changes);
    Ok(Answer::write(json!({"Vpc": show(&made.vpc, context)}), changes))
}

/// A VPC with what comes with it.
pub struct Made {
    pub vpc: Vpc,
    pub main: RouteTable,
    group: SecurityGroup,
}

impl Made {
    pub fn new(context: &mut Context, range: Cidr, is_default: bool, tags: Tags) -> Self {
        let vpc = Vpc {
            vpc_id: context.ids.resource("vpc"),
            cidr_block: range,
            cidr_association_id: context.ids.resource("vpc-cidr-assoc"),
            more_cidr_blocks: Default::default(),
            is_default,
            enable_dns_support: true,
            enable_dns_hostnames: is_default,
            enable_network_address_usage_metrics: false,
            network_acl_id: context.ids.resource("acl"),
            tags,
        };
        let main = RouteTable {
            route_table_id: context.ids.resource("rtb"),
            vpc_id: vpc.vpc_id.clone(),
            routes: Vec::new(),
            associations: vec![Association { id: context.ids.resource("rtbassoc"), subnet_id: None }],
            tags: Tags::new(),
        };
        let group = security_group::default_of(context, &vpc.vpc_id);
        Self { vpc, main, group }
    }

    pub fn write(&self, changes: &mut Changes) {
        changes.create("", &self.main.route_table_id, &self.main);
        changes.create("", &self.group.group_id, &self.group);
        changes.create("", &self.vpc.vpc_id, &self.vpc);
    }
}

/// A range of IPv4, with no bits after its prefix.
pub fn range(cidr: &str, code: &str) -> Result<Cidr, Fault> {
    let wrong = || {
        let message =
            format!("Value ({cidr}) for parameter cidrBlock is invalid. This is not a valid CIDR block.");
        Fault::new("InvalidParameterValue", message)
    };
    let range: Cidr = cidr.parse().map_err(|_| wrong())?;
    // AWS takes 100.68.0.18/18 for 100.68.0.0/18.
    if !(16..=28).contains(&range.prefix()) {
        return Err(Fault::new(code, format!("The CIDR '{cidr}' is invalid.")));
    }
    Ok(range)
}

pub fn show(vpc: &Vpc, context: &Context) -> Value {
    let associated = |id: &str, range: &Cidr| json!({"AssociationId": id, "CidrBlock": range, "CidrBlockState": {"State": "associated"}});
    let first = associated(&vpc.cidr_association_id, &vpc.cidr_block);
    let more = vpc.more_cidr_blocks.iter().map(|(id, range)| associated(id, range));
    json!({
        "VpcId": vpc.vpc_id, "CidrBlock": vpc.cidr_block, "State": "available", "IsDefault": vpc.is_default,
        "OwnerId": context.account, "InstanceTenancy": "default", "DhcpOptionsId": DHCP_OPTIONS,
        "CidrBlockAssociationSet": std::iter::once(first).chain(more).collect::<Vec<_>>(),
        "Ipv6CidrBlockAssociationSet": [], "Tags": show_tags(&vpc.tags),
    })
}

pub fn delete(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let vpc = named::<Vpc>(context, input, "VpcId")?;
    let id = &vpc.record.vpc_id;
    let state = context.state;
    let subnets = state::list::<Subnet>(state, "").iter().any(|one| one.record.vpc_id == *id);
    let interfaces = state::list::<NetworkInterface>(state, "").iter().any(|one| one.record.vpc_id == *id);
    let gateways =
        state::list::<InternetGateway>(state, "").iter().any(|one| one.record.vpc_id.as_ref() == Some(id));
    let tables = of_vpc::<RouteTable>(state, id, |one| &one.vpc_id);
    let groups = of_vpc::<SecurityGroup>(state, id, |one| &one.vpc_id);
    let own_tables = tables.iter().any(|one| !one.record.is_main());
    let own_groups = groups.iter().any(|one| one.record.group_name != security_group::DEFAULT);
    if subnets || interfaces || gateways || own_tables || own_groups {
        return Err(in_use("vpc", id));
    }
    let mut changes = Changes::default();
    tables.iter().for_each(|one| changes.delete(one));
    groups.iter().for_each(|one| changes.delete(one));
    changes.delete(&vpc);
    Ok(Answer::done(changes))
}

/// All records of a kind in a VPC.
pub fn of_vpc<T: Noun>(state: &object::Snapshot, vpc: &str, of: fn(&T) -> &String) -> Vec<Kept<T>> {
    state::list::<T>(state, "").into_iter().filter(|kept| of(&kept.record) == vpc).collect()
}

/// Further ranges of a VPC.
pub fn associate_cidr(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let mut vpc = named::<Vpc>(context, input, "VpcId")?;
    if text(input, "CidrBlock").is_empty() {
        return Err(unsupported("IPv6 and no IPAM in VPCs"));
    }
    let range = range(text(input, "CidrBlock"), "InvalidVpc.Range")?;
    if vpc.record.ranges().any(|known| known.overlaps(range)) {
        let message = format!("The CIDR '{range}' conflicts with one of the VPC's CIDR blocks");
        return Err(Fault::new("InvalidVpc.Range", message));
    }
    if vpc.record.ranges().count() >= 5 {
        let message = "The maximum number of CIDR blocks has been reached.";
        return Err(Fault::new("VpcCidrConflict", message));
    }
    let id = context.ids.resource("vpc-cidr-assoc");
    vpc.record.more_cidr_blocks.insert(id.clone(), range);
    let mut changes = Changes::default();
    changes.update(&vpc);
    let association =
        json!({"AssociationId": id, "CidrBlock": range, "CidrBlockState": {"State": "associating"}});
    let output = json!({"VpcId": vpc.record.vpc_id, "CidrBlockAssociation": association});
    Ok(Answer::write(output, changes))
}

pub fn disassociate_cidr(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let id = text(input, "AssociationId");
    let found = state::list::<Vpc>(context.state, "")
        .into_iter()
        .find(|vpc| vpc.record.more_cidr_blocks.contains_key(id));
    let mut vpc = found.ok_or_else(|| {
        let message = format!("The vpc CIDR block association ID '{id}' does not exist");
        Fault::new("InvalidVpcCidrBlockAssociationID.NotFound", message)
    })?;
    let Some(range) = vpc.record.more_cidr_blocks.remove(id) else { return Err(missing::<Vpc>(id)) };
    let used = state::list::<Subnet>(context.state, "");
    if used.iter().any(|one| one.record.vpc_id == vpc.record.vpc_id && range.overlaps(one.record.cidr_block))
    {
        return Err(in_use("vpc CIDR block", id));
    }
    let mut changes = Changes::default();
    changes.update(&vpc);
    let association =
        json!({"AssociationId": id, "CidrBlock": range, "CidrBlockState": {"State": "disassociating"}});
    Ok(Answer::write(json!({"VpcId": vpc.record.vpc_id, "CidrBlockAssociation": association}), changes))
}

pub fn modify(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let mut vpc = named::<Vpc>(context, input, "VpcId")?;
    let given = |member: &str| input[member]["Value"].as_bool();
    if let Some(value) = given("EnableDnsSupport") {
        vpc.record.enable_dns_support = value;
    }
    if let Some(value) = given("EnableDnsHostnames") {
        vpc.record.enable_dns_hostnames = value;
    }
    if let Some(value) = given("EnableNetworkAddressUsageMetrics") {
        vpc.record.enable_network_address_usage_metrics = value;
    }
    let mut changes = Changes::default();
    changes.update(&vpc);
    Ok(Answer::done(changes))
}

pub fn describe_attribute(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let vpc = named::<Vpc>(context, input, "VpcId")?.record;
    let (member, value) = match text(input, "Attribute") {
        "enableDnsSupport" => ("EnableDnsSupport", vpc.enable_dns_support),
        "enableDnsHostnames" => ("EnableDnsHostnames", vpc.enable_dns_hostnames),
        "enableNetworkAddressUsageMetrics" => {
            ("EnableNetworkAddressUsageMetrics", vpc.enable_network_address_usage_metrics)
        }
        "" => return Err(lacking("Attribute")),
        other => return Err(invalid(format!("Value ({other}) for parameter attribute is invalid."))),
    };
    Ok(Answer::read(json!({"VpcId": vpc.vpc_id, (member): {"Value": value}})))
}

/// The network ACL of each VPC.
pub fn describe_acls(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    const FILTERS: &[(&str, &str)] = &[
        ("association.network-acl-id", "Associations.NetworkAclId"),
        ("association.subnet-id", "Associations.SubnetId"),
        ("default", "IsDefault"),
        ("network-acl-id", "NetworkAclId"),
        ("owner-id", "OwnerId"),
        ("vpc-id", "VpcId"),
    ];
    let ids = texts(input, "NetworkAclIds");
    let vpcs = state::list::<Vpc>(context.state, "");
    for id in &ids {
        if !vpcs.iter().any(|vpc| vpc.record.network_acl_id == *id) {
            let message = format!("The networkAcl ID '{id}' does not exist");
            return Err(Fault::new("InvalidNetworkAclID.NotFound", message));
        }
    }
    let filters = Filters::of(input, FILTERS)?;
    let acls = vpcs.iter().filter(|vpc| ids.is_empty() || ids.contains(&vpc.record.network_acl_id.as_str()));
    let acls = acls.map(|vpc| show_acl(&vpc.record, context)).filter(|acl| filters.admit(acl));
    Ok(Answer::read(json!({"NetworkAcls": acls.collect::<Vec<_>>()})))
}

fn show_acl(vpc: &Vpc, context: &Context) -> Value {
    let entry = |number: u32, action: &str, egress: bool| json!({"RuleNumber": number, "Protocol": "-1", "RuleAction": action, "Egress": egress, "CidrBlock": "0.0.0.0/0"});
    let entries =
        [(100, "allow", true), (32_767, "deny", true), (100, "allow", false), (32_767, "deny", false)];
    let entries = entries.map(|(number, action, egress)| entry(number, action, egress));
    let subnets = of_vpc::<Subnet>(context.state, &vpc.vpc_id, |one| &one.vpc_id);
    // A subnet has no other, so its association is called after it.
    let associations = subnets.iter().map(|subnet| {
        let id = &subnet.record.subnet_id;
        let association = id.replacen("subnet-", "aclassoc-", 1);
        json!({"NetworkAclAssociationId": association, "NetworkAclId": vpc.network_acl_id, "SubnetId": id})
    });
    json!({
        "NetworkAclId": vpc.network_acl_id, "VpcId": vpc.vpc_id, "IsDefault": true, "OwnerId": context.account,
        "Associations": associations.collect::<Vec<_>>(), "Entries": entries, "Tags": [],
    })
}

pub fn describe_dhcp_options(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let ids = texts(input, "DhcpOptionsIds");
    if let Some(id) = ids.iter().find(|id| **id != DHCP_OPTIONS) {
        let message = format!("The dhcpOption ID '{id}' does not exist");
        return Err(Fault::new("InvalidDhcpOptionID.NotFound", message));
    }
    let domain = super::place::internal_domain(context.region);
    let option = |key: &str, value: &str| json!({"Key": key, "Values": [{"Value": value}]});
    let options = json!({
        "DhcpOptionsId": DHCP_OPTIONS, "OwnerId": context.account, "Tags": [],
        "DhcpConfigurations": [option("domain-name", &domain), option("domain-name-servers", "AmazonProvidedDNS")],
    });
    Ok(Answer::read(json!({"DhcpOptions": [options]})))
}

/// The default VPC and the like can be asked for by account.
pub fn describe_account(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let asked = texts(input, "AttributeNames");
    let default = state::list::<Vpc>(context.state, "").into_iter().find(|vpc| vpc.record.is_default);
    let default = default.map_or_else(|| "none".to_owned(), |vpc| vpc.record.vpc_id);
    let all = [("supported-platforms", "VPC".to_owned()), ("default-vpc", default)];
    let all = all.into_iter().filter(|(name, _)| asked.is_empty() || asked.contains(name));
    let shown = all
        .map(|(name, value)| json!({"AttributeName": name, "AttributeValues": [{"AttributeValue": value}]}));
    Ok(Answer::read(json!({"AccountAttributes": shown.collect::<Vec<_>>()})))
}

/// What a call that puts something into a VPC is about.
pub fn subject_of_inhabitant(context: &Context, input: &Value, word: &str) -> Subject {
    let mut subject = Subject::of(super::noun::arn(context, word, "*"));
    let id = text(input, "VpcId");
    if !id.is_empty() {
        let vpc = super::noun::arn(context, "vpc", id);
        subject.keys.push(("ec2:Vpc".to_owned(), vec![vpc.clone()]));
        let known = state::get::<Vpc>(context.state, "", id);
        subject.resources.push(super::noun::target(vpc, known.as_ref().map(|kept| &kept.record.tags)));
    }
    request_tags(&mut subject, input);
    subject
}

/// A VPC that a call names, or the default one.
pub fn named_or_default(context: &Context, id: &str) -> Result<Kept<Vpc>, Fault> {
    if !id.is_empty() {
        return find(context.state, id);
    }
    let default = state::list::<Vpc>(context.state, "").into_iter().find(|vpc| vpc.record.is_default);
    default.ok_or_else(|| Fault::new("VPCIdNotSpecified", "No default VPC for this user"))
}
