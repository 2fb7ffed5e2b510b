//! From chains and maps to transactions.

use std::collections::BTreeMap;

use netlink::nft::{self, Batch, Element, Expr, Register, Set, Type, Values};
use plan::net::Endpoint;

use super::compile::{self, Compiled, Rule, Step, endpoint_bytes};
use super::frame;
use crate::Result;

const ADDRESS: &[Type] = &[Type::Ipv4Addr];
const ADDRESS_PAIR: &[Type] = &[Type::Ipv4Addr, Type::Ipv4Addr];
const SERVICE: &[Type] = &[Type::Ipv4Addr, Type::InetProto, Type::InetService];
const NODE_PORT: &[Type] = &[Type::InetProto, Type::InetService];
const ENDPOINT: &[Type] = &[Type::Ipv4Addr, Type::InetService];
const MARK: &[Type] = &[Type::Mark];
const INTEGER: &[Type] = &[Type::Integer];

/// A chain without packets, whose one rule's comment is the fingerprint of what was applied.
const STATE: &str = "state";
/// Clients that one service port remembers.
const AFFINITY_SIZE: u32 = 65_536;

/// Whether the kernel has exactly this, from an earlier life of this program: clients keep their affinity then.
pub fn is_in_place(table: &str, compiled: &Compiled) -> Result<bool> {
    Ok(nft::comments(table, STATE)? == [compiled.fingerprint()])
}

/// Replaces the table by one that holds this.
pub fn replace(table: &str, next: &Compiled) -> Result<()> {
    let mut batch = Batch::new(table);
    batch.add_table();
    batch.delete_table();
    batch.add_table();
    add_frame(&mut batch);
    add_difference(&mut batch, &Compiled::default(), next);
    batch.commit()
}

/// Changes a table that holds `now` so that it holds `next`.
pub fn change(table: &str, now: &Compiled, next: &Compiled) -> Result<()> {
    let mut batch = Batch::new(table);
    add_difference(&mut batch, now, next);
    batch.commit()
}

pub fn delete(table: &str) -> Result<()> {
    let mut batch = Batch::new(table);
    batch.add_table();
    batch.delete_table();
    batch.commit()
}

/// What every table has.
fn add_frame(batch: &mut Batch<'_>) {
    for map in compile::MAPS {
        let key =
            if matches!(*map, compile::SERVICE_IPS | compile::NO_ENDPOINTS) { SERVICE } else { NODE_PORT };
        batch.add_set(&Set::fixed(map, key, Values::Verdict));
    }
    batch.add_set(&Set::fixed(compile::HOST_PORTS, SERVICE, Values::Data(ENDPOINT)));
    batch.add_set(&Set::fixed(compile::HOST_PORTS_ANYWHERE, NODE_PORT, Values::Data(ENDPOINT)));
    for ranges in [compile::POD_CIDRS, compile::MASQUERADE_FROM, compile::MASQUERADE_EXCEPT] {
        batch.add_set(&Set { interval: true, ..Set::fixed(ranges, ADDRESS, Values::None) });
    }
    batch.add_set(&Set::fixed(compile::CLUSTER_IPS, ADDRESS, Values::None));
    batch.add_set(&Set::fixed(compile::HAIRPIN, ADDRESS_PAIR, Values::None));
    for chain in [compile::REFUSE, compile::SERVICES, STATE] {
        batch.add_chain(chain);
    }
    for (name, base) in frame::BASE_CHAINS {
        batch.add_base_chain(name, *base);
    }
    for (chain, rule) in frame::rules() {
        batch.add_rule(chain, &rule);
    }
}

