use crate::{column, row, strategy};
use object::Resource;
use schema::Kind;

pub const PRIORITY_CLASSES: Resource = Resource::new("priorityclasses.scheduling.k8s.io");

pub static KIND: Kind = Kind {
    resource: PRIORITY_CLASSES,
    group: "scheduling.k8s.io",
    version: "v1",
    kind: "PriorityClass",
    singular: "priorityclass",
    short_names: &["pc"],
    namespaced: false,
    type_name: "scheduling.v1.PriorityClass",
    columns: &[column::NAME, column::AGE],
    strategy: strategy::PLAIN,
    ..row::BASE
};
