//! Links, addresses, routes and neighbours (rtnetlink(7)), for IPv4.

use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::socket::Socket;
use crate::wire::{self, ACK, CREATE, DUMP, EXCL, Message, REPLACE};
use crate::{Error, Result};

const NEWLINK: u16 = 16;
const DELLINK: u16 = 17;
const GETLINK: u16 = 18;
const NEWADDR: u16 = 20;
const DELADDR: u16 = 21;
const GETADDR: u16 = 22;
const NEWROUTE: u16 = 24;
const DELROUTE: u16 = 25;
const GETROUTE: u16 = 26;
const NEWNEIGH: u16 = 28;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;

const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PREFSRC: u16 = 7;

const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NUD_PERMANENT: u16 = 0x80;

const AF_INET: u8 = 2;
const IFF_UP: u32 = 1;
const RTNH_F_ONLINK: u32 = 4;
const TABLE_MAIN: u8 = 254;
const SCOPE_LINK: u8 = 253;
const SCOPE_HOST: u8 = 254;
const TYPE_UNICAST: u8 = 1;

/// The protocol number that marks our routes, so that what we did not make is never taken for ours.
pub const PROTOCOL: u8 = 0x65;

/// A hardware address.
pub type Mac = [u8; 6];

/// A link as the kernel shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub name: String,
    pub mac: Option<Mac>,
    pub mtu: u32,
    pub up: bool,
    /// Index of the bridge that it is a port of.
    pub master: Option<u32>,
    /// Index of a veth's other end, in the namespace that that is in.
    pub peer: Option<u32>,
    /// `veth`, `bridge`, …; none for hardware and loopback.
    pub kind: Option<String>,
}

/// A route of the main table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    pub destination: Ipv4Addr,
    /// Bits of `destination` that count; 0 for the default route.
    pub prefix: u8,
    /// The next hop; none for a neighbour on the link itself.
    pub via: Option<Ipv4Addr>,
    /// Index of the link to leave by.
    pub link: u32,
    /// The next hop is on the link though no address says so.
    pub onlink: bool,
    /// The address to send from.
    pub source: Option<Ipv4Addr>,
    /// Who made it: [`PROTOCOL`] is us, 2 the kernel, 3 and 4 administrators.
    pub protocol: u8,
}

impl Route {
    /// A route of ours without a next hop.
    pub fn to(destination: Ipv4Addr, prefix: u8, link: u32) -> Self {
        Self { destination, prefix, via: None, link, onlink: false, source: None, protocol: PROTOCOL }
    }
}

/// A veth pair to be made.
pub struct Veth<'a> {
    pub name: &'a str,
    pub mtu: u32,
    pub peer_name: &'a str,
    /// Where the other end goes; none for here.
    pub peer_ns: Option<BorrowedFd<'a>>,
}

/// The links of one network namespace: that of the thread that opened this.
pub struct Links {
    socket: Socket,
}

impl Links {
    pub fn open() -> Result<Self> {
        Ok(Self { socket: Socket::route()? })
    }

    pub fn list(&mut self) -> Result<Vec<Link>> {
        let request = || Message::new(GETLINK, DUMP, &info(0, 0, 0));
        self.socket.dump(request, || "list links".into(), read_link)
    }

    pub fn find(&mut self, name: &str) -> Result<Option<Link>> {
        Ok(self.list()?.into_iter().find(|link| link.name == name))
    }

    /// Like [`Links::find`] for a link that must be there.
    pub fn get(&mut self, name: &str) -> Result<Link> {
        self.find(name)?.ok_or_else(|| Error::refused(format!("find link {name}"), rustix::io::Errno::NODEV))
    }

    /// Makes both ends at once; fails with `is_present` if one of the names is taken.
    pub fn add_veth(&mut self, veth: &Veth<'_>) -> Result<()> {
        let mut message = Message::new(NEWLINK, ACK | CREATE | EXCL, &info(0, 0, 0));
        message.text(IFLA_IFNAME, veth.name).native(IFLA_MTU, veth.mtu);
        message.nest(IFLA_LINKINFO, |m| {
            m.text(IFLA_INFO_KIND, "veth").nest(IFLA_INFO_DATA, |m| {
                m.nest(VETH_INFO_PEER, |m| {
                    m.raw(&info(0, 0, 0)).text(IFLA_IFNAME, veth.peer_name).native(IFLA_MTU, veth.mtu);
                    if let Some(ns) = veth.peer_ns {
                        m.native(IFLA_NET_NS_FD, ns.as_raw_fd() as u32);
                    }
                });
            });
        });
        self.socket.request(message, || format!("add veth {} with peer {}", veth.name, veth.peer_name))
    }