/// The order matters: what is referred to comes before what refers to it, and goes after.
fn add_difference(batch: &mut Batch<'_>, now: &Compiled, next: &Compiled) {
    for (name, seconds) in next.affinities.iter().filter(|(name, _)| !now.affinities.contains_key(*name)) {
        let timeout = Some(u64::from(*seconds) * 1000);
        let set = Set::fixed(name, ADDRESS, Values::Data(MARK));
        batch.add_set(&Set { dynamic_timeout_ms: timeout, size: Some(AFFINITY_SIZE), ..set });
    }
    let changed = |name: &String| now.chains.get(name) != next.chains.get(name);
    for name in next.chains.keys().filter(|name| !now.chains.contains_key(*name)) {
        batch.add_chain(name);
    }
    for name in now.chains.keys().filter(|name| changed(name)) {
        batch.flush_chain(name);
    }
    for (name, rules) in next.chains.iter().filter(|(name, _)| changed(name)) {
        rules.iter().for_each(|rule| add_rule(batch, name, rule));
    }
    for (map, elements) in &next.maps {
        let data = |target: &nft::Target| nft::Data::Verdict(target.clone());
        add_map_difference(batch, map, now.maps.get(map), elements, data);
    }
    for (map, elements) in &next.host_ports {
        let data = |endpoint: &Endpoint| nft::Data::Value(endpoint_bytes(endpoint));
        add_map_difference(batch, map, now.host_ports.get(map), elements, data);
    }
    for (set, keys) in &next.sets {
        let before = now.sets.get(set).cloned().unwrap_or_default();
        let elements = |keys: std::collections::btree_set::Difference<'_, Vec<u8>>| -> Vec<Element> {
            keys.map(|key| Element::key(key.clone())).collect()
        };
        batch.delete_elements(set, &elements(before.difference(keys)));
        batch.add_elements(set, &elements(keys.difference(&before)));
    }
    for (set, ranges) in next.ranges.iter().filter(|(set, ranges)| now.ranges.get(*set) != Some(*ranges)) {
        batch.flush_set(set);
        let elements: Vec<Element> =
            ranges.iter().flat_map(|r| Element::cidr(r.address(), r.prefix())).collect();
        // Where one range ends and the next begins, the kernel wants both, the end first.
        batch.add_elements(set, &elements);
    }
    for name in now.chains.keys().filter(|name| !next.chains.contains_key(*name)) {
        batch.delete_chain(name);
    }
    for name in now.affinities.keys().filter(|name| !next.affinities.contains_key(*name)) {
        batch.delete_set(name);
    }
    batch.flush_chain(STATE);
    batch.add_rule_with(STATE, &[], Some(&next.fingerprint()));
}

fn add_map_difference<T: PartialEq>(
    batch: &mut Batch<'_>,
    map: &str,
    now: Option<&BTreeMap<Vec<u8>, T>>,
    next: &BTreeMap<Vec<u8>, T>,
    data: impl Fn(&T) -> nft::Data,
) {
    let empty = BTreeMap::new();
    let now = now.unwrap_or(&empty);
    let missing = |from: &BTreeMap<Vec<u8>, T>, of: &BTreeMap<Vec<u8>, T>| -> Vec<Element> {
        let gone = of.iter().filter(|(key, value)| from.get(*key) != Some(*value));
        gone.map(|(key, value)| Element::pair(key.clone(), data(value))).collect()
    };
    batch.delete_elements(map, &missing(next, now));
    batch.add_elements(map, &missing(now, next));
}

fn add_rule(batch: &mut Batch<'_>, chain: &str, rule: &Rule) {
    let mut expressions = Vec::with_capacity(rule.len());
    for step in rule {
        match step {
            Step::Do(expression) => expressions.push(expression.clone()),
            Step::Choose { endpoints, to } => {
                choose(
                    batch,
                    endpoints.iter().map(endpoint_bytes).collect(),
                    ENDPOINT,
                    *to,
                    &mut expressions,
                );
            }
            Step::ChooseMark { endpoints, to } => {
                let marks =
                    compile::marks(endpoints).into_iter().map(|mark| mark.to_ne_bytes().to_vec()).collect();
                choose(batch, marks, MARK, *to, &mut expressions);
            }
            Step::OfMark { endpoints, key, to } => {
                let pairs = compile::marks(endpoints).into_iter().zip(endpoints);
                let pair = |(mark, endpoint): (u32, &Endpoint)| {
                    Element::pair(mark.to_ne_bytes().to_vec(), nft::Data::Value(endpoint_bytes(endpoint)))
                };
                let elements: Vec<Element> = pairs.map(pair).collect();
                let (set, id) = batch.anonymous_map(MARK, Values::Data(ENDPOINT), &elements);
                let to = Some(Register::Data(*to));
                expressions.push(Expr::Lookup { set, id: Some(id), key: *key, to, invert: false });
            }
        }
    }
    batch.add_rule(chain, &expressions);
}

/// Loads one of the values at random.
fn choose(
    batch: &mut Batch<'_>,
    values: Vec<Vec<u8>>,
    of: &'static [Type],
    to: u8,
    expressions: &mut Vec<Expr>,
) {
    if let [only] = &values[..] {
        expressions.push(Expr::Immediate { to, value: only.clone() });
        return;
    }
    expressions.push(Expr::Random { modulus: values.len() as u32, to });
    let pair = |(index, value): (usize, Vec<u8>)| {
        Element::pair((index as u32).to_ne_bytes().to_vec(), nft::Data::Value(value))
    };
    let elements: Vec<Element> = values.into_iter().enumerate().map(pair).collect();
    let (set, id) = batch.anonymous_map(INTEGER, Values::Data(of), &elements);
    expressions.push(Expr::Lookup {
        set,
        id: Some(id),
        key: to,
        to: Some(Register::Data(to)),
        invert: false,
    });
}
