use object::Resource;
use schema::{At, Kind, Strategy, Violation, metadata, names, path};
use serde_json::{Value, json};

use crate::column::{AGE, NAME, column, text};
use crate::spec::check::{self, Seen};
use crate::spec::{node_labels, resources, scheduling};
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
    if let Some(fixed) = path::get(class, "overhead.podFixed") {
        // Held against the rules for a container's limits, and called so.
        let limits = json!({"limits": fixed});
        resources::validate(&limits, resources::container_name, At::root("overhead"), &mut found);
    }
    let at = At::root("scheduling");
    metadata::labels(path::get(class, "scheduling.nodeSelector"), at.field("nodeSelector"), &mut found);
    let tolerations = path::list(class, "scheduling.tolerations");
    let list = at.field("tolerations");
    scheduling::tolerations(tolerations, list, &mut found);
    let mut seen = Seen::default();
    for (index, toleration) in tolerations.iter().enumerate() {
        let parts = ["key", "operator", "value", "effect"].map(|field| path::text(toleration, field));
        if seen.repeats(parts.join("\n")) {
            found.push(Violation::duplicate(list.index(index), toleration));
        }
    }
    if let Some(old) = old {
        check::immutable(class, old, "handler", root, &mut found);
    }
    found
}
