//! Clusters whose objects concern something of the account: its key runs again when one of them changes.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use object::{Event, Key, Revision};
use store::{Store, Watch};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// What is followed, by the key that runs again.
pub struct Followed {
    wake: mpsc::UnboundedSender<Key>,
    tasks: Mutex<BTreeMap<Key, Following>>,
}

/// Ends with who follows.
struct Following {
    task: JoinHandle<()>,
    /// Set before its last wake: who is woken by that finds that nothing is followed any more. The task itself may still be returning then.
    is_over: Arc<AtomicBool>,
}

impl Drop for Following {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Followed {
    /// `wake` is told the keys.
    pub fn new(wake: mpsc::UnboundedSender<Key>) -> Self {
        Self { wake, tasks: Mutex::default() }
    }

    /// Has a key run whenever something that concerns it changes in a store after `seen`, until it is [forgotten](Self::forget); whether
    /// that was not so before.
    pub fn follow(
        &self,
        key: &Key,
        store: &Arc<dyn Store>,
        seen: Revision,
        concerns: fn(&Event) -> bool,
    ) -> bool {
        let mut tasks = self.tasks();
        // The store of a control plane that was started anew is another one: then the task has ended.
        if tasks.get(key).is_some_and(|known| !known.is_over.load(Ordering::Acquire)) {
            return false;
        }
        // Whoever follows holds the log and not the store: that is let go of when its control plane is.
        let watch = store.watch(None, seen).ok();
        let is_over = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn(follow(self.wake.clone(), key.clone(), watch, concerns, is_over.clone()));
        tasks.insert(key.clone(), Following { task, is_over });
        true
    }

    pub fn forget(&self, key: &Key) {
        self.tasks().remove(key);
    }

    fn tasks(&self) -> MutexGuard<'_, BTreeMap<Key, Following>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `watch`: none of a log that begins later than what was seen.
async fn follow(
    wake: mpsc::UnboundedSender<Key>,
    key: Key,
    watch: Option<Watch>,
    concerns: fn(&Event) -> bool,
    is_over: Arc<AtomicBool>,
) {
    if let Some(mut watch) = watch {
        while let Ok(events) = watch.next().await {
            let is_concerned = events.iter().any(|event| concerns(event));
            if is_concerned && wake.send(key.clone()).is_err() {
                return;
            }
        }
    }
    is_over.store(true, Ordering::Release);
    // What was missed, and the end of a log, are reasons to look. Nobody listens any more only when the keeper is gone.
    let _ = wake.send(key);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use kinds::NODES;
    use object::{Draft, body};
    use serde_json::json;
    use store::{Memory, Op, Transaction};

    use super::*;

    async fn create(store: &dyn Store, name: &str) {
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}});
        let draft = Draft::read(Key::cluster(NODES, name), Box::default(), body::encode(&node));
        let op = Op::create(draft.expect("a node"));
        store.commit(Transaction { ops: vec![op] }).await.expect("it is new");
    }

    #[tokio::test]
    async fn a_key_runs_again_when_something_changes_that_concerns_it_and_when_the_store_closes() {
        let (wake, mut woken) = mpsc::unbounded_channel();
        let followed = Followed::new(wake);
        let store: Arc<dyn Store> = Arc::new(Memory::new());
        let key = Key::cluster(NODES, "key");
        let follow = || {
            let seen = store.snapshot().revision();
            followed.follow(&key, &store, seen, |event| &*event.key().name == "ours")
        };
        assert!(follow());
        assert!(!follow(), "it is followed already");
        create(&*store, "theirs").await;
        create(&*store, "ours").await;
        assert_eq!(woken.recv().await, Some(key.clone()));
        assert!(woken.try_recv().is_err(), "once, for what concerns it");
        store.close().await;
        let last = tokio::time::timeout(Duration::from_secs(10), woken.recv()).await;
        assert_eq!(last.expect("the end of a store is news"), Some(key.clone()));
    }

    /// The wake comes on a thread of its own, while the task that sent it returns on another.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn who_is_woken_by_the_end_of_a_store_can_follow_the_next_at_once() {
        let (wake, mut woken) = mpsc::unbounded_channel();
        let followed = Followed::new(wake);
        let key = Key::cluster(NODES, "key");
        tokio::task::spawn_blocking(move || {
            let mut store: Arc<dyn Store> = Arc::new(Memory::new());
            for turn in 0..2_000 {
                assert!(followed.follow(&key, &store, store.snapshot().revision(), |_| true), "turn {turn}");
                tokio::runtime::Handle::current().block_on(store.close());
                store = Arc::new(Memory::new());
                assert_eq!(woken.blocking_recv(), Some(key.clone()));
            }
        })
        .await
        .expect("it was followed each time");
    }

    #[tokio::test]
    async fn what_is_forgotten_wakes_nobody_and_holds_no_store() {
        let (wake, mut woken) = mpsc::unbounded_channel();
        let followed = Followed::new(wake);
        let store: Arc<dyn Store> = Arc::new(Memory::new());
        let key = Key::cluster(NODES, "key");
        assert!(followed.follow(&key, &store, store.snapshot().revision(), |_| true));
        assert_eq!(Arc::strong_count(&store), 1);
        followed.forget(&key);
        create(&*store, "ours").await;
        drop(followed);
        assert_eq!(woken.recv().await, None, "the task has ended with what it would have told");
    }
}
