//! What claims, volumes and their classes have in common.

use schema::{At, Cell, Column, Violation, names, path};
use serde_json::Value;

use super::check::Found;
use crate::column::NAME;

const MODES: [(&str, &str); 4] = [
    ("ReadWriteOnce", "RWO"),
    ("ReadOnlyMany", "ROX"),
    ("ReadWriteMany", "RWX"),
    ("ReadWriteOncePod", "RWOP"),
];
const BETA_CLASS: &str = "volume.beta.kubernetes.io/storage-class";
const DEFAULT_CLASS: [&str; 2] =
    ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];

/// The name of a StorageClass, and whether claims that name none are of it.
pub const NAME_OR_DEFAULT: Column =
    Column { cell: Cell::Compiled(|class, _| name_or_default(class, &DEFAULT_CLASS)), ..NAME };

/// The name, with ` (default)` behind it if one of the annotations says `true`.
pub fn name_or_default(class: &Value, annotations: &[&str]) -> Value {
    let name = path::text(class, "metadata.name");
    let all = path::get(class, "metadata.annotations").unwrap_or(&Value::Null);
    let is_default = annotations.iter().any(|key| all.get(key).and_then(Value::as_str) == Some("true"));
    if is_default { format!("{name} (default)").into() } else { name.into() }
}

/// `RWO,ROX`: each mode once, in a fixed order.
pub fn modes_text(modes: &[Value]) -> String {
    let held = MODES.iter().filter(|(mode, _)| modes.iter().any(|one| one == mode));
    held.map(|(_, short)| *short).collect::<Vec<_>>().join(",")
}

pub fn access_modes(modes: &[Value], at: At<'_>, found: &mut Found) {
    let supported = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
    for mode in modes {
        if !supported.contains(&mode.as_str().unwrap_or_default()) {
            found.push(Violation::not_supported(at, mode, &supported));
        }
    }
    let is_other =
        |mode: &Value| mode != "ReadWriteOncePod" && supported.contains(&mode.as_str().unwrap_or_default());
    if modes.iter().any(|mode| mode == "ReadWriteOncePod") && modes.iter().any(is_other) {
        let detail = "may not use ReadWriteOncePod with other access modes";
        found.push(Violation::forbidden(at, detail));
    }
}

/// Who makes volumes, by the rule for labels' keys in lower case.
pub fn provisioner(class: &Value, field: &str, found: &mut Found) {
    let at = At::root(field);
    match path::text(class, field).to_lowercase() {
        name if name.is_empty() => found.push(Violation::required(at, "")),
        name => found.extend(Violation::all_invalid(at, name.as_str(), names::qualified_name(&name))),
    }
}

const PARAMETERS_MAX: usize = 512;
const PARAMETERS_MAX_BYTES: usize = 256 * 1024;

/// What is handed on to a provisioner.
pub fn parameters(class: &Value, found: &mut Found) {
    let at = At::root("parameters");
    if path::members(class, "parameters").count() > PARAMETERS_MAX {
        found.push(Violation::too_long(at, PARAMETERS_MAX));
        return;
    }
    let mut bytes = 0;
    for (key, value) in path::members(class, "parameters") {
        bytes += key.len() + value.as_str().unwrap_or_default().len();
        if key.is_empty() {
            found.push(Violation::invalid(at, key, "field can not be empty."));
        }
    }
    if bytes > PARAMETERS_MAX_BYTES {
        found.push(Violation::too_long(at, PARAMETERS_MAX_BYTES));
    }
}

/// The STATUS cell of a claim or a volume.
pub fn phase(object: &Value) -> Value {
    match path::get(object, "metadata.deletionTimestamp") {
        Some(_) => "Terminating".into(),
        None => path::text(object, "status.phase").into(),
    }
}

/// The class of a claim or a volume: the old annotation wins.
pub fn class(object: &Value) -> Value {
    let annotated = path::get(object, "metadata.annotations").and_then(|all| all.get(BETA_CLASS)?.as_str());
    annotated.unwrap_or_else(|| path::text(object, "spec.storageClassName")).into()
}
