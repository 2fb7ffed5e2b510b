use crate::{column, row, strategy, subresource};
use object::Resource;
use schema::Kind;

pub const PERSISTENT_VOLUMES: Resource = Resource::new("persistentvolumes");

pub static KIND: Kind = Kind {
    resource: PERSISTENT_VOLUMES,
    group: "",
    version: "v1",
    kind: "PersistentVolume",
    singular: "persistentvolume",
    short_names: &["pv"],
    namespaced: false,
    subresources: &[subresource::STATUS],
    type_name: "core.v1.PersistentVolume",
    columns: &[column::NAME, column::AGE],
    strategy: strategy::STATUS,
    ..row::BASE
};
