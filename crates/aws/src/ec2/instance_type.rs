//! Instance types: what they have. <https://docs.aws.amazon.com/ec2/latest/instancetypes/>

use serde_json::{Value, json};

use super::noun::{Filters, invalid, texts};
use super::place;
use crate::{Answer, Context, Fault};

/// An instance type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceType {
    /// `m5.large`
    pub name: String,
    pub cpus: u32,
    pub memory_mib: u32,
    /// Network interfaces, and addresses of each.
    pub interfaces: u16,
    pub addresses: u16,
    pub is_arm: bool,
    pub is_burstable: bool,
}

impl InstanceType {
    /// How many pods a node has: each interface keeps one address, and two pods need none.
    /// <https://github.com/awslabs/amazon-eks-ami> eni-max-pods
    pub fn max_pods(&self) -> u32 {
        u32::from(self.interfaces) * (u32::from(self.addresses) - 1) + 2
    }

    /// The same where what each interface has besides its own address are prefixes.
    pub fn max_pods_of_prefixes(&self) -> u32 {
        u32::from(self.interfaces) * (u32::from(self.addresses) - 1) * PREFIX_ADDRESSES + 2
    }

    pub fn architecture(&self) -> &'static str {
        if self.is_arm { "arm64" } else { "x86_64" }
    }
}

/// A delegated prefix is a /28.
const PREFIX_ADDRESSES: u32 = 16;

