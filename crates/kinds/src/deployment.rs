use object::Resource;
use schema::{At, Kind, Strategy, Violation, path};
use serde_json::Value;

use crate::column::{AGE, NAME, column, int, wide};
use crate::spec::{
    check::{self, Found},
    label_selector, template, warnings,
};
use crate::{row, strategy, subresource};

pub const DEPLOYMENTS: Resource = Resource::new("deployments.apps");

pub static KIND: Kind = Kind {
    resource: DEPLOYMENTS,
    group: "apps",
    version: "v1",
    kind: "Deployment",
    singular: "deployment",
    short_names: &["deploy"],
    categories: &["all"],
    namespaced: true,
    subresources: &[subresource::SCALE, subresource::STATUS],
    type_name: "apps.v1.Deployment",
    columns: &[
        NAME,
        column("Ready", "string", "How many pods are ready, of how many.", |object, _| {
            let ready = path::int(object, "status.readyReplicas").unwrap_or_default();
            format!("{ready}/{}", path::int(object, "spec.replicas").unwrap_or_default()).into()
        }),
        column("Up-to-date", "string", "How many pods are of the newest template.", |object, _| {
            int(object, "status.updatedReplicas")
        }),
        column("Available", "string", "How many pods have been ready for long enough.", |object, _| {
            int(object, "status.availableReplicas")
        }),
        AGE,
        template::CONTAINERS,
        template::IMAGES,
        wide("Selector", "string", "Which pods it counts as its own.", |object, _| {
            let selector = path::get(object, "spec.selector");
            selector
                .map_or_else(String::new, |one| label_selector::to_text(one).unwrap_or("<invalid>".into()))
                .into()
        }),
    ],
    strategy: Strategy { generation: &["metadata.annotations", "spec"], ..strategy::SPEC_AND_STATUS },
    default,
    validate,
    warn: |new, old| warnings::of_controller(new, old, "spec.template"),
    ..row::BASE
};

fn default(deployment: &mut Value) {
    template::default(deployment, "spec.template");
    if path::text(deployment, "spec.strategy.type") == "RollingUpdate" {
        path::set_default(deployment, "spec.strategy.rollingUpdate.maxUnavailable", "25%");
        path::set_default(deployment, "spec.strategy.rollingUpdate.maxSurge", "25%");
    }
}

fn validate(deployment: &Value, old: Option<&Value>) -> Vec<Violation> {
    let mut found = Vec::new();
    let (spec, at) = (&deployment["spec"], At::root("spec"));
    check::not_negative(spec, "replicas", at, &mut found);
    template::validate_replicated(spec, &mut found);
    update_strategy(&spec["strategy"], at.field("strategy"), &mut found);
    for field in ["minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"] {
        check::not_negative(spec, field, at, &mut found);
    }
    if let Some(seconds) = path::int(spec, "progressDeadlineSeconds")
        && seconds <= path::int(spec, "minReadySeconds").unwrap_or_default()
    {
        let detail = "must be greater than minReadySeconds";
        found.push(Violation::invalid(at.field("progressDeadlineSeconds"), seconds, detail));
    }
    status(deployment, old, &mut found);
    if let Some(old) = old {
        check::immutable(spec, &old["spec"], "selector", at, &mut found);
    }
    found
}

fn update_strategy(strategy: &Value, at: At<'_>, found: &mut Found) {
    match path::text(strategy, "type") {
        "Recreate" => {
            if strategy.get("rollingUpdate").is_some() {
                let detail = "may not be specified when strategy `type` is 'Recreate'";
                found.push(Violation::forbidden(at.field("rollingUpdate"), detail));
            }
        }
        "RollingUpdate" => rolling_update(&strategy["rollingUpdate"], at.field("rollingUpdate"), found),
        _ => found.push(Violation::not_supported(at, strategy, &["Recreate", "RollingUpdate"])),
    }
}

fn rolling_update(rolling: &Value, at: At<'_>, found: &mut Found) {
    check::share(rolling, "maxUnavailable", at, found);
    check::share(rolling, "maxSurge", at, found);
    if check::is_zero(&rolling["maxUnavailable"]) && check::is_zero(&rolling["maxSurge"]) {
        let detail = "may not be 0 when `maxSurge` is 0";
        found.push(Violation::invalid(at.field("maxUnavailable"), &rolling["maxUnavailable"], detail));
    }
    check::at_most_all(rolling, "maxUnavailable", at, found);
}

fn status(deployment: &Value, old: Option<&Value>, found: &mut Found) {
    let (status, at) = (&deployment["status"], At::root("status"));
    let count = |field: &str| path::int(status, field).unwrap_or_default();
    for field in [
        "observedGeneration",
        "replicas",
        "updatedReplicas",
        "readyReplicas",
        "availableReplicas",
        "unavailableReplicas",
        "collisionCount",
    ] {
        check::not_negative(status, field, at, found);
    }
    check::replica_counts(status, &["updatedReplicas", "readyReplicas", "availableReplicas"], at, found);
    let before = old.and_then(|old| path::int(old, "status.collisionCount")).unwrap_or_default();
    if old.is_some() && count("collisionCount") < before {
        let at = at.field("collisionCount");
        found.push(Violation::invalid(at, count("collisionCount"), "cannot be decremented"));
    }
}
