use crate::{column, row, strategy, subresource};
use object::Resource;
use schema::Kind;

pub const FLOW_SCHEMAS: Resource = Resource::new("flowschemas.flowcontrol.apiserver.k8s.io");

pub static KIND: Kind = Kind {
    resource: FLOW_SCHEMAS,
    group: "flowcontrol.apiserver.k8s.io",
    version: "v1",
    kind: "FlowSchema",
    singular: "flowschema",
    namespaced: false,
    subresources: &[subresource::STATUS],
    type_name: "flowcontrol.v1.FlowSchema",
    columns: &[column::NAME, column::AGE],
    strategy: strategy::SPEC_AND_STATUS,
    ..row::BASE
};
