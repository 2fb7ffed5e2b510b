//! The parts of objects that are written on their own: one row each.

use object::{Reason, Status, Time};
use schema::{At, Kind, Violation, path};
use serde_json::Value;

use crate::request::{Outcome, Request};
use crate::{Gate, decode, eviction, pod, scale};

/// A part that PUT and PATCH write.
pub(crate) struct Row {
    /// Empty: every kind that lists the subresource.
    pub(crate) resource: &'static str,
    /// Empty: the object itself.
    pub(crate) name: &'static str,
    /// Checks a body and makes it complete; returns warnings.
    pub(crate) decode: fn(&Request<'_>, &mut Value) -> Result<Vec<String>, Status>,
    /// The body's type, for patches.
    pub(crate) type_name: Option<&'static str>,
    /// (kind, what was given, what is stored, now) → the object to store.
    pub(crate) blend: fn(&Kind, Value, &Value, Time) -> Result<Value, Status>,
    /// What clients read and patch instead of the object.
    pub(crate) view: Option<fn(&Kind, &Value) -> Value>,
    /// Whether a change through it raises the generation.
    pub(crate) counts: bool,
    /// Whether the kind's rules of what may not change hold.
    pub(crate) compares: bool,
}

impl Row {
    pub(crate) fn is_main(&self) -> bool {
        self.name.is_empty()
    }
}

const ROW: Row = Row {
    resource: "",
    name: "",
    decode: decode::object,
    type_name: None,
    blend: main,
    view: None,
    counts: true,
    compares: true,
};

/// The first that fits counts.
const ROWS: &[Row] = &[
    ROW,
    Row {
        resource: "certificatesigningrequests.certificates.k8s.io",
        name: "approval",
        blend: approval,
        counts: false,
        ..ROW
    },
    Row {
        resource: "certificatesigningrequests.certificates.k8s.io",
        name: "status",
        blend: csr_status,
        counts: false,
        ..ROW
    },
    Row { resource: "namespaces", name: "finalize", blend: finalize, counts: false, ..ROW },
    Row {
        resource: "pods",
        name: "ephemeralcontainers",
        blend: pod::ephemeral_containers,
        compares: false,
        ..ROW
    },
    Row { resource: "pods", name: "resize", blend: pod::resize, compares: false, ..ROW },
    Row { resource: "persistentvolumes", name: "status", blend: volume_status, counts: false, ..ROW },
    Row { resource: "pods", name: "status", blend: pod::status, counts: false, ..ROW },
    Row {
        name: "scale",
        decode: scale::decode,
        type_name: Some(scale::TYPE),
        blend: scale::blend,
        view: Some(scale::scale_of),
        ..ROW
    },
    Row { name: "status", blend: status, counts: false, ..ROW },
];

/// The row of a request that changes something that is there.
pub(crate) fn row(request: &Request<'_>) -> Result<&'static Row, Status> {
    let resource = request.kind.resource.as_str();
    let listed = request.subresource.is_empty()
        || request.kind.subresources.iter().any(|one| one.name == request.subresource);
    let fits =
        |row: &&Row| row.name == request.subresource && (row.resource.is_empty() || row.resource == resource);
    ROWS.iter().find(fits).filter(|_| listed).ok_or_else(not_served)
}

/// What is said of a path that names nothing.
pub(crate) fn not_served() -> Status {
    Status::new(Reason::NotFound, "the server could not find the requested resource")
}

impl Gate {
    /// POST to a subresource.
    pub(crate) async fn create_subresource(
        &self,
        request: &Request<'_>,
        body: Value,
    ) -> Result<Outcome, Status> {
        match (request.kind.resource.as_str(), request.subresource) {
            ("pods", "binding") => self.bind(request, body).await,
            ("pods", "eviction") => eviction::evict(self, request, body).await,
            _ => Err(not_served()),
        }
    }
}

fn main(kind: &Kind, mut new: Value, old: &Value, _now: Time) -> Result<Value, Status> {
    for field in kind.strategy.main_keeps {
        copy(&mut new, old, field);
    }
    Ok(new)
}

/// Everything but the status (and, for most kinds, the metadata) stays as it is.
pub(crate) fn status(kind: &Kind, given: Value, old: &Value, _now: Time) -> Result<Value, Status> {
    let mut new = old.clone();
    copy(&mut new, &given, "status");
    if kind.strategy.status_keeps_metadata {
        copy_at(&mut new, &given, "metadata.managedFields");
    } else {
        copy(&mut new, &given, "metadata");
    }
    for (_, at) in KEPT_BY_STATUS.iter().filter(|(resource, _)| *resource == kind.resource.as_str()) {
        copy_at(&mut new, old, at);
    }
    Ok(new)
}

/// What of the metadata a write of the status leaves as it is, and whoever makes it does not own.
pub(crate) const KEPT_BY_STATUS: &[(&str, &str)] = &[("deployments.apps", "metadata.labels")];

/// Since when the phase is what it is, is told where its writer does not tell.
fn volume_status(kind: &Kind, given: Value, old: &Value, now: Time) -> Result<Value, Status> {
    const SINCE: &str = "status.lastPhaseTransitionTime";
    let mut new = status(kind, given, old, now)?;
    let told = path::get(&new, SINCE).filter(|since| !since.is_null());
    if path::text(&new, "status.phase") == path::text(old, "status.phase") {
        if told.is_none() {
            copy_at(&mut new, old, SINCE);
        }
    } else if told.is_none() || told == path::get(old, SINCE) {
        path::set(&mut new, SINCE, now.to_string().into());
    }
    Ok(new)
}

/// Approved and Denied are the approval's: whoever writes the status hands them on, and what they say stays.
fn csr_status(kind: &Kind, given: Value, old: &Value, now: Time) -> Result<Value, Status> {
    let mut new = status(kind, given, old, now)?;
    let of = |object: &Value, wanted: &str| -> Vec<Value> {
        let all = path::list(object, "status.conditions").iter();
        all.filter(|one| path::text(one, "type") == wanted).cloned().collect()
    };
    let mut conditions = path::list(&new, "status.conditions").to_vec();
    let mut wrong = Vec::new();
    for decisive in ["Approved", "Denied"] {
        let (before, after) = (of(old, decisive), of(&new, decisive).len());
        if after != before.len() {
            let done = if after < before.len() { "remove" } else { "add" };
            let detail = format!("updates may not {done} a condition of type {decisive:?}");
            wrong.push(Violation::forbidden(At::root("status.conditions"), detail));
        }
        let mut before = before.into_iter();
        for condition in conditions.iter_mut().filter(|one| path::text(one, "type") == decisive) {
            *condition = before.next().unwrap_or_else(|| condition.clone());
        }
    }
    if !wrong.is_empty() {
        let name = path::text(old, "metadata.name");
        return Err(Violation::to_status(&wrong, kind.group, kind.kind, name));
    }
    stamp(&mut conditions, old, now);
    if conditions.is_empty() {
        path::remove(&mut new, "status.conditions");
    } else {
        path::set(&mut new, "status.conditions", conditions.into());
    }
    Ok(new)
}

/// Conditions are the approval's, and metadata is anybody's.
fn approval(_kind: &Kind, mut given: Value, old: &Value, now: Time) -> Result<Value, Status> {
    let mut conditions = path::list(&given, "status.conditions").to_vec();
    stamp(&mut conditions, old, now);
    for field in ["spec", "status"] {
        copy(&mut given, old, field);
    }
    if conditions.is_empty() {
        path::remove(&mut given, "status.conditions");
    } else {
        path::set(&mut given, "status.conditions", conditions.into());
    }
    Ok(given)
}

/// Conditions that say no times get them: now, and since when the condition has been as it is.
fn stamp(conditions: &mut [Value], old: &Value, now: Time) {
    let old = path::list(old, "status.conditions");
    for condition in conditions {
        let same = |one: &&Value| one["type"] == condition["type"] && one["status"] == condition["status"];
        let since = old.iter().find(same).map(|one| path::text(one, "lastTransitionTime").to_owned());
        let since = since.filter(|since| !since.is_empty()).unwrap_or_else(|| now.to_string());
        path::set_default(condition, "lastUpdateTime", now.to_string());
        path::set_default(condition, "lastTransitionTime", since);
    }
}

fn finalize(_kind: &Kind, given: Value, old: &Value, _now: Time) -> Result<Value, Status> {
    let mut new = given;
    let finalizers = path::get(&new, "spec.finalizers").cloned();
    for field in ["spec", "status"] {
        copy(&mut new, old, field);
    }
    match finalizers {
        Some(finalizers) => path::set(&mut new, "spec.finalizers", finalizers),
        None => drop(path::remove(&mut new, "spec.finalizers")),
    }
    Ok(new)
}

/// Makes a top-level field of `to` what it is in `from`, or absent.
pub(crate) fn copy(to: &mut Value, from: &Value, field: &str) {
    let Some(members) = to.as_object_mut() else { return };
    match from.get(field) {
        Some(value) => members.insert(field.to_owned(), value.clone()),
        None => members.remove(field),
    };
}

/// As [`copy`], for a path.
pub(crate) fn copy_at(to: &mut Value, from: &Value, at: &str) {
    match path::get(from, at) {
        Some(value) => path::set(to, at, value.clone()),
        None => drop(path::remove(to, at)),
    }
}
