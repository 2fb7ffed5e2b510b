use crate::{column, row, strategy};
use object::Resource;
use schema::Kind;

pub const RESOURCE_SLICES: Resource = Resource::new("resourceslices.resource.k8s.io");

pub static KIND: Kind = Kind {
    resource: RESOURCE_SLICES,
    group: "resource.k8s.io",
    version: "v1",
    kind: "ResourceSlice",
    singular: "resourceslice",
    namespaced: false,
    type_name: "resource.v1.ResourceSlice",
    columns: &[column::NAME, column::AGE],
    selectable: &["spec.nodeName", "spec.driver"],
    strategy: strategy::SPEC,
    ..row::BASE
};
