//! Follows the account and runs one key at a time of each thing, any number of things at once.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use account::Account;
use aws::autoscaling::{GROUP_TAG, Group, Member};
use aws::control;
use aws::ec2::record::Instance;
use aws::eks::observed::Observed;
use aws::eks::{ClusterRecord, FargateProfileRecord, NodeGroupRecord};
use aws::state::{self, Record};
use engine::{Outcome, Queue, Recorder};
use gate::Gate;
use object::{Key, Snapshot, Status, Time};
use plan::{Plan, User};
use store::WatchError;
use tokio::sync::mpsc;
use tracing::{debug, error, warn};

use super::{clusters, fargate, insights};
use crate::cluster::now;
use crate::daemon::Daemon;
use crate::deciders::event_user;

/// How many keys may run at once: machines start side by side, and leave the host some air.
const CONCURRENT: usize = 16;
/// How often a node group is looked at while its nodes come and go.
const LOOK_AGAIN_MILLIS: i64 = 100;

/// What keeps the account's clusters, groups and instances as they are wanted.
pub struct Keeper {
    /// The daemon ends without being kept by what it runs.
    daemon: Weak<Daemon>,
    pub account: Arc<Account>,
    /// Below which the issuers of tokens are: `https://198.18.149.3`
    pub issuers: String,
    pub(super) fargate: fargate::Followed,
    /// Keys that something outside of the account concerns.
    pub(super) wake: mpsc::UnboundedSender<Key>,
    woken: tokio::sync::Mutex<mpsc::UnboundedReceiver<Key>>,
}

impl Keeper {
    pub fn new(daemon: &Arc<Daemon>, account: Arc<Account>, issuers: String) -> Arc<Self> {
        let (wake, woken) = mpsc::unbounded_channel();
        Arc::new(Self {
            daemon: Arc::downgrade(daemon),
            account,
            issuers,
            fargate: fargate::Followed::default(),
            wake,
            woken: tokio::sync::Mutex::new(woken),
        })
    }

    /// Runs until it is aborted, or the account closed.
    pub async fn run(self: Arc<Self>) {
        let mut queue = Queue::default();
        // One run at a time.
        let mut woken = self.woken.lock().await;
        let (finished, mut runs) = mpsc::unbounded_channel::<(Key, Outcome)>();
        let mut running = 0;
        loop {
            let snapshot = self.account.snapshot();
            for resource in [ClusterRecord::RESOURCE, NodeGroupRecord::RESOURCE, Group::RESOURCE] {
                snapshot.list(resource, "").for_each(|object| queue.add(object.key.clone()));
            }
            fargate::all(&snapshot).into_iter().for_each(|key| queue.add(key));
            let clusters = snapshot.list(ClusterRecord::RESOURCE, "");
            clusters.for_each(|object| queue.add(insights::key(&object.key.name)));
            let mut watch = match self.account.store().watch(None, snapshot.revision()) {
                Ok(watch) => watch,
                Err(WatchError::Compacted { .. }) => continue,
                Err(WatchError::Closed) => return,
            };
            let end = loop {
                while running < CONCURRENT
                    && let Some(key) = queue.take(now())
                {
                    running += 1;
                    let (keeper, finished) = (self.clone(), finished.clone());
                    tokio::spawn(async move {
                        let kept = key.clone();
                        let run = tokio::spawn(async move { keeper.keep(&kept).await });
                        // A run that panics is one that failed: its key is tried again, and its place is free.
                        let outcome = run.await.unwrap_or_else(|panic| {
                            error!(%key, %panic, "a run ended badly");
                            Outcome::Failed
                        });
                        // The receiver is gone only when the keeper is.
                        let _ = finished.send((key, outcome));
                    });
                }
                let wake = queue.next_wake();
                tokio::select! {
                    biased;
                    Some((key, outcome)) = runs.recv() => {
                        running -= 1;
                        queue.finish(&key, outcome, now());
                    }
                    Some(key) = woken.recv() => queue.add(key),
                    batch = watch.next() => match batch {
                        Ok(events) => {
                            let snapshot = self.account.snapshot();
                            for event in &events {
                                concerned(&snapshot, event.key()).into_iter().for_each(|key| queue.add(key));
                                fargate::concerned(&snapshot, event.key()).into_iter().for_each(|key| queue.add(key));
                            }
                        }
                        Err(end) => break end,
                    },
                    () = sleep_until(wake), if running < CONCURRENT => {}
                }
            };
            if end == WatchError::Closed {
                return;
            }
        }
    }

    async fn keep(self: &Arc<Self>, key: &Key) -> Outcome {
        let Some(daemon) = self.daemon.upgrade() else { return Outcome::Done { wake_at: None } };
        let result = match key.resource {
            ClusterRecord::RESOURCE => clusters::keep(self, &daemon, &key.name).await,
            FargateProfileRecord::RESOURCE => fargate::keep(self, &daemon, &key.namespace).await,
            NodeGroupRecord::RESOURCE => self.keep_node_group(&daemon, key).await,
            Observed::RESOURCE => insights::keep(self, &daemon, &key.namespace).await,
            _ => self.keep_group(&key.name).await,
        };
        match result {
            Ok(wake_at) => Outcome::Done { wake_at },
            Err(failure) => {
                warn!(%key, %failure, "it will be tried again");
                Outcome::Failed
            }
        }
    }

