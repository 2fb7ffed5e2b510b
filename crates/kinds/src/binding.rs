use crate::{column, row};
use object::Resource;
use schema::Kind;

pub const BINDINGS: Resource = Resource::new("bindings");

pub static KIND: Kind = Kind {
    resource: BINDINGS,
    group: "",
    version: "v1",
    kind: "Binding",
    singular: "binding",
    namespaced: true,
    verbs: row::CREATE_ONLY,
    type_name: "core.v1.Binding",
    columns: &[column::NAME, column::AGE],
    ..row::BASE
};
