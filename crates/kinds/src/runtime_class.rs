use crate::{column, row, strategy};
use object::Resource;
use schema::{Kind, Strategy};

pub const RUNTIME_CLASSES: Resource = Resource::new("runtimeclasses.node.k8s.io");

pub static KIND: Kind = Kind {
    resource: RUNTIME_CLASSES,
    group: "node.k8s.io",
    version: "v1",
    kind: "RuntimeClass",
    singular: "runtimeclass",
    namespaced: false,
    type_name: "node.v1.RuntimeClass",
    columns: &[column::NAME, column::AGE],
    strategy: Strategy { create_on_update: true, ..strategy::GUARDED },
    ..row::BASE
};
