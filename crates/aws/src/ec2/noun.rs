//! What the kinds of EC2 have in common: ids, tags, filters, ARNs.

use object::Snapshot;
use serde_json::{Value, json};

use super::record::{
    Address, Instance, InternetGateway, KeyPair, LaunchTemplate, NatGateway, NetworkInterface, RouteTable,
    SecurityGroup, Subnet, Tags, Vpc,
};
use crate::service::Target;
use crate::state::{self, Kept, Record};
use crate::{Answer, Context, Fault, Subject};

/// A kind of EC2's.
pub trait Noun: Record + Clone {
    /// `vpc`: in ARNs and as a type of resource in tag specifications.
    const WORD: &'static str;
    /// The code of the fault for one that is not there, and how its message begins and ends around the id.
    const MISSING: (&'static str, &'static str, &'static str);
    /// The input's list of ids, and the output's list of items.
    const LISTS: (&'static str, &'static str);
    /// Name of a filter, and where in an item its values are: `Associations.SubnetId`.
    const FILTERS: &'static [(&'static str, &'static str)];

    fn id(&self) -> &str;
    fn tags(&self) -> &Tags;
    fn tags_mut(&mut self) -> &mut Tags;
    /// An item of the output.
    fn show(&self, context: &Context) -> Value;
}

macro_rules! nouns {
    ($($kind:ident $id:ident $word:literal, $code:literal $before:literal $after:literal, $ids:literal $list:literal, $show:path, [$($filter:literal $path:literal),* $(,)?];)*) => {$(
        impl Noun for $kind {
            const WORD: &'static str = $word;
            const MISSING: (&'static str, &'static str, &'static str) = ($code, $before, $after);
            const LISTS: (&'static str, &'static str) = ($ids, $list);
            const FILTERS: &'static [(&'static str, &'static str)] = &[$(($filter, $path)),*];

            fn id(&self) -> &str {
                &self.$id
            }
            fn tags(&self) -> &Tags {
                &self.tags
            }
            fn tags_mut(&mut self) -> &mut Tags {
                &mut self.tags
            }
            fn show(&self, context: &Context) -> Value {
                $show(self, context)
            }
        }
    )*};
}

nouns! {
    Address allocation_id "elastic-ip", "InvalidAllocationID.NotFound" "The allocation ID '" "' does not exist", "AllocationIds" "Addresses", super::address::show, [
        "allocation-id" "AllocationId", "association-id" "AssociationId", "domain" "Domain", "instance-id" "InstanceId",
        "network-interface-id" "NetworkInterfaceId", "private-ip-address" "PrivateIpAddress", "public-ip" "PublicIp",
    ];
    Instance instance_id "instance", "InvalidInstanceID.NotFound" "The instance ID '" "' does not exist", "InstanceIds" "Instances", super::instance_show::show, [
        "architecture" "Architecture", "availability-zone" "Placement.AvailabilityZone", "client-token" "ClientToken",
        "iam-instance-profile.arn" "IamInstanceProfile.Arn", "image-id" "ImageId", "instance-id" "InstanceId",
        "instance-lifecycle" "InstanceLifecycle", "instance-state-code" "State.Code", "instance-state-name" "State.Name",
        "instance-type" "InstanceType", "instance.group-id" "SecurityGroups.GroupId", "key-name" "KeyName",
        "network-interface.network-interface-id" "NetworkInterfaces.NetworkInterfaceId",
        "network-interface.private-ip-address" "NetworkInterfaces.PrivateIpAddress", "private-dns-name" "PrivateDnsName",
        "private-ip-address" "PrivateIpAddress", "ip-address" "PublicIpAddress", "reservation-id" "ReservationId",
        "subnet-id" "SubnetId", "vpc-id" "VpcId",
    ];
    InternetGateway internet_gateway_id "internet-gateway", "InvalidInternetGatewayID.NotFound" "The internetGateway ID '" "' does not exist", "InternetGatewayIds" "InternetGateways", super::gateway::show, [
        "attachment.state" "Attachments.State", "attachment.vpc-id" "Attachments.VpcId",
        "internet-gateway-id" "InternetGatewayId", "owner-id" "OwnerId",
    ];
    KeyPair key_pair_id "key-pair", "InvalidKeyPair.NotFound" "The key pair ID '" "' does not exist", "KeyPairIds" "KeyPairs", super::key_pair::show, [
        "fingerprint" "KeyFingerprint", "key-name" "KeyName", "key-pair-id" "KeyPairId",
    ];
    LaunchTemplate launch_template_id "launch-template", "InvalidLaunchTemplateId.NotFound" "The specified launch template, with template ID " ", does not exist.", "LaunchTemplateIds" "LaunchTemplates", super::launch_template::show, [
        "launch-template-name" "LaunchTemplateName",
    ];
    NatGateway nat_gateway_id "natgateway", "NatGatewayNotFound" "NatGateway " " was not found", "NatGatewayIds" "NatGateways", super::nat_gateway::show, [
        "nat-gateway-id" "NatGatewayId", "state" "State", "subnet-id" "SubnetId", "vpc-id" "VpcId",
    ];
    NetworkInterface network_interface_id "network-interface", "InvalidNetworkInterfaceID.NotFound" "The networkInterface ID '" "' does not exist", "NetworkInterfaceIds" "NetworkInterfaces", super::interface::show, [
        "addresses.private-ip-address" "PrivateIpAddresses.PrivateIpAddress", "association.public-ip" "Association.PublicIp",
        "attachment.attachment-id" "Attachment.AttachmentId", "attachment.device-index" "Attachment.DeviceIndex",
        "attachment.instance-id" "Attachment.InstanceId", "attachment.status" "Attachment.Status",
        "availability-zone" "AvailabilityZone", "description" "Description", "group-id" "Groups.GroupId",
        "group-name" "Groups.GroupName", "interface-type" "InterfaceType", "mac-address" "MacAddress",
        "network-interface-id" "NetworkInterfaceId", "owner-id" "OwnerId", "private-dns-name" "PrivateDnsName",
        "private-ip-address" "PrivateIpAddress", "requester-managed" "RequesterManaged", "status" "Status",
        "subnet-id" "SubnetId", "vpc-id" "VpcId",
    ];
    RouteTable route_table_id "route-table", "InvalidRouteTableID.NotFound" "The routeTable ID '" "' does not exist", "RouteTableIds" "RouteTables", super::route_table::show, [
        "association.main" "Associations.Main", "association.route-table-association-id" "Associations.RouteTableAssociationId",
        "association.route-table-id" "Associations.RouteTableId", "association.subnet-id" "Associations.SubnetId",
        "owner-id" "OwnerId", "route-table-id" "RouteTableId", "route.destination-cidr-block" "Routes.DestinationCidrBlock",
        "route.gateway-id" "Routes.GatewayId", "route.nat-gateway-id" "Routes.NatGatewayId", "vpc-id" "VpcId",
    ];
    SecurityGroup group_id "security-group", "InvalidGroup.NotFound" "The security group '" "' does not exist", "GroupIds" "SecurityGroups", super::security_group::show, [
        "description" "Description", "egress.ip-permission.cidr" "IpPermissionsEgress.IpRanges.CidrIp",
        "egress.ip-permission.group-id" "IpPermissionsEgress.UserIdGroupPairs.GroupId", "group-id" "GroupId",
        "group-name" "GroupName", "ip-permission.cidr" "IpPermissions.IpRanges.CidrIp",
        "ip-permission.from-port" "IpPermissions.FromPort", "ip-permission.group-id" "IpPermissions.UserIdGroupPairs.GroupId",
        "ip-permission.protocol" "IpPermissions.IpProtocol", "ip-permission.to-port" "IpPermissions.ToPort",
        "owner-id" "OwnerId", "vpc-id" "VpcId",
    ];
    Subnet subnet_id "subnet", "InvalidSubnetID.NotFound" "The subnet ID '" "' does not exist", "SubnetIds" "Subnets", super::subnet::show, [
        "availability-zone" "AvailabilityZone", "availabilityZone" "AvailabilityZone", "availability-zone-id" "AvailabilityZoneId",
        "available-ip-address-count" "AvailableIpAddressCount", "cidr" "CidrBlock", "cidr-block" "CidrBlock",
        "cidrBlock" "CidrBlock", "default-for-az" "DefaultForAz", "defaultForAz" "DefaultForAz",
        "map-public-ip-on-launch" "MapPublicIpOnLaunch", "owner-id" "OwnerId", "state" "State", "subnet-arn" "SubnetArn",
        "subnet-id" "SubnetId", "vpc-id" "VpcId",
    ];
    Vpc vpc_id "vpc", "InvalidVpcID.NotFound" "The vpc ID '" "' does not exist", "VpcIds" "Vpcs", super::vpc::show, [
        "cidr" "CidrBlock", "cidr-block-association.association-id" "CidrBlockAssociationSet.AssociationId",
        "cidr-block-association.cidr-block" "CidrBlockAssociationSet.CidrBlock", "dhcp-options-id" "DhcpOptionsId",
        "is-default" "IsDefault", "isDefault" "IsDefault", "owner-id" "OwnerId", "state" "State", "vpc-id" "VpcId",
    ];
}

/// A member of the input that is a text; empty if it is not there.
pub fn text<'a>(input: &'a Value, member: &str) -> &'a str {
    input[member].as_str().unwrap_or_default()
}

