//! Kubernetes' address libraries: `ip()`, `cidr()`. <https://kubernetes.io/docs/reference/using-api/cel/#kubernetes-ip-address-library>

use std::any::Any;
use std::fmt;
use std::net::IpAddr;

use super::{opaque, overload, text};
use crate::error::EvalError;
use crate::function::Ty::{Bool, Int, Opaque as Of, String};
use crate::function::{Cost, Function, Ty};
use crate::value::{Opaque, Value};

const IP: Ty = Of("net.IP");
const CIDR: Ty = Of("net.CIDR");

pub const FUNCTIONS: &[Function] = &[
    Function {
        name: "cidr",
        overloads: &[overload!((String) -> CIDR, Cost::Walk(&[0]), |args| {
            let text = text(args, 0)?;
            let read = Cidr::read(text).map(Value::opaque);
            read.ok_or_else(|| EvalError::new(format!("network address parse error during conversion from string: {text:?}")))
        })],
    },
    Function {
        name: "containsCIDR",
        overloads: &[
            overload!(member (CIDR, CIDR) -> Bool, Cost::One, |args| Ok(holds(args, Some(*opaque::<Cidr>(args, 1)?)))),
            overload!(member (CIDR, String) -> Bool, Cost::One, |args| Ok(holds(args, Some(read_cidr(text(args, 1)?)?)))),
        ],
    },
    Function {
        name: "containsIP",
        overloads: &[
            overload!(member (CIDR, IP) -> Bool, Cost::One, |args| {
                let cidr = opaque::<Cidr>(args, 0)?;
                Ok(Value::Bool(cidr.contains(opaque::<Ip>(args, 1)?.0)))
            }),
            overload!(member (CIDR, String) -> Bool, Cost::One, |args| {
                let cidr = opaque::<Cidr>(args, 0)?;
                Ok(Value::Bool(cidr.contains(read_ip(text(args, 1)?)?)))
            }),
        ],
    },
    Function {
        name: "family",
        overloads: &[overload!(member (IP) -> Int, Cost::One, |args| {
            Ok(Value::Int(if opaque::<Ip>(args, 0)?.0.is_ipv4() { 4 } else { 6 }))
        })],
    },
    Function {
        name: "ip",
        overloads: &[
            overload!((String) -> IP, Cost::Walk(&[0]), |args| Ok(Value::opaque(Ip(read_ip(text(args, 0)?)?)))),
            overload!(member (CIDR) -> IP, Cost::One, |args| Ok(Value::opaque(Ip(opaque::<Cidr>(args, 0)?.address)))),
        ],
    },
    Function {
        name: "ip.isCanonical",
        overloads: &[overload!((String) -> Bool, Cost::Walk(&[0]), |args| {
            let text = text(args, 0)?;
            Ok(Value::Bool(read_ip(text)?.to_string() == text))
        })],
    },
    Function {
        name: "isCIDR",
        overloads: &[
            overload!((String) -> Bool, Cost::Walk(&[0]), |args| Ok(Value::Bool(Cidr::read(text(args, 0)?).is_some()))),
        ],
    },
    Function {
        name: "isGlobalUnicast",
        overloads: &[overload!(member (IP) -> Bool, Cost::One, |args| is(args, is_global_unicast))],
    },
    Function {
        name: "isIP",
        overloads: &[
            overload!((String) -> Bool, Cost::Walk(&[0]), |args| Ok(Value::Bool(read_ip(text(args, 0)?).is_ok()))),
        ],
    },
    Function {
        name: "isLinkLocalMulticast",
        overloads: &[overload!(member (IP) -> Bool, Cost::One, |args| is(args, is_link_local_multicast))],
    },
    Function {
        name: "isLinkLocalUnicast",
        overloads: &[overload!(member (IP) -> Bool, Cost::One, |args| is(args, is_link_local_unicast))],
    },
    Function {
        name: "isLoopback",
        overloads: &[overload!(member (IP) -> Bool, Cost::One, |args| is(args, |ip| ip.is_loopback()))],
    },
    Function {
        name: "isUnspecified",
        overloads: &[overload!(member (IP) -> Bool, Cost::One, |args| is(args, |ip| ip.is_unspecified()))],
    },
    Function {
        name: "masked",
        overloads: &[
            overload!(member (CIDR) -> CIDR, Cost::One, |args| Ok(Value::opaque(opaque::<Cidr>(args, 0)?.masked()))),
        ],
    },
    Function {
        name: "prefixLength",
        overloads: &[
            overload!(member (CIDR) -> Int, Cost::One, |args| Ok(Value::Int(i64::from(opaque::<Cidr>(args, 0)?.prefix)))),
        ],
    },
];

