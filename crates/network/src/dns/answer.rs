//! From a question to an answer.

use std::net::Ipv4Addr;

use plan::net::{Answer, Record, RecordData};

use super::wire::{Question, Type};
use crate::index::{Endpoint, Index, Name, Port, Service};

/// What CoreDNS's plugin gives its records by default.
const TTL_SECONDS: u32 = 5;
const VERSION: &str = "1.1.0";
const REVERSE: &str = ".in-addr.arpa";

/// The cluster's zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone {
    /// `cluster.local`, lower-case, without dots around.
    pub domain: String,
    /// Where the name server itself is: the cluster IP of kube-dns.
    pub server: Ipv4Addr,
    /// The SOA's serial number: the revision of what the answers are made from.
    pub serial: u32,
}

/// Answers a question of class IN; `question.name` is lower-case.
pub fn answer(index: &Index, zone: &Zone, question: &Question) -> Answer {
    if let Some(address) = question.name.strip_suffix(REVERSE) {
        return pointers(index, zone, question, address);
    }
    let Some(labels) = inside(&question.name, &zone.domain) else { return Answer::Elsewhere };
    match labels.as_slice() {
        [] => apex(zone, question),
        ["dns-version"] => zone.of_type(question, Type::TXT, || RecordData::Txt(VERSION.to_owned())),
        ["svc" | "pod" | "dns"] => zone.no_data(),
        ["ns", "dns"] => zone.of_type(question, Type::A, || RecordData::A(zone.server)),
        [namespace, "svc" | "pod"] if index.has_namespace(namespace) => zone.no_data(),
        [pod, namespace, "pod"] if index.has_namespace(namespace) => match dashed(pod) {
            Some(ip) => zone.of_type(question, Type::A, || RecordData::A(ip)),
            None => zone.no_name(),
        },
        [rest @ .., name, namespace, "svc"] => match index.service(namespace, name) {
            Some((name, service)) => Asked { index, zone, question, name, service }.answer(rest),
            None => zone.no_name(),
        },
        _ => zone.no_name(),
    }
}

/// The labels before the zone's domain; none if the name is not in the zone.
fn inside<'a>(name: &'a str, domain: &str) -> Option<Vec<&'a str>> {
    if name == domain {
        return Some(Vec::new());
    }
    let labels = name.strip_suffix(domain)?.strip_suffix('.')?;
    Some(labels.split('.').collect())
}

/// `10-244-0-7`
fn dashed(label: &str) -> Option<Ipv4Addr> {
    label.replace('-', ".").parse().ok().filter(|_| !label.contains('.'))
}

fn apex(zone: &Zone, question: &Question) -> Answer {
    match question.kind {
        Type::SOA => Answer::Found { records: vec![zone.soa()], additional: Vec::new() },
        Type::NS => zone.found(question, vec![RecordData::Ns(format!("ns.dns.{}", zone.domain))]),
        _ => zone.no_data(),
    }
}

impl Zone {
    fn soa(&self) -> Record {
        let primary = format!("ns.dns.{}", self.domain);
        let contact = format!("hostmaster.{}", self.domain);
        let data = RecordData::Soa { primary, contact, serial: self.serial };
        Record { name: self.domain.clone(), ttl_seconds: TTL_SECONDS, data }
    }

    fn no_data(&self) -> Answer {
        Answer::NoData(self.soa())
    }

    fn no_name(&self) -> Answer {
        Answer::NoName(self.soa())
    }

    fn record(&self, name: String, data: RecordData) -> Record {
        Record { name, ttl_seconds: TTL_SECONDS, data }
    }

    fn found(&self, question: &Question, data: Vec<RecordData>) -> Answer {
        let records = data.into_iter().map(|data| self.record(question.name.clone(), data)).collect();
        Answer::Found { records, additional: Vec::new() }
    }