/// What a size of an instance family has: CPUs, interfaces, addresses of each.
type Size = (&'static str, u32, u16, u16);

/// The sizes that all of today's families share.
const SIZES: &[Size] = &[
    ("large", 2, 3, 10),
    ("xlarge", 4, 4, 15),
    ("2xlarge", 8, 4, 15),
    ("4xlarge", 16, 8, 30),
    ("8xlarge", 32, 8, 30),
    ("12xlarge", 48, 8, 30),
    ("16xlarge", 64, 15, 50),
    ("24xlarge", 96, 15, 50),
    ("32xlarge", 128, 15, 50),
    ("48xlarge", 192, 15, 50),
];
/// Those that c5 has instead of 8xlarge and 16xlarge.
const C5_SIZES: &[Size] = &[
    ("large", 2, 3, 10),
    ("xlarge", 4, 4, 15),
    ("2xlarge", 8, 4, 15),
    ("4xlarge", 16, 8, 30),
    ("9xlarge", 36, 8, 30),
    ("12xlarge", 48, 8, 30),
    ("18xlarge", 72, 15, 50),
    ("24xlarge", 96, 15, 50),
];

struct Family {
    name: &'static str,
    memory_mib_per_cpu: u32,
    sizes: &'static [Size],
    /// The most CPUs that a size of it has.
    most_cpus: u32,
    is_arm: bool,
}

impl Family {
    /// Whether it has the size of so many CPUs. Those that go up to 48xlarge have no 32xlarge.
    fn has(&self, cpus: u32) -> bool {
        cpus <= self.most_cpus && (self.most_cpus, cpus) != (192, 128)
    }
}

const fn family(name: &'static str, gib_per_cpu: u32, most_cpus: u32, is_arm: bool) -> Family {
    Family { name, memory_mib_per_cpu: gib_per_cpu * 1024, sizes: SIZES, most_cpus, is_arm }
}

const FAMILIES: &[Family] = &[
    Family { name: "c5", memory_mib_per_cpu: 2048, sizes: C5_SIZES, most_cpus: 96, is_arm: false },
    family("c6g", 2, 64, true),
    family("c6i", 2, 128, false),
    family("c7g", 2, 64, true),
    family("c7i", 2, 192, false),
    family("m5", 4, 96, false),
    family("m6g", 4, 64, true),
    family("m6i", 4, 128, false),
    family("m7g", 4, 64, true),
    family("m7i", 4, 192, false),
    family("r5", 8, 96, false),
    family("r6g", 8, 64, true),
    family("r6i", 8, 128, false),
    family("r7g", 8, 64, true),
    family("r7i", 8, 192, false),
];

/// Size, CPUs, memory, interfaces, addresses of each: those of t3, t3a and t4g, but for t3a.small.
const BURSTABLE: &[(&str, u32, u32, u16, u16)] = &[
    ("nano", 2, 512, 2, 2),
    ("micro", 2, 1024, 2, 2),
    ("small", 2, 2048, 3, 4),
    ("medium", 2, 4096, 3, 6),
    ("large", 2, 8192, 3, 12),
    ("xlarge", 4, 16_384, 4, 15),
    ("2xlarge", 8, 32_768, 4, 15),
];

/// Every instance type, in the order of the tables.
pub fn all() -> impl Iterator<Item = InstanceType> {
    let usual = FAMILIES.iter().flat_map(|family| {
        let sizes = family.sizes.iter().filter(|(_, cpus, ..)| family.has(*cpus));
        sizes.map(|(size, cpus, interfaces, addresses)| InstanceType {
            name: format!("{}.{size}", family.name),
            cpus: *cpus,
            memory_mib: cpus * family.memory_mib_per_cpu,
            interfaces: *interfaces,
            addresses: *addresses,
            is_arm: family.is_arm,
            is_burstable: false,
        })
    });
    let burstable = ["t3", "t3a", "t4g"].into_iter().flat_map(|family| {
        BURSTABLE.iter().map(move |(size, cpus, memory_mib, interfaces, addresses)| InstanceType {
            name: format!("{family}.{size}"),
            cpus: *cpus,
            memory_mib: *memory_mib,
            interfaces: if (family, *size) == ("t3a", "small") { 2 } else { *interfaces },
            addresses: *addresses,
            is_arm: family == "t4g",
            is_burstable: true,
        })
    });
    usual.chain(burstable)
}

pub fn find(name: &str) -> Option<InstanceType> {
    all().find(|kind| kind.name == name)
}

/// The type that an input names.
pub fn asked(name: &str) -> Result<InstanceType, Fault> {
    find(name).ok_or_else(|| invalid(format!("Invalid value '{name}' for InstanceType.")))
}

pub fn describe(_: &mut Context, input: &Value) -> Result<Answer, Fault> {
    const FILTERS: &[(&str, &str)] = &[
        ("bare-metal", "BareMetal"),
        ("burstable-performance-supported", "BurstablePerformanceSupported"),
        ("current-generation", "CurrentGeneration"),
        ("instance-type", "InstanceType"),
        ("memory-info.size-in-mib", "MemoryInfo.SizeInMiB"),
        ("network-info.ipv4-addresses-per-interface", "NetworkInfo.Ipv4AddressesPerInterface"),
        ("network-info.maximum-network-interfaces", "NetworkInfo.MaximumNetworkInterfaces"),
        ("processor-info.supported-architecture", "ProcessorInfo.SupportedArchitectures"),
        ("supported-usage-class", "SupportedUsageClasses"),
        ("supported-virtualization-type", "SupportedVirtualizationTypes"),
        ("vcpu-info.default-vcpus", "VCpuInfo.DefaultVCpus"),
    ];
    let names = texts(input, "InstanceTypes");
    let unknown: Vec<&str> = names.iter().copied().filter(|name| find(name).is_none()).collect();
    if !unknown.is_empty() {
        let message = format!("The following supplied instance types do not exist: [{}]", unknown.join(", "));
        return Err(Fault::new("InvalidInstanceType", message));
    }
    let filters = Filters::of(input, FILTERS)?;
    let wanted = all().filter(|kind| names.is_empty() || names.contains(&kind.name.as_str()));
    let shown: Vec<Value> = wanted.map(|kind| show(&kind)).filter(|item| filters.admit(item)).collect();
    Ok(Answer::read(json!({"InstanceTypes": shown})))
}

fn show(kind: &InstanceType) -> Value {
    json!({
        "InstanceType": kind.name, "CurrentGeneration": true, "FreeTierEligible": false,
        "SupportedUsageClasses": ["on-demand", "spot"], "SupportedRootDeviceTypes": ["ebs"],
        "SupportedVirtualizationTypes": ["hvm"], "BareMetal": false, "Hypervisor": "nitro",
        "ProcessorInfo": {"SupportedArchitectures": [kind.architecture()]},
        "VCpuInfo": {"DefaultVCpus": kind.cpus},
        "MemoryInfo": {"SizeInMiB": kind.memory_mib}, "InstanceStorageSupported": false,
        "NetworkInfo": {
            "MaximumNetworkInterfaces": kind.interfaces, "MaximumNetworkCards": 1, "DefaultNetworkCardIndex": 0,
            "NetworkCards": [{"NetworkCardIndex": 0, "MaximumNetworkInterfaces": kind.interfaces}],
            "Ipv4AddressesPerInterface": kind.addresses, "Ipv6AddressesPerInterface": kind.addresses,
            "Ipv6Supported": true, "EnaSupport": "required", "EfaSupported": false,
        },
        "BurstablePerformanceSupported": kind.is_burstable,
    })
}

/// Every type is offered in every zone.
pub fn offerings(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    const FILTERS: &[(&str, &str)] = &[("instance-type", "InstanceType"), ("location", "Location")];
    let filters = Filters::of(input, FILTERS)?;
    let kind = input["LocationType"].as_str().unwrap_or("region");
    let locations: Vec<String> = match kind {
        "region" => vec![context.region.to_owned()],
        "availability-zone" => place::zones(context.region).to_vec(),
        "availability-zone-id" => {
            place::zones(context.region).iter().map(|zone| place::zone_id(context.region, zone)).collect()
        }
        _ => Vec::new(),
    };
    let offered = locations.iter().flat_map(|location| {
        all().map(move |one| json!({"InstanceType": one.name, "LocationType": kind, "Location": location}))
    });
    let offered: Vec<Value> = offered.filter(|item| filters.admit(item)).collect();
    Ok(Answer::read(json!({"InstanceTypeOfferings": offered})))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_as_the_nodes_of_eks_have_them() {
        for (name, pods) in [
            ("t3.micro", 4),
            ("t3.small", 11),
            ("t3.medium", 17),
            ("t3.large", 35),
            ("m5.large", 29),
            ("m5.xlarge", 58),
            ("c5.large", 29),
            ("m5.24xlarge", 737),
        ] {
            assert_eq!(find(name).map(|kind| kind.max_pods()), Some(pods), "{name}");
        }
        assert_eq!(find("r5.4xlarge").map(|kind| (kind.cpus, kind.memory_mib)), Some((16, 131_072)));
        for name in ["m5.32xlarge", "m7i.32xlarge", "c6g.24xlarge"] {
            assert_eq!(find(name), None);
        }
        assert!(find("m6i.32xlarge").is_some() && find("m7i.48xlarge").is_some());
    }

    #[test]
    fn no_type_is_there_twice() {
        let names: Vec<String> = all().map(|kind| kind.name).collect();
        let unique: std::collections::BTreeSet<&String> = names.iter().collect();
        assert_eq!(unique.len(), names.len());
    }
}
