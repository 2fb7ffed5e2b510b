//! What an update of a pod may change: images, a deadline that comes nearer, more tolerations, fewer gates.

use std::collections::HashSet;

use schema::{At, Violation, names, path};
use serde_json::Value;

use crate::spec::check::Found;

const FORBIDDEN: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
const CONTAINERS: [&str; 2] = ["containers", "initContainers"];
const NODE_TERMS: &str =
    "affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms";

pub fn validate(new: &Value, old: &Value, found: &mut Found) {
    annotations(new, old, found);
    let empty = Value::Null;
    let (spec, before) = (new.get("spec").unwrap_or(&empty), old.get("spec").unwrap_or(&empty));
    if spec == before {
        return;
    }
    let at = At::root("spec");
    for list in CONTAINERS {
        if path::list(spec, list).len() != path::list(before, list).len() {
            let detail = "pod updates may not add or remove containers";
            found.push(Violation::forbidden(at.field(list), detail));
            return;
        }
    }
    deadline(spec, before, at, found);
    tolerations(spec, before, at, found);
    gates(spec, before, at, found);
    let is_gated = !path::list(before, "schedulingGates").is_empty();
    if is_gated {
        node_selector(spec, before, at, found);
        node_affinity(spec, before, at, found);
    }
    let mut allowed = before.clone();
    take_over(&mut allowed, spec, is_gated);
    if allowed != *spec {
        found.push(Violation::forbidden(at, FORBIDDEN));
    }
}

/// Ephemeral containers can be added; the ones that are there stay as they are.
pub fn ephemeral_containers(new: &Value, old: &Value) -> Vec<Violation> {
    let list = At::root("spec.ephemeralContainers");
    let wanted = path::list(new, "spec.ephemeralContainers");
    let mut found = Vec::new();
    for held in path::list(old, "spec.ephemeralContainers") {
        let name = path::text(held, "name");
        // Upstream's texts have the line's end.
        match wanted.iter().find(|one| path::text(one, "name") == name) {
            Some(one) if one == held => {}
            Some(_) => {
                let detail = format!("existing ephemeral containers {name:?} may not be changed\n");
                found.push(Violation::forbidden(list, detail));
            }
            None => {
                let detail = format!("existing ephemeral containers {name:?} may not be removed\n");
                found.push(Violation::forbidden(list, detail));
            }
        }
    }
    found
}

/// What may not come, go or change: marks that the kubelet and the pod's confinement live by.
fn annotations(new: &Value, old: &Value, found: &mut Found) {
    let at = At::root("metadata.annotations");
    let (new, old) = (path::get(new, "metadata.annotations"), path::get(old, "metadata.annotations"));
    let get = |all: Option<&Value>, key: &str| all.and_then(|all| all.get(key)).cloned();
    let mirror = "kubernetes.io/config.mirror";
    match (get(old, mirror), get(new, mirror)) {
        (None, Some(_)) => {
            found.push(Violation::forbidden(at.key(mirror), "may not add mirror pod annotation"))
        }
        (before, after) if before != after => {
            found
                .push(Violation::forbidden(at.key(mirror), "may not remove or update mirror pod annotation"));
        }
        _ => {}
    }
    let keys = |all: Option<&Value>| -> Vec<String> {
        let members = all.and_then(Value::as_object).into_iter().flatten();
        members
            .map(|(key, _)| key.clone())
            .filter(|key| key.starts_with("container.apparmor.security.beta.kubernetes.io/"))
            .collect()
    };
    for key in keys(old) {
        if get(old, &key) != get(new, &key) {
            found.push(Violation::forbidden(at.key(&key), "may not remove or update AppArmor annotations"));
        }
    }
    for key in keys(new) {
        if get(old, &key).is_none() {
            found.push(Violation::forbidden(at.key(&key), "may not add AppArmor annotations"));
        }
    }
}

