//! The site's pool: a /24 of 198.18.0.0/15 (RFC 2544's test range, which no network should use).

use std::fmt;
use std::net::Ipv4Addr;

use plan::net::Cidr;
use serde::{Deserialize, Serialize};

/// A /24 whose addresses the host reaches: .1 is the host, .2 the site's edge, .3 its issuers of tokens, the rest machines and load
/// balancers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    network: Ipv4Addr,
}

/// How many /24 networks 198.18.0.0/15 has.
const COUNT: u32 = 512;

impl Pool {
    pub const PREFIX: u8 = 24;
    /// Where all pools are.
    pub const ALL: Cidr = Cidr::new(Ipv4Addr::new(198, 18, 0, 0), 15);

    fn nth(n: u32) -> Self {
        Self { network: Ipv4Addr::from(u32::from(Ipv4Addr::new(198, 18, 0, 0)) + ((n % COUNT) << 8)) }
    }

    /// The first pool that `taken` (networks as address and prefix) leaves free, from a place that depends on the
    /// site's id, so that sites rarely look at the same one.
    pub fn choose(id: &str, taken: &[(Ipv4Addr, u8)]) -> Option<Self> {
        let start = id.bytes().fold(0u32, |hash, byte| hash.wrapping_mul(31).wrapping_add(byte.into()));
        (0..COUNT).map(|n| Self::nth(start.wrapping_add(n))).find(|pool| !pool.collides(taken))
    }

    /// Whether a network other than the default route overlaps.
    pub fn collides(self, taken: &[(Ipv4Addr, u8)]) -> bool {
        taken
            .iter()
            .any(|&(network, prefix)| prefix > 0 && overlap((self.network, Self::PREFIX), (network, prefix)))
    }

    pub fn network(self) -> Ipv4Addr {
        self.network
    }

    pub fn range(self) -> Cidr {
        Cidr::new(self.network, Self::PREFIX)
    }

    pub fn host(self) -> Ipv4Addr {
        self.address(1)
    }

    /// The edge's own address, the gateway to all others.
    pub fn edge(self) -> Ipv4Addr {
        self.address(2)
    }

    /// Where the edge answers for the site's issuers of tokens: the host reaches it, and whatever leaves a VPC.
    pub fn issuers(self) -> Ipv4Addr {
        self.address(3)
    }

    /// Addresses for machines and load balancers.
    pub fn assignable(self) -> impl Iterator<Item = Ipv4Addr> {
        (10..=250).map(move |last| self.address(last))
    }

    fn address(self, last: u8) -> Ipv4Addr {
        let [a, b, c, _] = self.network.octets();
        Ipv4Addr::new(a, b, c, last)
    }
}

impl fmt::Display for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, Self::PREFIX)
    }
}

pub(crate) fn overlap(a: (Ipv4Addr, u8), b: (Ipv4Addr, u8)) -> bool {
    let prefix = u32::from(a.1.min(b.1));
    let mask = if prefix == 0 { 0 } else { u32::MAX << (32 - prefix) };
    u32::from(a.0) & mask == u32::from(b.0) & mask
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_free_pool_is_chosen_beside_what_is_taken() {
        let first = Pool::choose("alpha", &[(Ipv4Addr::UNSPECIFIED, 0)]).unwrap();
        let second = Pool::choose("alpha", &[(first.network(), 24)]).unwrap();
        assert_ne!(first, second);
        assert!(first.collides(&[(first.host(), 32)]));
        assert_eq!(Pool::choose("alpha", &[(Ipv4Addr::new(198, 18, 0, 0), 15)]), None);
        let all_but_one: Vec<_> =
            (0..COUNT).map(Pool::nth).filter(|p| *p != second).map(|p| (p.network(), 24)).collect();
        assert_eq!(Pool::choose("alpha", &all_but_one), Some(second));
    }

    #[test]
    fn overlaps() {
        let net = |text: &str| {
            let (address, prefix) = text.split_once('/').unwrap();
            (address.parse().unwrap(), prefix.parse().unwrap())
        };
        assert!(overlap(net("10.0.0.0/8"), net("10.1.0.0/16")));
        assert!(!overlap(net("10.0.0.0/16"), net("10.1.0.0/16")));
        assert!(overlap(net("0.0.0.0/0"), net("10.1.0.0/16")));
        assert!(overlap(net("10.1.2.3/32"), net("10.1.2.3/32")));
    }
}
