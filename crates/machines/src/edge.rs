//! The site's edge: a namespace between the host and the VPCs' routers, where only public addresses are known.
//!
//! ```text
//!  host ── ek-<id> ═══ uplink ── edge ── v… ═══ uplink ── router of a VPC
//!          198.18.x.1  198.18.x.2              │
//!                                              └ v… ═══ uplink ── router of another
//! ```
//!
//! The host has one link and one route however many VPCs there are. A VPC sends nothing here but under its public
//! addresses: anything else did not come by the link that leads back to it, and is dropped.

use std::net::Ipv4Addr;
use std::os::fd::AsFd;

use netlink::link::{Links, Route, Veth};
use netlink::netns::run_in;
use netlink::{NetNs, sysctl};

use crate::vpc::{TRANSIT_ROUTER, TRANSIT_VPC, UPLINK};
use crate::{Pool, Result};

const SETTINGS: &[(&str, &str)] = &[
    ("net.ipv4.ip_forward", "1"),
    ("net.ipv4.conf.all.rp_filter", "0"),
    ("net.ipv4.conf.all.send_redirects", "0"),
    ("net.ipv4.conf.default.send_redirects", "0"),
    ("net.ipv4.conf.default.accept_redirects", "0"),
    ("net.ipv4.conf.default.rp_filter", "1"),
];

/// The edge namespace.
#[derive(Debug)]
pub(crate) struct Edge {
    ns: NetNs,
    mtu: u32,
}

impl Edge {
    pub fn new(ns: NetNs, mtu: u32) -> Self {
        Self { ns, mtu }
    }

    pub fn ns(&self) -> &NetNs {
        &self.ns
    }

    /// Completes the edge; its link to the host must be there.
    pub fn set_up(&self, pool: Pool) -> Result<()> {
        run_in(&self.ns, || {
            for (name, value) in SETTINGS {
                sysctl::set(name, value)?;
            }
            // The host asks by what hardware address the public addresses are reached: by this one, all of them.
            sysctl::set(&format!("net/ipv4/conf/{UPLINK}/proxy_arp"), "1")?;
            sysctl::set(&format!("net/ipv4/conf/{UPLINK}/rp_filter"), "0")?;
            sysctl::set(&format!("net/ipv4/neigh/{UPLINK}/proxy_delay"), "0")?;
            let mut links = Links::open()?;
            let lo = links.get("lo")?.index;
            links.set_up(lo)?;
            links.add_address(lo, pool.issuers(), 32)?;
            let uplink = links.get(UPLINK)?.index;
            links.add_address(uplink, pool.edge(), Pool::PREFIX)?;
            links.set_up(uplink)?;
            links.replace_route(&Route {
                via: Some(pool.host()),
                ..Route::to(Ipv4Addr::UNSPECIFIED, 0, uplink)
            })
        })??;
        Ok(())
    }

    /// Links a VPC's router to the edge, or completes that.
    pub fn connect(&self, vpc_id: &str, router: &NetNs) -> Result<()> {
        let name = link_name(vpc_id);
        let connected = run_in(router, || Links::open()?.find(UPLINK))??.is_some();
        let here = run_in(&self.ns, || {
            let mut links = Links::open()?;
            if !connected {
                links.delete(&name)?;
                let peer_ns = Some(router.as_fd());
                links.add_veth(&Veth { name: &name, mtu: self.mtu, peer_name: UPLINK, peer_ns })?;
            }
            let link = links.get(&name)?;
            links.set_up(link.index)?;
            Ok::<_, netlink::Error>(link)
        })??;
        let there = run_in(router, || {
            sysctl::set(&format!("net/ipv4/conf/{UPLINK}/rp_filter"), "0")?;
            sysctl::set(&format!("net/ipv4/conf/{UPLINK}/proxy_arp"), "0")?;
            let mut links = Links::open()?;
            let link = links.get(UPLINK)?;
            links.set_up(link.index)?;
            if let Some(mac) = here.mac {
                links.set_neighbour(link.index, TRANSIT_ROUTER, mac)?;
            }
            links.replace_route(&Route {
                via: Some(TRANSIT_ROUTER),
                onlink: true,
                ..Route::to(Ipv4Addr::UNSPECIFIED, 0, link.index)
            })?;
            Ok::<_, netlink::Error>(link)
        })??;
        run_in(&self.ns, || match there.mac {
            Some(mac) => Links::open()?.set_neighbour(here.index, TRANSIT_VPC, mac),
            None => Ok(()),
        })??;
        Ok(())
    }

    /// Routes these public addresses to a VPC, and no others.
    pub fn publish(&self, vpc_id: &str, addresses: &[Ipv4Addr]) -> Result<()> {
        run_in(&self.ns, || {
            let mut links = Links::open()?;
            let link = links.get(&link_name(vpc_id))?.index;
            let to = |address: &Ipv4Addr| Route {
                via: Some(TRANSIT_VPC),
                onlink: true,
                ..Route::to(*address, 32, link)
            };
            let wanted: Vec<Route> = addresses.iter().map(to).collect();
            let present: Vec<Route> =
                links.routes()?.into_iter().filter(|route| route.link == link).collect();
            for route in present.iter().filter(|route| !wanted.contains(route)) {
                links.delete_route(route)?;
            }
            for route in wanted.iter().filter(|route| !present.contains(route)) {
                links.replace_route(route)?;
            }
            Ok::<_, netlink::Error>(())
        })??;
        Ok(())
    }

    pub fn disconnect(&self, vpc_id: &str) -> Result<()> {
        Ok(run_in(&self.ns, || Links::open()?.delete(&link_name(vpc_id)))??)
    }
}

/// The edge's end of the link to a VPC: `v` and the end of the VPC's id, which is the random part of it.
fn link_name(vpc_id: &str) -> String {
    const ROOM: usize = 14;
    format!("v{}", &vpc_id[vpc_id.len().saturating_sub(ROOM)..])
}
