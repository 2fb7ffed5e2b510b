//! From a ruleset to chains and maps, as data.
//!
//! ```text
//! prerouting, output (nat)          ─► services: vmap service-ips      {address . protocol . port : goto chain}
//!                                              vmap service-nodeports  {protocol . port : goto chain}
//! cluster-… local-…                 ─► affinity, then one endpoint of the Service at random
//! external-…                        ─► mark for masquerade, or local endpoints only
//! input, forward, output (filter)   ─► vmap no-endpoints, no-endpoint-nodeports {… : refuse or drop}
//! postrouting (nat)                 ─► masquerade: marked, hairpin, out of the cluster
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::net::Ipv4Addr;

use netlink::nft::{Cmp, DynsetOp, Expr, Reg, Register, Target, concat};
use plan::net::{Cidr, Endpoint, HostPort, Ruleset, ServicePort};

use super::packet::{from_here, in_set, mark, source};

/// Maps from a packet to a verdict.
pub const SERVICE_IPS: &str = "service-ips";
pub const SERVICE_NODEPORTS: &str = "service-nodeports";
pub const NO_ENDPOINTS: &str = "no-endpoints";
pub const NO_ENDPOINT_NODEPORTS: &str = "no-endpoint-nodeports";
pub const MAPS: &[&str] = &[SERVICE_IPS, SERVICE_NODEPORTS, NO_ENDPOINTS, NO_ENDPOINT_NODEPORTS];
/// Maps from a packet to an endpoint: host ports at one address, and at all.
pub const HOST_PORTS: &str = "host-ports";
pub const HOST_PORTS_ANYWHERE: &str = "host-ports-anywhere";
/// Sets of ranges.
pub const POD_CIDRS: &str = "pod-cidrs";
pub const MASQUERADE_FROM: &str = "masquerade-from";
pub const MASQUERADE_EXCEPT: &str = "masquerade-except";
/// Sets of addresses, and of pairs of the same address.
pub const CLUSTER_IPS: &str = "cluster-ips";
pub const HAIRPIN: &str = "hairpin";

pub const SERVICES: &str = "services";
pub const REFUSE: &str = "refuse";

/// One step of a rule: an expression, or something that needs a set of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Do(Expr),
    /// Loads one of the endpoints, at random, into `to` and the register after it.
    Choose {
        endpoints: Vec<Endpoint>,
        to: Reg,
    },
    /// Loads the mark of one of the endpoints, at random.
    ChooseMark {
        endpoints: Vec<Endpoint>,
        to: Reg,
    },
    /// Loads the endpoint of the mark in `key` into `to` and the register after it; ends the rule if it has none.
    OfMark {
        endpoints: Vec<Endpoint>,
        key: Reg,
        to: Reg,
    },
}

pub type Rule = Vec<Step>;

/// The part of the table that depends on the ruleset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compiled {
    pub chains: BTreeMap<String, Vec<Rule>>,
    /// Elements of [`MAPS`].
    pub maps: BTreeMap<&'static str, BTreeMap<Vec<u8>, Target>>,
    /// Elements of [`HOST_PORTS`] and [`HOST_PORTS_ANYWHERE`].
    pub host_ports: BTreeMap<&'static str, BTreeMap<Vec<u8>, Endpoint>>,
    /// Keys of [`CLUSTER_IPS`] and [`HAIRPIN`].
    pub sets: BTreeMap<&'static str, BTreeSet<Vec<u8>>>,
    pub ranges: BTreeMap<&'static str, Vec<Cidr>>,
    /// Dynamic maps from clients to endpoints, with their timeouts in seconds.
    pub affinities: BTreeMap<String, u32>,
}

impl Compiled {
    /// A number that two tables have in common only if they are the same, made by the same program.
    pub fn fingerprint(&self) -> String {
        let mut hasher = std::hash::DefaultHasher::new();
        format!("{}{self:?}", env!("CARGO_PKG_VERSION")).hash(&mut hasher);
        format!("{:016x}", hasher.finish())
    }

