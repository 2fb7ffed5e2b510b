use object::Resource;
use schema::{At, Kind, Strategy, Violation, path};
use serde_json::Value;

use crate::column::{AGE, NAME, column};
use crate::spec::check::{self, Seen};
use crate::{row, strategy};

pub const CSI_DRIVERS: Resource = Resource::new("csidrivers.storage.k8s.io");

pub static KIND: Kind = Kind {
    resource: CSI_DRIVERS,
    group: "storage.k8s.io",
    version: "v1",
    kind: "CSIDriver",
    singular: "csidriver",
    namespaced: false,
    type_name: "storage.v1.CSIDriver",
    columns: &[
        NAME,
        column(
            "AttachRequired",
            "boolean",
            "Whether its volumes are attached before they are mounted.",
            |object, _| path::get(object, "spec.attachRequired").cloned().unwrap_or(true.into()),
        ),
        column("PodInfoOnMount", "boolean", "Whether it is told of the pod.", |object, _| {
            path::get(object, "spec.podInfoOnMount").cloned().unwrap_or(false.into())
        }),
        column("StorageCapacity", "boolean", "Whether it tells how much there is.", |object, _| {
            path::get(object, "spec.storageCapacity").cloned().unwrap_or(false.into())
        }),
        column("TokenRequests", "string", "The audiences of the tokens that it is given.", |object, _| {
            match path::get(object, "spec.tokenRequests").and_then(Value::as_array) {
                None => "<unset>".into(),
                Some(requests) => crate::column::join(requests, |one| path::text(one, "audience")).into(),
            }
        }),
        column("RequiresRepublish", "boolean", "Whether it is called again and again.", |object, _| {
            path::get(object, "spec.requiresRepublish").cloned().unwrap_or(false.into())
        }),
        column("Modes", "string", "What its volumes may be.", |object, _| {
            match path::list(object, "spec.volumeLifecycleModes") {
                [] => "<none>".into(),
                modes => crate::column::join(modes, |one| one.as_str().unwrap_or_default()).into(),
            }
        }),
        AGE,
    ],
    strategy: Strategy { prepare, ..strategy::GUARDED },
    validate,
    ..row::BASE
};

/// Its generation starts at nothing and counts the changes.
fn prepare(driver: &mut Value, old: Option<&Value>) {
    let Some(old) = old else { return };
    if driver["spec"] != old["spec"] {
        let next = path::int(old, "metadata.generation").unwrap_or_default() + 1;
        path::set(driver, "metadata.generation", next.into());
    }
}

fn validate(driver: &Value, old: Option<&Value>) -> Vec<Violation> {
    let mut found = Vec::new();
    let (spec, at) = (&driver["spec"], At::root("spec"));
    for (field, shown) in [
        ("attachRequired", "attachedRequired"),
        ("podInfoOnMount", "podInfoOnMount"),
        ("storageCapacity", "storageCapacity"),
        ("seLinuxMount", "seLinuxMount"),
    ] {
        if spec.get(field).is_none() {
            found.push(Violation::required(at.field(shown), ""));
        }
    }
    check::one_of(spec, "fsGroupPolicy", &["File", "None", "ReadWriteOnceWithFSType"], at, &mut found);
    for mode in path::list(spec, "volumeLifecycleModes") {
        if mode != "Persistent" && mode != "Ephemeral" {
            let at = at.field("volumeLifecycleModes");
            found.push(Violation::not_supported(at, mode, &["Persistent", "Ephemeral"]));
        }
    }
    let requests = path::list(spec, "tokenRequests");
    let mut seen = Seen::default();
    for (index, request) in requests.iter().enumerate() {
        let at = at.field("tokenRequests");
        let at = at.index(index);
        let audience = path::text(request, "audience");
        if seen.repeats(audience) {
            found.push(Violation::duplicate(at.field("audience"), audience));
        }
        if let Some(seconds) = path::int(request, "expirationSeconds").filter(|&seconds| seconds < 600) {
            let detail = "may not specify a duration less than 10 minutes";
            found.push(Violation::invalid(at.field("expirationSeconds"), seconds, detail));
        }
    }
    if let Some(seconds) =
        path::int(spec, "nodeAllocatableUpdatePeriodSeconds").filter(|&seconds| seconds < 10)
    {
        let detail = "must be greater than or equal to 10 seconds";
        found.push(Violation::invalid(at.field("nodeAllocatableUpdatePeriodSeconds"), seconds, detail));
    }
    if let Some(old) = old {
        for field in ["attachRequired", "volumeLifecycleModes"] {
            check::immutable(spec, &old["spec"], field, at, &mut found);
        }
    }
    found
}
