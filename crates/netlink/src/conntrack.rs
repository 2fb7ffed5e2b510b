//! The connections that the kernel tracks (ctnetlink), for IPv4.

use std::net::Ipv4Addr;

use crate::Result;
use crate::socket::Socket;
use crate::wire::{self, ACK, DUMP, Message};

const CT_GET: u16 = (1 << 8) | 1;
const CT_DELETE: u16 = (1 << 8) | 2;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_ID: u16 = 12;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const FAMILY: [u8; 4] = [2, 0, 0, 0];

/// One tracked connection.
#[derive(Clone, Debug)]
pub struct Connection {
    /// As the client sent it.
    pub original: Tuple,
    /// As the answers come: its source is where the connection was translated to.
    pub reply: Tuple,
    key: Vec<u8>,
    id: Option<Vec<u8>>,
}

/// Addresses and ports of one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple {
    /// The IP protocol's number.
    pub protocol: u8,
    pub source: (Ipv4Addr, u16),
    pub destination: (Ipv4Addr, u16),
}

/// Every connection of the calling thread's namespace that `wanted` picks.
pub fn list(wanted: impl Fn(&Connection) -> bool) -> Result<Vec<Connection>> {
    let request = || Message::new(CT_GET, DUMP, &FAMILY);
    Socket::netfilter()?.dump(request, || "list connections".into(), |payload| read(payload).filter(&wanted))
}

/// Forgets connections, so that their next packet is judged anew; those that ended meanwhile are fine.
pub fn delete(connections: &[Connection]) -> Result<()> {
    let mut socket = Socket::netfilter()?;
    for connection in connections {
        let mut message = Message::new(CT_DELETE, ACK, &FAMILY);
        message.attr(CTA_TUPLE_ORIG | 0x8000, &connection.key);
        if let Some(id) = &connection.id {
            message.attr(CTA_ID, id);
        }
        match socket.request(message, || format!("forget the connection {:?}", connection.original)) {
            Err(error) if !error.is_absent() => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn read(payload: &[u8]) -> Option<Connection> {
    let attributes = payload.get(4..)?;
    let key = wire::find(attributes, CTA_TUPLE_ORIG)?;
    Some(Connection {
        original: tuple(key)?,
        reply: tuple(wire::find(attributes, CTA_TUPLE_REPLY)?)?,
        key: key.to_vec(),
        id: wire::find(attributes, CTA_ID).map(<[u8]>::to_vec),
    })
}

fn tuple(bytes: &[u8]) -> Option<Tuple> {
    let ip = wire::find(bytes, CTA_TUPLE_IP)?;
    let transport = wire::find(bytes, CTA_TUPLE_PROTO)?;
    let address = |kind| Some(Ipv4Addr::from(<[u8; 4]>::try_from(wire::find(ip, kind)?).ok()?));
    // ICMP has no ports.
    let port = |kind| {
        let bytes = wire::find(transport, kind)?;
        Some(u16::from_be_bytes(bytes.try_into().ok()?))
    };
    Some(Tuple {
        protocol: *wire::find(transport, 1)?.first()?,
        source: (address(1)?, port(2).unwrap_or(0)),
        destination: (address(2)?, port(3).unwrap_or(0)),
    })
}
