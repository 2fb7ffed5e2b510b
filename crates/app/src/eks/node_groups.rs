//! Auto Scaling groups, and the managed node groups that they belong to.

use std::sync::Arc;

use account::{Account, OpenError};
use aws::control::{group, node_group};
use aws::eks::NodeGroupRecord;
use aws::state;
use gate::Gate;
use object::{Key, Time};
use tokio::sync::mpsc;

use super::followed::Followed;
use super::in_cluster;
use crate::clock::now;

/// When a cluster is asked again for what it refused: nothing there may change that would say when it is taken.
const REFUSED_AGAIN_MILLIS: i64 = 500;

/// One run for an Auto Scaling group.
pub async fn keep_group(account: &Account, name: &str) -> Result<Option<Time>, OpenError> {
    let plan = in_cluster::commit(account, |context| group::reconcile(context, name)).await?;
    Ok(plan.wake_at)
}

/// The clusters whose nodes come and go.
pub struct NodeGroups {
    followed: Followed,
}

impl NodeGroups {
    /// `wake` is told the keys that are to run again.
    pub fn new(wake: mpsc::UnboundedSender<Key>) -> Self {
        Self { followed: Followed::new(wake) }
    }

    /// One run for a node group, of whose cluster's control plane `gate` is, if it runs.
    pub async fn keep(
        &self,
        account: &Account,
        gate: Option<Arc<Gate>>,
        key: &Key,
    ) -> Result<Option<Time>, OpenError> {
        let (cluster, name) = (&*key.namespace, &*key.name);
        let objects = gate.as_ref().map(|gate| gate.store().snapshot());
        let decide =
            |context: &mut aws::Context| node_group::reconcile(context, &|_| objects.clone(), cluster, name);
        let plan = in_cluster::commit(account, decide).await?;
        // Without a control plane there is nothing to follow: the key runs again when one starts.
        let Some((gate, seen)) = gate.zip(objects.as_ref().map(|objects| objects.revision())) else {
            self.followed.forget(key);
            return Ok(plan.wake_at);
        };
        if is_moving(account, key) {
            self.followed.follow(key, gate.store(), seen, node_group::is_concerned);
        } else {
            self.followed.forget(key);
        }
        let are_taken = in_cluster::carry_out(&gate, plan.in_cluster, "node-group", None).await;
        let again = (!are_taken).then(|| now().plus_millis(REFUSED_AGAIN_MILLIS));
        Ok(plan.wake_at.into_iter().chain(again).min())
    }
}

/// Whether what is next depends on the group's nodes.
fn is_moving(account: &Account, key: &Key) -> bool {
    let group = state::get::<NodeGroupRecord>(&account.snapshot(), &key.namespace, &key.name);
    group
        .is_some_and(|kept| matches!(kept.record.shown.status.as_str(), "CREATING" | "UPDATING" | "DELETING"))
}
