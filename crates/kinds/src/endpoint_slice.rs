use object::Resource;
use schema::{At, Kind, Strategy, Violation, metadata, names, path};
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
        prepare,
        ..strategy::PLAIN
    },
    validate,
    warn,
    ..row::BASE
};

/// Who makes slices for Services; what they write of addresses is in order.
const MAKERS: [&str; 2] = ["endpointslice-controller.k8s.io", "endpointslicemirroring-controller.k8s.io"];

fn warn(new: &Value, old: Option<&Value>) -> Vec<String> {
    let mut found = Vec::new();
    if path::text(new, "addressType") == "FQDN" {
        if old.is_none() {
            found.push("spec.addressType: FQDN endpoints are deprecated".into());
        }
        return found;
    }
    let maker = new["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"].as_str();
    if maker.is_some_and(|maker| MAKERS.contains(&maker)) {
        return found;
    }
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
const TOPOLOGY_MAX: usize = 16;

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

/// `deprecatedTopology` is what v1beta1 had: nobody writes it any more. A node that only it named is kept as `nodeName`.
fn prepare(slice: &mut Value, old: Option<&Value>) {
    const HOST: &str = "kubernetes.io/hostname";
    let before = old.map(|old| path::list(old, "endpoints")).unwrap_or_default();
    if old.is_some() && path::list(slice, "endpoints") == before {
        return;
    }
    let named: Vec<&Value> = before.iter().map(|one| &one["deprecatedTopology"][HOST]).collect();
    let Some(Value::Array(endpoints)) = slice.get_mut("endpoints") else { return };
    for endpoint in endpoints {
        let Some(topology) = path::remove(endpoint, "deprecatedTopology") else { continue };
        let Some(node) = topology[HOST].as_str() else { continue };
        let is_kept = named.iter().any(|one| *one == node) && names::dns_subdomain(node).is_empty();
        if is_kept && endpoint.get("nodeName").is_none() {
            endpoint["nodeName"] = node.into();
        }
    }
}

fn validate(slice: &Value, old: Option<&Value>) -> Vec<Violation> {
    let mut found = Vec::new();
    let (root, kind) = (At::root(""), path::text(slice, "addressType"));
    if kind.is_empty() {
        found.push(Violation::required(At::root("addressType"), ""));
    } else {
        check::one_of(slice, "addressType", &["FQDN", "IPv4", "IPv6"], root, &mut found);
    }
    slice_ports(path::list(slice, "ports"), &mut found);
    let (endpoints, list) = (path::list(slice, "endpoints"), At::root("endpoints"));
    // What an older server has taken stays as long as nobody changes it.
    if old.is_none_or(|old| path::list(old, "endpoints") != endpoints) {
        if endpoints.len() > ENDPOINTS_MAX {
            found.push(Violation::too_many(list, endpoints.len(), ENDPOINTS_MAX));
        } else {
            let places = endpoints.iter().enumerate();
            places.for_each(|(index, endpoint)| one(endpoint, kind, list.index(index), &mut found));
        }
    }
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
        let wrong = address_wrong(kind, address);
        if wrong.is_empty() && is_other_family(kind, address) {
            found.push(Violation::invalid(list, address, format!("must be an {kind} address")));
        }
        let at = list.index(index);
        let is_judged = wrong.is_empty() && kind != "FQDN";
        found.extend(Violation::all_invalid(at, address, wrong));
        if is_judged {
            found.extend(Violation::all_invalid(at, address, check::reachable(address)));
        }
    }
    check::follows_if_set(endpoint, "nodeName", names::dns_subdomain, at, found);
    topology(endpoint.get("deprecatedTopology"), at.field("deprecatedTopology"), found);
    check::follows_if_set(endpoint, "hostname", names::dns_label, at, found);
    let hints_at = at.field("hints");
    let rules: [(&str, names::Check); 2] =
        [("forZones", names::label_value), ("forNodes", names::dns_subdomain)];
    for (hint, rule) in rules {
        let hints = path::list(&endpoint["hints"], hint);
        let list = hints_at.field(hint);
        if hints.len() > HINTS_MAX {
            found.push(Violation::too_many(list, hints.len(), HINTS_MAX));
            return;
        }
        let mut seen = Seen::default();
        for (index, one) in hints.iter().enumerate() {
            let name = path::text(one, "name");
            let at = list.index(index);
            if seen.repeats(name) {
                found.push(Violation::duplicate(at.field("name"), name));
            }
            found.extend(Violation::all_invalid(at.field("name"), name, rule(name)));
        }
    }
}

fn topology(topology: Option<&Value>, at: At<'_>, found: &mut Found) {
    let count = topology.and_then(Value::as_object).map_or(0, |all| all.len());
    if count > TOPOLOGY_MAX {
        found.push(Violation::too_many(at, count, TOPOLOGY_MAX));
    }
    metadata::labels(topology, at, found);
}

fn is_other_family(kind: &str, address: &str) -> bool {
    matches!((kind, address.contains(':')), ("IPv4", true) | ("IPv6", false))
}

/// IPv4 addresses are as older servers took them; IPv6 ones are younger than the rule about their form.
fn address_wrong(kind: &str, address: &str) -> Vec<String> {
    match kind {
        "IPv4" => names::ip(address),
        "IPv6" => names::canonical_ip(address),
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
        check::follows_if_set(port, "appProtocol", names::qualified_name, at, found);
    }
}
