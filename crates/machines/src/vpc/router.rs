//! Makes a VPC's router namespace what a [`VpcConfig`] says: links, addresses, routes, rules.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;

use netlink::link::{Links, Route, Veth};
use netlink::netns::run_in;
use netlink::nft::{Batch, Set};
use netlink::{NetNs, sysctl};
use plan::net::Cidr;

use super::compile::{Compiled, compile};
use super::config::{Interface, Place, VpcConfig, gateway};
use super::{AWS_DOOR, METADATA, POD_IDENTITY};
use crate::machine::Link;
use crate::{Error, Result, host};

/// The router's end of the link to the site's edge.
pub(crate) const UPLINK: &str = "uplink";
/// Both ends of that link, which only they know.
pub(crate) const TRANSIT_ROUTER: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
pub(crate) const TRANSIT_VPC: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 2);
/// The machine's end of its link.
pub(crate) const MACHINE_LINK: &str = "eth0";
/// What the names of the router's ends of machines' links begin with.
const PORT_PREFIX: &str = "m";

/// Settings of the namespace, before there are links.
const SETTINGS: &[(&str, &str)] = &[
    ("net.ipv4.ip_forward", "1"),
    ("net.ipv4.conf.all.rp_filter", "0"),
    ("net.ipv4.conf.all.send_redirects", "0"),
    ("net.ipv4.conf.default.send_redirects", "0"),
    ("net.ipv4.conf.default.accept_redirects", "0"),
    // What comes in by a machine's link must be what would go out by it: no address but the machine's own.
    ("net.ipv4.conf.default.rp_filter", "1"),
    // The router answers for every neighbour, so that all packets pass it.
    ("net.ipv4.conf.default.proxy_arp", "1"),
];

/// The router namespace of a VPC.
#[derive(Debug)]
pub struct Vpc {
    ns: NetNs,
    table: String,
}

impl Vpc {
    pub(crate) fn new(ns: NetNs, site_id: &str) -> Self {
        Self { ns, table: host::table_name(site_id) }
    }

    /// The namespace: what the server listens on or dials in the VPC it does in here, with [`crate::netns`].
    pub fn ns(&self) -> &NetNs {
        &self.ns
    }

    /// Settings that come before the link to the edge.
    pub(crate) fn prepare(&self) -> Result<()> {
        run_in(&self.ns, || {
            for (name, value) in SETTINGS {
                sysctl::set(name, value)?;
            }
            let mut links = Links::open()?;
            let lo = links.get("lo")?.index;
            links.set_up(lo)
        })??;
        Ok(())
    }

    /// Makes addresses, routes and rules what the configuration says. Established connections go on.
    pub(crate) fn apply(&self, config: &VpcConfig) -> Result<()> {
        let compiled = compile(config);
        run_in(&self.ns, || {
            // Rules before routes: an address that is reached has its rules.
            commit(&self.table, &compiled)?;
            let mut links = Links::open()?;
            own_addresses(&mut links, config)?;
            for cidr in &config.cidrs {
                links.set_unreachable(cidr.address(), cidr.prefix())?;
            }
            set_routes(&mut links, config)
        })??;
        Ok(())
    }

    /// Links a machine's namespace to the router, or completes that.
    pub(crate) fn attach(&self, config: &VpcConfig, machine: &NetNs, link: &Link, mtu: u32) -> Result<()> {
        let is_known = |one: &Interface| one.place == Place::Machine && one.address == link.address;
        if !config.interfaces.iter().any(is_known) {
            let what = format!("it has no interface with the address {}", link.address);
            return Err(Error::Vpc { id: config.id.clone(), what });
        }
        let port = port_name(link.address);
        let attached = run_in(machine, || Links::open()?.find(MACHINE_LINK))??.is_some();
        run_in(&self.ns, || {
            let mut links = Links::open()?;
            if !attached {
                links.delete(&port)?;
                let peer_ns = Some(machine.as_fd());
                links.add_veth(&Veth { name: &port, mtu, peer_name: MACHINE_LINK, peer_ns })?;
            }
            // Answers for neighbours are not held back, as those of a busy proxy may be.
            sysctl::set(&format!("net/ipv4/neigh/{port}/proxy_delay"), "0")?;
            let port = links.get(&port)?.index;
            links.set_up(port)
        })??;
        let mac = run_in(machine, || set_up_machine(link))??;
        run_in(&self.ns, || {
            let mut links = Links::open()?;
            let port = links.get(&port)?.index;
            if let Some(mac) = mac {
                links.set_neighbour(port, link.address, mac)?;
            }
            set_routes(&mut links, config)
        })??;
        Ok(())
    }

    /// Deletes every link.
    pub(crate) fn cut_off(&self) -> Result<()> {
        run_in(&self.ns, || {
            let mut links = Links::open()?;
            for link in links.list()?.iter().filter(|link| link.kind.as_deref() == Some("veth")) {
                links.delete(&link.name)?;
            }
            Ok::<_, netlink::Error>(())
        })??;
        Ok(())
    }

