use object::Resource;
use schema::{Deprecated, Kind, path};
use serde_json::Value;

use crate::column::{NAME, column};
use crate::row;

pub const COMPONENT_STATUSES: Resource = Resource::new("componentstatuses");

pub static KIND: Kind = Kind {
    resource: COMPONENT_STATUSES,
    group: "",
    version: "v1",
    deprecated: Some(Deprecated { since: 19, removed: None, instead: None }),
    kind: "ComponentStatus",
    singular: "componentstatus",
    short_names: &["cs"],
    namespaced: false,
    verbs: &["get", "list"],
    type_name: "core.v1.ComponentStatus",
    columns: &[
        NAME,
        column("Status", "string", "Whether it is well.", |object, _| {
            match healthy(object).map(|one| path::text(one, "status")) {
                None => "Unknown".into(),
                Some("True") => "Healthy".into(),
                Some(_) => "Unhealthy".into(),
            }
        }),
        column("Message", "string", "What it says of itself.", |object, _| {
            healthy(object).map_or("", |one| path::text(one, "message")).into()
        }),
        column("Error", "string", "Why it is not well.", |object, _| {
            healthy(object).map_or("", |one| path::text(one, "error")).into()
        }),
    ],
    ..row::BASE
};

fn healthy(status: &Value) -> Option<&Value> {
    path::list(status, "conditions").iter().find(|one| path::text(one, "type") == "Healthy")
}
