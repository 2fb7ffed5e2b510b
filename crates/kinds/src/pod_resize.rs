//! In-place resize (KEP-1287, KEP-5419): what of a pod's resources may change while it runs.

use schema::{At, Violation, path};
use serde_json::{Value, json};

use crate::spec::check::Found;
use crate::spec::qos;

const MIRROR: &str = "kubernetes.io/config.mirror";
const ONLY_COMPUTE: &str = "only cpu and memory resources are mutable";

pub fn validate(new: &Value, old: &Value) -> Vec<Violation> {
    let refused = |detail: &str| vec![Violation::forbidden(At::root(""), detail)];
    if path::get(old, "metadata.annotations").is_some_and(|all| all.get(MIRROR).is_some()) {
        return refused("static pods cannot be resized");
    }
    if path::text(old, "spec.os.name") == "windows" {
        return refused("windows pods cannot be resized");
    }
    let mut found = Vec::new();
    let at = At::root("spec");
    let (spec, before) = (&new["spec"], &old["spec"]);
    let class = path::text(new, "status.qosClass");
    if path::text(old, "status.qosClass") != qos::class(spec) {
        let detail = "Pod QOS Class may not change as a result of resizing";
        found.push(Violation::invalid(at, class, detail));
    }
    if !is_supported(old) {
        found.push(Violation::forbidden(at, "Pod running on node without support for resize"));
    }
    let is_set = |spec: &Value| {
        ["requests", "limits"].iter().any(|list| path::members(&spec["resources"], list).next().is_some())
    };
    if is_set(spec) || is_set(before) {
        of_the_pod(spec, before, at, &mut found);
    }
    if !path::list(old, "status.nodeAllocatableResourceClaimStatuses").is_empty() {
        let detail = "pods with node allocatable resource claims cannot be resized";
        found.push(Violation::forbidden(at, detail));
    }
    let known = found.len();
    ordering(spec, before, at, &mut found);
    if found.len() > known {
        return found;
    }
    for list in ["initContainers", "containers"] {
        let list_at = at.field(list);
        for (index, (one, held)) in path::list(spec, list).iter().zip(path::list(before, list)).enumerate() {
            removed(&one["resources"], &held["resources"], "resource", list_at.index(index), &mut found);
        }
    }
    for (one, held) in path::list(spec, "containers").iter().zip(path::list(before, "containers")) {
        if with_compute_of(one, held) != *held {
            found.push(Violation::forbidden(at, ONLY_COMPUTE));
        }
    }
    let list = at.field("initContainers");
    let pairs = path::list(spec, "initContainers").iter().zip(path::list(before, "initContainers"));
    for (index, (one, held)) in pairs.enumerate() {
        if with_compute_of(one, held) != *held {
            let detail = "only cpu and memory resources for init or sidecar containers are mutable";
            found.push(Violation::forbidden(list.index(index), detail));
        }
        if !is_sidecar(one) && one != held {
            let restarts = path::list(one, "resizePolicy").iter();
            let restarts =
                restarts.filter(|policy| path::text(policy, "restartPolicy") == "RestartContainer");
            let detail =
                "non-sidecar init containers with a resize policy of RestartContainer cannot be resized";
            found.extend(restarts.map(|_| Violation::forbidden(list.index(index), detail)));
        }
    }
    found
}

/// A node that runs the pod and tells no resources of its containers cannot resize them.
fn is_supported(pod: &Value) -> bool {
    let statuses = path::list(pod, "status.containerStatuses");
    let running = statuses.iter().find(|one| path::get(one, "state.running").is_some());
    running.is_none_or(|one| one.get("resources").is_some())
}

