//! The host's side: one link to the site's edge, one table, forwarding.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};

use netlink::link::{Links, Veth};
use netlink::nft::{BaseChain, Batch, Cmp, Expr, Hook, Kind, Meta, Target};
use netlink::{NetNs, sysctl};
use plan::net::Cidr;

use crate::packet::{destination, established_or_related, link, outside, source, verdict, within};
use crate::vpc::UPLINK;
use crate::{Pool, Result};

const FORWARD: &str = "net.ipv4.ip_forward";

/// The host's end of the link; at most 15 bytes, as links want.
pub(crate) fn link_name(id: &str) -> String {
    format!("ek-{id}")
}

/// The table of family ip, on the host and in the routers alike.
pub(crate) fn table_name(id: &str) -> String {
    format!("ekso-{id}")
}

/// The networks that the host has routes or addresses for, but for those of `except`.
pub(crate) fn taken_networks(except: &str) -> Result<Vec<(Ipv4Addr, u8)>> {
    let mut links = Links::open()?;
    let ours = links.find(except)?.map(|link| link.index);
    let routes = links.routes()?.into_iter().filter(|route| Some(route.link) != ours);
    let mut taken: Vec<_> = routes.map(|route| (route.destination, route.prefix)).collect();
    let addresses = links.addresses()?.into_iter().filter(|(link, ..)| Some(*link) != ours);
    taken.extend(addresses.map(|(_, address, prefix)| (address, prefix)));
    Ok(taken)
}

/// The MTU of the link that the default route leaves by, so that what machines send fits on the way out.
pub(crate) fn uplink_mtu() -> Result<u32> {
    const ETHERNET: u32 = 1500;
    let mut links = Links::open()?;
    let Some(default) = links.routes()?.into_iter().find(|route| route.prefix == 0) else {
        return Ok(ETHERNET);
    };
    Ok(links.list()?.into_iter().find(|link| link.index == default.link).map_or(ETHERNET, |link| link.mtu))
}

/// Makes the link between the host and the edge, or completes what a crash left of it.
pub(crate) fn ensure_link(id: &str, pool: Pool, edge: &NetNs, mtu: u32) -> Result<()> {
    let name = link_name(id);
    let mut links = Links::open()?;
    let edge_has_end = netlink::netns::run_in(edge, || Links::open()?.find(UPLINK))??.is_some();
    if !edge_has_end {
        // An end without the other belongs to an edge that is gone.
        links.delete(&name)?;
        use std::os::fd::AsFd;
        links.add_veth(&Veth { name: &name, mtu, peer_name: UPLINK, peer_ns: Some(edge.as_fd()) })?;
    }
    let link = links.get(&name)?;
    links.add_address(link.index, pool.host(), Pool::PREFIX)?;
    links.set_up(link.index)?;
    Ok(())
}

pub(crate) fn forwarding_is_off() -> Result<bool> {
    Ok(sysctl::get(FORWARD)? == "0")
}

pub(crate) fn enable_forwarding() -> Result<()> {
    Ok(sysctl::set(FORWARD, "1")?)
}

pub(crate) fn disable_forwarding() -> Result<()> {
    Ok(sysctl::set(FORWARD, "0")?)
}

/// Replaces the site's table on the host.
///
/// Our accepting a packet does not overrule another table's drop (Docker's FORWARD policy, firewalld): `doctor` looks
/// for those. Our drops do hold, and keep machines from the host, from the cloud's link-local services, from other
/// sites, and from sending under addresses that the host should never see.
pub(crate) fn apply_table(id: &str, pool: Pool) -> Result<()> {
    let (table, name) = (table_name(id), link_name(id));
    let mut batch = Batch::new(&table);
    batch.add_table();
    batch.delete_table();
    batch.add_table();
    let filter = |hook| BaseChain { kind: Kind::Filter, hook, priority: 0 };
    batch.add_base_chain("input", filter(Hook::Input));
    batch.add_base_chain("forward", filter(Hook::Forward));
    batch
        .add_base_chain("postrouting", BaseChain { kind: Kind::Nat, hook: Hook::Postrouting, priority: 100 });

    let from_site = link(Meta::Iifname, Cmp::Eq, &name);
    let accept = || vec![verdict(Target::Accept)];
    let drop = || vec![verdict(Target::Drop)];
    // The host's own services are out of reach; answers to what the host asked for are not.
    batch.add_rule("input", &[from_site.clone(), established_or_related(), accept()].concat());
    batch.add_rule("input", &[from_site.clone(), drop()].concat());
    batch.add_rule("forward", &[from_site.clone(), outside(source(), pool.range()), drop()].concat());
    let other_sites = within(destination(), Pool::ALL);
    batch.add_rule("forward", &[from_site.clone(), other_sites, drop()].concat());
    let link_local = within(destination(), Cidr::new(Ipv4Addr::new(169, 254, 0, 0), 16));
    batch.add_rule("forward", &[from_site, link_local, drop()].concat());
    // Only the host itself and answers go in: what other hosts route here was not invited.
    let to_site = link(Meta::Oifname, Cmp::Eq, &name);
    batch.add_rule("forward", &[to_site.clone(), established_or_related(), accept()].concat());
    batch.add_rule("forward", &[to_site, drop()].concat());

    let leaving = link(Meta::Oifname, Cmp::Ne, &name);
    let from_pool = within(source(), pool.range());
    batch.add_rule("postrouting", &[from_pool, leaving, vec![Expr::Masquerade]].concat());
    Ok(batch.commit()?)
}

/// Whether any site has its table on the host.
pub(crate) fn has_site_tables() -> Result<bool> {
    Ok(netlink::nft::tables()?.iter().any(|table| table.starts_with("ekso-")))
}

/// Deletes the site's table in the calling thread's namespace; absent is fine.
pub(crate) fn delete_table(id: &str) -> Result<()> {
    let table = table_name(id);
    let mut batch = Batch::new(&table);
    batch.add_table();
    batch.delete_table();
    match batch.commit() {
        Err(error) if error.is_unsupported() => Ok(()),
        other => Ok(other?),
    }
}

/// The DNS servers that machines can use: those of the host, but for ones on its loopback, which are out of reach.
/// A host that resolves through systemd-resolved keeps the real ones in a file beside.
pub fn resolvers() -> Vec<IpAddr> {
    for path in
        ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf", "/run/NetworkManager/no-stub-resolv.conf"]
    {
        let text = fs::read_to_string(path).unwrap_or_default();
        let found = parse_resolv_conf(&text);
        if !found.is_empty() {
            return found;
        }
    }
    Vec::new()
}

fn parse_resolv_conf(text: &str) -> Vec<IpAddr> {
    let servers = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    let addresses = servers.filter_map(|server| server.trim().parse::<IpAddr>().ok());
    addresses.filter(|address| address.is_ipv4() && !address.is_loopback()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolvers_on_loopback_are_left_out() {
        let text =
            "# made by x\nnameserver 127.0.0.53\nnameserver 10.0.0.2\nnameserver ::1\nsearch example.com\n";
        assert_eq!(parse_resolv_conf(text), [IpAddr::from([10, 0, 0, 2])]);
    }
}