fn deadline(spec: &Value, before: &Value, at: At<'_>, found: &mut Found) {
    let at = at.field("activeDeadlineSeconds");
    let (new, old) = (path::int(spec, "activeDeadlineSeconds"), path::int(before, "activeDeadlineSeconds"));
    match (old, new) {
        (_, Some(new)) => {
            found.extend(Violation::all_invalid(at, new, names::between(new, 0, i64::from(i32::MAX))));
            if old.is_some_and(|old| new > old) {
                found.push(Violation::invalid(at, new, "must be less than or equal to previous value"));
            }
        }
        (Some(_), None) => {
            found.push(Violation::invalid(
                at,
                Value::Null,
                "must not update from a positive integer to nil value",
            ));
        }
        (None, None) => {}
    }
}

fn tolerations(spec: &Value, before: &Value, at: At<'_>, found: &mut Found) {
    let identity =
        |one: &Value| ["effect", "key", "operator", "value"].map(|field| path::text(one, field)).join("\n");
    let new: HashSet<String> = path::list(spec, "tolerations").iter().map(identity).collect();
    if path::list(before, "tolerations").iter().any(|old| !new.contains(&identity(old))) {
        let detail = "existing toleration can not be modified except its tolerationSeconds";
        found.push(Violation::forbidden(at.field("tolerations"), detail));
    }
}

fn gates(spec: &Value, before: &Value, at: At<'_>, found: &mut Found) {
    let old = path::list(before, "schedulingGates").iter().map(|gate| path::text(gate, "name"));
    let old: HashSet<&str> = old.collect();
    for (index, gate) in path::list(spec, "schedulingGates").iter().enumerate() {
        let name = path::text(gate, "name");
        if !old.contains(name) {
            let detail = format!("only deletion is allowed, but found new scheduling gate '{name}'");
            let at = at.field("schedulingGates");
            found.push(Violation::forbidden(at.index(index).field("name"), detail));
        }
    }
}

fn node_selector(spec: &Value, before: &Value, at: At<'_>, found: &mut Found) {
    let new = spec.get("nodeSelector");
    let is_kept = |(key, value): (&String, &Value)| new.and_then(|new| new.get(key)) == Some(value);
    if !path::members(before, "nodeSelector").all(is_kept) {
        let detail = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
        found.push(Violation::invalid(at.field("nodeSelector"), new, detail));
    }
}

fn node_affinity(spec: &Value, before: &Value, at: At<'_>, found: &mut Found) {
    let at = at.field(NODE_TERMS);
    let (new, old) = (path::list(spec, NODE_TERMS), path::list(before, NODE_TERMS));
    if old.is_empty() {
        return;
    }
    if new.len() != old.len() {
        let detail = "no additions/deletions to non-empty NodeSelectorTerms list are allowed";
        found.push(Violation::invalid(at, new, detail));
        return;
    }
    for (index, (new, old)) in new.iter().zip(old).enumerate() {
        let grows = |list: &str| path::list(new, list).starts_with(path::list(old, list));
        if !grows("matchExpressions") || !grows("matchFields") {
            let detail = "only additions are allowed (no mutations or deletions)";
            found.push(Violation::invalid(at.index(index), new, detail));
        }
    }
}

/// Takes over what may differ, so that any other difference shows.
fn take_over(allowed: &mut Value, spec: &Value, is_gated: bool) {
    for list in CONTAINERS {
        let Some(Value::Array(containers)) = allowed.get_mut(list) else { continue };
        for (container, new) in containers.iter_mut().zip(path::list(spec, list)) {
            copy(container, new, "image");
        }
    }
    for field in ["activeDeadlineSeconds", "schedulingGates", "tolerations"] {
        copy(allowed, spec, field);
    }
    if path::int(allowed, "terminationGracePeriodSeconds").is_some_and(|seconds| seconds < 0)
        && path::int(spec, "terminationGracePeriodSeconds") == Some(1)
    {
        allowed["terminationGracePeriodSeconds"] = 1.into();
    }
    if is_gated {
        copy(allowed, spec, "nodeSelector");
        let wanted = path::get(spec, "affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution");
        if let Some(wanted) = wanted {
            path::set(
                allowed,
                "affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution",
                wanted.clone(),
            );
        }
    }
}

fn copy(to: &mut Value, from: &Value, field: &str) {
    match from.get(field) {
        Some(value) => to[field] = value.clone(),
        None => {
            path::remove(to, field);
        }
    }
}
