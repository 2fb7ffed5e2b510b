//! What several plugins read out of a pod.

use std::collections::BTreeMap;

use schema::{Quantity, path};
use serde_json::Value;

/// Amounts by resource name: `cpu`, `memory`, `example.com/gpu`.
pub type Amounts = BTreeMap<String, Quantity>;

/// Mirror pods stand for pods that a kubelet runs from files.
pub const MIRROR: &str = "kubernetes.io/config.mirror";

pub fn is_mirror(pod: &Value) -> bool {
    pod["metadata"]["annotations"].get(MIRROR).is_some()
}

/// Init containers, then containers.
pub fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    path::list(pod, "spec.initContainers").iter().chain(path::list(pod, "spec.containers"))
}

/// Init containers, containers and ephemeral containers.
pub fn all_containers(pod: &Value) -> impl Iterator<Item = &Value> {
    containers(pod).chain(path::list(pod, "spec.ephemeralContainers"))
}

/// Runs `each` on every container (`false`), then on every init container (`true`).
pub fn each_container(pod: &mut Value, mut each: impl FnMut(&mut Value, bool)) {
    for (field, is_init) in [("containers", false), ("initContainers", true)] {
        let list = pod["spec"].get_mut(field).and_then(Value::as_array_mut);
        list.into_iter().flatten().for_each(|container| each(container, is_init));
    }
}

/// The amounts at `side` (`requests` or `limits`) of an object with `resources`. What does not parse is left out.
pub fn amounts(object: &Value, side: &str) -> Amounts {
    let entries = object["resources"][side].as_object().into_iter().flatten();
    entries.filter_map(|(name, amount)| Some((name.clone(), quantity(amount)?))).collect()
}

/// A quantity as JSON has it: text, or a bare number.
pub fn quantity(value: &Value) -> Option<Quantity> {
    serde_json::from_value(value.clone()).ok()
}

/// What a pod takes as a whole: <https://kubernetes.io/docs/concepts/workloads/pods/init-containers/#resource-sharing-within-containers>.
///
/// Containers and sidecars add up; an init container counts if it needs more than that, beside the sidecars started
/// before it. Pod-level amounts (KEP-2837) stand in for the sum; the overhead comes on top (of limits only where there
/// are some).
pub fn effective(pod: &Value, side: &str) -> Amounts {
    let mut total = Amounts::new();
    for container in path::list(pod, "spec.containers") {
        add(&mut total, &amounts(container, side));
    }
    let mut sidecars = Amounts::new();
    let mut init = Amounts::new();
    for container in path::list(pod, "spec.initContainers") {
        let own = amounts(container, side);
        let mut needed = sidecars.clone();
        add(&mut needed, &own);
        if container["restartPolicy"] == "Always" {
            add(&mut total, &own);
            sidecars.clone_from(&needed);
        }
        raise(&mut init, &needed);
    }
    raise(&mut total, &init);
    for (name, amount) in amounts(&pod["spec"], side) {
        total.insert(name, amount);
    }
    for (name, amount) in pod["spec"]["overhead"].as_object().into_iter().flatten() {
        let Some(amount) = quantity(amount) else { continue };
        match total.get_mut(name) {
            Some(sum) => *sum += amount,
            None if side == "requests" => {
                total.insert(name.clone(), amount);
            }
            None => {}
        }
    }
    total
}

pub fn add(total: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        total.entry(name.clone()).and_modify(|sum| *sum += *amount).or_insert(*amount);
    }
}

fn raise(total: &mut Amounts, other: &Amounts) {
    for (name, amount) in other {
        let sum = total.entry(name.clone()).or_insert(*amount);
        if *sum < *amount {
            *sum = *amount;
        }
    }
}

/// Nobody asked for anything: its quality of service is BestEffort.
pub fn is_best_effort(pod: &Value) -> bool {
    let asks = |object: &Value| {
        ["requests", "limits"].into_iter().any(|side| {
            let held = amounts(object, side);
            ["cpu", "memory"].into_iter().any(|name| held.get(name).is_some_and(|amount| !amount.is_zero()))
        })
    };
    !asks(&pod["spec"]) && !containers(pod).any(asks)
}

/// `[a, b]` of several, `a` of one: how upstream joins errors.
pub fn joined(errors: &[String]) -> String {
    match errors {
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    }
}
