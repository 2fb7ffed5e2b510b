//! One transaction on one table.

use crate::Result;
use crate::nft::{Data, Element, Expr, Set, Type, Values, expr};
use crate::socket::Socket;
use crate::wire::{self, APPEND, CREATE, DUMP, Message};

const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const SUBSYSTEM: u16 = 10;
const NEWTABLE: u16 = 0;
const GETTABLE: u16 = 1;
const DELTABLE: u16 = 2;
const NEWCHAIN: u16 = 3;
const GETCHAIN: u16 = 4;
const DELCHAIN: u16 = 5;
const NEWRULE: u16 = 6;
const GETRULE: u16 = 7;
const DELRULE: u16 = 8;
const NEWSET: u16 = 9;
const DELSET: u16 = 11;
const NEWSETELEM: u16 = 12;
const DELSETELEM: u16 = 14;

const SET_ANONYMOUS: u32 = 0x1;
const SET_CONSTANT: u32 = 0x2;
const SET_INTERVAL: u32 = 0x4;
const SET_MAP: u32 = 0x8;
const SET_TIMEOUT: u32 = 0x10;
const SET_EVAL: u32 = 0x20;
const DATA_VERDICT: u32 = 0xffff_ff00;

/// An attribute's length is 16 bits; lists of elements are cut well before.
const ELEMENTS_BYTES: usize = 32 * 1024;

#[derive(Clone, Copy, Debug)]
pub enum Kind {
    Filter,
    Nat,
}

#[derive(Clone, Copy, Debug)]
pub enum Hook {
    Prerouting = 0,
    Input = 1,
    Forward = 2,
    Output = 3,
    Postrouting = 4,
}

/// A chain that packets enter by themselves.
#[derive(Clone, Copy, Debug)]
pub struct BaseChain {
    pub kind: Kind,
    pub hook: Hook,
    /// Lower comes first; translation of destinations is at -100, of sources at 100.
    pub priority: i32,
}

/// Changes that the kernel makes all at once, or not at all.
pub struct Batch<'a> {
    table: &'a str,
    datagram: Vec<u8>,
    /// What each message does, for errors: by sequence number, from 1.
    steps: Vec<String>,
    next_set: u32,
}

impl<'a> Batch<'a> {
    /// A transaction on `table` of family ip.
    pub fn new(table: &'a str) -> Self {
        let mut batch = Self { table, datagram: Vec::new(), steps: Vec::new(), next_set: 1 };
        batch.push(Message::new(BATCH_BEGIN, 0, &fixed(0, SUBSYSTEM)), || "begin".into());
        batch
    }

    /// Adds the table, which may exist.
    pub fn add_table(&mut self) {
        let mut message = message(NEWTABLE, CREATE);
        message.text(1, self.table).number(2, 0);
        let table = self.table;
        self.push(message, || format!("add table ip {table}"));
    }

    /// Deletes the table with all it holds. It must exist: `add_table` before makes that sure.
    pub fn delete_table(&mut self) {
        let mut message = message(DELTABLE, 0);
        message.text(1, self.table);
        let table = self.table;
        self.push(message, || format!("delete table ip {table}"));
    }

    pub fn add_base_chain(&mut self, name: &str, base: BaseChain) {
        let mut message = self.chain(NEWCHAIN, CREATE, name);
        message.nest(4, |m| {
            m.number(1, base.hook as u32).number(2, base.priority as u32);
        });
        const POLICY_ACCEPT: u32 = 1;
        message.number(5, POLICY_ACCEPT);
        message.text(
            7,
            match base.kind {
                Kind::Filter => "filter",
                Kind::Nat => "nat",
            },
        );
        self.push(message, || format!("add base chain {name}"));
    }

    pub fn add_chain(&mut self, name: &str) {
        let message = self.chain(NEWCHAIN, CREATE, name);
        self.push(message, || format!("add chain {name}"));
    }

    /// Deletes a chain that nothing leads to and that has no rules left.
    pub fn delete_chain(&mut self, name: &str) {
        let message = self.chain(DELCHAIN, 0, name);
        self.push(message, || format!("delete chain {name}"));
    }

    /// Deletes the rules of a chain.
    pub fn flush_chain(&mut self, name: &str) {
        let mut message = message(DELRULE, 0);
        message.text(1, self.table).text(2, name);
        self.push(message, || format!("flush chain {name}"));
    }

    pub fn add_rule(&mut self, chain: &str, rule: &[Expr]) {
        self.add_rule_with(chain, rule, None);
    }

