//! What a transaction does to a snapshot: the same for every engine that decides by itself.

use std::collections::HashSet;
use std::sync::Arc;

use object::{Revision, Snapshot};

use crate::{Commit, CommitError, MAX_REQUEST_BYTES, Op, Precondition, Put, StoreError, Transaction};

/// Refuses what an engine does not take. Independent of the state. `most_ops`: operations that one transaction may carry.
pub(crate) fn validate(transaction: &Transaction, most_ops: usize) -> Result<(), StoreError> {
    let ops = &transaction.ops;
    if ops.len() > most_ops {
        return Err(StoreError::Malformed(format!("{} operations, at most {most_ops} fit", ops.len())));
    }
    let mut keys = HashSet::with_capacity(ops.len());
    for op in ops {
        if !keys.insert(&op.key) {
            return Err(StoreError::Malformed(format!("{} stands in it twice", op.key)));
        }
        if let Put::Object(draft) = &op.put
            && draft.key != op.key
        {
            return Err(StoreError::Malformed(format!("the draft under {} is {}", op.key, draft.key)));
        }
    }
    if bytes(transaction) > MAX_REQUEST_BYTES {
        return Err(StoreError::TooLarge);
    }
    Ok(())
}

/// Bytes of keys and bodies.
pub(crate) fn bytes(transaction: &Transaction) -> usize {
    let of = |op: &Op| {
        let body = if let Put::Object(draft) = &op.put { draft.stored.len() } else { 0 };
        op.key.resource.as_str().len() + op.key.namespace.len() + op.key.name.len() + body
    };
    transaction.ops.iter().map(of).sum()
}

/// Compares every precondition with the state.
pub(crate) fn check(now: &Snapshot, transaction: &Transaction) -> Result<(), CommitError> {
    for (at, op) in transaction.ops.iter().enumerate() {
        let revision = now.get(&op.key).map_or(0, |object| object.revision);
        let holds = match op.precondition {
            Precondition::Absent => revision == 0,
            Precondition::At(expected) => revision == expected && revision != 0,
            Precondition::Unchecked => true,
        };
        if !holds {
            return Err(CommitError::Precondition { op: at, key: op.key.clone(), revision });
        }
    }
    Ok(())
}

/// Whether the operation changes anything. The deletion of what is absent does not.
pub(crate) fn changes(now: &Snapshot, op: &Op) -> bool {
    match op.put {
        Put::Object(_) => true,
        Put::Delete => now.get(&op.key).is_some(),
        Put::Nothing => false,
    }
}

/// Carries out a transaction whose preconditions hold. Takes the next revision if anything changes.
pub(crate) fn perform(now: &mut Snapshot, transaction: Transaction) -> Commit {
    let revision: Revision = now.revision() + 1;
    let mut events = Vec::with_capacity(transaction.ops.len());
    for op in transaction.ops {
        match op.put {
            Put::Object(draft) => events.push(Arc::new(now.put(draft.at(revision)))),
            Put::Delete => events.extend(now.remove(&op.key, revision).map(Arc::new)),
            Put::Nothing => {}
        }
    }
    Commit { revision: now.revision(), events }
}
