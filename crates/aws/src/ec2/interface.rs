//! Network interfaces.

use std::net::Ipv4Addr;

use object::Snapshot;
use plan::net::Cidr;
use serde_json::{Value, json};

use super::allocate::Addresses;
use super::noun::{find, invalid, items, lacking, named, show_tags, tags_for, text, texts, unsupported};
use super::record::{Attachment, Instance, NetworkInterface, SecurityGroup, State, Subnet, Tags};
use super::vpc::of_vpc;
use super::{address, instance_type, place, security_group};
use crate::state::{self, Changes, Kept};
use crate::{Answer, Context, Fault};

/// The most groups that an interface has.
const GROUPS: usize = 5;
/// A delegated prefix has 16 addresses.
const PREFIX: u8 = 28;

/// An interface with one address and the VPC's default group.
pub fn bare(context: &mut Context, subnet: &Subnet, private_ip: Ipv4Addr) -> NetworkInterface {
    let bytes = context.ids.bytes();
    let mac: Vec<String> = bytes[..5].iter().map(|byte| format!("{byte:02x}")).collect();
    NetworkInterface {
        network_interface_id: context.ids.resource("eni"),
        vpc_id: subnet.vpc_id.clone(),
        subnet_id: subnet.subnet_id.clone(),
        availability_zone: subnet.availability_zone.clone(),
        description: String::new(),
        groups: Vec::new(),
        // Locally administered, as those of EC2.
        mac_address: format!("02:{}", mac.join(":")),
        private_ip,
        secondary: Vec::new(),
        prefix: None,
        public_ip: None,
        attachment: None,
        interface_type: "interface".to_owned(),
        requester: None,
        source_dest_check: true,
        tags: Tags::new(),
    }
}

/// Makes an interface that a service of AWS keeps for itself in a subnet; nobody else changes or deletes it.
///
/// Free addresses are looked up in the state: one transaction makes one in each subnet.
pub fn make_for_service(
    context: &mut Context,
    changes: &mut Changes,
    subnet: &Kept<Subnet>,
    requester: &str,
    description: &str,
    groups: Vec<String>,
) -> Result<NetworkInterface, Fault> {
    let private_ip = Addresses::of(context.state, &subnet.record).take()?;
    let interface = NetworkInterface {
        description: description.to_owned(),
        groups,
        requester: Some(requester.to_owned()),
        ..bare(context, &subnet.record, private_ip)
    };
    changes.create("", &interface.network_interface_id, &interface);
    changes.update(subnet);
    Ok(interface)
}

/// The ids of groups that are there and of this VPC; the default group's if none is asked for.
pub fn groups(context: &Context, vpc: &str, asked: &[&str]) -> Result<Vec<String>, Fault> {
    if asked.len() > GROUPS {
        let message = format!(
            "You have exceeded the maximum number of security groups ({GROUPS}) allowed per network interface."
        );
        return Err(Fault::new("SecurityGroupsPerInterfaceLimitExceeded", message));
    }
    let mut ids = Vec::new();
    for id in asked {
        let group = find::<SecurityGroup>(context.state, id)?;
        if group.record.vpc_id != vpc {
            let message = format!("Security group {id} and the subnet belong to different networks.");
            return Err(Fault::new("InvalidParameter", message));
        }
        if !ids.contains(&group.record.group_id) {
            ids.push(group.record.group_id);
        }
    }
    if ids.is_empty() {
        let all = of_vpc::<SecurityGroup>(context.state, vpc, |one| &one.vpc_id).into_iter();
        ids.extend(
            all.map(|one| one.record)
                .find(|one| one.group_name == security_group::DEFAULT)
                .map(|one| one.group_id),
        );
    }
    Ok(ids)
}

