use crate::{column, row, strategy};
use object::Resource;
use schema::{Kind, Strategy};

pub const ENDPOINT_SLICES: Resource = Resource::new("endpointslices.discovery.k8s.io");

pub static KIND: Kind = Kind {
    resource: ENDPOINT_SLICES,
    group: "discovery.k8s.io",
    version: "v1",
    kind: "EndpointSlice",
    singular: "endpointslice",
    namespaced: true,
    type_name: "discovery.v1.EndpointSlice",
    columns: &[column::NAME, column::AGE],
    strategy: Strategy {
        generation: &["addressType", "endpoints", "metadata.labels", "ports"],
        ..strategy::PLAIN
    },
    ..row::BASE
};