/// A member of the input that is a list of texts.
pub fn texts<'a>(input: &'a Value, member: &str) -> Vec<&'a str> {
    input[member].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

pub fn items<'a>(input: &'a Value, member: &str) -> impl Iterator<Item = &'a Value> {
    input[member].as_array().into_iter().flatten()
}

/// The record of an id.
pub fn find<T: Noun>(state: &Snapshot, id: &str) -> Result<Kept<T>, Fault> {
    state::get::<T>(state, "", id).ok_or_else(|| missing::<T>(id))
}

/// The record that a member of the input names.
pub fn named<T: Noun>(context: &Context, input: &Value, member: &str) -> Result<Kept<T>, Fault> {
    match text(input, member) {
        "" => Err(lacking(member)),
        id => find(context.state, id),
    }
}

pub fn missing<T: Noun>(id: &str) -> Fault {
    let (code, before, after) = T::MISSING;
    Fault::new(code, format!("{before}{id}{after}"))
}

pub fn lacking(member: &str) -> Fault {
    // The wire's names begin with a small letter.
    let mut letters = member.chars();
    let member: String = letters.next().into_iter().flat_map(char::to_lowercase).chain(letters).collect();
    Fault::new("MissingParameter", format!("The request must contain the parameter {member}"))
}

pub fn invalid(message: impl Into<String>) -> Fault {
    Fault::new("InvalidParameterValue", message)
}

