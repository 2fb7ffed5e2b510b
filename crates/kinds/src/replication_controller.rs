use crate::{column, row, strategy, subresource};
use object::Resource;
use schema::{Kind, Strategy};

pub const REPLICATION_CONTROLLERS: Resource = Resource::new("replicationcontrollers");

pub static KIND: Kind = Kind {
    resource: REPLICATION_CONTROLLERS,
    group: "",
    version: "v1",
    kind: "ReplicationController",
    singular: "replicationcontroller",
    short_names: &["rc"],
    categories: &["all"],
    namespaced: true,
    subresources: &[subresource::SCALE, subresource::STATUS],
    type_name: "core.v1.ReplicationController",
    columns: &[column::NAME, column::AGE],
    selectable: &["status.replicas"],
    strategy: Strategy { orphans_by_default: true, ..strategy::SPEC_AND_STATUS },
    ..row::BASE
};
