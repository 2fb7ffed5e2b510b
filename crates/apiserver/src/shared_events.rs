//! Events of watches that cost something to write, written once for all who watch: a thousand informers that read protobuf, or only
//! metadata, are told of a change, and of the state that they begin with, with the same bytes.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;
use object::Object;
use schema::Kind;

use crate::negotiate::View;
use crate::recent::Recent;

/// All who watch are told of a change at about the same time, so that the last ones are enough; those who begin at once are not quite in
/// step, and far apart they are in a state that is larger than this. Twice as much is kept at most.
const MOST_BYTES: usize = 4 * 1024 * 1024;
/// Larger ones are written for each.
const LONGEST: usize = 64 * 1024;
/// What keeping one costs besides its bytes.
const OVERHEAD_BYTES: usize = 256;

/// The object, the row that it is told of, what happened to it, and how it is told. The first two by where they are in memory.
type Key = (usize, usize, &'static str, View);

#[derive(Debug)]
struct Written {
    event: Bytes,
    /// As long as these are held, nothing else is where the two are. What they consist of goes when nobody else needs it: an event of
    /// metadata does not keep the object's megabyte.
    _of: (Weak<Object>, Weak<Kind>),
}

/// The last of them.
pub(crate) struct SharedEvents(Mutex<Recent<Key, Written>>);

impl Default for SharedEvents {
    fn default() -> Self {
        Self(Mutex::new(Recent::new(MOST_BYTES)))
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
            let _of = (Arc::downgrade(object), Arc::downgrade(kind));
            let weight = event.len() + OVERHEAD_BYTES;
            lock().put_weighing(key, Written { event: event.clone(), _of }, weight);
        }
        Ok(event)
    }
}

#[cfg(test)]
mod tests {
    use object::{Draft, Key, Status, body};

    use super::*;
    use crate::negotiate::{Media, Shape};

    #[test]
    fn what_was_told_is_told_again_and_keeps_no_object() {
        let events = SharedEvents::default();
        let kind = Arc::new(kinds::all()[0].clone());
        let view = View { shape: Shape::Whole, media: Media::Protobuf };
        let stored = body::encode(&serde_json::json!({"metadata": {"name": "one"}}));
        let draft = Draft::read(Key::new(kind.resource, "", "one"), [].into(), stored).expect("a draft");
        let object = Arc::new(draft.at(7));
        let get = |change, text: &'static str| {
            let write = || Ok::<_, Status>(Bytes::from_static(text.as_bytes()));
            events.get(&kind, view, change, &object, write).expect("an event")
        };
        assert_eq!([get("ADDED", "first"), get("ADDED", "second")], ["first", "first"]);
        assert_eq!(get("DELETED", "third"), "third");
        let held = Arc::downgrade(&object);
        drop(object);
        assert!(held.upgrade().is_none(), "nobody else needs it");
    }
}
