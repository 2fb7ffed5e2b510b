use object::Resource;
use schema::{At, Kind, Violation, names, path};
use serde_json::Value;

use crate::column::{CREATED_AT, NAME};
use crate::spec::{check, label_selector, resources};
use crate::{row, strategy};

pub const CSI_STORAGE_CAPACITIES: Resource = Resource::new("csistoragecapacities.storage.k8s.io");

pub static KIND: Kind = Kind {
    resource: CSI_STORAGE_CAPACITIES,
    group: "storage.k8s.io",
    version: "v1",
    kind: "CSIStorageCapacity",
    singular: "csistoragecapacity",
    namespaced: true,
    type_name: "storage.v1.CSIStorageCapacity",
    columns: &[NAME, CREATED_AT],
    strategy: strategy::GUARDED,
    validate,
    ..row::BASE
};

fn validate(capacity: &Value, old: Option<&Value>) -> Vec<Violation> {
    let mut found = Vec::new();
    let root = At::root("");
    if let Some(topology) = capacity.get("nodeTopology") {
        label_selector::validate(topology, At::root("nodeTopology"), &mut found);
    }
    let class = path::text(capacity, "storageClassName");
    found.extend(Violation::all_invalid(root.field("storageClassName"), class, names::dns_subdomain(class)));
    if let Some(amount) = resources::amount(capacity, "capacity").filter(|amount| amount.is_negative()) {
        let detail = "must be greater than or equal to 0";
        found.push(Violation::invalid(At::root("capacity"), amount, detail));
    }
    if let Some(old) = old {
        for field in ["nodeTopology", "storageClassName"] {
            check::immutable(capacity, old, field, root, &mut found);
        }
    }
    found
}
