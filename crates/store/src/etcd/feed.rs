//! etcd's state and changes into the hub: one list, then one watch from there, for ever.
//!
//! The watch is of every key, not only of ours: so it passes every revision there is, and waiting for the revision of a linearizable read always
//! ends. (Progress notifications would serve too, but etcd before 3.4.25 and 3.5.8 may send them ahead of changes that they claim to include.)

use std::sync::Arc;
use std::time::Duration;

use object::{Draft, Event, Key, Snapshot};
use tonic::Status;

use super::keys::{Keys, ROOT};
use super::wire::{Client, DELETE, KeyValue, RangeRequest, WatchResponse};
use super::{Import, Imported};
use crate::Sealing;
use crate::hub::Hub;

/// Objects of one page of the first list.
const PAGE: i64 = 1000;
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MOST: Duration = Duration::from_secs(5);

/// Reads what etcd holds.
pub(super) struct Source {
    pub(super) client: Client,
    pub(super) keys: Arc<Keys>,
    pub(super) import: Import,
    pub(super) sealing: Option<Arc<Sealing>>,
}

/// Why a watch ended.
enum End {
    /// etcd no longer has the changes that come next.
    Compacted,
    Lost(Status),
}

/// Another server wrote it while this one ran.
fn left_out(key: &Key, why: &str) {
    tracing::error!(%key, why, "etcd holds an object that cannot be read; it is left out");
}

impl Source {
    /// Everything at one revision; and what of it cannot be read, with the reasons.
    pub(super) async fn list(&self) -> Result<(Snapshot, Vec<(Key, String)>), Status> {
        let (mut state, mut unreadable) = (Snapshot::default(), Vec::new());
        let mut request = RangeRequest {
            key: ROOT.into(),
            // The first key behind all that begin with the root.
            range_end: [&ROOT.as_bytes()[..ROOT.len() - 1], b"0"].concat(),
            limit: PAGE,
            ..RangeRequest::default()
        };
        loop {
            let page = self.client.range(request.clone()).await?;
            if request.revision == 0 {
                request.revision = page.header.map_or(0, |header| header.revision);
            }
            for kv in &page.kvs {
                let Some(key) = self.keys.read(&kv.key) else { continue };
                match self.read(key.clone(), kv).await {
                    Ok(draft) => drop(state.put(draft.at(kv.mod_revision as u64))),
                    Err(why) => unreadable.push((key, why)),
                }
            }
            match page.kvs.last() {
                Some(last) if page.more => request.key = [&last.key[..], b"\0"].concat(),
                _ => break,
            }
        }
        state.advance(request.revision as u64);
        Ok((state, unreadable))
    }

    /// Keeps the hub up to date until it is closed.
    pub(super) async fn follow(self, hub: Arc<Hub>) {
        let mut pause = RETRY_FIRST;
        while !hub.is_closed() {
            let reached = hub.snapshot().revision();
            let lost = match self.watch(&hub).await {
                End::Lost(status) => status,
                // Watchers learn that theirs is over, and list again too.
                End::Compacted => match self.list().await {
                    Ok((state, unreadable)) => {
                        unreadable.iter().for_each(|(key, why)| left_out(key, why));
                        hub.restart(state);
                        continue;
                    }
                    Err(status) => status,
                },
            };
            if hub.snapshot().revision() > reached {
                pause = RETRY_FIRST;
            }
            tracing::warn!(error = lost.message(), "etcd's changes stopped coming; trying again");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_MOST);
        }
    }

    async fn watch(&self, hub: &Hub) -> End {
        let mut state = hub.snapshot();
        let mut changes = match self.client.watch(state.revision() + 1).await {
            Ok(changes) => changes,
            Err(status) => return End::Lost(status),
        };
        loop {
            let response = match changes.message().await {
                Ok(Some(response)) => response,
                Ok(None) => return End::Lost(Status::unavailable("etcd ended the stream")),
                Err(status) => return End::Lost(status),
            };
            if response.compact_revision > 0 {
                return End::Compacted;
            }
            if response.canceled {
                return End::Lost(Status::unavailable(response.cancel_reason));
            }
            let events = self.apply(&mut state, response).await;
            if state.revision() > hub.snapshot().revision() {
                hub.publish(state.clone(), &events);
            }
        }
    }

    /// The changes of a response; etcd never divides a revision between two.
    async fn apply(&self, state: &mut Snapshot, response: WatchResponse) -> Vec<Arc<Event>> {
        let mut events = Vec::new();
        for event in response.events {
            let Some(kv) = event.kv else { continue };
            let revision = kv.mod_revision as u64;
            let change = if event.kind == DELETE {
                self.keys.read(&kv.key).and_then(|key| state.remove(&key, revision))
            } else {
                self.draft(&kv).await.map(|draft| state.put(draft.at(revision)))
            };
            events.extend(change.map(Arc::new));
            state.advance(revision);
        }
        events
    }

    async fn draft(&self, kv: &KeyValue) -> Option<Draft> {
        let key = self.keys.read(&kv.key)?;
        match self.read(key.clone(), kv).await {
            Ok(draft) => Some(draft),
            Err(why) => {
                left_out(&key, &why);
                None
            }
        }
    }

    async fn read(&self, key: Key, kv: &KeyValue) -> Result<Draft, String> {
        let value = match &self.sealing {
            None => kv.value.clone(),
            Some(sealing) => {
                let opened = sealing.unseal(&key, &kv.key, &kv.value).await;
                opened.map_err(|error| error.to_string())?.plain
            }
        };
        let Imported { stored, fields } = (self.import)(key.resource, &value)?;
        Draft::read(key, fields, stored).map_err(|error| error.to_string())
    }
}
