//! Local "EC2": a machine is a network namespace, a cgroup and an ekso node process.
//!
//! A [`Site`] is everything that one data folder has on this host, and carries its id on each piece:
//!
//! ```text
//!  host ── ek-<id> ═══ uplink ── edge ── v… ═══ uplink ── router of a VPC ── m… ═══ eth0 ── machine ── pods
//!          198.18.x.1  198.18.x.2                         172.31.0.1                172.31.0.10
//! ```
//!
//! The host has a route to the site's pool (198.18.x.0/24) and to nothing behind it. A VPC's router maps public
//! addresses to its machines' private ones, so that VPCs may have the same ranges: see `vpc`.
//! A machine outlives the process that started it: [`Site::machines`] finds it again.
//!
//! Everything blocks; callers in async code use a blocking thread.
//! Must not know: Kubernetes objects, the API.

mod cgroup;
pub mod doctor;
mod edge;
mod error;
mod host;
pub mod init;
mod machine;
mod packet;
mod pool;
mod process;
mod root;
mod site;
mod site_devices;
mod vpc;

pub use cgroup::Limits;
pub use error::{Error, Result};
pub use host::resolvers;
pub use machine::{Bind, Link, Machine, MachineSpec, Running};
pub use netlink::netns::{self, NetNs};
pub use plan::net::Cidr;
pub use pool::Pool;
pub use site::{Addresses, Site};
pub use vpc::{
    AWS_DOOR, AWS_DOOR_PORTS, Interface, METADATA, NatGateway, POD_IDENTITY, Peer, Place, Route, RouteTable,
    Rule, SecurityGroup, Subnet, Target, Traffic, Vpc, VpcConfig, gateway,
};
