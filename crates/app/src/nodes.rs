//! The nodes of a cluster that its owner asked for by their number: instances in the account, waited for.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use account::Account;
use aws::Fault;
use aws::autoscaling;
use aws::control::ready::is_ready;
use aws::control::site_nodes;
use aws::ec2::record;
use aws::state::Changes;
use kinds::NODES;
use machines::Machine;
use object::{Object, Snapshot};
use tokio::time::timeout;

use crate::census;
use crate::cluster::Cluster;
use crate::dial::{self, Inside};
use crate::ec2::{self, Doer};
use crate::shape::KUBELET_PORT;
use crate::site::ClusterSpec;

/// A token outlives the start of its machine, and not much more.
pub const TOKEN_SECONDS: i64 = 3_600;
const READY_PATIENCE: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(10);

#[derive(Debug, thiserror::Error)]
pub enum NodesError {
    #[error(transparent)]
    Machines(#[from] machines::Error),
    #[error(transparent)]
    Account(#[from] account::OpenError),
    #[error("the AWS account refuses the nodes: {code}: {message}")]
    Refused { code: String, message: String },
    #[error("start the node {node}: {why}")]
    Start { node: String, why: String },
    #[error("the machines of nodes that are no longer wanted did not end after {READY_PATIENCE:?}")]
    NotGone,
    #[error("{nodes} not Ready after {READY_PATIENCE:?}; their logs: {logs}")]
    NotReady { nodes: String, logs: String },
}

/// The nodes that a cluster should have.
pub struct Wanted<'a> {
    pub machines: &'a machines::Site,
    pub spec: &'a ClusterSpec,
    pub account: &'a Account,
    pub doer: &'a Doer,
}

/// Has those started that should run, ends those that should not be, and waits until all nodes are Ready.
pub async fn bring(wanted: &Wanted<'_>, cluster: &Cluster) -> Result<(), NodesError> {
    let name = &wanted.spec.name;
    // The number of one that is on its way out is taken until it is gone.
    until_none_ends(wanted).await?;
    wanted.account.change(|context| site_nodes::revive(context, name)).await?;
    let host = wanted.machines.public_addresses()?.pool.host();
    while step(wanted, host).await? {}
    until_none_ends(wanted).await?;
    wanted.doer.look();
    for instance in ec2::nodes_of(&wanted.account.snapshot(), name) {
        let machine = wanted.doer.machine(&instance)?;
        if machine.running().is_some() {
            machine.nudge()?;
        }
    }
    wait_until_ready(wanted, cluster).await
}

/// One step towards the nodes that are wanted; whether there was one to take.
async fn step(wanted: &Wanted<'_>, host: Ipv4Addr) -> Result<bool, NodesError> {
    let refused: Mutex<Option<Fault>> = Mutex::default();
    let decide = |context: &mut aws::Context| {
        let decided = site_nodes::reconcile(context, &wanted.spec.name, wanted.spec.nodes, host);
        let (changes, fault) = match decided {
            Ok(changes) => (changes, None),
            Err(fault) => (Changes::default(), Some(fault)),
        };
        *refused.lock().unwrap_or_else(PoisonError::into_inner) = fault;
        changes
    };
    let is_changed = wanted.account.change(decide).await?;
    match refused.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(fault) => Err(NodesError::Refused { code: fault.code, message: fault.message }),
        None => Ok(is_changed),
    }
}

async fn until_none_ends(wanted: &Wanted<'_>) -> Result<(), NodesError> {
    let gone = async {
        loop {
            let account = wanted.account.snapshot();
            if !site_nodes::is_one_ending(&account, &wanted.spec.name) {
                return;
            }
            changed(wanted.account.store().as_ref(), None, &account).await;
        }
    };
    timeout(READY_PATIENCE, gone).await.map_err(|_| NodesError::NotGone)
}

