//! What the network of a node should be: service rules, links of pods, routes, DNS answers. IPv4.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A range of addresses. In JSON a string: `"10.0.0.0/8"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cidr {
    /// The first address: the bits after the prefix are zero.
    address: Ipv4Addr,
    prefix: u8,
}

impl Cidr {
    /// The range of that length around `address`; lengths over 32 count as 32.
    pub const fn new(address: Ipv4Addr, prefix: u8) -> Self {
        let prefix = if prefix > 32 { 32 } else { prefix };
        Self { address: Ipv4Addr::from_bits(address.to_bits() & Self::mask(prefix)), prefix }
    }

    pub fn address(self) -> Ipv4Addr {
        self.address
    }

    pub fn prefix(self) -> u8 {
        self.prefix
    }

    pub fn contains(self, address: Ipv4Addr) -> bool {
        u32::from(address) & Self::mask(self.prefix) == u32::from(self.address)
    }

    /// Whether some address is in both.
    pub fn overlaps(self, other: Self) -> bool {
        self.contains(other.address) || other.contains(self.address)
    }

    /// The last address.
    pub fn last(self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.address) | !Self::mask(self.prefix))
    }

    const fn mask(prefix: u8) -> u32 {
        if prefix == 0 { 0 } else { u32::MAX << (32 - prefix) }
    }
}

impl From<Ipv4Addr> for Cidr {
    fn from(address: Ipv4Addr) -> Self {
        Self { address, prefix: 32 }
    }
}

impl TryFrom<String> for Cidr {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Cidr> for String {
    fn from(cidr: Cidr) -> Self {
        cidr.to_string()
    }
}

impl FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fail = || format!("{text:?} is not an IPv4 range such as 10.0.0.0/8");
        let (address, prefix) = text.split_once('/').ok_or_else(fail)?;
        let prefix = prefix.parse().ok().filter(|prefix| *prefix <= 32).ok_or_else(fail)?;
        Ok(Self::new(address.parse().map_err(|_| fail())?, prefix))
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    /// As in Services; anything else is none.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "TCP" => Some(Self::Tcp),
            "UDP" => Some(Self::Udp),
            "SCTP" => Some(Self::Sctp),
            _ => None,
        }
    }

    /// The number in the IP header.
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    /// `tcp`, as in DNS labels and chain names.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

/// Which port of which Service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServicePortName {
    pub namespace: String,
    pub service: String,
    /// The port's name; empty if the Service has one port without a name.
    pub port: String,
    pub protocol: Protocol,
}

impl fmt::Display for ServicePortName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}/{}", self.namespace, self.service, self.protocol.as_str(), self.port)
    }
}

/// Where connections go.
pub type Endpoint = (Ipv4Addr, u16);

/// One port of a Service, as the proxy of one node treats it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    pub name: ServicePortName,
    /// The port at the addresses below.
    pub port: u16,
    pub cluster_ips: Vec<Ipv4Addr>,
    /// externalIPs and addresses of the load balancer.
    pub external_ips: Vec<Ipv4Addr>,
    /// At every address of the node.
    pub node_port: Option<u16>,
    /// Who may use the addresses of the load balancer; empty for everybody.
    pub source_ranges: Vec<Cidr>,
    /// Those of `external_ips` that `source_ranges` guards.
    pub load_balancer_ips: Vec<Ipv4Addr>,
    /// In the whole cluster, in order, without doubles.
    pub endpoints: Vec<Endpoint>,
    /// On this node, in order. Not always part of `endpoints`: each list falls back to terminating ones by itself.
    pub local_endpoints: Vec<Endpoint>,
    /// ClientIP affinity, in seconds.
    pub affinity_seconds: Option<u32>,
    /// internalTrafficPolicy Local.
    pub internal_local: bool,
    /// externalTrafficPolicy Local.
    pub external_local: bool,
}

/// A port of the node that leads to a container of a pod on it (`hostPort`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPort {
    /// `hostIP`; none for every address of the node.
    pub address: Option<Ipv4Addr>,
    pub protocol: Protocol,
    pub port: u16,
    pub endpoint: Endpoint,
}

/// Everything that the service proxy of a node should do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ruleset {
    /// In order of their names.
    pub services: Vec<ServicePort>,
    /// Of this node's pods.
    pub host_ports: Vec<HostPort>,
    /// Of all pods: connections to cluster IPs from elsewhere are masqueraded, so that answers come back.
    pub pod_cidrs: Vec<Cidr>,
    /// The pods of this node: what they send out of the cluster is masqueraded.
    pub masquerade_from: Vec<Cidr>,
    /// The cluster: pods keep their address towards these.
    pub masquerade_except: Vec<Cidr>,
}

/// The link between a pod's network namespace and its node's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodLink {
    pub ip: Ipv4Addr,
    /// The node's end; the pod's is `eth0`. At most 15 bytes.
    pub host_link: String,
    /// `/proc/<pid>/ns/net` or a pin.
    pub netns: PathBuf,
}

impl PodLink {
    /// A name for the node's end, in the form that the AWS VPC CNI uses: `eni` and eleven hexadecimal digits.
    pub fn host_link_of(pod_uid: &str) -> String {
        // FNV-1a: short, stable, and nobody gains from a collision among their own pods.
        let hash = pod_uid.bytes().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
        });
        format!("eni{:011x}", hash >> 20)
    }
}

/// Another node's pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    pub destination: Cidr,
    /// The node's address.
    pub via: Ipv4Addr,
}

/// A DNS resource record of class IN. Names are lower-case, absolute, without the dot at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub name: String,
    pub ttl_seconds: u32,
    pub data: RecordData,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordData {
    A(Ipv4Addr),
    Aaaa(Ipv6Addr),
    Cname(String),
    Ns(String),
    Ptr(String),
    Soa { primary: String, contact: String, serial: u32 },
    Srv { priority: u16, weight: u16, port: u16, target: String },
    Txt(String),
}

/// What a name server that knows the cluster says to a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The records asked for; `additional` spares the next question.
    Found { records: Vec<Record>, additional: Vec<Record> },
    /// The name exists, but has nothing of the type asked for. With the zone's SOA.
    NoData(Record),
    /// The name does not exist (NXDOMAIN). With the zone's SOA.
    NoName(Record),
    /// The question is not about the cluster: others know.
    Elsewhere,
    /// The question leads out of the cluster: an ExternalName Service's records, and the name to ask others for.
    Onwards { records: Vec<Record>, name: String },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        let range: Cidr = "10.1.2.3/16".parse().unwrap();
        assert_eq!(range.to_string(), "10.1.0.0/16");
        assert!(range.contains(Ipv4Addr::new(10, 1, 255, 255)));
        assert!(!range.contains(Ipv4Addr::new(10, 2, 0, 0)));
        assert!("0.0.0.0/0".parse::<Cidr>().unwrap().contains(Ipv4Addr::BROADCAST));
        for wrong in ["10.0.0.0", "10.0.0.0/33", "x/8", "10.0.0.0/", "fd00::/8"] {
            assert!(wrong.parse::<Cidr>().is_err(), "{wrong}");
        }
    }
}
