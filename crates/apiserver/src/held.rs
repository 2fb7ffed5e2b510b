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
        if held.contains_key(&told) {
            return;
        }
        while held.len() >= most.max(1)
            && let Some(oldest) = held.iter().min_by_key(|(_, (since, _))| *since).map(|(told, _)| *told)
        {
            held.remove(&oldest);
        }
        held.insert(told, (now, state));
    }

    pub(crate) fn get(&self, told: (Revision, Resource), lifetime: Duration) -> Option<State> {
        let held = self.by_revision.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, state) = held.get(&told)?;
        (since.elapsed() < lifetime).then(|| state.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PODS: Resource = Resource::new("pods");
    const LIFETIME: Duration = Duration::from_secs(300);

    /// By when it was begun, not by its revision: a list of the past may begin later than one of a newer state.
    #[tokio::test(start_paused = true)]
    async fn what_is_held_longest_gives_way() {
        let held = Held::default();
        let keep = async |revision| {
            held.keep((revision, PODS), State::Past, LIFETIME, 2);
            tokio::time::advance(Duration::from_secs(1)).await;
        };
        let are_held = || [3, 7, 8, 9].map(|revision| held.get((revision, PODS), LIFETIME).is_some());
        for (revision, expected) in [
            (7, [false, true, false, false]),
            (8, [false, true, true, false]),
            (3, [true, false, true, false]),
            // The next page of one that is held takes no place.
            (8, [true, false, true, false]),
            (9, [true, false, false, true]),
        ] {
            keep(revision).await;
            assert_eq!(are_held(), expected, "{revision}");
        }
    }
}
