use object::Resource;
use schema::{At, Kind, Strategy, Violation, path};
use serde_json::{Value, json};

use crate::column::{AGE, NAME, column, int, labels, wide};
use crate::spec::{check, template, warnings};
use crate::{row, strategy, subresource};

pub const REPLICATION_CONTROLLERS: Resource = Resource::new("replicationcontrollers");

pub static KIND: Kind = Kind {
    resource: REPLICATION_CONTROLLERS,
    group: "",
    version: "v1",
    kind: "ReplicationController",
    singular: "replicationcontroller",
    short_names: &["rc"],
    categories: &["all"],
    namespaced: true,
    subresources: &[subresource::SCALE, subresource::STATUS],
    type_name: "core.v1.ReplicationController",
    columns: &[
        NAME,
        column("Desired", "integer", "How many pods there should be.", |object, _| {
            int(object, "spec.replicas")
        }),
        column("Current", "integer", "How many pods there are.", |object, _| int(object, "status.replicas")),
        column("Ready", "integer", "How many pods are ready.", |object, _| {
            int(object, "status.readyReplicas")
        }),
        AGE,
        template::CONTAINERS,
        template::IMAGES,
        wide("Selector", "string", "Which pods it counts as its own.", |object, _| {
            labels(object, "spec.selector")
        }),
    ],
    selectable: &["status.replicas"],
    selected: |controller, path| row::absent_is("0", controller, path),
    strategy: Strategy { orphans_by_default: true, prepare, ..strategy::SPEC_AND_STATUS },
    default,
    validate,
    warn: |new, old| warnings::of_controller(new, old, "spec.template"),
    ..row::BASE
};

fn prepare(controller: &mut Value, old: Option<&Value>) {
    if old.is_none() {
        controller["status"] = json!({"replicas": 0});
    }
}

/// Without a selector it selects what its template makes, and without labels it has its template's.
fn default(controller: &mut Value) {
    template::default(controller, "spec.template");
    let Some(labels) = path::get(controller, "spec.template.metadata.labels").cloned() else { return };
    for at in ["spec.selector", "metadata.labels"] {
        if path::members(controller, at).next().is_none() {
            path::set(controller, at, labels.clone());
        }
    }
}

fn validate(controller: &Value, _old: Option<&Value>) -> Vec<Violation> {
    let mut found = Vec::new();
    let (spec, at) = (&controller["spec"], At::root("spec"));
    for field in ["replicas", "minReadySeconds"] {
        check::not_negative(spec, field, at, &mut found);
    }
    if path::members(spec, "selector").next().is_none() {
        found.push(Violation::required(at.field("selector"), ""));
    }
    let template_at = at.field("template");
    let Some(template) = spec.get("template") else {
        found.push(Violation::required(template_at, ""));
        return found;
    };
    let labels = path::get(template, "metadata.labels").unwrap_or(&Value::Null);
    if !path::members(spec, "selector").all(|(key, value)| labels.get(key) == Some(value)) {
        let detail = "`selector` does not match template `labels`";
        found.push(Violation::invalid(template_at.field("metadata.labels"), labels, detail));
    }
    template::validate(template, template_at, &mut found);
    template::goes_on(template, "ReplicationController", template_at, &mut found);
    crate::replica_set::status(controller, &mut found);
    found
}