/// What AWS has and Ekso has not.
pub fn unsupported(what: &str) -> Fault {
    Fault::new("UnsupportedOperation", format!("Ekso has no {what}."))
}

pub fn in_use(noun: &str, id: &str) -> Fault {
    Fault::new("DependencyViolation", format!("The {noun} '{id}' has dependencies and cannot be deleted."))
}

pub fn arn(context: &Context, word: &str, id: &str) -> String {
    format!("arn:aws:ec2:{}:{}:{word}/{id}", context.region, context.account)
}

/// What a call about records that are there is about; `member` names one, or a list.
pub fn subject<T: Noun>(context: &Context, input: &Value, member: &str) -> Subject {
    let mut ids = texts(input, member);
    ids.extend(input[member].as_str());
    let mut subject = Subject::default();
    for id in ids {
        let known = state::get::<T>(context.state, "", id);
        let tags = known.as_ref().map(|kept| kept.record.tags());
        subject.resources.push(target(arn(context, T::WORD, id), tags));
    }
    request_tags(&mut subject, input);
    subject
}

/// A resource of a call with the condition keys of its tags.
pub fn target(arn: String, tags: Option<&Tags>) -> Target {
    let both = |(key, value): (&String, &String)| {
        ["aws", "ec2"].map(|prefix| (format!("{prefix}:ResourceTag/{key}"), vec![value.clone()]))
    };
    Target { arn, keys: tags.into_iter().flatten().flat_map(both).collect() }
}

