use object::Resource;
use schema::{At, Kind, Violation, names, path};
use serde_json::Value;

use crate::column::{AGE, NAME, column};
use crate::spec::check::{self, Found};
use crate::{row, strategy};

pub const CONFIG_MAPS: Resource = Resource::new("configmaps");

pub static KIND: Kind = Kind {
    resource: CONFIG_MAPS,
    group: "",
    version: "v1",
    kind: "ConfigMap",
    singular: "configmap",
    short_names: &["cm"],
    namespaced: true,
    type_name: "core.v1.ConfigMap",
    columns: &[
        NAME,
        column("Data", "string", "How many entries it has.", |object, _| {
            (path::members(object, "data").count() + path::members(object, "binaryData").count()).into()
        }),
        AGE,
    ],
    strategy: strategy::PLAIN,
    validate,
    ..row::BASE
};

/// The values of one ConfigMap or Secret together.
pub const VALUES_MAX_BYTES: usize = 1024 * 1024;

fn validate(map: &Value, old: Option<&Value>) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut bytes = 0;
    for (key, value) in path::members(map, "data") {
        let at = At::root("data");
        found.extend(Violation::all_invalid(at.key(key), key, names::config_key(key)));
        if map["binaryData"].get(key).is_some() {
            found.push(Violation::invalid(at.key(key), key, "duplicate of key present in binaryData"));
        }
        bytes += value.as_str().unwrap_or_default().len();
    }
    for (key, value) in path::members(map, "binaryData") {
        let at = At::root("binaryData");
        found.extend(Violation::all_invalid(at.key(key), key, names::config_key(key)));
        bytes += check::base64_len(value);
    }
    if bytes > VALUES_MAX_BYTES {
        found.push(Violation::too_long(At::root(""), VALUES_MAX_BYTES));
    }
    if let Some(old) = old {
        sealed(map, old, &["binaryData", "data"], &mut found);
    }
    found
}

/// `immutable: true` holds for good, for itself and for the fields named.
pub fn sealed(new: &Value, old: &Value, fields: &[&str], found: &mut Found) {
    if !path::bool(old, "immutable") {
        return;
    }
    let detail = "field is immutable when `immutable` is set";
    if !path::bool(new, "immutable") {
        found.push(Violation::forbidden(At::root("immutable"), detail));
    }
    for field in fields {
        if new.get(field) != old.get(field) {
            found.push(Violation::forbidden(At::root(field), detail));
        }
    }
}
