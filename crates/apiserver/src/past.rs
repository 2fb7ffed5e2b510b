//! What a resource was at an earlier revision: the newest state with what has changed since taken back, as far as the log knows it.

use std::collections::BTreeMap;
use std::sync::Arc;

use object::{Key, Object, Resource, Revision, Snapshot};

use crate::shared::Shared;

/// A state in which this resource is as it was at a revision; of others it says nothing. `now` is a state that is not older.
/// None: the log does not go back so far.
pub(crate) async fn at(
    shared: &Shared,
    now: &Snapshot,
    resource: Resource,
    revision: Revision,
) -> Option<Snapshot> {
    let mut log = shared.store().watch(Some(resource), revision).ok()?;
    // What each object was before the first change to it since.
    let mut before: BTreeMap<Key, Option<Arc<Object>>> = BTreeMap::new();
    loop {
        let events = log.take().ok()?;
        for event in events.iter().filter(|event| event.revision <= now.revision()) {
            before.entry(event.key().clone()).or_insert_with(|| event.previous.clone());
        }
        if events.is_empty() {
            if log.progress() >= now.revision() {
                break;
            }
            // A state is there a moment before its changes are.
            tokio::task::yield_now().await;
        }
    }
    let mut past = now.clone();
    for (key, object) in before {
        match object {
            Some(object) => drop(past.put(again(&object))),
            None => drop(past.remove(&key, revision)),
        }
    }
    Some(past)
}

/// The same object once more: its bytes are shared.
fn again(object: &Object) -> Object {
    Object {
        key: object.key.clone(),
        revision: object.revision,
        meta: object.meta.clone(),
        fields: object.fields.clone(),
        body: object.body.clone(),
    }
}
