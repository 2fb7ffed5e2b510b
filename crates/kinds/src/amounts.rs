//! Amounts of resources: what containers, pods and claims ask for, and what they are limited to.

use std::collections::BTreeMap;

use schema::{Quantity, path};
use serde_json::Value;

/// Amounts by resource name: `cpu`, `memory`, `example.com/gpu`.
pub type Amounts = BTreeMap<String, Quantity>;

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

fn add(total: &mut Amounts, more: &Amounts) {
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
