use std::sync::Arc;

use object::Event;

use crate::WatchError;

/// A cursor into the log: every change to its resource, in order, none twice, none left out.
pub struct Watch {}

impl Watch {
    /// The next changes, at least one; waits for them. Cancel-safe.
    pub async fn next(&mut self) -> Result<Vec<Arc<Event>>, WatchError> {
        Err(WatchError::Closed)
    }
}
