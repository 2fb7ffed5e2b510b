//! From a VPC to chains and maps, as data.
//!
//! ```text
//! prerouting (nat)   public address ─► private, 1:1
//! forward ─► of a known connection: accept
//!         ─► out by the uplink: leaving   ─► the subnet's route table ─► internet gateway, NAT gateway, or nowhere
//!         ─► in by the uplink:  arriving  ─► the subnet's route table ─► internet gateway, or nowhere
//!         ─► vmap egress  {source address      : jump the rules of its interface's groups}
//!         ─► vmap ingress {destination address : jump the rules of its interface's groups}
//! input   ─► link-local services, then the router's own interfaces by the same rules
//! postrouting (nat)  private address ─► public: the NAT gateway's if one was chosen, else its own
//! ```
//!
//! A chain of rules returns for what it allows and drops the rest. Only the first packet of a connection meets them;
//! each map is one lookup, whatever the VPC's size.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use netlink::nft::{
    BaseChain, Cmp, Data, Element, Expr, Hook, Kind, Meta, Target as Verdict, Type, Values, concat,
};
use plan::net::Cidr;

use super::config::{Interface, NatGateway, Peer, Place, Rule, SecurityGroup, Target, Traffic, VpcConfig};
use super::{AWS_DOOR, AWS_DOOR_PORTS, METADATA, POD_IDENTITY, UPLINK};
use crate::packet::{
    destination, destination_was_translated, established_or_related, in_set, link, source, value_of, verdict,
    verdict_of, within,
};

pub const ADDRESS: &[Type] = &[Type::Ipv4Addr];
const MARK: &[Type] = &[Type::Mark];
const SERVICE: &[Type] = &[Type::Ipv4Addr, Type::InetProto, Type::InetService];

const TO_PRIVATE: &str = "to-private";
const TO_PUBLIC: &str = "to-public";
const NAT_PUBLIC: &str = "nat-public";
const EGRESS: &str = "egress";
const INGRESS: &str = "ingress";
const OWN_INGRESS: &str = "own-ingress";
const LEAVING: &str = "leaving";
const ARRIVING: &str = "arriving";
const BY_INTERNET_GATEWAY: &str = "by-internet-gateway";
const LINK_SERVICES: &str = "link-services";
const NO_METADATA: &str = "no-metadata";

/// A table's content.
#[derive(Debug, Default)]
pub struct Compiled {
    pub maps: Vec<Map>,
    pub chains: Vec<Chain>,
}

#[derive(Debug)]
pub struct Map {
    pub name: String,
    pub key: &'static [Type],
    pub values: Values,
    pub interval: bool,
    pub elements: Vec<Element>,
}

#[derive(Debug)]
pub struct Chain {
    pub name: String,
    pub base: Option<BaseChain>,
    pub rules: Vec<Vec<Expr>>,
}

/// The rules of a VPC.
pub fn compile(config: &VpcConfig) -> Compiled {
    let mut out = Compiled::default();
    translation(config, &mut out);
    routes(config, &mut out);
    let groups = Groups::of(config);
    groups.compile(config, &mut out);
    forward(&mut out);
    input(config, &mut out);
    out
}

impl Compiled {
    fn map(&mut self, name: &str, key: &'static [Type], values: Values, elements: Vec<Element>) {
        self.maps.push(Map { name: name.into(), key, values, interval: false, elements });
    }

    /// A map from ranges of addresses to verdicts. The longest range that has an address decides.
    fn verdicts(&mut self, name: &str, ranges: &[(Cidr, Verdict)]) {
        let disjoint = flatten(ranges).into_iter();
        let element = |(first, last, verdict)| Element::range(first, last, Some(Data::Verdict(verdict)));
        let elements = disjoint.flat_map(element).collect();
        let map = Map { name: name.into(), key: ADDRESS, values: Values::Verdict, interval: true, elements };
        self.maps.push(map);
    }

