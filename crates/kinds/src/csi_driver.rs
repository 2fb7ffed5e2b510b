use crate::{column, row, strategy};
use object::Resource;
use schema::Kind;

pub const CSI_DRIVERS: Resource = Resource::new("csidrivers.storage.k8s.io");

pub static KIND: Kind = Kind {
    resource: CSI_DRIVERS,
    group: "storage.k8s.io",
    version: "v1",
    kind: "CSIDriver",
    singular: "csidriver",
    namespaced: false,
    type_name: "storage.v1.CSIDriver",
    columns: &[column::NAME, column::AGE],
    strategy: strategy::GUARDED,
    ..row::BASE
};
