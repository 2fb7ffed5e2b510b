//! UDP flows towards endpoints that are gone.
//!
//! The kernel translates a flow as it did its first packet, for as long as packets come. TCP ends by itself; a UDP
//! client that never stops (a resolver with one socket) would be sent to a dead endpoint for ever, or be refused for
//! ever by a Service that has endpoints by now.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use netlink::conntrack;
use netlink::link::Links;
use plan::net::{Endpoint, Protocol, Ruleset, ServicePort};

use crate::Result;

/// Where a service port's flows may lead, by where they come in.
#[derive(Default)]
struct Destinations {
    by_address: BTreeMap<(Ipv4Addr, u16), BTreeSet<Endpoint>>,
    by_node_port: BTreeMap<u16, BTreeSet<Endpoint>>,
}

/// Forgets the UDP flows to service ports that differ between the rulesets and that lead to none of their endpoints.
/// Without a `before`, all service ports are looked at.
pub fn forget_stale(before: Option<&Ruleset>, now: &Ruleset) -> Result<()> {
    let destinations = changed(before, now);
    if destinations.by_address.is_empty() && destinations.by_node_port.is_empty() {
        return Ok(());
    }
    let here: BTreeSet<Ipv4Addr> =
        Links::open()?.addresses()?.into_iter().map(|(_, address, _)| address).collect();
    let stale = conntrack::list(|connection| {
        if connection.original.protocol != Protocol::Udp.number() {
            return false;
        }
        let to = connection.original.destination;
        let by_node_port = || destinations.by_node_port.get(&to.1).filter(|_| here.contains(&to.0));
        let allowed = destinations.by_address.get(&to).or_else(by_node_port);
        allowed.is_some_and(|endpoints| !endpoints.contains(&connection.reply.source))
    })?;
    conntrack::delete(&stale)
}

fn changed(before: Option<&Ruleset>, now: &Ruleset) -> Destinations {
    let by_name = |ruleset: &Ruleset| -> BTreeMap<_, ServicePort> {
        let udp = ruleset.services.iter().filter(|service| service.name.protocol == Protocol::Udp);
        udp.map(|service| (service.name.clone(), service.clone())).collect()
    };
    let before = before.map(by_name).unwrap_or_default();
    let now = by_name(now);
    let mut destinations = Destinations::default();
    // Services that are gone first: an address that another has taken over is judged by the new one.
    for service in before.iter().filter(|(name, _)| !now.contains_key(*name)).map(|(_, service)| service) {
        destinations.add(service, &BTreeSet::new());
    }
    for (name, service) in now.iter().filter(|(name, service)| before.get(*name) != Some(*service)) {
        let endpoints = service.endpoints.iter().chain(&service.local_endpoints).copied().collect();
        if let Some(previous) = before.get(name) {
            destinations.add(previous, &endpoints);
        }
        destinations.add(service, &endpoints);
    }
    destinations
}

impl Destinations {
    fn add(&mut self, service: &ServicePort, endpoints: &BTreeSet<Endpoint>) {
        for ip in service.cluster_ips.iter().chain(&service.external_ips).chain(&service.load_balancer_ips) {
            self.by_address.insert((*ip, service.port), endpoints.clone());
        }
        if let Some(port) = service.node_port {
            self.by_node_port.insert(port, endpoints.clone());
        }
    }
}
