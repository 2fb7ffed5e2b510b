//! How instances look to clients.

use serde_json::{Value, json};

use super::noun::show_tags;
use super::record::{Instance, MetadataOptions, NetworkInterface, State};
use super::{address, instance_type, interface, place};
use crate::Context;

pub fn show(instance: &Instance, context: &Context) -> Value {
    let interfaces = interface::of_instance(context.state, &instance.instance_id);
    let interfaces: Vec<NetworkInterface> = interfaces.into_iter().map(|kept| kept.record).collect();
    show_with(instance, &interfaces, context)
}

/// An instance with these interfaces, the first of which is its primary one.
pub fn show_with(instance: &Instance, interfaces: &[NetworkInterface], context: &Context) -> Value {
    let (code, name) = instance.state.told();
    let kind = instance_type::find(&instance.instance_type);
    let mut shown = json!({
        "InstanceId": instance.instance_id, "ReservationId": instance.reservation_id, "ImageId": instance.image_id,
        "InstanceType": instance.instance_type, "State": {"Code": code, "Name": name},
        "Architecture": kind.map_or("x86_64", |kind| kind.architecture()), "LaunchTime": instance.launched,
        "AmiLaunchIndex": instance.launch_index, "ClientToken": instance.client_token,
        "Placement": {"AvailabilityZone": instance.availability_zone, "GroupName": "", "Tenancy": "default"},
        "Monitoring": {"State": "disabled"}, "EbsOptimized": instance.ebs_optimized, "EnaSupport": true, "Hypervisor": "xen",
        "VirtualizationType": "hvm", "RootDeviceType": "ebs", "RootDeviceName": place::ROOT_DEVICE,
        "BlockDeviceMappings": [], "ProductCodes": [], "PlatformDetails": "Linux/UNIX",
        "UsageOperation": "RunInstances", "MetadataOptions": metadata(&instance.metadata),
        "Tags": show_tags(&instance.tags),
        "StateTransitionReason": instance.reason.as_ref().map_or("", |(_, message)| message),
        "PrivateDnsName": "", "PublicDnsName": "",
    });
    if let Some((code, message)) = &instance.reason {
        shown["StateReason"] = json!({"Code": code, "Message": message});
    }
    if let Some(key) = &instance.key_name {
        shown["KeyName"] = json!(key);
    }
    if instance.is_spot {
        shown["InstanceLifecycle"] = json!("spot");
    }
    if let Some((arn, id)) = &instance.profile {
        shown["IamInstanceProfile"] = json!({"Arn": arn, "Id": id});
    }
    if instance.state == State::Terminated {
        return shown;
    }
    shown["VpcId"] = json!(instance.vpc_id);
    shown["SubnetId"] = json!(instance.subnet_id);
    shown["PrivateDnsName"] = json!(instance.private_dns_name);
    shown["SourceDestCheck"] = json!(true);
    if let Some(first) = interfaces.first() {
        shown["PrivateIpAddress"] = json!(first.private_ip);
        shown["SecurityGroups"] = interface::group_list(context, &first.groups).into();
        if let Some(public) = address::public_of(context.state, first) {
            shown["PublicIpAddress"] = json!(public);
        }
    }
    let interfaces = interfaces.iter().map(|one| interface_of(one, context));
    shown["NetworkInterfaces"] = interfaces.collect();
    shown
}

fn interface_of(interface: &NetworkInterface, context: &Context) -> Value {
    let mut shown = interface::show(interface, context);
    if let Some(members) = shown.as_object_mut() {
        for other in ["TagSet", "AvailabilityZone", "RequesterManaged", "RequesterId"] {
            members.remove(other);
        }
        // An instance's interface says of its attachment less than an interface does.
        if let Some(attachment) = members.get_mut("Attachment").and_then(Value::as_object_mut) {
            attachment.remove("InstanceId");
            attachment.remove("InstanceOwnerId");
        }
    }
    shown
}

pub fn metadata(options: &MetadataOptions) -> Value {
    let state = |on: bool| if on { "enabled" } else { "disabled" };
    json!({
        "State": "applied", "HttpTokens": "required", "HttpPutResponseHopLimit": options.hop_limit,
        "HttpEndpoint": state(options.is_enabled), "HttpProtocolIpv6": "disabled",
        "InstanceMetadataTags": state(options.shows_tags),
    })
}

pub fn reservation(context: &Context, id: &str, mut instances: Vec<Value>) -> Value {
    for instance in instances.iter_mut().filter_map(Value::as_object_mut) {
        instance.remove("ReservationId");
    }
    json!({"ReservationId": id, "OwnerId": context.account, "Groups": [], "Instances": instances})
}

/// What the checks of an instance say: it runs, or nothing is known.
pub fn status(instance: &Instance) -> Value {
    let (code, name) = instance.state.told();
    let is_well = instance.state == State::Running;
    let summary = |well: bool| {
        let (status, detail) = if well { ("ok", "passed") } else { ("not-applicable", "insufficient-data") };
        json!({"Status": status, "Details": [{"Name": "reachability", "Status": detail}]})
    };
    json!({
        "InstanceId": instance.instance_id, "AvailabilityZone": instance.availability_zone,
        "InstanceState": {"Code": code, "Name": name}, "InstanceStatus": summary(is_well),
        "SystemStatus": summary(is_well), "Events": [],
    })
}
