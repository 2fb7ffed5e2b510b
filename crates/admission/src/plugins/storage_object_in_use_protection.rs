//! Volumes, claims and their classes go only when nothing uses them any more.

use object::{Snapshot, Status};
use serde_json::{Value, json};

use crate::{Operation, Plugin, Request};

pub const PLUGIN: Plugin =
    Plugin { name: "StorageObjectInUseProtection", mutate: Some(mutate), validate: None };

fn mutate(_: &Snapshot, request: &Request, object: &mut Value, _: &mut Vec<String>) -> Result<(), Status> {
    let finalizer = match request.key.resource {
        kinds::PERSISTENT_VOLUMES => "kubernetes.io/pv-protection",
        kinds::PERSISTENT_VOLUME_CLAIMS => "kubernetes.io/pvc-protection",
        kinds::VOLUME_ATTRIBUTES_CLASSES => "kubernetes.io/vac-protection",
        _ => return Ok(()),
    };
    if !request.is(request.key.resource, &[Operation::Create]) {
        return Ok(());
    }
    match object["metadata"].get_mut("finalizers").and_then(Value::as_array_mut) {
        Some(held) if held.iter().any(|held| held == finalizer) => {}
        Some(held) => held.push(finalizer.into()),
        None => object["metadata"]["finalizers"] = json!([finalizer]),
    }
    Ok(())
}