    /// A set of ranges of addresses.
    fn ranges(&mut self, name: &str, ranges: impl Iterator<Item = Cidr>) {
        let ranges: Vec<(Cidr, ())> = ranges.map(|range| (range, ())).collect();
        let disjoint = flatten(&ranges).into_iter();
        let elements = disjoint.flat_map(|(first, last, ())| Element::range(first, last, None)).collect();
        self.maps.push(Map {
            name: name.into(),
            key: ADDRESS,
            values: Values::None,
            interval: true,
            elements,
        });
    }

    fn chain(&mut self, name: impl Into<String>, rules: Vec<Vec<Expr>>) {
        self.chains.push(Chain { name: name.into(), base: None, rules });
    }

    fn base(&mut self, name: &str, base: BaseChain, rules: Vec<Vec<Expr>>) {
        self.chains.push(Chain { name: name.into(), base: Some(base), rules });
    }
}

/// Ranges that may lie in each other as ranges that do not, in order: (first, last, what the longest prefix said).
/// Neighbours that say the same become one.
fn flatten<T: Clone + PartialEq>(ranges: &[(Cidr, T)]) -> Vec<(Ipv4Addr, Ipv4Addr, T)> {
    let mut starts: BTreeSet<u64> = BTreeSet::new();
    for (range, _) in ranges {
        starts.insert(u64::from(u32::from(range.address())));
        starts.insert(u64::from(u32::from(range.last())) + 1);
    }
    // By length, so that of those that start before an address the last that has it is the longest.
    let mut sorted: Vec<&(Cidr, T)> = ranges.iter().collect();
    sorted.sort_by_key(|(range, _)| (range.address(), range.prefix()));
    let mut open: Vec<&(Cidr, T)> = Vec::new();
    let mut next = 0;
    let mut out: Vec<(Ipv4Addr, Ipv4Addr, T)> = Vec::new();
    let starts: Vec<u64> = starts.into_iter().collect();
    for pair in starts.windows(2) {
        let (Ok(first), Ok(last)) = (u32::try_from(pair[0]), u32::try_from(pair[1] - 1)) else { continue };
        let (first, last) = (Ipv4Addr::from(first), Ipv4Addr::from(last));
        while open.last().is_some_and(|(range, _)| !range.contains(first)) {
            open.pop();
        }
        while sorted.get(next).is_some_and(|(range, _)| range.address() <= first) {
            open.push(sorted[next]);
            next += 1;
        }
        let Some((_, value)) = open.last() else { continue };
        match out.last_mut() {
            Some((_, end, same)) if same == value && u32::from(*end) + 1 == u32::from(first) => *end = last,
            _ => out.push((first, last, value.clone())),
        }
    }
    out
}

fn everything() -> Cidr {
    Cidr::new(Ipv4Addr::UNSPECIFIED, 0)
}

fn filter(hook: Hook) -> BaseChain {
    BaseChain { kind: Kind::Filter, hook, priority: 0 }
}

fn in_by(name: &str, op: Cmp) -> Vec<Expr> {
    link(Meta::Iifname, op, name)
}

fn out_by(name: &str, op: Cmp) -> Vec<Expr> {
    link(Meta::Oifname, op, name)
}

