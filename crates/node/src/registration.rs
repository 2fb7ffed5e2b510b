//! The node's own objects, kept up: Node, and the Lease that says that it lives.

use std::sync::Arc;
use std::time::Duration;

use kubelet::{Heartbeat, NodeFacts};
use object::{Snapshot, Time};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::watch;
use tracing::{info, warn};

use crate::api::{Api, ApiError, PatchKind};
use crate::clock;
use crate::mirror::Mirror;

/// Upstream's nodeLeaseDurationSeconds 40, renewed at a quarter of it.
const LEASE_PERIOD: Duration = Duration::from_secs(10);
/// An unchanged status is written this often: `nodeStatusReportFrequency`.
const REPORT_PERIOD_SECONDS: i64 = 300;
/// How long the first status waits for the node's network.
const NETWORK_PATIENCE: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_millis(500);

/// Registers the node and keeps its heartbeat until the task is dropped. `health` wakes it when something changes, and what the cluster
/// says of this node in `mirror` is looked at as often as the lease is renewed;
/// `registered` turns true once the Node has this node's addresses.
pub async fn keep(
    api: Arc<Api>,
    facts: Arc<NodeFacts>,
    mirror: Arc<Mirror>,
    mut health: watch::Receiver<Heartbeat>,
    registered: watch::Sender<bool>,
) {
    let first = *health.borrow();
    let mut uid = register(&api, &facts, first).await;
    // A process that was only restarted has a network as soon as it has read the cluster's objects: saying NotReady until then would
    // take every pod here out of its services. A network that does not come is told after all.
    let _ = tokio::time::timeout(NETWORK_PATIENCE, health.wait_for(|health| health.network_is_up)).await;
    let mut reported: Option<(Heartbeat, Time)> = None;
    let mut lease_ticks = tokio::time::interval(LEASE_PERIOD);
    lease_ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let now = clock::now();
        let current = *health.borrow_and_update();
        let is_due =
            reported.is_none_or(|(told, at)| told != current || now.secs_since(at) >= REPORT_PERIOD_SECONDS);
        if is_due {
            match report(&api, &facts, current, now).await {
                Ok(()) => {
                    reported = Some((current, now));
                    registered.send_replace(true);
                }
                Err(error) if error.is_not_found() => uid = register(&api, &facts, current).await,
                Err(error) => warn!(%error, "the node's status could not be written"),
            }
        }
        tokio::select! {
            _ = lease_ticks.tick() => {
                if is_taken_for_lost(&mirror.snapshot(), &facts.name) {
                    reported = None;
                }
                if let Err(error) = renew(&api, &facts, &uid).await {
                    warn!(%error, "the node's lease could not be renewed");
                }
            }
            changed = health.changed() => if changed.is_err() { return },
        }
    }
}

/// Whether the cluster has not heard of this node for so long that it says of its conditions that they are unknown.
fn is_taken_for_lost(cluster: &Snapshot, name: &str) -> bool {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct View {
        status: Status,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Status {
        conditions: Vec<Condition>,
    }
    #[derive(Deserialize)]
    struct Condition {
        status: String,
    }
    let node = cluster.find(kinds::NODES, "", name);
    let view: View = node.and_then(|node| node.decode().ok()).unwrap_or_default();
    view.status.conditions.iter().any(|condition| condition.status == "Unknown")
}

/// Creates the Node, or brings an existing one to what this node is. Its uid.
async fn register(api: &Api, facts: &NodeFacts, health: Heartbeat) -> String {
    loop {
        match try_register(api, facts, health).await {
            Ok(uid) => return uid,
            Err(error) => warn!(%error, "the node could not be registered; trying again"),
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn try_register(api: &Api, facts: &NodeFacts, health: Heartbeat) -> Result<String, ApiError> {
    let wanted = kubelet::registration(facts, health, clock::now());
    let uid = |node: &Value| node["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
    match api.create::<Value>("/api/v1/nodes", &wanted).await {
        Ok(node) => {
            info!(node = %facts.name, "registered");
            return Ok(uid(&node));
        }
        Err(error) if error.is_conflict() => {}
        Err(error) => return Err(error),
    }
    let labels = json!({"metadata": {"labels": wanted["metadata"]["labels"]}});
    let node: Value = api.patch(&node_path(facts), PatchKind::Merge, &labels).await?;
    Ok(uid(&node))
}

async fn report(api: &Api, facts: &NodeFacts, health: Heartbeat, now: Time) -> Result<(), ApiError> {
    let node: Value = api.get(&node_path(facts)).await?;
    let known = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let status = kubelet::heartbeat(facts, health, &known, now);
    let path = format!("{}/status", node_path(facts));
    api.patch::<Value>(&path, PatchKind::Strategic, &json!({"status": status})).await.map(drop)
}

async fn renew(api: &Api, facts: &NodeFacts, node_uid: &str) -> Result<(), ApiError> {
    const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    let now = clock::now();
    let lease = kubelet::lease(facts, node_uid, now);
    let patch = json!({"spec": lease["spec"]});
    match api.patch::<Value>(&format!("{LEASES}/{}", facts.name), PatchKind::Merge, &patch).await {
        Err(error) if error.is_not_found() => api.create::<Value>(LEASES, &lease).await.map(drop),
        other => other.map(drop),
    }
}

fn node_path(facts: &NodeFacts) -> String {
    format!("/api/v1/nodes/{}", facts.name)
}
