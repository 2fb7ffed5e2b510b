use crate::{column, row, strategy};
use object::Resource;
use schema::Kind;

pub const CSI_STORAGE_CAPACITIES: Resource = Resource::new("csistoragecapacities.storage.k8s.io");

pub static KIND: Kind = Kind {
    resource: CSI_STORAGE_CAPACITIES,
    group: "storage.k8s.io",
    version: "v1",
    kind: "CSIStorageCapacity",
    singular: "csistoragecapacity",
    namespaced: true,
    type_name: "storage.v1.CSIStorageCapacity",
    columns: &[column::NAME, column::CREATED_AT],
    strategy: strategy::GUARDED,
    ..row::BASE
};
