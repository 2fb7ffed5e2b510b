//! What is looked up in a cluster for its insights: when it is active, every day, and when somebody asks for it.
//! <https://docs.aws.amazon.com/eks/latest/userguide/cluster-insights.html>

use std::collections::BTreeMap;

use kinds::NODES;
use object::{Object, Resource, Snapshot, Time};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::cluster::{self, ClusterRecord};
use super::update::text;
use super::{fault, insight};
use crate::state::{self, Changes, Record};
use crate::{Answer, Context, Fault};

/// How old what was seen may become.
const FRESH_SECS: i64 = 24 * 60 * 60;
/// What the record is called.
pub const NAME: &str = "insights";
/// So many nodes are looked at, those of the oldest versions.
const MOST_NODES: usize = 1_000;

/// What was seen last in a cluster, and when that was asked for. It belongs to its cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Observed {
    /// `IN_PROGRESS`, `FAILED`, `COMPLETED`
    pub status: String,
    pub started_at: Time,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Time>,
    /// None: the cluster could never be looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<Seen>,
    /// What each insight said when it was looked at, by its id, and since when.
    #[serde(default)]
    pub said: BTreeMap<String, (String, Time)>,
}

impl Record for Observed {
    const RESOURCE: Resource = Resource::new("insights.eks");
}

/// What is true inside of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Seen {
    pub at: Time,
    /// Names of nodes, and their kubelets' versions as they tell them: `v1.36.0-eks-…`.
    pub kubelets: Vec<(String, String)>,
    pub deprecated: Vec<DeprecatedUse>,
}

/// A version of a kind that clients asked for although they should leave it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeprecatedUse {
    pub group: String,
    /// `v1`
    pub version: String,
    /// `endpoints`
    pub resource: String,
    /// The minor version that serves it no more, if anybody has said.
    pub removed: Option<u8>,
    /// Group with version of what is there instead.
    pub instead: Option<String>,
    pub clients: Vec<Client>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Client {
    pub user_agent: String,
    pub requests: u64,
    pub last: Time,
}

pub(super) fn of(state: &Snapshot, cluster: &str) -> Option<Observed> {
    Some(state::get::<Observed>(state, cluster, NAME)?.record)
}

/// When a cluster must be looked at: now or in the past, if it must be at once. None: while it is not active.
pub fn due(state: &Snapshot, cluster: &str) -> Option<Time> {
    let record = state::get::<ClusterRecord>(state, "", cluster)?.record;
    if !matches!(record.shown.status.as_str(), "ACTIVE" | "UPDATING") {
        return None;
    }
    Some(match of(state, cluster) {
        Some(known) if known.status == "IN_PROGRESS" => known.started_at,
        Some(known) => known.ended_at.unwrap_or(known.started_at).plus_secs(FRESH_SECS),
        None => record.shown.created_at,
    })
}

/// Whether somebody waits for a cluster to be looked at.
pub fn is_asked_for(state: &Snapshot, cluster: &str) -> bool {
    of(state, cluster).is_some_and(|known| known.status == "IN_PROGRESS")
}

/// The nodes of a cluster, by what is in its store, and the versions of their kubelets.
pub fn kubelets(objects: &Snapshot) -> Vec<(String, String)> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct View {
        status: Status,
    }
    #[derive(Default, Deserialize)]
    #[serde(default, rename_all = "camelCase")]
    struct Status {
        node_info: NodeInfo,
    }
    #[derive(Default, Deserialize)]
    #[serde(default, rename_all = "camelCase")]
    struct NodeInfo {
        kubelet_version: String,
    }
    let version = |node: &Object| {
        let View { status } = node.decode().unwrap_or_default();
        status.node_info.kubelet_version
    };
    let mut all: Vec<(String, String)> =
        objects.list(NODES, "").map(|node| (node.key.name.to_string(), version(node))).collect();
    all.sort_by(|(name, version), (other_name, other)| (version, name).cmp(&(other, other_name)));
    all.truncate(MOST_NODES);
    all
}

/// Writes down what was seen; nothing, if the cluster could not be looked at.
pub fn observe(context: &Context, cluster: &str, seen: Option<Seen>) -> Changes {
    let mut changes = Changes::default();
    let Some(record) = state::get::<ClusterRecord>(context.state, "", cluster) else { return changes };
    let held = state::get::<Observed>(context.state, cluster, NAME);
    let known = held.as_ref().map(|kept| kept.record.clone());
    let is_seen = seen.is_some();
    let mut now = Observed {
        status: if is_seen { "COMPLETED" } else { "FAILED" }.to_owned(),
        started_at: known
            .as_ref()
            .filter(|known| known.status == "IN_PROGRESS")
            .map_or(context.now, |known| known.started_at),
        ended_at: Some(context.now),
        seen: seen.or_else(|| known.as_ref()?.seen.clone()),
        said: BTreeMap::new(),
    };
    let before = known.map(|known| known.said).unwrap_or_default();
    for (id, status) in insight::statuses(context, &record, now.seen.as_ref()) {
        let since = before.get(&id).filter(|(known, _)| *known == status).map(|(_, since)| *since);
        now.said.insert(id, (status, since.unwrap_or(context.now)));
    }
    match held {
        Some(mut held) => {
            held.record = now;
            changes.update(&held);
        }
        None => changes.create(cluster, NAME, &now),
    }
    changes
}

pub fn start_refresh(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let name = text(input, "clusterName");
    cluster::find_active(context, name)?;
    let mut changes = Changes::default();
    let held = state::get::<Observed>(context.state, name, NAME);
    match held {
        // One that is on its way is as good as another.
        Some(known) if known.record.status == "IN_PROGRESS" => {}
        Some(mut known) => {
            known.record.status = "IN_PROGRESS".to_owned();
            (known.record.started_at, known.record.ended_at) = (context.now, None);
            changes.update(&known);
        }
        None => {
            let new = Observed {
                status: "IN_PROGRESS".to_owned(),
                started_at: context.now,
                ended_at: None,
                seen: None,
                said: BTreeMap::new(),
            };
            changes.create(name, NAME, &new);
        }
    }
    let output = json!({"message": message("IN_PROGRESS"), "status": "IN_PROGRESS"});
    Ok(Answer::write(output, changes))
}

pub fn describe_refresh(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let name = text(input, "clusterName");
    cluster::find(context, name)?;
    let none = || fault::not_found("No insights refresh found").with("clusterName", name);
    let known = of(context.state, name).ok_or_else(none)?;
    let mut output = json!({
        "message": message(&known.status), "status": known.status, "startedAt": known.started_at,
    });
    if let Some(ended) = known.ended_at {
        output["endedAt"] = json!(ended);
    }
    Ok(Answer::read(output))
}

fn message(status: &str) -> &'static str {
    match status {
        "IN_PROGRESS" => "Insights refresh is in progress",
        "FAILED" => "Insights refresh failed: the control plane does not run",
        _ => "Insights refresh completed successfully",
    }
}