    async fn keep_group(&self, name: &str) -> Result<Option<Time>, Failure> {
        let wake_at = Mutex::new(None);
        self.account
            .change(|context| {
                let plan = control::group::reconcile(context, name);
                *wake_at.lock().unwrap_or_else(PoisonError::into_inner) = plan.wake_at;
                plan.changes
            })
            .await?;
        Ok(wake_at.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    async fn keep_node_group(&self, daemon: &Daemon, key: &Key) -> Result<Option<Time>, Failure> {
        let (cluster, name) = (&*key.namespace, &*key.name);
        let gate = daemon.clusters.lock().await.get(cluster).map(|cluster| cluster.gate.clone());
        let nodes = gate.as_ref().map(|gate| gate.store().snapshot());
        let planned = Mutex::new(control::Plan::default());
        self.account
            .change(|context| {
                let mut plan = control::node_group::reconcile(context, &|_| nodes.clone(), cluster, name);
                let changes = std::mem::take(&mut plan.changes);
                *planned.lock().unwrap_or_else(PoisonError::into_inner) = plan;
                changes
            })
            .await?;
        let plan = planned.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut wake_at = plan.wake_at;
        if let Some(gate) = gate {
            carry_out(&gate, plan.in_cluster, "node-group", None).await;
        }
        let state = self.account.snapshot();
        let settled = ["ACTIVE", "CREATE_FAILED"];
        let is_moving = state::get::<NodeGroupRecord>(&state, cluster, name)
            .is_some_and(|group| !settled.contains(&group.record.shown.status.as_str()));
        if is_moving {
            let soon = now().plus_millis(LOOK_AGAIN_MILLIS);
            wake_at = Some(wake_at.map_or(soon, |at| at.min(soon)));
        }
        Ok(wake_at)
    }
}

/// Makes writes to a cluster. What is refused is asked for again: a budget allows nothing now, or somebody was faster.
pub(super) async fn carry_out(
    gate: &Gate,
    steps: Vec<control::InCluster>,
    component: &str,
    recorder: Option<&Recorder>,
) {
    let user = event_user();
    for step in steps {
        let done = match step {
            control::InCluster::Write(write) => gate.execute(&user, write).await.map(drop),
            control::InCluster::Evict(pod) => gate.evict(&user, &pod).await,
            control::InCluster::Do(plan) => execute(gate, &user, plan, component, recorder).await,
        };
        if let Err(status) = done {
            debug!(component, %status, "not now");
        }
    }
}

async fn execute(
    gate: &Gate,
    user: &User,
    plan: Plan,
    component: &str,
    recorder: Option<&Recorder>,
) -> Result<(), Status> {
    for write in plan.writes {
        gate.execute(user, write).await?;
    }
    if let Some(recorder) = recorder {
        plan.events.into_iter().for_each(|event| recorder.record(component, event));
    }
    Ok(())
}

/// The keys that must look at a change.
fn concerned(account: &Snapshot, changed: &Key) -> Vec<Key> {
    let node_group = |group: &str| {
        let owner = state::get::<Group>(account, "", group)?.record.owner;
        Some(Key::new(NodeGroupRecord::RESOURCE, owner.cluster, owner.node_group))
    };
    match changed.resource {
        ClusterRecord::RESOURCE => {
            let groups =
                state::list::<NodeGroupRecord>(account, &changed.name).into_iter().map(|kept| kept.key);
            groups.chain([changed.clone(), insights::key(&changed.name)]).collect()
        }
        NodeGroupRecord::RESOURCE | Observed::RESOURCE => vec![changed.clone()],
        Group::RESOURCE => {
            let gone = || {
                let all = state::list::<NodeGroupRecord>(account, "").into_iter();
                all.filter(|kept| kept.record.group_name() == &*changed.name).map(|kept| kept.key).collect()
            };
            let mut keys: Vec<Key> = node_group(&changed.name).map_or_else(gone, |key| vec![key]);
            keys.push(changed.clone());
            keys
        }
        Member::RESOURCE => {
            let group = Key::cluster(Group::RESOURCE, changed.namespace.clone());
            node_group(&changed.namespace).into_iter().chain([group]).collect()
        }
        Instance::RESOURCE => {
            let instance = state::get::<Instance>(account, "", &changed.name);
            let group = instance.and_then(|mut kept| kept.record.tags.remove(GROUP_TAG));
            group.map(|group| Key::cluster(Group::RESOURCE, group)).into_iter().collect()
        }
        _ => Vec::new(),
    }
}

async fn sleep_until(at: Option<Time>) {
    match at {
        Some(at) => {
            let wait = at.as_micros().saturating_sub(now().as_micros()).max(0);
            tokio::time::sleep(Duration::from_micros(wait.unsigned_abs())).await;
        }
        None => std::future::pending().await,
    }
}

/// Why something of the account could not be made so.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("write it down: {0}")]
    Account(#[from] account::OpenError),
    #[error(transparent)]
    Daemon(#[from] crate::daemon::DaemonError),
    #[error(transparent)]
    File(#[from] files::FileError),
    #[error(transparent)]
    Ec2(#[from] crate::ec2::Ec2Error),
}
