//! What an instance is told about itself: the paths of the instance metadata service, version 2.
//!
//! <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-instance-metadata.html>

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use object::Snapshot;
use serde_json::{Value, json};

use super::record::{Instance, NetworkInterface, SecurityGroup, Subnet, Vpc};
use super::{address, instance_type, interface, place};
use crate::iam::record::{InstanceProfile, Role, named};
use crate::policy::{Policies, Principal, Request, decide};
use crate::sts::session::{self, Wanted};
use crate::{Context, Fault, authorize, state};

/// Credentials of an instance live this long.
const CREDENTIALS_SECONDS: i64 = 21_600;
/// Where they are, before the role's name.
pub const CREDENTIALS: &str = "meta-data/iam/security-credentials/";

/// Every path below `/latest/` and what is there, but for the credentials themselves.
pub fn tree(context: &Context, instance: &Instance) -> BTreeMap<String, String> {
    let mut tree = BTreeMap::new();
    let mut add = |path: &str, value: String| {
        tree.insert(format!("meta-data/{path}"), value);
    };
    add("ami-id", instance.image_id.clone());
    add("ami-launch-index", instance.launch_index.to_string());
    add("hostname", instance.private_dns_name.clone());
    add("instance-action", "none".into());
    add("instance-id", instance.instance_id.clone());
    add("instance-life-cycle", if instance.is_spot { "spot" } else { "on-demand" }.into());
    add("instance-type", instance.instance_type.clone());
    add("local-hostname", instance.private_dns_name.clone());
    add("placement/availability-zone", instance.availability_zone.clone());
    add("placement/availability-zone-id", place::zone_id(context.region, &instance.availability_zone));
    add("placement/region", context.region.to_owned());
    add("profile", "default-hvm".into());
    add("reservation-id", instance.reservation_id.clone());
    add("services/domain", "amazonaws.com".into());
    add("services/partition", "aws".into());
    let interfaces = interface::of_instance(context.state, &instance.instance_id);
    for (number, kept) in interfaces.iter().enumerate() {
        let of = &kept.record;
        if number == 0 {
            add("local-ipv4", of.private_ip.to_string());
            add("mac", of.mac_address.clone());
            add("security-groups", group_names(context, of));
            if let Some(public) = address::public_of(context.state, of) {
                add("public-ipv4", public.to_string());
            }
        }
        for (name, value) in of_interface(context, of) {
            add(&format!("network/interfaces/macs/{}/{name}", of.mac_address), value);
        }
    }
    if let Some((arn, id)) = &instance.profile
        && let Some(role) = role_of(context.state, instance)
    {
        let info = json!({
            "Code": "Success", "LastUpdated": context.now, "InstanceProfileArn": arn, "InstanceProfileId": id,
        });
        add("iam/info", format!("{info:#}"));
        add(&format!("iam/security-credentials/{}", role.common.name), String::new());
    }
    if instance.metadata.shows_tags {
        for (key, value) in &instance.tags {
            add(&format!("tags/instance/{key}"), value.clone());
        }
    }
    tree.insert("dynamic/instance-identity/document".into(), format!("{:#}", identity(context, instance)));
    if let Some(data) = instance.user_data.as_ref().and_then(|data| STANDARD.decode(data).ok()) {
        tree.insert("user-data".into(), String::from_utf8_lossy(&data).into_owned());
    }
    tree
}

fn group_names(context: &Context, interface: &NetworkInterface) -> String {
    let name =
        |id: &String| state::get::<SecurityGroup>(context.state, "", id).map(|group| group.record.group_name);
    interface.groups.iter().filter_map(name).collect::<Vec<_>>().join("\n")
}

fn of_interface(context: &Context, interface: &NetworkInterface) -> Vec<(&'static str, String)> {
    let addresses = std::iter::once(&interface.private_ip).chain(&interface.secondary);
    let addresses: Vec<String> = addresses.map(ToString::to_string).collect();
    let number = interface.attachment.as_ref().map_or(0, |attachment| attachment.device_index);
    let mut found = vec![
        ("device-number", number.to_string()),
        ("interface-id", interface.network_interface_id.clone()),
        ("local-hostname", interface::private_name(context, interface.private_ip)),
        ("local-ipv4s", addresses.join("\n")),
        ("mac", interface.mac_address.clone()),
        ("owner-id", context.account.to_owned()),
        ("security-group-ids", interface.groups.join("\n")),
        ("security-groups", group_names(context, interface)),
        ("subnet-id", interface.subnet_id.clone()),
        ("vpc-id", interface.vpc_id.clone()),
    ];
    if let Some(public) = address::public_of(context.state, interface) {
        found.push(("public-ipv4s", public.to_string()));
    }
    if let Some(prefix) = interface.prefix {
        let parts: Vec<String> = interface::prefixes(prefix).iter().map(ToString::to_string).collect();
        found.push(("ipv4-prefix", parts.join("\n")));
    }
    if let Some(subnet) = state::get::<Subnet>(context.state, "", &interface.subnet_id) {
        found.push(("subnet-ipv4-cidr-block", subnet.record.cidr_block.to_string()));
    }
    if let Some(vpc) = state::get::<Vpc>(context.state, "", &interface.vpc_id) {
        let ranges: Vec<String> = vpc.record.ranges().map(|range| range.to_string()).collect();
        found.push(("vpc-ipv4-cidr-block", vpc.record.cidr_block.to_string()));
        found.push(("vpc-ipv4-cidr-blocks", ranges.join("\n")));
    }
    found
}

