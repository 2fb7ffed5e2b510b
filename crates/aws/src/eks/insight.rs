//! Insights: what would stand in the way of an upgrade.

use serde_json::{Map, Value, json};

use super::cluster::{self, ClusterRecord};
use super::observed::{self, DeprecatedUse, Observed, Seen};
use super::update::text;
use super::version::Version;
use super::{Addon, addon_catalog, fault, version};
use crate::state::{self, Kept};
use crate::{Answer, Context, Fault};

/// A check of what stands in the way of the next version.
struct Check {
    id: &'static str,
    /// In this text and the next two `NEXT` stands for the version.
    name: &'static str,
    description: &'static str,
    recommendation: &'static str,
    /// What more there is to read: a title and where.
    info: &'static [(&'static str, &'static str)],
    /// What is wrong, each with what it is wrong with. None: the cluster was not looked at.
    find: fn(&Look) -> Option<Vec<Finding>>,
    passing: &'static str,
    failing: &'static str,
}

/// What is looked at.
struct Look<'a> {
    context: &'a Context<'a>,
    cluster: &'a Kept<ClusterRecord>,
    next: &'a Version,
    seen: Option<&'a Seen>,
}

struct Finding {
    /// An ARN, or the path of something in the cluster.
    resource: String,
    /// `WARNING`, `ERROR`
    status: &'static str,
    reason: String,
    /// A member of `categorySpecificSummary`, and what it has of this one.
    detail: Option<(&'static str, Value)>,
}

const UPDATING: (&str, &str) = (
    "EKS update cluster documentation",
    "https://docs.aws.amazon.com/eks/latest/userguide/update-cluster.html",
);

/// In the order of their names.
const CHECKS: &[Check] = &[
    Check {
        id: "5e2f0c7a-0b1d-4a36-9d5e-2f6f3c1b8a41",
        name: "Cluster health issues",
        description: "Checks for any cluster health issues that prevent successful upgrade to the next Kubernetes version on EKS.",
        recommendation: "Resolve the issues that DescribeCluster shows in the cluster's health.",
        info: &[UPDATING],
        find: health,
        passing: "No cluster health issues detected.",
        failing: "Cluster health issues detected.",
    },
    Check {
        id: "d7c6a1f4-3e0b-4f5f-8b6a-7a1c9e2d5b63",
        name: "Deprecated APIs removed in Kubernetes vNEXT",
        description: "Checks for usage of deprecated APIs that are scheduled for removal in Kubernetes vNEXT. Upgrading your cluster before migrating to the updated APIs supported by vNEXT could cause application impact.",
        recommendation: "Update manifests and API clients to use newer Kubernetes APIs if applicable before upgrading to Kubernetes vNEXT.",
        info: &[
            UPDATING,
            (
                "Kubernetes deprecation guide",
                "https://kubernetes.io/docs/reference/using-api/deprecation-guide/",
            ),
        ],
        find: deprecated,
        passing: "No deprecated API usage detected within the last 30 days.",
        failing: "Deprecated API usage detected within last 30 days.",
    },
    Check {
        id: "9a3d4be1-7f52-4a0c-8c1e-6b0d2f9e7c52",
        name: "EKS add-on version compatibility",
        description: "Checks version of installed EKS add-ons to ensure they are compatible with the next version of Kubernetes.",
        recommendation: "Upgrade EKS add-ons to a compatible version with UpdateAddon once the cluster has the next version.",
        info: &[UPDATING],
        find: addons,
        passing: "All installed EKS add-on versions are compatible with next Kubernetes version.",
        failing: "Installed EKS add-on versions are not compatible with next Kubernetes version.",
    },
    Check {
        id: "1c1b2f3e-6a51-4f0e-9a64-0b5f9f5a7d10",
        name: "Kubelet version skew",
        description: "Checks kubelet versions of worker nodes in the cluster to see if upgrade would cause noncompliance with supported Kubernetes kubelet version skew policy.",
        recommendation: "Upgrade your worker nodes first: node groups with UpdateNodegroupVersion.",
        info: &[
            UPDATING,
            ("Kubernetes version skew policy", "https://kubernetes.io/releases/version-skew-policy/"),
        ],
        find: kubelets,
        passing: "Node kubelet versions match the cluster control plane version.",
        failing: "Node kubelet versions are too old for the next control plane version.",
    },
];

/// How many minor versions a kubelet may be behind its API server.
const SKEW: u8 = 3;
const COUNTED_SECS: i64 = 30 * 24 * 60 * 60;

fn health(look: &Look) -> Option<Vec<Finding>> {
    let shown = &look.cluster.record.shown;
    let of = |issue: &super::Issue| Finding {
        resource: shown.arn.clone(),
        status: "ERROR",
        reason: format!("{}: {}", issue.code, issue.message),
        detail: None,
    };
    Some(shown.health.issues.iter().map(of).collect())
}

fn addons(look: &Look) -> Option<Vec<Finding>> {
    let (cluster, next) = (look.cluster.name(), look.next.name);
    let installed = state::list::<Addon>(look.context.state, cluster).into_iter().map(|kept| kept.record);
    let of = |addon: Addon| {
        let wanted = addon_catalog::find(&addon.addon_name)?.version_for(next)?;
        (wanted != addon.addon_version).then(|| Finding {
            resource: addon.addon_arn,
            status: "WARNING",
            reason: format!(
                "{} {} is not compatible with {next}: {wanted} is",
                addon.addon_name, addon.addon_version
            ),
            detail: Some((
                "addonCompatibilityDetails",
                json!({"name": addon.addon_name, "compatibleVersions": [wanted]}),
            )),
        })
    };
    Some(installed.filter_map(of).collect())
}

/// Of the nodes there are, whoever made them.
fn kubelets(look: &Look) -> Option<Vec<Finding>> {
    let minor = |version: &str| version.trim_start_matches('v').split('.').nth(1)?.parse::<u8>().ok();
    let of = |(node, version): &(String, String)| {
        let is_behind = minor(version).is_some_and(|minor| minor + SKEW < look.next.minor);
        is_behind.then(|| Finding {
            resource: format!("/api/v1/nodes/{node}"),
            status: "ERROR",
            reason: format!("The kubelet of node {node} has version {version}"),
            detail: None,
        })
    };
    Some(look.seen?.kubelets.iter().filter_map(of).collect())
}

/// What the API server was asked for and the next version serves no more; what a later one does not, is a warning.
fn deprecated(look: &Look) -> Option<Vec<Finding>> {
    let since = look.context.now.plus_secs(-COUNTED_SECS);
    let of = |one: &DeprecatedUse| {
        let removed = one.removed?;
        let clients: Vec<Value> = one
            .clients
            .iter()
            .filter(|client| client.last >= since)
            .map(|client| {
                json!({
                    "userAgent": client.user_agent, "numberOfRequestsLast30Days": client.requests,
                    "lastRequestTime": client.last,
                })
            })
            .collect();
        if clients.is_empty() {
            return None;
        }
        let path = |group: &str, version: &str| {
            let root = if group.is_empty() { "/api".to_owned() } else { format!("/apis/{group}") };
            format!("{root}/{version}/{}", one.resource)
        };
        let usage = path(&one.group, &one.version);
        let instead = one.instead.as_deref().map(|instead| match instead.split_once('/') {
            Some((group, version)) => path(group, version),
            None => path("", instead),
        });
        Some(Finding {
            status: if removed <= look.next.minor { "ERROR" } else { "WARNING" },
            reason: format!("{usage} is not served from Kubernetes v1.{removed} on"),
            detail: Some((
                "deprecationDetails",
                json!({
                    "usage": usage, "replacedWith": instead, "stopServingVersion": format!("1.{removed}"),
                    "clientStats": clients,
                }),
            )),
            resource: usage,
        })
    };
    Some(look.seen?.deprecated.iter().filter_map(of).collect())
}

/// The version after a cluster's own, if there is one.
fn next_of(cluster: &Kept<ClusterRecord>) -> Option<&'static Version> {
    let current = version::find(&cluster.record.shown.version)?;
    version::VERSIONS.iter().find(|one| one.minor == current.minor + 1)
}

