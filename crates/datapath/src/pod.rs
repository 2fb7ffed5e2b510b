//! Links of pods, as the AWS VPC CNI makes them: a veth and host routes, no bridge.

use std::net::Ipv4Addr;
use std::os::fd::AsFd;

use netlink::NetNs;
use netlink::link::{Link, Links, Mac, Route, Veth};
use netlink::netns::run_in;
use plan::net::PodLink;

use crate::Result;

/// The pod's default gateway. Nobody has this address: the pod knows the hardware address that it stands for.
const GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
const POD_END: &str = "eth0";
/// What names of node's ends start with: see [`PodLink::host_link_of`].
const HOST_END_PREFIX: &str = "eni";

/// Makes a pod's link, or completes what a crash left of it.
pub fn ensure(link: &PodLink) -> Result<()> {
    let ns = NetNs::open(&link.netns)?;
    let mut links = Links::open()?;
    let (host, pod) = ends(&mut links, &ns, link)?;
    let (Some(host_mac), Some(pod_mac)) = (host.mac, pod.mac) else {
        return Err(netlink::Error::Malformed {
            operation: format!("read the hardware address of {}", link.host_link),
        });
    };
    run_in(&ns, || set_up_pod(pod.index, link.ip, host_mac))??;
    links.set_up(host.index)?;
    links.replace_route(&Route::to(link.ip, 32, host.index))?;
    links.set_neighbour(host.index, link.ip, pod_mac)
}

/// Both ends of the veth, made if they are not the pair that they should be.
fn ends(links: &mut Links, ns: &NetNs, link: &PodLink) -> Result<(Link, Link)> {
    let pod = run_in(ns, || Links::open()?.find(POD_END))??;
    if let (Some(host), Some(pod)) = (links.find(&link.host_link)?, pod)
        && pod.peer == Some(host.index)
        && host.peer == Some(pod.index)
    {
        return Ok((host, pod));
    }
    links.delete(&link.host_link)?;
    run_in(ns, || Links::open()?.delete(POD_END))??;
    let (mtu, peer_ns) = (uplink_mtu(links)?, Some(ns.as_fd()));
    links.add_veth(&Veth { name: &link.host_link, mtu, peer_name: POD_END, peer_ns })?;
    let pod = run_in(ns, || Links::open()?.get(POD_END))??;
    Ok((links.get(&link.host_link)?, pod))
}

fn set_up_pod(link: u32, ip: Ipv4Addr, host_mac: Mac) -> Result<()> {
    let mut links = Links::open()?;
    let lo = links.get("lo")?.index;
    links.set_up(lo)?;
    links.add_address(link, ip, 32)?;
    links.set_up(link)?;
    links.replace_route(&Route::to(GATEWAY, 32, link))?;
    links.replace_route(&Route {
        via: Some(GATEWAY),
        onlink: true,
        ..Route::to(Ipv4Addr::UNSPECIFIED, 0, link)
    })?;
    links.set_neighbour(link, GATEWAY, host_mac)
}

/// Pods send no larger packets than their node can.
fn uplink_mtu(links: &mut Links) -> Result<u32> {
    const ETHERNET: u32 = 1500;
    let uplink = links.routes()?.into_iter().find(|route| route.prefix == 0).map(|route| route.link);
    Ok(links.list()?.into_iter().find(|link| Some(link.index) == uplink).map_or(ETHERNET, |link| link.mtu))
}

/// Brings up loopback in a namespace without a link (a pod that is not on the network yet).
pub fn loopback_up(ns: &NetNs) -> Result<()> {
    run_in(ns, || {
        let mut links = Links::open()?;
        let lo = links.get("lo")?.index;
        links.set_up(lo)
    })?
}

/// Deletes a pod's link by the name of the node's end, and the routes with it; absent is fine.
pub fn remove(host_link: &str) -> Result<()> {
    Links::open()?.delete(host_link)
}

/// The names of all pods' links on this node.
pub fn list() -> Result<Vec<String>> {
    let links = Links::open()?.list()?.into_iter().map(|link| link.name);
    Ok(links.filter(|name| name.starts_with(HOST_END_PREFIX)).collect())
}
