use object::Resource;
use schema::{At, Kind, Strategy, Violation, names, path};
use serde_json::Value;

use crate::column::{AGE, NAME, column, text};
use crate::spec::addresses;
use crate::spec::check::{self, Found, Seen};
use crate::{column, row, strategy};

pub const ENDPOINT_SLICES: Resource = Resource::new("endpointslices.discovery.k8s.io");

pub static KIND: Kind = Kind {
    resource: ENDPOINT_SLICES,
    group: "discovery.k8s.io",
    version: "v1",
    kind: "EndpointSlice",
    singular: "endpointslice",
    namespaced: true,
    type_name: "discovery.v1.EndpointSlice",
    columns: &[
        NAME,
        column("AddressType", "string", "What its addresses are.", |object, _| text(object, "addressType")),
        column("Ports", "string", "The first of its ports.", |object, _| ports(object)),
        column("Endpoints", "string", "The first of its addresses.", |object, _| addresses(object)),
        AGE,
    ],
    strategy: Strategy {
        generation: &["addressType", "endpoints", "metadata.labels", "ports"],
        ..strategy::PLAIN
    },
    validate,
    warn,
    ..row::BASE
};

fn warn(new: &Value, _old: Option<&Value>) -> Vec<String> {
    if path::text(new, "addressType") == "FQDN" {
        return Vec::new();
    }
    let mut found = Vec::new();
    for (index, endpoint) in path::list(new, "endpoints").iter().enumerate() {
        for (nested, address) in path::list(endpoint, "addresses").iter().enumerate() {
            let at = format!("endpoints[{index}].addresses[{nested}]");
            found.extend(addresses::warn_of_ip(&at, address.as_str().unwrap_or_default()));
        }
    }
    found
}

const SHOWN: usize = 3;
const ENDPOINTS_MAX: usize = 1000;
const ADDRESSES_MAX: usize = 100;
const PORTS_MAX: usize = 20_000;
const HINTS_MAX: usize = 8;

fn ports(slice: &Value) -> Value {
    let one = |port: &Value| match path::int(port, "port") {
        Some(number) => number.to_string(),
        None if path::text(port, "name").is_empty() => "*".into(),
        None => path::text(port, "name").into(),
    };
    let all: Vec<String> = path::list(slice, "ports").iter().map(one).collect();
    column::first(&all, SHOWN, "<unset>").into()
}

fn addresses(slice: &Value) -> Value {
    let endpoints = path::list(slice, "endpoints").iter();
    let all =
        endpoints.flat_map(|one| path::list(one, "addresses")).filter_map(Value::as_str).map(str::to_owned);
    column::first(&all.collect::<Vec<_>>(), SHOWN, "<unset>").into()
}

fn validate(slice: &Value, old: Option<&Value>) -> Vec<Violation> {
    let mut found = Vec::new();
    let (root, kind) = (At::root(""), path::text(slice, "addressType"));
    if kind.is_empty() {
        found.push(Violation::required(At::root("addressType"), ""));
    } else {
        check::one_of(slice, "addressType", &["FQDN", "IPv4", "IPv6"], root, &mut found);
    }
    let endpoints = path::list(slice, "endpoints");
    let list = At::root("endpoints");
    if endpoints.len() > ENDPOINTS_MAX {
        found.push(Violation::too_many(list, endpoints.len(), ENDPOINTS_MAX));
    }
    for (index, endpoint) in endpoints.iter().enumerate() {
        one(endpoint, kind, list.index(index), &mut found);
    }
    slice_ports(path::list(slice, "ports"), &mut found);
    if let Some(old) = old {
        check::immutable(slice, old, "addressType", root, &mut found);
    }
    found
}

fn one(endpoint: &Value, kind: &str, at: At<'_>, found: &mut Found) {
    let addresses = path::list(endpoint, "addresses");
    let list = at.field("addresses");
    if addresses.is_empty() {
        found.push(Violation::required(list, "must contain at least 1 address"));
    } else if addresses.len() > ADDRESSES_MAX {
        found.push(Violation::too_many(list, addresses.len(), ADDRESSES_MAX));
    }
    for (index, address) in addresses.iter().enumerate() {
        let address = address.as_str().unwrap_or_default();
        found.extend(Violation::all_invalid(list.index(index), address, address_wrong(kind, address)));
    }
    check::follows(endpoint, "nodeName", names::dns_subdomain, at, found);
    check::follows(endpoint, "hostname", names::dns_label, at, found);
    for hint in ["forZones", "forNodes"] {
        let hints = path::list(&endpoint["hints"], hint);
        let at = at.field("hints");
        let list = at.field(hint);
        if hints.len() > HINTS_MAX {
            found.push(Violation::too_many(list, hints.len(), HINTS_MAX));
        }
        let mut seen = Seen::default();
        for (index, one) in hints.iter().enumerate() {
            let name = path::text(one, "name");
            let at = list.index(index);
            if seen.repeats(name) {
                found.push(Violation::duplicate(at.field("name"), name));
            }
            let wrong =
                if hint == "forZones" { names::label_value(name) } else { names::dns_subdomain(name) };
            found.extend(Violation::all_invalid(at.field("name"), name, wrong));
        }
    }
}

fn address_wrong(kind: &str, address: &str) -> Vec<String> {
    let ip = address.parse::<std::net::IpAddr>().ok();
    match kind {
        "IPv4" if !ip.is_some_and(|ip| ip.is_ipv4()) => vec!["must be an IPv4 address".into()],
        "IPv6" if !ip.is_some_and(|ip| ip.is_ipv6()) => vec!["must be an IPv6 address".into()],
        "IPv4" | "IPv6" => {
            let wrong = names::canonical_ip(address);
            if wrong.is_empty() { check::outside_ip(address) } else { wrong }
        }
        "FQDN" => {
            let plain = address.strip_suffix('.').unwrap_or(address);
            let mut wrong = names::dns_subdomain(plain);
            if wrong.is_empty() && !plain.contains('.') {
                wrong.push("should be a domain with at least two segments separated by dots".into());
            }
            wrong
        }
        _ => Vec::new(),
    }
}

fn slice_ports(ports: &[Value], found: &mut Found) {
    let list = At::root("ports");
    if ports.len() > PORTS_MAX {
        found.push(Violation::too_many(list, ports.len(), PORTS_MAX));
        return;
    }
    let mut taken = std::collections::HashSet::new();
    for (index, port) in ports.iter().enumerate() {
        let at = list.index(index);
        let name = path::text(port, "name");
        check::follows(port, "name", names::dns_label, at, found);
        if !taken.insert(name) {
            found.push(Violation::duplicate(at.field("name"), name));
        }
        check::one_of(port, "protocol", &["SCTP", "TCP", "UDP"], at, found);
        check::follows(port, "appProtocol", names::qualified_name, at, found);
    }
}
