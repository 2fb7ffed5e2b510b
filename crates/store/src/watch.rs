use std::sync::Arc;

use object::{Event, Revision};

use crate::WatchError;
use crate::hub::{Hub, Log};

/// So many events at most come at once, but never a part of a transaction.
const BATCH: usize = 1024;

/// A cursor into the log: every change to its resource, in order, none twice, none left out.
pub struct Watch {
    hub: Arc<Hub>,
    log: Arc<Log>,
    /// Position of the next entry, counted from the log's first ever.
    next: u64,
    /// Everything up to here was returned, or was in the snapshot that the watch began from.
    seen: Revision,
}

impl Watch {
    pub(crate) fn open(hub: Arc<Hub>, log: Arc<Log>, from: Revision) -> Result<Self, WatchError> {
        if hub.is_closed() {
            return Err(WatchError::Closed);
        }
        let next = {
            let entries = log.lock();
            if from < entries.floor {
                return Err(WatchError::Compacted { from, oldest: entries.floor });
            }
            entries.first + entries.list.partition_point(|entry| entry.event.revision <= from) as u64
        };
        Ok(Self { hub, log, next, seen: from })
    }

    /// The next changes, at least one; waits for them. Cancel-safe. A transaction's changes come together.
    pub async fn next(&mut self) -> Result<Vec<Arc<Event>>, WatchError> {
        let log = self.log.clone();
        loop {
            // Registered before the look, so that nothing is appended unseen in between.
            let changed = log.changed.notified();
            let closed = self.hub.is_closed();
            let events = self.take()?;
            if !events.is_empty() {
                return Ok(events);
            }
            if closed {
                return Err(WatchError::Closed);
            }
            changed.await;
        }
    }

    /// What is there already, maybe nothing.
    pub fn take(&mut self) -> Result<Vec<Arc<Event>>, WatchError> {
        let entries = self.log.lock();
        if self.next < entries.first {
            return Err(WatchError::Compacted { from: self.seen, oldest: entries.floor });
        }
        let mut rest = entries.list.range((self.next - entries.first) as usize..).peekable();
        let mut events = Vec::new();
        while let Some(entry) = rest.next() {
            self.next += 1;
            if entry.event.revision > self.seen {
                events.push(entry.event.clone());
            }
            let ends = rest.peek().is_none_or(|next| next.event.revision != entry.event.revision);
            if ends && events.len() >= BATCH {
                break;
            }
        }
        if let Some(last) = events.last() {
            self.seen = last.revision;
        }
        Ok(events)
    }

    /// A revision up to which this watch has returned every change: what a bookmark carries.
    pub fn progress(&self) -> Revision {
        // Read before the log: what is complete now is in the log when it is looked at.
        let complete = self.hub.complete();
        let entries = self.log.lock();
        if self.next == entries.first + entries.list.len() as u64 {
            complete.max(self.seen)
        } else {
            self.seen
        }
    }
}