    /// A rule with a comment, which the `nft` tool shows and [`comments`] reads.
    pub fn add_rule_with(&mut self, chain: &str, rule: &[Expr], comment: Option<&str>) {
        let mut message = message(NEWRULE, CREATE | APPEND);
        message.text(1, self.table).text(2, chain).nest(4, |m| rule.iter().for_each(|expr| expr.encode(m)));
        if let Some(comment) = comment {
            let mut userdata = vec![0, comment.len() as u8 + 1];
            userdata.extend_from_slice(comment.as_bytes());
            userdata.push(0);
            message.attr(7, &userdata);
        }
        self.push(message, || format!("add a rule to chain {chain}"));
    }

    pub fn add_set(&mut self, set: &Set<'_>) {
        let mut flags = 0;
        if set.interval {
            flags |= SET_INTERVAL;
        }
        if set.dynamic_timeout_ms.is_some() {
            flags |= SET_TIMEOUT | SET_EVAL;
        }
        self.push_set(set, flags);
    }

    pub fn delete_set(&mut self, name: &str) {
        let mut message = message(DELSET, 0);
        message.text(1, self.table).text(2, name);
        self.push(message, || format!("delete set {name}"));
    }

    /// A map of one rule, which must be added in the same transaction and takes the map with it when it goes.
    /// Answers the name and id for [`Expr::Lookup`].
    pub fn anonymous_map(
        &mut self,
        key: &'static [Type],
        values: Values,
        elements: &[Element],
    ) -> (String, u32) {
        self.anonymous("__map%d", key, values, elements)
    }

    /// Like [`Batch::anonymous_map`] for a set.
    pub fn anonymous_set(&mut self, key: &'static [Type], elements: &[Element]) -> (String, u32) {
        self.anonymous("__set%d", key, Values::None, elements)
    }

    fn anonymous(
        &mut self,
        name: &str,
        key: &'static [Type],
        values: Values,
        elements: &[Element],
    ) -> (String, u32) {
        let set = Set { size: Some(elements.len() as u32), ..Set::fixed(name, key, values) };
        let id = self.push_set(&set, SET_ANONYMOUS | SET_CONSTANT);
        self.push_elements(NEWSETELEM, CREATE, name, Some(id), elements);
        (name.to_owned(), id)
    }

    pub fn add_elements(&mut self, set: &str, elements: &[Element]) {
        self.push_elements(NEWSETELEM, CREATE, set, None, elements);
    }

    pub fn delete_elements(&mut self, set: &str, elements: &[Element]) {
        self.push_elements(DELSETELEM, 0, set, None, elements);
    }

    /// Deletes all elements.
    pub fn flush_set(&mut self, set: &str) {
        let mut message = message(DELSETELEM, 0);
        message.text(1, self.table).text(2, set);
        self.push(message, || format!("flush set {set}"));
    }

    /// Makes the changes in the calling thread's network namespace.
    pub fn commit(mut self) -> Result<()> {
        self.push(Message::new(BATCH_END, 0, &fixed(0, SUBSYSTEM)), || "end".into());
        let table = self.table;
        let explain = |sequence: u32| {
            let step = (sequence as usize).checked_sub(1).and_then(|at| self.steps.get(at));
            format!("nftables table ip {table}: {}", step.map_or("commit", String::as_str))
        };
        Socket::netfilter()?.transact(&self.datagram, explain)
    }

    fn push(&mut self, message: Message, step: impl FnOnce() -> String) {
        let step = step();
        self.steps.push(step);
        let bytes = message.finish(self.steps.len() as u32);
        self.datagram.extend_from_slice(&bytes);
    }

    fn chain(&self, kind: u16, flags: u16, name: &str) -> Message {
        let mut message = message(kind, flags);
        message.text(1, self.table).text(3, name);
        message
    }

    fn push_set(&mut self, set: &Set<'_>, mut flags: u32) -> u32 {
        let id = self.next_set;
        self.next_set += 1;
        if !matches!(set.values, Values::None) {
            flags |= SET_MAP;
        }
        let mut message = message(NEWSET, CREATE);
        message.text(1, self.table).text(2, set.name).number(3, flags);
        message.number(4, Type::concat(set.key)).number(5, Type::bytes(set.key));
        match set.values {
            Values::None => {}
            Values::Data(types) => {
                message.number(6, Type::concat(types)).number(7, Type::bytes(types));
            }
            Values::Verdict => {
                message.number(6, DATA_VERDICT).number(7, 0);
            }
        }
        if let Some(size) = set.size {
            message.nest(9, |m| {
                m.number(1, size);
            });
        }
        message.number(10, id);
        if let Some(timeout) = set.dynamic_timeout_ms {
            message.attr(11, &timeout.to_be_bytes());
        }
        if set.key == [Type::Integer] {
            // Tells the tool that prints the map that its keys are in the machine's byte order.
            message.attr(13, &[0, 4, 1, 0, 0, 0]);
        }
        self.push(message, || format!("add set {}", set.name));
        id
    }

