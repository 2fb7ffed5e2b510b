use object::Resource;
use schema::{At, Kind, Strategy, Violation, names, path};
use serde_json::{Value, json};

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

const CIDRS: At<'static> = At::root("spec.cidrs");

/// What is there stays; one of the other family may follow it.
fn validate(object: &Value, old: Option<&Value>) -> Vec<Violation> {
    let cidrs = path::list(object, "spec.cidrs");
    let Some(before) = old.map(|old| path::list(old, "spec.cidrs")) else { return own(cidrs) };
    let changed = |index: usize| cidrs[index] != before[index];
    let immutable = |index: usize| Violation::immutable(CIDRS.index(index), &cidrs[index]);
    match (before.len(), cidrs.len()) {
        (was, is) if was == is => (0..is).filter(|index| changed(*index)).map(immutable).collect(),
        (1, 2) => {
            let mut found: Vec<Violation> =
                Some(0).filter(|index| changed(*index)).map(immutable).into_iter().collect();
            found.extend(own(cidrs));
            found
        }
        _ => vec![Violation::immutable(CIDRS, cidrs)],
    }
}

fn own(cidrs: &[Value]) -> Vec<Violation> {
    if cidrs.is_empty() {
        return vec![Violation::required(CIDRS, "at least one CIDR required")];
    }
    if cidrs.len() > 2 {
        return vec![Violation::invalid(CIDRS, json!({"CIDRs": cidrs}), "may only hold up to 2 values")];
    }
    let mut found = Vec::new();
    let texts: Vec<&str> = cidrs.iter().filter_map(Value::as_str).collect();
    for (index, cidr) in texts.iter().enumerate() {
        found.extend(Violation::all_invalid(CIDRS.index(index), cidr, names::canonical_cidr(cidr)));
    }
    if let [first, second] = texts[..]
        && first.contains('/')
        && second.contains('/')
        && first.contains(':') == second.contains(':')
    {
        let detail =
            "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
        found.push(Violation::invalid(CIDRS, cidrs, detail));
    }
    found
}
