//! Parts of rules: what they load and compare.

use netlink::nft::{Cmp, Expr, Meta, Register, Target};
use plan::net::Cidr;

/// Where the addresses lie in the IPv4 header.
const SOURCE: u32 = 12;
const DESTINATION: u32 = 16;

pub fn source() -> Expr {
    Expr::Network { offset: SOURCE, length: 4, to: 0 }
}

pub fn destination() -> Expr {
    Expr::Network { offset: DESTINATION, length: 4, to: 0 }
}

/// Goes on with packets that came in, or go out, by the link of that name, or by any other.
pub fn link(key: Meta, op: Cmp, name: &str) -> Vec<Expr> {
    let mut value = name.as_bytes().to_vec();
    value.resize(16, 0);
    vec![Expr::Meta { key, to: 0 }, Expr::Cmp { op, reg: 0, value }]
}

/// Goes on with packets whose loaded address is in a range.
pub fn within(load: Expr, range: Cidr) -> Vec<Expr> {
    compared(load, Cmp::Eq, range)
}

/// Goes on with packets whose loaded address is not in a range.
pub fn outside(load: Expr, range: Cidr) -> Vec<Expr> {
    compared(load, Cmp::Ne, range)
}

fn compared(load: Expr, op: Cmp, range: Cidr) -> Vec<Expr> {
    let mask = u32::MAX.checked_shl(32 - u32::from(range.prefix())).unwrap_or(0).to_be_bytes();
    let value = range.address().octets().to_vec();
    vec![load, Expr::Bitwise { reg: 0, mask, xor: [0; 4] }, Expr::Cmp { op, reg: 0, value }]
}

/// Goes on with packets of connections whose first packet was let through.
pub fn established_or_related() -> Vec<Expr> {
    const STATE: u32 = 0;
    const ESTABLISHED_OR_RELATED: u32 = 2 | 4;
    vec![
        Expr::Ct { key: STATE, to: 0 },
        Expr::Bitwise { reg: 0, mask: ESTABLISHED_OR_RELATED.to_ne_bytes(), xor: [0; 4] },
        Expr::Cmp { op: Cmp::Ne, reg: 0, value: vec![0; 4] },
    ]
}

pub fn destination_was_translated() -> Vec<Expr> {
    const STATUS: u32 = 2;
    const DST_NAT: u32 = 1 << 5;
    vec![
        Expr::Ct { key: STATUS, to: 0 },
        Expr::Bitwise { reg: 0, mask: DST_NAT.to_ne_bytes(), xor: [0; 4] },
        Expr::Cmp { op: Cmp::Ne, reg: 0, value: vec![0; 4] },
    ]
}

/// Goes on if the register's value is in a set.
pub fn in_set(set: &str) -> Expr {
    Expr::Lookup { set: set.to_owned(), id: None, key: 0, to: None, invert: false }
}

/// Does what a map of verdicts says; goes on if it says nothing.
pub fn verdict_of(map: &str) -> Expr {
    Expr::Lookup { set: map.to_owned(), id: None, key: 0, to: Some(Register::Verdict), invert: false }
}

/// Goes on with what a map says in the register; ends the rule if it says nothing.
pub fn value_of(map: &str) -> Expr {
    Expr::Lookup { set: map.to_owned(), id: None, key: 0, to: Some(Register::Data(0)), invert: false }
}

pub fn verdict(target: Target) -> Expr {
    Expr::Verdict(target)
}
