use std::sync::Arc;

use crate::{Key, Object, Revision};

/// What one commit did to one key.
#[derive(Clone, Debug)]
pub struct Event {
    pub revision: Revision,
    pub change: Change,
    /// The object after the change. Of a deleted object: its last state, at the revision of the deletion.
    pub object: Arc<Object>,
    /// The object before the change, so that a selector can tell that an object left its set.
    pub previous: Option<Arc<Object>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Created,
    Updated,
    Deleted,
}

impl Event {
    pub fn key(&self) -> &Key {
        &self.object.key
    }
}
