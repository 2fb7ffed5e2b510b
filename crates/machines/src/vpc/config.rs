//! What a VPC should be, as data. Whoever owns the account's objects writes it; the router is made to match.

use std::net::Ipv4Addr;

use plan::net::Cidr;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// A VPC. Only its machines and its router know its ranges, so those of two VPCs, or of the host's networks, may be
/// the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VpcConfig {
    /// `vpc-0123456789abcdef0`: at most 32 lower-case letters, digits and dashes.
    pub id: String,
    pub cidrs: Vec<Cidr>,
    pub subnets: Vec<Subnet>,
    pub route_tables: Vec<RouteTable>,
    pub nat_gateways: Vec<NatGateway>,
    pub groups: Vec<SecurityGroup>,
    pub interfaces: Vec<Interface>,
}

/// A range of the VPC in one zone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    pub id: String,
    /// `us-east-1a`
    pub zone: String,
    pub cidr: Cidr,
    /// Id of the table that says where what leaves the VPC goes.
    pub route_table: String,
}

/// The first address of a subnet after its network's is the router's.
pub fn gateway(subnet: Cidr) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(subnet.address()).saturating_add(1))
}

/// Routes out of the VPC. The one within it is always there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteTable {
    pub id: String,
    /// The longest prefix wins; what none matches goes nowhere.
    pub routes: Vec<Route>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    pub destination: Cidr,
    pub target: Target,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Target {
    /// For what has a public address, in both directions.
    InternetGateway,
    /// By id; outward only.
    NatGateway(String),
    Blackhole,
}

/// Sends what comes from private subnets on under its own public address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NatGateway {
    pub id: String,
    /// The subnet that it is in, which must have a way out itself.
    pub subnet: String,
    /// In that subnet.
    pub address: Ipv4Addr,
    /// Of the site's pool.
    pub public: Ipv4Addr,
}

/// Stateful rules: what is allowed in one direction is answered in the other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecurityGroup {
    pub id: String,
    pub ingress: Vec<Rule>,
    pub egress: Vec<Rule>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    pub traffic: Traffic,
    pub peer: Peer,
}

impl Rule {
    /// Everything from or to `peer`.
    pub fn all(peer: Peer) -> Self {
        Self { traffic: Traffic::All, peer }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Traffic {
    All,
    /// First and last destination port.
    Tcp(u16, u16),
    Udp(u16, u16),
    /// Type and code; none is any.
    Icmp(Option<u8>, Option<u8>),
    /// Another protocol, by its number in the IP header.
    Protocol(u8),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Peer {
    Range(Cidr),
    /// The private addresses of a group's interfaces, by the group's id.
    Group(String),
}

/// Addresses of a subnet, and the groups that guard them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// `eni-0123456789abcdef0`, or any word that is unique in the VPC.
    pub id: String,
    pub subnet: String,
    /// The primary private address.
    pub address: Ipv4Addr,
    #[serde(default)]
    pub secondary: Vec<Ipv4Addr>,
    /// Delegated prefixes of the subnet: addresses of pods.
    #[serde(default)]
    pub ranges: Vec<Cidr>,
    /// Of the site's pool, mapped 1:1 to the primary address.
    #[serde(default)]
    pub public: Option<Ipv4Addr>,
    /// Ids; what none of them allows is refused.
    pub groups: Vec<String>,
    pub place: Place,
    /// Whether the instance metadata answers it.
    #[serde(default)]
    pub metadata: bool,
}

/// Where an interface's packets go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Place {
    /// The machine whose [`crate::Link`] has the same primary address.
    Machine,
    /// The machine whose primary address this is: a further interface of it.
    Behind(Ipv4Addr),
    /// The router itself: what the server listens on in the VPC.
    Router,
}

impl Interface {
    /// Every range of private addresses that it has, the primary one first.
    pub fn private(&self) -> impl Iterator<Item = Cidr> + '_ {
        let addresses = std::iter::once(&self.address).chain(&self.secondary).map(|one| Cidr::from(*one));
        addresses.chain(self.ranges.iter().copied())
    }
}

/// How many addresses of a subnet nobody gets: the network's, the router's, the resolver's and one more; the last one
/// is the broadcast's. <https://docs.aws.amazon.com/vpc/latest/userguide/subnet-sizing.html>
const RESERVED: u32 = 4;
/// The first address that is given to machines, so that small numbers stay for what is placed by hand.
const FIRST_GIVEN: u32 = 10;

impl VpcConfig {
    pub fn subnet(&self, id: &str) -> Option<&Subnet> {
        self.subnets.iter().find(|subnet| subnet.id == id)
    }

    pub fn interface(&self, id: &str) -> Option<&Interface> {
        self.interfaces.iter().find(|interface| interface.id == id)
    }

    /// The interface that an address belongs to: as primary, secondary or part of a range.
    pub fn interface_at(&self, address: Ipv4Addr) -> Option<&Interface> {
        self.interfaces.iter().find(|one| one.private().any(|range| range.contains(address)))
    }

