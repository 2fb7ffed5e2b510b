//! Marks the pods of a cluster of EKS that run on Fargate: those that a profile matches when they are created. Whether Fargate can run
//! such a pod is its scheduler's to say; a container that joins it later nobody schedules, and it is refused here.
//! <https://docs.aws.amazon.com/eks/latest/userguide/fargate-profile.html>

use object::{Snapshot, Status};
use schema::path;
use serde_json::{Value, json};

use crate::{Operation, Plugin, Request, Verdict, pod};

pub const PLUGIN: Plugin = Plugin { name: "Fargate", mutate: Some(mutate), validate: Some(validate) };

/// What the account of a cluster of EKS says of Fargate.
pub trait Fargate: Send + Sync {
    /// The name of the profile that a new pod of a namespace runs under: one that holds, and matches its labels (an object, or null).
    fn profile_of(&self, namespace: &str, labels: &Value) -> Option<String>;

    /// What Fargate lacks for a container, in its scheduler's words: `invalid SecurityContext fields: Privileged`.
    fn lacking(&self, container: &Value) -> Option<String>;
}

const SCHEDULER: &str = "fargate-scheduler";
/// On a pod: which of several profiles is meant.
const PROFILE: &str = "eks.amazonaws.com/fargate-profile";
/// `ec2` keeps a pod from Fargate, as with the CoreDNS that EKS itself brings.
const COMPUTE_TYPE: &str = "eks.amazonaws.com/compute-type";

fn mutate(_: &Snapshot, request: &Request, object: &mut Value, _: &mut Vec<String>) -> Result<(), Status> {
    let Some(fargate) = request.fargate else { return Ok(()) };
    if !request.is(kinds::PODS, &[Operation::Create]) || pod::is_mirror(object) {
        return Ok(());
    }
    // A pod of a DaemonSet is meant for a node that is there.
    let owners = path::list(object, "metadata.ownerReferences");
    let is_of_daemon_set = owners.iter().any(|owner| owner["kind"] == "DaemonSet");
    let is_placed = object["spec"]["nodeName"].as_str().is_some_and(|node| !node.is_empty());
    if is_of_daemon_set || is_placed || object["metadata"]["annotations"][COMPUTE_TYPE] == "ec2" {
        return Ok(());
    }
    let found = fargate.profile_of(&request.key.namespace, &object["metadata"]["labels"]);
    let Some(profile) = found else { return Ok(()) };
    if !object["metadata"]["labels"].is_object() {
        object["metadata"]["labels"] = json!({});
    }
    object["metadata"]["labels"][PROFILE] = profile.into();
    object["spec"]["schedulerName"] = SCHEDULER.into();
    Ok(())
}

fn validate(_: &Snapshot, request: &Request, object: Option<&Value>, _: &mut Verdict) -> Result<(), Status> {
    let (Some(fargate), Some(pod)) = (request.fargate, object) else { return Ok(()) };
    let joins = request.key.resource == kinds::PODS && request.subresource == "ephemeralcontainers";
    if !joins || pod["spec"]["schedulerName"] != SCHEDULER {
        return Ok(());
    }
    let lacking = path::list(pod, "spec.ephemeralContainers").iter().find_map(|one| fargate.lacking(one));
    match lacking {
        Some(lacking) => {
            Err(request.forbidden(object, format_args!("Pod not supported on Fargate: {lacking}")))
        }
        None => Ok(()),
    }
}
