use crate::{column, row};
use object::Resource;
use schema::Kind;

pub const COMPONENT_STATUSES: Resource = Resource::new("componentstatuses");

pub static KIND: Kind = Kind {
    resource: COMPONENT_STATUSES,
    group: "",
    version: "v1",
    kind: "ComponentStatus",
    singular: "componentstatus",
    short_names: &["cs"],
    namespaced: false,
    verbs: &["get", "list"],
    type_name: "core.v1.ComponentStatus",
    columns: &[column::NAME, column::AGE],
    ..row::BASE
};