    fn of_type(&self, question: &Question, kind: Type, data: impl FnOnce() -> RecordData) -> Answer {
        if question.kind == kind || question.kind == Type::ANY {
            self.found(question, vec![data()])
        } else {
            self.no_data()
        }
    }

    fn service_name(&self, name: &Name) -> String {
        format!("{}.{}.svc.{}", name.1, name.0, self.domain)
    }
}

/// A question about a Service that exists.
struct Asked<'a> {
    index: &'a Index,
    zone: &'a Zone,
    question: &'a Question,
    name: &'a Name,
    service: &'a Service,
}

impl<'a> Asked<'a> {
    /// `labels` are those before the Service's name.
    fn answer(&self, labels: &[&str]) -> Answer {
        if self.service.is_external_name() {
            return if labels.is_empty() { self.elsewhere() } else { self.zone.no_name() };
        }
        match labels {
            [] => self.whole(),
            [endpoint] => self.endpoint(endpoint),
            [port, protocol] => match (port.strip_prefix('_'), protocol.strip_prefix('_')) {
                (Some(port), Some(protocol)) => self.port(port, protocol),
                _ => self.zone.no_name(),
            },
            _ => self.zone.no_name(),
        }
    }

    fn elsewhere(&self) -> Answer {
        let target = self.service.spec.external_name.trim_end_matches('.').to_ascii_lowercase();
        let alias = self.zone.record(self.question.name.clone(), RecordData::Cname(target.clone()));
        match self.question.kind {
            Type::A | Type::AAAA | Type::ANY => Answer::Onwards { records: vec![alias], name: target },
            Type::CNAME => Answer::Found { records: vec![alias], additional: Vec::new() },
            _ => self.zone.no_data(),
        }
    }

    /// `svc.ns.svc`
    fn whole(&self) -> Answer {
        let addresses = self.addresses();
        if self.service.is_headless() && addresses.is_empty() {
            return self.zone.no_name();
        }
        match self.question.kind {
            Type::A | Type::ANY => {
                self.zone.found(self.question, addresses.into_iter().map(RecordData::A).collect())
            }
            Type::SRV => self.services(|_| true),
            _ => self.zone.no_data(),
        }
    }

    fn addresses(&self) -> Vec<Ipv4Addr> {
        if !self.service.is_headless() {
            return self.service.cluster_ips().collect();
        }
        let mut addresses: Vec<Ipv4Addr> = self.ready().filter_map(Endpoint::address).collect();
        addresses.sort_unstable();
        addresses.dedup();
        addresses
    }

