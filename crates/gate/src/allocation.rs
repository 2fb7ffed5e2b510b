//! The ranges that Services draw their addresses and ports from.

use std::net::Ipv4Addr;

use kinds::SERVICE_CIDRS;
use object::Snapshot;
use schema::path;

/// Addresses of Services: a network and its prefix length, e.g. 10.100.0.0/16.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceRange {
    pub network: Ipv4Addr,
    pub prefix: u8,
}

impl ServiceRange {
    /// How many addresses can be given out: all but the network's own and the last.
    pub(crate) fn size(self) -> u64 {
        let all = 1_u64 << (32 - u32::from(self.prefix.min(32)));
        all.saturating_sub(2)
    }

    /// The address at an offset; zero is the first that can be given out.
    pub(crate) fn at(self, offset: u64) -> Ipv4Addr {
        let base = u32::from(self.network) & mask(self.prefix);
        Ipv4Addr::from(base.wrapping_add(1).wrapping_add(offset as u32))
    }

    pub(crate) fn contains(self, address: Ipv4Addr) -> bool {
        let base = u32::from(self.network) & mask(self.prefix);
        let offset = u64::from(u32::from(address).wrapping_sub(base));
        offset >= 1 && offset <= self.size()
    }

    /// Where dynamic allocation begins; addresses below are left for those who choose theirs (KEP-3070).
    pub(crate) fn dynamic_from(self) -> u64 {
        let size = self.size();
        (size / 16).clamp(16, 256).min(size / 2)
    }
}

impl std::fmt::Display for ServiceRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

fn mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0)
}

impl std::str::FromStr for ServiceRange {
    type Err = ();

    /// `10.0.0.0/16`; of IPv4 only.
    fn from_str(text: &str) -> Result<Self, ()> {
        let (network, prefix) = text.split_once('/').ok_or(())?;
        let (network, prefix) = (network.parse().map_err(drop)?, prefix.parse().map_err(drop)?);
        if prefix > 32 { Err(()) } else { Ok(Self { network, prefix }) }
    }
}

/// The range that a server is started with, under the name of the ServiceCIDR that says so.
const FIRST: &str = "kubernetes";

/// The ranges that addresses are given out of: of every ServiceCIDR that is ready. As long as the first one is not published, the one that
/// the server was started with.
pub(crate) fn ranges(snapshot: &Snapshot, first: ServiceRange) -> Vec<ServiceRange> {
    let is_published = snapshot.find(SERVICE_CIDRS, "", FIRST).is_some();
    let mut all: Vec<ServiceRange> = if is_published { Vec::new() } else { vec![first] };
    for object in snapshot.list(SERVICE_CIDRS, "").filter(|object| !object.meta.is_deleting()) {
        let Ok(value) = object.to_value() else { continue };
        // One of which nothing is said yet is ready, as upstream.
        let mut conditions = path::list(&value, "status.conditions").iter();
        let ready = conditions.find(|one| path::text(one, "type") == "Ready");
        if ready.is_some_and(|ready| path::text(ready, "status") != "True") {
            continue;
        }
        let texts = path::list(&value, "spec.cidrs").iter().filter_map(serde_json::Value::as_str);
        let own: Vec<ServiceRange> = texts.filter_map(|text| text.parse().ok()).collect();
        // The first is used up before others are drawn from.
        let at = if *object.key.name == *FIRST { 0 } else { all.len() };
        all.splice(at..at, own);
    }
    all
}

/// What Services may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceRanges {
    pub addresses: ServiceRange,
    /// First and last node port.
    pub node_ports: (u16, u16),
}

impl Default for ServiceRanges {
    fn default() -> Self {
        let addresses = ServiceRange { network: Ipv4Addr::new(10, 100, 0, 0), prefix: 16 };
        Self { addresses, node_ports: (30000, 32767) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_gives_out_all_but_its_ends() {
        let range = ServiceRange { network: Ipv4Addr::new(10, 0, 0, 9), prefix: 29 };
        assert_eq!(
            (range.size(), range.at(0), range.at(5)),
            (6, Ipv4Addr::new(10, 0, 0, 9), Ipv4Addr::new(10, 0, 0, 14))
        );
        for (address, inside) in
            [([10, 0, 0, 8], false), ([10, 0, 0, 9], true), ([10, 0, 0, 14], true), ([10, 0, 0, 15], false)]
        {
            assert_eq!(range.contains(address.into()), inside, "{address:?}");
        }
    }
}