/// Public addresses, both ways.
fn translation(config: &VpcConfig, out: &mut Compiled) {
    let pair =
        |from: Ipv4Addr, to: Ipv4Addr| Element::pair(from.octets().into(), Data::Value(to.octets().into()));
    let mapped = || config.interfaces.iter().filter_map(|one| Some((one.public?, one.address)));
    let values = Values::Data(ADDRESS);
    out.map(TO_PRIVATE, ADDRESS, values, mapped().map(|(public, private)| pair(public, private)).collect());
    out.map(TO_PUBLIC, ADDRESS, values, mapped().map(|(public, private)| pair(private, public)).collect());
    let gateways = config.nat_gateways.iter().enumerate();
    let marked = gateways.map(|(index, gateway)| {
        Element::pair(nat_mark(index).to_vec(), Data::Value(gateway.public.octets().into()))
    });
    out.map(NAT_PUBLIC, MARK, values, marked.collect());

    let prerouting = BaseChain { kind: Kind::Nat, hook: Hook::Prerouting, priority: -100 };
    let to_private = vec![destination(), value_of(TO_PRIVATE), Expr::Dnat { address: 0, port: None }];
    out.base("prerouting", prerouting, vec![to_private]);
    let postrouting = BaseChain { kind: Kind::Nat, hook: Hook::Postrouting, priority: 100 };
    let to_public = [source(), value_of(TO_PUBLIC), Expr::Snat { address: 0 }];
    let by_mark = [Expr::Meta { key: Meta::Mark, to: 0 }, value_of(NAT_PUBLIC), Expr::Snat { address: 0 }];
    let leaving = || out_by(UPLINK, Cmp::Eq);
    out.base(
        "postrouting",
        postrouting,
        vec![
            [leaving(), by_mark.to_vec()].concat(),
            [leaving(), to_public.to_vec()].concat(),
            // Whoever was asked at a public address sees who asks at a public address, too.
            [destination_was_translated(), to_public.to_vec()].concat(),
        ],
    );
}

/// The mark of a packet that goes out by a NAT gateway, in the machine's byte order.
fn nat_mark(index: usize) -> [u8; 4] {
    u32::try_from(index).unwrap_or(u32::MAX - 1).wrapping_add(1).to_ne_bytes()
}

/// Where packets that leave the VPC go, and from where they come.
fn routes(config: &VpcConfig, out: &mut Compiled) {
    let table_index = |id: &str| config.route_tables.iter().position(|table| table.id == id);
    let by_subnet = |chain: fn(usize) -> String| {
        let tables = config.subnets.iter().filter_map(|subnet| {
            Some((subnet.cidr, Verdict::Goto(chain(table_index(&subnet.route_table)?))))
        });
        tables.chain([(everything(), Verdict::Drop)]).collect::<Vec<_>>()
    };
    for (index, table) in config.route_tables.iter().enumerate() {
        let (outward, inward) = (out_chain(index), in_chain(index));
        let verdicts = |choose: &dyn Fn(&Target) -> Verdict| {
            let routes = table.routes.iter().map(|route| (route.destination, choose(&route.target)));
            // Last, so that a default route of the table, which is of the same length, comes before it.
            let mut ranges: Vec<_> = routes.collect();
            if !ranges.iter().any(|(range, _)| range.prefix() == 0) {
                ranges.push((everything(), Verdict::Drop));
            }
            ranges
        };
        out.verdicts(&outward, &verdicts(&|target| leave_by(config, target)));
        out.verdicts(
            &inward,
            &verdicts(&|target| match target {
                Target::InternetGateway => Verdict::Return,
                _ => Verdict::Drop,
            }),
        );
        out.chain(outward.clone(), vec![vec![destination(), verdict_of(&outward)]]);
        out.chain(inward.clone(), vec![vec![source(), verdict_of(&inward)]]);
    }
    out.verdicts(LEAVING, &by_subnet(out_chain));
    out.verdicts(ARRIVING, &by_subnet(in_chain));
    out.chain(LEAVING, vec![vec![source(), verdict_of(LEAVING)]]);
    out.chain(ARRIVING, vec![vec![destination(), verdict_of(ARRIVING)]]);
    let has_public_address = vec![source(), value_of(TO_PUBLIC), verdict(Verdict::Return)];
    out.chain(BY_INTERNET_GATEWAY, vec![has_public_address, vec![verdict(Verdict::Drop)]]);
    for index in 0..config.nat_gateways.len() {
        let value = nat_mark(index).to_vec();
        let choose = vec![Expr::Immediate { to: 0, value }, Expr::SetMark { from: 0 }];
        out.chain(nat_chain(index), vec![choose]);
    }
}

