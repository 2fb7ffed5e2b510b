//! A resize that the pod's node could never make is refused at once: KEP-1287.

use kinds::amounts::{effective, quantity};
use object::{Cause, Key, Snapshot, Status};
use schema::{Quantity, path};
use serde_json::Value;

use crate::{Operation, Plugin, Request, Verdict};

pub const PLUGIN: Plugin = Plugin { name: "PodResizeValidator", mutate: None, validate: Some(validate) };

fn validate(
    snapshot: &Snapshot,
    request: &Request,
    object: Option<&Value>,
    _: &mut Verdict,
) -> Result<(), Status> {
    let is_resize = request.key.resource == kinds::PODS
        && request.subresource == "resize"
        && request.operation == Operation::Update;
    let (Some(new), Some(old)) = (object.filter(|_| is_resize), request.old) else { return Ok(()) };
    let name = path::text(new, "spec.nodeName");
    if name.is_empty() || new["spec"] == old["spec"] {
        return Ok(());
    }
    let Some(node) = snapshot.get(&Key::cluster(kinds::NODES, name)) else {
        return Err(request.forbidden(Some(new), format!("node \"{name}\" not found")));
    };
    let refuse = |reason: &'static str, why: String| {
        let mut status = request.forbidden(Some(new), why);
        status.causes.push(Cause { reason, message: String::new(), field: String::new() });
        Err(status)
    };
    let allocatable = node.to_value().map_err(Status::internal)?["status"]["allocatable"].take();
    let short = shortages(new, &allocatable);
    if !short.is_empty() {
        let why = format!("Node didn't have enough allocatable resources: {}", short.join("; "));
        return refuse("NodeCapacity", why);
    }
    let system = node.meta.label("kubernetes.io/os").unwrap_or_default();
    if system != "linux" {
        let why = format!("pod resize is only supported on linux nodes, node \"{name}\" is \"{system}\"");
        return refuse("UnsupportedPlatform", why);
    }
    Ok(())
}

/// `cpu, requested: 5000, allocatable: 4000`: CPU in thousandths, memory in bytes.
fn shortages(pod: &Value, allocatable: &Value) -> Vec<String> {
    let requests = effective(pod, "requests");
    let mut short = Vec::new();
    for (resource, count) in [("cpu", Quantity::millis as fn(Quantity) -> i64), ("memory", Quantity::units)] {
        let requested = requests.get(resource).copied().map_or(0, count);
        let held = quantity(&allocatable[resource]).map_or(0, count);
        if requested > held {
            short.push(format!("{resource}, requested: {requested}, allocatable: {held}"));
        }
    }
    short
}
