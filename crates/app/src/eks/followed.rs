//! Clusters whose objects concern something of the account: its key runs again when one of them changes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use object::{Event, Key, Revision};
use store::Store;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// What is followed, by the key that runs again.
pub struct Followed {
    wake: mpsc::UnboundedSender<Key>,
    tasks: Mutex<BTreeMap<Key, Following>>,
}

/// Ends with who follows.
struct Following(JoinHandle<()>);

impl Drop for Following {
    fn drop(&mut self) {
        self.0.abort();
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
        if tasks.get(key).is_some_and(|known| !known.0.is_finished()) {
            return false;
        }
        let task = tokio::spawn(follow(self.wake.clone(), key.clone(), store.clone(), seen, concerns));
        tasks.insert(key.clone(), Following(task));
        true
    }

    pub fn forget(&self, key: &Key) {
        self.tasks().remove(key);
    }

    fn tasks(&self) -> MutexGuard<'_, BTreeMap<Key, Following>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn follow(
    wake: mpsc::UnboundedSender<Key>,
    key: Key,
    store: Arc<dyn Store>,
    seen: Revision,
    concerns: fn(&Event) -> bool,
) {
    // A log that begins later than what was seen, and one that ends, are reasons to look, too.
    if let Ok(mut watch) = store.watch(None, seen) {
        while let Ok(events) = watch.next().await {
            let is_concerned = events.iter().any(|event| concerns(event));
            if is_concerned && wake.send(key.clone()).is_err() {
                return;
            }
        }
    }
    // Nobody listens any more only when the keeper is gone.
    let _ = wake.send(key);
}