/// What a call that makes something is about.
pub fn subject_of_new(context: &Context, input: &Value, word: &str) -> Subject {
    let mut subject = Subject::of(arn(context, word, "*"));
    request_tags(&mut subject, input);
    subject
}

/// `aws:RequestTag/…` and `aws:TagKeys`
pub fn request_tags(subject: &mut Subject, input: &Value) {
    let specified = items(input, "TagSpecifications").flat_map(|specification| items(specification, "Tags"));
    let mut keys = Vec::new();
    for tag in specified.chain(items(input, "Tags")) {
        keys.push(text(tag, "Key").to_owned());
        let value = text(tag, "Value").to_owned();
        subject.keys.push((format!("aws:RequestTag/{}", text(tag, "Key")), vec![value]));
    }
    if !keys.is_empty() {
        subject.keys.push(("aws:TagKeys".to_owned(), keys));
    }
}

/// The most tags that something may have.
const TAGS: usize = 50;

/// The tags of an input for what is of this type. Types other than `words` are refused.
pub fn tags_for(input: &Value, word: &str, words: &[&str]) -> Result<Tags, Fault> {
    let mut tags = Tags::new();
    for specification in items(input, "TagSpecifications") {
        let of = text(specification, "ResourceType");
        if of != word && !words.contains(&of) {
            return Err(invalid(format!("'{of}' is not a valid taggable resource type for this operation.")));
        }
        if of == word {
            add_tags(&mut tags, items(specification, "Tags"))?;
        }
    }
    Ok(tags)
}

/// Tags of the system's are nobody's to set or to take away.
pub fn refuse_reserved(key: &str) -> Result<(), Fault> {
    if !key.to_ascii_lowercase().starts_with("aws:") {
        return Ok(());
    }
    Err(invalid(format!(
        "Value ( {key} ) for parameter key is invalid. Tag keys starting with 'aws:' are reserved for internal use"
    )))
}

pub fn add_tags<'a>(tags: &mut Tags, given: impl Iterator<Item = &'a Value>) -> Result<(), Fault> {
    for tag in given {
        let key = text(tag, "Key");
        if key.is_empty() {
            return Err(invalid("Tag keys cannot be empty"));
        }
        refuse_reserved(key)?;
        if key.chars().count() > 127 || text(tag, "Value").chars().count() > 255 {
            return Err(invalid("Tag keys exceed 127 characters, or values 255"));
        }
        tags.insert(key.to_owned(), text(tag, "Value").to_owned());
    }
    if tags.len() > TAGS {
        let message = format!("The maximum number of {TAGS} tags for a resource has been reached.");
        return Err(Fault::new("TagLimitExceeded", message));
    }
    Ok(())
}

pub fn show_tags(tags: &Tags) -> Value {
    tags.iter().map(|(key, value)| json!({"Key": key, "Value": value})).collect()
}

/// Answers with the items that the ids and filters of the input leave.
pub fn describe<T: Noun>(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    Ok(Answer::read(json!({(T::LISTS.1): described::<T>(context, input)?})))
}