pub fn create(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let subnet = named::<Subnet>(context, input, "SubnetId")?;
    for member in ["Ipv6AddressCount", "Ipv6Addresses", "Ipv6Prefixes", "Ipv6PrefixCount"] {
        if input[member].as_u64().unwrap_or_default() > 0 || items(input, member).next().is_some() {
            return Err(unsupported("IPv6 in subnets"));
        }
    }
    let groups = groups(context, &subnet.record.vpc_id, &texts(input, "Groups"))?;
    let mut addresses = Addresses::of(context.state, &subnet.record);
    let chosen: Vec<&Value> = items(input, "PrivateIpAddresses").collect();
    let primary = chosen.iter().find(|one| one["Primary"] == true).map(|one| text(one, "PrivateIpAddress"));
    let primary = primary.unwrap_or_else(|| text(input, "PrivateIpAddress"));
    let private_ip = take(&mut addresses, primary)?;
    let mut interface = bare(context, &subnet.record, private_ip);
    for one in chosen.iter().filter(|one| one["Primary"] != true) {
        interface.secondary.push(take(&mut addresses, text(one, "PrivateIpAddress"))?);
    }
    for _ in 0..input["SecondaryPrivateIpAddressCount"].as_u64().unwrap_or_default().min(50) {
        interface.secondary.push(addresses.take()?);
    }
    if items(input, "Ipv4Prefixes").next().is_some() {
        return Err(unsupported("a choice of delegated prefixes: ask for a number of them"));
    }
    if let Some(count) = input["Ipv4PrefixCount"].as_u64().filter(|count| *count > 0) {
        interface.prefix = Some(addresses.take_range(prefix_of(count))?);
    }
    interface.description = text(input, "Description").to_owned();
    interface.groups = groups;
    interface.tags = tags_for(input, "network-interface", &[])?;
    let mut changes = Changes::default();
    changes.create("", &interface.network_interface_id, &interface);
    changes.update(&subnet);
    let output = json!({"NetworkInterface": show(&interface, context), "ClientToken": input["ClientToken"]});
    Ok(Answer::write(output, changes))
}

/// An address that was asked for, or any.
pub fn take(addresses: &mut Addresses, asked: &str) -> Result<Ipv4Addr, Fault> {
    if asked.is_empty() {
        return addresses.take();
    }
    let chosen: Ipv4Addr =
        asked.parse().map_err(|_| invalid(format!("invalid value for parameter address: [{asked}]")))?;
    addresses.take_this(chosen).map(|()| chosen)
}

/// The length of one range that has as many addresses as `count` prefixes.
pub fn prefix_of(count: u64) -> u8 {
    let bits = u8::try_from(count.max(1).next_power_of_two().trailing_zeros()).unwrap_or(u8::MAX);
    PREFIX.saturating_sub(bits)
}

/// The parts of a range that clients see.
pub fn prefixes(range: Cidr) -> Vec<Cidr> {
    let count = 1u32.checked_shl(u32::from(PREFIX.saturating_sub(range.prefix()))).unwrap_or(0);
    (0..count).map(|index| Cidr::new((u32::from(range.address()) + 16 * index).into(), PREFIX)).collect()
}

/// The first interface of an instance.
pub fn primary_of(state: &Snapshot, instance: &str) -> Option<Kept<NetworkInterface>> {
    of_instance(state, instance).into_iter().next()
}

/// The interfaces of an instance, by their number.
pub fn of_instance(state: &Snapshot, instance: &str) -> Vec<Kept<NetworkInterface>> {
    let is_its = |one: &Kept<NetworkInterface>| {
        one.record.attachment.as_ref().is_some_and(|one| one.instance_id.as_deref() == Some(instance))
    };
    let mut all: Vec<_> = state::list::<NetworkInterface>(state, "").into_iter().filter(is_its).collect();
    all.sort_by_key(|one| one.record.attachment.as_ref().map_or(0, |attachment| attachment.device_index));
    all
}

pub fn private_name(context: &Context, ip: Ipv4Addr) -> String {
    let [a, b, c, d] = ip.octets();
    format!("ip-{a}-{b}-{c}-{d}.{}", place::internal_domain(context.region))
}

pub fn group_list(context: &Context, ids: &[String]) -> Vec<Value> {
    let name = |id: &String| {
        state::get::<SecurityGroup>(context.state, "", id)
            .map(|group| group.record.group_name)
            .unwrap_or_default()
    };
    ids.iter().map(|id| json!({"GroupId": id, "GroupName": name(id)})).collect()
}

