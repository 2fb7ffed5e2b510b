use crate::{column, row, strategy, subresource};
use object::Resource;
use schema::Kind;

pub const DEPLOYMENTS: Resource = Resource::new("deployments.apps");

pub static KIND: Kind = Kind {
    resource: DEPLOYMENTS,
    group: "apps",
    version: "v1",
    kind: "Deployment",
    singular: "deployment",
    short_names: &["deploy"],
    categories: &["all"],
    namespaced: true,
    subresources: &[subresource::SCALE, subresource::STATUS],
    type_name: "apps.v1.Deployment",
    columns: &[column::NAME, column::AGE],
    strategy: strategy::SPEC_AND_STATUS,
    ..row::BASE
};
