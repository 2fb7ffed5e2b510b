use object::Resource;
use schema::{At, Kind, Violation};
use serde_json::Value;

use crate::column::{AGE, NAME};
use crate::spec::check;
use crate::spec::devices;
use crate::{row, strategy};

pub const RESOURCE_CLAIM_TEMPLATES: Resource = Resource::new("resourceclaimtemplates.resource.k8s.io");

pub static KIND: Kind = Kind {
    resource: RESOURCE_CLAIM_TEMPLATES,
    group: "resource.k8s.io",
    version: "v1",
    kind: "ResourceClaimTemplate",
    singular: "resourceclaimtemplate",
    namespaced: true,
    type_name: "resource.v1.ResourceClaimTemplate",
    columns: &[NAME, AGE],
    strategy: strategy::PLAIN,
    default: |template| devices::default(template, "spec.spec.devices"),
    validate,
    ..row::BASE
};

fn validate(template: &Value, old: Option<&Value>) -> Vec<Violation> {
    let mut found = Vec::new();
    match old {
        // What may not change is not looked at again.
        Some(old) => check::immutable(template, old, "spec", At::root(""), &mut found),
        None => devices::template(&template["spec"], At::root("spec"), &mut found),
    }
    found
}
