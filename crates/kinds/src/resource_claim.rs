use object::Resource;
use schema::{At, Kind, Strategy, Violation, names, path};
use serde_json::Value;

use crate::column::{AGE, NAME, column};
use crate::spec::check::{self, Found, Seen};
use crate::spec::{affinity, devices};
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
    let Some(old) = old else {
        devices::validate(&claim["spec"]["devices"], At::root("spec.devices"), &mut found);
        return found;
    };
    // What may not change is not looked at again.
    check::immutable(claim, old, "spec", At::root(""), &mut found);
    if claim["status"] != old["status"] {
        status(claim, old, At::root("status"), &mut found);
    }
    found
}

fn status(claim: &Value, old: &Value, at: At<'_>, found: &mut Found) {
    const CONSUMERS_MAX: usize = 256;
    let (status, before) = (&claim["status"], &old["status"]);
    let consumers = path::list(status, "reservedFor");
    let list = at.field("reservedFor");
    devices::set(consumers, CONSUMERS_MAX, "uid", list, found, |one, at, found| {
        for field in ["resource", "name", "uid"] {
            check::required(one, field, at, found);
        }
    });
    let allocation = status.get("allocation");
    let results = allocation.map(|one| path::list(one, "devices.results")).unwrap_or_default();
    told(path::list(status, "devices"), results, at.field("devices"), found);
    if !consumers.is_empty() {
        let is_deleting = path::get(claim, "metadata.deletionTimestamp").is_some();
        let known = path::list(before, "reservedFor");
        if allocation.is_none() {
            let detail = "may not be specified when `allocated` is not set";
            found.push(Violation::forbidden(list, detail));
        } else if is_deleting && consumers.iter().any(|one| !known.contains(one)) {
            let detail =
                "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set";
            found.push(Violation::forbidden(list, detail));
        }
    }
    match (allocation, before.get("allocation")) {
        (Some(new), Some(old)) if new != old => {
            found.push(Violation::immutable(at.field("allocation"), new));
        }
        (Some(new), None) => allocated(new, claim, at.field("allocation"), found),
        _ => {}
    }
}

/// What drivers tell of the devices that the claim has.
fn told(devices_told: &[Value], results: &[Value], list: At<'_>, found: &mut Found) {
    const CONDITIONS_MAX: usize = 8;
    const DATA_MAX_BYTES: usize = 10 * 1024;
    let id =
        |one: &Value| ["driver", "pool", "device", "shareID"].map(|field| path::text(one, field)).join("/");
    let mut seen = Seen::default();
    for (index, one) in devices_told.iter().enumerate() {
        let at = list.index(index);
        devices::driver(path::text(one, "driver"), at.field("driver"), found);
        devices::pool(path::text(one, "pool"), at.field("pool"), found);
        let device = path::text(one, "device");
        found.extend(Violation::all_invalid(at.field("device"), device, names::dns_label(device)));
        let own = id(one);
        if !results.iter().any(|result| id(result) == own) {
            let detail = "must be an allocated device in the claim";
            found.push(Violation::invalid(at, own.trim_end_matches('/'), detail));
        }
        let conditions = path::list(one, "conditions").len();
        if conditions > CONDITIONS_MAX {
            found.push(Violation::too_many(at.field("conditions"), conditions, CONDITIONS_MAX));
        }
        match one.get("data") {
            Some(data) if data.to_string().len() > DATA_MAX_BYTES => {
                found.push(Violation::too_long(at.field("data"), DATA_MAX_BYTES));
            }
            Some(Value::Object(_) | Value::Null) | None => {}
            Some(_) => {
                let detail = "must be a valid JSON object";
                found.push(Violation::invalid(at.field("data"), "<value omitted>", detail));
            }
        }
        if seen.repeats(own.clone()) {
            found.push(Violation::duplicate(at, own.trim_end_matches('/')));
        }
    }
}

fn allocated(allocation: &Value, claim: &Value, at: At<'_>, found: &mut Found) {
    const RESULTS_MAX: usize = 32;
    const CONFIGS_MAX: usize = 64;
    let known = devices::Requests::of(path::list(claim, "spec.devices.requests"));
    let list = at.field("devices.results");
    devices::slice(path::list(allocation, "devices.results"), RESULTS_MAX, list, found, |one, at, found| {
        devices::reference(path::text(one, "request"), &known, at.field("request"), found);
        devices::driver(path::text(one, "driver"), at.field("driver"), found);
        devices::pool(path::text(one, "pool"), at.field("pool"), found);
        let device = path::text(one, "device");
        found.extend(Violation::all_invalid(at.field("device"), device, names::dns_label(device)));
        devices::binding(one, at, found);
    });
    let list = at.field("devices.config");
    devices::slice(path::list(allocation, "devices.config"), CONFIGS_MAX, list, found, |one, at, found| {
        check::required_one_of(one, "source", &["FromClaim", "FromClass"], at, found);
        devices::references(one, &known, at.field("requests"), found);
        devices::configuration(one, at, found);
    });
    if let Some(selector) = allocation.get("nodeSelector") {
        affinity::node_selector(selector, at.field("nodeSelector"), found);
    }
}

/// The label, `true`, of a namespace whose claims may have devices that others have too.
pub const ADMIN_NAMESPACE: &str = "resource.kubernetes.io/admin-access";

/// The request of a claim's spec that only such a namespace may have.
pub fn admin_access(spec: &Value) -> Option<Violation> {
    let is_asked = |request: &Value| path::bool(request, "exactly.adminAccess");
    let index = path::list(spec, "devices.requests").iter().position(is_asked)?;
    // Of templates too, as upstream has it.
    let list = At::root("spec.devices.requests");
    let at = list.index(index);
    let detail = format!(
        "admin access to devices requires the `{ADMIN_NAMESPACE}: true` label on the containing namespace"
    );
    Some(Violation::forbidden(at.field("adminAccess"), detail))
}
