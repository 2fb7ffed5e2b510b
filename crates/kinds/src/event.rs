use crate::{column, row, strategy};
use object::Resource;
use schema::Kind;

pub const EVENTS: Resource = Resource::new("events");

pub static KIND: Kind = Kind {
    resource: EVENTS,
    group: "",
    version: "v1",
    kind: "Event",
    singular: "event",
    short_names: &["ev"],
    namespaced: true,
    type_name: "core.v1.Event",
    columns: &[column::NAME, column::AGE],
    selectable: &[
        "involvedObject.uid",
        "involvedObject.apiVersion",
        "involvedObject.fieldPath",
        "involvedObject.kind",
        "involvedObject.name",
        "involvedObject.namespace",
        "involvedObject.resourceVersion",
        "reason",
        "reportingComponent",
        "source",
        "type",
    ],
    strategy: strategy::CREATE_ON_UPDATE,
    ..row::BASE
};
