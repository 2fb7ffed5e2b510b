//! A claim grows only where its class lets it.

use kinds::amounts::amounts;
use object::{Key, Snapshot, Status};
use schema::path;
use serde::Deserialize;
use serde_json::Value;

use crate::{Operation, Plugin, Request, Verdict};

pub const PLUGIN: Plugin =
    Plugin { name: "PersistentVolumeClaimResize", mutate: None, validate: Some(validate) };

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Class {
    allow_volume_expansion: bool,
}

fn validate(
    snapshot: &Snapshot,
    request: &Request,
    object: Option<&Value>,
    _: &mut Verdict,
) -> Result<(), Status> {
    let (Some(new), Some(old)) = (object, request.old) else { return Ok(()) };
    if !request.is(kinds::PERSISTENT_VOLUME_CLAIMS, &[Operation::Update]) {
        return Ok(());
    }
    let size = |claim: &Value| amounts(&claim["spec"], "requests").get("storage").copied();
    if size(new) <= size(old) {
        return Ok(());
    }
    if path::text(old, "status.phase") != "Bound" {
        return Err(request.forbidden(Some(new), "Only bound persistent volume claims can be expanded"));
    }
    let class = match path::text(new, "spec.storageClassName") {
        "" => None,
        name => snapshot.get(&Key::cluster(kinds::STORAGE_CLASSES, name)),
    };
    let class: Class = class.and_then(|class| class.decode().ok()).unwrap_or_default();
    if class.allow_volume_expansion {
        return Ok(());
    }
    let why = "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize";
    Err(request.forbidden(Some(new), why))
}
