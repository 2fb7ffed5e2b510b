use crate::{column, row, strategy, subresource};
use object::Resource;
use schema::Kind;

pub const RESOURCE_QUOTAS: Resource = Resource::new("resourcequotas");

pub static KIND: Kind = Kind {
    resource: RESOURCE_QUOTAS,
    group: "",
    version: "v1",
    kind: "ResourceQuota",
    singular: "resourcequota",
    short_names: &["quota"],
    namespaced: true,
    subresources: &[subresource::STATUS],
    type_name: "core.v1.ResourceQuota",
    columns: &[column::NAME, column::AGE],
    strategy: strategy::STATUS,
    ..row::BASE
};
