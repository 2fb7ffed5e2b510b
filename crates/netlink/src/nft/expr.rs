//! The expressions of rules (linux/netfilter/nf_tables.h), each with its attributes.

use crate::wire::Message;

/// One of the sixteen 32-bit registers that expressions pass values in.
pub type Reg = u8;

/// How attributes name a register: the verdict is 0, the 32-bit ones start at 8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Register {
    Verdict,
    Data(Reg),
}

impl Register {
    fn number(self) -> u32 {
        match self {
            Self::Verdict => 0,
            Self::Data(reg) => 8 + u32::from(reg),
        }
    }
}

/// What a packet's metadata offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meta {
    Mark = 3,
    Iifname = 6,
    Oifname = 7,
    L4proto = 16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cmp {
    Eq = 0,
    Ne = 1,
    /// These two compare as numbers in network byte order.
    Lte = 3,
    Gte = 5,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DynsetOp {
    Add = 0,
    Update = 1,
    Delete = 2,
}

/// Where a verdict sends the packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Accept,
    Drop,
    Jump(String),
    Goto(String),
    Return,
}

/// A value or a verdict, as elements and immediates carry them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    Value(Vec<u8>),
    Verdict(Target),
}

/// One step of a rule. Loads write a register; comparisons and lookups end the rule when they do not match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expr {
    /// Loads from the network header (IPv4).
    Network {
        offset: u32,
        length: u32,
        to: Reg,
    },
    /// Loads from the transport header.
    Transport {
        offset: u32,
        length: u32,
        to: Reg,
    },
    Meta {
        key: Meta,
        to: Reg,
    },
    SetMark {
        from: Reg,
    },
    /// Loads a field of the connection: 0 state, 2 status.
    Ct {
        key: u32,
        to: Reg,
    },
    /// The kind of address that the routing table says the packet's destination (or source) is: 2 is local.
    AddressType {
        source: bool,
        to: Reg,
    },
    /// A random number below `modulus`, in the machine's byte order.
    Random {
        modulus: u32,
        to: Reg,
    },
    /// `to = (from & mask) ^ xor` on 32 bits.
    Bitwise {
        reg: Reg,
        mask: [u8; 4],
        xor: [u8; 4],
    },
    Cmp {
        op: Cmp,
        reg: Reg,
        value: Vec<u8>,
    },
    /// Is the key in the set? With `to`: and what does the map say? `id` for a set made in the same transaction.
    Lookup {
        set: String,
        id: Option<u32>,
        key: Reg,
        to: Option<Register>,
        invert: bool,
    },
    /// Changes a dynamic set from the packet's path.
    Dynset {
        op: DynsetOp,
        set: String,
        key: Reg,
        data: Option<Reg>,
        timeout_ms: Option<u64>,
    },
    Immediate {
        to: Reg,
        value: Vec<u8>,
    },
    Verdict(Target),
    /// Rewrites the destination.
    Dnat {
        address: Reg,
        port: Option<Reg>,
    },
    /// Rewrites the source.
    Snat {
        address: Reg,
    },
    /// Rewrites the source to the address of the link that the packet leaves by, with a random port.
    Masquerade,
    /// Answers ICMP port unreachable.
    Reject,
}

const NF_INET_IPV4: u32 = 2;

