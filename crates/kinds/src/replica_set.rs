use object::Resource;
use schema::{At, Kind, Strategy, Violation};
use serde_json::{Value, json};

use crate::column::{AGE, NAME, column, int};
use crate::spec::{
    check::{self, Found},
    template, warnings,
};
use crate::{row, strategy, subresource};

pub const REPLICA_SETS: Resource = Resource::new("replicasets.apps");

pub static KIND: Kind = Kind {
    resource: REPLICA_SETS,
    group: "apps",
    version: "v1",
    kind: "ReplicaSet",
    singular: "replicaset",
    short_names: &["rs"],
    categories: &["all"],
    namespaced: true,
    subresources: &[subresource::SCALE, subresource::STATUS],
    type_name: "apps.v1.ReplicaSet",
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
        template::SELECTOR,
    ],
    strategy: Strategy { prepare, ..strategy::SPEC_AND_STATUS },
    default: |set| template::default(set, "spec.template"),
    validate,
    warn: |new, old| warnings::of_controller(new, old, "spec.template"),
    ..row::BASE
};

fn prepare(set: &mut Value, old: Option<&Value>) {
    if old.is_none() {
        set["status"] = json!({"replicas": 0});
    }
}

fn validate(set: &Value, old: Option<&Value>) -> Vec<Violation> {
    let mut found = Vec::new();
    let (spec, at) = (&set["spec"], At::root("spec"));
    for field in ["replicas", "minReadySeconds"] {
        check::not_negative(spec, field, at, &mut found);
    }
    template::validate_replicated(spec, &mut found);
    status(set, &mut found);
    if let Some(old) = old {
        check::immutable(spec, &old["spec"], "selector", at, &mut found);
    }
    found
}

/// The counts of a status, which a ReplicationController's has too.
pub fn status(set: &Value, found: &mut Found) {
    let (status, at) = (&set["status"], At::root("status"));
    for field in
        ["replicas", "fullyLabeledReplicas", "readyReplicas", "availableReplicas", "observedGeneration"]
    {
        check::not_negative(status, field, at, found);
    }
    check::replica_counts(status, &["fullyLabeledReplicas", "readyReplicas", "availableReplicas"], at, found);
}
