use object::Resource;
use schema::{At, Kind, Violation, names, path};
use serde_json::Value;

use crate::column::{AGE, column, text, text_or};
use crate::spec::check::{self, Found};
use crate::spec::node_labels;
use crate::spec::storage;
use crate::{row, strategy};

pub const STORAGE_CLASSES: Resource = Resource::new("storageclasses.storage.k8s.io");

pub static KIND: Kind = Kind {
    resource: STORAGE_CLASSES,
    group: "storage.k8s.io",
    version: "v1",
    kind: "StorageClass",
    singular: "storageclass",
    short_names: &["sc"],
    namespaced: false,
    type_name: "storage.v1.StorageClass",
    columns: &[
        storage::NAME_OR_DEFAULT,
        column("Provisioner", "string", "Who makes its volumes.", |object, _| text(object, "provisioner")),
        column(
            "ReclaimPolicy",
            "string",
            "What becomes of its volumes when they are given back.",
            |object, _| text_or(object, "reclaimPolicy", "Delete"),
        ),
        column("VolumeBindingMode", "string", "When its volumes are made.", |object, _| {
            text_or(object, "volumeBindingMode", "Immediate")
        }),
        column("AllowVolumeExpansion", "string", "Whether its volumes may grow.", |object, _| {
            path::bool(object, "allowVolumeExpansion").into()
        }),
        AGE,
    ],
    strategy: strategy::PLAIN,
    validate,
    warn,
    ..row::BASE
};

fn warn(new: &Value, _old: Option<&Value>) -> Vec<String> {
    let mut found = Vec::new();
    for (index, topology) in path::list(new, "allowedTopologies").iter().enumerate() {
        for (nested, expression) in path::list(topology, "matchLabelExpressions").iter().enumerate() {
            let at = format!("allowedTopologies[{index}].matchLabelExpressions[{nested}].key");
            let told = node_labels::deprecation(path::text(expression, "key"));
            found.extend(told.map(|told| format!("{at}: {told}")));
        }
    }
    found
}

const PARAMETERS_MAX: usize = 512;
const PARAMETERS_MAX_BYTES: usize = 256 * 1024;

fn validate(class: &Value, old: Option<&Value>) -> Vec<Violation> {
    let mut found = Vec::new();
    let root = At::root("");
    let provisioner = path::text(class, "provisioner");
    let at = At::root("provisioner");
    if provisioner.is_empty() {
        found.push(Violation::required(at, ""));
    } else {
        let wrong = names::qualified_name(&provisioner.to_ascii_lowercase());
        found.extend(Violation::all_invalid(at, provisioner, wrong));
    }
    parameters(class, At::root("parameters"), &mut found);
    check::one_of(class, "reclaimPolicy", &["Delete", "Retain"], root, &mut found);
    check::one_of(class, "volumeBindingMode", &["Immediate", "WaitForFirstConsumer"], root, &mut found);
    for (index, term) in path::list(class, "allowedTopologies").iter().enumerate() {
        for (place, expression) in path::list(term, "matchLabelExpressions").iter().enumerate() {
            let at = At::root("allowedTopologies");
            let at = at.index(index);
            let at = at.field("matchLabelExpressions");
            let at = at.index(place);
            if path::list(expression, "values").is_empty() {
                found.push(Violation::required(at.field("values"), ""));
            }
            let key = path::text(expression, "key");
            found.extend(Violation::all_invalid(at.field("key"), key, names::qualified_name(key)));
        }
    }
    if let Some(old) = old {
        for field in ["parameters", "provisioner", "reclaimPolicy", "volumeBindingMode"] {
            check::immutable(class, old, field, root, &mut found);
        }
    }
    found
}

fn parameters(class: &Value, at: At<'_>, found: &mut Found) {
    let (mut count, mut bytes) = (0, 0);
    for (key, value) in path::members(class, "parameters") {
        count += 1;
        bytes += key.len() + value.as_str().unwrap_or_default().len();
        if key.is_empty() {
            found.push(Violation::invalid(at, key, "field can not be empty."));
        }
    }
    if count > PARAMETERS_MAX {
        found.push(Violation::too_long(at, PARAMETERS_MAX));
    }
    if bytes > PARAMETERS_MAX_BYTES {
        found.push(Violation::too_long(at, PARAMETERS_MAX_BYTES));
    }
}
