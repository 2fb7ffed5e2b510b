//! Elastic IP addresses, of the site's pool.

use std::net::Ipv4Addr;

use object::Snapshot;
use serde_json::{Value, json};

use super::allocate::Public;
use super::noun::{Filters, find, invalid, lacking, missing, named, show_tags, tags_for, text, texts};
use super::record::{Address, AddressAssociation, Instance, NetworkInterface};
use crate::state::{self, Changes, Kept};
use crate::{Answer, Context, Fault};

pub fn allocate(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    if text(input, "Domain") == "standard" {
        return Err(invalid("Elastic IP addresses of EC2-Classic are no more: Domain is vpc"));
    }
    let tags = tags_for(input, "elastic-ip", &[])?;
    let mut changes = Changes::default();
    let mut pool = Public::of(context.state)?;
    let address = Address {
        allocation_id: context.ids.resource("eipalloc"),
        public_ip: pool.take()?,
        association: None,
        tags,
    };
    pool.commit(&mut changes);
    changes.create("", &address.allocation_id, &address);
    let output = json!({
        "AllocationId": address.allocation_id, "PublicIp": address.public_ip, "Domain": "vpc", "PublicIpv4Pool": "amazon",
        "NetworkBorderGroup": context.region,
    });
    Ok(Answer::write(output, changes))
}

/// The public address of an interface: an elastic one, or the one that it was given.
pub fn public_of(state: &Snapshot, interface: &NetworkInterface) -> Option<Ipv4Addr> {
    elastic_of(state, &interface.network_interface_id)
        .map(|address| address.record.public_ip)
        .or(interface.public_ip)
}

/// The elastic address of an interface.
pub fn elastic_of(state: &Snapshot, interface: &str) -> Option<Kept<Address>> {
    let is_its = |address: &Kept<Address>| {
        address.record.association.as_ref().is_some_and(|one| one.network_interface_id == interface)
    };
    state::list::<Address>(state, "").into_iter().find(is_its)
}

pub fn show(address: &Address, context: &Context) -> Value {
    let mut shown = json!({
        "AllocationId": address.allocation_id, "PublicIp": address.public_ip, "Domain": "vpc", "PublicIpv4Pool": "amazon",
        "NetworkBorderGroup": context.region, "Tags": show_tags(&address.tags),
    });
    if let Some(association) = &address.association {
        shown["AssociationId"] = json!(association.association_id);
        shown["NetworkInterfaceId"] = json!(association.network_interface_id);
        shown["NetworkInterfaceOwnerId"] = json!(context.account);
        shown["PrivateIpAddress"] = json!(association.private_ip);
        let interface = state::get::<NetworkInterface>(context.state, "", &association.network_interface_id);
        if let Some(instance) = interface.and_then(|one| one.record.attachment?.instance_id) {
            shown["InstanceId"] = json!(instance);
        }
    }
    shown
}

pub fn describe(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let shown = super::noun::described::<Address>(context, input)?;
    let asked = texts(input, "PublicIps");
    for ip in &asked {
        if !shown.iter().any(|item| item["PublicIp"] == **ip) {
            return Err(Fault::new("InvalidAddress.NotFound", format!("Address '{ip}' not found.")));
        }
    }
    let shown: Vec<Value> = shown
        .into_iter()
        .filter(|item| asked.is_empty() || asked.contains(&text(item, "PublicIp")))
        .collect();
    Ok(Answer::read(json!({"Addresses": shown})))
}

/// Their names in the DNS, of which there are none.
pub fn describe_attributes(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    Filters::of(input, &[])?;
    let ids = texts(input, "AllocationIds");
    let mut shown = Vec::new();
    for id in ids {
        let address = find::<Address>(context.state, id)?.record;
        shown.push(json!({"AllocationId": address.allocation_id, "PublicIp": address.public_ip}));
    }
    Ok(Answer::read(json!({"Addresses": shown})))
}