/// The insights of a cluster, for the next version.
fn all(context: &Context, cluster: &Kept<ClusterRecord>) -> Vec<Value> {
    let Some(next) = next_of(cluster) else { return Vec::new() };
    let observed = observed::of(context.state, cluster.name());
    let seen = observed.as_ref().and_then(|observed| observed.seen.as_ref());
    let look = Look { context, cluster, next, seen };
    CHECKS.iter().map(|check| insight(&look, observed.as_ref(), check)).collect()
}

/// What each insight of a cluster says when this is true inside of it, by its id.
pub(super) fn statuses(
    context: &Context,
    cluster: &Kept<ClusterRecord>,
    seen: Option<&Seen>,
) -> Vec<(String, String)> {
    let Some(next) = next_of(cluster) else { return Vec::new() };
    let look = Look { context, cluster, next, seen };
    let of = |check: &Check| (check.id.to_owned(), status(&(check.find)(&look)).to_owned());
    CHECKS.iter().map(of).collect()
}

/// Whether nothing stands in the way of the next version.
pub(super) fn is_ready(context: &Context, cluster: &Kept<ClusterRecord>) -> bool {
    let seen = observed::of(context.state, cluster.name()).and_then(|observed| observed.seen);
    statuses(context, cluster, seen.as_ref()).iter().all(|(_, status)| status != "ERROR")
}