    fn verdict(&mut self, map: &'static str, key: Vec<u8>, target: &Target) {
        // The first Service that claims an address keeps it.
        self.maps.entry(map).or_default().entry(key).or_insert_with(|| target.clone());
    }
}

pub fn compile(ruleset: &Ruleset) -> Compiled {
    let mut out = Compiled::default();
    out.maps.extend(MAPS.iter().map(|map| (*map, BTreeMap::new())));
    out.sets.extend([CLUSTER_IPS, HAIRPIN].map(|set| (set, BTreeSet::new())));
    out.ranges.insert(POD_CIDRS, merged(&ruleset.pod_cidrs));
    out.ranges.insert(MASQUERADE_FROM, merged(&ruleset.masquerade_from));
    out.ranges.insert(MASQUERADE_EXCEPT, merged(&ruleset.masquerade_except));
    out.host_ports.extend([HOST_PORTS, HOST_PORTS_ANYWHERE].map(|map| (map, BTreeMap::new())));
    for port in &ruleset.host_ports {
        compile_host_port(port, &mut out);
    }
    for service in &ruleset.services {
        compile_service(service, &ruleset.pod_cidrs, &mut out);
    }
    out
}

/// Ranges in order, without those inside others: elements of an interval set must not overlap.
fn merged(ranges: &[Cidr]) -> Vec<Cidr> {
    let mut sorted = ranges.to_vec();
    sorted.sort();
    let mut kept: Vec<Cidr> = Vec::new();
    for range in sorted {
        if !kept.last().is_some_and(|last| last.contains(range.address())) {
            kept.push(range);
        }
    }
    kept
}

/// The first pod that has a port keeps it: the scheduler lets no other on the node.
fn compile_host_port(port: &HostPort, out: &mut Compiled) {
    let (map, key) = match port.address {
        Some(ip) => {
            (HOST_PORTS, concat(&[&ip.octets(), &[port.protocol.number()], &port.port.to_be_bytes()]))
        }
        None => (HOST_PORTS_ANYWHERE, concat(&[&[port.protocol.number()], &port.port.to_be_bytes()])),
    };
    out.host_ports.entry(map).or_default().entry(key).or_insert(port.endpoint);
    let pod = port.endpoint.0.octets();
    out.sets.entry(HAIRPIN).or_default().insert(concat(&[&pod, &pod]));
}

fn compile_service(service: &ServicePort, pods: &[Cidr], out: &mut Compiled) {
    let names = Names::of(service);
    let cluster_ips = service.cluster_ips.iter().map(|ip| ip.octets().to_vec());
    out.sets.entry(CLUSTER_IPS).or_default().extend(cluster_ips);
    let local_pods =
        service.local_endpoints.iter().map(|(ip, _)| *ip).filter(|ip| pods.iter().any(|c| c.contains(*ip)));
    let pairs = local_pods.map(|ip| concat(&[&ip.octets(), &ip.octets()]));
    out.sets.entry(HAIRPIN).or_default().extend(pairs);
    if service.endpoints.is_empty() && service.local_endpoints.is_empty() {
        return no_endpoints(service, out);
    }
    if let Some(seconds) = service.affinity_seconds {
        out.affinities.insert(names.affinity(seconds), seconds);
    }
    internal(service, &names, out);
    external(service, &names, out);
}

/// Refuses at every address: a client should know at once.
fn no_endpoints(service: &ServicePort, out: &mut Compiled) {
    let refuse = Target::Goto(REFUSE.to_owned());
    for ip in service.cluster_ips.iter().chain(&service.external_ips).chain(&service.load_balancer_ips) {
        out.verdict(NO_ENDPOINTS, address_key(*ip, service), &refuse);
    }
    if let Some(port) = service.node_port {
        out.verdict(NO_ENDPOINT_NODEPORTS, node_port_key(port, service), &refuse);
    }
}

