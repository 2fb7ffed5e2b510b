use crate::{column, row, strategy, subresource};
use object::Resource;
use schema::names;
use schema::{Kind, Strategy, Subresource};
use serde_json::Value;

pub const NAMESPACES: Resource = Resource::new("namespaces");

pub static KIND: Kind = Kind {
    resource: NAMESPACES,
    group: "",
    version: "v1",
    kind: "Namespace",
    singular: "namespace",
    short_names: &["ns"],
    namespaced: false,
    verbs: &["create", "delete", "get", "list", "patch", "update", "watch"],
    subresources: &[Subresource { name: "finalize", gvk: None, verbs: &["update"] }, subresource::STATUS],
    type_name: "core.v1.Namespace",
    name: names::dns_label,
    columns: &[column::NAME, column::AGE],
    selectable: &["status.phase"],
    strategy: Strategy { main_keeps: &["status"], prepare, ..strategy::PLAIN },
    ..row::BASE
};

fn prepare(_namespace: &mut Value, _old: Option<&Value>) {}
