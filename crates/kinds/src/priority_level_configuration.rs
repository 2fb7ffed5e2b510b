use crate::{column, row, strategy, subresource};
use object::Resource;
use schema::Kind;

pub const PRIORITY_LEVEL_CONFIGURATIONS: Resource =
    Resource::new("prioritylevelconfigurations.flowcontrol.apiserver.k8s.io");

pub static KIND: Kind = Kind {
    resource: PRIORITY_LEVEL_CONFIGURATIONS,
    group: "flowcontrol.apiserver.k8s.io",
    version: "v1",
    kind: "PriorityLevelConfiguration",
    singular: "prioritylevelconfiguration",
    namespaced: false,
    subresources: &[subresource::STATUS],
    type_name: "flowcontrol.v1.PriorityLevelConfiguration",
    columns: &[column::NAME, column::AGE],
    strategy: strategy::SPEC_AND_STATUS,
    ..row::BASE
};
