//! etcd's state and changes into the hub: one list, then one watch from there, for ever.
//!
//! The watch is of every key, not only of ours: so it passes every revision there is, and waiting for the revision of a linearizable read always
//! ends. (Progress notifications would serve too, but etcd before 3.4.25 and 3.5.8 may send them ahead of changes that they claim to include.)

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use object::{Draft, Event, Key, Resource, Revision, Snapshot};
use tonic::Status;

use super::keys::{Keys, ROOT};
use super::wire::{Client, DELETE, KeyValue, RangeRequest, WatchResponse};
use super::{Import, Imported};
use crate::hub::Hub;
use crate::sealing::Opened;
use crate::{SealError, Sealing};

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

/// Everything at one revision.
pub(super) struct Listed {
    pub(super) state: Snapshot,
    /// What cannot be read, with the reasons.
    pub(super) unreadable: Vec<(Key, Unread)>,
    /// Something is under another key than new values are, or plain where they are sealed.
    pub(super) is_stale: bool,
}

/// Why a watch ended.
enum End {
    /// etcd no longer has the changes that come next.
    Compacted,
    Lost(Status),
}

/// What a response told.
#[derive(Default)]
struct Applied {
    events: Vec<Arc<Event>>,
    /// Resources of what can never be read.
    spoiled: Vec<Resource>,
}

/// A value.
struct Read {
    draft: Draft,
    /// New values are written otherwise.
    is_stale: bool,
}

/// Why a value could not be read.
#[derive(Debug)]
pub(super) enum Unread {
    /// A key is missing that may be there later: a KMS is out of reach, or another server writes with keys that this one is yet to be given.
    Yet(String),
    Ever(String),
}

impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Yet(why) | Self::Ever(why)) = self;
        f.write_str(why)
    }
}

impl From<SealError> for Unread {
    fn from(error: SealError) -> Self {
        match error {
            SealError::Kms { .. } | SealError::UnknownKey { .. } => Self::Yet(error.to_string()),
            _ => Self::Ever(error.to_string()),
        }
    }
}

/// Marks what can never be read: another server wrote it while this one ran.
///
/// # Errors
/// It may be readable later.
fn spoil(state: &mut Snapshot, key: Key, why: Unread, revision: Revision) -> Result<(), Status> {
    match why {
        Unread::Yet(why) => Err(Status::unavailable(why)),
        // What is wrong with it may quote the value.
        Unread::Ever(_) => {
            tracing::error!(%key, revision, "etcd holds an object that cannot be read; its older state is kept, and given to nobody who asks for the newest");
            state.spoil(key, revision);
            Ok(())
        }
    }
}

/// A state that was listed anew takes over the older states of what cannot be read.
///
/// # Errors
/// As [`spoil`].
fn settled(listed: Listed, before: &Snapshot) -> Result<Snapshot, Status> {
    let Listed { mut state, unreadable, .. } = listed;
    let revision = state.revision();
    for (key, why) in unreadable {
        if let Some(old) = before.get(&key) {
            let stored = object::body::without_revision(&old.body);
            let draft =
                Draft { key: key.clone(), meta: old.meta.clone(), fields: old.fields.clone(), stored };
            drop(state.put(draft.at(old.revision)));
        }
        spoil(&mut state, key, why, revision)?;
    }
    Ok(state)
}

impl Source {
    pub(super) async fn list(&self) -> Result<Listed, Status> {
        let (mut state, mut unreadable, mut is_stale) = (Snapshot::default(), Vec::new(), false);
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
                    Ok(read) => {
                        is_stale |= read.is_stale;
                        drop(state.put(read.draft.at(kv.mod_revision as u64)));
                    }
                    Err(why) => unreadable.push((key, why)),
                }
            }
            match page.kvs.last() {
                Some(last) if page.more => request.key = [&last.key[..], b"\0"].concat(),
                _ => break,
            }
        }
        state.advance(request.revision as u64);
        Ok(Listed { state, unreadable, is_stale })
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
                    Ok(listed) => match settled(listed, &hub.snapshot()) {
                        Ok(state) => {
                            hub.restart(state);
                            continue;
                        }
                        Err(status) => status,
                    },
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
            // What was taken over of a response that cannot be read yet is given up: the next watch brings it again.
            let Applied { events, spoiled } = match self.apply(&mut state, response).await {
                Ok(applied) => applied,
                Err(status) => return End::Lost(status),
            };
            if state.revision() > hub.snapshot().revision() {
                hub.publish(state.clone(), &events);
            }
            // Who watches would go on with the older state as if it were the newest. Upstream's cache ends its watches then too.
            for resource in spoiled {
                hub.break_off(resource);
            }
        }
    }

    /// The changes of a response; etcd never divides a revision between two.
    async fn apply(&self, state: &mut Snapshot, response: WatchResponse) -> Result<Applied, Status> {
        let mut applied = Applied::default();
        for event in response.events {
            let Some(kv) = event.kv else { continue };
            let revision = kv.mod_revision as u64;
            let Some(key) = self.keys.read(&kv.key) else {
                // It is nothing of ours.
                state.advance(revision);
                continue;
            };
            let change = if event.kind == DELETE {
                state.remove(&key, revision)
            } else {
                match self.read(key.clone(), &kv).await {
                    Ok(read) => Some(state.put(read.draft.at(revision))),
                    Err(why) => {
                        applied.spoiled.push(key.resource);
                        spoil(state, key, why, revision)?;
                        None
                    }
                }
            };
            applied.events.extend(change.map(Arc::new));
            state.advance(revision);
        }
        Ok(applied)
    }

    async fn read(&self, key: Key, kv: &KeyValue) -> Result<Read, Unread> {
        let opened = match &self.sealing {
            None => Opened { plain: kv.value.clone(), is_stale: false },
            Some(sealing) => sealing.unseal(&key, &kv.key, &kv.value).await?,
        };
        let Imported { stored, fields } = (self.import)(key.resource, &opened.plain).map_err(Unread::Ever)?;
        let draft = Draft::read(key, fields, stored).map_err(|error| Unread::Ever(error.to_string()))?;
        Ok(Read { draft, is_stale: opened.is_stale })
    }
}
