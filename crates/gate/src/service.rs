//! Addresses and ports of Services, taken and given back in the same transaction as the Service itself.
//!
//! A cluster IP is taken by an `IPAddress` object of its name (KEP-1880), a node port by an object that only the store sees. Both are
//! written on condition that nothing is there, so two Services that want the same one cannot both be committed.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Instant;

use kinds::IP_ADDRESSES;
use object::{Draft, Key, Meta, Object, Resource, Snapshot, Status, body};
use schema::{Violation, ViolationKind, path};
use serde_json::{Value, json};
use store::{Op, Precondition};

use crate::commit::Failed;
use crate::{Gate, ServiceRange, allocation, commit, metadata};

/// Not served: one object for each node port that is taken.
pub(crate) const NODE_PORTS: Resource = Resource::new("nodeports.internal.ekso");

/// Completes a Service's addresses and ports; the operations take what is new and give back what it no longer has.
/// Objects of other kinds are left alone.
pub(crate) fn allocate(
    gate: &Gate,
    snapshot: &Snapshot,
    key: &Key,
    new: &mut Value,
    old: Option<&Value>,
) -> Result<Vec<Op>, Status> {
    if key.resource.as_str() != "services" {
        return Ok(Vec::new());
    }
    agree(new, old);
    if let Some(old) = old {
        drop_inapplicable(new, old);
        keep_allocated(new, old);
    }
    families(new)?;
    let mut ops = addresses(gate, snapshot, key, new, old)?;
    ops.extend(node_ports(gate, snapshot, key, new, old)?);
    Ok(ops)
}

/// What a Service that goes away gives back.
pub(crate) fn release(snapshot: &Snapshot, service: &Object) -> Vec<Op> {
    let Ok(value) = service.to_value() else { return Vec::new() };
    let taken =
        cluster_ips(&value).into_iter().map(address_key).chain(ports(&value).into_iter().map(port_key));
    taken.filter_map(|key| snapshot.get(&key).map(|held| commit::remove(held))).collect()
}

impl Gate {
    /// Takes the addresses and ports of Services that nothing says are taken: upstream keeps its node ports, and before 1.33 its cluster
    /// addresses, in a form of its own. To be called before anyone else is served.
    ///
    /// # Errors
    /// What the store failed at. An address that somebody has taken meanwhile is none.
    pub async fn adopt_services(&self) -> Result<(), Status> {
        let snapshot = self.store.snapshot();
        for service in snapshot.list(kinds::SERVICES, "") {
            let Ok(value) = service.to_value() else { continue };
            let mut ops = Vec::new();
            let ranges = allocation::ranges(&snapshot, self.services.addresses);
            let is_ours = |ip: &Ipv4Addr| ranges.iter().any(|range| range.contains(*ip));
            for address in cluster_ips(&value).into_iter().filter(is_ours) {
                if snapshot.get(&address_key(address)).is_none() {
                    ops.push(take_address(self, &service.key, address)?);
                }
            }
            let free = |port: &i64| snapshot.get(&port_key(*port)).is_none();
            ops.extend(ports(&value).into_iter().filter(free).map(|port| take_port(&service.key, port)));
            for op in ops {
                match self.commit(&service.key, vec![op]).await {
                    Err(Failed::Status(status)) => return Err(status),
                    Ok(_) | Err(Failed::Raced { .. }) => {}
                }
            }
        }
        Ok(())
    }
}

fn service_type(service: &Value) -> &str {
    path::text(service, "spec.type")
}

/// `clusterIP` and the first of `clusterIPs` say the same, whichever of them the client wrote.
fn agree(new: &mut Value, old: Option<&Value>) {
    let one = path::text(new, "spec.clusterIP").to_owned();
    let many = path::list(new, "spec.clusterIPs").to_vec();
    let Some(old) = old else {
        if !one.is_empty() && many.is_empty() {
            path::set(new, "spec.clusterIPs", json!([one]));
        }
        return;
    };
    let one_changed = one != path::text(old, "spec.clusterIP");
    let many_changed = many != path::list(old, "spec.clusterIPs");
    match (one_changed, many_changed, one.is_empty()) {
        (true, false, true) => drop(path::remove(new, "spec.clusterIPs")),
        (true, false, false) => path::set(new, "spec.clusterIPs", json!([one])),
        (false, true, _) if many.is_empty() && !one.is_empty() => {
            path::set(new, "spec.clusterIPs", path::list(old, "spec.clusterIPs").to_vec().into());
        }
        _ => {}
    }
}

