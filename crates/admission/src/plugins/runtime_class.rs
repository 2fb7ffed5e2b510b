//! The overhead, and the nodes, of a pod's runtime class: KEP-688 and KEP-585.

use kinds::amounts::quantity;
use object::{Key, Snapshot, Status};
use serde_json::Value;

use crate::{Operation, Plugin, Request, Verdict};

pub const PLUGIN: Plugin = Plugin { name: "RuntimeClass", mutate: Some(mutate), validate: Some(validate) };

fn class(snapshot: &Snapshot, request: &Request, pod: &Value) -> Result<Option<Value>, Status> {
    let name = pod["spec"]["runtimeClassName"].as_str().unwrap_or_default();
    if !request.is(kinds::PODS, &[Operation::Create]) || name.is_empty() {
        return Ok(None);
    }
    match snapshot.get(&Key::cluster(kinds::RUNTIME_CLASSES, name)) {
        Some(held) => held.to_value().map(Some).map_err(Status::internal),
        None => Err(request.forbidden(Some(pod), format!("pod rejected: RuntimeClass {name:?} not found"))),
    }
}

fn mutate(
    snapshot: &Snapshot,
    request: &Request,
    object: &mut Value,
    _: &mut Vec<String>,
) -> Result<(), Status> {
    let Some(class) = class(snapshot, request, object)? else { return Ok(()) };
    let overhead = &class["overhead"]["podFixed"];
    if overhead.is_object() {
        let given = &object["spec"]["overhead"];
        if given.is_object() && !same_amounts(given, overhead) {
            let why = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";
            return Err(request.forbidden(Some(object), why));
        }
        object["spec"]["overhead"] = overhead.clone();
    }
    if class["scheduling"].is_object() {
        let conflict = place(object, &class["scheduling"]);
        conflict.map_err(|why| request.forbidden(Some(object), why))?;
    }
    Ok(())
}

fn place(pod: &mut Value, scheduling: &Value) -> Result<(), String> {
    for (name, value) in scheduling["nodeSelector"].as_object().into_iter().flatten() {
        let held = pod["spec"]["nodeSelector"].get(name);
        if let Some(held) = held.filter(|held| *held != value) {
            let (value, held) = (value.as_str().unwrap_or_default(), held.as_str().unwrap_or_default());
            return Err(format!(
                "conflict: runtimeClass.scheduling.nodeSelector[{name}] = {value}; pod.spec.nodeSelector[{name}] = {held}"
            ));
        }
        pod["spec"]["nodeSelector"][name] = value.clone();
    }
    let added = scheduling["tolerations"].as_array().into_iter().flatten();
    let mut tolerations = pod["spec"]["tolerations"].as_array().cloned().unwrap_or_default();
    let before = tolerations.len();
    for toleration in added {
        if !tolerations.contains(toleration) {
            tolerations.push(toleration.clone());
        }
    }
    if tolerations.len() > before {
        pod["spec"]["tolerations"] = tolerations.into();
    }
    Ok(())
}

fn validate(
    snapshot: &Snapshot,
    request: &Request,
    object: Option<&Value>,
    _: &mut Verdict,
) -> Result<(), Status> {
    let Some(object) = object.filter(|_| request.is(kinds::PODS, &[Operation::Create])) else {
        return Ok(());
    };
    let class = class(snapshot, request, object)?.unwrap_or_default();
    let (given, wanted) = (&object["spec"]["overhead"], &class["overhead"]["podFixed"]);
    if wanted.is_object() && !same_amounts(given, wanted) {
        let why = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";
        return Err(request.forbidden(Some(object), why));
    }
    if given.as_object().is_some_and(|given| !given.is_empty()) && !wanted.is_object() {
        let why = "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead";
        return Err(request.forbidden(Some(object), why));
    }
    Ok(())
}

fn same_amounts(a: &Value, b: &Value) -> bool {
    let (Some(a), Some(b)) = (a.as_object(), b.as_object()) else { return false };
    a.len() == b.len()
        && a.iter().all(|(name, held)| b.get(name).is_some_and(|other| quantity(held) == quantity(other)))
}
