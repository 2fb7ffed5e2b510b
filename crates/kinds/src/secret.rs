use crate::{column, row, strategy};
use object::Resource;
use schema::Kind;

pub const SECRETS: Resource = Resource::new("secrets");

pub static KIND: Kind = Kind {
    resource: SECRETS,
    group: "",
    version: "v1",
    kind: "Secret",
    singular: "secret",
    namespaced: true,
    type_name: "core.v1.Secret",
    columns: &[column::NAME, column::AGE],
    selectable: &["type"],
    strategy: strategy::PLAIN,
    ..row::BASE
};
