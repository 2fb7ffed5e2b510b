//! A VPC: a router namespace of its own, whose links are its machines' and one to the site's edge.
//!
//! A machine's link ends in the router itself, not in a bridge: the router answers for every neighbour's hardware
//! address, so that each packet between two machines is routed, and passes its rules. Nobody in a machine can change
//! those, nor send under an address that is not the machine's (the reverse path must be the link it came by).
//!
//! [`compile`] decides: from a [`VpcConfig`] to maps and chains, as data. [`router`] does.

mod compile;
mod config;
mod router;

pub use config::{
    Interface, NatGateway, Peer, Place, Route, RouteTable, Rule, SecurityGroup, Subnet, Target, Traffic,
    VpcConfig, gateway,
};
pub use router::Vpc;
pub(crate) use router::{TRANSIT_ROUTER, TRANSIT_VPC, UPLINK};

use std::net::{Ipv4Addr, SocketAddrV4};

/// Where the router answers instance metadata; who asks is known by the address.
pub const METADATA: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(169, 254, 169, 254), 80);
/// The door for AWS: what machines and pods send signed calls to. Amazon gives this address to Windows activation only,
/// of which there is none here.
pub const AWS_DOOR: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 250);
/// The ports of the door: plain, and TLS.
pub const AWS_DOOR_PORTS: [u16; 2] = [80, 443];
/// Where the router answers as the Pod Identity agent of EKS, which on EKS is a pod on each node at this address.
pub const POD_IDENTITY: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(169, 254, 170, 23), 80);
