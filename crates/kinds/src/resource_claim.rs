use object::Resource;
use schema::{At, Kind, Strategy, Violation, path};
use serde_json::Value;

use crate::column::{AGE, NAME, column};
use crate::spec::check;
use crate::spec::devices;
use crate::{row, strategy, subresource};

pub const RESOURCE_CLAIMS: Resource = Resource::new("resourceclaims.resource.k8s.io");

pub static KIND: Kind = Kind {
    resource: RESOURCE_CLAIMS,
    group: "resource.k8s.io",
    version: "v1",
    kind: "ResourceClaim",
    singular: "resourceclaim",
    namespaced: true,
    subresources: &[subresource::STATUS],
    type_name: "resource.v1.ResourceClaim",
    columns: &[NAME, column("State", "string", "How far it is.", |object, _| state(object).into()), AGE],
    strategy: Strategy { status_keeps_metadata: true, ..strategy::STATUS },
    default: |claim| devices::default(claim, "spec.devices"),
    validate,
    ..row::BASE
};

fn state(claim: &Value) -> String {
    let is_deleting = path::get(claim, "metadata.deletionTimestamp").is_some();
    let mut states = Vec::new();
    if is_deleting {
        states.push("deleted");
    }
    if path::get(claim, "status.allocation").is_some() {
        states.push("allocated");
        if !path::list(claim, "status.reservedFor").is_empty() {
            states.push("reserved");
        }
    } else if !is_deleting {
        states.push("pending");
    }
    states.join(",")
}

fn validate(claim: &Value, old: Option<&Value>) -> Vec<Violation> {
    let mut found = Vec::new();
    devices::validate(&claim["spec"]["devices"], At::root("spec.devices"), &mut found);
    if let Some(old) = old {
        check::immutable(claim, old, "spec", At::root(""), &mut found);
    }
    found
}