/// A change of type takes away what no longer applies, as far as the client left it as it was.
fn drop_inapplicable(new: &mut Value, old: &Value) {
    let has_address = |service: &Value| service_type(service) != "ExternalName";
    let is_balanced = |service: &Value| service_type(service) == "LoadBalancer";
    let is_outside = |service: &Value| {
        let opened = !path::list(service, "spec.externalIPs").is_empty();
        matches!(service_type(service), "LoadBalancer" | "NodePort")
            || (service_type(service) == "ClusterIP" && opened)
    };
    type Applies<'a> = &'a dyn Fn(&Value) -> bool;
    let rules: [(Applies<'_>, &[&str]); 4] = [
        (&has_address, &["spec.clusterIP", "spec.clusterIPs", "spec.ipFamilies", "spec.ipFamilyPolicy"]),
        (&needs_health_port, &["spec.healthCheckNodePort"]),
        (&is_balanced, &["spec.allocateLoadBalancerNodePorts", "spec.loadBalancerClass"]),
        (&is_outside, &["spec.externalTrafficPolicy"]),
    ];
    for (applies, fields) in rules {
        if !applies(old) || applies(new) {
            continue;
        }
        for field in fields {
            if path::get(new, field) == path::get(old, field) {
                path::remove(new, field);
            }
        }
    }
    if needs_node_ports(old) && !needs_node_ports(new) {
        let numbers = |service: &Value| -> Vec<Option<i64>> {
            path::list(service, "spec.ports").iter().map(|port| port["nodePort"].as_i64()).collect()
        };
        if numbers(new) == numbers(old)
            && let Some(ports) = new["spec"]["ports"].as_array_mut()
        {
            ports.iter_mut().filter_map(Value::as_object_mut).for_each(|port| drop(port.remove("nodePort")));
        }
    }
}

/// An update that leaves out what was allocated does not lose it.
fn keep_allocated(new: &mut Value, old: &Value) {
    let has_address = |service: &Value| service_type(service) != "ExternalName";
    if has_address(new) && has_address(old) && path::text(new, "spec.clusterIP").is_empty() {
        for field in ["spec.clusterIP", "spec.clusterIPs"] {
            if let Some(value) = path::get(old, field) {
                path::set(new, field, value.clone());
            }
        }
    }
    for field in ["spec.ipFamilyPolicy", "spec.ipFamilies"] {
        if let (true, None, Some(value)) = (has_address(new), path::get(new, field), path::get(old, field)) {
            path::set(new, field, value.clone());
        }
    }
    if needs_node_ports(new) && needs_node_ports(old) {
        keep_ports(new, old);
    }
    if needs_health_port(new)
        && needs_health_port(old)
        && path::int(new, "spec.healthCheckNodePort").unwrap_or(0) == 0
        && let Some(port) = path::get(old, "spec.healthCheckNodePort")
    {
        path::set(new, "spec.healthCheckNodePort", port.clone());
    }
}

fn keep_ports(new: &mut Value, old: &Value) {
    let mut used: BTreeSet<i64> = ports(new);
    let held = path::list(old, "spec.ports");
    let Some(wanted) = new["spec"]["ports"].as_array_mut() else { return };
    for port in wanted.iter_mut().filter(|port| port["nodePort"].as_i64().unwrap_or(0) == 0) {
        let same = held.iter().find(|one| path::text(one, "name") == path::text(port, "name"));
        let Some(number) = same.and_then(|one| one["nodePort"].as_i64()).filter(|&number| number != 0) else {
            continue;
        };
        if used.insert(number) {
            port["nodePort"] = number.into();
        }
    }
}

/// The cluster has IPv4 only; who insists on more is told so.
fn families(new: &mut Value) -> Result<(), Status> {
    if service_type(new) == "ExternalName" {
        return Ok(());
    }
    let headless = path::text(new, "spec.clusterIP") == "None";
    let selectorless = path::members(new, "spec.selector").next().is_none();
    if headless && selectorless {
        path::set_default(new, "spec.ipFamilyPolicy", "RequireDualStack");
        if path::list(new, "spec.ipFamilies").is_empty() {
            path::set(new, "spec.ipFamilies", json!(["IPv4", "IPv6"]));
        }
        return Ok(());
    }
    path::set_default(new, "spec.ipFamilyPolicy", "SingleStack");
    if path::list(new, "spec.ipFamilies").is_empty() {
        path::set(new, "spec.ipFamilies", json!(["IPv4"]));
    }
    if path::text(new, "spec.ipFamilyPolicy") == "RequireDualStack" {
        let value = json!("RequireDualStack");
        return Err(invalid(
            new,
            "spec.ipFamilyPolicy",
            &value,
            "this cluster is not configured for dual-stack services",
        ));
    }
    let alien = path::list(new, "spec.ipFamilies").iter().position(|family| family == "IPv6");
    match alien {
        Some(index) => {
            let field = format!("spec.ipFamilies[{index}]");
            Err(invalid(new, &field, &json!("IPv6"), "not configured on this cluster"))
        }
        None => Ok(()),
    }
}

/// The addresses that a Service holds: none if it is headless or only a name.
fn cluster_ips(service: &Value) -> BTreeSet<Ipv4Addr> {
    let listed = path::list(service, "spec.clusterIPs").iter().filter_map(Value::as_str);
    let one = Some(path::text(service, "spec.clusterIP"));
    listed.chain(one).filter_map(|text| text.parse().ok()).collect()
}

fn addresses(
    gate: &Gate,
    snapshot: &Snapshot,
    key: &Key,
    new: &mut Value,
    old: Option<&Value>,
) -> Result<Vec<Op>, Status> {
    let held = old.map(cluster_ips).unwrap_or_default();
    let external = service_type(new) == "ExternalName";
    let mut wanted = if external { BTreeSet::new() } else { cluster_ips(new) };
    let mut ops = Vec::new();
    let needs_one = !external
        && path::text(new, "spec.clusterIP").is_empty()
        && path::list(new, "spec.clusterIPs").is_empty();
    if needs_one {
        let address = next_address(gate, snapshot, &key.name)?;
        path::set(new, "spec.clusterIP", address.to_string().into());
        path::set(new, "spec.clusterIPs", json!([address.to_string()]));
        ops.push(take_address(gate, key, address)?);
        wanted.insert(address);
    } else {
        for &address in wanted.difference(&held) {
            if let Err(why) = chosen_address(gate, snapshot, address) {
                let value = Value::from(path::list(new, "spec.clusterIPs").to_vec());
                let why = format!("failed to allocate IP {address}: {why}");
                return Err(invalid(new, "spec.clusterIPs", &value, &why));
            }
            ops.push(take_address(gate, key, address)?);
        }
    }
    for &address in held.difference(&wanted) {
        ops.extend(snapshot.get(&address_key(address)).map(|held| commit::remove(held)));
    }
    Ok(ops)
}

/// An address that nobody has, of the first range that has one.
fn next_address(gate: &Gate, snapshot: &Snapshot, service: &str) -> Result<Ipv4Addr, Status> {
    let began = Instant::now();
    for range in allocation::ranges(snapshot, gate.services.addresses) {
        let found = free_address(gate, snapshot, range);
        gate.measures.allocated(range, "dynamic", found.is_some(), began.elapsed());
        if let Some(address) = found {
            return Ok(address);
        }
    }
    Err(Status::internal(format!("failed to allocate a serviceIP for Service {service:?}: range is full")))
}

/// Whether a Service may have the address that it asks for.
fn chosen_address(gate: &Gate, snapshot: &Snapshot, address: Ipv4Addr) -> Result<(), &'static str> {
    let began = Instant::now();
    let ranges = allocation::ranges(snapshot, gate.services.addresses);
    let range = ranges.into_iter().find(|range| range.contains(address));
    let range = range.ok_or("the provided network does not match the current range")?;
    let is_free = snapshot.get(&address_key(address)).is_none();
    gate.measures.allocated(range, "static", is_free, began.elapsed());
    if is_free { Ok(()) } else { Err("provided IP is already allocated") }
}

