//! Applies rulesets, links and routes through netlink; serves DNS.
//!
//! All of it works on the network namespace of the calling thread: a node's process lives in its machine's.
//! The functions block for microseconds, but for [`dns`], which is async.
//!
//! A packet from a pod to a cluster IP: out of the pod's `eth0` to the node's end of the veth (its default gateway
//! 169.254.1.1 is a neighbour for good), into the node's prerouting, where one lookup in `service-ips` finds the
//! service's chain, which rewrites the destination to one of the endpoints; then by a /32 route to a local pod, or by
//! the route to another node's pods. The cost does not depend on how many services there are.

pub mod dns;
pub mod node;
pub mod pod;
mod proxy;

pub use proxy::Proxy;

/// What the kernel refused while links, routes or rules were set.
pub type Error = netlink::Error;
pub type Result<T> = netlink::Result<T>;
