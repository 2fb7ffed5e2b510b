//! What the service proxy of a node should do: kube-proxy's rules of which endpoints count.
//!
//! Sources: the pages on virtual IPs, traffic policies and topology aware routing; KEP-1669 (terminating endpoints),
//! KEP-2086 (internal traffic policy), KEP-3015 (traffic distribution), KEP-1860 (ipMode).

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use plan::net::{Endpoint as Target, Protocol, Ruleset, ServicePort, ServicePortName};

use crate::NodeNetwork;
use crate::index::{Endpoint, Hint, Index, Name, Port, Service};

/// The time that a client stays with an endpoint unless the Service says otherwise.
const DEFAULT_AFFINITY_SECONDS: u32 = 10_800;

/// The ruleset of one node.
pub fn ruleset(index: &Index, node: &NodeNetwork) -> Ruleset {
    let mut services = Vec::new();
    for (name, service) in index.services().filter(|(_, service)| is_proxied(service, node)) {
        for port in &service.spec.ports {
            if let Some(protocol) = port.protocol() {
                services.push(service_port(index, node, name, service, port, protocol));
            }
        }
    }
    services.sort_by(|a, b| a.name.cmp(&b.name));
    let nodes = node.node_ips.iter().map(|ip| (*ip).into());
    Ruleset {
        services,
        host_ports: node.host_ports.clone(),
        pod_cidrs: node.cluster_cidrs.clone(),
        masquerade_from: node.pod_cidrs.clone(),
        masquerade_except: node.cluster_cidrs.iter().copied().chain(nodes).collect(),
    }
}

fn is_proxied(service: &Service, node: &NodeNetwork) -> bool {
    let mut ips = service.cluster_ips().peekable();
    let has_ip = ips.peek().is_some();
    has_ip
        && !service.is_external_name()
        && !service.other_proxy
        && !ips.any(|ip| node.local_service_ips.contains(&ip))
}

fn service_port(
    index: &Index,
    node: &NodeNetwork,
    name: &Name,
    service: &Service,
    port: &Port,
    protocol: Protocol,
) -> ServicePort {
    let spec = &service.spec;
    let parse =
        |texts: &[String]| -> Vec<Ipv4Addr> { texts.iter().filter_map(|text| text.parse().ok()).collect() };
    // Addresses of mode Proxy are the load balancer's own business: traffic must pass it.
    let ingress = service.status.load_balancer.ingress.iter().filter(|ingress| ingress.ip_mode != "Proxy");
    let load_balancer_ips: Vec<Ipv4Addr> = ingress.filter_map(|ingress| ingress.ip.parse().ok()).collect();
    let affinity = (spec.session_affinity == "ClientIP").then(|| {
        let config = spec.session_affinity_config.as_ref().and_then(|config| config.client_ip.as_ref());
        config.and_then(|client_ip| client_ip.timeout_seconds).unwrap_or(DEFAULT_AFFINITY_SECONDS)
    });
    let candidates = candidates(index, name, port, protocol);
    ServicePort {
        name: ServicePortName {
            namespace: name.0.to_string(),
            service: name.1.to_string(),
            port: port.name.clone(),
            protocol,
        },
        port: port.port,
        cluster_ips: service.cluster_ips().collect(),
        external_ips: parse(&spec.external_ips),
        node_port: (port.node_port != 0).then_some(port.node_port),
        source_ranges: spec
            .load_balancer_source_ranges
            .iter()
            .filter_map(|range| range.trim().parse().ok())
            .collect(),
        load_balancer_ips,
        endpoints: cluster_endpoints(&candidates, node),
        local_endpoints: local_endpoints(&candidates, node),
        affinity_seconds: affinity,
        internal_local: spec.internal_traffic_policy == "Local",
        external_local: spec.external_traffic_policy == "Local",
    }
}

/// An endpoint that has the port.
struct Candidate<'a> {
    endpoint: &'a Endpoint,
    target: Target,
}

/// Ports match by name: the number that the name stands for may differ from slice to slice.
fn candidates<'a>(index: &'a Index, service: &Name, port: &Port, protocol: Protocol) -> Vec<Candidate<'a>> {
    let mut found = Vec::new();
    for slice in index.slices(service) {
        let matching = slice.ports().iter().find(|p| p.name() == port.name && p.protocol() == Some(protocol));
        let Some(number) = matching.and_then(|port| port.port) else { continue };
        for endpoint in slice.endpoints() {
            if let Some(address) = endpoint.address() {
                found.push(Candidate { endpoint, target: (address, number) });
            }
        }
    }
    found
}

fn is_ready(candidate: &&Candidate<'_>) -> bool {
    candidate.endpoint.conditions.ready()
}

/// Better than nobody.
fn is_leaving(candidate: &&Candidate<'_>) -> bool {
    candidate.endpoint.conditions.serving() && candidate.endpoint.conditions.terminating()
}

fn targets<'a>(candidates: impl Iterator<Item = &'a Candidate<'a>>) -> Vec<Target> {
    // The same pod may be in two slices while the controller moves it.
    let unique: BTreeSet<Target> = candidates.map(|candidate| candidate.target).collect();
    unique.into_iter().collect()
}

fn cluster_endpoints(candidates: &[Candidate<'_>], node: &NodeNetwork) -> Vec<Target> {
    let ready: Vec<&Candidate<'_>> = candidates.iter().filter(is_ready).collect();
    if ready.is_empty() {
        return targets(candidates.iter().filter(is_leaving));
    }
    let hinted =
        near(&ready, &node.name, |endpoint| endpoint.hints.as_ref().map(|hints| &hints.for_nodes[..]));
    let hinted = hinted.or_else(|| {
        let zone = node.zone.as_deref()?;
        near(&ready, zone, |endpoint| endpoint.hints.as_ref().map(|hints| &hints.for_zones[..]))
    });
    hinted.unwrap_or_else(|| targets(ready.into_iter()))
}

/// The endpoints that are meant for this place; none if one of them has no hint, or no hint names the place: then the
/// hints are not complete (yet), and following them would overload or lose endpoints.
fn near(
    ready: &[&Candidate<'_>],
    place: &str,
    hints: impl Fn(&Endpoint) -> Option<&[Hint]>,
) -> Option<Vec<Target>> {
    let hints = |candidate: &Candidate<'_>| {
        hints(candidate.endpoint)
            .filter(|hints| !hints.is_empty())
            .map(|hints| hints.iter().any(|hint| hint.name == place))
    };
    if ready.iter().any(|candidate| hints(candidate).is_none()) {
        return None;
    }
    let here = targets(ready.iter().copied().filter(|candidate| hints(candidate) == Some(true)));
    (!here.is_empty()).then_some(here)
}

fn local_endpoints(candidates: &[Candidate<'_>], node: &NodeNetwork) -> Vec<Target> {
    let is_local = |candidate: &&Candidate<'_>| candidate.endpoint.node_name.as_deref() == Some(&node.name);
    let ready = targets(candidates.iter().filter(is_local).filter(is_ready));
    if ready.is_empty() { targets(candidates.iter().filter(is_local).filter(is_leaving)) } else { ready }
}
