use object::Resource;
use schema::{At, Kind, Strategy, Violation, path};
use serde_json::Value;

use crate::column::{AGE, NAME, column};
use crate::spec::check::{self, Found, Seen};
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
    warn,
    ..row::BASE
};

/// What upstream calls `attachRequired` when it is wrong.
const ATTACH_SHOWN: &str = "attachedRequired";
const TOKENS_IN_SECRETS: &str = "serviceAccountTokenInSecrets";
const TOKEN_SECONDS_MIN: i64 = 600;
/// The first that is too many.
const TOKEN_SECONDS_MAX: i64 = (1 << 32) + 1;

/// Its generation starts at nothing and counts the changes.
fn prepare(driver: &mut Value, old: Option<&Value>) {
    // Behind a gate that is off: it stays only where it is.
    const GATED: &str = "spec.preventPodSchedulingIfMissing";
    if old.and_then(|old| path::get(old, GATED)).is_none() {
        path::remove(driver, GATED);
    }
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
        ("attachRequired", ATTACH_SHOWN),
        ("podInfoOnMount", "podInfoOnMount"),
        ("storageCapacity", "storageCapacity"),
    ] {
        if spec.get(field).is_none() {
            found.push(Violation::required(at.field(shown), ""));
        }
    }
    check::one_of(spec, "fsGroupPolicy", &["File", "None", "ReadWriteOnceWithFSType"], at, &mut found);
    token_requests(path::list(spec, "tokenRequests"), at.field("tokenRequests"), &mut found);
    for mode in path::list(spec, "volumeLifecycleModes") {
        if mode != "Persistent" && mode != "Ephemeral" {
            let at = at.field("volumeLifecycleModes");
            found.push(Violation::not_supported(at, mode, &["Persistent", "Ephemeral"]));
        }
    }
    if spec.get("seLinuxMount").is_none() {
        found.push(Violation::required(at.field("seLinuxMount"), ""));
    }
    if let Some(seconds) =
        path::int(spec, "nodeAllocatableUpdatePeriodSeconds").filter(|&seconds| seconds < 10)
    {
        let detail = "must be greater than or equal to 10 seconds";
        found.push(Violation::invalid(at.field("nodeAllocatableUpdatePeriodSeconds"), seconds, detail));
    }
    if let Some(set) = spec.get(TOKENS_IN_SECRETS).filter(|_| path::list(spec, "tokenRequests").is_empty()) {
        let detail = "serviceAccountTokenInSecrets is set but no tokenRequests are specified";
        found.push(Violation::invalid(at.field(TOKENS_IN_SECRETS), set, detail));
    }
    if let Some(old) = old {
        for (field, shown) in
            [("attachRequired", ATTACH_SHOWN), ("volumeLifecycleModes", "volumeLifecycleModes")]
        {
            if spec.get(field) != old["spec"].get(field) {
                found.push(Violation::immutable(at.field(shown), &spec[field]));
            }
        }
    }
    found
}

fn token_requests(requests: &[Value], list: At<'_>, found: &mut Found) {
    let mut seen = Seen::default();
    for (index, request) in requests.iter().enumerate() {
        let at = list.index(index);
        let audience = path::text(request, "audience");
        if seen.repeats(audience) {
            found.push(Violation::duplicate(at.field("audience"), audience));
            continue;
        }
        let (seconds, at) = (path::int(request, "expirationSeconds"), at.field("expirationSeconds"));
        let detail = match seconds {
            Some(..TOKEN_SECONDS_MIN) => "may not specify a duration less than 10 minutes",
            Some(TOKEN_SECONDS_MAX..) => "may not specify a duration larger than 2^32 seconds",
            _ => continue,
        };
        found.push(Violation::invalid(at, seconds, detail));
    }
}

fn warn(new: &Value, old: Option<&Value>) -> Vec<String> {
    let requests = path::list(new, "spec.tokenRequests");
    let changed = old.is_none_or(|old| path::list(old, "spec.tokenRequests") != requests);
    if requests.is_empty() || !changed || new["spec"].get(TOKENS_IN_SECRETS).is_some() {
        return Vec::new();
    }
    vec![format!(
        "spec.{TOKENS_IN_SECRETS} is unset; if supported by this CSI driver, set to true to prevent possible logging of tokens in volume \
         attributes"
    )]
}
