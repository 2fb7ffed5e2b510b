//! Regions, zones and images: what there is without anybody's making it.

use serde_json::{Value, json};

use super::noun::{Filters, invalid, texts};
use crate::{Answer, Context, Fault, eks};

/// The zones of a region.
pub fn zones(region: &str) -> [String; 3] {
    ["a", "b", "c"].map(|letter| format!("{region}{letter}"))
}

/// `use1-az1` of `us-east-1a`: the same place under a name that is the same in every account.
pub fn zone_id(region: &str, zone: &str) -> String {
    let number = zones(region).iter().position(|one| one == zone).map_or(0, |index| index + 1);
    format!("{}-az{number}", abbreviated(region))
}

/// What a node says of where it is, as the cloud controller labels it.
pub fn labels(region: &str, zone: &str) -> [(&'static str, String); 5] {
    [
        ("failure-domain.beta.kubernetes.io/region", region.to_owned()),
        ("failure-domain.beta.kubernetes.io/zone", zone.to_owned()),
        ("topology.k8s.aws/zone-id", zone_id(region, zone)),
        ("topology.kubernetes.io/region", region.to_owned()),
        ("topology.kubernetes.io/zone", zone.to_owned()),
    ]
}

/// `use1` of `us-east-1`, `apse2` of `ap-southeast-2`.
fn abbreviated(region: &str) -> String {
    const DIRECTIONS: &[(&str, &str)] = &[
        ("northeast", "ne"),
        ("northwest", "nw"),
        ("southeast", "se"),
        ("southwest", "sw"),
        ("central", "c"),
        ("north", "n"),
        ("south", "s"),
        ("east", "e"),
        ("west", "w"),
    ];
    let mut parts = region.split('-');
    let (area, direction, number) = (parts.next(), parts.next(), parts.next());
    let direction = direction.unwrap_or_default();
    let short = DIRECTIONS.iter().find(|(long, _)| *long == direction).map_or(direction, |(_, short)| short);
    format!("{}{short}{}", area.unwrap_or_default(), number.unwrap_or_default())
}

/// The zone that an input names by name or id; the first if it names none.
pub fn zone_of(region: &str, name: &str, id: &str) -> Result<String, Fault> {
    let all = zones(region);
    let found = match (name, id) {
        ("", "") => Some(all[0].clone()),
        ("", id) => all.iter().find(|zone| zone_id(region, zone) == id).cloned(),
        (name, _) => all.iter().find(|zone| *zone == name).cloned(),
    };
    found.ok_or_else(|| {
        let asked = if name.is_empty() { id } else { name };
        let message = format!(
            "Value ({asked}) for parameter availabilityZone is invalid. Subnets can currently only be created in the following availability zones: {}.",
            all.join(", ")
        );
        invalid(message)
    })
}

/// The domain of instances' names.
pub fn internal_domain(region: &str) -> String {
    if region == "us-east-1" { "ec2.internal".to_owned() } else { format!("{region}.compute.internal") }
}

pub fn describe_zones(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    const FILTERS: &[(&str, &str)] = &[
        ("group-name", "GroupName"),
        ("opt-in-status", "OptInStatus"),
        ("region-name", "RegionName"),
        ("state", "State"),
        ("zone-id", "ZoneId"),
        ("zone-name", "ZoneName"),
        ("zone-type", "ZoneType"),
    ];
    let filters = Filters::of(input, FILTERS)?;
    let region = context.region;
    let (names, ids) = (texts(input, "ZoneNames"), texts(input, "ZoneIds"));
    let all = zones(region);
    if let Some(name) = names.iter().find(|name| !all.iter().any(|zone| zone == *name)) {
        return Err(invalid(format!("Invalid availability zone: [{name}]")));
    }
    let shown = all.iter().map(|zone| {
        json!({
            "ZoneName": zone, "ZoneId": zone_id(region, zone), "RegionName": region, "State": "available",
            "ZoneType": "availability-zone", "OptInStatus": "opt-in-not-required", "GroupName": region,
            "NetworkBorderGroup": region, "Messages": [],
        })
    });
    let wanted = shown.filter(|zone| filters.admit(zone)).filter(|zone| {
        let is_in =
            |list: &[&str], member: &str| list.is_empty() || list.iter().any(|one| zone[member] == **one);
        is_in(&names, "ZoneName") && is_in(&ids, "ZoneId")
    });
    Ok(Answer::read(json!({"AvailabilityZones": wanted.collect::<Vec<_>>()})))
}

/// The account's one region.
pub fn describe_regions(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    const FILTERS: &[(&str, &str)] =
        &[("endpoint", "Endpoint"), ("opt-in-status", "OptInStatus"), ("region-name", "RegionName")];
    let filters = Filters::of(input, FILTERS)?;
    let region = context.region;
    if let Some(name) = texts(input, "RegionNames").iter().find(|name| **name != region) {
        return Err(invalid(format!("Invalid region provided: [{name}]")));
    }
    let shown = json!({
        "RegionName": region, "Endpoint": format!("ec2.{region}.amazonaws.com"), "OptInStatus": "opt-in-not-required",
    });
    let shown: Vec<Value> = Some(shown).into_iter().filter(|one| filters.admit(one)).collect();
    Ok(Answer::read(json!({"Regions": shown})))
}

/// An image: what a machine is when it starts. There is one of each Kubernetes version and architecture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    pub id: String,
    /// `1.36`
    pub version: &'static str,
    pub is_arm: bool,
}

