//! Whether a pod that was bound to this node may run here. The scheduler has asked the same; pods bound by hand have not been asked.
//!
//! Reasons and messages: `pkg/kubelet/lifecycle/predicate.go`.

use std::collections::BTreeMap;

use crate::node_status::NodeFacts;
use crate::pod::{Container, Pod, Port};
use crate::resources::amount;

/// Why a pod fails without having run: `status.reason` and `status.message`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    pub reason: &'static str,
    pub message: String,
}

/// `others` are the pods of the node that have been admitted and have not ended; `labels` are the Node's,
/// none while it is not known. A pod that has a start time was admitted before this process began, and keeps its place.
pub fn admit<'a>(
    pod: &Pod,
    others: impl Iterator<Item = &'a Pod> + Clone,
    node: &NodeFacts,
    labels: Option<&BTreeMap<Box<str>, Box<str>>>,
) -> Result<(), Rejection> {
    let reject = |reason, message| Err(Rejection { reason, message: format!("Pod was rejected: {message}") });
    // Before the start time is looked at: whoever may write a pod's status may write one.
    if let Some(only) = node.only_pod.as_ref().filter(|only| **only != pod.metadata.uid) {
        return reject("NodeReserved", format!("Node runs the pod with UID {only} alone"));
    }
    if pod.status.start_time.is_some() {
        return Ok(());
    }
    let differs = |labels: &BTreeMap<Box<str>, Box<str>>| {
        pod.spec
            .node_selector
            .iter()
            .any(|(key, value)| labels.get(key.as_str()).map(|held| &**held) != Some(value))
    };
    if labels.is_some_and(differs) {
        let message = "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector";
        return reject("NodeAffinity", message.to_owned());
    }
    let count = i64::try_from(others.clone().count()).unwrap_or(i64::MAX);
    if let Some(message) = too_little("pods", 1, count, i64::from(node.max_pods)) {
        return reject("OutOfpods", message);
    }
    for (resource, reason) in
        [("cpu", "OutOfcpu"), ("memory", "OutOfmemory"), ("ephemeral-storage", "OutOfephemeral-storage")]
    {
        if let Some(message) = shortage(pod, others.clone(), node, resource) {
            return reject(reason, message);
        }
    }
    let taken = |port: &Port| others.clone().any(|other| host_ports(other).any(|held| clash(held, port)));
    if host_ports(pod).any(taken) {
        let message =
            "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports";
        return reject("NodePorts", message.into());
    }
    Ok(())
}

/// The ports of the node that a pod asks for. On the node's network the API server has made every port one of them.
fn host_ports(pod: &Pod) -> impl Iterator<Item = &Port> {
    let sidecars = pod.spec.init_containers.iter().filter(|container| container.is_sidecar());
    let containers = pod.spec.containers.iter().chain(sidecars);
    containers.flat_map(|container| &container.ports).filter(|port| port.host_port != 0)
}

fn clash(one: &Port, other: &Port) -> bool {
    let of_all = |port: &Port| matches!(&*port.host_ip, "" | "0.0.0.0");
    fn protocol(port: &Port) -> &str {
        if port.protocol.is_empty() { "TCP" } else { &port.protocol }
    }
    one.host_port == other.host_port
        && protocol(one) == protocol(other)
        && (one.host_ip == other.host_ip || of_all(one) || of_all(other))
}

/// What a resource falls short by, if the pod does not fit beside the others.
pub fn shortage<'a>(
    pod: &Pod,
    others: impl Iterator<Item = &'a Pod>,
    node: &NodeFacts,
    resource: &str,
) -> Option<String> {
    // CPU is counted in thousandths, everything else in whole units.
    let unit = if resource == "cpu" { 1 } else { 1_000 };
    let used = others.map(|other| requested(other, resource) / unit).fold(0, i64::saturating_add);
    too_little(resource, requested(pod, resource) / unit, used, node.allocatable_milli(resource) / unit)
}

fn too_little(resource: &str, requested: i64, used: i64, capacity: i64) -> Option<String> {
    let fits = requested == 0 || requested.saturating_add(used) <= capacity;
    (!fits).then(|| {
        format!(
            "Node didn't have enough resource: {resource}, requested: {requested}, used: {used}, capacity: {capacity}"
        )
    })
}

/// What a pod takes at most at one time, in thousandths: its containers and sidecars, or an init container beside the sidecars before it.
/// <https://kubernetes.io/docs/concepts/workloads/pods/sidecar-containers/#resource-sharing-within-containers>
pub fn requested(pod: &Pod, resource: &str) -> i64 {
    let of = |container: &Container| amount(&container.resources.requests, resource);
    let (mut sidecars, mut init) = (0_i64, 0_i64);
    for container in &pod.spec.init_containers {
        if container.is_sidecar() {
            sidecars = sidecars.saturating_add(of(container));
            init = init.max(sidecars);
        } else {
            init = init.max(sidecars.saturating_add(of(container)));
        }
    }
    let main = pod.spec.containers.iter().map(of).fold(sidecars, i64::saturating_add);
    main.max(init).saturating_add(amount(&pod.spec.overhead, resource))
}