/// A free address: from a random place in the part that is for dynamic allocation, and from the rest when that is full.
fn free_address(gate: &Gate, snapshot: &Snapshot, range: ServiceRange) -> Option<Ipv4Addr> {
    let (size, low) = (range.size(), range.dynamic_from());
    let start = gate.below(size - low);
    let upper = (0..size - low).map(|step| low + (start + step) % (size - low));
    upper
        .chain(0..low)
        .map(|offset| range.at(offset))
        .find(|&address| snapshot.get(&address_key(address)).is_none())
}

fn address_key(address: Ipv4Addr) -> Key {
    Key::cluster(IP_ADDRESSES, address.to_string())
}

fn take_address(gate: &Gate, service: &Key, address: Ipv4Addr) -> Result<Op, Status> {
    let key = address_key(address);
    let object = json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "IPAddress",
        "metadata": {
            "name": &*key.name,
            "uid": gate.uid(),
            "creationTimestamp": gate.now().to_string(),
            "labels": {
                "ipaddress.kubernetes.io/ip-family": "IPv4",
                "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io",
            },
        },
        "spec": {"parentRef": {
            "group": "", "resource": "services", "namespace": &*service.namespace, "name": &*service.name,
        }},
    });
    let catalog = gate.catalog();
    let kind = catalog.by_resource(IP_ADDRESSES);
    let draft = kind
        .map(|kind| commit::draft(kind, &key, &object))
        .transpose()?
        .unwrap_or_else(|| bare(&key, &object));
    Ok(commit::put(draft, Precondition::Absent))
}

