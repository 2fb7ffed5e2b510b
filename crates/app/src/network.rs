//! The default VPC of a site, and the places of clusters and their machines in it.
//!
//! ```text
//! 172.31.0.0/16   three zones, each with a public /20 (from .0.0) and a private /20 (from .128.0)
//!   172.31.0.10…        machines, each with a /25 of the same subnet for its pods
//!   …172.31.15.254      the API of each cluster, from the end
//! ```
//!
//! A cluster has a security group: its API, machines and pods reach each other and nobody else's; the host reaches the
//! machines.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use machines::{
    Addresses, Cidr, Error, Interface, Link, NatGateway, Peer, Place, Route, RouteTable, Rule, SecurityGroup,
    Site, Subnet, Target, VpcConfig,
};

pub const DEFAULT_VPC: &str = "vpc-default";
const RANGE: Cidr = Cidr::new(Ipv4Addr::new(172, 31, 0, 0), 16);
const ANYWHERE: Cidr = Cidr::new(Ipv4Addr::UNSPECIFIED, 0);
const ZONES: [&str; 3] = ["us-east-1a", "us-east-1b", "us-east-1c"];
const PUBLIC_ROUTES: &str = "rtb-public";
const PRIVATE_ROUTES: &str = "rtb-private";
/// Room for the pods of a machine: upstream's 110, in a power of two.
const POD_PREFIX: u8 = 25;
/// Where the API listens, as on EKS.
const API_PORT: u16 = 443;

/// A machine's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    pub link: Link,
    pub public: Ipv4Addr,
    /// Addresses of its pods, which its router knows.
    pub pods: Cidr,
    /// Addresses that are reached without translation: those of the VPC.
    pub vpc: Vec<Cidr>,
}

/// The VPC that a site begins with. `nat` is the public address of what has none of its own.
fn default_vpc(nat: Ipv4Addr) -> VpcConfig {
    let subnet = |kind: &str, routes: &str, first: u8, index: u8| Subnet {
        id: format!("subnet-{kind}-{}", char::from(b'a' + index)),
        zone: ZONES[usize::from(index)].into(),
        cidr: Cidr::new(Ipv4Addr::new(172, 31, first + 16 * index, 0), 20),
        route_table: routes.into(),
    };
    let public = (0..3).map(|index| subnet("public", PUBLIC_ROUTES, 0, index));
    let private = (0..3).map(|index| subnet("private", PRIVATE_ROUTES, 128, index));
    let subnets: Vec<Subnet> = public.chain(private).collect();
    let nat_gateway = NatGateway {
        id: "nat-default".into(),
        subnet: subnets[0].id.clone(),
        address: Ipv4Addr::new(172, 31, 0, 9),
        public: nat,
    };
    let table = |id: &str, target: Target| RouteTable {
        id: id.into(),
        routes: vec![Route { destination: ANYWHERE, target }],
    };
    VpcConfig {
        id: DEFAULT_VPC.into(),
        cidrs: vec![RANGE],
        subnets,
        route_tables: vec![
            table(PUBLIC_ROUTES, Target::InternetGateway),
            table(PRIVATE_ROUTES, Target::NatGateway(nat_gateway.id.clone())),
        ],
        nat_gateways: vec![nat_gateway],
        groups: Vec::new(),
        interfaces: Vec::new(),
    }
}

fn change<T>(
    site: &Site,
    change: impl FnOnce(&mut VpcConfig, &Addresses) -> Result<T, Error>,
) -> Result<T, Error> {
    let addresses = site.public_addresses()?;
    let nat = addresses.free()?;
    site.change_vpc(DEFAULT_VPC, || default_vpc(nat), change)
}

fn group_id(cluster: &str) -> String {
    format!("sg-{cluster}")
}

fn endpoint_id(cluster: &str) -> String {
    format!("endpoint/{cluster}")
}

fn machine_id(cluster: &str, machine: &str) -> String {
    format!("machine/{cluster}/{machine}")
}

fn interface(id: String, subnet: &Subnet, address: Ipv4Addr, cluster: &str, place: Place) -> Interface {
    Interface {
        id,
        subnet: subnet.id.clone(),
        address,
        secondary: Vec::new(),
        ranges: Vec::new(),
        public: None,
        groups: vec![group_id(cluster)],
        place,
        metadata: false,
    }
}

fn full(subnets: &[Subnet]) -> Error {
    let ranges: Vec<String> = subnets.iter().map(|subnet| subnet.cidr.to_string()).collect();
    Error::NoFreeAddress(ranges.join(", "))
}

/// Gives a cluster its group and the address of its API, or finds them.
pub fn place_cluster(site: &Site, cluster: &str) -> Result<SocketAddr, Error> {
    change(site, |config, public| {
        let id = group_id(cluster);
        if !config.groups.iter().any(|group| group.id == id) {
            let own = Rule::all(Peer::Group(id.clone()));
            let host = Rule::all(Peer::Range(public.pool.host().into()));
            let egress = vec![Rule::all(Peer::Range(ANYWHERE))];
            config.groups.push(SecurityGroup { id, ingress: vec![own, host], egress });
        }
        let id = endpoint_id(cluster);
        let address = match config.interface(&id) {
            Some(known) => known.address,
            None => {
                let subnets = public_subnets(config);
                let free =
                    |subnet: &Subnet| Some((subnet.clone(), config.free_address_from_the_end(subnet.cidr)?));
                let (subnet, address) = subnets.iter().find_map(free).ok_or_else(|| full(&subnets))?;
                config.interfaces.push(interface(id, &subnet, address, cluster, Place::Router));
                address
            }
        };
        Ok(SocketAddr::new(IpAddr::V4(address), API_PORT))
    })
}

