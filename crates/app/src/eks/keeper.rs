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
use crate::clock::now;
use crate::daemon::Daemon;
use crate::deciders::event_user;

/// How many keys of a kind may run at once: control planes start side by side, and leave the host some air.
const CONCURRENT: usize = 16;
/// What fails is tried again so soon at the latest: what it lacks (a port, room in a subnet) may be there now.
const LONGEST_BACKOFF_MILLIS: i64 = 10_000;
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

/// Keys that wait and run. Control planes have places of their own: as many as are slow to start keep no node group waiting.
struct Work([Lane; 2]);

struct Lane {
    queue: Queue,
    running: usize,
}

impl Default for Work {
    fn default() -> Self {
        let lane = || Lane { queue: Queue::with_longest_backoff(LONGEST_BACKOFF_MILLIS), running: 0 };
        Self([lane(), lane()])
    }
}

impl Work {
    fn lane(&mut self, key: &Key) -> &mut Lane {
        &mut self.0[usize::from(key.resource != ClusterRecord::RESOURCE)]
    }

    fn add(&mut self, key: Key) {
        self.lane(&key).queue.add(key);
    }

    /// The next key to run, if there is a place for it.
    fn take(&mut self, now: Time) -> Option<Key> {
        self.0.iter_mut().filter(|lane| lane.running < CONCURRENT).find_map(|lane| {
            let key = lane.queue.take(now)?;
            lane.running += 1;
            Some(key)
        })
    }

    fn finish(&mut self, key: &Key, outcome: Outcome, now: Time) {
        let lane = self.lane(key);
        lane.running -= 1;
        lane.queue.finish(key, outcome, now);
    }

    /// When a key that sleeps can run; one whose lane is full waits for a place.
    fn next_wake(&self) -> Option<Time> {
        let lanes = self.0.iter().filter(|lane| lane.running < CONCURRENT);
        lanes.filter_map(|lane| lane.queue.next_wake()).min()
    }
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
        let mut work = Work::default();
        // One run at a time.
        let mut woken = self.woken.lock().await;
        let (finished, mut runs) = mpsc::unbounded_channel::<(Key, Outcome)>();
        loop {
            let snapshot = self.account.snapshot();
            for resource in [ClusterRecord::RESOURCE, NodeGroupRecord::RESOURCE, Group::RESOURCE] {
                snapshot.list(resource, "").for_each(|object| work.add(object.key.clone()));
            }
            fargate::all(&snapshot).into_iter().for_each(|key| work.add(key));
            let clusters = snapshot.list(ClusterRecord::RESOURCE, "");
            clusters.for_each(|object| work.add(insights::key(&object.key.name)));
            let mut watch = match self.account.store().watch(None, snapshot.revision()) {
                Ok(watch) => watch,
                Err(WatchError::Compacted { .. }) => continue,
                Err(WatchError::Closed) => return,
            };
            let end = loop {
                while let Some(key) = work.take(now()) {
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
                tokio::select! {
                    biased;
                    Some((key, outcome)) = runs.recv() => work.finish(&key, outcome, now()),
                    Some(key) = woken.recv() => work.add(key),
                    batch = watch.next() => match batch {
                        Ok(events) => {
                            let snapshot = self.account.snapshot();
                            for event in &events {
                                concerned(&snapshot, event.key()).into_iter().for_each(|key| work.add(key));
                                fargate::concerned(&snapshot, event.key()).into_iter().for_each(|key| work.add(key));
                            }
                        }
                        Err(end) => break end,
                    },
                    () = sleep_until(work.next_wake()) => {}
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
        let gate = daemon.clusters.get(cluster).map(|cluster| cluster.gate.clone());
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

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time::from_secs(1_000);

    #[test]
    fn control_planes_that_are_slow_to_start_keep_no_node_group_waiting() {
        let mut work = Work::default();
        for number in 0..=CONCURRENT {
            work.add(Key::cluster(ClusterRecord::RESOURCE, format!("slow-{number:02}")));
        }
        let taken: Vec<Key> = std::iter::from_fn(|| work.take(NOW)).collect();
        assert_eq!(taken.len(), CONCURRENT, "one waits for a place");
        let group = Key::new(NodeGroupRecord::RESOURCE, "shop", "ng");
        work.add(group.clone());
        assert_eq!(work.take(NOW), Some(group.clone()));
        work.finish(&group, Outcome::Failed, NOW);
        assert_eq!((work.take(NOW), work.next_wake()), (None, Some(NOW.plus_millis(5))));
        work.finish(&taken[0], Outcome::Done { wake_at: None }, NOW);
        assert_eq!(work.take(NOW), Some(Key::cluster(ClusterRecord::RESOURCE, format!("slow-{CONCURRENT}"))));
    }
}
