use object::{Resource, Time};
use schema::{Kind, Strategy, path};
use serde_json::{Value, json};

use crate::column::{CREATED_AT, NAME};
use crate::{row, strategy, subresource};

pub const CUSTOM_RESOURCE_DEFINITIONS: Resource =
    Resource::new("customresourcedefinitions.apiextensions.k8s.io");

pub static KIND: Kind = Kind {
    resource: CUSTOM_RESOURCE_DEFINITIONS,
    group: "apiextensions.k8s.io",
    version: "v1",
    kind: "CustomResourceDefinition",
    singular: "customresourcedefinition",
    short_names: &["crd", "crds"],
    categories: &["api-extensions"],
    namespaced: false,
    subresources: &[subresource::STATUS],
    type_name: "apiextensions.v1.CustomResourceDefinition",
    columns: &[NAME, CREATED_AT],
    strategy: Strategy {
        unconditional_update: false,
        prepare,
        begin_deletion: Some(begin_deletion),
        ..strategy::SPEC_AND_STATUS
    },
    default,
    validate: crate::definition_validation::validate,
    warn,
    ..row::BASE
};

/// Holds a definition until its objects are gone.
pub const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";

/// Its objects are deleted first, which a controller sees to.
fn begin_deletion(definition: &mut Value, now: Time) {
    let mut finalizers = path::list(definition, "metadata.finalizers").to_vec();
    if !finalizers.iter().any(|one| one == CLEANUP) {
        finalizers.push(CLEANUP.into());
    }
    path::set(definition, "metadata.finalizers", finalizers.into());
    let mut conditions = path::list(definition, "status.conditions").to_vec();
    conditions.retain(|one| path::text(one, "type") != "Terminating");
    conditions.push(json!({
        "type": "Terminating",
        "status": "True",
        "lastTransitionTime": now.to_string(),
        "reason": "InstanceDeletionPending",
        "message": "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon",
    }));
    path::set(definition, "status.conditions", conditions.into());
}

fn default(definition: &mut Value) {
    if let Some(spec) = definition.get_mut("spec").and_then(Value::as_object_mut) {
        // Upstream leaves it out where it says nothing.
        if spec.get("preserveUnknownFields") == Some(&Value::Bool(false)) {
            spec.remove("preserveUnknownFields");
        }
    }
    if let Some(spec) = definition.get_mut("spec").filter(|spec| spec.is_object()) {
        let kind = path::text(spec, "names.kind").to_owned();
        if !kind.is_empty() {
            for (field, value) in [("singular", kind.to_lowercase()), ("listKind", format!("{kind}List"))] {
                if path::text(&spec["names"], field).is_empty() {
                    spec["names"][field] = value.into();
                }
            }
        }
        if let Some(service) = path::get_mut(spec, "conversion.webhook.clientConfig.service") {
            path::set_default(service, "port", 443);
        }
    }
    let stored = storage_version(definition);
    if let Some(status) = definition.get_mut("status").filter(|status| status.is_object())
        && path::list(status, "storedVersions").is_empty()
        && let Some(stored) = stored
    {
        status["storedVersions"] = json!([stored]);
    }
}

/// Formats that nothing is checked by: those that an update brings.
fn warn(definition: &Value, old: Option<&Value>) -> Vec<String> {
    let before = old.map(unknown_formats).unwrap_or_default();
    let mut told: Vec<String> = unknown_formats(definition);
    told.retain(|format| !before.contains(format));
    told.iter().map(|format| format!("unrecognized format {format:?}")).collect()
}

fn unknown_formats(definition: &Value) -> Vec<String> {
    let versions: Vec<&Value> = path::list(definition, "spec.versions").iter().collect();
    let mut schemas: Vec<&Value> =
        versions.iter().filter_map(|version| path::get(version, "schema.openAPIV3Schema")).collect();
    // What all versions have alike is told once.
    if schemas.len() == versions.len() && schemas.iter().all(|one| *one == schemas[0]) {
        schemas.truncate(1);
    }
    schemas.into_iter().flat_map(schema::custom::unknown_formats).collect()
}

/// The version that objects are kept in.
pub fn storage_version(definition: &Value) -> Option<String> {
    let versions = path::list(definition, "spec.versions");
    versions.iter().find(|one| path::bool(one, "storage")).map(|one| path::text(one, "name").to_owned())
}

/// A version that objects have ever been kept in is remembered until nothing of it is left.
fn prepare(definition: &mut Value, old: Option<&Value>) {
    let stored = storage_version(definition);
    if old.is_none() {
        // The names that will be accepted are no pointer upstream: they are told as none.
        definition["status"] = json!({"acceptedNames": {"kind": "", "plural": ""}});
        if let Some(stored) = stored {
            definition["status"]["storedVersions"] = json!([stored]);
        }
        return;
    }
    let Some(stored) = stored else { return };
    let known = path::list(definition, "status.storedVersions");
    if !known.iter().any(|one| *one == stored) {
        let all: Vec<Value> = known.iter().cloned().chain([stored.into()]).collect();
        path::set(definition, "status.storedVersions", all.into());
    }
}