fn of_the_pod(spec: &Value, before: &Value, at: At<'_>, found: &mut Found) {
    let (wanted, held) = (spec.get("resources"), before.get("resources"));
    if let (None, Some(_)) = (wanted, held) {
        let detail = "pod-level resources cannot be removed";
        found.push(Violation::forbidden(at.field("resources"), detail));
        return;
    }
    let (wanted, held) = (json!({"resources": wanted}), json!({"resources": held}));
    removed(&wanted["resources"], &held["resources"], "pod-level resource", at, found);
    let others = |of: &Value| with_compute_of(of, &Value::Null)["resources"].clone();
    let is_none = |resources: &Value| resources.as_object().is_none_or(|members| members.is_empty());
    let (new, old) = (others(&wanted), others(&held));
    if new != old && !(is_none(&new) && is_none(&old)) {
        found.push(Violation::forbidden(at, "only cpu and memory resources are mutable at pod-level"));
    }
}

fn removed(wanted: &Value, held: &Value, what: &str, at: At<'_>, found: &mut Found) {
    for list in ["requests", "limits"] {
        let is_gone = |(name, _): (&String, &Value)| wanted[list].get(name).is_none();
        if path::members(held, list).any(is_gone) {
            let at = at.field("resources");
            found.push(Violation::forbidden(at.field(list), format!("{what} {list} cannot be removed")));
        }
    }
}

fn ordering(spec: &Value, before: &Value, at: At<'_>, found: &mut Found) {
    for list in ["containers", "initContainers"] {
        let (new, old) = (path::list(spec, list), path::list(before, list));
        let at = at.field(list);
        if new.len() != old.len() {
            let detail = format!("{list} may not be added or removed on resize");
            found.push(Violation::forbidden(at, detail));
            continue;
        }
        for (index, (new, old)) in new.iter().zip(old).enumerate() {
            if path::text(new, "name") != path::text(old, "name") {
                let detail = format!("{list} may not be renamed or reordered on resize");
                found.push(Violation::forbidden(at.index(index).field("name"), detail));
            }
        }
    }
}

fn is_sidecar(container: &Value) -> bool {
    path::text(container, "restartPolicy") == "Always"
}

/// With as much CPU and memory as before, so that any other difference shows. What is empty is as good as not there.
fn with_compute_of(container: &Value, before: &Value) -> Value {
    let mut same = container.clone();
    // Where a container is resized it is said anew, which changes nothing of it.
    for list in ["requests", "limits"] {
        for resource in ["cpu", "memory"] {
            let at = format!("resources.{list}.{resource}");
            match path::get(before, &at) {
                Some(held) => path::set(&mut same, &at, held.clone()),
                None => drop(path::remove(&mut same, &at)),
            }
        }
        let at = format!("resources.{list}");
        if path::members(&same, &at).next().is_none() && path::get(before, &at).is_none() {
            path::remove(&mut same, &at);
        }
    }
    same
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_cpu_and_memory_may_change() {
        let pod = |requests: Value, more: Value| {
            let mut container = json!({"name": "a", "resources": {"requests": requests, "limits": {"cpu": "2", "memory": "2Gi"}}});
            container
                .as_object_mut()
                .expect("an object")
                .extend(more.as_object().cloned().expect("an object"));
            json!({"spec": {"containers": [container]}, "status": {"qosClass": "Burstable"}})
        };
        let old = pod(json!({"cpu": "1"}), json!({}));
        for (new, expected) in [
            (pod(json!({"cpu": "500m", "memory": "1Gi"}), json!({})), vec![]),
            (
                pod(json!({"memory": "1Gi"}), json!({})),
                vec!["spec.containers[0].resources.requests: Forbidden: resource requests cannot be removed"],
            ),
            (
                pod(json!({"cpu": "2", "memory": "2Gi"}), json!({})),
                vec![
                    "spec: Invalid value: \"Burstable\": Pod QOS Class may not change as a result of resizing",
                ],
            ),
            (
                pod(json!({"cpu": "1", "ephemeral-storage": "1Gi"}), json!({})),
                vec!["spec: Forbidden: only cpu and memory resources are mutable"],
            ),
            (
                pod(json!({"cpu": "1"}), json!({"name": "b"})),
                vec![
                    "spec.containers[0].name: Forbidden: containers may not be renamed or reordered on resize",
                ],
            ),
        ] {
            let told: Vec<String> =
                validate(&new, &old).iter().map(|one| format!("{}: {}", one.field, one.body())).collect();
            assert_eq!(told, expected, "{new}");
        }
    }
}