    fn ready(&self) -> impl Iterator<Item = &'a Endpoint> {
        let endpoints = self.index.slices(self.name).flat_map(|slice| slice.endpoints());
        endpoints.filter(|endpoint| endpoint.conditions.ready())
    }

    /// `host.svc.ns.svc`
    fn endpoint(&self, label: &str) -> Answer {
        let named = self.ready().filter(|endpoint| endpoint_label(endpoint).as_deref() == Some(label));
        let mut addresses: Vec<Ipv4Addr> = named.filter_map(Endpoint::address).collect();
        addresses.sort_unstable();
        addresses.dedup();
        match self.question.kind {
            _ if addresses.is_empty() => self.zone.no_name(),
            Type::A | Type::ANY => {
                self.zone.found(self.question, addresses.into_iter().map(RecordData::A).collect())
            }
            _ => self.zone.no_data(),
        }
    }

    /// `_port._proto.svc.ns.svc`
    fn port(&self, name: &str, protocol: &str) -> Answer {
        let wanted = |port: &Port| {
            port.name.eq_ignore_ascii_case(name) && port.protocol().is_some_and(|p| p.as_str() == protocol)
        };
        if !self.service.spec.ports.iter().any(wanted) {
            return self.zone.no_name();
        }
        match self.question.kind {
            Type::SRV | Type::ANY => self.services(wanted),
            _ => self.zone.no_data(),
        }
    }

    /// SRV records of the ports that are `wanted`, and the addresses of their targets.
    fn services(&self, wanted: impl Fn(&Port) -> bool) -> Answer {
        let ports = self.service.spec.ports.iter().filter(|port| wanted(port));
        let mut targets: Vec<(String, u16, Ipv4Addr)> = Vec::new();
        for port in ports {
            if self.service.is_headless() {
                targets.extend(self.endpoints_with(port));
            } else {
                let ips = self.service.cluster_ips();
                targets.extend(ips.map(|ip| (self.zone.service_name(self.name), port.port, ip)));
            }
        }
        if targets.is_empty() {
            return self.zone.no_name();
        }
        targets.sort_unstable();
        targets.dedup();
        // CoreDNS splits a hundred among the targets.
        let weight = u16::try_from(100 / targets.len()).unwrap_or(1).max(1);
        let mut additional: Vec<Record> = Vec::new();
        for (target, _, ip) in &targets {
            let record = self.zone.record(target.clone(), RecordData::A(*ip));
            if !additional.contains(&record) {
                additional.push(record);
            }
        }
        targets.dedup_by(|a, b| (&a.0, a.1) == (&b.0, b.1));
        let srv = |(target, port, _)| RecordData::Srv { priority: 0, weight, port, target };
        let records =
            targets.into_iter().map(|target| self.zone.record(self.question.name.clone(), srv(target)));
        Answer::Found { records: records.collect(), additional }
    }

    fn endpoints_with(&self, port: &Port) -> Vec<(String, u16, Ipv4Addr)> {
        let base = self.zone.service_name(self.name);
        let mut found = Vec::new();
        for slice in self.index.slices(self.name) {
            let matching =
                |p: &&crate::index::EndpointPort| p.name() == port.name && p.protocol() == port.protocol();
            let Some(number) = slice.ports().iter().find(matching).and_then(|port| port.port) else {
                continue;
            };
            for endpoint in slice.endpoints().iter().filter(|endpoint| endpoint.conditions.ready()) {
                if let (Some(label), Some(ip)) = (endpoint_label(endpoint), endpoint.address()) {
                    found.push((format!("{label}.{base}"), number, ip));
                }
            }
        }
        found
    }
}

/// An endpoint's own name under its Service: its host name, or its address with dashes.
fn endpoint_label(endpoint: &Endpoint) -> Option<String> {
    let hostname = endpoint.hostname.as_deref().filter(|name| !name.is_empty()).map(str::to_ascii_lowercase);
    hostname.or_else(|| Some(endpoint.address()?.to_string().replace('.', "-")))
}

/// PTR of cluster IPs and endpoints. An address that is not the cluster's is others' to name.
fn pointers(index: &Index, zone: &Zone, question: &Question, reversed: &str) -> Answer {
    let octets: Option<Vec<u8>> = reversed.rsplit('.').map(|octet| octet.parse().ok()).collect();
    let Some(Ok(octets)) = octets.map(<[u8; 4]>::try_from) else { return Answer::Elsewhere };
    let ip = Ipv4Addr::from(octets);
    let names = names_of(index, zone, ip);
    match question.kind {
        _ if names.is_empty() => Answer::Elsewhere,
        Type::PTR | Type::ANY => zone.found(question, names.into_iter().map(RecordData::Ptr).collect()),
        _ => zone.no_data(),
    }
}

fn names_of(index: &Index, zone: &Zone, ip: Ipv4Addr) -> Vec<String> {
    if let Some(name) = index.of_cluster_ip(ip) {
        return vec![zone.service_name(name)];
    }
    let mut names = Vec::new();
    for service in index.of_endpoint(ip) {
        let endpoints = index.slices(service).flat_map(|slice| slice.endpoints());
        let here = endpoints.filter(|endpoint| endpoint.address() == Some(ip) && endpoint.conditions.ready());
        names.extend(
            here.filter_map(endpoint_label).map(|label| format!("{label}.{}", zone.service_name(service))),
        );
    }
    names.sort_unstable();
    names.dedup();
    names
}
