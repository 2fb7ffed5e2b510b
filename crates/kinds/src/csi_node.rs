use crate::{column, row, strategy};
use object::Resource;
use schema::Kind;

pub const CSI_NODES: Resource = Resource::new("csinodes.storage.k8s.io");

pub static KIND: Kind = Kind {
    resource: CSI_NODES,
    group: "storage.k8s.io",
    version: "v1",
    kind: "CSINode",
    singular: "csinode",
    namespaced: false,
    type_name: "storage.v1.CSINode",
    columns: &[column::NAME, column::AGE],
    strategy: strategy::GUARDED,
    ..row::BASE
};
