use object::Resource;
use schema::{At, Kind, Strategy, Violation, metadata, names, path};
use serde_json::Value;

use crate::column::{AGE, NAME, column, text};
use crate::spec::{check, node_labels, resources, scheduling};
use crate::{row, strategy};

pub const RUNTIME_CLASSES: Resource = Resource::new("runtimeclasses.node.k8s.io");

pub static KIND: Kind = Kind {
    resource: RUNTIME_CLASSES,
    group: "node.k8s.io",
    version: "v1",
    kind: "RuntimeClass",
    singular: "runtimeclass",
    namespaced: false,
    type_name: "node.v1.RuntimeClass",
    columns: &[
        NAME,
        column("Handler", "string", "The configuration of the runtime that it names.", |object, _| {
            text(object, "handler")
        }),
        AGE,
    ],
    strategy: Strategy { create_on_update: true, ..strategy::GUARDED },
    validate,
    warn,
    ..row::BASE
};

fn warn(new: &Value, _old: Option<&Value>) -> Vec<String> {
    let labels = path::members(new, "scheduling.nodeSelector").map(|(label, _)| label);
    labels
        .filter_map(|label| node_labels::deprecation(label))
        .map(|told| format!("scheduling.nodeSelector: {told}"))
        .collect()
}

fn validate(class: &Value, old: Option<&Value>) -> Vec<Violation> {
    let mut found = Vec::new();
    let root = At::root("");
    check::required_name(class, "handler", names::dns_label, root, &mut found);
    let fixed = path::get(class, "overhead.podFixed").unwrap_or(&Value::Null);
    for (resource, _) in fixed.as_object().into_iter().flatten() {
        if let Some(amount) = resources::amount(fixed, resource) {
            let at = At::root("overhead.podFixed");
            resources::validate_amount(resource, amount, at.key(resource), &mut found);
        }
    }
    let at = At::root("scheduling");
    metadata::labels(path::get(class, "scheduling.nodeSelector"), at.field("nodeSelector"), &mut found);
    let tolerations = path::list(class, "scheduling.tolerations");
    scheduling::tolerations(tolerations, at.field("tolerations"), &mut found);
    if let Some(old) = old {
        check::immutable(class, old, "handler", root, &mut found);
    }
    found
}