#[derive(Debug, PartialEq)]
pub struct Ip(pub IpAddr);

impl Opaque for Ip {
    fn type_name(&self) -> &'static str {
        "net.IP"
    }
    fn equals(&self, other: &dyn Opaque) -> bool {
        other.as_any().downcast_ref() == Some(self)
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// An address and the length of its network's prefix.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cidr {
    address: IpAddr,
    prefix: u8,
}

impl Opaque for Cidr {
    fn type_name(&self) -> &'static str {
        "net.CIDR"
    }
    fn equals(&self, other: &dyn Opaque) -> bool {
        other.as_any().downcast_ref() == Some(self)
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl Cidr {
    fn read(text: &str) -> Option<Self> {
        let (address, prefix) = text.split_once('/')?;
        let address = read_ip(address).ok()?;
        let is_number = !prefix.is_empty() && prefix.bytes().all(|byte| byte.is_ascii_digit());
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let is_plain = prefix == "0" || !prefix.starts_with('0');
        let prefix = prefix.parse().ok().filter(|prefix| is_number && is_plain && *prefix <= longest)?;
        Some(Self { address, prefix })
    }

    fn masked(&self) -> Self {
        let address = match self.address {
            IpAddr::V4(v4) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0);
                IpAddr::V4((v4.to_bits() & mask).into())
            }
            IpAddr::V6(v6) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.prefix)).unwrap_or(0);
                IpAddr::V6((v6.to_bits() & mask).into())
            }
        };
        Self { address, prefix: self.prefix }
    }

    fn contains(&self, ip: IpAddr) -> bool {
        self.address.is_ipv4() == ip.is_ipv4()
            && Self { address: ip, prefix: self.prefix }.masked().address == self.masked().address
    }
}

/// Plain addresses only: no zone, no IPv4 in an IPv6 coat.
fn read_ip(text: &str) -> Result<IpAddr, EvalError> {
    let wrong = |why: &str| {
        EvalError::new(format!("IP Address {text:?} parse error during conversion from string: {why}"))
    };
    let ip: IpAddr = text.parse().map_err(|_| wrong("unable to parse IP"))?;
    match ip {
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => {
            Err(wrong("IPv4-mapped IPv6 addresses are not allowed"))
        }
        ip => Ok(ip),
    }
}

fn read_cidr(text: &str) -> Result<Cidr, EvalError> {
    Cidr::read(text).ok_or_else(|| {
        EvalError::new(format!("network address parse error during conversion from string: {text:?}"))
    })
}

fn holds<'a>(args: &[Value<'a>], inner: Option<Cidr>) -> Value<'a> {
    let outer = opaque::<Cidr>(args, 0).ok();
    let held = outer
        .zip(inner)
        .is_some_and(|(outer, inner)| outer.prefix <= inner.prefix && outer.contains(inner.masked().address));
    Value::Bool(held)
}

fn is<'a>(args: &[Value<'a>], question: fn(IpAddr) -> bool) -> Result<Value<'a>, EvalError> {
    Ok(Value::Bool(question(opaque::<Ip>(args, 0)?.0)))
}

fn is_link_local_unicast(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

fn is_link_local_multicast(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => matches!(v4.octets(), [224, 0, 0, _]),
        IpAddr::V6(v6) => v6.segments()[0] & 0xff0f == 0xff02,
    }
}

/// As Go's: everything that is not unspecified, loopback, multicast, link-local or broadcast; private networks are.
fn is_global_unicast(ip: IpAddr) -> bool {
    let is_broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
    !(ip.is_unspecified()
        || ip.is_loopback()
        || ip.is_multicast()
        || is_link_local_unicast(ip)
        || is_broadcast)
}
