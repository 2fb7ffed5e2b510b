use crate::{column, row, strategy, subresource};
use object::Resource;
use schema::Kind;

pub const REPLICA_SETS: Resource = Resource::new("replicasets.apps");

pub static KIND: Kind = Kind {
    resource: REPLICA_SETS,
    group: "apps",
    version: "v1",
    kind: "ReplicaSet",
    singular: "replicaset",
    short_names: &["rs"],
    categories: &["all"],
    namespaced: true,
    subresources: &[subresource::SCALE, subresource::STATUS],
    type_name: "apps.v1.ReplicaSet",
    columns: &[column::NAME, column::AGE],
    strategy: strategy::SPEC_AND_STATUS,
    ..row::BASE
};
