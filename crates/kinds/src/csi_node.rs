use object::Resource;
use schema::{At, Kind, Violation, names, path};
use serde_json::Value;

use crate::column::{AGE, NAME, column};
use crate::spec::check::{self, Seen};
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
        let at = list.index(index);
        let (name, id) = (path::text(driver, "name"), path::text(driver, "nodeID"));
        check::required_name(driver, "name", names::dns_subdomain, at, &mut found);
        if seen.repeats(name) {
            found.push(Violation::duplicate(at.field("name"), name));
        }
        if id.is_empty() {
            found.push(Violation::required(at.field("nodeID"), ""));
        } else if id.len() > NODE_ID_MAX {
            let detail = format!("must be {NODE_ID_MAX} characters or less");
            found.push(Violation::invalid(at.field("nodeID"), id, detail));
        }
        let at = at.field("allocatable");
        check::not_negative(&driver["allocatable"], "count", at, &mut found);
        let before = old.into_iter().flat_map(|old| path::list(old, "spec.drivers"));
        for other in before.filter(|other| path::text(other, "name") == name) {
            if ["nodeID", "topologyKeys"].iter().any(|field| other.get(field) != driver.get(field)) {
                found.push(Violation::immutable(list.index(index), driver));
            }
        }
    }
    found
}
