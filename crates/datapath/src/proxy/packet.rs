//! What rules look at in a packet, and what they do to it, as lists of expressions.

use netlink::nft::{Cmp, Expr, Meta, Reg};

/// The bit of the packet's mark that asks for masquerading, the same as kube-proxy's.
const MASQUERADE_MARK: u32 = 0x4000;

pub fn source(to: Reg) -> Vec<Expr> {
    vec![Expr::Network { offset: SOURCE, length: 4, to }]
}

pub fn destination(to: Reg) -> Vec<Expr> {
    vec![Expr::Network { offset: DESTINATION, length: 4, to }]
}

pub fn l4proto(to: Reg) -> Vec<Expr> {
    vec![Expr::Meta { key: Meta::L4proto, to }]
}

/// The destination's port, at the same place in TCP, UDP and SCTP.
pub fn port(to: Reg) -> Vec<Expr> {
    vec![Expr::Transport { offset: 2, length: 2, to }]
}

pub fn in_set(set: &str, key: Reg, invert: bool) -> Expr {
    Expr::Lookup { set: set.to_owned(), id: None, key, to: None, invert }
}

/// RTN_LOCAL in rtnetlink(7), in the machine's byte order.
const LOCAL: u32 = 2;

pub fn from_here() -> Vec<Expr> {
    vec![
        Expr::AddressType { source: true, to: 0 },
        Expr::Cmp { op: Cmp::Eq, reg: 0, value: LOCAL.to_ne_bytes().to_vec() },
    ]
}

pub fn not_from_here() -> Vec<Expr> {
    vec![
        Expr::AddressType { source: true, to: 0 },
        Expr::Cmp { op: Cmp::Ne, reg: 0, value: LOCAL.to_ne_bytes().to_vec() },
    ]
}

/// To an address of this node other than loopback, where node ports are not served.
pub fn to_here() -> Vec<Expr> {
    [loopback(DESTINATION, Cmp::Ne), is_to_here()].concat()
}

pub fn is_to_here() -> Vec<Expr> {
    vec![
        Expr::AddressType { source: false, to: 0 },
        Expr::Cmp { op: Cmp::Eq, reg: 0, value: LOCAL.to_ne_bytes().to_vec() },
    ]
}

/// Where the addresses lie in the IPv4 header.
pub const SOURCE: u32 = 12;
pub const DESTINATION: u32 = 16;

/// Whether an address is in 127.0.0.0/8.
pub fn loopback(offset: u32, op: Cmp) -> Vec<Expr> {
    vec![
        Expr::Network { offset, length: 4, to: 0 },
        Expr::Bitwise { reg: 0, mask: [0xff, 0, 0, 0], xor: [0; 4] },
        Expr::Cmp { op, reg: 0, value: vec![127, 0, 0, 0] },
    ]
}

pub fn not_out_of_lo() -> Vec<Expr> {
    vec![Expr::Meta { key: Meta::Oifname, to: 0 }, Expr::Cmp { op: Cmp::Ne, reg: 0, value: lo() }]
}

pub fn not_in_by_lo() -> Vec<Expr> {
    vec![Expr::Meta { key: Meta::Iifname, to: 0 }, Expr::Cmp { op: Cmp::Ne, reg: 0, value: lo() }]
}

/// A link's name, as wide as names are.
pub fn lo() -> Vec<u8> {
    let mut name = b"lo".to_vec();
    name.resize(16, 0);
    name
}

/// Bits of the connection's state (nf_conntrack_common.h).
const INVALID: u32 = 1;
const NEW: u32 = 8;

pub fn new_connection() -> Vec<Expr> {
    state(NEW)
}

pub fn invalid() -> Vec<Expr> {
    state(INVALID)
}

pub fn state(bits: u32) -> Vec<Expr> {
    const CT_STATE: u32 = 0;
    vec![
        Expr::Ct { key: CT_STATE, to: 0 },
        Expr::Bitwise { reg: 0, mask: bits.to_ne_bytes(), xor: [0; 4] },
        Expr::Cmp { op: Cmp::Ne, reg: 0, value: vec![0; 4] },
    ]
}

pub fn mark() -> Vec<Expr> {
    let (mask, xor) = ((!MASQUERADE_MARK).to_ne_bytes(), MASQUERADE_MARK.to_ne_bytes());
    vec![
        Expr::Meta { key: Meta::Mark, to: 0 },
        Expr::Bitwise { reg: 0, mask, xor },
        Expr::SetMark { from: 0 },
    ]
}

pub fn unmark() -> Vec<Expr> {
    let mask = (!MASQUERADE_MARK).to_ne_bytes();
    vec![
        Expr::Meta { key: Meta::Mark, to: 0 },
        Expr::Bitwise { reg: 0, mask, xor: [0; 4] },
        Expr::SetMark { from: 0 },
    ]
}

pub fn is_marked() -> Vec<Expr> {
    vec![
        Expr::Meta { key: Meta::Mark, to: 0 },
        Expr::Bitwise { reg: 0, mask: MASQUERADE_MARK.to_ne_bytes(), xor: [0; 4] },
        Expr::Cmp { op: Cmp::Ne, reg: 0, value: vec![0; 4] },
    ]
}