pub fn show(interface: &NetworkInterface, context: &Context) -> Value {
    let id = &interface.network_interface_id;
    let elastic = address::elastic_of(context.state, id);
    let association = address::public_of(context.state, interface).map(|public| {
        let mut shown = json!({"PublicIp": public, "IpOwnerId": if elastic.is_some() { context.account } else { "amazon" }, "PublicDnsName": ""});
        if let Some(elastic) = &elastic {
            shown["AllocationId"] = json!(elastic.record.allocation_id);
            shown["AssociationId"] = json!(elastic.record.association.as_ref().map(|one| &one.association_id));
        }
        shown
    });
    let address_of = |ip: &Ipv4Addr, is_primary: bool| {
        let mut shown = json!({"PrivateIpAddress": ip, "Primary": is_primary, "PrivateDnsName": private_name(context, *ip)});
        if let Some(association) = association.as_ref().filter(|_| is_primary) {
            shown["Association"] = association.clone();
        }
        shown
    };
    let first = std::iter::once(address_of(&interface.private_ip, true));
    let addresses: Vec<Value> =
        first.chain(interface.secondary.iter().map(|ip| address_of(ip, false))).collect();
    let mut shown = json!({
        "NetworkInterfaceId": id, "VpcId": interface.vpc_id, "SubnetId": interface.subnet_id,
        "AvailabilityZone": interface.availability_zone, "Description": interface.description,
        "Groups": group_list(context, &interface.groups), "MacAddress": interface.mac_address,
        "PrivateIpAddress": interface.private_ip, "PrivateDnsName": private_name(context, interface.private_ip),
        "PrivateIpAddresses": addresses, "InterfaceType": interface.interface_type, "OwnerId": context.account,
        "RequesterManaged": interface.requester.is_some(), "SourceDestCheck": interface.source_dest_check,
        "Status": if interface.attachment.is_some() || interface.requester.is_some() { "in-use" } else { "available" },
        "Ipv6Addresses": [], "TagSet": show_tags(&interface.tags),
        "Ipv4Prefixes": interface.prefix.map(prefixes).unwrap_or_default().iter().map(|prefix| json!({"Ipv4Prefix": prefix})).collect::<Vec<_>>(),
    });
    if let Some(association) = association {
        shown["Association"] = association;
    }
    if let Some(requester) = &interface.requester {
        shown["RequesterId"] = json!(requester);
    }
    if let Some(attachment) = &interface.attachment {
        shown["Attachment"] = show_attachment(context, interface, attachment);
    }
    shown
}

fn show_attachment(context: &Context, interface: &NetworkInterface, attachment: &Attachment) -> Value {
    let mut shown = json!({
        "AttachmentId": attachment.attachment_id, "DeviceIndex": attachment.device_index, "NetworkCardIndex": 0,
        "AttachTime": attachment.attached, "DeleteOnTermination": attachment.delete_on_termination, "Status": "attached",
        "InstanceOwnerId": context.account,
    });
    // What a service runs is no instance of the account's owner.
    if let Some(instance) = attachment.instance_id.as_ref().filter(|_| interface.requester.is_none()) {
        shown["InstanceId"] = json!(instance);
    }
    shown
}

pub fn delete(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let interface = named::<NetworkInterface>(context, input, "NetworkInterfaceId")?;
    let id = &interface.record.network_interface_id;
    is_free_to_change(&interface.record)?;
    if interface.record.attachment.is_some() {
        let message = format!("Network interface '{id}' is currently in use.");
        return Err(Fault::new("InvalidNetworkInterface.InUse", message));
    }
    let mut changes = Changes::default();
    remove(context.state, &mut changes, &interface);
    Ok(Answer::done(changes))
}

/// Removes an interface; an elastic address of it is free again.
pub fn remove(state: &Snapshot, changes: &mut Changes, interface: &Kept<NetworkInterface>) {
    if let Some(mut address) = address::elastic_of(state, &interface.record.network_interface_id) {
        address.record.association = None;
        changes.update(&address);
    }
    changes.delete(interface);
}

/// Those that a service keeps for itself are not.
pub(super) fn is_free_to_change(interface: &NetworkInterface) -> Result<(), Fault> {
    if interface.requester.is_none() {
        return Ok(());
    }
    let message = "You are not allowed to manage 'ela-attach' attachments or interfaces of services.";
    Err(Fault::new("OperationNotPermitted", message))
}