pub fn described<T: Noun>(context: &Context, input: &Value) -> Result<Vec<Value>, Fault> {
    let ids = texts(input, T::LISTS.0);
    for id in &ids {
        find::<T>(context.state, id)?;
    }
    let filters = Filters::of(input, T::FILTERS)?;
    let records = state::list::<T>(context.state, "").into_iter().map(|kept| kept.record);
    let wanted = records.filter(|record| ids.is_empty() || ids.contains(&record.id()));
    Ok(wanted.map(|record| record.show(context)).filter(|item| filters.admit(item)).collect())
}

/// The filters of a call: all must hold, each by one of its values, in which `*` and `?` stand for any.
pub struct Filters<'a> {
    wanted: Vec<(Place<'a>, Vec<&'a str>)>,
}

enum Place<'a> {
    Path(&'static str),
    Tag(&'a str),
    TagKey,
    TagValue,
}

impl<'a> Filters<'a> {
    pub fn of(input: &'a Value, known: &[(&str, &'static str)]) -> Result<Self, Fault> {
        let mut wanted = Vec::new();
        for filter in items(input, "Filters").chain(items(input, "Filter")) {
            let name = text(filter, "Name");
            let place = match name.split_once(':') {
                Some(("tag", key)) => Place::Tag(key),
                _ if name == "tag-key" => Place::TagKey,
                _ if name == "tag-value" => Place::TagValue,
                _ => {
                    let path = known.iter().find(|(one, _)| *one == name).map(|(_, path)| *path);
                    Place::Path(path.ok_or_else(|| invalid(format!("The filter '{name}' is invalid")))?)
                }
            };
            wanted.push((place, texts(filter, "Values")));
        }
        Ok(Self { wanted })
    }

    pub fn admit(&self, item: &Value) -> bool {
        self.wanted.iter().all(|(place, patterns)| {
            let mut found = Vec::new();
            match place {
                Place::Path(path) => collect(item, path, &mut found),
                Place::Tag(key) => {
                    let tags = item.get("Tags").or_else(|| item.get("TagSet")).and_then(Value::as_array);
                    let tags = tags.into_iter().flatten().filter(|tag| tag["Key"] == *key);
                    found.extend(tags.map(|tag| text(tag, "Value").to_owned()));
                }
                Place::TagKey => collect_tags(item, "Key", &mut found),
                Place::TagValue => collect_tags(item, "Value", &mut found),
            }
            patterns.iter().any(|pattern| found.iter().any(|value| matches(pattern, value)))
        })
    }
}

fn collect_tags(item: &Value, part: &str, found: &mut Vec<String>) {
    for list in ["Tags", "TagSet"] {
        collect(&item[list], part, found);
    }
}

/// Every text, number or truth at the end of a path; lists on the way are entered.
fn collect(value: &Value, path: &str, found: &mut Vec<String>) {
    match value {
        Value::Array(list) => list.iter().for_each(|item| collect(item, path, found)),
        Value::Object(_) if !path.is_empty() => {
            let (first, rest) = path.split_once('.').unwrap_or((path, ""));
            collect(&value[first], rest, found);
        }
        Value::String(text) if path.is_empty() => found.push(text.clone()),
        Value::Bool(_) | Value::Number(_) if path.is_empty() => found.push(value.to_string()),
        _ => {}
    }
}

/// Whether a text fits a pattern, in time that grows with their lengths' product at most.
fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t, mut star) = (0, 0, None);
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(one) if *one == '?' || *one == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    p = at + 1;
                    t = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|one| *one == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, text, fits) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("*", "", true),
            ("a*c", "abbc", true),
            ("a*c", "abcd", false),
            ("?b*", "ab", true),
            ("eks-*-ng?", "eks-x-ng1", true),
            ("*a*a*a*a*b", "aaaaaaaaaaaaaaaaaaaaaaaa", false),
        ] {
            assert_eq!(matches(pattern, text), fits, "{pattern} {text}");
        }
    }
}
