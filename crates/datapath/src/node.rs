//! A node's own settings: forwarding, the DNS address, routes to other nodes' pods.

use std::net::Ipv4Addr;

use netlink::link::{self, Links};
use netlink::sysctl;
use plan::net::Route;

use crate::Result;

/// Settings of a node's network namespace. Absent ones belong to features that the kernel lacks.
const SETTINGS: &[(&str, &str)] = &[
    ("net.ipv4.ip_forward", "1"),
    // Answers may come in by another link than questions go out: the router sees to spoofing.
    ("net.ipv4.conf.all.rp_filter", "0"),
    ("net.ipv4.conf.default.rp_filter", "0"),
    ("net.ipv4.conf.all.accept_redirects", "0"),
    ("net.ipv4.conf.all.send_redirects", "0"),
    ("net.ipv4.conf.default.send_redirects", "0"),
    // Host ports at 127.0.0.1 lead to pods; the rules keep others from loopback's addresses.
    ("net.ipv4.conf.all.route_localnet", "1"),
    // Segments out of window are dropped by the receiver; marked invalid, they would escape translation.
    ("net.netfilter.nf_conntrack_tcp_be_liberal", "1"),
];

/// Prepares a node's network namespace for pods.
///
/// `local_service_ips` are cluster IPs that each node serves itself: the cluster DNS. They are put on `lo`, so that a
/// question never leaves the node and costs no translation; the ruleset leaves their Services out.
pub fn prepare(local_service_ips: &[Ipv4Addr]) -> Result<()> {
    for (name, value) in SETTINGS {
        sysctl::set_if_present(name, value)?;
    }
    let mut links = Links::open()?;
    let lo = links.get("lo")?.index;
    links.set_up(lo)?;
    for address in local_service_ips {
        links.add_host_address(lo, *address)?;
    }
    Ok(())
}

/// Makes the routes to other nodes' pods exactly these. Nodes are neighbours on the link of the default route.
pub fn set_routes(routes: &[Route]) -> Result<()> {
    let mut links = Links::open()?;
    let present = links.routes()?;
    let Some(uplink) = present.iter().find(|route| route.prefix == 0).map(|route| route.link) else {
        // No uplink, no other nodes.
        return Ok(());
    };
    let near = |route: &&link::Route| route.link == uplink && route.via.is_none() && route.prefix > 0;
    let near: Vec<&link::Route> = present.iter().filter(near).collect();
    let is_near = |via: Ipv4Addr| near.iter().any(|net| holds(net, via));
    // What is behind nodes of other subnets goes the way of the default route, where they are known.
    let there = routes.iter().filter(|route| is_near(route.via));
    let wanted: Vec<link::Route> = there.map(|route| link_route(route, uplink)).collect();
    let ours =
        |route: &&link::Route| route.protocol == link::PROTOCOL && route.link == uplink && route.prefix > 0;
    let present: Vec<&link::Route> = present.iter().filter(ours).collect();
    for route in present.iter().filter(|route| !wanted.contains(route)) {
        links.delete_route(route)?;
    }
    for route in wanted.iter().filter(|route| !present.contains(route)) {
        links.replace_route(route)?;
    }
    Ok(())
}

/// Whether an address is of a route's destination, which is not all there are.
fn holds(route: &link::Route, address: Ipv4Addr) -> bool {
    let mask = u32::MAX << (32 - u32::from(route.prefix));
    u32::from(address) & mask == u32::from(route.destination) & mask
}

fn link_route(route: &Route, uplink: u32) -> link::Route {
    let destination = route.destination;
    link::Route {
        via: Some(route.via),
        ..link::Route::to(destination.address(), destination.prefix(), uplink)
    }
}