fn out_chain(index: usize) -> String {
    format!("routes-{index}")
}

fn in_chain(index: usize) -> String {
    format!("back-{index}")
}

fn nat_chain(index: usize) -> String {
    format!("by-nat-gateway-{index}")
}

fn leave_by(config: &VpcConfig, target: &Target) -> Verdict {
    match target {
        Target::InternetGateway => Verdict::Goto(BY_INTERNET_GATEWAY.into()),
        Target::Blackhole => Verdict::Drop,
        Target::NatGateway(id) => {
            let index = config.nat_gateways.iter().position(|gateway| gateway.id == *id);
            let index = index.filter(|index| has_a_way_out(config, &config.nat_gateways[*index]));
            index.map_or(Verdict::Drop, |index| Verdict::Goto(nat_chain(index)))
        }
    }
}

/// A NAT gateway in a subnet without an internet gateway leads nowhere.
fn has_a_way_out(config: &VpcConfig, gateway: &NatGateway) -> bool {
    let table = config.subnet(&gateway.subnet).map(|subnet| &subnet.route_table);
    let table = config.route_tables.iter().find(|one| Some(&one.id) == table);
    table.is_some_and(|table| table.routes.iter().any(|route| route.target == Target::InternetGateway))
}

/// The groups of interfaces, and the combinations in which interfaces have them.
struct Groups<'a> {
    by_id: BTreeMap<&'a str, &'a SecurityGroup>,
    combinations: BTreeMap<Vec<&'a str>, usize>,
}

impl<'a> Groups<'a> {
    fn of(config: &'a VpcConfig) -> Self {
        let by_id = config.groups.iter().map(|group| (group.id.as_str(), group)).collect();
        let mut combinations = BTreeMap::new();
        for interface in &config.interfaces {
            let next = combinations.len();
            combinations.entry(combination(interface)).or_insert(next);
        }
        Self { by_id, combinations }
    }

    fn compile(&self, config: &VpcConfig, out: &mut Compiled) {
        for group in config.groups.iter().filter(|group| self.is_a_peer(&group.id)) {
            let members = config.interfaces.iter().filter(|one| one.groups.contains(&group.id));
            out.ranges(&members_of(&group.id), members.flat_map(Interface::private));
        }
        for (ids, index) in &self.combinations {
            out.chain(egress_chain(*index), self.rules(ids, |group| &group.egress, destination));
            out.chain(ingress_chain(*index), self.rules(ids, |group| &group.ingress, source));
        }
        let all = |_: &&Interface| true;
        let own = |one: &&Interface| one.place == Place::Router;
        out.verdicts(EGRESS, &self.by_address(config, all, egress_chain));
        out.verdicts(INGRESS, &self.by_address(config, all, ingress_chain));
        out.verdicts(OWN_INGRESS, &self.by_address(config, own, ingress_chain));
    }

    /// Whether a rule speaks of the group's members.
    fn is_a_peer(&self, id: &str) -> bool {
        let rules = self.by_id.values().flat_map(|group| group.ingress.iter().chain(&group.egress));
        rules.into_iter().any(|rule| matches!(&rule.peer, Peer::Group(peer) if peer == id))
    }

    fn by_address(
        &self,
        config: &'a VpcConfig,
        wanted: impl Fn(&&Interface) -> bool,
        chain: fn(usize) -> String,
    ) -> Vec<(Cidr, Verdict)> {
        let mut ranges = vec![(everything(), Verdict::Drop)];
        for interface in config.interfaces.iter().filter(wanted) {
            let Some(index) = self.combinations.get(&combination(interface)) else { continue };
            ranges.extend(interface.private().map(|range| (range, Verdict::Jump(chain(*index)))));
        }
        ranges
    }

