use object::Resource;
use schema::{At, Kind, Strategy, Violation, path};
use serde_json::Value;

use crate::column::{AGE, NAME, column, text};
use crate::spec::check;
use crate::{row, strategy};

pub const LEASES: Resource = Resource::new("leases.coordination.k8s.io");

pub static KIND: Kind = Kind {
    resource: LEASES,
    group: "coordination.k8s.io",
    version: "v1",
    kind: "Lease",
    singular: "lease",
    namespaced: true,
    type_name: "coordination.v1.Lease",
    columns: &[
        NAME,
        column("Holder", "string", "Who holds it.", |object, _| text(object, "spec.holderIdentity")),
        AGE,
    ],
    strategy: Strategy { create_on_update: true, prepare, ..strategy::GUARDED },
    validate,
    ..row::BASE
};

/// Coordinated leader election is behind a gate that is off: what only it reads is not taken.
fn prepare(lease: &mut Value, old: Option<&Value>) {
    for field in ["spec.strategy", "spec.preferredHolder"] {
        if old.and_then(|old| path::get(old, field)).is_none() {
            path::remove(lease, field);
        }
    }
}

fn validate(lease: &Value, _old: Option<&Value>) -> Vec<Violation> {
    let mut found = Vec::new();
    let (spec, at) = (&lease["spec"], At::root("spec"));
    if let Some(seconds) = path::int(spec, "leaseDurationSeconds").filter(|&seconds| seconds <= 0) {
        found.push(Violation::invalid(at.field("leaseDurationSeconds"), seconds, "must be greater than 0"));
    }
    check::not_negative(spec, "leaseTransitions", at, &mut found);
    found
}