    /// Makes a bridge unless there is one of that name.
    pub fn ensure_bridge(&mut self, name: &str, mtu: u32) -> Result<Link> {
        if let Some(link) = self.find(name)? {
            return Ok(link);
        }
        let mut message = Message::new(NEWLINK, ACK | CREATE | EXCL, &info(0, 0, 0));
        message.text(IFLA_IFNAME, name).native(IFLA_MTU, mtu);
        message.nest(IFLA_LINKINFO, |m| {
            m.text(IFLA_INFO_KIND, "bridge");
        });
        self.socket.request(message, || format!("add bridge {name}"))?;
        self.get(name)
    }

    pub fn set_up(&mut self, link: u32) -> Result<()> {
        let message = Message::new(NEWLINK, ACK, &info(link, IFF_UP, IFF_UP));
        self.socket.request(message, || format!("bring up link {link}"))
    }

    /// Makes a link a port of a bridge.
    pub fn set_master(&mut self, link: u32, bridge: u32) -> Result<()> {
        let mut message = Message::new(NEWLINK, ACK, &info(link, 0, 0));
        message.native(IFLA_MASTER, bridge);
        self.socket.request(message, || format!("put link {link} on bridge {bridge}"))
    }

    /// Deletes a link (and a veth's peer with it); absent is fine.
    pub fn delete(&mut self, name: &str) -> Result<()> {
        let mut message = Message::new(DELLINK, ACK, &info(0, 0, 0));
        message.text(IFLA_IFNAME, name);
        absent_is_fine(self.socket.request(message, || format!("delete link {name}")))
    }

    /// (link index, address, prefix length) of every IPv4 address.
    pub fn addresses(&mut self) -> Result<Vec<(u32, Ipv4Addr, u8)>> {
        let request = || Message::new(GETADDR, DUMP, &[AF_INET, 0, 0, 0, 0, 0, 0, 0]);
        self.socket.dump(request, || "list addresses".into(), read_address)
    }

    /// Gives a link an address, which it may have already.
    pub fn add_address(&mut self, link: u32, address: Ipv4Addr, prefix: u8) -> Result<()> {
        let message = address_message(NEWADDR, ACK | CREATE | REPLACE, link, address, prefix, 0);
        self.socket.request(message, || format!("add address {address}/{prefix} to link {link}"))
    }

    /// Gives a link an address that is good on this host only: nothing is sent from it unless a socket is bound to it.
    pub fn add_host_address(&mut self, link: u32, address: Ipv4Addr) -> Result<()> {
        let message = address_message(NEWADDR, ACK | CREATE | REPLACE, link, address, 32, SCOPE_HOST);
        self.socket.request(message, || format!("add local address {address} to link {link}"))
    }

    /// Takes an address from a link; absent is fine.
    pub fn delete_address(&mut self, link: u32, address: Ipv4Addr, prefix: u8) -> Result<()> {
        let message = address_message(DELADDR, ACK, link, address, prefix, 0);
        let done =
            self.socket.request(message, || format!("delete address {address}/{prefix} of link {link}"));
        absent_is_fine(done)
    }

