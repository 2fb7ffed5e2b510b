//! The VPC: a router namespace whose links are the subnet (a bridge) and the host.

use std::net::Ipv4Addr;
use std::os::fd::AsFd;

use netlink::link::{Links, Route, Veth};
use netlink::netns::run_in;
use netlink::nft::{
    BaseChain, Batch, Cmp, Data, Element, Expr, Hook, Kind, Meta, Register, Set, Type, Values,
};
use netlink::{NetNs, sysctl};
use serde::{Deserialize, Serialize};

use crate::host::{self, DESTINATION, SOURCE, UPLINK, interface};
use crate::{Addresses, Pool, Result};

const SUBNET_LINK: &str = "subnet0";
/// The machine's end of its link.
pub(crate) const MACHINE_LINK: &str = "eth0";

/// What the VPC is made of. Only machines and the router know these ranges, so those of two sites may be the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VpcConfig {
    /// First address of the VPC's range, and its prefix length.
    pub cidr: (Ipv4Addr, u8),
    /// The router's address in the subnet; machines have theirs after it, in the same range.
    pub gateway: Ipv4Addr,
    pub subnet_prefix: u8,
    /// More addresses of the router, for what listens inside the VPC: the API server.
    pub endpoints: Vec<Ipv4Addr>,
}

impl Default for VpcConfig {
    fn default() -> Self {
        Self {
            cidr: (Ipv4Addr::new(172, 31, 0, 0), 16),
            gateway: Ipv4Addr::new(172, 31, 0, 1),
            subnet_prefix: 20,
            endpoints: vec![Ipv4Addr::new(172, 31, 0, 2)],
        }
    }
}

/// The router namespace of a site's VPC.
#[derive(Debug)]
pub struct Router {
    ns: NetNs,
    table: String,
    pool: Pool,
    config: VpcConfig,
    mtu: u32,
}

impl Router {
    /// Makes the router and its links, or completes them.
    pub(crate) fn ensure(ns: NetNs, id: &str, pool: Pool, config: &VpcConfig) -> Result<Self> {
        let mtu = host::uplink_mtu()?;
        let router = Self { ns, table: host::table_name(id), pool, config: config.clone(), mtu };
        host::ensure_link(id, pool, &router.ns, mtu)?;
        run_in(&router.ns, || router.set_up())??;
        Ok(router)
    }

    /// The namespace: what the server listens on or dials in the VPC it does in here, with [`crate::netns`].
    pub fn ns(&self) -> &NetNs {
        &self.ns
    }

    /// Where the host reaches listeners of the router's namespace.
    pub fn public_address(&self) -> Ipv4Addr {
        self.pool.router()
    }

    fn set_up(&self) -> Result<()> {
        sysctl::set("net.ipv4.ip_forward", "1")?;
        sysctl::set("net.ipv4.conf.all.rp_filter", "0")?;
        // Frames between machines are the bridge's business; tracked here, they would be translated too.
        sysctl::set_if_present("net/bridge/bridge-nf-call-iptables", "0")?;
        let mut links = Links::open()?;
        let lo = links.get("lo")?.index;
        links.set_up(lo)?;
        let bridge = links.ensure_bridge(SUBNET_LINK, self.mtu)?.index;
        links.add_address(bridge, self.config.gateway, self.config.subnet_prefix)?;
        for endpoint in &self.config.endpoints {
            links.add_address(bridge, *endpoint, 32)?;
        }
        links.set_up(bridge)?;
        let uplink = links.get(UPLINK)?.index;
        links.add_address(uplink, self.pool.router(), Pool::PREFIX)?;
        links.set_up(uplink)?;
        links.replace_route(&Route {
            via: Some(self.pool.host()),
            ..Route::to(Ipv4Addr::UNSPECIFIED, 0, uplink)
        })?;
        Ok(())
    }

    /// Links a machine's namespace to the subnet, or completes that.
    pub(crate) fn attach(&self, machine: &NetNs, addresses: Addresses) -> Result<()> {
        let port = port_name(addresses.private);
        let attached = run_in(machine, || Links::open()?.find(MACHINE_LINK))??.is_some();
        run_in(&self.ns, || {
            let mut links = Links::open()?;
            if !attached {
                links.delete(&port)?;
                let peer_ns = Some(machine.as_fd());
                links.add_veth(&Veth { name: &port, mtu: self.mtu, peer_name: MACHINE_LINK, peer_ns })?;
            }
            let (port, bridge) = (links.get(&port)?.index, links.get(SUBNET_LINK)?.index);
            links.set_master(port, bridge)?;
            links.set_up(port)
        })??;
        run_in(machine, || {
            let mut links = Links::open()?;
            let lo = links.get("lo")?.index;
            links.set_up(lo)?;
            let link = links.get(MACHINE_LINK)?.index;
            links.add_address(link, addresses.private, self.config.subnet_prefix)?;
            links.set_up(link)?;
            links.replace_route(&Route {
                via: Some(self.config.gateway),
                ..Route::to(Ipv4Addr::UNSPECIFIED, 0, link)
            })
        })??;
        Ok(())
    }