/// Cluster IPs.
fn internal(service: &ServicePort, names: &Names, out: &mut Compiled) {
    let endpoints = if service.internal_local { &service.local_endpoints } else { &service.endpoints };
    let chain = if service.internal_local { names.local() } else { names.cluster() };
    if endpoints.is_empty() {
        for ip in &service.cluster_ips {
            out.verdict(NO_ENDPOINTS, address_key(*ip, service), &Target::Drop);
        }
        return;
    }
    balance(service, names, &chain, endpoints, out);
    for ip in &service.cluster_ips {
        out.verdict(SERVICE_IPS, address_key(*ip, service), &Target::Goto(chain.clone()));
    }
}

/// Node ports, external IPs, load balancers.
fn external(service: &ServicePort, names: &Names, out: &mut Compiled) {
    if service.node_port.is_none() && service.external_ips.is_empty() && service.load_balancer_ips.is_empty()
    {
        return;
    }
    let mut rules = Vec::new();
    if !service.endpoints.is_empty() {
        balance(service, names, &names.cluster(), &service.endpoints, out);
    }
    let to_cluster = Target::Goto(names.cluster());
    if service.external_local {
        // Whoever is inside already has no outside address to keep, and may go to any endpoint.
        if !service.endpoints.is_empty() {
            let from_pod = [source(0), vec![in_set(POD_CIDRS, 0, false)]].concat();
            rules.push(steps([from_pod, vec![Expr::Verdict(to_cluster.clone())]].concat()));
            rules.push(steps([from_here(), mark(), vec![Expr::Verdict(to_cluster)]].concat()));
        }
        if !service.local_endpoints.is_empty() {
            balance(service, names, &names.local(), &service.local_endpoints, out);
            rules.push(steps(vec![Expr::Verdict(Target::Goto(names.local()))]));
        }
    } else if !service.endpoints.is_empty() {
        rules.push(steps([mark(), vec![Expr::Verdict(to_cluster)]].concat()));
    }
    let nobody_for_strangers = service.external_local && service.local_endpoints.is_empty();
    out.chains.insert(names.external(), rules);
    let to_chain = Target::Goto(names.external());
    for ip in &service.external_ips {
        out.verdict(SERVICE_IPS, address_key(*ip, service), &to_chain);
        if nobody_for_strangers {
            out.verdict(NO_ENDPOINTS, address_key(*ip, service), &Target::Drop);
        }
    }
    if let Some(port) = service.node_port {
        out.verdict(SERVICE_NODEPORTS, node_port_key(port, service), &to_chain);
        if nobody_for_strangers {
            out.verdict(NO_ENDPOINT_NODEPORTS, node_port_key(port, service), &Target::Drop);
        }
    }
    load_balancer(service, names, nobody_for_strangers, out);
}

/// Addresses of the load balancer, behind the ranges of clients that it admits.
fn load_balancer(service: &ServicePort, names: &Names, nobody_for_strangers: bool, out: &mut Compiled) {
    let guarded = !service.source_ranges.is_empty();
    for ip in &service.load_balancer_ips {
        let chain = if guarded { names.firewall() } else { names.external() };
        out.verdict(SERVICE_IPS, address_key(*ip, service), &Target::Goto(chain));
        // Packets that the firewall chain lets fall through were not translated, and end here.
        if guarded || nobody_for_strangers {
            out.verdict(NO_ENDPOINTS, address_key(*ip, service), &Target::Drop);
        }
    }
    if guarded && !service.load_balancer_ips.is_empty() {
        let admit = |range: &Cidr| {
            let mask = u32::MAX.checked_shl(32 - u32::from(range.prefix())).unwrap_or(0).to_be_bytes();
            let matches = vec![
                Expr::Bitwise { reg: 0, mask, xor: [0; 4] },
                Expr::Cmp { op: Cmp::Eq, reg: 0, value: range.address().octets().to_vec() },
                Expr::Verdict(Target::Goto(names.external())),
            ];
            steps([source(0), matches].concat())
        };
        out.chains.insert(names.firewall(), service.source_ranges.iter().map(admit).collect());
    }
}

