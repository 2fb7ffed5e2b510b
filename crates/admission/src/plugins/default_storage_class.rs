//! A claim that names no class gets the default one.

use object::{Object, Resource, Snapshot, Status};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

use crate::{Operation, Plugin, Request};

pub const PLUGIN: Plugin = Plugin { name: "DefaultStorageClass", mutate: Some(mutate), validate: None };

fn mutate(
    snapshot: &Snapshot,
    request: &Request,
    object: &mut Value,
    _: &mut Vec<String>,
) -> Result<(), Status> {
    let given = object["spec"].get("storageClassName").is_some_and(|class| !class.is_null());
    let by_annotation =
        object["metadata"]["annotations"].get("volume.beta.kubernetes.io/storage-class").is_some();
    if !request.is(kinds::PERSISTENT_VOLUME_CLAIMS, &[Operation::Create]) || given || by_annotation {
        return Ok(());
    }
    let annotations =
        ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];
    if let Some(class) = newest_default(snapshot, kinds::STORAGE_CLASSES, &annotations) {
        object["spec"]["storageClassName"] = (*class.key.name).into();
    }
    Ok(())
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Annotated {
    metadata: Annotations,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Annotations {
    annotations: BTreeMap<String, String>,
}

/// Of the classes with one of these annotations at "true" the one made last; of several of one second the first by name.
pub(super) fn newest_default<'a>(
    snapshot: &'a Snapshot,
    resource: Resource,
    annotations: &[&str],
) -> Option<&'a Object> {
    let is_default = |object: &Object| {
        let held = object.decode::<Annotated>().unwrap_or_default().metadata.annotations;
        annotations.iter().any(|name| held.get(*name).is_some_and(|value| value == "true"))
    };
    let classes = snapshot.list(resource, "").filter(|object| is_default(object));
    classes.map(|object| &**object).min_by(|a, b| {
        b.meta.creation_timestamp.cmp(&a.meta.creation_timestamp).then_with(|| a.key.name.cmp(&b.key.name))
    })
}
