//! The end of an object, and what goes with it in the same transaction.

use object::{Key, Meta, Object, Snapshot};
use schema::{Kind, path};
use serde_json::Value;
use store::Op;

use crate::{commit, service};

/// Whether an update takes away the last thing that kept a deleted object.
pub(crate) fn is_finished(kind: &Kind, stored: &Object, new_meta: &Meta, new: &Value) -> bool {
    stored.meta.is_deleting()
        && new_meta.finalizers.is_empty()
        && stored.meta.deletion_grace_period_seconds.unwrap_or(0) == 0
        && !is_held(kind, new)
}

/// Whether something besides `metadata.finalizers` holds an object of this kind: a namespace has a list of its own.
pub(crate) fn is_held(kind: &Kind, object: &Value) -> bool {
    kind.resource == kinds::NAMESPACES && !path::list(object, "spec.finalizers").is_empty()
}

/// The operations that remove an object: itself first, then what it alone stood for.
pub(crate) fn ops(snapshot: &Snapshot, stored: &Object) -> Vec<Op> {
    let mut ops = vec![commit::remove(stored)];
    if stored.key.resource == kinds::SERVICES {
        ops.extend(service::release(snapshot, stored));
        let endpoints = Key::new(kinds::ENDPOINTS, stored.key.namespace.clone(), stored.key.name.clone());
        ops.extend(snapshot.get(&endpoints).map(|endpoints| commit::remove(endpoints)));
    }
    ops
}
