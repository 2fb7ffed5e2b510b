use crate::{column, row, strategy};
use object::Resource;
use schema::Kind;

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
    columns: &[column::NAME, column::AGE],
    strategy: strategy::PLAIN,
    ..row::BASE
};
