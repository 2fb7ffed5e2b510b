//! What may be asked of instances, and of templates for them, that has nothing behind it here: refused, unless it says what is so anyway.

use serde_json::Value;

use super::noun::{items, text, unsupported};
use super::place::ROOT_DEVICE;
use crate::Fault;

/// Where a value stands in the data of a launch, which values ask for nothing, and what others would ask for.
const ROWS: &[(&str, &[&str], &str)] = &[
    ("/AdditionalInfo", &[], "AdditionalInfo"),
    (
        "/CapacityReservationSpecification/CapacityReservationPreference",
        &["open", "none"],
        "capacity reservations",
    ),
    ("/CapacityReservationSpecification/CapacityReservationTarget", &[], "capacity reservations"),
    (
        "/CpuOptions",
        &[],
        "choice of cores and threads (CpuOptions): an instance has the processors of its type",
    ),
    (
        "/CreditSpecification/CpuCredits",
        &["unlimited"],
        "CPU credits that run out (CreditSpecification): bursts have no end here",
    ),
    ("/DisableApiStop", &["false"], "protection against stopping (DisableApiStop)"),
    ("/EnablePrimaryIpv6", &["false"], "IPv6 in subnets"),
    (
        "/InstanceInitiatedShutdownBehavior",
        &["stop"],
        "termination by shutting down (InstanceInitiatedShutdownBehavior): it stops",
    ),
    ("/Ipv6AddressCount", &["0"], "IPv6 in subnets"),
    ("/KernelId", &[], "kernels of one's own (KernelId)"),
    (
        "/MaintenanceOptions/AutoRecovery",
        &["default"],
        "instances that are not recovered (MaintenanceOptions)",
    ),
    ("/MaintenanceOptions/RebootMigration", &["default"], "migration (MaintenanceOptions)"),
    ("/MetadataOptions/HttpProtocolIpv6", &["disabled"], "IPv6 in subnets"),
    ("/Monitoring/Enabled", &["false"], "CloudWatch, and no detailed monitoring (Monitoring)"),
    ("/NetworkPerformanceOptions", &[], "choice of bandwidths (NetworkPerformanceOptions)"),
    ("/Operator", &[], "managed instances (Operator)"),
    ("/Placement/Affinity", &["default"], "dedicated hosts"),
    ("/Placement/GroupId", &[], "placement groups"),
    ("/Placement/GroupName", &[], "placement groups"),
    ("/Placement/HostId", &[], "dedicated hosts"),
    ("/Placement/HostResourceGroupArn", &[], "dedicated hosts"),
    ("/Placement/PartitionNumber", &[], "placement groups"),
    ("/Placement/SpreadDomain", &[], "placement groups"),
    ("/PrivateDnsNameOptions/EnableResourceNameDnsAAAARecord", &["false"], "names by the instance's id"),
    ("/PrivateDnsNameOptions/EnableResourceNameDnsARecord", &["false"], "names by the instance's id"),
    ("/PrivateDnsNameOptions/HostnameType", &["ip-name"], "names by the instance's id"),
    ("/RamDiskId", &[], "kernels of one's own (RamdiskId)"),
    ("/RamdiskId", &[], "kernels of one's own (RamdiskId)"),
    ("/SecondaryInterfaces", &[], "secondary interfaces"),
];

/// The same, of each interface.
const INTERFACE: &[(&str, &[&str], &str)] = &[
    ("/AssociateCarrierIpAddress", &["false"], "carrier addresses"),
    ("/ConnectionTrackingSpecification", &[], "choice of how long connections are tracked"),
    (
        "/DeviceIndex",
        &["0"],
        "interface at launch but the first (DeviceIndex 0): attach others (AttachNetworkInterface)",
    ),
    ("/EnaQueueCount", &[], "ENA queues"),
    ("/EnaSrdSpecification/EnaSrdEnabled", &["false"], "ENA Express"),
    ("/InterfaceType", &["interface"], "interfaces of that kind"),
    ("/Ipv4PrefixCount", &["0"], "prefixes asked for at launch: nodes of clusters get theirs by themselves"),
    ("/Ipv4Prefixes", &[], "prefixes asked for at launch: nodes of clusters get theirs by themselves"),
    ("/Ipv6AddressCount", &["0"], "IPv6 in subnets"),
    ("/Ipv6Addresses", &[], "IPv6 in subnets"),
    ("/Ipv6PrefixCount", &["0"], "IPv6 in subnets"),
    ("/Ipv6Prefixes", &[], "IPv6 in subnets"),
    ("/NetworkCardIndex", &["0"], "second network card"),
    ("/PrimaryIpv6", &["false"], "IPv6 in subnets"),
    (
        "/PrivateIpAddresses",
        &[],
        "lists of addresses at launch: name one (PrivateIpAddress), or say how many (SecondaryPrivateIpAddressCount)",
    ),
];

