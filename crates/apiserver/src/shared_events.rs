//! Events of watches that cost something to write, written once for all who watch: a thousand informers that read protobuf, or only
//! metadata, are told of a change with the same bytes.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use object::Object;
use schema::Kind;

use crate::negotiate::View;
use crate::recent::Recent;

/// All who watch are told of a change at about the same time, so that a few of the last ones are enough.
const MOST: usize = 256;
/// Larger ones are written for each.
const LONGEST: usize = 64 * 1024;

/// The object, the row that it is told of, what happened to it, and how it is told. The first two by where they are in memory.
type Key = (usize, usize, &'static str, View);

#[derive(Debug)]
struct Written {
    event: Bytes,
    /// As long as they are held, nothing else is where they are.
    _of: (Arc<Object>, Arc<Kind>),
}

/// The last of them.
pub(crate) struct SharedEvents(Mutex<Recent<Key, Written>>);

impl Default for SharedEvents {
    fn default() -> Self {
        Self(Mutex::new(Recent::new(MOST)))
    }
}

impl SharedEvents {
    /// What was written of an event before, or what is written now.
    ///
    /// # Errors
    /// Those of writing.
    pub(crate) fn get<E>(
        &self,
        kind: &Arc<Kind>,
        view: View,
        change: &'static str,
        object: &Arc<Object>,
        write: impl FnOnce() -> Result<Bytes, E>,
    ) -> Result<Bytes, E> {
        let key = (Arc::as_ptr(object) as usize, Arc::as_ptr(kind) as usize, change, view);
        let lock = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(written) = lock().get(&key) {
            return Ok(written.event.clone());
        }
        let event = write()?;
        if event.len() <= LONGEST {
            let _of = (object.clone(), kind.clone());
            lock().put(key, Written { event: event.clone(), _of });
        }
        Ok(event)
    }
}
