//! From a finished object to a transaction, and from a failed transaction to what the client hears.

use std::sync::Arc;

use object::{Draft, Event, Key, Meta, Object, Reason, Revision, Snapshot, Status, body};
use schema::Kind;
use serde::Deserialize;
use serde_json::Value;
use store::{CommitError, Op, Precondition, Put, StoreError, Transaction};

use crate::{Gate, Request};

/// Why a transaction did not happen.
pub(crate) enum Failed {
    /// A key has moved on: the first operation's (0, the object itself) or another one that the decision read.
    Raced {
        op: usize,
        revision: Revision,
    },
    Status(Status),
}

impl Gate {
    /// Commits; the first operation is the object that the request is about.
    pub(crate) async fn commit(&self, key: &Key, ops: Vec<Op>) -> Result<Vec<Arc<Event>>, Failed> {
        match self.store.commit(Transaction { ops }).await {
            Ok(commit) => Ok(commit.events),
            Err(CommitError::Precondition { op, revision, .. }) => Err(Failed::Raced { op, revision }),
            Err(CommitError::Store(error)) => Err(Failed::Status(store_status(key, "update", error))),
        }
    }

    /// A snapshot to decide on: the newest, or after a lost race one that shows who won it.
    pub(crate) async fn snapshot_after(&self, key: &Key, raced: Revision) -> Result<Snapshot, Status> {
        if raced == 0 {
            return Ok(self.store.snapshot());
        }
        self.store.read_at_least(raced).await.map_err(|error| store_status(key, "get", error))
    }

    /// As [`snapshot_after`](Self::snapshot_after), to decide on a change to an object that is there.
    ///
    /// # Errors
    /// 500 if the store's newest state of it cannot be read: nothing that is decided on an older one could be written.
    pub(crate) async fn newest_of(&self, key: &Key, raced: Revision) -> Result<Snapshot, Status> {
        let snapshot = self.snapshot_after(key, raced).await?;
        match snapshot.unreadable(key.resource, &key.namespace, Some(&key.name)) {
            Some(key) => Err(Status::unreadable(key)),
            None => Ok(snapshot),
        }
    }
}

/// What only the store sees: nothing of it is looked for.
pub(crate) fn bare(key: &Key, object: &Value) -> Draft {
    Draft { key: key.clone(), meta: Meta::default(), fields: [].into(), stored: body::encode(object) }
}

/// How the store's troubles look from outside.
pub(crate) fn store_status(key: &Key, operation: &str, error: StoreError) -> Status {
    match error {
        StoreError::TooLarge => Status::new(Reason::Unknown, error.to_string()),
        StoreError::Deposed { .. } => Status::new(Reason::ServiceUnavailable, error.to_string()),
        StoreError::Closed => Status::new(Reason::ServiceUnavailable, "apiserver is shutting down"),
        StoreError::Unavailable(_) => {
            let message = format!(
                "The {operation} operation against {} could not be completed at this time, please try again.",
                key.resource
            );
            let mut status = Status::new(Reason::ServerTimeout, message).about(key);
            status.name = operation.to_owned();
            status.retry_after_seconds = Some(2);
            status
        }
        StoreError::Full { .. }
        | StoreError::Io { .. }
        | StoreError::Malformed(_)
        | StoreError::Sealing(_) => Status::internal(error),
    }
}

/// The draft of a finished object. One that could not be read again is refused: nobody could delete it either.
pub(crate) fn draft(kind: &Kind, key: &Key, object: &Value) -> Result<Draft, Status> {
    if schema::patch::is_too_deep(object) {
        return Err(Status::bad_request(format!(
            "{key} exceeds the maximum depth: it is nested 128 levels deep or deeper"
        )));
    }
    let metadata = object.get("metadata").unwrap_or(&Value::Null);
    let meta = Meta::deserialize(metadata).map_err(Status::internal)?;
    Ok(Draft {
        key: key.clone(),
        meta,
        fields: selectable_values(kind, object),
        stored: body::encode(object),
    })
}

/// The values of a kind's selectable fields, in the order of its row. Those of custom resources differ by version and are not kept.
pub fn selectable_values(kind: &Kind, object: &Value) -> Box<[Box<str>]> {
    if kind.custom.is_some() {
        return Box::default();
    }
    kind.selectable.iter().map(|path| kind.selectable_value(object, path)).collect()
}

/// The key that a request is about; `name` is the final one.
pub(crate) fn key_of(request: &Request<'_>, name: &str) -> Key {
    Key::new(request.kind.resource, request.namespace, name)
}

pub(crate) fn put(draft: Draft, precondition: Precondition) -> Op {
    Op { key: draft.key.clone(), precondition, put: Put::Object(draft) }
}

pub(crate) fn remove(object: &Object) -> Op {
    Op { key: object.key.clone(), precondition: Precondition::At(object.revision), put: Put::Delete }
}

/// The state of the object that a commit is about.
pub(crate) fn committed(key: &Key, events: &[Arc<Event>]) -> Result<Arc<Object>, Status> {
    let event = events.iter().find(|event| event.key() == key);
    event
        .map(|event| event.object.clone())
        .ok_or_else(|| Status::internal(format!("the commit of {key} changed nothing")))
}
