//! Insights: what would stand in the way of an upgrade.

use serde_json::{Value, json};

use super::cluster::{self, ClusterRecord};
use super::node_group::NodeGroupRecord;
use super::update::text;
use super::{fault, version};
use crate::state::{self, Kept};
use crate::{Answer, Context, Fault};

/// The one check that has something to look at here: nodes that are behind. Its id is that of its name.
const NODE_VERSIONS: &str = "1c1b2f3e-6a51-4f0e-9a64-0b5f9f5a7d10";
const DESCRIPTION: &str = "Checks that no node group is so far behind the control plane that the next version of it would no longer work with its nodes.";

/// The insights of a cluster: one for the next version, if there is one.
fn all(context: &Context, cluster: &Kept<ClusterRecord>) -> Vec<Value> {
    let shown = &cluster.record.shown;
    let Some(current) = version::find(&shown.version) else { return Vec::new() };
    let Some(next) = version::VERSIONS.iter().find(|one| one.minor == current.minor + 1) else {
        return Vec::new();
    };
    let groups = state::list::<NodeGroupRecord>(context.state, cluster.name());
    let behind: Vec<Value> = groups
        .iter()
        .map(|kept| &kept.record.shown)
        .filter(|group| group.version != shown.version)
        .map(|group| {
            let status =
                json!({"status": "ERROR", "reason": format!("The node group has version {}", group.version)});
            json!({"arn": group.nodegroup_arn, "insightStatus": status})
        })
        .collect();
    let (status, reason) = if behind.is_empty() {
        ("PASSING", "Node versions match the control plane's.")
    } else {
        ("ERROR", "Node groups are behind the control plane.")
    };
    vec![json!({
        "id": NODE_VERSIONS, "name": "Kubelet version skew", "category": "UPGRADE_READINESS",
        "kubernetesVersion": next.name,
        "lastRefreshTime": context.now, "lastTransitionTime": shown.created_at,
        "description": DESCRIPTION,
        "insightStatus": {"status": status, "reason": reason},
        "recommendation": "Update the node groups with UpdateNodegroupVersion first.",
        "additionalInfo": {}, "resources": behind, "categorySpecificSummary": {},
    })]
}

pub fn list(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let cluster = cluster::find(context, text(input, "clusterName"))?;
    let filter = &input["filter"];
    let wants = |member: &str, value: &Value| {
        filter[member].as_array().is_none_or(|wanted| wanted.is_empty() || wanted.contains(value))
    };
    let all = all(context, &cluster).into_iter().filter(|one| {
        wants("categories", &one["category"])
            && wants("kubernetesVersions", &one["kubernetesVersion"])
            && wants("statuses", &one["insightStatus"]["status"])
    });
    let summaries: Vec<Value> = all.map(summary).collect();
    Ok(Answer::read(json!({"insights": summaries})))
}

fn summary(mut insight: Value) -> Value {
    if let Some(members) = insight.as_object_mut() {
        for member in ["recommendation", "additionalInfo", "resources", "categorySpecificSummary"] {
            members.remove(member);
        }
    }
    insight
}

pub fn describe(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let name = text(input, "clusterName");
    let cluster = cluster::find(context, name)?;
    let id = text(input, "id");
    let found = all(context, &cluster).into_iter().find(|one| one["id"] == id);
    let none = || fault::not_found(format!("No insight found for ID: {id}")).with("clusterName", name);
    Ok(Answer::read(json!({"insight": found.ok_or_else(none)?})))
}

/// Insights are made when they are asked for, so that a refresh is complete as soon as it is begun.
pub fn start_refresh(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    cluster::find(context, text(input, "clusterName"))?;
    Ok(Answer::read(json!({"message": "The insights are up to date", "status": "COMPLETED"})))
}

pub fn describe_refresh(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    cluster::find(context, text(input, "clusterName"))?;
    Ok(Answer::read(json!({
        "message": "The insights are up to date", "status": "COMPLETED",
        "startedAt": context.now, "endedAt": context.now,
    })))
}