fn bare(key: &Key, object: &Value) -> Draft {
    Draft { key: key.clone(), meta: Meta::default(), fields: [].into(), stored: body::encode(object) }
}

fn needs_node_ports(service: &Value) -> bool {
    match service_type(service) {
        "NodePort" => true,
        "LoadBalancer" => {
            path::get(service, "spec.allocateLoadBalancerNodePorts") != Some(&Value::Bool(false))
        }
        _ => false,
    }
}

fn needs_health_port(service: &Value) -> bool {
    service_type(service) == "LoadBalancer" && path::text(service, "spec.externalTrafficPolicy") == "Local"
}

/// Every node port that a Service holds or asks for.
fn ports(service: &Value) -> BTreeSet<i64> {
    if !matches!(service_type(service), "NodePort" | "LoadBalancer") {
        return BTreeSet::new();
    }
    let listed = path::list(service, "spec.ports").iter().filter_map(|port| port["nodePort"].as_i64());
    listed.chain(path::int(service, "spec.healthCheckNodePort")).filter(|&port| port != 0).collect()
}

fn node_ports(
    gate: &Gate,
    snapshot: &Snapshot,
    key: &Key,
    new: &mut Value,
    old: Option<&Value>,
) -> Result<Vec<Op>, Status> {
    let held = old.map(ports).unwrap_or_default();
    let asked = ports(new);
    for &port in asked.difference(&held) {
        let why = if !in_range(gate, port) {
            let (first, last) = gate.services.node_ports;
            format!("provided port is not in the valid range. The range of valid ports is {first}-{last}")
        } else if snapshot.get(&port_key(port)).is_some() {
            "provided port is already allocated".to_owned()
        } else {
            continue;
        };
        let index =
            path::list(new, "spec.ports").iter().position(|one| one["nodePort"].as_i64() == Some(port));
        let field = index
            .map_or("spec.healthCheckNodePort".to_owned(), |index| format!("spec.ports[{index}].nodePort"));
        gate.measures.node_port("static", false);
        return Err(invalid(new, &field, &port.into(), &why));
    }
    asked.difference(&held).for_each(|_| gate.measures.node_port("static", true));
    let mut taken = asked;
    if needs_node_ports(new) {
        assign_ports(gate, snapshot, new, &mut taken)?;
    }
    if needs_health_port(new) && path::int(new, "spec.healthCheckNodePort").unwrap_or(0) == 0 {
        let port = free_port(gate, snapshot, &taken)?;
        taken.insert(port);
        path::set(new, "spec.healthCheckNodePort", port.into());
    }
    let mut ops: Vec<Op> = taken.difference(&held).map(|&port| take_port(key, port)).collect();
    ops.extend(
        held.difference(&taken)
            .filter_map(|&port| snapshot.get(&port_key(port)).map(|held| commit::remove(held))),
    );
    Ok(ops)
}

