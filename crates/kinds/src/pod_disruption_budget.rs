use object::Resource;
use schema::{At, Kind, Strategy, Violation, names, path};
use serde_json::{Value, json};

use crate::column::{AGE, NAME, column, int};
use crate::spec::{check, conditions, label_selector};
use crate::{row, strategy, subresource};

pub const POD_DISRUPTION_BUDGETS: Resource = Resource::new("poddisruptionbudgets.policy");

pub static KIND: Kind = Kind {
    resource: POD_DISRUPTION_BUDGETS,
    group: "policy",
    version: "v1",
    kind: "PodDisruptionBudget",
    singular: "poddisruptionbudget",
    short_names: &["pdb"],
    namespaced: true,
    subresources: &[subresource::STATUS],
    type_name: "policy.v1.PodDisruptionBudget",
    columns: &[
        NAME,
        column("Min Available", "string", "How many pods must stay.", |object, _| {
            share(object, "spec.minAvailable")
        }),
        column("Max Unavailable", "string", "How many pods may go.", |object, _| {
            share(object, "spec.maxUnavailable")
        }),
        column("Allowed Disruptions", "integer", "How many pods may go now.", |object, _| {
            int(object, "status.disruptionsAllowed")
        }),
        AGE,
    ],
    strategy: Strategy { unconditional_update: false, prepare, ..strategy::SPEC_AND_STATUS },
    name: names::path_segment,
    validate,
    ..row::BASE
};

fn prepare(budget: &mut Value, old: Option<&Value>) {
    if old.is_none() {
        budget["status"] = json!({
            "currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0,
        });
    }
}

fn share(budget: &Value, at: &str) -> Value {
    match path::get(budget, at) {
        Some(Value::String(text)) => text.as_str().into(),
        Some(Value::Number(number)) => number.to_string().into(),
        _ => "N/A".into(),
    }
}

fn validate(budget: &Value, _old: Option<&Value>) -> Vec<Violation> {
    let mut found = Vec::new();
    let (spec, at) = (&budget["spec"], At::root("spec"));
    if spec.get("minAvailable").is_some() && spec.get("maxUnavailable").is_some() {
        found.push(Violation::invalid(at, spec, "minAvailable and maxUnavailable cannot be both set"));
    }
    for field in ["minAvailable", "maxUnavailable"] {
        check::share(spec, field, at, &mut found);
        check::at_most_all(spec, field, at, &mut found);
    }
    if let Some(selector) = spec.get("selector") {
        label_selector::validate(selector, at.field("selector"), &mut found);
    }
    check::one_of(spec, "unhealthyPodEvictionPolicy", &["AlwaysAllow", "IfHealthyBudget"], at, &mut found);
    let (status, at) = (&budget["status"], At::root("status"));
    conditions::validate(path::list(status, "conditions"), at.field("conditions"), &mut found);
    for field in ["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"] {
        check::not_negative(status, field, at, &mut found);
    }
    found
}
