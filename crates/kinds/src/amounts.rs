//! Amounts of resources: what containers, pods and claims ask for, and what they are limited to.

use std::collections::BTreeMap;

use schema::{Quantity, path};
use serde_json::Value;

/// Amounts by resource name: `cpu`, `memory`, `example.com/gpu`.
pub type Amounts = BTreeMap<String, Quantity>;

/// The amounts at `side` (`requests` or `limits`) of an object with `resources`. What does not parse is left out.
pub fn amounts(object: &Value, side: &str) -> Amounts {
    parsed(&object["resources"][side])
}

fn parsed(amounts: &Value) -> Amounts {
    let entries = amounts.as_object().into_iter().flatten();
    entries.filter_map(|(name, amount)| Some((name.clone(), quantity(amount)?))).collect()
}

/// A quantity as JSON has it: text, or a bare number.
pub fn quantity(value: &Value) -> Option<Quantity> {
    serde_json::from_value(value.clone()).ok()
}

/// What a pod asks for as a whole: <https://kubernetes.io/docs/concepts/workloads/pods/init-containers/#resource-sharing-within-containers>.
///
/// Containers and sidecars add up; an init container counts if it needs more than that, beside the sidecars started
/// before it. Pod-level amounts (KEP-2837) stand in for the sum.
pub fn asked(pod: &Value, side: &str) -> Amounts {
    summed(pod, side, |container, _| amounts(container, side))
}

/// What a pod takes: what it asks for or, while a resize is under way, what its containers still have, whichever is more
/// (KEP-1287). The overhead comes on top (of limits only where there are some).
pub fn effective(pod: &Value, side: &str) -> Amounts {
    let is_infeasible = path::list(pod, "status.conditions")
        .iter()
        .any(|one| one["type"] == "PodResizePending" && one["reason"] == "Infeasible");
    let mut total = summed(pod, side, |container, statuses| {
        let asked = amounts(container, side);
        let status = path::list(pod, statuses).iter().find(|status| status["name"] == container["name"]);
        let Some(status) = status.filter(|status| status["resources"].is_object()) else { return asked };
        let mut held = if is_infeasible { Amounts::new() } else { asked };
        raise(&mut held, &amounts(status, side));
        if side == "requests" {
            raise(&mut held, &parsed(&status["allocatedResources"]));
        }
        held
    });
    for (name, amount) in parsed(&pod["spec"]["overhead"]) {
        match total.get_mut(&name) {
            Some(sum) => *sum += amount,
            None if side == "requests" => {
                total.insert(name, amount);
            }
            None => {}
        }
    }
    total
}

/// `own` is told where the statuses of the container's kind are.
fn summed(pod: &Value, side: &str, own: impl Fn(&Value, &str) -> Amounts) -> Amounts {
    let mut total = Amounts::new();
    for container in path::list(pod, "spec.containers") {
        add(&mut total, &own(container, "status.containerStatuses"));
    }
    let mut sidecars = Amounts::new();
    let mut init = Amounts::new();
    for container in path::list(pod, "spec.initContainers") {
        let own = own(container, "status.initContainerStatuses");
        let mut needed = sidecars.clone();
        add(&mut needed, &own);
        if container["restartPolicy"] == "Always" {
            add(&mut total, &own);
            sidecars.clone_from(&needed);
        }
        raise(&mut init, &needed);
    }
    raise(&mut total, &init);
    total.extend(amounts(&pod["spec"], side));
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
