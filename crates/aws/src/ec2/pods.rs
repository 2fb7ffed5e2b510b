//! How many pods an instance takes as a node, and the range of their addresses.

use super::instance_type::InstanceType;

/// The most pods of a small and of a large node. <https://docs.aws.amazon.com/eks/latest/userguide/choosing-instance-type.html>
pub const OF_SMALL: u32 = 110;
const OF_LARGE: u32 = 250;
const LARGE_CPUS: u32 = 30;

/// How many pods a node of a type takes unless its user data says otherwise.
pub fn most(kind: &InstanceType) -> u32 {
    kind.max_pods().min(limit(kind))
}

/// How many it takes if each of its addresses were a prefix.
pub fn most_of_prefixes(kind: &InstanceType) -> u32 {
    kind.max_pods_of_prefixes().min(limit(kind))
}

fn limit(kind: &InstanceType) -> u32 {
    if kind.cpus > LARGE_CPUS { OF_LARGE } else { OF_SMALL }
}

/// The length of a range that has an address for each pod. The network's and the broadcast's are for none.
pub fn prefix(pods: u32) -> u8 {
    let bits = u8::try_from((pods.clamp(1, OF_LARGE) + 2).next_power_of_two().trailing_zeros()).unwrap_or(8);
    // Delegated prefixes have 16 addresses.
    32 - bits.max(4)
}
