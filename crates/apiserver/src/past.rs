//! What a resource was at an earlier revision: the newest state with what has changed since taken back, as far as the log knows it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use object::{Key, Object, Resource, Revision, Snapshot};
use store::Store;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// So many changes are taken back at most, which takes some tens of milliseconds. What lies behind more of them is too old, as it is for
/// upstream when it was compacted.
pub(crate) const MOST_CHANGES: usize = 4096;
/// So many states are remembered, for whoever asks for the same ones: each holds the objects that were there then.
const MOST_STATES: usize = 4;
/// After so many changes others have their turn.
const TURN: usize = 256;

/// The past states that were asked for last.
#[derive(Default)]
pub(crate) struct Past {
    /// The oldest first. Held while one is made: one is made at a time, and whoever waits for the same one finds it.
    states: Mutex<VecDeque<State>>,
}

struct State {
    of: (Resource, Revision),
    since: Instant,
    snapshot: Snapshot,
}

impl Past {
    /// The objects of a resource as they were at a revision that the store has reached; the snapshot says nothing of others. None: the log
    /// does not go back so far, or too much has changed since.
    pub(crate) async fn at(
        &self,
        store: &dyn Store,
        resource: Resource,
        revision: Revision,
        lifetime: Duration,
    ) -> Option<Snapshot> {
        let mut states = self.states.lock().await;
        states.retain(|state| state.since.elapsed() < lifetime);
        if let Some(known) = states.iter().find(|state| state.of == (resource, revision)) {
            return Some(known.snapshot.clone());
        }
        let snapshot = taken_back(store, resource, revision).await?;
        if states.len() >= MOST_STATES {
            states.pop_front();
        }
        let since = Instant::now();
        states.push_back(State { of: (resource, revision), since, snapshot: snapshot.clone() });
        Some(snapshot)
    }
}

async fn taken_back(store: &dyn Store, resource: Resource, revision: Revision) -> Option<Snapshot> {
    let now = store.snapshot();
    let before = changed_since(store, resource, revision, now.revision()).await?;
    let mut past = now.aside(resource);
    drop(now);
    for (nth, (key, object)) in before.into_iter().enumerate() {
        if nth % TURN == TURN - 1 {
            tokio::task::yield_now().await;
        }
        past.take_back(&key, object);
    }
    Some(past)
}

/// What each object was before the first change to it behind a revision, up to another one that the store has reached.
async fn changed_since(
    store: &dyn Store,
    resource: Resource,
    revision: Revision,
    until: Revision,
) -> Option<BTreeMap<Key, Option<Arc<Object>>>> {
    let mut log = store.watch(Some(resource), revision).ok()?;
    let mut before = BTreeMap::new();
    let mut changes = 0;
    loop {
        for event in log.take().ok()? {
            if event.revision > until {
                return Some(before);
            }
            changes += 1;
            if changes > MOST_CHANGES {
                return None;
            }
            before.entry(event.key().clone()).or_insert_with(|| event.previous.clone());
        }
        if log.progress() >= until {
            return Some(before);
        }
        // There is more, or will be: a state is there a moment before its changes are.
        tokio::task::yield_now().await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use object::{Draft, body};
    use serde_json::json;
    use store::{MAX_OPS, Memory, Op, Precondition, Put, Transaction};

    use super::*;

    const PODS: Resource = Resource::new("pods");
    const LIFETIME: Duration = Duration::from_secs(300);

    /// Writes so many objects, anew if they are there.
    async fn write(store: &Memory, count: usize, value: usize) -> Revision {
        let op = |nth: usize| {
            let text = json!({"metadata": {"name": format!("p-{nth}"), "labels": {"v": value.to_string()}}});
            let key = Key::new(PODS, "a", format!("p-{nth}"));
            let draft = Draft::read(key.clone(), [].into(), body::encode(&text)).expect("a draft");
            Op { key, precondition: Precondition::Unchecked, put: Put::Object(draft) }
        };
        let ops: Vec<Op> = (0..count).map(op).collect();
        for ops in ops.chunks(MAX_OPS) {
            store.commit(Transaction { ops: ops.to_vec() }).await.expect("written");
        }
        store.snapshot().revision()
    }

    #[tokio::test]
    async fn objects_are_shared_with_the_log_and_states_with_whoever_asks() {
        let store = Memory::new();
        let then = write(&store, 2, 0).await;
        let held = store.snapshot();
        write(&store, 3, 1).await;
        let past = Past::default();
        let ask = |revision| past.at(&store, PODS, revision, LIFETIME);
        let first = ask(then).await.expect("the past");
        assert_eq!(first.list(PODS, "").count(), 2);
        for object in held.list(PODS, "") {
            assert!(Arc::ptr_eq(object, first.get(&object.key).expect("it was there")), "a copy");
        }
        let again = ask(then).await.expect("the past");
        let tables = |snapshot: &Snapshot| std::ptr::from_ref(snapshot.table(PODS).expect("objects"));
        assert_eq!(tables(&first), tables(&again), "one state for both");
        for value in 2..MOST_STATES + 10 {
            let newest = store.snapshot().revision();
            write(&store, 1, value).await;
            assert!(ask(newest).await.is_some());
            assert!(past.states.lock().await.len() <= MOST_STATES);
        }
        assert_ne!(tables(&first), tables(&ask(then).await.expect("the past")), "it was given up");
    }

    #[tokio::test]
    async fn what_lies_behind_too_many_changes_is_too_old() {
        let store = Memory::new();
        let then = write(&store, 1, 0).await;
        write(&store, MOST_CHANGES / 2, 1).await;
        write(&store, MOST_CHANGES / 2, 2).await;
        let past = Past::default();
        let turns = Arc::new(AtomicUsize::new(0));
        let other = tokio::spawn({
            let turns = turns.clone();
            async move {
                loop {
                    turns.fetch_add(1, Ordering::Relaxed);
                    tokio::task::yield_now().await;
                }
            }
        });
        assert_eq!(past.at(&store, PODS, then, LIFETIME).await.expect("the past").list(PODS, "").count(), 1);
        other.abort();
        let turns = turns.load(Ordering::Relaxed);
        assert!(turns >= MOST_CHANGES / 2 / TURN, "others had {turns} turns meanwhile");
        write(&store, 1, 3).await;
        let past = Past::default();
        assert!(past.at(&store, PODS, then, LIFETIME).await.is_none(), "one change too many");
        assert!(past.at(&store, PODS, then + 1, LIFETIME).await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_state_is_not_held_for_ever() {
        let store = Memory::new();
        let then = write(&store, 1, 0).await;
        let newer = write(&store, 1, 1).await;
        write(&store, 1, 2).await;
        let past = Past::default();
        past.at(&store, PODS, then, LIFETIME).await.expect("the past");
        tokio::time::advance(LIFETIME).await;
        past.at(&store, PODS, newer, LIFETIME).await.expect("the past");
        assert_eq!(past.states.lock().await.len(), 1);
    }
}
