use crate::{column, row, strategy, subresource};
use object::Resource;
use schema::Kind;
use schema::names;

pub const STATEFUL_SETS: Resource = Resource::new("statefulsets.apps");

pub static KIND: Kind = Kind {
    resource: STATEFUL_SETS,
    group: "apps",
    version: "v1",
    kind: "StatefulSet",
    singular: "statefulset",
    short_names: &["sts"],
    categories: &["all"],
    namespaced: true,
    subresources: &[subresource::SCALE, subresource::STATUS],
    type_name: "apps.v1.StatefulSet",
    name: names::dns_label,
    columns: &[column::NAME, column::AGE],
    strategy: strategy::SPEC_AND_STATUS,
    ..row::BASE
};