    /// Routes the pods of each node to it, and those of no others: (range's first address, prefix, node's private
    /// address). The server reaches pods (webhooks, aggregated APIs) from the VPC this way.
    pub fn set_pod_routes(&self, ranges: &[(Ipv4Addr, u8, Ipv4Addr)]) -> Result<()> {
        run_in(&self.ns, || {
            let mut links = Links::open()?;
            let bridge = links.get(SUBNET_LINK)?.index;
            let wanted = |&(destination, prefix, node): &(Ipv4Addr, u8, Ipv4Addr)| Route {
                via: Some(node),
                ..Route::to(destination, prefix, bridge)
            };
            let wanted: Vec<Route> = ranges.iter().map(wanted).collect();
            let ours = |route: &Route| route.link == bridge && route.protocol == netlink::link::PROTOCOL;
            let present: Vec<Route> = links.routes()?.into_iter().filter(ours).collect();
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

    pub(crate) fn detach(&self, private: Ipv4Addr) -> Result<()> {
        Ok(run_in(&self.ns, || Links::open()?.delete(&port_name(private)))??)
    }

    /// Maps the machines' public addresses to their private ones, 1:1, and those of no others. Established
    /// connections go on.
    pub(crate) fn map_addresses(&self, machines: &[Addresses]) -> Result<()> {
        run_in(&self.ns, || {
            self.own_public_addresses(machines)?;
            self.translation(machines).commit()
        })??;
        Ok(())
    }

    /// The router answers for the public addresses on its uplink.
    fn own_public_addresses(&self, machines: &[Addresses]) -> netlink::Result<()> {
        let mut links = Links::open()?;
        let uplink = links.get(UPLINK)?.index;
        for (_, address, prefix) in links.addresses()?.into_iter().filter(|(link, ..)| *link == uplink) {
            if prefix == 32 && !machines.iter().any(|machine| machine.public == address) {
                links.delete_address(uplink, address, prefix)?;
            }
        }
        for machine in machines {
            links.add_address(uplink, machine.public, 32)?;
        }
        Ok(())
    }

    fn translation(&self, machines: &[Addresses]) -> Batch<'_> {
        const ADDRESS: &[Type] = &[Type::Ipv4Addr];
        let mut batch = Batch::new(&self.table);
        batch.add_table();
        batch.delete_table();
        batch.add_table();
        batch.add_set(&Set::fixed("private", ADDRESS, Values::Data(ADDRESS)));
        batch.add_set(&Set::fixed("public", ADDRESS, Values::Data(ADDRESS)));
        let pair = |from: Ipv4Addr, to: Ipv4Addr| {
            Element::pair(from.octets().into(), Data::Value(to.octets().into()))
        };
        let inward: Vec<_> = machines.iter().map(|m| pair(m.public, m.private)).collect();
        let outward: Vec<_> = machines.iter().map(|m| pair(m.private, m.public)).collect();
        batch.add_elements("private", &inward);
        batch.add_elements("public", &outward);
        batch.add_base_chain(
            "prerouting",
            BaseChain { kind: Kind::Nat, hook: Hook::Prerouting, priority: -100 },
        );
        batch.add_base_chain("output", BaseChain { kind: Kind::Nat, hook: Hook::Output, priority: -100 });
        batch.add_base_chain(
            "postrouting",
            BaseChain { kind: Kind::Nat, hook: Hook::Postrouting, priority: 100 },
        );
        let to_private =
            [translated(DESTINATION, "private"), vec![Expr::Dnat { address: 0, port: None }]].concat();
        batch.add_rule("prerouting", &to_private);
        batch.add_rule("output", &to_private);
        let to_public = [translated(SOURCE, "public"), vec![Expr::Snat { address: 0 }]].concat();
        batch.add_rule(
            "postrouting",
            &[interface(Meta::Oifname, Cmp::Eq, UPLINK), to_public.clone()].concat(),
        );
        // From one machine to another's public address: the answer has to come back through here.
        batch.add_rule("postrouting", &[destination_was_translated(), to_public].concat());
        batch
    }
}

/// Looks an address up in a map and leaves the answer in the register; the rule ends if it is not there.
fn translated(offset: u32, map: &str) -> Vec<Expr> {
    vec![
        Expr::Network { offset, length: 4, to: 0 },
        Expr::Lookup { set: map.to_owned(), id: None, key: 0, to: Some(Register::Data(0)), invert: false },
    ]
}

fn destination_was_translated() -> Vec<Expr> {
    const STATUS: u32 = 2;
    const DST_NAT: u32 = 1 << 5;
    vec![
        Expr::Ct { key: STATUS, to: 0 },
        Expr::Bitwise { reg: 0, mask: DST_NAT.to_ne_bytes(), xor: [0; 4] },
        Expr::Cmp { op: Cmp::Ne, reg: 0, value: vec![0; 4] },
    ]
}

/// The router's end of a machine's link: `m` and the private address in hexadecimal.
fn port_name(private: Ipv4Addr) -> String {
    format!("m{:08x}", u32::from(private))
}
