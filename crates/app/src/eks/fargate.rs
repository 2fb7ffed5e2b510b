//! `fargate-scheduler`: follows the pods of the clusters that have Fargate profiles, and carries out what `aws::control::fargate` decides.
//!
//! A cluster without profiles has no task here.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use account::Account;
use aws::control::{self, fargate};
use aws::ec2::record::Instance;
use aws::eks::{FargateNode, FargateProfile, FargateProfileRecord};
use aws::state::{self, Record};
use engine::Recorder;
use gate::Gate;
use object::{Key, Revision, Snapshot, Time};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinHandle};

use super::keeper::{Failure, Keeper, carry_out};
use crate::clock::now;
use crate::daemon::Daemon;
use crate::deciders::event_user;

/// What a cluster's admission asks of its account.
pub struct OnFargate {
    account: Arc<Account>,
    cluster: String,
    /// The profiles that hold, and the revision of the profiles that they were read at.
    held: Mutex<(Revision, Arc<[FargateProfile]>)>,
}

impl OnFargate {
    pub fn new(account: Arc<Account>, cluster: &str) -> Self {
        Self { account, cluster: cluster.to_owned(), held: Mutex::new((0, Arc::new([]))) }
    }

    /// Those that hold, read anew when one has changed.
    fn profiles(&self) -> Arc<[FargateProfile]> {
        let state = self.account.snapshot();
        let at = state.table(FargateProfileRecord::RESOURCE).map_or(0, |table| table.revision());
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.0 != at {
            let profiles = state::list::<FargateProfileRecord>(&state, &self.cluster).into_iter();
            let profiles = profiles.map(|kept| kept.record.shown);
            *held = (at, profiles.filter(|profile| profile.status == "ACTIVE").collect());
        }
        held.1.clone()
    }
}

impl gate::Fargate for OnFargate {
    fn profile_of(&self, namespace: &str, labels: &Value) -> Option<String> {
        let profiles = self.profiles();
        let label = |name: &str| labels[name].as_str().map(str::to_owned);
        let found = fargate::profile_of(profiles.iter(), namespace, &label);
        found.map(|profile| profile.fargate_profile_name.clone())
    }

    fn lacking(&self, container: &Value) -> Option<String> {
        fargate::lacking(container)
    }
}

/// How often a cluster that does not run is looked for.
const LOOK_AGAIN_MILLIS: i64 = 1_000;

/// The key of all that is on Fargate in a cluster.
pub fn key(cluster: &str) -> Key {
    Key::new(FargateProfileRecord::RESOURCE, cluster, "")
}

/// Whether a cluster has anything on Fargate.
pub fn has_any(account: &Snapshot, cluster: &str) -> bool {
    [FargateProfileRecord::RESOURCE, FargateNode::RESOURCE]
        .into_iter()
        .any(|resource| account.list(resource, cluster).next().is_some())
}

/// The clusters that are followed.
#[derive(Default)]
pub struct Followed(Mutex<BTreeMap<String, Following>>);

struct Following {
    recorder: Recorder,
    task: JoinHandle<()>,
    _end: End,
}

/// Ends the task when nobody follows any more.
struct End(AbortHandle);

impl Drop for End {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Followed {
    fn held(&self) -> MutexGuard<'_, BTreeMap<String, Following>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a cluster's key looked at whenever something changes there after `seen`, and gives who tells its pods what happens.
    fn follow(
        &self,
        cluster: &str,
        gate: &Arc<Gate>,
        seen: Revision,
        wake: &mpsc::UnboundedSender<Key>,
    ) -> Recorder {
        let mut held = self.held();
        // The store of a control plane that was started anew is another one: then the task has ended.
        if let Some(known) = held.get(cluster).filter(|known| !known.task.is_finished()) {
            return known.recorder.clone();
        }
        let recorder = Recorder::start(gate.clone(), Arc::new(now), event_user());
        let (gate, wake, key) = (gate.clone(), wake.clone(), key(cluster));
        let task = tokio::spawn(async move {
            let Ok(mut watch) = gate.store().watch(None, seen) else {
                // The log begins later than what was seen.
                let _ = wake.send(key);
                return;
            };
            while let Ok(events) = watch.next().await {
                if events.iter().any(|event| fargate::is_concerned(event.key()))
                    && wake.send(key.clone()).is_err()
                {
                    return;
                }
            }
            let _ = wake.send(key);
        });
        let end = End(task.abort_handle());
        held.insert(cluster.to_owned(), Following { recorder: recorder.clone(), task, _end: end });
        recorder
    }
}

/// One run for a cluster.
pub async fn keep(keeper: &Keeper, daemon: &Daemon, cluster: &str) -> Result<Option<Time>, Failure> {
    if !has_any(&keeper.account.snapshot(), cluster) {
        keeper.fargate.held().remove(cluster);
        return Ok(None);
    }
    let gate = daemon.clusters.get(cluster).map(|cluster| cluster.gate.clone());
    let Some(gate) = gate else {
        keeper.fargate.held().remove(cluster);
        return Ok(Some(now().plus_millis(LOOK_AGAIN_MILLIS)));
    };
    let objects = gate.store().snapshot();
    let planned = Mutex::new(control::Plan::default());
    keeper
        .account
        .change(|context| {
            let mut plan = fargate::reconcile(context, &|_| Some(objects.clone()), cluster);
            let changes = std::mem::take(&mut plan.changes);
            *planned.lock().unwrap_or_else(PoisonError::into_inner) = plan;
            changes
        })
        .await?;
    let plan = planned.into_inner().unwrap_or_else(PoisonError::into_inner);
    let recorder = keeper.fargate.follow(cluster, &gate, objects.revision(), &keeper.wake);
    carry_out(&gate, plan.in_cluster, fargate::SCHEDULER, Some(&recorder)).await;
    Ok(plan.wake_at)
}

/// The clusters whose pods on Fargate a change in the account concerns.
pub fn concerned(account: &Snapshot, changed: &Key) -> Option<Key> {
    if changed.resource == Instance::RESOURCE {
        let instance = state::get::<Instance>(account, "", &changed.name)?.record;
        return Some(key(&instance.fargate?.cluster));
    }
    let cluster = if changed.namespace.is_empty() { &changed.name } else { &changed.namespace };
    let is_concerned = fargate::is_concerned_by_account(changed, cluster);
    // The last of a cluster's records, when it goes, ends the following.
    let is_own = [FargateProfileRecord::RESOURCE, FargateNode::RESOURCE].contains(&changed.resource);
    (is_concerned && (is_own || has_any(account, cluster))).then(|| key(cluster))
}

/// The keys of all clusters that have anything on Fargate.
pub fn all(account: &Snapshot) -> Vec<Key> {
    let mut keys: Vec<Key> = [FargateProfileRecord::RESOURCE, FargateNode::RESOURCE]
        .into_iter()
        .flat_map(|resource| account.list(resource, "").map(|object| key(&object.key.namespace)))
        .collect();
    keys.sort();
    keys.dedup();
    keys
}
