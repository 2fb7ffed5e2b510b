//! A transaction as etcd takes it, and what to make of its answers, or of none.

use std::sync::Arc;

use bytes::Bytes;
use object::{Change, Event, Revision, Snapshot};
use tonic::{Code, Status};

use super::Etcd;
use super::wire::{
    AnyRequest, Compare, DeleteRequest, PutRequest, RangeRequest, RequestOp, TxnRequest, TxnResponse,
};
use crate::{Commit, CommitError, Op, Precondition, Put, StoreError, Transaction, apply};

impl Etcd {
    pub(super) async fn transact(&self, transaction: Transaction) -> Result<Commit, CommitError> {
        apply::validate(&transaction, crate::MAX_OPS)?;
        if self.hub.is_closed() {
            return Err(StoreError::Closed.into());
        }
        let before = self.hub.snapshot();
        let values = self.values(&transaction)?;
        match self.client.txn(self.request(&transaction, &values)).await {
            Ok(answer) if answer.succeeded && answer.changed() => {
                self.happened(transaction, revision(&answer), &before).await
            }
            Ok(answer) if answer.succeeded => Ok(Commit { revision: revision(&answer), events: Vec::new() }),
            Ok(answer) => Err(self.failed_precondition(&transaction, &answer)),
            Err(status) if is_unknown(&status) => self.settle(transaction, &values, &before, &status).await,
            Err(status) => Err(store_error(&status).into()),
        }
    }

    /// What is to be put for each operation: the object, sealed if it is to be.
    fn values(&self, transaction: &Transaction) -> Result<Vec<Bytes>, StoreError> {
        let value = |op: &Op| {
            let Put::Object(draft) = &op.put else { return Ok(Bytes::new()) };
            let sealed = match &self.sealing {
                Some(sealing) => sealing.seal(&op.key, &self.keys.write(&op.key), &draft.stored)?,
                None => None,
            };
            Ok(sealed.map_or_else(|| draft.stored.clone(), Bytes::from))
        };
        transaction.ops.iter().map(value).collect()
    }

    fn request(&self, transaction: &Transaction, values: &[Bytes]) -> TxnRequest {
        let mut request = TxnRequest::default();
        for (op, value) in transaction.ops.iter().zip(values) {
            let key = self.keys.write(&op.key);
            match op.precondition {
                Precondition::Absent => request.compare.push(Compare::modified_at(key.clone(), 0)),
                // No key has ever been changed at 0, which etcd takes for "absent", nor at -1.
                Precondition::At(0) => request.compare.push(Compare::modified_at(key.clone(), u64::MAX)),
                Precondition::At(revision) => {
                    request.compare.push(Compare::modified_at(key.clone(), revision))
                }
                Precondition::Unchecked => {}
            }
            match &op.put {
                Put::Object(_) => {
                    let put = PutRequest { key, value: value.clone() };
                    request.success.push(AnyRequest::Put(put).into());
                }
                Put::Delete => request.success.push(AnyRequest::Delete(DeleteRequest { key }).into()),
                Put::Nothing => {}
            }
        }
        request.failure = self.reads(transaction, true);
        request
    }

    /// A read of each key of the transaction.
    fn reads(&self, transaction: &Transaction, keys_only: bool) -> Vec<RequestOp> {
        let read = |op: &Op| {
            let key = self.keys.write(&op.key);
            AnyRequest::Range(RangeRequest { key, keys_only, ..RangeRequest::default() }).into()
        };
        transaction.ops.iter().map(read).collect()
    }

    fn failed_precondition(&self, transaction: &Transaction, answer: &TxnResponse) -> CommitError {
        for (at, op) in transaction.ops.iter().enumerate() {
            let key = self.keys.write(&op.key);
            let revision =
                answer.found().find(|kv| kv.key == key).map_or(0, |kv| kv.mod_revision as Revision);
            let holds = match op.precondition {
                Precondition::Absent => revision == 0,
                Precondition::At(expected) => revision == expected && revision != 0,
                Precondition::Unchecked => true,
            };
            if !holds {
                return CommitError::Precondition { op: at, key: op.key.clone(), revision };
            }
        }
        StoreError::Unavailable("etcd refused a transaction whose preconditions hold".to_owned()).into()
    }

