//! NAT gateways: the way out of private subnets, under the gateway's elastic address.

use std::net::Ipv4Addr;

use serde_json::{Value, json};

use super::allocate::Addresses;
use super::interface;
use super::noun::{find, lacking, named, show_tags, tags_for, text, unsupported};
use super::record::{Address, AddressAssociation, NatGateway, NetworkInterface, Subnet, Tags};
use crate::state::{self, Changes};
use crate::{Answer, Context, Fault};

/// How long a deleted one is shown.
const SHOWN_SECONDS: i64 = 3_600;

pub fn create(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    if text(input, "ConnectivityType") == "private" {
        return Err(unsupported("private NAT gateways"));
    }
    if !text(input, "AvailabilityMode").is_empty() && text(input, "AvailabilityMode") != "zonal" {
        return Err(unsupported("regional NAT gateways"));
    }
    let token = text(input, "ClientToken");
    if !token.is_empty()
        && let Some(known) = state::list::<NatGateway>(context.state, "")
            .into_iter()
            .find(|one| one.record.tags.get(TOKEN).is_some_and(|known| known == token))
    {
        return Ok(Answer::read(json!({"ClientToken": token, "NatGateway": show(&known.record, context)})));
    }
    let subnet = named::<Subnet>(context, input, "SubnetId")?;
    if text(input, "AllocationId").is_empty() {
        return Err(lacking("AllocationId"));
    }
    let mut address = find::<Address>(context.state, text(input, "AllocationId"))?;
    if address.record.association.is_some() {
        let message = format!("Elastic IP address [{}] is already associated", address.record.allocation_id);
        return Err(Fault::new("Resource.AlreadyAssociated", message));
    }
    let mut tags = tags_for(input, "natgateway", &[])?;
    if !token.is_empty() {
        tags.insert(TOKEN.to_owned(), token.to_owned());
    }
    let mut addresses = Addresses::of(context.state, &subnet.record);
    let private_ip = interface::take(&mut addresses, text(input, "PrivateIpAddress"))?;
    let (gateway, interface) = make(context, &subnet.record, &mut address.record, private_ip, tags);
    let mut changes = Changes::default();
    changes.create("", &interface.network_interface_id, &interface);
    changes.create("", &gateway.nat_gateway_id, &gateway);
    changes.update(&address);
    changes.update(&subnet);
    Ok(Answer::write(json!({"NatGateway": show(&gateway, context)}), changes))
}

/// Where the token of the call that made it is kept, beside the tags that are shown.
const TOKEN: &str = "aws:ekso:client-token";

/// A NAT gateway and its interface; the address is associated with that.
pub fn make(
    context: &mut Context,
    subnet: &Subnet,
    address: &mut Address,
    private_ip: Ipv4Addr,
    tags: Tags,
) -> (NatGateway, NetworkInterface) {
    let id = context.ids.resource("nat");
    let interface = NetworkInterface {
        description: format!("Interface for NAT Gateway {id}"),
        interface_type: "nat_gateway".to_owned(),
        requester: Some("amazon-aws".to_owned()),
        source_dest_check: false,
        ..interface::bare(context, subnet, private_ip)
    };
    address.association = Some(AddressAssociation {
        association_id: context.ids.resource("eipassoc"),
        network_interface_id: interface.network_interface_id.clone(),
        private_ip,
    });
    let gateway = NatGateway {
        nat_gateway_id: id,
        vpc_id: subnet.vpc_id.clone(),
        subnet_id: subnet.subnet_id.clone(),
        network_interface_id: interface.network_interface_id.clone(),
        allocation_id: address.allocation_id.clone(),
        private_ip,
        public_ip: address.public_ip,
        created: context.now,
        deleted: None,
        tags,
    };
    (gateway, interface)
}

pub fn show(gateway: &NatGateway, _: &Context) -> Value {
    let mut tags = gateway.tags.clone();
    tags.remove(TOKEN);
    let mut shown = json!({
        "NatGatewayId": gateway.nat_gateway_id, "VpcId": gateway.vpc_id, "SubnetId": gateway.subnet_id,
        "State": if gateway.deleted.is_some() { "deleted" } else { "available" },
        "ConnectivityType": "public", "CreateTime": gateway.created, "Tags": show_tags(&tags),
        "NatGatewayAddresses": [{
            "AllocationId": gateway.allocation_id, "NetworkInterfaceId": gateway.network_interface_id,
            "PrivateIp": gateway.private_ip, "PublicIp": gateway.public_ip, "IsPrimary": true, "Status": "succeeded",
        }],
    });
    if let Some(deleted) = gateway.deleted {
        shown["DeleteTime"] = json!(deleted);
    }
    shown
}

/// Like any list; the input's filters are called `Filter`, and what was deleted long ago is not shown.
pub fn describe(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let shown = super::noun::described::<NatGateway>(context, input)?;
    let is_old = |item: &Value| {
        let gateway = state::get::<NatGateway>(context.state, "", text(item, "NatGatewayId"));
        let deleted = gateway.and_then(|gateway| gateway.record.deleted);
        deleted.is_some_and(|at| context.now.secs_since(at) > SHOWN_SECONDS)
    };
    let shown: Vec<Value> = shown.into_iter().filter(|item| !is_old(item)).collect();
    Ok(Answer::read(json!({"NatGateways": shown})))
}

pub fn delete(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let mut gateway = named::<NatGateway>(context, input, "NatGatewayId")?;
    let id = gateway.record.nat_gateway_id.clone();
    if gateway.record.deleted.is_some() {
        return Ok(Answer::read(json!({"NatGatewayId": id})));
    }
    let mut changes = Changes::default();
    gateway.record.deleted = Some(context.now);
    if let Some(mut address) = state::get::<Address>(context.state, "", &gateway.record.allocation_id) {
        address.record.association = None;
        changes.update(&address);
    }
    if let Some(interface) =
        state::get::<NetworkInterface>(context.state, "", &gateway.record.network_interface_id)
    {
        changes.delete(&interface);
    }
    // Those that were deleted long ago go with it.
    for old in state::list::<NatGateway>(context.state, "") {
        if old.record.deleted.is_some_and(|at| context.now.secs_since(at) > SHOWN_SECONDS) {
            changes.delete(&old);
        }
    }
    changes.update(&gateway);
    Ok(Answer::write(json!({"NatGatewayId": id}), changes))
}
