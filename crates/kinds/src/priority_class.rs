use object::Resource;
use schema::{At, Kind, Strategy, Violation, path};
use serde_json::Value;

use crate::column::{AGE, NAME, column, int, text};
use crate::spec::check;
use crate::{row, strategy};

pub const PRIORITY_CLASSES: Resource = Resource::new("priorityclasses.scheduling.k8s.io");

pub static KIND: Kind = Kind {
    resource: PRIORITY_CLASSES,
    group: "scheduling.k8s.io",
    version: "v1",
    kind: "PriorityClass",
    singular: "priorityclass",
    short_names: &["pc"],
    namespaced: false,
    type_name: "scheduling.v1.PriorityClass",
    columns: &[
        NAME,
        column("Value", "integer", "How much pods of it matter.", |object, _| int(object, "value")),
        column("Global-Default", "boolean", "Whether pods that name no class are of it.", |object, _| {
            path::bool(object, "globalDefault").into()
        }),
        AGE,
        column("PreemptionPolicy", "string", "Whether its pods may push others out.", |object, _| {
            text(object, "preemptionPolicy")
        }),
    ],
    strategy: Strategy { prepare, ..strategy::PLAIN },
    validate,
    ..row::BASE
};

const USER_MAX: i64 = 1_000_000_000;
const SYSTEM: [(&str, i64); 2] =
    [("system-cluster-critical", 2_000_000_000), ("system-node-critical", 2_000_001_000)];

/// Its generation is one for good, for nothing of it can change.
fn prepare(class: &mut Value, old: Option<&Value>) {
    let generation = old.and_then(|old| path::int(old, "metadata.generation")).unwrap_or(1);
    path::set(class, "metadata.generation", generation.into());
}

fn validate(class: &Value, old: Option<&Value>) -> Vec<Violation> {
    let mut found = Vec::new();
    let (root, name) = (At::root(""), path::text(class, "metadata.name"));
    let value = path::int(class, "value").unwrap_or_default();
    if name.starts_with("system-") {
        if !SYSTEM.contains(&(name, value)) {
            let why = match SYSTEM.iter().find(|(known, _)| *known == name) {
                Some((_, fixed)) => format!("value of {name} PriorityClass must be {fixed}"),
                None => format!("{name} is not a known system priority class"),
            };
            let detail = format!(
                "priority class names with 'system-' prefix are reserved for system use only. error: {why}"
            );
            found.push(Violation::forbidden(At::root("metadata.name"), detail));
        }
    } else if value > USER_MAX {
        let detail = format!("maximum allowed value of a user defined priority is {USER_MAX}");
        found.push(Violation::forbidden(At::root("value"), detail));
    }
    check::one_of(class, "preemptionPolicy", &["PreemptLowerPriority", "Never"], root, &mut found);
    if let Some(old) = old {
        if class["value"] != old["value"] {
            found.push(Violation::forbidden(At::root("value"), "may not be changed in an update."));
        }
        check::immutable(class, old, "preemptionPolicy", root, &mut found);
    }
    found
}