/// The same, of the root's volume: its size and kind are those of the host's disk, and it goes with its instance.
const ROOT: &[(&str, &[&str], &str)] = &[
    ("/Ebs/DeleteOnTermination", &["true"], "volumes that outlive their instance"),
    ("/Ebs/Encrypted", &["false"], "encryption of volumes"),
    ("/Ebs/KmsKeyId", &[], "encryption of volumes"),
    ("/Ebs/OutpostArn", &[], "Outposts"),
    ("/Ebs/SnapshotId", &[], "snapshots"),
    ("/NoDevice", &[], "instances without a root volume"),
    ("/VirtualName", &[], "instance store volumes"),
];

pub fn check(spec: &Value) -> Result<(), Fault> {
    rows(spec, ROWS)?;
    for interface in items(spec, "NetworkInterfaces") {
        rows(interface, INTERFACE)?;
    }
    for device in items(spec, "BlockDeviceMappings") {
        if text(device, "DeviceName") != ROOT_DEVICE {
            return Err(unsupported(&format!("volumes besides the root's ({ROOT_DEVICE})")));
        }
        rows(device, ROOT)?;
    }
    Ok(())
}

fn rows(spec: &Value, rows: &[(&str, &[&str], &str)]) -> Result<(), Fault> {
    let asks = |(place, nothing, _): &&(&str, &[&str], &str)| {
        let said =
            spec.pointer(place).map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned));
        said.is_some_and(|said| !matches!(&*said, "" | "null" | "[]" | "{}") && !nothing.contains(&&*said))
    };
    match rows.iter().find(asks) {
        Some((_, _, what)) => Err(unsupported(what)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_has_nothing_behind_it_is_refused_and_what_is_so_anyway_is_not() {
        for (spec, refused) in [
            (json!({}), None),
            (json!({"CpuOptions": {}, "KernelId": "", "Ipv6AddressCount": 0}), None),
            (
                json!({"CpuOptions": {"CoreCount": 1}}),
                Some(
                    "Ekso has no choice of cores and threads (CpuOptions): an instance has the processors of its type.",
                ),
            ),
            (json!({"Placement": {"GroupName": "x"}}), Some("Ekso has no placement groups.")),
            (json!({"EbsOptimized": true, "Monitoring": {"Enabled": false}}), None),
            (
                json!({"Monitoring": {"Enabled": true}}),
                Some("Ekso has no CloudWatch, and no detailed monitoring (Monitoring)."),
            ),
            (json!({"PrivateDnsNameOptions": {"HostnameType": "ip-name"}}), None),
            (
                json!({"PrivateDnsNameOptions": {"HostnameType": "resource-name"}}),
                Some("Ekso has no names by the instance's id."),
            ),
            (
                json!({"BlockDeviceMappings": [{"DeviceName": ROOT_DEVICE, "Ebs": {"VolumeSize": 80, "VolumeType": "gp3", "DeleteOnTermination": true}}]}),
                None,
            ),
            (
                json!({"BlockDeviceMappings": [{"DeviceName": ROOT_DEVICE, "Ebs": {"Encrypted": true}}]}),
                Some("Ekso has no encryption of volumes."),
            ),
            (
                json!({"BlockDeviceMappings": [{"DeviceName": "/dev/sdf", "Ebs": {"VolumeSize": 8}}]}),
                Some("Ekso has no volumes besides the root's (/dev/xvda)."),
            ),
            (json!({"NetworkInterfaces": [{"DeviceIndex": 0, "InterfaceType": "interface"}]}), None),
            (
                json!({"NetworkInterfaces": [{"InterfaceType": "efa"}]}),
                Some("Ekso has no interfaces of that kind."),
            ),
        ] {
            let told = check(&spec).err().map(|fault| fault.message);
            assert_eq!(told.as_deref(), refused, "{spec}");
        }
    }
}
