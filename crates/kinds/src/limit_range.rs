use crate::{column, row, strategy};
use object::Resource;
use schema::Kind;

pub const LIMIT_RANGES: Resource = Resource::new("limitranges");

pub static KIND: Kind = Kind {
    resource: LIMIT_RANGES,
    group: "",
    version: "v1",
    kind: "LimitRange",
    singular: "limitrange",
    short_names: &["limits"],
    namespaced: true,
    type_name: "core.v1.LimitRange",
    columns: &[column::NAME, column::CREATED_AT],
    strategy: strategy::CREATE_ON_UPDATE,
    ..row::BASE
};
