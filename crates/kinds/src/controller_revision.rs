use crate::{column, row, strategy};
use object::Resource;
use schema::Kind;

pub const CONTROLLER_REVISIONS: Resource = Resource::new("controllerrevisions.apps");

pub static KIND: Kind = Kind {
    resource: CONTROLLER_REVISIONS,
    group: "apps",
    version: "v1",
    kind: "ControllerRevision",
    singular: "controllerrevision",
    namespaced: true,
    type_name: "apps.v1.ControllerRevision",
    columns: &[column::NAME, column::AGE],
    strategy: strategy::PLAIN,
    ..row::BASE
};
