use object::Resource;
use schema::{At, Kind, Violation, path};
use serde_json::Value;

use crate::column::{AGE, NAME, column, int};
use crate::spec::check;
use crate::{row, strategy};

pub const CONTROLLER_REVISIONS: Resource = Resource::new("controllerrevisions.apps");

pub static KIND: Kind = Kind {
    resource: CONTROLLER_REVISIONS,
    group: "apps",
    version: "v1",
    kind: "ControllerRevision",
    singular: "controllerrevision",
    namespaced: true,
    type_name: "apps.v1.ControllerRevision",
    columns: &[
        NAME,
        column("Controller", "string", "Whose template it remembers.", |object, _| controller(object)),
        column("Revision", "string", "Its place among the revisions.", |object, _| int(object, "revision")),
        AGE,
    ],
    strategy: strategy::PLAIN,
    validate,
    ..row::BASE
};

/// `daemonset.apps/x` of the controller among the owners.
fn controller(revision: &Value) -> Value {
    let owners = path::list(revision, "metadata.ownerReferences");
    let Some(owner) = owners.iter().find(|owner| path::bool(owner, "controller")) else {
        return "<none>".into();
    };
    let group = path::text(owner, "apiVersion")
        .split_once('/')
        .map_or(String::new(), |(group, _)| format!(".{group}"));
    format!("{}{group}/{}", path::text(owner, "kind").to_lowercase(), path::text(owner, "name")).into()
}

fn validate(revision: &Value, old: Option<&Value>) -> Vec<Violation> {
    let mut found = Vec::new();
    match revision.get("data") {
        None => found.push(Violation::required(At::root("data"), "data is mandatory")),
        Some(Value::Object(_)) => {}
        Some(_) => found.push(Violation::required(At::root("data"), "data must be a valid JSON object")),
    }
    check::not_negative(revision, "revision", At::root(""), &mut found);
    if let Some(old) = old {
        check::immutable(revision, old, "data", At::root(""), &mut found);
    }
    found
}
