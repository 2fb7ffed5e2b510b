use object::Resource;
use schema::{At, Kind, Violation, names, path};
use serde_json::Value;

use crate::column::{AGE, NAME, column};
use crate::spec::check::{self, Found, Seen};
use crate::spec::volume;
use crate::{row, strategy};

pub const CSI_NODES: Resource = Resource::new("csinodes.storage.k8s.io");

pub static KIND: Kind = Kind {
    resource: CSI_NODES,
    group: "storage.k8s.io",
    version: "v1",
    kind: "CSINode",
    singular: "csinode",
    namespaced: false,
    type_name: "storage.v1.CSINode",
    columns: &[
        NAME,
        column("Drivers", "integer", "How many drivers it has.", |object, _| {
            path::list(object, "spec.drivers").len().into()
        }),
        AGE,
    ],
    strategy: strategy::GUARDED,
    validate,
    ..row::BASE
};

const NODE_ID_MAX: usize = 256;

fn validate(node: &Value, old: Option<&Value>) -> Vec<Violation> {
    let mut found = Vec::new();
    let drivers = path::list(node, "spec.drivers");
    let list = At::root("spec.drivers");
    let mut seen = Seen::default();
    for (index, driver) in drivers.iter().enumerate() {
        one(driver, &mut seen, list.index(index), &mut found);
    }
    for before in old.map(|old| path::list(old, "spec.drivers")).unwrap_or_default() {
        for driver in drivers.iter().filter(|one| one["name"] == before["name"]) {
            if ["nodeID", "topologyKeys"].iter().any(|field| driver.get(field) != before.get(field)) {
                found.push(Violation::immutable(list, driver));
            }
        }
    }
    found
}

fn one<'a>(driver: &'a Value, seen: &mut Seen<'a>, at: At<'_>, found: &mut Found) {
    let (name, id) = (path::text(driver, "name"), path::text(driver, "nodeID"));
    volume::csi_driver(driver, "name", at, found);
    if id.is_empty() {
        found.push(Violation::required(at.field("nodeID"), ""));
    } else if id.len() > NODE_ID_MAX {
        let detail = format!("must be {NODE_ID_MAX} characters or less");
        found.push(Violation::invalid(at.field("nodeID"), id, detail));
    }
    check::not_negative(&driver["allocatable"], "count", at.field("allocatable"), found);
    if seen.repeats(name) {
        found.push(Violation::duplicate(at.field("name"), name));
    }
    let mut keys = Seen::default();
    for key in path::list(driver, "topologyKeys").iter().map(|key| key.as_str().unwrap_or_default()) {
        if key.is_empty() {
            found.push(Violation::required(at, ""));
        }
        if keys.repeats(key) {
            found.push(Violation::duplicate(at, key));
        }
        found.extend(Violation::all_invalid(at, key, names::qualified_name(key)));
    }
}
