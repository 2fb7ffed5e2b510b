use crate::{column, row, strategy};
use object::Resource;
use schema::Kind;

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
    columns: &[column::NAME, column::AGE],
    strategy: strategy::PLAIN,
    ..row::BASE
};