impl Image {
    pub fn architecture(&self) -> &'static str {
        if self.is_arm { "arm64" } else { "x86_64" }
    }

    /// As AWS names them.
    pub fn name(&self) -> String {
        format!("amazon-eks-node-al2023-{}-standard-{}-v20261101", self.architecture(), self.version)
    }
}

/// When the images were made.
pub const IMAGES_MADE: &str = "2026-11-01T00:00:00.000Z";

/// Whether this binary's machines are of the Arm architecture: others cannot be run.
pub const HOST_IS_ARM: bool = cfg!(target_arch = "aarch64");

/// The images that can be run here.
pub fn images() -> Vec<Image> {
    let image = |version: &'static str| {
        let number: String = version.chars().filter(char::is_ascii_digit).collect();
        let letter = if HOST_IS_ARM { 'a' } else { '8' };
        Image { id: format!("ami-0e450{letter}{number:0>11}"), version, is_arm: HOST_IS_ARM }
    };
    eks::VERSIONS.iter().map(|version| image(version.name)).collect()
}

/// The image of an id.
pub fn image(id: &str) -> Result<Image, Fault> {
    images()
        .into_iter()
        .find(|image| image.id == id)
        .ok_or_else(|| Fault::new("InvalidAMIID.NotFound", format!("The image id '[{id}]' does not exist")))
}

/// The image that nodes of a cluster of this version (`1.36`) have.
pub fn image_of_version(version: &str) -> Option<Image> {
    images().into_iter().find(|image| image.version == version)
}

pub fn describe_images(_: &mut Context, input: &Value) -> Result<Answer, Fault> {
    const FILTERS: &[(&str, &str)] = &[
        ("architecture", "Architecture"),
        ("description", "Description"),
        ("image-id", "ImageId"),
        ("image-type", "ImageType"),
        ("is-public", "Public"),
        ("name", "Name"),
        ("owner-alias", "ImageOwnerAlias"),
        ("owner-id", "OwnerId"),
        ("root-device-type", "RootDeviceType"),
        ("state", "State"),
        ("virtualization-type", "VirtualizationType"),
    ];
    let filters = Filters::of(input, FILTERS)?;
    let ids = texts(input, "ImageIds");
    for id in &ids {
        image(id)?;
    }
    let owners = texts(input, "Owners");
    let is_owned = owners.is_empty() || owners.iter().any(|owner| ["amazon", AMAZON].contains(owner));
    let wanted = images().into_iter().filter(|image| ids.is_empty() || ids.contains(&image.id.as_str()));
    let shown = wanted.map(|image| show_image(&image)).filter(|image| is_owned && filters.admit(image));
    Ok(Answer::read(json!({"Images": shown.collect::<Vec<_>>()})))
}

/// The account that publishes EKS' images.
const AMAZON: &str = "602401143452";

fn show_image(image: &Image) -> Value {
    let name = image.name();
    json!({
        "ImageId": image.id, "Name": name, "ImageLocation": format!("amazon/{name}"), "OwnerId": AMAZON,
        "ImageOwnerAlias": "amazon", "ImageType": "machine", "Public": true, "State": "available",
        "Architecture": image.architecture(), "VirtualizationType": "hvm", "Hypervisor": "xen",
        "RootDeviceType": "ebs", "RootDeviceName": ROOT_DEVICE, "PlatformDetails": "Linux/UNIX",
        "UsageOperation": "RunInstances", "EnaSupport": true, "ImdsSupport": "v2.0", "BootMode": "uefi-preferred",
        "CreationDate": IMAGES_MADE,
        "Description": format!("A machine of Ekso that is a node of Kubernetes {}", image.version),
        "BlockDeviceMappings": [], "Tags": [],
    })
}

pub const ROOT_DEVICE: &str = "/dev/xvda";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_have_ids_as_on_aws() {
        for (zone, id) in
            [("us-east-1a", "use1-az1"), ("ap-southeast-2c", "apse2-az3"), ("eu-central-1b", "euc1-az2")]
        {
            assert_eq!(zone_id(&zone[..zone.len() - 1], zone), id);
        }
    }

    #[test]
    fn images_have_ids_like_any() {
        for image in images() {
            assert_eq!(image.id.len(), "ami-0123456789abcdef0".len(), "{}", image.id);
            assert!(image.id[4..].chars().all(|digit| digit.is_ascii_hexdigit()));
        }
    }
}
