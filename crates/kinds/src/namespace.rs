use object::Resource;
use schema::{At, Kind, Strategy, Subresource, Violation, names, path};
use serde_json::{Value, json};

use crate::column::{AGE, NAME, column, text};
use crate::spec::check::Found;
use crate::{row, strategy, subresource};

pub const NAMESPACES: Resource = Resource::new("namespaces");

pub static KIND: Kind = Kind {
    resource: NAMESPACES,
    group: "",
    version: "v1",
    kind: "Namespace",
    singular: "namespace",
    short_names: &["ns"],
    namespaced: false,
    verbs: &["create", "delete", "get", "list", "patch", "update", "watch"],
    subresources: &[Subresource { name: "finalize", gvk: None, verbs: &["update"] }, subresource::STATUS],
    type_name: "core.v1.Namespace",
    columns: &[
        NAME,
        column("Status", "string", "Whether it is in use or on its way out.", |object, _| {
            text(object, "status.phase")
        }),
        AGE,
    ],
    selectable: &["status.phase"],
    strategy: Strategy { main_keeps: &["status"], prepare, ..strategy::PLAIN },
    name: names::dns_label,
    default,
    validate,
    ..row::BASE
};

const OWN_NAME: &str = "kubernetes.io/metadata.name";
const STANDARD_FINALIZERS: [&str; 3] = ["foregroundDeletion", "kubernetes", "orphan"];

fn prepare(namespace: &mut Value, old: Option<&Value>) {
    match old {
        None => {
            namespace["status"] = json!({"phase": "Active"});
            let finalizers = path::list(namespace, "spec.finalizers");
            if !finalizers.iter().any(|one| one == "kubernetes") {
                let all: Vec<Value> = finalizers.iter().cloned().chain(["kubernetes".into()]).collect();
                path::set(namespace, "spec.finalizers", all.into());
            }
        }
        // Only its subresource finalizes.
        Some(old) => match path::get(old, "spec.finalizers") {
            Some(kept) => path::set(namespace, "spec.finalizers", kept.clone()),
            None => {
                path::remove(namespace, "spec.finalizers");
            }
        },
    }
    default(namespace);
}

/// A namespace is labelled with its own name, so that selectors can tell it.
fn default(namespace: &mut Value) {
    let name = path::text(namespace, "metadata.name").to_owned();
    if !name.is_empty() {
        namespace["metadata"]["labels"][OWN_NAME] = name.into();
    }
    if let Some(status) = namespace.get_mut("status").filter(|status| status.is_object()) {
        path::set_default(status, "phase", "Active");
    }
}

fn validate(namespace: &Value, old: Option<&Value>) -> Vec<Violation> {
    let mut found = Vec::new();
    let list = At::root("spec.finalizers");
    for (index, finalizer) in path::list(namespace, "spec.finalizers").iter().enumerate() {
        // Upstream tells the place in the list only where an update brings it.
        let at = if old.is_some() { list.index(index) } else { list };
        let finalizer = finalizer.as_str().unwrap_or_default();
        let wrong = names::qualified_name(finalizer);
        if wrong.is_empty() && !finalizer.contains('/') && !STANDARD_FINALIZERS.contains(&finalizer) {
            let detail = "name is neither a standard finalizer name nor is it fully qualified";
            found.push(Violation::invalid(at, finalizer, detail));
        }
        found.extend(Violation::all_invalid(at, finalizer, wrong));
    }
    if old.is_some_and(|old| old["status"] != namespace["status"]) {
        phase(namespace, &mut found);
    }
    found
}

/// Its phase says whether it is on its way out.
fn phase(namespace: &Value, found: &mut Found) {
    let is_deleting = path::get(namespace, "metadata.deletionTimestamp").is_some();
    let (at, phase) = (At::root("status.Phase"), path::text(namespace, "status.phase"));
    if is_deleting && phase != "Terminating" {
        let detail = "may only be 'Terminating' if `deletionTimestamp` is not empty";
        found.push(Violation::invalid(at, phase, detail));
    } else if !is_deleting && !matches!(phase, "" | "Active") {
        let detail = "may only be 'Active' if `deletionTimestamp` is empty";
        found.push(Violation::invalid(at, phase, detail));
    }
}