fn status(findings: &Option<Vec<Finding>>) -> &'static str {
    match findings {
        None => "UNKNOWN",
        Some(all) if all.is_empty() => "PASSING",
        Some(all) if all.iter().any(|one| one.status == "ERROR") => "ERROR",
        Some(_) => "WARNING",
    }
}

fn insight(look: &Look, observed: Option<&Observed>, check: &Check) -> Value {
    let (context, cluster) = (look.context, look.cluster);
    let findings = (check.find)(look);
    let status = status(&findings);
    let reason = match status {
        "UNKNOWN" => "The cluster has not been looked at yet.",
        "PASSING" => check.passing,
        _ => check.failing,
    };
    let findings = findings.unwrap_or_default();
    let mut summary = json!({});
    for (member, detail) in findings.iter().filter_map(|one| one.detail.as_ref()) {
        match summary[*member].as_array_mut() {
            Some(list) => list.push(detail.clone()),
            None => summary[*member] = json!([detail]),
        }
    }
    let of = |one: &Finding| {
        let member = if one.resource.starts_with("arn:") { "arn" } else { "kubernetesResourceUri" };
        json!({member: one.resource, "insightStatus": {"status": one.status, "reason": one.reason}})
    };
    let created = cluster.record.shown.created_at;
    let since = match observed.and_then(|observed| observed.said.get(check.id)) {
        Some((said, since)) if said == status => *since,
        Some(_) => context.now,
        None => created,
    };
    let looked = observed.and_then(|observed| observed.seen.as_ref()).map_or(created, |seen| seen.at);
    let info: Map<String, Value> =
        check.info.iter().map(|(title, place)| ((*title).to_owned(), json!(place))).collect();
    let told = |text: &str| text.replace("NEXT", look.next.name);
    json!({
        "id": check.id, "name": told(check.name), "category": "UPGRADE_READINESS",
        "kubernetesVersion": look.next.name, "lastRefreshTime": looked, "lastTransitionTime": since,
        "description": told(check.description), "insightStatus": {"status": status, "reason": reason},
        "recommendation": told(check.recommendation), "additionalInfo": info,
        "resources": findings.iter().map(of).collect::<Vec<_>>(), "categorySpecificSummary": summary,
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
