//! nftables over nfnetlink: tables, chains, sets, maps and rules in atomic transactions, for IPv4.

mod batch;
mod expr;

pub use batch::{BaseChain, Batch, FoundChain, Hook, Kind, base_chains, comments, tables};
pub use expr::{Cmp, Data, DynsetOp, Expr, Meta, Reg, Register, Target};

/// The type of a field of a set's key or data, numbered as the `nft` tool numbers them so that it can print them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    Integer = 4,
    Ipv4Addr = 7,
    InetProto = 12,
    InetService = 13,
    /// Any 32 bits in the machine's byte order.
    Mark = 19,
}

impl Type {
    const BITS: u32 = 6;

    /// One number for a concatenation of types.
    fn concat(types: &[Self]) -> u32 {
        types.iter().fold(0, |number, kind| (number << Self::BITS) | *kind as u32)
    }

    /// Bytes of a concatenation: every field of ours fits a 32-bit register.
    fn bytes(types: &[Self]) -> u32 {
        if let [one] = types {
            return match one {
                Self::Integer | Self::Ipv4Addr | Self::Mark => 4,
                Self::InetProto => 1,
                Self::InetService => 2,
            };
        }
        4 * types.len() as u32
    }
}

/// What a map's keys lead to.
#[derive(Clone, Copy, Debug)]
pub enum Values {
    /// A set: keys only.
    None,
    /// A map to values of these types, concatenated.
    Data(&'static [Type]),
    /// A map to verdicts.
    Verdict,
}

/// A named set or map.
#[derive(Clone, Debug)]
pub struct Set<'a> {
    pub name: &'a str,
    pub key: &'static [Type],
    pub values: Values,
    /// Keys are ranges, as those of [`Element::cidr`].
    pub interval: bool,
    /// Rules add elements, which live this long.
    pub dynamic_timeout_ms: Option<u64>,
    /// No more elements than this; for dynamic sets, which strangers fill.
    pub size: Option<u32>,
}

impl<'a> Set<'a> {
    /// A set or map that only transactions change.
    pub fn fixed(name: &'a str, key: &'static [Type], values: Values) -> Self {
        Self { name, key, values, interval: false, dynamic_timeout_ms: None, size: None }
    }
}

/// An element of a set or map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Element {
    pub key: Vec<u8>,
    pub data: Option<Data>,
    /// The first key after a range.
    pub interval_end: bool,
}

impl Element {
    pub fn key(key: Vec<u8>) -> Self {
        Self { key, data: None, interval_end: false }
    }

    pub fn pair(key: Vec<u8>, data: Data) -> Self {
        Self { key, data: Some(data), interval_end: false }
    }

    /// The two elements of the range from `first` to `last` that leads to `data`; the second is left out where the range
    /// ends the address space.
    pub fn range(first: std::net::Ipv4Addr, last: std::net::Ipv4Addr, data: Option<Data>) -> Vec<Self> {
        let mut elements = vec![Self { key: first.octets().to_vec(), data, interval_end: false }];
        if let Some(end) = u32::from(last).checked_add(1) {
            elements.push(Self { key: end.to_be_bytes().to_vec(), data: None, interval_end: true });
        }
        elements
    }

    /// The two elements of an address range; the second is left out where the range ends the address space.
    pub fn cidr(address: std::net::Ipv4Addr, prefix: u8) -> Vec<Self> {
        let size = 1u64 << (32 - u32::from(prefix.min(32)));
        let first = u64::from(u32::from(address)) & !(size - 1);
        let mut elements = vec![Self::key((first as u32).to_be_bytes().to_vec())];
        if let Ok(end) = u32::try_from(first + size) {
            elements.push(Self { key: end.to_be_bytes().to_vec(), data: None, interval_end: true });
        }
        elements
    }
}

/// A key of several fields: each starts a 32-bit register.
pub fn concat(fields: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(fields.len() * 4);
    for field in fields {
        bytes.extend_from_slice(field);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    bytes
}
