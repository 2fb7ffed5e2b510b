//! Nothing is made in a namespace that is missing or going, and the system's namespaces stay.

use object::{Cause, Key, Snapshot, Status};
use serde_json::Value;

use crate::{Operation, Plugin, Request, Verdict};

pub const PLUGIN: Plugin =
    Plugin { name: "NamespaceLifecycle", mutate: Some(mutate), validate: Some(validate) };

const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

/// Early, so that no other plugin answers first about a namespace that is not there.
fn mutate(
    snapshot: &Snapshot,
    request: &Request,
    object: &mut Value,
    _: &mut Vec<String>,
) -> Result<(), Status> {
    check(snapshot, request, Some(object))
}

fn validate(
    snapshot: &Snapshot,
    request: &Request,
    object: Option<&Value>,
    _: &mut Verdict,
) -> Result<(), Status> {
    check(snapshot, request, object)
}

fn check(snapshot: &Snapshot, request: &Request, object: Option<&Value>) -> Result<(), Status> {
    if request.is(kinds::NAMESPACES, &[Operation::Delete]) && IMMORTAL.contains(&&*request.key.name) {
        return Err(request.forbidden(object, "this namespace may not be deleted"));
    }
    let asks = matches!(request.operation, Operation::Create | Operation::Update);
    if !request.namespaced || !asks || request.kind == "LocalSubjectAccessReview" {
        return Ok(());
    }
    let namespace = &request.key.namespace;
    let key = Key::cluster(kinds::NAMESPACES, namespace.clone());
    let Some(held) = snapshot.get(&key) else { return Err(Status::not_found(&key)) };
    if request.operation != Operation::Create || !held.meta.is_deleting() {
        return Ok(());
    }
    let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
    let mut status = request.forbidden(object, why);
    status.causes.push(Cause {
        reason: "NamespaceTerminating",
        message: format!("namespace {namespace} is being terminated"),
        field: "metadata.namespace".to_owned(),
    });
    Err(status)
}
