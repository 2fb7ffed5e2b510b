use object::Resource;
use schema::{At, Kind, Strategy, Violation, names, path};
use serde_json::Value;

use crate::column::{AGE, NAME, column};
use crate::{row, strategy, subresource};

pub const SERVICE_CIDRS: Resource = Resource::new("servicecidrs.networking.k8s.io");

pub static KIND: Kind = Kind {
    resource: SERVICE_CIDRS,
    group: "networking.k8s.io",
    version: "v1",
    kind: "ServiceCIDR",
    singular: "servicecidr",
    namespaced: false,
    subresources: &[subresource::STATUS],
    type_name: "networking.v1.ServiceCIDR",
    columns: &[
        NAME,
        column("CIDRs", "string", "The addresses that services may have.", |object, _| {
            crate::column::join(path::list(object, "spec.cidrs"), |cidr| cidr.as_str().unwrap_or_default())
                .into()
        }),
        AGE,
    ],
    strategy: Strategy { status_keeps_metadata: true, ..strategy::STATUS },
    validate,
    ..row::BASE
};

fn validate(object: &Value, old: Option<&Value>) -> Vec<Violation> {
    let mut found = Vec::new();
    let cidrs = path::list(object, "spec.cidrs");
    let at = At::root("spec.cidrs");
    if cidrs.is_empty() {
        found.push(Violation::required(at, "at least one CIDR required"));
    } else if cidrs.len() > 2 {
        found.push(Violation::invalid(at, cidrs, "may only hold up to 2 values"));
    }
    let texts: Vec<&str> = cidrs.iter().filter_map(Value::as_str).collect();
    if let [first, second] = texts[..]
        && first.contains(':') == second.contains(':')
    {
        let detail =
            "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
        found.push(Violation::invalid(at, cidrs, detail));
    }
    for (index, cidr) in texts.iter().enumerate() {
        found.extend(Violation::all_invalid(at.index(index), cidr, names::cidr(cidr)));
    }
    let before = old.map(|old| path::list(old, "spec.cidrs")).unwrap_or_default();
    if !cidrs.starts_with(before) {
        found.push(Violation::immutable(at, cidrs));
    }
    found
}
