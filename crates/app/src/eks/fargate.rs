//! `fargate-scheduler`: follows the pods of the clusters that have Fargate profiles, and carries out what `aws::control::fargate` decides.
//!
//! A cluster without profiles has no task here.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use account::Account;
use aws::control::fargate;
use aws::ec2::record::Instance;
use aws::eks::{FargateNode, FargateProfileRecord};
use aws::state::{self, Record};
use engine::Recorder;
use gate::Gate;
use object::{Event, Key, Revision, Snapshot, Time};
use tokio::sync::mpsc;

use super::followed::Followed;
use super::in_cluster;
use crate::clock::now;
use crate::deciders::event_user;

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

/// What is remembered of the clusters that have anything on Fargate.
pub struct Fargate {
    followed: Followed,
    /// Who tells their pods what happens.
    recorders: Mutex<BTreeMap<String, Recorder>>,
}

impl Fargate {
    /// `wake` is told the keys that are to run again.
    pub fn new(wake: mpsc::UnboundedSender<Key>) -> Self {
        Self { followed: Followed::new(wake), recorders: Mutex::default() }
    }

    fn recorders(&self) -> MutexGuard<'_, BTreeMap<String, Recorder>> {
        self.recorders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget(&self, cluster: &str) {
        self.followed.forget(&key(cluster));
        self.recorders().remove(cluster);
    }

    /// Has a cluster's key looked at whenever something changes there after `seen`, and gives who tells its pods what happens.
    fn follow(&self, cluster: &str, gate: &Arc<Gate>, seen: Revision) -> Recorder {
        let concerns = |event: &Event| fargate::is_concerned(event.key());
        let is_new = self.followed.follow(&key(cluster), gate.store(), seen, concerns);
        let start = || Recorder::start(gate.clone(), Arc::new(now), event_user());
        let mut recorders = self.recorders();
        if is_new {
            // The one that was there writes to a control plane that is gone.
            recorders.remove(cluster);
        }
        recorders.entry(cluster.to_owned()).or_insert_with(start).clone()
    }

    /// One run for a cluster, of whose control plane `gate` is, if it runs.
    pub async fn keep(
        &self,
        account: &Account,
        gate: Option<Arc<Gate>>,
        cluster: &str,
    ) -> Result<Option<Time>, account::OpenError> {
        let gate = gate.filter(|_| has_any(&account.snapshot(), cluster));
        // The key runs again when a control plane starts.
        let Some(gate) = gate else {
            self.forget(cluster);
            return Ok(None);
        };
        let objects = gate.store().snapshot();
        let decide =
            |context: &mut aws::Context| fargate::reconcile(context, &|_| Some(objects.clone()), cluster);
        let plan = in_cluster::commit(account, decide).await?;
        let recorder = self.follow(cluster, &gate, objects.revision());
        in_cluster::carry_out(&gate, plan.in_cluster, fargate::SCHEDULER, Some(&recorder)).await;
        Ok(plan.wake_at)
    }
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
