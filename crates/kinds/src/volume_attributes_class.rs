use object::Resource;
use schema::{At, Kind, Violation, path};
use serde_json::Value;

use crate::column::{AGE, NAME, column, text};
use crate::spec::storage;
use crate::{row, strategy};

pub const VOLUME_ATTRIBUTES_CLASSES: Resource = Resource::new("volumeattributesclasses.storage.k8s.io");

pub static KIND: Kind = Kind {
    resource: VOLUME_ATTRIBUTES_CLASSES,
    group: "storage.k8s.io",
    version: "v1",
    kind: "VolumeAttributesClass",
    singular: "volumeattributesclass",
    short_names: &["vac"],
    namespaced: false,
    type_name: "storage.v1.VolumeAttributesClass",
    columns: &[
        NAME,
        column("DriverName", "string", "The driver that it is for.", |object, _| text(object, "driverName")),
        AGE,
    ],
    strategy: strategy::PLAIN,
    validate,
    ..row::BASE
};

fn validate(class: &Value, old: Option<&Value>) -> Vec<Violation> {
    let mut found = Vec::new();
    for field in ["driverName", "parameters"] {
        if old.is_some_and(|old| old.get(field) != class.get(field)) {
            found.push(Violation::forbidden(At::root(field), format!("updates to {field} are forbidden.")));
        }
    }
    storage::provisioner(class, "driverName", &mut found);
    storage::parameters(class, &mut found);
    if path::members(class, "parameters").next().is_none() {
        let detail = "must contain at least one key/value pair";
        found.push(Violation::required(At::root("parameters"), detail));
    }
    found
}