fn identity(context: &Context, instance: &Instance) -> Value {
    let ip = interface::primary_of(context.state, &instance.instance_id).map(|one| one.record.private_ip);
    let architecture = instance_type::find(&instance.instance_type).map(|kind| kind.architecture());
    json!({
        "accountId": context.account, "architecture": architecture, "availabilityZone": instance.availability_zone,
        "billingProducts": null, "devpayProductCodes": null, "imageId": instance.image_id,
        "instanceId": instance.instance_id, "instanceType": instance.instance_type, "kernelId": null,
        "marketplaceProductCodes": null, "pendingTime": instance.launched, "privateIp": ip, "ramdiskId": null,
        "region": context.region, "version": "2017-09-30",
    })
}

/// What a path below `/latest/` has: a value, or the names below it. A folder's name ends with a slash.
pub fn look_up(tree: &BTreeMap<String, String>, path: &str) -> Option<String> {
    let path = path.trim_start_matches('/');
    if let Some(value) = tree.get(path) {
        return Some(value.clone());
    }
    let folder = match path.trim_end_matches('/') {
        "" => String::new(),
        path => format!("{path}/"),
    };
    let mut names: Vec<String> = Vec::new();
    for below in tree.keys().filter_map(|path| path.strip_prefix(&*folder)) {
        let name = match below.split_once('/') {
            Some((first, _)) => format!("{first}/"),
            None => below.to_owned(),
        };
        if names.last() != Some(&name) {
            names.push(name);
        }
    }
    (!names.is_empty()).then(|| names.join("\n"))
}

/// The role of an instance's profile. A profile that was made again under the same name is another.
fn role_of(state: &Snapshot, instance: &Instance) -> Option<Role> {
    let (arn, id) = instance.profile.as_ref()?;
    let profile = named::<InstanceProfile>(state, arn.rsplit('/').next()?)?.record;
    let role = profile.role.filter(|_| profile.common.id == *id)?;
    Some(named::<Role>(state, &role)?.record)
}

/// Whose credentials an instance has: what they were given by, and to whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// `AIPA…`
    profile_id: String,
    /// `AROA…`
    role_id: String,
    /// Whoever is no longer trusted gets no more of them.
    trust: String,
}

/// Of a role's name in the path; none if the instance has no such role.
pub fn holder(state: &Snapshot, instance: &Instance, role: &str) -> Option<Holder> {
    let (_, profile_id) = instance.profile.clone()?;
    let found = role_of(state, instance).filter(|found| found.common.name == role)?;
    Some(Holder { profile_id, role_id: found.common.id, trust: found.trust })
}

/// New credentials of an instance's role, as the document of its path, if the role is of that name and trusts EC2.
pub fn credentials(context: &mut Context, instance: &Instance, role: &str) -> Result<Value, Fault> {
    let missing = || Fault::new("NotFound", format!("The instance has no role {role}"));
    let found =
        role_of(context.state, instance).filter(|found| found.common.name == role).ok_or_else(missing)?;
    let trust = session::trust(&found)?;
    let principal = Principal::service("ec2.amazonaws.com");
    let keys = authorize::keys(context, &[]);
    let request =
        Request { principal: &principal, action: "sts:AssumeRole", resource: &found.common.arn, keys: &keys };
    if !decide(&Policies { trust: Some(&trust), ..Policies::default() }, &request).is_allowed() {
        let message = "EC2 cannot assume the role. The role's trust policy must allow ec2.amazonaws.com to sts:AssumeRole";
        return Err(Fault::new("AssumeRoleUnauthorizedAccess", message));
    }
    let wanted = Wanted {
        name: instance.instance_id.clone(),
        seconds: CREDENTIALS_SECONDS,
        keys: vec![(
            "ec2:SourceInstanceARN".into(),
            super::noun::arn(context, "instance", &instance.instance_id),
        )],
        ..Wanted::default()
    };
    let begun = session::begin(context, &found, wanted)?;
    let issued = &begun["Credentials"];
    Ok(json!({
        "Code": "Success", "LastUpdated": context.now, "Type": "AWS-HMAC", "AccessKeyId": issued["AccessKeyId"],
        "SecretAccessKey": issued["SecretAccessKey"], "Token": issued["SessionToken"],
        "Expiration": issued["Expiration"],
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_folders_or_values() {
        let paths = [
            ("meta-data/ami-id", "ami-1"),
            ("meta-data/placement/region", "us-east-1"),
            ("meta-data/placement/availability-zone", "us-east-1a"),
            ("user-data", "x"),
        ];
        let tree = paths.map(|(path, value)| (path.to_owned(), value.to_owned())).into();
        for (path, expected) in [
            ("", Some("meta-data/\nuser-data")),
            ("/meta-data", Some("ami-id\nplacement/")),
            ("meta-data/", Some("ami-id\nplacement/")),
            ("meta-data/placement/", Some("availability-zone\nregion")),
            ("meta-data/placement/region", Some("us-east-1")),
            ("meta-data/place", None),
            ("dynamic", None),
        ] {
            assert_eq!(look_up(&tree, path).as_deref(), expected, "{path}");
        }
    }
}