    /// The unicast routes of the main table.
    pub fn routes(&mut self) -> Result<Vec<Route>> {
        let request = || Message::new(GETROUTE, DUMP, &[AF_INET, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        self.socket.dump(request, || "list routes".into(), read_route)
    }

    /// Adds a route, or replaces the one to the same destination.
    pub fn replace_route(&mut self, route: &Route) -> Result<()> {
        let message = route_message(NEWROUTE, ACK | CREATE | REPLACE, route);
        self.socket.request(message, || format!("set route to {}/{}", route.destination, route.prefix))
    }

    /// Makes a range unreachable but for what more specific routes lead to. It is not among [`Links::routes`].
    pub fn set_unreachable(&mut self, destination: Ipv4Addr, prefix: u8) -> Result<()> {
        const TYPE_UNREACHABLE: u8 = 7;
        let fixed = [AF_INET, prefix, 0, 0, TABLE_MAIN, PROTOCOL, 0, TYPE_UNREACHABLE, 0, 0, 0, 0];
        let mut message = Message::new(NEWROUTE, ACK | CREATE | REPLACE, &fixed);
        message.attr(RTA_DST, &destination.octets());
        self.socket.request(message, || format!("make {destination}/{prefix} unreachable"))
    }

    /// Deletes a route; absent is fine.
    pub fn delete_route(&mut self, route: &Route) -> Result<()> {
        let message = route_message(DELROUTE, ACK, route);
        let done = self
            .socket
            .request(message, || format!("delete route to {}/{}", route.destination, route.prefix));
        absent_is_fine(done)
    }

    /// A neighbour whose hardware address is known for good: nobody has to ask.
    pub fn set_neighbour(&mut self, link: u32, address: Ipv4Addr, mac: Mac) -> Result<()> {
        let mut fixed = [0u8; 12];
        fixed[0] = AF_INET;
        fixed[4..8].copy_from_slice(&link.to_ne_bytes());
        fixed[8..10].copy_from_slice(&NUD_PERMANENT.to_ne_bytes());
        let mut message = Message::new(NEWNEIGH, ACK | CREATE | REPLACE, &fixed);
        message.attr(NDA_DST, &address.octets()).attr(NDA_LLADDR, &mac);
        self.socket.request(message, || format!("set neighbour {address} of link {link}"))
    }
}

fn absent_is_fine(result: Result<()>) -> Result<()> {
    match result {
        Err(error) if error.is_absent() => Ok(()),
        other => other,
    }
}

/// struct ifinfomsg
fn info(index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[4..8].copy_from_slice(&index.to_ne_bytes());
    bytes[8..12].copy_from_slice(&flags.to_ne_bytes());
    bytes[12..16].copy_from_slice(&change.to_ne_bytes());
    bytes
}

/// struct ifaddrmsg and its attributes
fn address_message(kind: u16, flags: u16, link: u32, address: Ipv4Addr, prefix: u8, scope: u8) -> Message {
    let mut fixed = [AF_INET, prefix, 0, scope, 0, 0, 0, 0];
    fixed[4..8].copy_from_slice(&link.to_ne_bytes());
    let mut message = Message::new(kind, flags, &fixed);
    message.attr(IFA_LOCAL, &address.octets()).attr(IFA_ADDRESS, &address.octets());
    message
}

/// struct rtmsg and its attributes
fn route_message(kind: u16, flags: u16, route: &Route) -> Message {
    let scope = if route.via.is_none() { SCOPE_LINK } else { 0 };
    let nexthop_flags = if route.onlink { RTNH_F_ONLINK } else { 0 };
    let mut fixed =
        [AF_INET, route.prefix, 0, 0, TABLE_MAIN, route.protocol, scope, TYPE_UNICAST, 0, 0, 0, 0];
    fixed[8..12].copy_from_slice(&nexthop_flags.to_ne_bytes());
    let mut message = Message::new(kind, flags, &fixed);
    if route.prefix > 0 {
        message.attr(RTA_DST, &route.destination.octets());
    }
    if let Some(via) = route.via {
        message.attr(RTA_GATEWAY, &via.octets());
    }
    if let Some(source) = route.source {
        message.attr(RTA_PREFSRC, &source.octets());
    }
    message.native(RTA_OIF, route.link);
    message
}

fn read_link(payload: &[u8]) -> Option<Link> {
    let attributes = payload.get(16..)?;
    Some(Link {
        index: wire::u32_at(payload, 4)?,
        up: wire::u32_at(payload, 8)? & IFF_UP != 0,
        name: wire::text(wire::find(attributes, IFLA_IFNAME)?),
        mac: wire::find(attributes, IFLA_ADDRESS).and_then(|mac| mac.try_into().ok()),
        mtu: wire::find(attributes, IFLA_MTU).and_then(|mtu| wire::u32_at(mtu, 0))?,
        master: wire::find(attributes, IFLA_MASTER).and_then(|index| wire::u32_at(index, 0)),
        peer: wire::find(attributes, IFLA_LINK).and_then(|index| wire::u32_at(index, 0)),
        kind: wire::find(attributes, IFLA_LINKINFO)
            .and_then(|i| wire::find(i, IFLA_INFO_KIND))
            .map(wire::text),
    })
}

fn read_address(payload: &[u8]) -> Option<(u32, Ipv4Addr, u8)> {
    let address = wire::find(payload.get(8..)?, IFA_LOCAL)?;
    Some((wire::u32_at(payload, 4)?, ipv4(address)?, *payload.get(1)?))
}

fn read_route(payload: &[u8]) -> Option<Route> {
    let attributes = payload.get(12..)?;
    if payload[4] != TABLE_MAIN || payload[7] != TYPE_UNICAST {
        return None;
    }
    Some(Route {
        destination: wire::find(attributes, RTA_DST).and_then(ipv4).unwrap_or(Ipv4Addr::UNSPECIFIED),
        prefix: payload[1],
        via: wire::find(attributes, RTA_GATEWAY).and_then(ipv4),
        link: wire::find(attributes, RTA_OIF).and_then(|index| wire::u32_at(index, 0))?,
        onlink: wire::u32_at(payload, 8)? & RTNH_F_ONLINK != 0,
        source: wire::find(attributes, RTA_PREFSRC).and_then(ipv4),
        protocol: payload[5],
    })
}

fn ipv4(bytes: &[u8]) -> Option<Ipv4Addr> {
    Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?))
}
