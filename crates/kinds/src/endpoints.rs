use object::Resource;
use schema::{At, Deprecated, Kind, Violation, names, path};
use serde_json::Value;

use crate::column::{AGE, NAME, column};
use crate::spec::check;
use crate::{column, row, strategy};

pub const ENDPOINTS: Resource = Resource::new("endpoints");

pub static KIND: Kind = Kind {
    resource: ENDPOINTS,
    group: "",
    version: "v1",
    deprecated: Some(Deprecated {
        since: 33,
        removed: None,
        instead: Some(("discovery.k8s.io/v1", "EndpointSlice")),
    }),
    kind: "Endpoints",
    singular: "endpoints",
    short_names: &["ep"],
    namespaced: true,
    type_name: "core.v1.Endpoints",
    columns: &[
        NAME,
        column("Endpoints", "string", "The first of its addresses.", |object, _| addresses(object)),
        AGE,
    ],
    strategy: strategy::CREATE_ON_UPDATE,
    validate,
    ..row::BASE
};

const SHOWN: usize = 3;

fn addresses(endpoints: &Value) -> Value {
    let subsets = path::list(endpoints, "subsets");
    if subsets.is_empty() {
        return "<none>".into();
    }
    let mut all = Vec::new();
    for subset in subsets {
        let ips = path::list(subset, "addresses").iter().map(|one| path::text(one, "ip"));
        let ports: Vec<i64> =
            path::list(subset, "ports").iter().filter_map(|one| path::int(one, "port")).collect();
        if ports.is_empty() {
            all.extend(ips.map(str::to_owned));
            continue;
        }
        for port in ports {
            let at =
                |ip: &str| if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") };
            all.extend(path::list(subset, "addresses").iter().map(|one| at(path::text(one, "ip"))));
        }
    }
    column::first(&all, SHOWN, "").into()
}

fn validate(endpoints: &Value, old: Option<&Value>) -> Vec<Violation> {
    let mut found = Vec::new();
    let subsets = path::list(endpoints, "subsets");
    if old.is_some_and(|old| path::list(old, "subsets") == subsets) {
        return found;
    }
    for (index, subset) in subsets.iter().enumerate() {
        let at = At::root("subsets");
        let at = at.index(index);
        let lists = ["addresses", "notReadyAddresses"];
        if lists.iter().all(|list| path::list(subset, list).is_empty()) {
            found.push(Violation::required(at, "must specify `addresses` or `notReadyAddresses`"));
        }
        for list in lists {
            for (index, address) in path::list(subset, list).iter().enumerate() {
                let at = at.field(list);
                let at = at.index(index);
                let ip = path::text(address, "ip");
                found.extend(Violation::all_invalid(at.field("ip"), ip, names::ip(ip)));
                check::follows(address, "hostname", names::dns_label, at, &mut found);
                check::follows_if_set(address, "nodeName", names::dns_subdomain, at, &mut found);
                found.extend(Violation::all_invalid(at.field("ip"), ip, check::reachable(ip)));
            }
        }
        let ports = path::list(subset, "ports");
        for (index, port) in ports.iter().enumerate() {
            let at = at.field("ports");
            let at = at.index(index);
            if ports.len() > 1 {
                check::required(port, "name", at, &mut found);
            }
            check::follows(port, "name", names::dns_label, at, &mut found);
            let number = path::int(port, "port").unwrap_or_default();
            found.extend(Violation::all_invalid(at.field("port"), number, names::port_number(number)));
            check::one_of(port, "protocol", &["SCTP", "TCP", "UDP"], at, &mut found);
            check::follows_if_set(port, "appProtocol", names::qualified_name, at, &mut found);
        }
    }
    found
}