fn public_subnets(config: &VpcConfig) -> Vec<Subnet> {
    config.subnets.iter().filter(|subnet| subnet.route_table == PUBLIC_ROUTES).cloned().collect()
}

/// Gives a machine of a cluster its addresses, or finds them: in the zone of that letter, or in the first one that is not full.
pub fn place_machine(site: &Site, cluster: &str, machine: &str, zone: Option<char>) -> Result<Placed, Error> {
    change(site, |config, public| {
        let id = machine_id(cluster, machine);
        if config.interface(&id).is_none() {
            let mut subnets = public_subnets(config);
            subnets.retain(|subnet| zone.is_none_or(|letter| subnet.zone.ends_with(letter)));
            let free = |subnet: &Subnet| {
                let pods = config.free_range(subnet.cidr, POD_PREFIX)?;
                Some((subnet.clone(), config.free_address(subnet.cidr)?, pods))
            };
            let (subnet, address, pods) = subnets.iter().find_map(free).ok_or_else(|| full(&subnets))?;
            let mut new = interface(id.clone(), &subnet, address, cluster, Place::Machine);
            new.ranges = vec![pods];
            new.public = Some(public.free()?);
            config.interfaces.push(new);
        }
        let placed = config.interface(&id).and_then(|interface| {
            let subnet = config.subnet(&interface.subnet)?.cidr;
            Some(Placed {
                link: Link { vpc: config.id.clone(), address: interface.address, subnet },
                public: interface.public?,
                pods: *interface.ranges.first()?,
                vpc: config.cidrs.clone(),
            })
        });
        placed.ok_or_else(|| Error::Vpc { id: config.id.clone(), what: format!("{id} has no addresses") })
    })
}

/// Which machine of which cluster has an address, its own or of one of its pods.
pub fn holder(config: &VpcConfig, address: Ipv4Addr) -> Option<(&str, &str)> {
    let has_it = |one: &&Interface| one.private().any(|range| range.contains(address));
    config.interfaces.iter().find(has_it)?.id.strip_prefix("machine/")?.split_once('/')
}

/// Gives a machine's addresses back.
pub fn remove_machine(site: &Site, cluster: &str, machine: &str) -> Result<(), Error> {
    remove(site, |id| id == machine_id(cluster, machine), None)
}

/// Gives back what is left of a cluster.
pub fn remove_cluster(site: &Site, cluster: &str) -> Result<(), Error> {
    let machines = machine_id(cluster, "");
    remove(site, |id| id == endpoint_id(cluster) || id.starts_with(&machines), Some(group_id(cluster)))
}

fn remove(site: &Site, is_gone: impl Fn(&str) -> bool, group: Option<String>) -> Result<(), Error> {
    if site.vpc_config(DEFAULT_VPC)?.is_none() {
        return Ok(());
    }
    change(site, |config, _| {
        config.interfaces.retain(|interface| !is_gone(&interface.id));
        config.groups.retain(|known| Some(&known.id) != group.as_ref());
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_vpc_has_two_subnets_in_each_zone() {
        let config = default_vpc(Ipv4Addr::new(198, 18, 0, 10));
        assert_eq!(config.subnets.len(), 6);
        for (index, subnet) in config.subnets.iter().enumerate() {
            assert_eq!(subnet.zone, ZONES[index % 3]);
            assert!(RANGE.overlaps(subnet.cidr));
            let others = config.subnets.iter().filter(|other| other.id != subnet.id);
            assert_eq!(others.filter(|other| other.cidr.overlaps(subnet.cidr)).count(), 0);
        }
        assert_eq!(config.subnets[0].cidr.to_string(), "172.31.0.0/20");
        assert_eq!(config.free_address(config.subnets[0].cidr), Some(Ipv4Addr::new(172, 31, 0, 10)));
    }

    #[test]
    fn an_address_is_of_one_machine_of_one_cluster() {
        let mut config = default_vpc(Ipv4Addr::new(198, 18, 0, 10));
        let address = |last: [u8; 2]| Ipv4Addr::new(172, 31, last[0], last[1]);
        for (cluster, machine, last) in [("shop", "i-1", [0, 10]), ("bank", "bank-1", [0, 11])] {
            let id = machine_id(cluster, machine);
            let mut new = interface(id, &config.subnets[0], address(last), cluster, Place::Machine);
            new.ranges = vec![Cidr::new(address([last[1], 128]), POD_PREFIX)];
            config.interfaces.push(new);
        }
        let endpoint =
            interface(endpoint_id("shop"), &config.subnets[0], address([15, 254]), "shop", Place::Router);
        config.interfaces.push(endpoint);
        for (last, expected) in [
            ([0, 10], Some(("shop", "i-1"))),
            ([10, 130], Some(("shop", "i-1"))),
            ([11, 255], Some(("bank", "bank-1"))),
            ([10, 127], None),
            ([15, 254], None),
        ] {
            assert_eq!(holder(&config, address(last)), expected, "{last:?}");
        }
    }
}