    /// What the groups allow together; the rest is dropped. A group that is not there allows nothing.
    fn rules(
        &self,
        ids: &[&str],
        rules: fn(&SecurityGroup) -> &Vec<Rule>,
        peer: fn() -> Expr,
    ) -> Vec<Vec<Expr>> {
        let groups = ids.iter().filter_map(|id| self.by_id.get(id));
        let mut compiled: Vec<Vec<Expr>> = Vec::new();
        for rule in groups.flat_map(|group| rules(group)) {
            let Some(is_peer) = self.peer(&rule.peer, peer) else { continue };
            let rule = [is_peer, traffic(&rule.traffic), vec![verdict(Verdict::Return)]].concat();
            if !compiled.contains(&rule) {
                compiled.push(rule);
            }
        }
        compiled.push(vec![verdict(Verdict::Drop)]);
        compiled
    }

    fn peer(&self, peer: &Peer, load: fn() -> Expr) -> Option<Vec<Expr>> {
        match peer {
            Peer::Range(range) if range.prefix() == 0 => Some(Vec::new()),
            Peer::Range(range) => Some(within(load(), *range)),
            Peer::Group(id) if self.by_id.contains_key(id.as_str()) => {
                Some(vec![load(), in_set(&members_of(id))])
            }
            Peer::Group(_) => None,
        }
    }
}

/// In order, since two interfaces with the same groups have the same rules.
fn combination(interface: &Interface) -> Vec<&str> {
    let ids: BTreeSet<&str> = interface.groups.iter().map(String::as_str).collect();
    ids.into_iter().collect()
}

fn members_of(group: &str) -> String {
    format!("members-{group}")
}

fn egress_chain(index: usize) -> String {
    format!("egress-{index}")
}

fn ingress_chain(index: usize) -> String {
    format!("ingress-{index}")
}

fn traffic(traffic: &Traffic) -> Vec<Expr> {
    const ICMP: u8 = 1;
    const TCP: u8 = 6;
    const UDP: u8 = 17;
    let protocol = |number: u8| {
        vec![Expr::Meta { key: Meta::L4proto, to: 0 }, Expr::Cmp { op: Cmp::Eq, reg: 0, value: vec![number] }]
    };
    let transport = |offset, length| Expr::Transport { offset, length, to: 0 };
    let is = |op, value: Vec<u8>| Expr::Cmp { op, reg: 0, value };
    let ports = |number, first: u16, last: u16| {
        let mut rule = protocol(number);
        match (first, last) {
            (0, u16::MAX) => {}
            (first, last) if first == last => {
                rule.extend([transport(2, 2), is(Cmp::Eq, first.to_be_bytes().into())]);
            }
            (first, last) => rule.extend([
                transport(2, 2),
                is(Cmp::Gte, first.to_be_bytes().into()),
                is(Cmp::Lte, last.to_be_bytes().into()),
            ]),
        }
        rule
    };
    match *traffic {
        Traffic::All => Vec::new(),
        Traffic::Tcp(first, last) => ports(TCP, first, last),
        Traffic::Udp(first, last) => ports(UDP, first, last),
        Traffic::Protocol(number) => protocol(number),
        Traffic::Icmp(kind, code) => {
            let mut rule = protocol(ICMP);
            for (offset, wanted) in [(0, kind), (1, code)] {
                if let Some(value) = wanted {
                    rule.extend([transport(offset, 1), is(Cmp::Eq, vec![value])]);
                }
            }
            rule
        }
    }
}

/// What goes through the router.
fn forward(out: &mut Compiled) {
    let jump = |chain: &str| vec![verdict(Verdict::Jump(chain.into()))];
    let drop = || vec![verdict(Verdict::Drop)];
    let link_local = within(destination(), Cidr::new(Ipv4Addr::new(169, 254, 0, 0), 16));
    let rules = vec![
        [established_or_related(), vec![verdict(Verdict::Accept)]].concat(),
        // Sent to a public address that leads here and that nobody has.
        [in_by(UPLINK, Cmp::Eq), out_by(UPLINK, Cmp::Eq), drop()].concat(),
        [link_local, drop()].concat(),
        [out_by(UPLINK, Cmp::Eq), jump(LEAVING)].concat(),
        [in_by(UPLINK, Cmp::Eq), jump(ARRIVING)].concat(),
        [in_by(UPLINK, Cmp::Ne), vec![source(), verdict_of(EGRESS)]].concat(),
        [out_by(UPLINK, Cmp::Ne), vec![destination(), verdict_of(INGRESS)]].concat(),
    ];
    out.base("forward", filter(Hook::Forward), rules);
}

