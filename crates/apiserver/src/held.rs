//! Snapshots that continue tokens hold.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use object::{Resource, Revision, Snapshot};
use tokio::time::Instant;

/// Snapshots that continue tokens go on in, each of one resource: of another one it need not be the state at this revision.
#[derive(Default)]
pub(crate) struct Held {
    by_revision: Mutex<BTreeMap<(Revision, Resource), (Instant, State)>>,
}

/// What a token goes on in.
#[derive(Clone)]
pub(crate) enum State {
    Here(Snapshot),
    /// It was past when the list began: not held, since others do not share it, but found again ([`crate::past`]).
    Past,
}

impl Held {
    /// `told` has the revision that the client was told: a snapshot is as good as an older one if nothing of the resource has changed in between.
    pub(crate) fn keep(&self, told: (Revision, Resource), state: State, lifetime: Duration, most: usize) {
        let now = Instant::now();
        let mut held = self.by_revision.lock().unwrap_or_else(PoisonError::into_inner);
        held.retain(|_, (since, _)| now.duration_since(*since) < lifetime);
        while held.len() >= most.max(1) {
            held.pop_first();
        }
        held.entry(told).or_insert_with(|| (now, state));
    }

    pub(crate) fn get(&self, told: (Revision, Resource), lifetime: Duration) -> Option<State> {
        let held = self.by_revision.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, state) = held.get(&told)?;
        (since.elapsed() < lifetime).then(|| state.clone())
    }
}
