use crate::{column, row, strategy, subresource};
use object::Resource;
use schema::{Kind, Subresource};

pub const NODES: Resource = Resource::new("nodes");

pub static KIND: Kind = Kind {
    resource: NODES,
    group: "",
    version: "v1",
    kind: "Node",
    singular: "node",
    short_names: &["no"],
    namespaced: false,
    subresources: &[
        Subresource {
            name: "proxy",
            gvk: Some(("", "v1", "NodeProxyOptions")),
            verbs: subresource::PROXY_VERBS,
        },
        subresource::STATUS,
    ],
    type_name: "core.v1.Node",
    columns: &[column::NAME, column::AGE],
    selectable: &["spec.unschedulable"],
    strategy: strategy::STATUS,
    ..row::BASE
};
