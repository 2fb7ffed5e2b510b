//! Insights: what would stand in the way of an upgrade.

use serde_json::{Value, json};

use super::cluster::{self, ClusterRecord};
use super::node_group::NodeGroupRecord;
use super::update::text;
use super::version::Version;
use super::{Addon, addon_catalog, fault, version};
use crate::state::{self, Kept};
use crate::{Answer, Context, Fault};

/// The checks, in the order of their names: id, name, what it looks at, what to do.
struct Check {
    id: &'static str,
    name: &'static str,
    description: &'static str,
    recommendation: &'static str,
    /// What is wrong, each with the ARN of what it is wrong with.
    find: fn(&Context, &Kept<ClusterRecord>, &Version) -> Vec<Finding>,
    passing: &'static str,
    failing: &'static str,
}

struct Finding {
    arn: String,
    /// `WARNING`, `ERROR`
    status: &'static str,
    reason: String,
    /// Members of `categorySpecificSummary.addonCompatibilityDetails`.
    addon: Option<Value>,
}

const CHECKS: &[Check] = &[
    Check {
        id: "5e2f0c7a-0b1d-4a36-9d5e-2f6f3c1b8a41",
        name: "Cluster health issues",
        description: "Checks for any cluster health issues that prevent successful upgrade to the next Kubernetes version.",
        recommendation: "Resolve the issues that DescribeCluster shows in the cluster's health.",
        find: health,
        passing: "No cluster health issues detected.",
        failing: "Cluster health issues detected.",
    },
    Check {
        id: "9a3d4be1-7f52-4a0c-8c1e-6b0d2f9e7c52",
        name: "EKS add-on version compatibility",
        description: "Checks version of installed EKS add-ons to ensure they are compatible with the next version of Kubernetes.",
        recommendation: "Upgrade EKS add-ons to a compatible version with UpdateAddon once the cluster has the next version.",
        find: addons,
        passing: "All installed EKS add-on versions are compatible with the next Kubernetes version.",
        failing: "Installed EKS add-on versions are not compatible with the next Kubernetes version.",
    },
    Check {
        id: "1c1b2f3e-6a51-4f0e-9a64-0b5f9f5a7d10",
        name: "Kubelet version skew",
        description: "Checks that no node group is so far behind the control plane that the next version of it would no longer work with its nodes.",
        recommendation: "Update the node groups with UpdateNodegroupVersion first.",
        find: kubelets,
        passing: "Node versions match the control plane's.",
        failing: "Node groups are behind the control plane.",
    },
];

fn health(_: &Context, cluster: &Kept<ClusterRecord>, _: &Version) -> Vec<Finding> {
    let shown = &cluster.record.shown;
    let of = |issue: &super::Issue| Finding {
        arn: shown.arn.clone(),
        status: "ERROR",
        reason: format!("{}: {}", issue.code, issue.message),
        addon: None,
    };
    shown.health.issues.iter().map(of).collect()
}

fn addons(context: &Context, cluster: &Kept<ClusterRecord>, next: &Version) -> Vec<Finding> {
    let installed = state::list::<Addon>(context.state, cluster.name()).into_iter().map(|kept| kept.record);
    let of = |addon: Addon| {
        let wanted = addon_catalog::find(&addon.addon_name)?.version_for(next.name)?;
        (wanted != addon.addon_version).then(|| Finding {
            arn: addon.addon_arn,
            status: "WARNING",
            reason: format!(
                "{} {} is not compatible with {}: {wanted} is",
                addon.addon_name, addon.addon_version, next.name
            ),
            addon: Some(json!({"name": addon.addon_name, "compatibleVersions": [wanted]})),
        })
    };
    installed.filter_map(of).collect()
}

fn kubelets(context: &Context, cluster: &Kept<ClusterRecord>, _: &Version) -> Vec<Finding> {
    let groups = state::list::<NodeGroupRecord>(context.state, cluster.name()).into_iter();
    let behind =
        groups.map(|kept| kept.record.shown).filter(|group| group.version != cluster.record.shown.version);
    behind
        .map(|group| Finding {
            reason: format!("The node group has version {}", group.version),
            arn: group.nodegroup_arn,
            status: "ERROR",
            addon: None,
        })
        .collect()
}

/// The insights of a cluster, for the next version, if there is one.
fn all(context: &Context, cluster: &Kept<ClusterRecord>) -> Vec<Value> {
    let shown = &cluster.record.shown;
    let Some(current) = version::find(&shown.version) else { return Vec::new() };
    let Some(next) = version::VERSIONS.iter().find(|one| one.minor == current.minor + 1) else {
        return Vec::new();
    };
    CHECKS.iter().map(|check| insight(context, cluster, next, check)).collect()
}

fn insight(context: &Context, cluster: &Kept<ClusterRecord>, next: &Version, check: &Check) -> Value {
    let findings = (check.find)(context, cluster, next);
    let worst = if findings.iter().any(|one| one.status == "ERROR") { "ERROR" } else { "WARNING" };
    let (status, reason) =
        if findings.is_empty() { ("PASSING", check.passing) } else { (worst, check.failing) };
    let details: Vec<&Value> = findings.iter().filter_map(|one| one.addon.as_ref()).collect();
    let summary = if details.is_empty() { json!({}) } else { json!({"addonCompatibilityDetails": details}) };
    let of = |one: &Finding| json!({"arn": one.arn, "insightStatus": {"status": one.status, "reason": one.reason}});
    json!({
        "id": check.id, "name": check.name, "category": "UPGRADE_READINESS", "kubernetesVersion": next.name,
        "lastRefreshTime": context.now, "lastTransitionTime": cluster.record.shown.created_at,
        "description": check.description,
        "insightStatus": {"status": status, "reason": reason},
        "recommendation": check.recommendation,
        "additionalInfo": {}, "resources": findings.iter().map(of).collect::<Vec<_>>(),
        "categorySpecificSummary": summary,
    })
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
