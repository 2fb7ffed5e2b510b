//! Subnets: a range of a VPC in one zone.

use serde_json::{Value, json};

use super::allocate::Addresses;
use super::noun::{arn, find, in_use, invalid, lacking, named, show_tags, tags_for, text, unsupported};
use super::place;
use super::record::{NetworkInterface, RouteTable, Subnet, Vpc};
use super::vpc::{of_vpc, range};
use crate::state::{self, Changes};
use crate::{Answer, Context, Fault};

pub fn create(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let vpc = named::<Vpc>(context, input, "VpcId")?;
    if !text(input, "Ipv6CidrBlock").is_empty()
        || input["Ipv6Native"] == true
        || !text(input, "OutpostArn").is_empty()
    {
        return Err(unsupported("IPv6 and no Outposts in subnets"));
    }
    if text(input, "CidrBlock").is_empty() {
        return Err(lacking("CidrBlock"));
    }
    let range = range(text(input, "CidrBlock"), "InvalidSubnet.Range")?;
    let is_within =
        |whole: plan::net::Cidr| whole.prefix() <= range.prefix() && whole.contains(range.address());
    if !vpc.record.ranges().any(is_within) {
        return Err(Fault::new("InvalidSubnet.Range", format!("The CIDR '{range}' is invalid.")));
    }
    let siblings = of_vpc::<Subnet>(context.state, &vpc.record.vpc_id, |one| &one.vpc_id);
    if siblings.iter().any(|one| one.record.cidr_block.overlaps(range)) {
        let message = format!("The CIDR '{range}' conflicts with another subnet");
        return Err(Fault::new("InvalidSubnet.Conflict", message));
    }
    let zone =
        place::zone_of(context.region, text(input, "AvailabilityZone"), text(input, "AvailabilityZoneId"))?;
    let subnet = Subnet {
        subnet_id: context.ids.resource("subnet"),
        vpc_id: vpc.record.vpc_id.clone(),
        cidr_block: range,
        availability_zone: zone,
        map_public_ip_on_launch: false,
        default_for_az: false,
        tags: tags_for(input, "subnet", &[])?,
    };
    let mut changes = Changes::default();
    changes.create("", &subnet.subnet_id, &subnet);
    // Written, so that of two subnets with one range at once one is decided again.
    changes.update(&vpc);
    Ok(Answer::write(json!({"Subnet": show(&subnet, context)}), changes))
}

pub fn show(subnet: &Subnet, context: &Context) -> Value {
    json!({
        "SubnetId": subnet.subnet_id, "VpcId": subnet.vpc_id, "CidrBlock": subnet.cidr_block, "State": "available",
        "AvailabilityZone": subnet.availability_zone,
        "AvailabilityZoneId": place::zone_id(context.region, &subnet.availability_zone),
        "AvailableIpAddressCount": Addresses::of(context.state, subnet).left(),
        "MapPublicIpOnLaunch": subnet.map_public_ip_on_launch, "DefaultForAz": subnet.default_for_az,
        "AssignIpv6AddressOnCreation": false, "Ipv6CidrBlockAssociationSet": [], "Ipv6Native": false,
        "EnableDns64": false, "MapCustomerOwnedIpOnLaunch": false, "OwnerId": context.account,
        "PrivateDnsNameOptionsOnLaunch": {
            "HostnameType": "ip-name", "EnableResourceNameDnsARecord": false, "EnableResourceNameDnsAAAARecord": false,
        },
        "SubnetArn": arn(context, "subnet", &subnet.subnet_id), "Tags": show_tags(&subnet.tags),
    })
}

pub fn delete(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let subnet = named::<Subnet>(context, input, "SubnetId")?;
    let id = &subnet.record.subnet_id;
    if state::list::<NetworkInterface>(context.state, "").iter().any(|one| one.record.subnet_id == *id) {
        return Err(in_use("subnet", id));
    }
    let mut changes = Changes::default();
    for mut table in of_vpc::<RouteTable>(context.state, &subnet.record.vpc_id, |one| &one.vpc_id) {
        let before = table.record.associations.len();
        table.record.associations.retain(|association| association.subnet_id.as_ref() != Some(id));
        if table.record.associations.len() != before {
            changes.update(&table);
        }
    }
    changes.delete(&subnet);
    Ok(Answer::done(changes))
}

pub fn modify(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let mut subnet = find::<Subnet>(context.state, text(input, "SubnetId"))?;
    if let Some(value) = input["MapPublicIpOnLaunch"]["Value"].as_bool() {
        subnet.record.map_public_ip_on_launch = value;
    }
    let others = [
        ("AssignIpv6AddressOnCreation", "IPv6 in subnets"),
        ("EnableDns64", "DNS64"),
        ("EnableResourceNameDnsARecordOnLaunch", "DNS names of instances by their ids"),
        ("EnableResourceNameDnsAAAARecordOnLaunch", "IPv6 in subnets"),
        ("MapCustomerOwnedIpOnLaunch", "Outposts"),
    ];
    for (member, what) in others {
        if input[member]["Value"] == true {
            return Err(unsupported(what));
        }
    }
    if matches!(text(input, "PrivateDnsHostnameTypeOnLaunch"), kind if !kind.is_empty() && kind != "ip-name")
    {
        return Err(invalid("Ekso names instances by their addresses: HostnameType is ip-name"));
    }
    let mut changes = Changes::default();
    changes.update(&subnet);
    Ok(Answer::done(changes))
}