/// Waits until something is newer than in the snapshot.
async fn changed(store: &dyn store::Store, resource: Option<object::Resource>, seen: &Snapshot) {
    match store.watch(resource, seen.revision()) {
        // An end of the log is news, too.
        Ok(mut watch) => drop(watch.next().await),
        Err(_) => tokio::task::yield_now().await,
    }
}

async fn wait_until_ready(wanted: &Wanted<'_>, cluster: &Cluster) -> Result<(), NodesError> {
    let store = cluster.gate.store();
    let names: Vec<String> =
        (1..=wanted.spec.nodes).map(|number| format!("{}-{number}", wanted.spec.name)).collect();
    let deadline = Instant::now() + READY_PATIENCE;
    loop {
        let (snapshot, account) = (store.snapshot(), wanted.account.snapshot());
        let mut missing: Vec<&String> = names.iter().filter(|name| !is_ready_in(&snapshot, name)).collect();
        let are_told_ready = missing.is_empty();
        if are_told_ready {
            for name in &names {
                let (machine, node) = (wanted.machines.machine(name)?, snapshot.find(NODES, "", name));
                let Some(node) = node else { continue };
                if !serves(&machine, node).await {
                    missing.push(name);
                }
            }
        }
        let Some(first) = missing.first() else { return Ok(()) };
        for (_, kept) in site_nodes::of(&account, &wanted.spec.name) {
            if let Some((_, why)) = kept.record.reason.as_ref().filter(|_| !kept.record.is_running()) {
                return Err(NodesError::Start { node: kept.record.node_name().to_owned(), why: why.clone() });
            }
        }
        let changed = async {
            if are_told_ready {
                return tokio::time::sleep(LOOK_AGAIN).await;
            }
            tokio::select! {
                () = changed(store.as_ref(), Some(NODES), &snapshot) => {}
                () = changed(wanted.account.store().as_ref(), None, &account) => {}
            }
        };
        let left = deadline.saturating_duration_since(Instant::now());
        if timeout(left, changed).await.is_err() {
            let logs = wanted.machines.machine(first).map(|machine| machine.log().display().to_string());
            return Err(NodesError::NotReady {
                nodes: missing.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(", "),
                logs: logs.unwrap_or_default(),
            });
        }
    }
}

/// Whether the node's process is there and has registered: the Node of one that has just ended says Ready for a while.
async fn serves(machine: &Machine, node: &Object) -> bool {
    let Ok(address) = census::node_status(node).internal_ip.parse::<IpAddr>() else { return false };
    dial::dial(Some(machine.netns_path()), (address, KUBELET_PORT).into()).await.is_ok()
}

fn is_ready_in(snapshot: &Snapshot, name: &str) -> bool {
    snapshot.find(NODES, "", name).is_some_and(|node| is_ready(node))
}

/// Whether its Auto Scaling group is emptying it.
fn is_leaving(account: &Snapshot, node: &record::Instance) -> bool {
    let member = autoscaling::member(account, &node.instance_id);
    member.is_some_and(|member| member.record.lifecycle.is_terminating())
}

/// From where the control plane reaches the cluster's network: one of its machines that runs, else the router.
pub fn inside(machines: machines::Site, account: Arc<Account>, cluster: &str, router: &Path) -> Inside {
    let (cluster, router) = (cluster.to_owned(), router.to_owned());
    Arc::new(move || {
        let state = account.snapshot();
        let mut nodes = ec2::nodes_of(&state, &cluster);
        nodes.retain(|node| node.wanted == record::Wanted::Running);
        // What ends with its machine begins where that is least likely: those of `ekso up`, the oldest, those of one pod, those that are
        // about to go last.
        nodes.sort_by_cached_key(|node| {
            (is_leaving(&state, node), node.fargate.is_some(), node.site_node.is_none(), node.launched)
        });
        let mut machines = nodes.iter().filter_map(|node| machines.machine(ec2::machine_name(node)).ok());
        let running = machines.find(|machine| machine.running().is_some());
        Some(running.map_or_else(|| router.clone(), |machine| machine.netns_path()))
    })
}
