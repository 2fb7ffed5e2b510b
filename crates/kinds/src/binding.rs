use object::Resource;
use schema::{At, Kind, Violation, path};
use serde_json::Value;

use crate::column::{AGE, NAME};
use crate::row;
use crate::spec::check;

pub const BINDINGS: Resource = Resource::new("bindings");

pub static KIND: Kind = Kind {
    resource: BINDINGS,
    group: "",
    version: "v1",
    kind: "Binding",
    singular: "binding",
    namespaced: true,
    verbs: row::CREATE_ONLY,
    type_name: "core.v1.Binding",
    columns: &[NAME, AGE],
    validate,
    ..row::BASE
};

fn validate(binding: &Value, _old: Option<&Value>) -> Vec<Violation> {
    let mut found = Vec::new();
    let (target, at) = (&binding["target"], At::root("target"));
    let kind = path::text(target, "kind");
    if !matches!(kind, "" | "Node") {
        found.push(Violation::not_supported(at.field("kind"), kind, &["Node", "<empty>"]));
    }
    check::required(target, "name", at, &mut found);
    found
}
