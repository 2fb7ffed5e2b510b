//! Resources that change while a pod runs (KEP-1287): whether the node has room for the change, and what is to be written where.
//!
//! What a container was given is what its stored status says. While a change waits, the pod is treated as if nobody had asked for it.

use std::collections::BTreeMap;
use std::sync::Arc;

use plan::node::{Container as Known, ContainerState, Resources, Sandbox};
use plan::pod::{Observed, Resize};
use schema::quantity::Quantity;
use serde_json::Value;

use crate::admit;
use crate::node_status::NodeFacts;
use crate::pod::{Container, Pod, Requirements};
use crate::resources::{container_resources, pod_resources};
use crate::sync::newest;

const RESIZED: [&str; 2] = ["cpu", "memory"];

/// Why a change is not made: the condition PodResizePending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// `Deferred`: there may be room later. `Infeasible`: not on this node.
    pub reason: &'static str,
    pub message: String,
}

/// Whether the pod asks for other resources than it was given.
pub fn is_wanted(pod: &Pod) -> bool {
    resizable(pod)
        .any(|container| given(pod, container).is_some_and(|given| differs(&given, &container.resources)))
}

/// Why the change that the pod asks for must wait, if so. `others` are the pods that the node has admitted beside it.
pub fn pending(pod: &Pod, others: &[Arc<Pod>], node: &NodeFacts) -> Option<Pending> {
    if !is_wanted(pod) {
        return None;
    }
    for resource in RESIZED {
        let unit = if resource == "cpu" { 1 } else { 1_000 };
        let (requested, capacity) =
            (admit::requested(pod, resource) / unit, node.allocatable_milli(resource) / unit);
        if requested > capacity {
            let message = format!(
                "Node didn't have enough capacity: {resource}, requested: {requested}, capacity: {capacity}"
            );
            return Some(Pending { reason: "Infeasible", message });
        }
    }
    let others = others.iter().map(|other| &**other);
    let short = RESIZED.iter().find_map(|resource| admit::shortage(pod, others.clone(), node, resource));
    short.map(|message| Pending { reason: "Deferred", message })
}

/// The pod with the resources that it was given.
pub fn as_given(pod: &Pod) -> Pod {
    let mut given_pod = pod.clone();
    let spec = &mut given_pod.spec;
    for container in spec.containers.iter_mut().chain(&mut spec.init_containers) {
        if let Some(given) = given(pod, container) {
            container.resources = given;
        }
    }
    given_pod
}

/// Containers whose resources may change: those that run beside each other.
fn resizable(pod: &Pod) -> impl Iterator<Item = &Container> {
    pod.spec.containers.iter().chain(pod.spec.init_containers.iter().filter(|one| one.is_sidecar()))
}

/// What the stored status of a running container says that it has.
fn given(pod: &Pod, container: &Container) -> Option<Requirements> {
    let stored = pod.status.of_container(&container.name)?;
    if !stored["state"]["running"].is_object() {
        return None;
    }
    serde_json::from_value(stored.get("resources").cloned()?).ok()
}

fn differs(given: &Requirements, wanted: &Requirements) -> bool {
    let quantity = |list: &BTreeMap<String, String>, name: &str| {
        list.get(name).and_then(|text| text.parse::<Quantity>().ok()).map(|quantity| quantity.millis())
    };
    RESIZED.iter().any(|name| {
        quantity(&given.requests, name) != quantity(&wanted.requests, name)
            || quantity(&given.limits, name) != quantity(&wanted.limits, name)
    })
}

/// Whether the limits of a running container are those that it should have.
pub fn is_done(pod: &Pod, container: &Container, known: &Known, node: &NodeFacts) -> bool {
    let wanted = container_resources(pod, container, node);
    !changes_cpu(&wanted, &known.resources) && !changes_memory(&wanted, &known.resources)
}

/// Whether a container must be started anew to get what it should have.
pub fn needs_restart(pod: &Pod, container: &Container, known: &Known, node: &NodeFacts) -> bool {
    let wanted = container_resources(pod, container, node);
    let restarts = |resource: &str| {
        container
            .resize_policy
            .iter()
            .any(|policy| policy.resource_name == resource && policy.restart_policy == "RestartContainer")
    };
    (changes_cpu(&wanted, &known.resources) && restarts("cpu"))
        || (changes_memory(&wanted, &known.resources) && restarts("memory"))
}

/// What to write, if anything differs: of the pod first where it grows, of containers, and of the pod where it shrinks.
pub fn op(pod: &Pod, sandbox: &Sandbox, observed: &Observed, node: &NodeFacts) -> Option<Resize> {
    let now = &sandbox.config.resources;
    let wanted = pod_resources(pod);
    let containers: Vec<(String, Resources)> = resizable(pod)
        .filter_map(|container| Some((container, running(observed, container, sandbox)?)))
        .filter(|(container, known)| {
            !is_done(pod, container, known, node) && !needs_restart(pod, container, known, node)
        })
        .map(|(container, known)| (known.id.clone(), container_resources(pod, container, node)))
        .collect();
    if containers.is_empty() && !changes_cpu(&wanted, now) && !changes_memory(&wanted, now) {
        return None;
    }
    let room = roomier(now, &wanted);
    Some(Resize { sandbox_id: sandbox.id.clone(), room, containers, pod: wanted })
}

fn running<'a>(observed: &'a Observed, container: &Container, sandbox: &Sandbox) -> Option<&'a Known> {
    newest(observed, &container.name)
        .filter(|known| known.status.state == ContainerState::Running && known.sandbox_id == sandbox.id)
}

fn changes_cpu(wanted: &Resources, now: &Resources) -> bool {
    wanted.cpu_shares != now.cpu_shares
        || wanted.cpu_quota_us != now.cpu_quota_us
        || wanted.cpu_period_us != now.cpu_period_us
}

fn changes_memory(wanted: &Resources, now: &Resources) -> bool {
    wanted.memory_limit_bytes != now.memory_limit_bytes
}

/// The larger of each; none is the largest.
fn roomier(now: &Resources, wanted: &Resources) -> Resources {
    let larger = |now: i64, wanted: i64| if now <= 0 || wanted <= 0 { 0 } else { now.max(wanted) };
    Resources {
        cpu_shares: now.cpu_shares.max(wanted.cpu_shares),
        cpu_quota_us: larger(now.cpu_quota_us, wanted.cpu_quota_us),
        memory_limit_bytes: larger(now.memory_limit_bytes, wanted.memory_limit_bytes),
        ..wanted.clone()
    }
}

/// What the status of a running container says that it has: what it should have once that is written.
pub fn shown(pod: &Pod, container: &Container, known: &Known, node: &NodeFacts) -> Requirements {
    let stored = given(pod, container).filter(|_| !is_done(pod, container, known, node));
    stored.unwrap_or_else(|| container.resources.clone())
}

/// Whether the stored status has a condition of this type.
pub fn has_condition(pod: &Pod, name: &str) -> bool {
    pod.status.conditions.iter().any(|condition| condition.r#type == name)
}

/// Takes a condition away in a strategic merge patch.
pub fn without_condition(name: &str) -> Value {
    serde_json::json!({"$patch": "delete", "type": name})
}