impl Expr {
    fn name(&self) -> &'static str {
        match self {
            Self::Network { .. } | Self::Transport { .. } => "payload",
            Self::Meta { .. } | Self::SetMark { .. } => "meta",
            Self::Ct { .. } => "ct",
            Self::AddressType { .. } => "fib",
            Self::Random { .. } => "numgen",
            Self::Bitwise { .. } => "bitwise",
            Self::Cmp { .. } => "cmp",
            Self::Lookup { .. } => "lookup",
            Self::Dynset { .. } => "dynset",
            Self::Immediate { .. } | Self::Verdict(_) => "immediate",
            Self::Dnat { .. } | Self::Snat { .. } => "nat",
            Self::Masquerade => "masq",
            Self::Reject => "reject",
        }
    }

    pub(super) fn encode(&self, message: &mut Message) {
        const LIST_ELEM: u16 = 1;
        message.nest(LIST_ELEM, |m| {
            m.text(1, self.name()).nest(2, |m| self.attributes(m));
        });
    }

    fn attributes(&self, m: &mut Message) {
        let reg = |reg: Reg| Register::Data(reg).number();
        match self {
            Self::Network { offset, length, to } => {
                m.number(1, reg(*to)).number(2, 1).number(3, *offset).number(4, *length);
            }
            Self::Transport { offset, length, to } => {
                m.number(1, reg(*to)).number(2, 2).number(3, *offset).number(4, *length);
            }
            Self::Meta { key, to } => {
                m.number(1, reg(*to)).number(2, *key as u32);
            }
            Self::SetMark { from } => {
                m.number(2, Meta::Mark as u32).number(3, reg(*from));
            }
            Self::Ct { key, to } => {
                m.number(1, reg(*to)).number(2, *key);
            }
            Self::AddressType { source, to } => {
                const RESULT_ADDRTYPE: u32 = 3;
                m.number(1, reg(*to)).number(2, RESULT_ADDRTYPE).number(3, if *source { 1 } else { 2 });
            }
            Self::Random { modulus, to } => {
                m.number(1, reg(*to)).number(2, *modulus).number(3, 1).number(4, 0);
            }
            Self::Bitwise { reg: r, mask, xor } => {
                m.number(1, reg(*r)).number(2, reg(*r)).number(3, 4);
                m.nest(4, |m| value(m, mask)).nest(5, |m| value(m, xor));
            }
            Self::Cmp { op, reg: r, value: v } => {
                m.number(1, reg(*r)).number(2, *op as u32).nest(3, |m| value(m, v));
            }
            Self::Lookup { set, id, key, to, invert } => lookup(m, set, *id, *key, *to, *invert),
            Self::Dynset { op, set, key, data, timeout_ms } => {
                m.text(1, set).number(3, *op as u32).number(4, reg(*key));
                if let Some(data) = data {
                    m.number(5, reg(*data));
                }
                if let Some(timeout) = timeout_ms {
                    m.attr(6, &timeout.to_be_bytes());
                }
            }
            Self::Immediate { to, value: v } => {
                m.number(1, reg(*to)).nest(2, |m| value(m, v));
            }
            Self::Verdict(target) => {
                m.number(1, Register::Verdict.number()).nest(2, |m| verdict(m, target));
            }
            Self::Dnat { address, port } => {
                m.number(1, 1).number(2, NF_INET_IPV4).number(3, reg(*address));
                if let Some(port) = port {
                    m.number(5, reg(*port));
                }
            }
            Self::Snat { address } => {
                m.number(1, 0).number(2, NF_INET_IPV4).number(3, reg(*address));
            }
            Self::Masquerade => {
                const FULLY_RANDOM: u32 = 1 << 4;
                m.number(1, FULLY_RANDOM);
            }
            Self::Reject => {
                const ICMP_UNREACHABLE: u32 = 0;
                const PORT_UNREACHABLE: u8 = 3;
                m.number(1, ICMP_UNREACHABLE).attr(2, &[PORT_UNREACHABLE]);
            }
        }
    }
}

fn lookup(m: &mut Message, set: &str, id: Option<u32>, key: Reg, to: Option<Register>, invert: bool) {
    m.text(1, set).number(2, Register::Data(key).number());
    if let Some(to) = to {
        m.number(3, to.number());
    }
    if let Some(id) = id {
        m.number(4, id);
    }
    if invert {
        m.number(5, 1);
    }
}

/// The content of a data attribute.
pub(super) fn data(m: &mut Message, data: &Data) {
    match data {
        Data::Value(bytes) => value(m, bytes),
        Data::Verdict(target) => verdict(m, target),
    }
}

fn value(m: &mut Message, bytes: &[u8]) {
    m.attr(1, bytes);
}

fn verdict(m: &mut Message, target: &Target) {
    let (code, chain) = match target {
        Target::Drop => (0, None),
        Target::Accept => (1, None),
        Target::Jump(chain) => (-3, Some(chain)),
        Target::Goto(chain) => (-4, Some(chain)),
        Target::Return => (-5, None),
    };
    m.nest(2, |m| {
        m.number(1, code as u32);
        if let Some(chain) = chain {
            m.text(2, chain);
        }
    });
}