    /// Every public address that leads here.
    pub fn public_addresses(&self) -> impl Iterator<Item = Ipv4Addr> + '_ {
        let interfaces = self.interfaces.iter().filter_map(|interface| interface.public);
        interfaces.chain(self.nat_gateways.iter().map(|gateway| gateway.public))
    }

    fn taken(&self) -> Vec<Cidr> {
        let gateways = self.nat_gateways.iter().map(|gateway| Cidr::from(gateway.address));
        self.interfaces.iter().flat_map(Interface::private).chain(gateways).collect()
    }

    /// The lowest free address of a subnet, from its tenth on.
    pub fn free_address(&self, subnet: Cidr) -> Option<Ipv4Addr> {
        let taken = self.taken();
        let (network, last) = (u32::from(subnet.address()), u32::from(subnet.last()));
        let first = if last - network > FIRST_GIVEN { network + FIRST_GIVEN } else { network + RESERVED };
        let is_free = |address: &Ipv4Addr| !taken.iter().any(|range| range.contains(*address));
        (first..last).map(Ipv4Addr::from).find(is_free)
    }

    /// The first free block of a subnet, `1 << (32 - prefix)` addresses at a multiple of as many.
    pub fn free_range(&self, subnet: Cidr, prefix: u8) -> Option<Cidr> {
        let taken = self.taken();
        let blocks = 1u32.checked_shl(u32::from(prefix.checked_sub(subnet.prefix())?))?;
        let size = 1u32.checked_shl(32 - u32::from(prefix))?;
        // The first block has the addresses of machines, the last the broadcast's and those from the end.
        (1..blocks.saturating_sub(1))
            .map(|block| Cidr::new(Ipv4Addr::from(u32::from(subnet.address()) + block * size), prefix))
            .find(|block| !taken.iter().any(|range| range.overlaps(*block)))
    }

    /// Refuses what the router could not be made of.
    pub(crate) fn check(&self) -> Result<()> {
        let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if !(1..=32).contains(&self.id.len()) || !self.id.bytes().all(fits) {
            let why = "it must be 1 to 32 lower-case letters, digits and dashes";
            return Err(Error::Name { what: "VPC", name: self.id.clone(), why });
        }
        let wrong = |what: String| Err(Error::Vpc { id: self.id.clone(), what });
        for subnet in &self.subnets {
            if !self.route_tables.iter().any(|table| table.id == subnet.route_table) {
                return wrong(format!("subnet {} has no route table {}", subnet.id, subnet.route_table));
            }
        }
        let mut seen: Vec<(Cidr, &str)> = Vec::new();
        for interface in &self.interfaces {
            let Some(subnet) = self.subnet(&interface.subnet) else {
                return wrong(format!("interface {} has no subnet {}", interface.id, interface.subnet));
            };
            for range in interface.private() {
                if !subnet.cidr.contains(range.address()) || range.prefix() < subnet.cidr.prefix() {
                    return wrong(format!("{range} of {} is outside {}", interface.id, subnet.cidr));
                }
                if let Some((_, other)) = seen.iter().find(|(taken, _)| taken.overlaps(range)) {
                    return wrong(format!("interfaces {other} and {} both have {range}", interface.id));
                }
                seen.push((range, &interface.id));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub fn interface(id: &str, address: [u8; 4]) -> Interface {
        Interface {
            id: id.into(),
            subnet: "subnet-a".into(),
            address: address.into(),
            secondary: Vec::new(),
            ranges: Vec::new(),
            public: None,
            groups: Vec::new(),
            place: Place::Machine,
            metadata: true,
        }
    }

    fn vpc(interfaces: Vec<Interface>) -> VpcConfig {
        VpcConfig {
            id: "vpc-1".into(),
            cidrs: vec!["10.0.0.0/16".parse().unwrap()],
            subnets: vec![Subnet {
                id: "subnet-a".into(),
                zone: "us-east-1a".into(),
                cidr: "10.0.0.0/24".parse().unwrap(),
                route_table: "rtb-1".into(),
            }],
            route_tables: vec![RouteTable { id: "rtb-1".into(), routes: Vec::new() }],
            nat_gateways: Vec::new(),
            groups: Vec::new(),
            interfaces,
        }
    }

    #[test]
    fn addresses_and_ranges_are_given_once() {
        let subnet = "10.0.0.0/24".parse().unwrap();
        let mut config = vpc(vec![interface("a", [10, 0, 0, 10])]);
        assert_eq!(config.free_address(subnet), Some([10, 0, 0, 11].into()));
        assert_eq!(config.free_range(subnet, 28), Some("10.0.0.16/28".parse().unwrap()));
        config.interfaces[0].ranges = vec!["10.0.0.16/28".parse().unwrap()];
        config.interfaces[0].secondary = (11..16).map(|last| [10, 0, 0, last].into()).collect();
        assert_eq!(config.free_address(subnet), Some([10, 0, 0, 32].into()));
        assert_eq!(config.free_range(subnet, 28), Some("10.0.0.32/28".parse().unwrap()));
        assert_eq!(config.free_range(subnet, 24), None);
        assert_eq!(config.free_range(subnet, 20), None);
        config.check().unwrap();
        let tiny = "10.0.0.240/29".parse().unwrap();
        assert_eq!(config.free_address(tiny), Some([10, 0, 0, 244].into()));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let check = |change: fn(&mut VpcConfig), expected: &str| {
            let mut config = vpc(vec![interface("a", [10, 0, 0, 10]), interface("b", [10, 0, 0, 11])]);
            config.check().unwrap();
            change(&mut config);
            let error = config.check().unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check(|c| c.id = "../x".into(), "letters, digits and dashes");
        check(|c| c.subnets[0].route_table = "rtb-2".into(), "no route table rtb-2");
        check(|c| c.interfaces[0].subnet = "subnet-b".into(), "no subnet subnet-b");
        check(|c| c.interfaces[0].address = [10, 0, 1, 1].into(), "outside 10.0.0.0/24");
        check(|c| c.interfaces[1].address = [10, 0, 0, 10].into(), "both have");
        check(|c| c.interfaces[1].ranges = vec!["10.0.0.0/28".parse().unwrap()], "both have");
    }
}