    fn push_elements(&mut self, kind: u16, flags: u16, set: &str, id: Option<u32>, elements: &[Element]) {
        let mut rest = elements;
        while !rest.is_empty() {
            let mut taken = 0;
            let mut message = message(kind, flags);
            message.text(1, self.table).text(2, set);
            if let Some(id) = id {
                message.number(4, id);
            }
            message.nest(3, |m| {
                let start = m.bytes.len();
                while taken < rest.len() && m.bytes.len() - start < ELEMENTS_BYTES {
                    push_element(m, &rest[taken]);
                    taken += 1;
                }
            });
            let verb = if kind == NEWSETELEM { "add" } else { "delete" };
            self.push(message, || format!("{verb} {taken} elements of set {set}"));
            rest = &rest[taken..];
        }
    }
}

fn push_element(m: &mut Message, element: &Element) {
    m.nest(1, |m| {
        m.nest(1, |m| expr::data(m, &Data::Value(element.key.clone())));
        if let Some(data) = &element.data {
            m.nest(2, |m| expr::data(m, data));
        }
        if element.interval_end {
            m.number(3, 1);
        }
    });
}

/// The names of all tables of family ip in the calling thread's network namespace.
pub fn tables() -> Result<Vec<String>> {
    let name = |payload: &[u8]| wire::find(payload.get(4..)?, 1).map(wire::text);
    let listed = Socket::netfilter().and_then(|mut socket| {
        socket.dump(|| message(GETTABLE, DUMP), || "list nftables tables".into(), name)
    });
    match listed {
        // A kernel without nftables has no tables.
        Err(error) if error.is_unsupported() => Ok(Vec::new()),
        other => other,
    }
}

/// A chain of anybody's that packets enter by themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundChain {
    pub table: String,
    pub name: String,
    /// NF_INET_PRE_ROUTING is 0, forward 2: as in [`Hook`]. Other families number theirs otherwise.
    pub hook: u32,
    /// What it does not speak about is dropped.
    pub drops: bool,
}

/// Every base chain that sees IPv4: those of the families ip and inet.
pub fn base_chains() -> Result<Vec<FoundChain>> {
    const ANY_FAMILY: u8 = 0;
    const INET: u8 = 1;
    const IPV4: u8 = 2;
    let request = || Message::new((SUBSYSTEM << 8) | GETCHAIN, DUMP, &fixed(ANY_FAMILY, 0));
    Socket::netfilter()?.dump(
        request,
        || "list nftables chains".into(),
        |payload| {
            let sees_ipv4 = matches!(payload.first(), Some(&(INET | IPV4)));
            read_base_chain(payload.get(4..).filter(|_| sees_ipv4)?)
        },
    )
}

fn read_base_chain(attributes: &[u8]) -> Option<FoundChain> {
    let number = |bytes: &[u8]| Some(u32::from_be_bytes(bytes.try_into().ok()?));
    const DROP: u32 = 0;
    Some(FoundChain {
        table: wire::text(wire::find(attributes, 1)?),
        name: wire::text(wire::find(attributes, 3)?),
        hook: number(wire::find(wire::find(attributes, 4)?, 1)?)?,
        drops: wire::find(attributes, 5).and_then(number) == Some(DROP),
    })
}

/// The comments of a chain's rules; none if there is no such table or chain.
pub fn comments(table: &str, chain: &str) -> Result<Vec<String>> {
    let request = || {
        let mut request = message(GETRULE, DUMP);
        request.text(1, table).text(2, chain);
        request
    };
    let done = Socket::netfilter()?.dump(
        request,
        || format!("list rules of chain {table} {chain}"),
        |payload| {
            let attributes = payload.get(4..)?;
            let is = |kind, name: &str| wire::find(attributes, kind).map(wire::text).as_deref() == Some(name);
            match wire::find(attributes, 7).filter(|_| is(1, table) && is(2, chain))? {
                [0, length, text @ ..] => text.get(..usize::from(*length)).map(wire::text),
                _ => None,
            }
        },
    );
    match done {
        Err(error) if error.is_absent() => Ok(Vec::new()),
        other => other,
    }
}

fn message(kind: u16, flags: u16) -> Message {
    const NFPROTO_IPV4: u8 = 2;
    Message::new((SUBSYSTEM << 8) | kind, flags, &fixed(NFPROTO_IPV4, 0))
}

/// struct nfgenmsg
fn fixed(family: u8, resource: u16) -> [u8; 4] {
    let [high, low] = resource.to_be_bytes();
    [family, 0, high, low]
}