/// A node port for each port that has none; two protocols of one port number share theirs.
fn assign_ports(
    gate: &Gate,
    snapshot: &Snapshot,
    new: &mut Value,
    taken: &mut BTreeSet<i64>,
) -> Result<(), Status> {
    let mut known: Vec<(i64, String, i64)> = Vec::new();
    let Some(ports) = new["spec"]["ports"].as_array_mut() else { return Ok(()) };
    for port in ports.iter() {
        if let (Some(number), Some(node)) =
            (port["port"].as_i64(), port["nodePort"].as_i64().filter(|&node| node != 0))
        {
            known.push((number, path::text(port, "protocol").to_owned(), node));
        }
    }
    for port in ports.iter_mut().filter(|port| port["nodePort"].as_i64().unwrap_or(0) == 0) {
        let number = port["port"].as_i64().unwrap_or(0);
        let protocol = path::text(port, "protocol").to_owned();
        let shared =
            known.iter().find(|(held, other, _)| *held == number && *other != protocol).map(|one| one.2);
        let node = match shared {
            Some(node) => node,
            None => free_port(gate, snapshot, taken)?,
        };
        taken.insert(node);
        known.push((number, protocol, node));
        port["nodePort"] = node.into();
    }
    Ok(())
}

fn in_range(gate: &Gate, port: i64) -> bool {
    let (first, last) = gate.services.node_ports;
    (i64::from(first)..=i64::from(last)).contains(&port)
}

/// A free node port. The lowest part of the range is left for those who choose theirs, as long as there are others (KEP-3668).
fn free_port(gate: &Gate, snapshot: &Snapshot, taken: &BTreeSet<i64>) -> Result<i64, Status> {
    let (first, last) = gate.services.node_ports;
    let size = u64::from(last.saturating_sub(first)) + 1;
    let low = (size / 32).clamp(16, 128).min(size / 2);
    let start = gate.below(size - low);
    let upper = (0..size - low).map(|step| low + (start + step) % (size - low));
    let free = |port: &i64| !taken.contains(port) && snapshot.get(&port_key(*port)).is_none();
    let found = upper.chain(0..low).map(|offset| i64::from(first) + offset as i64).find(free);
    gate.measures.node_port("dynamic", found.is_some());
    found.ok_or_else(|| Status::internal("failed to allocate a nodePort: range is full"))
}

fn port_key(port: i64) -> Key {
    Key::cluster(NODE_PORTS, port.to_string())
}

fn take_port(service: &Key, port: i64) -> Op {
    let key = port_key(port);
    let object = json!({
        "apiVersion": "internal.ekso/v1",
        "kind": "NodePort",
        "metadata": {"name": &*key.name},
        "service": {"namespace": &*service.namespace, "name": &*service.name},
    });
    commit::put(bare(&key, &object), Precondition::Absent)
}

fn invalid(service: &Value, field: &str, value: &Value, detail: &str) -> Status {
    let violation = Violation {
        kind: ViolationKind::Invalid,
        field: field.to_owned(),
        value: value.to_string(),
        detail: detail.to_owned(),
    };
    Violation::to_status(&[violation], "", "Service", metadata::text(service, "name"))
}
