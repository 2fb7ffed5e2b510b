//! The cluster address of a Service.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Instant;

use kinds::IP_ADDRESSES;
use object::{Key, Status};
use plan::User;
use schema::{At, Violation, path};
use serde_json::{Value, json};
use store::{Op, Precondition};

use super::{Allocation, has_address, refused};
use crate::request::{Options, Request};
use crate::{Gate, ServiceRange, allocation, commit, ownership};

const LIST: &str = "spec.clusterIPs";

/// The addresses that a Service holds: none if it is headless or only a name.
pub(super) fn held(service: &Value) -> BTreeSet<Ipv4Addr> {
    let listed = path::list(service, LIST).iter().filter_map(Value::as_str);
    let one = Some(path::text(service, "spec.clusterIP"));
    listed.chain(one).filter_map(|text| text.parse().ok()).collect()
}

/// A new Service, and one that was only a name, is given an address; one that becomes a name gives its own back. Nothing else may change.
pub(super) fn settle(
    allocation: &Allocation<'_>,
    new: &mut Value,
    old: Option<&Value>,
) -> Result<Vec<Op>, Status> {
    match (has_address(new), old.filter(|old| has_address(old))) {
        (false, Some(old)) => {
            let keys = held(old).into_iter().map(key);
            Ok(keys
                .filter_map(|key| allocation.snapshot.get(&key).map(|held| commit::remove(held)))
                .collect())
        }
        (true, None) if path::list(new, LIST).first().is_none_or(|first| first != "None") => {
            give(allocation, new).map(|op| op.into_iter().collect())
        }
        _ => Ok(Vec::new()),
    }
}

fn give(allocation: &Allocation<'_>, new: &mut Value) -> Result<Option<Op>, Status> {
    let ranges = allocation::ranges(allocation.snapshot, allocation.gate.services.addresses);
    let asked = path::list(new, LIST).first().and_then(Value::as_str);
    let address = match asked {
        None => {
            let address = next(allocation, &ranges)?;
            path::set(new, "spec.clusterIP", address.to_string().into());
            path::set(new, LIST, json!([address.to_string()]));
            address
        }
        Some(asked) => match chosen(allocation, &ranges, asked) {
            Ok(address) => address,
            Err(why) => {
                let detail = format!("failed to allocate IP {asked}: {why}");
                return refused(new, &[Violation::invalid(At::root(LIST), path::list(new, LIST), detail)])
                    .map(|()| None);
            }
        },
    };
    if allocation.dry_run { Ok(None) } else { take(allocation.gate, allocation.key, address).map(Some) }
}

/// An address that nobody has, of the first range that has one. What nobody is to have is the range's own.
fn next(allocation: &Allocation<'_>, ranges: &[ServiceRange]) -> Result<Ipv4Addr, Status> {
    if let (true, Some(range)) = (allocation.dry_run, ranges.first()) {
        return Ok(range.network);
    }
    let began = Instant::now();
    for &range in ranges {
        let found = free(allocation, range);
        allocation.gate.measures.allocated(range, "dynamic", found.is_some(), began.elapsed());
        if let Some(address) = found {
            return Ok(address);
        }
    }
    let service = &allocation.key.name;
    Err(Status::internal(format!("failed to allocate a serviceIP for Service {service:?}: range is full")))
}

/// Whether a Service may have the address that it asks for.
fn chosen(allocation: &Allocation<'_>, ranges: &[ServiceRange], asked: &str) -> Result<Ipv4Addr, String> {
    let began = Instant::now();
    let address = asked.parse::<Ipv4Addr>().ok();
    let range = address.and_then(|address| ranges.iter().find(|range| range.contains(address)));
    let (Some(address), Some(&range)) = (address, range) else {
        return Err(match ranges.first().filter(|_| allocation.dry_run) {
            Some(range) => format!(
                "the provided IP ({asked}) is not in the valid range. The range of valid IPs is {range}"
            ),
            None => "the provided network does not match the current range".into(),
        });
    };
    if allocation.dry_run {
        return Ok(address);
    }
    let is_free = allocation.snapshot.get(&key(address)).is_none();
    allocation.gate.measures.allocated(range, "static", is_free, began.elapsed());
    if is_free { Ok(address) } else { Err("provided IP is already allocated".into()) }
}

/// A free address: from a random place in the part that is for dynamic allocation, and from the rest when that is full.
fn free(allocation: &Allocation<'_>, range: ServiceRange) -> Option<Ipv4Addr> {
    let (size, low) = (range.size(), range.dynamic_from());
    let start = allocation.gate.below(size - low);
    let upper = (0..size - low).map(|step| low + (start + step) % (size - low));
    upper
        .chain(0..low)
        .map(|offset| range.at(offset))
        .find(|&address| allocation.snapshot.get(&key(address)).is_none())
}

pub(super) fn key(address: Ipv4Addr) -> Key {
    Key::cluster(IP_ADDRESSES, address.to_string())
}

/// Written as the API server itself would: upstream's asks itself over HTTP.
pub(super) fn take(gate: &Gate, service: &Key, address: Ipv4Addr) -> Result<Op, Status> {
    let (key, now) = (key(address), gate.now());
    let mut object = json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "IPAddress",
        "metadata": {
            "name": &*key.name,
            "uid": gate.uid(),
            "creationTimestamp": now.to_string(),
            "labels": {
                "ipaddress.kubernetes.io/ip-family": "IPv4",
                "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io",
            },
        },
        "spec": {"parentRef": {
            "resource": "services", "namespace": &*service.namespace, "name": &*service.name,
        }},
    });
    let catalog = gate.catalog();
    // A version that does not serve them keeps them all the same.
    let Some(kind) = catalog.by_resource(IP_ADDRESSES) else {
        return Ok(commit::put(commit::bare(&key, &object), Precondition::Absent));
    };
    let user = User::new("system:apiserver", &["system:masters"]);
    let options = Options { field_manager: "kube-apiserver".into(), ..Options::default() };
    let request = Request { user: &user, kind, namespace: "", name: "", subresource: "", options: &options };
    ownership::created(&request, kind, &mut object, now);
    Ok(commit::put(commit::draft(kind, &key, &object)?, Precondition::Absent))
}