pub fn attach(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let mut interface = named::<NetworkInterface>(context, input, "NetworkInterfaceId")?;
    let instance = named::<Instance>(context, input, "InstanceId")?;
    let device_index = input["DeviceIndex"].as_u64().and_then(|index| u32::try_from(index).ok());
    let device_index = device_index.ok_or_else(|| lacking("DeviceIndex"))?;
    is_free_to_change(&interface.record)?;
    let id = &interface.record.network_interface_id;
    if interface.record.attachment.is_some() {
        let message = format!("Interface: [{id}] in use.");
        return Err(Fault::new("InvalidNetworkInterface.InUse", message));
    }
    let of = &instance.record;
    if !matches!(of.state, State::Running | State::Stopped | State::Pending) {
        let message = format!("Instance '{}' is not 'running' or 'stopped'.", of.instance_id);
        return Err(Fault::new("IncorrectState", message));
    }
    if of.availability_zone != interface.record.availability_zone || of.vpc_id != interface.record.vpc_id {
        return Err(invalid(
            "You may not attach a network interface to an instance if they are not in the same availability zone",
        ));
    }
    let siblings = of_instance(context.state, &of.instance_id);
    let is_taken = siblings
        .iter()
        .filter_map(|one| one.record.attachment.as_ref())
        .any(|one| one.device_index == device_index);
    if is_taken {
        let message = format!(
            "Instance '{}' already has an interface attached at device index '{device_index}'.",
            of.instance_id
        );
        return Err(invalid(message));
    }
    let limit = instance_type::find(&of.instance_type).map_or(2, |kind| kind.interfaces);
    if siblings.len() >= usize::from(limit) {
        let message =
            format!("Interface count {} exceeds the limit for {}", siblings.len() + 1, of.instance_type);
        return Err(Fault::new("AttachmentLimitExceeded", message));
    }
    let attachment_id = context.ids.resource("eni-attach");
    interface.record.attachment = Some(Attachment {
        attachment_id: attachment_id.clone(),
        instance_id: Some(of.instance_id.clone()),
        device_index,
        delete_on_termination: false,
        attached: context.now,
    });
    let mut changes = Changes::default();
    changes.update(&interface);
    changes.update(&instance);
    Ok(Answer::write(json!({"AttachmentId": attachment_id, "NetworkCardIndex": 0}), changes))
}

pub fn detach(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let mut interface = by_attachment(context, text(input, "AttachmentId"))?;
    is_free_to_change(&interface.record)?;
    if interface.record.attachment.as_ref().is_some_and(|one| one.device_index == 0) {
        let message = "The network interface at device index 0 cannot be detached.";
        return Err(Fault::new("OperationNotPermitted", message));
    }
    interface.record.attachment = None;
    let mut changes = Changes::default();
    changes.update(&interface);
    Ok(Answer::done(changes))
}

fn by_attachment(context: &Context, id: &str) -> Result<Kept<NetworkInterface>, Fault> {
    let mut all = state::list::<NetworkInterface>(context.state, "").into_iter();
    let found = all.find(|one| one.record.attachment.as_ref().is_some_and(|one| one.attachment_id == id));
    found.ok_or_else(|| {
        let message = format!("The networkInterface attachment ID '{id}' does not exist");
        Fault::new("InvalidAttachmentID.NotFound", message)
    })
}

pub fn modify(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let mut interface = named::<NetworkInterface>(context, input, "NetworkInterfaceId")?;
    is_free_to_change(&interface.record)?;
    if let Some(description) = input["Description"]["Value"].as_str() {
        interface.record.description = description.to_owned();
    }
    if items(input, "Groups").next().is_some() {
        interface.record.groups = groups(context, &interface.record.vpc_id, &texts(input, "Groups"))?;
    }
    if input["SourceDestCheck"]["Value"] == false {
        return Err(unsupported(
            "instances that route for others: a VPC's router takes packets of an interface's own addresses only",
        ));
    }
    if let Some(on) = input["Attachment"]["DeleteOnTermination"].as_bool()
        && let Some(attachment) = &mut interface.record.attachment
    {
        attachment.delete_on_termination = on;
    }
    let mut changes = Changes::default();
    changes.update(&interface);
    Ok(Answer::done(changes))
}

