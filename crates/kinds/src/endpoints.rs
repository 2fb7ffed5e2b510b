use crate::{column, row, strategy};
use object::Resource;
use schema::Kind;

pub const ENDPOINTS: Resource = Resource::new("endpoints");

pub static KIND: Kind = Kind {
    resource: ENDPOINTS,
    group: "",
    version: "v1",
    kind: "Endpoints",
    singular: "endpoints",
    short_names: &["ep"],
    namespaced: true,
    type_name: "core.v1.Endpoints",
    columns: &[column::NAME, column::AGE],
    strategy: strategy::CREATE_ON_UPDATE,
    ..row::BASE
};