/// A chain that sends the connection to one of the endpoints.
fn balance(service: &ServicePort, names: &Names, chain: &str, endpoints: &[Endpoint], out: &mut Compiled) {
    let endpoints = endpoints.to_vec();
    let translate = || Step::Do(Expr::Dnat { address: 1, port: Some(2) });
    let mut rules = Vec::new();
    if let Some(seconds) = service.affinity_seconds {
        let set = names.affinity(seconds);
        let dynset = |op| {
            let timeout_ms = Some(u64::from(seconds) * 1000);
            Step::Do(Expr::Dynset { op, set: set.clone(), key: 0, data: Some(1), timeout_ms })
        };
        let of_mark = || Step::OfMark { endpoints: endpoints.clone(), key: 1, to: 2 };
        let translate_marked = || Step::Do(Expr::Dnat { address: 2, port: Some(3) });
        let known =
            Expr::Lookup { set: set.clone(), id: None, key: 0, to: Some(Register::Data(1)), invert: false };
        // Where this client went before, if that is an endpoint still; its time starts anew. (A value that leads from
        // map to map is right for the kernel, but nft 1.0 cannot print it.)
        let mut again = steps([source(0), vec![known]].concat());
        again.extend([of_mark(), dynset(DynsetOp::Update), translate_marked()]);
        // Otherwise anywhere, and from now on there. The map may be full of clients: then without a memory.
        let mut first = steps(source(0));
        first.push(Step::ChooseMark { endpoints: endpoints.clone(), to: 1 });
        first.extend([dynset(DynsetOp::Delete), dynset(DynsetOp::Add), of_mark(), translate_marked()]);
        rules.extend([again, first]);
    }
    rules.push(vec![Step::Choose { endpoints, to: 1 }, translate()]);
    out.chains.insert(chain.to_owned(), rules);
}

fn steps(expressions: Vec<Expr>) -> Rule {
    expressions.into_iter().map(Step::Do).collect()
}

fn address_key(ip: Ipv4Addr, service: &ServicePort) -> Vec<u8> {
    concat(&[&ip.octets(), &[service.name.protocol.number()], &service.port.to_be_bytes()])
}

fn node_port_key(port: u16, service: &ServicePort) -> Vec<u8> {
    concat(&[&[service.name.protocol.number()], &port.to_be_bytes()])
}

/// An endpoint as maps and registers hold it.
pub fn endpoint_bytes((ip, port): &Endpoint) -> Vec<u8> {
    concat(&[&ip.octets(), &port.to_be_bytes()])
}

/// A number for each endpoint, the same whichever others there are, but for a collision in four billion.
pub fn marks(endpoints: &[Endpoint]) -> Vec<u32> {
    let mut taken = BTreeSet::new();
    let mark_of = |endpoint: &Endpoint| {
        let hash = |hash: u32, byte: u8| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
        let mut mark = endpoint_bytes(endpoint).into_iter().fold(0x811c_9dc5, hash);
        while !taken.insert(mark) {
            mark = mark.wrapping_add(1);
        }
        mark
    };
    endpoints.iter().map(mark_of).collect()
}

/// Names of one service port's chains and set: unique by the hash, readable by the rest.
struct Names {
    suffix: String,
}

impl Names {
    fn of(service: &ServicePort) -> Self {
        // A name may have 128 bytes; a namespace and a name of a Service have 63 each.
        const READABLE: usize = 90;
        let full = service.name.to_string();
        let mut hasher = std::hash::DefaultHasher::new();
        full.hash(&mut hasher);
        let readable: String = full.trim_end_matches('/').chars().take(READABLE).collect();
        Self { suffix: format!("{:08x}-{readable}", hasher.finish() as u32) }
    }

    fn cluster(&self) -> String {
        format!("cluster-{}", self.suffix)
    }

    fn local(&self) -> String {
        format!("local-{}", self.suffix)
    }

    fn external(&self) -> String {
        format!("external-{}", self.suffix)
    }

    fn firewall(&self) -> String {
        format!("firewall-{}", self.suffix)
    }

    /// The timeout is part of the name: that of a set cannot be changed.
    fn affinity(&self, seconds: u32) -> String {
        format!("affinity-{seconds}-{}", self.suffix)
    }
}