pub fn describe_attribute(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let interface = named::<NetworkInterface>(context, input, "NetworkInterfaceId")?.record;
    let mut output = json!({"NetworkInterfaceId": interface.network_interface_id});
    match text(input, "Attribute") {
        "description" => output["Description"] = json!({"Value": interface.description}),
        "groupSet" => output["Groups"] = group_list(context, &interface.groups).into(),
        "sourceDestCheck" => output["SourceDestCheck"] = json!({"Value": interface.source_dest_check}),
        "attachment" => {
            if let Some(attachment) = &interface.attachment {
                output["Attachment"] = show_attachment(context, &interface, attachment);
            }
        }
        other => return Err(invalid(format!("Value ({other}) for parameter attribute is invalid."))),
    }
    Ok(Answer::read(output))
}

pub fn assign(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let mut interface = named::<NetworkInterface>(context, input, "NetworkInterfaceId")?;
    is_free_to_change(&interface.record)?;
    let subnet = find::<Subnet>(context.state, &interface.record.subnet_id)?;
    let mut addresses = Addresses::of(context.state, &subnet.record);
    let mut taken = Vec::new();
    for asked in texts(input, "PrivateIpAddresses") {
        taken.push(take(&mut addresses, asked)?);
    }
    for _ in 0..input["SecondaryPrivateIpAddressCount"].as_u64().unwrap_or_default().min(50) {
        taken.push(addresses.take()?);
    }
    if let Some(count) = input["Ipv4PrefixCount"].as_u64().filter(|count| *count > 0) {
        if interface.record.prefix.is_some() {
            return Err(unsupported("a second range of delegated prefixes on one interface"));
        }
        interface.record.prefix = Some(addresses.take_range(prefix_of(count))?);
    } else if taken.is_empty() {
        return Err(lacking("SecondaryPrivateIpAddressCount"));
    }
    let limit = context_limit(context, &interface.record);
    interface.record.secondary.extend(&taken);
    if interface.record.secondary.len() + 1 > limit {
        let message = format!("Number of private addresses will exceed limit of {limit}");
        return Err(Fault::new("PrivateIpAddressLimitExceeded", message));
    }
    let mut changes = Changes::default();
    changes.update(&interface);
    changes.update(&subnet);
    let assigned: Vec<Value> = taken.iter().map(|ip| json!({"PrivateIpAddress": ip})).collect();
    let output = json!({
        "NetworkInterfaceId": interface.record.network_interface_id, "AssignedPrivateIpAddresses": assigned,
        "AssignedIpv4Prefixes": interface.record.prefix.map(prefixes).unwrap_or_default().iter().map(|one| json!({"Ipv4Prefix": one})).collect::<Vec<_>>(),
    });
    Ok(Answer::write(output, changes))
}

/// How many addresses an interface may have, by the type of its instance.
fn context_limit(context: &Context, interface: &NetworkInterface) -> usize {
    let instance = interface.attachment.as_ref().and_then(|attachment| attachment.instance_id.as_deref());
    let instance = instance.and_then(|id| state::get::<Instance>(context.state, "", id));
    let kind = instance.and_then(|instance| instance_type::find(&instance.record.instance_type));
    kind.map_or(50, |kind| usize::from(kind.addresses))
}

pub fn unassign(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let mut interface = named::<NetworkInterface>(context, input, "NetworkInterfaceId")?;
    is_free_to_change(&interface.record)?;
    for asked in texts(input, "PrivateIpAddresses") {
        let known = interface.record.secondary.iter().position(|ip| ip.to_string() == asked);
        let known = known.ok_or_else(|| {
            invalid(format!(
                "Some of the specified addresses are not assigned to interface {}",
                interface.record.network_interface_id
            ))
        })?;
        interface.record.secondary.remove(known);
    }
    if items(input, "Ipv4Prefixes").next().is_some() {
        return Err(unsupported("taking delegated prefixes away"));
    }
    let mut changes = Changes::default();
    changes.update(&interface);
    Ok(Answer::done(changes))
}
