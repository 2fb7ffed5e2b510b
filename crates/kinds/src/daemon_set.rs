use object::Resource;
use schema::{At, Kind, Strategy, Violation, path};
use serde_json::{Value, json};

use crate::column::{AGE, NAME, column, int, labels};
use crate::spec::{
    check::{self, Found},
    label_selector, template, warnings,
};
use crate::{row, strategy, subresource};

pub const DAEMON_SETS: Resource = Resource::new("daemonsets.apps");

pub static KIND: Kind = Kind {
    resource: DAEMON_SETS,
    group: "apps",
    version: "v1",
    kind: "DaemonSet",
    singular: "daemonset",
    short_names: &["ds"],
    categories: &["all"],
    namespaced: true,
    subresources: &[subresource::STATUS],
    type_name: "apps.v1.DaemonSet",
    columns: &[
        NAME,
        column("Desired", "integer", "How many nodes should run its pod.", |object, _| {
            int(object, "status.desiredNumberScheduled")
        }),
        column("Current", "integer", "How many nodes run its pod.", |object, _| {
            int(object, "status.currentNumberScheduled")
        }),
        column("Ready", "integer", "How many of its pods are ready.", |object, _| {
            int(object, "status.numberReady")
        }),
        column("Up-to-date", "integer", "How many of its pods are of the newest template.", |object, _| {
            int(object, "status.updatedNumberScheduled")
        }),
        column(
            "Available",
            "integer",
            "How many of its pods have been ready for long enough.",
            |object, _| int(object, "status.numberAvailable"),
        ),
        column("Node Selector", "string", "Which nodes it is for.", |object, _| {
            labels(object, "spec.template.spec.nodeSelector")
        }),
        AGE,
        template::CONTAINERS,
        template::IMAGES,
        template::SELECTOR,
    ],
    strategy: Strategy { prepare, ..strategy::SPEC_AND_STATUS },
    default,
    validate,
    warn,
    ..row::BASE
};

/// A daemon set's name is not warned about: its pods' hostnames come from their own names.
fn warn(new: &Value, old: Option<&Value>) -> Vec<String> {
    let generation = |set: &Value| path::int(set, "metadata.generation");
    if old.is_some_and(|old| generation(old) == generation(new)) {
        return Vec::new();
    }
    warnings::of_pod(&new["spec"]["template"], "spec.template.")
}

const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

/// The template's generation is kept in an annotation, which nobody else may set.
fn prepare(set: &mut Value, old: Option<&Value>) {
    let generation = match old {
        None => {
            set["status"] = json!({
                "currentNumberScheduled": 0, "desiredNumberScheduled": 0, "numberMisscheduled": 0, "numberReady": 0,
            });
            1
        }
        Some(old) => {
            let annotations = path::get(old, "metadata.annotations");
            let before =
                annotations.and_then(|all| all.get(TEMPLATE_GENERATION)?.as_str()?.parse().ok()).unwrap_or(0);
            before + i64::from(path::get(set, "spec.template") != path::get(old, "spec.template"))
        }
    };
    set["metadata"]["annotations"][TEMPLATE_GENERATION] = generation.to_string().into();
}

fn default(set: &mut Value) {
    // As upstream's conversion to this version has it: whoever creates a set owns it.
    let generation = &mut set["metadata"]["annotations"][TEMPLATE_GENERATION];
    if generation.is_null() {
        *generation = "0".into();
    }
    template::default(set, "spec.template");
    if path::text(set, "spec.updateStrategy.type") == "RollingUpdate" {
        path::set_default(set, "spec.updateStrategy.rollingUpdate.maxUnavailable", 1);
        path::set_default(set, "spec.updateStrategy.rollingUpdate.maxSurge", 0);
    }
}

fn validate(set: &Value, old: Option<&Value>) -> Vec<Violation> {
    let mut found = Vec::new();
    let (spec, at) = (&set["spec"], At::root("spec"));
    if let Some(old) = old {
        check::immutable(spec, &old["spec"], "selector", at, &mut found);
    }
    selected(spec, at, &mut found);
    let (template, template_at) = (&spec["template"], at.field("template"));
    template::validate(template, template_at, &mut found);
    template::goes_on(template, "DaemonSet", template_at, &mut found);
    check::not_negative(spec, "minReadySeconds", at, &mut found);
    update_strategy(&spec["updateStrategy"], at.field("updateStrategy"), &mut found);
    check::not_negative(spec, "revisionHistoryLimit", at, &mut found);
    let status = &set["status"];
    for (field, _) in status.as_object().into_iter().flatten() {
        check::not_negative(status, field, At::root("status"), &mut found);
    }
    found
}

/// Upstream asks less of a daemon set's selector than of others': none is told only of the labels that it does not match.
fn selected(spec: &Value, at: At<'_>, found: &mut Found) {
    let (selector, before) = (&spec["selector"], found.len());
    label_selector::validate(selector, at.field("selector"), found);
    if found.len() == before {
        template::validate_selected(selector, &spec["template"], at.field("template"), found);
    }
    if !selector.is_null() && label_selector::is_empty(selector) {
        let detail = "empty selector is invalid for daemonset";
        found.push(Violation::invalid(at.field("selector"), selector, detail));
    }
}

fn update_strategy(strategy: &Value, at: At<'_>, found: &mut Found) {
    match path::text(strategy, "type") {
        "OnDelete" => {}
        "RollingUpdate" => {
            let at = at.field("rollingUpdate");
            let Some(rolling) = strategy.get("rollingUpdate") else {
                found.push(Violation::required(at, ""));
                return;
            };
            for field in ["maxUnavailable", "maxSurge"] {
                check::share(rolling, field, at, found);
                check::at_most_all(rolling, field, at, found);
            }
            match (check::is_zero(&rolling["maxUnavailable"]), check::is_zero(&rolling["maxSurge"])) {
                (true, true) => {
                    found.push(Violation::required(
                        at.field("maxUnavailable"),
                        "cannot be 0 when maxSurge is 0",
                    ));
                }
                (false, false) => {
                    let detail = "may not be set when maxUnavailable is non-zero";
                    found.push(Violation::invalid(at.field("maxSurge"), &rolling["maxSurge"], detail));
                }
                _ => {}
            }
        }
        _ => found.push(Violation::not_supported(at, strategy, &["RollingUpdate", "OnDelete"])),
    }
}
