//! Local "EC2": a machine is a network namespace, a cgroup and an ekso node process.
//!
//! A [`Site`] is everything that one data folder has on this host, and carries its id on each piece:
//!
//! ```text
//!  host ── ek-<id> ═══ uplink ── router namespace ── subnet0 (bridge) ═══ eth0 ── machine namespace ── pods
//!          198.18.x.1  198.18.x.2, public addresses   172.31.0.1/20                172.31.0.10
//! ```
//!
//! The host has a route to the site's pool (198.18.x.0/24) and to nothing behind it. The router owns the public
//! addresses and maps each 1:1 to a machine's private address.
//! A machine outlives the process that started it: [`Site::machines`] finds it again.
//!
//! Everything blocks; callers in async code use a blocking thread.
//! Must not know: Kubernetes objects, the API.

mod cgroup;
mod devices;
pub mod doctor;
mod error;
mod host;
pub mod init;
mod machine;
mod pool;
mod process;
mod root;
mod router;
mod site;

pub use cgroup::Limits;
pub use error::{Error, Result};
pub use host::resolvers;
pub use machine::{Bind, Machine, MachineSpec, Running};
pub use netlink::netns::{self, NetNs};
pub use pool::Pool;
pub use router::{Router, VpcConfig};
pub use site::{Addresses, Site};
