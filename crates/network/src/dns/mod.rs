//! DNS of the cluster: "DNS-Based Service Discovery", version 1.1.0 of the Kubernetes specification, and CoreDNS where
//! it says more (names of endpoints without a host name, PTR, SRV of all ports, SOA).

mod answer;
pub mod wire;

pub use answer::{Zone, answer};