/// What is for the router itself: its interfaces, metadata, the Pod Identity agent, the door for AWS.
fn input(config: &VpcConfig, out: &mut Compiled) {
    const TCP: u8 = 6;
    let door = AWS_DOOR_PORTS.map(|port| (AWS_DOOR, port));
    let answers = [METADATA, POD_IDENTITY].map(|one| (*one.ip(), one.port()));
    let services = answers.into_iter().chain(door);
    let key = |(address, port): (Ipv4Addr, u16)| {
        Element::key(concat(&[&address.octets(), &[TCP], &port.to_be_bytes()]))
    };
    out.map(LINK_SERVICES, SERVICE, Values::None, services.map(key).collect());
    let silent = config.interfaces.iter().filter(|one| !one.metadata);
    out.ranges(NO_METADATA, silent.flat_map(Interface::private));

    let accept = || vec![verdict(Verdict::Accept)];
    let service = vec![
        destination(),
        Expr::Meta { key: Meta::L4proto, to: 1 },
        Expr::Transport { offset: 2, length: 2, to: 2 },
        in_set(LINK_SERVICES),
    ];
    let to_metadata = within(destination(), (*METADATA.ip()).into());
    let rules = vec![
        [established_or_related(), accept()].concat(),
        [in_by("lo", Cmp::Eq), accept()].concat(),
        [in_by(UPLINK, Cmp::Eq), vec![verdict(Verdict::Drop)]].concat(),
        [to_metadata, vec![source(), in_set(NO_METADATA), Expr::Reject]].concat(),
        [service, accept()].concat(),
        vec![source(), verdict_of(EGRESS)],
        vec![destination(), verdict_of(OWN_INGRESS)],
    ];
    out.base("input", filter(Hook::Input), rules);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(ranges: &[(&str, u8)], expected: &[(&str, &str, u8)]) {
        let ranges: Vec<(Cidr, u8)> =
            ranges.iter().map(|(text, value)| (text.parse().unwrap(), *value)).collect();
        let found: Vec<(String, String, u8)> = flatten(&ranges)
            .into_iter()
            .map(|(first, last, value)| (first.to_string(), last.to_string(), value))
            .collect();
        let expected: Vec<(String, String, u8)> =
            expected.iter().map(|(a, b, value)| (a.to_string(), b.to_string(), *value)).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn the_longest_prefix_wins() {
        check(&[], &[]);
        check(&[("10.0.0.0/8", 1)], &[("10.0.0.0", "10.255.255.255", 1)]);
        check(
            &[("0.0.0.0/0", 0), ("10.0.0.0/8", 1), ("10.1.0.0/16", 2)],
            &[
                ("0.0.0.0", "9.255.255.255", 0),
                ("10.0.0.0", "10.0.255.255", 1),
                ("10.1.0.0", "10.1.255.255", 2),
                ("10.2.0.0", "10.255.255.255", 1),
                ("11.0.0.0", "255.255.255.255", 0),
            ],
        );
        check(&[("10.0.0.0/25", 1), ("10.0.0.128/25", 1)], &[("10.0.0.0", "10.0.0.255", 1)]);
        check(
            &[("10.0.0.0/25", 1), ("10.0.0.128/25", 2)],
            &[("10.0.0.0", "10.0.0.127", 1), ("10.0.0.128", "10.0.0.255", 2)],
        );
        check(&[("255.255.255.255/32", 1)], &[("255.255.255.255", "255.255.255.255", 1)]);
    }
}
