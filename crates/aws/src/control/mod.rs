//! What follows from the account's records: which instances come and go, when a node group is what it should be.
//!
//! A controller looks at one key and says what should be written, in the account or in a cluster. It knows no clock and starts no machine:
//! the app carries out what it says, runs its key again when something of it has changed, and starts and removes the machines of members.

pub mod fargate;
pub mod group;
pub mod node_group;
mod node_repair;
pub mod ready;
mod role_mapping;
mod rollout;
pub mod site_nodes;

use object::{Key, Snapshot, Time};
use plan::Write;

use crate::state::Changes;

/// What a controller wants done.
#[derive(Debug, Default, PartialEq)]
pub struct Plan {
    /// One transaction on the account.
    pub changes: Changes,
    /// Then these, in order, each for itself: one that is refused is asked for again the next time.
    pub in_cluster: Vec<InCluster>,
    /// Run the key again then, even if nothing changes.
    pub wake_at: Option<Time>,
}

impl Plan {
    fn wake(&mut self, at: Time) {
        self.wake_at = Some(self.wake_at.map_or(at, |known| known.min(at)));
    }
}

/// A write to a cluster's own store.
#[derive(Debug, PartialEq)]
pub enum InCluster {
    Write(Write),
    /// Writes in order until one fails, and what is told once they are done.
    Do(plan::Plan),
    /// Of a pod, as `kubectl drain` does it: disruption budgets are asked.
    Evict(Key),
}

/// The state of a cluster that runs here.
pub type Clusters<'a> = dyn Fn(&str) -> Option<Snapshot> + 'a;

#[cfg(test)]
mod tests;
