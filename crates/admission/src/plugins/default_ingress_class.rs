//! An ingress that names no class gets the default one.

use object::{Snapshot, Status};
use serde_json::Value;

use super::default_storage_class::newest_default;
use crate::{Operation, Plugin, Request};

pub const PLUGIN: Plugin = Plugin { name: "DefaultIngressClass", mutate: Some(mutate), validate: None };

fn mutate(
    snapshot: &Snapshot,
    request: &Request,
    object: &mut Value,
    _: &mut Vec<String>,
) -> Result<(), Status> {
    let given = object["spec"].get("ingressClassName").is_some_and(|class| !class.is_null());
    let by_annotation = object["metadata"]["annotations"].get("kubernetes.io/ingress.class").is_some();
    if !request.is(kinds::INGRESSES, &[Operation::Create]) || given || by_annotation {
        return Ok(());
    }
    let annotations = ["ingressclass.kubernetes.io/is-default-class"];
    if let Some(class) = newest_default(snapshot, kinds::INGRESS_CLASSES, &annotations) {
        object["spec"]["ingressClassName"] = (*class.key.name).into();
    }
    Ok(())
}