    /// The transaction stands in etcd at this revision: waits until the feed has brought it. `before`: the state that it was sent on.
    async fn happened(
        &self,
        transaction: Transaction,
        revision: Revision,
        before: &Snapshot,
    ) -> Result<Commit, CommitError> {
        // Closed now or not, the write is done; but whoever asked can no longer see it here.
        self.hub.reached(revision).await.ok_or(StoreError::Closed)?;
        let mut told = match self.hub.watch(None, revision - 1) {
            Ok(mut watch) => watch.take().unwrap_or_default(),
            Err(_) => Vec::new(),
        };
        told.retain(|event| event.revision == revision);
        let mut events = Vec::with_capacity(transaction.ops.len());
        for op in transaction.ops {
            match (told.iter().find(|event| *event.key() == op.key), op.put) {
                (Some(event), _) => events.push(event.clone()),
                // The window has moved on already: the event without what was before.
                (None, Put::Object(draft)) => {
                    let change = if op.precondition == Precondition::Absent {
                        Change::Created
                    } else {
                        Change::Updated
                    };
                    let object = Arc::new(draft.at(revision));
                    events.push(Arc::new(Event { revision, change, object, previous: None }));
                }
                // Nor can it tell what went: that is what there was before.
                (None, Put::Delete) => {
                    events.extend(before.clone().remove(&op.key, revision).map(Arc::new));
                }
                (None, Put::Nothing) => {}
            }
        }
        Ok(Commit { revision, events })
    }

    /// etcd did not say whether it happened. A linearizable read does: if the keys hold what was to be written, all at one revision that is
    /// newer than what was known before, it did. A deletion is found in the feed. If neither is seen, the caller may try again: the
    /// preconditions keep a late success from happening twice.
    async fn settle(
        &self,
        transaction: Transaction,
        values: &[Bytes],
        before: &Snapshot,
        status: &Status,
    ) -> Result<Commit, CommitError> {
        let unknown = || CommitError::Store(store_error(status));
        let reads = TxnRequest { success: self.reads(&transaction, false), ..TxnRequest::default() };
        let Ok(answer) = self.client.txn(reads).await else { return Err(unknown()) };
        self.hub.reached(revision(&answer)).await.ok_or(StoreError::Closed)?;
        let mut at = None;
        for (op, value) in transaction.ops.iter().zip(values) {
            let key = self.keys.write(&op.key);
            let held = answer.found().find(|kv| kv.key == key);
            let seen = match (&op.put, held) {
                (Put::Object(_), Some(kv)) if kv.value == *value => Some(kv.mod_revision as Revision),
                (Put::Object(_), _) | (Put::Delete, Some(_)) => None,
                (Put::Delete, None) => self.deletion(op, before.revision()),
                (Put::Nothing, _) => continue,
            };
            match seen {
                Some(revision) if revision > before.revision() && at.is_none_or(|at| at == revision) => {
                    at = Some(revision)
                }
                _ => return Err(unknown()),
            }
        }
        match at {
            Some(revision) => self.happened(transaction, revision, before).await,
            None => Err(unknown()),
        }
    }

    /// The newest deletion of a key after a revision, if the window still has it.
    fn deletion(&self, op: &Op, before: Revision) -> Option<Revision> {
        let events = self.hub.watch(Some(op.key.resource), before).ok()?.take().ok()?;
        let deleted = |event: &&Arc<Event>| event.change == Change::Deleted && *event.key() == op.key;
        events.iter().rev().find(deleted).map(|event| event.revision)
    }
}

fn revision(answer: &TxnResponse) -> Revision {
    answer.header.map_or(0, |header| header.revision as Revision)
}

/// Whether the request may have been carried out although it failed.
fn is_unknown(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Aborted
            | Code::Cancelled
            | Code::DeadlineExceeded
            | Code::Internal
            | Code::Unavailable
            | Code::Unknown
    )
}

pub(super) fn store_error(status: &Status) -> StoreError {
    match status.code() {
        Code::ResourceExhausted if status.message().contains("space exceeded") => {
            StoreError::Full { path: "etcd (its quota of bytes)".to_owned() }
        }
        Code::InvalidArgument if status.message().contains("too large") => StoreError::TooLarge,
        Code::InvalidArgument => StoreError::Malformed(status.message().to_owned()),
        _ => StoreError::Unavailable(status.message().to_owned()),
    }
}
