//! What a client means that writes only some of the fields that go together.

use std::collections::{BTreeMap, BTreeSet};

use schema::path;
use serde_json::{Value, json};

use super::{has_address, is_balanced, is_on_nodes, node_port, wants_node_ports};

/// An update that leaves out what was allocated does not lose it.
pub(super) fn keep_allocated(new: &mut Value, old: &Value) {
    if has_address(new) && has_address(old) {
        if path::text(new, "spec.clusterIP").is_empty() {
            copy(new, old, "spec.clusterIP");
        }
        if path::list(new, "spec.clusterIPs").is_empty() {
            copy(new, old, "spec.clusterIPs");
        }
    }
    if wants_node_ports(new) && wants_node_ports(old) {
        keep_ports(new, old);
    }
    let port = "spec.healthCheckNodePort";
    if needs_health_port(new) && needs_health_port(old) && path::int(new, port).unwrap_or(0) == 0 {
        copy(new, old, port);
    }
}

fn copy(new: &mut Value, old: &Value, at: &str) {
    if let Some(value) = path::get(old, at) {
        path::set(new, at, value.clone());
    }
}

/// Ports are told apart by their names: the rest of a port may have changed.
fn keep_ports(new: &mut Value, old: &Value) {
    let numbers = |service: &Value| -> BTreeSet<i64> {
        path::list(service, "spec.ports").iter().map(node_port).filter(|port| *port != 0).collect()
    };
    let used: BTreeSet<i64> = numbers(old).intersection(&numbers(new)).copied().collect();
    let held: BTreeMap<&str, i64> = path::list(old, "spec.ports")
        .iter()
        .map(|port| (path::text(port, "name"), node_port(port)))
        .collect();
    let Some(wanted) = new["spec"]["ports"].as_array_mut() else { return };
    for port in wanted.iter_mut().filter(|port| node_port(port) == 0) {
        let number = held.get(path::text(port, "name")).copied().filter(|number| *number != 0);
        if let Some(number) = number.filter(|number| !used.contains(number)) {
            port["nodePort"] = number.into();
        }
    }
}

/// `clusterIP` and the first of `clusterIPs` say the same, whichever of them the client wrote.
pub(super) fn agree(new: &mut Value, old: Option<&Value>) {
    const ONE: &str = "spec.clusterIP";
    const MANY: &str = "spec.clusterIPs";
    let one = path::text(new, ONE).to_owned();
    let Some(old) = old else {
        if !one.is_empty() && path::list(new, MANY).is_empty() {
            path::set(new, MANY, json!([one]));
        }
        return;
    };
    let before = path::text(old, ONE);
    if one == before {
        if path::list(new, MANY).is_empty() {
            copy(new, old, MANY);
        }
    } else if path::list(new, MANY) == path::list(old, MANY) {
        if one.is_empty() {
            path::remove(new, MANY);
        } else {
            path::set(new, MANY, json!([one]));
        }
    }
}

/// A change of type takes away what no longer applies, as far as the client left it as it was.
pub(super) fn drop_inapplicable(new: &mut Value, old: &Value) {
    type Applies = fn(&Value) -> bool;
    // What goes together is left only if all of it was.
    const RULES: [(Applies, &[&str]); 7] = [
        (has_address, &["spec.clusterIP", "spec.clusterIPs"]),
        (has_address, &["spec.ipFamilies"]),
        (has_address, &["spec.ipFamilyPolicy"]),
        (needs_health_port, &["spec.healthCheckNodePort"]),
        (is_balanced, &["spec.allocateLoadBalancerNodePorts"]),
        (is_balanced, &["spec.loadBalancerClass"]),
        (is_outward, &["spec.externalTrafficPolicy"]),
    ];
    let gone = RULES.iter().filter(|(applies, _)| applies(old) && !applies(new));
    let gone: Vec<&[&str]> = gone.map(|(_, fields)| *fields).collect();
    for fields in gone {
        if fields.iter().all(|field| path::get(new, field) == path::get(old, field)) {
            fields.iter().for_each(|field| drop(path::remove(new, field)));
        }
    }
    if is_on_nodes(old) && !is_on_nodes(new) {
        let held: BTreeSet<i64> = path::list(old, "spec.ports").iter().map(node_port).collect();
        let Some(ports) = new["spec"]["ports"].as_array_mut() else { return };
        if ports.iter().map(node_port).all(|port| port == 0 || held.contains(&port)) {
            ports.iter_mut().filter_map(Value::as_object_mut).for_each(|port| drop(port.remove("nodePort")));
        }
    }
}

fn needs_health_port(service: &Value) -> bool {
    kinds::service::needs_health_port(&service["spec"])
}

fn is_outward(service: &Value) -> bool {
    kinds::service::is_outward(&service["spec"])
}
