//! What must hold after every step, and at the end.

use std::collections::BTreeMap;
use std::sync::Arc;

use kinds::{DEPLOYMENTS, NODES, PODS, REPLICA_SETS};
use object::{Object, Snapshot};
use serde::Deserialize;

/// What a scenario promises of its Deployment `default/web`, while it is rolled out.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Its ReplicaSets never ask for more pods than this together: replicas + maxSurge. (Pods may outlive a smaller size by the moment
    /// that their deletion takes; upstream promises no more.)
    pub most: usize,
    /// Once so many pods are ready, never fewer than `least`: replicas - maxUnavailable.
    pub reached: usize,
    pub least: usize,
}

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation(pub String);

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct View {
    spec: Spec,
    status: Status,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    replicas: usize,
    node_name: String,
    #[serde(rename = "podCIDR")]
    pod_cidr: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    phase: String,
    conditions: Vec<Condition>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

fn sets_of_deployment(snapshot: &Snapshot) -> Vec<&Arc<Object>> {
    let deployment = snapshot.find(DEPLOYMENTS, "default", "web");
    let owned = deployment.into_iter().flat_map(|deployment| snapshot.owned_by(&deployment.meta.uid));
    owned.filter(|owned| owned.key.resource == REPLICA_SETS).collect()
}

/// How many pods the ReplicaSets of the Deployment `default/web` ask for.
fn asked_for(snapshot: &Snapshot) -> usize {
    let sets = sets_of_deployment(snapshot);
    sets.iter().map(|set| set.decode::<View>().unwrap_or_default().spec.replicas).sum()
}

/// The ready pods of the Deployment `default/web`.
pub fn ready_pods(snapshot: &Snapshot) -> usize {
    let sets = sets_of_deployment(snapshot);
    let owned = sets.iter().flat_map(|set| snapshot.owned_by(&set.meta.uid));
    let is_ready = |pod: &&Arc<Object>| {
        let conditions = pod.decode::<View>().unwrap_or_default().status.conditions;
        !pod.meta.is_deleting() && conditions.iter().any(|one| one.kind == "Ready" && one.status == "True")
    };
    owned.filter(|owned| owned.key.resource == PODS).filter(is_ready).count()
}

/// After every step.
pub fn check_step(
    snapshot: &Snapshot,
    bounds: Option<Bounds>,
    was_reached: &mut bool,
) -> Result<(), Violation> {
    check_blocks(snapshot)?;
    let Some(bounds) = bounds else { return Ok(()) };
    let (asked, ready) = (asked_for(snapshot), ready_pods(snapshot));
    *was_reached |= ready >= bounds.reached;
    if asked > bounds.most {
        return Err(Violation(format!("{asked} pods are asked for, at most {} may be", bounds.most)));
    }
    if *was_reached && ready < bounds.least {
        return Err(Violation(format!("{ready} pods are ready, at least {} must be", bounds.least)));
    }
    Ok(())
}

/// No two nodes have the same block of pod addresses.
fn check_blocks(snapshot: &Snapshot) -> Result<(), Violation> {
    let mut blocks: BTreeMap<String, &Arc<Object>> = BTreeMap::new();
    for node in snapshot.list(NODES, "") {
        let block = node.decode::<View>().unwrap_or_default().spec.pod_cidr;
        if block.is_empty() {
            continue;
        }
        if let Some(other) = blocks.insert(block.clone(), node) {
            return Err(Violation(format!("{} and {} both have {block}", other.key.name, node.key.name)));
        }
    }
    Ok(())
}

/// When everything has come to rest: nobody is owned by somebody who is not there, nothing waits to be deleted, and every pod that
/// should run does.
pub fn check_end(snapshot: &Snapshot) -> Result<(), Violation> {
    let uids: std::collections::BTreeSet<&str> =
        snapshot.tables().flat_map(|(_, table)| table.iter()).map(|object| &*object.meta.uid).collect();
    for (_, table) in snapshot.tables() {
        for object in table.iter() {
            if let Some(owner) = object.meta.owner_references.iter().find(|owner| !uids.contains(&*owner.uid))
            {
                return Err(Violation(format!(
                    "{} outlived its owner {} {}",
                    object.key, owner.kind, owner.name
                )));
            }
            if object.meta.is_deleting() {
                return Err(Violation(format!("{} is still being deleted", object.key)));
            }
        }
    }
    for pod in snapshot.list(PODS, "") {
        let view: View = pod.decode().unwrap_or_default();
        if view.spec.node_name.is_empty() || matches!(view.status.phase.as_str(), "" | "Pending") {
            return Err(Violation(format!("{} does not run: phase {:?}", pod.key, view.status.phase)));
        }
    }
    Ok(())
}