pub fn release(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    if text(input, "AllocationId").is_empty() {
        return Err(lacking("AllocationId"));
    }
    let address = named::<Address>(context, input, "AllocationId")?;
    if address.record.association.is_some() {
        let message = format!("Address {} is in use.", address.record.allocation_id);
        return Err(Fault::new("InvalidIPAddress.InUse", message));
    }
    let mut changes = Changes::default();
    changes.delete(&address);
    Ok(Answer::done(changes))
}

pub fn associate(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let mut address = match (text(input, "AllocationId"), text(input, "PublicIp")) {
        ("", "") => return Err(lacking("AllocationId")),
        ("", ip) => by_ip(context, ip)?,
        (id, _) => find::<Address>(context.state, id)?,
    };
    let mut interface = match (text(input, "NetworkInterfaceId"), text(input, "InstanceId")) {
        ("", "") => return Err(lacking("InstanceId")),
        ("", instance) => {
            find::<Instance>(context.state, instance)?;
            super::interface::primary_of(context.state, instance)
                .ok_or_else(|| missing::<Instance>(instance))?
        }
        (id, _) => find::<NetworkInterface>(context.state, id)?,
    };
    super::interface::is_free_to_change(&interface.record)?;
    let interface_id = interface.record.network_interface_id.clone();
    let may_move = input["AllowReassociation"].as_bool().unwrap_or(true);
    let is_elsewhere =
        address.record.association.as_ref().is_some_and(|one| one.network_interface_id != interface_id);
    if is_elsewhere && !may_move {
        let message = format!("resource {} is already associated", address.record.allocation_id);
        return Err(Fault::new("Resource.AlreadyAssociated", message));
    }
    let private = text(input, "PrivateIpAddress");
    if !private.is_empty() && private != interface.record.private_ip.to_string() {
        return Err(super::noun::unsupported("elastic addresses of secondary private addresses"));
    }
    let mut changes = Changes::default();
    if let Some(mut other) = elastic_of(context.state, &interface_id).filter(|other| other.key != address.key)
    {
        other.record.association = None;
        changes.update(&other);
    }
    let association_id = context.ids.resource("eipassoc");
    address.record.association = Some(AddressAssociation {
        association_id: association_id.clone(),
        network_interface_id: interface_id,
        private_ip: interface.record.private_ip,
    });
    changes.update(&address);
    // The one that it was given goes back.
    interface.record.public_ip = None;
    changes.update(&interface);
    Ok(Answer::write(json!({"AssociationId": association_id}), changes))
}

fn by_ip(context: &Context, ip: &str) -> Result<Kept<Address>, Fault> {
    let mut all = state::list::<Address>(context.state, "").into_iter();
    let found = all.find(|address| address.record.public_ip.to_string() == ip);
    found.ok_or_else(|| Fault::new("InvalidAddress.NotFound", format!("Address '{ip}' not found.")))
}

pub fn disassociate(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let id = text(input, "AssociationId");
    let found = match text(input, "PublicIp") {
        "" => {
            let mut all = state::list::<Address>(context.state, "").into_iter();
            all.find(|one| one.record.association.as_ref().is_some_and(|known| known.association_id == id))
        }
        ip => Some(by_ip(context, ip)?),
    };
    let mut address = found.ok_or_else(|| {
        Fault::new("InvalidAssociationID.NotFound", format!("The association ID '{id}' does not exist"))
    })?;
    let of_gateway = address.record.association.as_ref().and_then(|association| {
        let interface = state::get::<NetworkInterface>(context.state, "", &association.network_interface_id)?;
        interface.record.requester
    });
    if of_gateway.is_some() {
        let message = "You do not have permission to access the specified resource.";
        return Err(Fault::new("AuthFailure", message));
    }
    address.record.association = None;
    let mut changes = Changes::default();
    changes.update(&address);
    Ok(Answer::done(changes))
}