    pub(crate) fn detach(&self, address: Ipv4Addr) -> Result<()> {
        Ok(run_in(&self.ns, || Links::open()?.delete(&port_name(address)))??)
    }
}

/// The router's end of a machine's link: `m` and the private address in hexadecimal.
fn port_name(address: Ipv4Addr) -> String {
    format!("{PORT_PREFIX}{:08x}", u32::from(address))
}

/// In the machine's namespace. The hardware address of its link.
fn set_up_machine(link: &Link) -> netlink::Result<Option<netlink::link::Mac>> {
    let mut links = Links::open()?;
    let lo = links.get("lo")?.index;
    links.set_up(lo)?;
    let uplink = links.get(MACHINE_LINK)?;
    links.add_address(uplink.index, link.address, link.subnet.prefix())?;
    links.set_up(uplink.index)?;
    links.replace_route(&Route {
        via: Some(gateway(link.subnet)),
        ..Route::to(Ipv4Addr::UNSPECIFIED, 0, uplink.index)
    })?;
    Ok(uplink.mac)
}

/// The router's own addresses: of each subnet, of what listens in it, of link-local services; and no others.
fn own_addresses(links: &mut Links, config: &VpcConfig) -> netlink::Result<()> {
    let routers = config.subnets.iter().map(|subnet| gateway(subnet.cidr));
    let own = config.interfaces.iter().filter(|one| one.place == Place::Router);
    let listening = own.flat_map(|one| std::iter::once(one.address).chain(one.secondary.iter().copied()));
    let services = [*METADATA.ip(), AWS_DOOR, *POD_IDENTITY.ip()];
    let wanted: BTreeSet<Ipv4Addr> = routers.chain(listening).chain(services).collect();
    let lo = links.get("lo")?.index;
    let all = links.addresses()?.into_iter();
    let present: BTreeSet<Ipv4Addr> = all
        .filter(|(link, address, prefix)| *link == lo && *prefix == 32 && !address.is_loopback())
        .map(|(_, address, _)| address)
        .collect();
    for address in present.difference(&wanted) {
        links.delete_address(lo, *address, 32)?;
    }
    for address in wanted.difference(&present) {
        links.add_address(lo, *address, 32)?;
    }
    Ok(())
}

/// Routes to what is behind the machines' links that are up; and no others. One that is not yet was left so by a process that was killed
/// while it attached the machine, and takes no route: who attaches it again sets it.
fn set_routes(links: &mut Links, config: &VpcConfig) -> netlink::Result<()> {
    let ports: Vec<(String, u32)> = links
        .list()?
        .into_iter()
        .filter(|link| link.name.starts_with(PORT_PREFIX) && link.up)
        .map(|link| (link.name, link.index))
        .collect();
    let port_of = |address: Ipv4Addr| {
        let name = port_name(address);
        ports.iter().find(|(port, _)| *port == name).map(|(_, index)| *index)
    };
    let mut wanted = Vec::new();
    for interface in &config.interfaces {
        let machine = match interface.place {
            Place::Machine => interface.address,
            Place::Behind(machine) => machine,
            Place::Router => continue,
        };
        let (Some(port), Some(subnet)) = (port_of(machine), config.subnet(&interface.subnet)) else {
            continue;
        };
        let source = Some(gateway(subnet.cidr));
        wanted.extend(interface.private().map(|range| route(range, machine, port, source)));
    }
    let is_ours = |route: &Route| {
        route.protocol == netlink::link::PROTOCOL && ports.iter().any(|(_, index)| *index == route.link)
    };
    let present: Vec<Route> = links.routes()?.into_iter().filter(is_ours).collect();
    for route in present.iter().filter(|route| !wanted.contains(route)) {
        links.delete_route(route)?;
    }
    // In order: what is behind a machine is routed by its primary address.
    for route in wanted.iter().filter(|route| !present.contains(route)) {
        links.replace_route(route)?;
    }
    Ok(())
}

/// Only the primary address's neighbour is known; the rest goes by it.
fn route(range: Cidr, machine: Ipv4Addr, port: u32, source: Option<Ipv4Addr>) -> Route {
    let direct = Route { source, ..Route::to(range.address(), range.prefix(), port) };
    if range == Cidr::from(machine) {
        return direct;
    }
    Route { via: Some(machine), onlink: true, ..direct }
}

/// Replaces the table.
fn commit(table: &str, compiled: &Compiled) -> netlink::Result<()> {
    let mut batch = Batch::new(table);
    batch.add_table();
    batch.delete_table();
    batch.add_table();
    for chain in &compiled.chains {
        match chain.base {
            Some(base) => batch.add_base_chain(&chain.name, base),
            None => batch.add_chain(&chain.name),
        }
    }
    for map in &compiled.maps {
        batch.add_set(&Set { interval: map.interval, ..Set::fixed(&map.name, map.key, map.values) });
        batch.add_elements(&map.name, &map.elements);
    }
    for chain in &compiled.chains {
        for rule in &chain.rules {
            batch.add_rule(&chain.name, rule);
        }
    }
    batch.commit()
}
