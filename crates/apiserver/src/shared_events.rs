//! Events of watches that cost something to write, written once for all who watch: a thousand informers that read protobuf, or only
//! metadata, are told of a change, and of the state that they begin with, with the same bytes. So are all who look at a table.

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

/// What is told of an object, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Telling {
    pub(crate) change: &'static str,
    pub(crate) view: View,
    pub(crate) table: Option<TableTold>,
}

/// What a table says besides its object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct TableTold {
    /// It says how old the object is, in seconds at the least: in this one, since the epoch.
    pub(crate) second: i64,
    pub(crate) describes_columns: bool,
}

/// The object and the row that it is told of, by where they are in memory, and what is told.
type Key = (usize, usize, Telling);

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
        object: &Arc<Object>,
        telling: Telling,
        write: impl FnOnce() -> Result<Bytes, E>,
    ) -> Result<Bytes, E> {
        let key = (Arc::as_ptr(object) as usize, Arc::as_ptr(kind) as usize, telling);
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
        let get = |telling, text: &'static str| {
            let write = || Ok::<_, Status>(Bytes::from_static(text.as_bytes()));
            events.get(&kind, &object, telling, write).expect("an event")
        };
        let added = Telling { change: "ADDED", view, table: None };
        assert_eq!([get(added, "first"), get(added, "second")], ["first", "first"]);
        let deleted = Telling { change: "DELETED", ..added };
        assert_eq!(get(deleted, "third"), "third");
        let table = |second, describes_columns| Telling {
            table: Some(TableTold { second, describes_columns }),
            ..added
        };
        assert_eq!([get(table(1, false), "1 s"), get(table(1, false), "again")], ["1 s", "1 s"]);
        assert_eq!(get(table(2, false), "2 s"), "2 s");
        assert_eq!(get(table(2, true), "with columns"), "with columns");
        let held = Arc::downgrade(&object);
        drop(object);
        assert!(held.upgrade().is_none(), "nobody else needs it");
    }
}
