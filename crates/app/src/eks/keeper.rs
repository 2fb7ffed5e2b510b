//! Follows the account and runs one key at a time of each thing, any number of things at once.

use std::sync::{Arc, Weak};
use std::time::Duration;

use account::Account;
use aws::autoscaling::{GROUP_TAG, Group, Member};
use aws::ec2::record::Instance;
use aws::eks::observed::Observed;
use aws::eks::{ClusterRecord, FargateProfileRecord, NodeGroupRecord};
use aws::state::{self, Record};
use engine::{Outcome, Queue};
use object::{Key, Snapshot, Time};
use store::WatchError;
use tokio::sync::mpsc;
use tracing::{error, warn};

use super::fargate::{self, Fargate};
use super::node_groups::{self, NodeGroups};
use super::{clusters, insights};
use crate::clock::now;
use crate::daemon::Daemon;

/// How many keys of a kind may run at once: control planes start side by side, and leave the host some air.
const CONCURRENT: usize = 16;
/// What fails is tried again so soon at the latest: what it lacks (a port, room in a subnet) may be there now.
const LONGEST_BACKOFF_MILLIS: i64 = 10_000;

/// What keeps the account's clusters, groups and instances as they are wanted.
pub struct Keeper {
    /// The daemon ends without being kept by what it runs.
    daemon: Weak<Daemon>,
    account: Arc<Account>,
    /// Below which the issuers of tokens are: `https://198.18.149.3`
    issuers: String,
    fargate: Fargate,
    node_groups: NodeGroups,
    /// Keys that something in a cluster concerns.
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
        self.lane(&key).queue.add(key, now());
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
            fargate: Fargate::new(wake.clone()),
            node_groups: NodeGroups::new(wake),
            woken: tokio::sync::Mutex::new(woken),
        })
    }

    /// Runs until it is aborted, or the account closed.
    pub async fn run(self: Arc<Self>) {
        let mut work = Work::default();
        // One run at a time.
        let mut woken = self.woken.lock().await;
        let mut starts = match self.daemon.upgrade() {
            Some(daemon) => daemon.clusters.starts(),
            None => return,
        };
        let (finished, mut runs) = mpsc::unbounded_channel::<(Key, Outcome)>();
        loop {
            let snapshot = self.account.snapshot();
            for resource in [ClusterRecord::RESOURCE, Group::RESOURCE] {
                snapshot.list(resource, "").for_each(|object| work.add(object.key.clone()));
            }
            of_running(&snapshot).into_iter().for_each(|key| work.add(key));
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
                    Ok(()) = starts.changed() => {
                        let snapshot = self.account.snapshot();
                        of_running(&snapshot).into_iter().for_each(|key| work.add(key));
                    }
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

    async fn keep(&self, key: &Key) -> Outcome {
        let Some(daemon) = self.daemon.upgrade() else { return Outcome::Done { wake_at: None } };
        match self.run_key(&daemon, key).await {
            Ok(wake_at) => Outcome::Done { wake_at },
            Err(failure) => {
                warn!(%key, %failure, "it will be tried again");
                Outcome::Failed
            }
        }
    }

    async fn run_key(&self, daemon: &Daemon, key: &Key) -> Result<Option<Time>, clusters::Failure> {
        let account = &*self.account;
        let gate = || Some(daemon.clusters.get(&key.namespace)?.gate.clone());
        Ok(match key.resource {
            ClusterRecord::RESOURCE => {
                clusters::keep(account, &self.issuers, daemon, &key.name).await?;
                None
            }
            FargateProfileRecord::RESOURCE => self.fargate.keep(account, gate(), &key.namespace).await?,
            NodeGroupRecord::RESOURCE => self.node_groups.keep(account, gate(), key).await?,
            Observed::RESOURCE => {
                let running = daemon.clusters.get(&key.namespace);
                insights::keep(account, running.as_deref(), &key.namespace).await?
            }
            _ => node_groups::keep_group(account, &key.name).await?,
        })
    }
}

/// The keys that have something to do in their cluster once it runs.
fn of_running(account: &Snapshot) -> Vec<Key> {
    let groups = account.list(NodeGroupRecord::RESOURCE, "").map(|object| object.key.clone());
    groups.chain(fargate::all(account)).collect()
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
