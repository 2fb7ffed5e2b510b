//! The newest snapshot and the window of changes behind it: what readers and watchers of every engine see.
//!
//! An engine publishes in revision order from one thread at a time. One publication is
//!
//! ```text
//! 1. swap the snapshot     so that whoever gets an event finds it in snapshot() too
//! 2. append to the logs    one per resource, and one of all; a transaction is appended to a log as a whole
//! 3. wake                  only the watchers of the resources that changed
//! ```
//!
//! A log shares its events with its watchers: a watcher is a position in it and costs nothing until it is woken.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use object::{Change, Event, Resource, Revision, Snapshot};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::{Usage, Watch, WatchError};

/// How much of the past watches can start from.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// Memory that only the past holds. The resource that takes most gives way first.
    pub bytes: usize,
    /// Changes older than this may go; `None`: only bytes count, and no clock is read.
    pub age: Option<Duration>,
    /// So many changes to a resource stay however old they are.
    pub keep: usize,
}

impl Default for Window {
    fn default() -> Self {
        Self { bytes: 64 << 20, age: Some(Duration::from_secs(300)), keep: 128 }
    }
}

pub(crate) struct Hub {
    snapshot: RwLock<Snapshot>,
    /// Wakes those who wait for a revision.
    advanced: Notify,
    /// Every event up to here is in the logs.
    complete: AtomicU64,
    closed: AtomicBool,
    window: Window,
    /// Nothing before this revision is known: where each log begins.
    start: AtomicU64,
    bytes: AtomicUsize,
    all: Arc<Log>,
    logs: RwLock<HashMap<Resource, Arc<Log>>>,
}

/// The changes to one resource, or to all.
pub(crate) struct Log {
    entries: Mutex<Entries>,
    pub(crate) changed: Notify,
}

pub(crate) struct Entries {
    /// Changes up to here are gone.
    pub(crate) floor: Revision,
    /// How many entries have gone: the position of the first that is there.
    pub(crate) first: u64,
    pub(crate) list: VecDeque<Entry>,
    bytes: usize,
}

pub(crate) struct Entry {
    pub(crate) event: Arc<Event>,
    at: Option<Instant>,
}

impl Log {
    fn new(floor: Revision) -> Arc<Self> {
        let entries = Entries { floor, first: 0, list: VecDeque::new(), bytes: 0 };
        Arc::new(Self { entries: Mutex::new(entries), changed: Notify::new() })
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entries {
    fn push(&mut self, event: Arc<Event>, at: Option<Instant>) {
        self.bytes += weight(&event);
        self.list.push_back(Entry { event, at });
    }

    /// Removes the oldest revision; returns the bytes that it held.
    fn pop_revision(&mut self) -> usize {
        let Some(oldest) = self.list.front().map(|entry| entry.event.revision) else { return 0 };
        self.drop_through(oldest)
    }

    fn drop_through(&mut self, revision: Revision) -> usize {
        let before = self.bytes;
        while let Some(entry) = self.list.front().filter(|entry| entry.event.revision <= revision) {
            self.bytes -= weight(&entry.event);
            self.list.pop_front();
            self.first += 1;
        }
        self.floor = self.floor.max(revision);
        before - self.bytes
    }
}

/// What memory an event holds that the newest snapshot does not: the object it replaced, and of a deletion the last state.
fn weight(event: &Event) -> usize {
    let replaced = event.previous.as_ref().map_or(0, |object| object.body.len());
    let last = if event.change == Change::Deleted { event.object.body.len() } else { 0 };
    replaced + last + 512
}

impl Hub {
    pub(crate) fn new(window: Window, snapshot: Snapshot) -> Arc<Self> {
        let start = snapshot.revision();
        Arc::new(Self {
            snapshot: RwLock::new(snapshot),
            advanced: Notify::new(),
            complete: AtomicU64::new(start),
            closed: AtomicBool::new(false),
            window,
            start: AtomicU64::new(start),
            bytes: AtomicUsize::new(0),
            all: Log::new(start),
            logs: RwLock::default(),
        })
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        self.snapshot.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes a newer state and what led to it visible. Events come in revision order.
    pub(crate) fn publish(&self, snapshot: Snapshot, events: &[Arc<Event>]) {
        let revision = snapshot.revision();
        let replaced = {
            let mut current = self.snapshot.write().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *current, snapshot)
        };
        let changed = self.append(events);
        self.complete.store(revision, Ordering::Release);
        self.trim(&changed);
        for (_, log) in &changed {
            log.changed.notify_waiters();
        }
        if !events.is_empty() {
            self.all.changed.notify_waiters();
        }
        self.advanced.notify_waiters();
        drop(replaced);
    }

    /// A state that nothing led to: every watch is over, and new ones begin here.
    pub(crate) fn restart(&self, mut snapshot: Snapshot) {
        let revision = snapshot.revision();
        let logs: Vec<_> = {
            let mut logs = self.logs.write().unwrap_or_else(PoisonError::into_inner);
            self.start.store(revision, Ordering::Release);
            let mut current = self.snapshot.write().unwrap_or_else(PoisonError::into_inner);
            snapshot.replace(&current);
            *current = snapshot;
            logs.drain().map(|(_, log)| log).chain([self.all.clone()]).collect()
        };
        for log in &logs {
            let mut entries = log.lock();
            entries.drop_through(revision);
            // Also those who had seen everything have missed something.
            entries.first += 1;
        }
        self.bytes.store(0, Ordering::Relaxed);
        self.complete.store(revision, Ordering::Release);
        for log in &logs {
            log.changed.notify_waiters();
        }
        self.advanced.notify_waiters();
    }

    /// Something became of a resource up to the newest revision that no event tells: its watches are over, new ones begin here.
    pub(crate) fn break_off(&self, resource: Resource) {
        let log = self.log(Some(resource));
        let freed = {
            let mut entries = log.lock();
            // Also those who had seen everything have missed something.
            entries.first += 1;
            entries.drop_through(self.complete())
        };
        self.bytes.fetch_sub(freed, Ordering::Relaxed);
        log.changed.notify_waiters();
    }

    fn append(&self, events: &[Arc<Event>]) -> Vec<(Resource, Arc<Log>)> {
        let at = self.window.age.map(|_| Instant::now());
        let mut changed: Vec<(Resource, Arc<Log>)> = Vec::new();
        for event in events {
            let resource = event.key().resource;
            if !changed.iter().any(|(known, _)| *known == resource) {
                changed.push((resource, self.log(Some(resource))));
            }
        }
        for (resource, log) in &changed {
            let mut entries = log.lock();
            let before = entries.bytes;
            for event in events.iter().filter(|event| event.key().resource == *resource) {
                entries.push(event.clone(), at);
            }
            self.bytes.fetch_add(entries.bytes - before, Ordering::Relaxed);
        }
        let mut all = self.all.lock();
        for event in events {
            all.push(event.clone(), None);
        }
        changed
    }

    fn trim(&self, changed: &[(Resource, Arc<Log>)]) {
        let mut floor = 0;
        for (_, log) in changed {
            floor = floor.max(self.trim_by_age(log));
        }
        if self.bytes.load(Ordering::Relaxed) > self.window.bytes {
            floor = floor.max(self.trim_by_bytes());
        }
        // The log of all is whole or nothing: it begins where the last of its parts does.
        let mut all = self.all.lock();
        if floor > all.floor {
            all.drop_through(floor);
        }
    }

    fn trim_by_age(&self, log: &Log) -> Revision {
        let Some(age) = self.window.age else { return 0 };
        let mut entries = log.lock();
        let Some(now) = entries.list.back().and_then(|entry| entry.at) else { return 0 };
        let mut freed = 0;
        while entries.list.len() > self.window.keep
            && entries.list.front().and_then(|entry| entry.at).is_some_and(|at| now - at > age)
        {
            freed += entries.pop_revision();
        }
        self.bytes.fetch_sub(freed, Ordering::Relaxed);
        if freed == 0 { 0 } else { entries.floor }
    }

    /// Frees a sixteenth of the window, so that this is not done at every commit, from whichever log is the largest then.
    fn trim_by_bytes(&self) -> Revision {
        let goal = self.window.bytes - self.window.bytes / 16;
        let logs: Vec<_> = {
            let logs = self.logs.read().unwrap_or_else(PoisonError::into_inner);
            logs.values().cloned().collect()
        };
        let mut floor = 0;
        while self.bytes.load(Ordering::Relaxed) > goal {
            let Some(largest) = logs.iter().max_by_key(|log| log.lock().bytes) else { break };
            let mut entries = largest.lock();
            let half = entries.bytes / 2;
            while entries.bytes > half && self.bytes.load(Ordering::Relaxed) > goal {
                let freed = entries.pop_revision();
                self.bytes.fetch_sub(freed, Ordering::Relaxed);
            }
            floor = floor.max(entries.floor);
        }
        floor
    }

    fn log(&self, resource: Option<Resource>) -> Arc<Log> {
        let Some(resource) = resource else { return self.all.clone() };
        if let Some(log) = self.logs.read().unwrap_or_else(PoisonError::into_inner).get(&resource) {
            return log.clone();
        }
        let mut logs = self.logs.write().unwrap_or_else(PoisonError::into_inner);
        logs.entry(resource).or_insert_with(|| Log::new(self.start.load(Ordering::Acquire))).clone()
    }

    pub(crate) fn watch(
        self: &Arc<Self>,
        resource: Option<Resource>,
        from: Revision,
    ) -> Result<Watch, WatchError> {
        Watch::open(self.clone(), self.log(resource), from)
    }

    /// Waits until everything up to a revision is there: in the snapshot, and what led to it in the logs, which are behind it for a
    /// moment. `None`: the store was closed first.
    pub(crate) async fn reached(&self, revision: Revision) -> Option<Snapshot> {
        loop {
            let advanced = self.advanced.notified();
            if self.complete() >= revision {
                return Some(self.snapshot());
            }
            if self.is_closed() {
                return None;
            }
            advanced.await;
        }
    }

    /// How many changes of each resource were published.
    pub(crate) fn received(&self) -> Vec<(Resource, u64)> {
        let logs = self.logs.read().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = logs
            .iter()
            .map(|(resource, log)| {
                let entries = log.lock();
                (*resource, entries.first + entries.list.len() as u64)
            })
            .filter(|(_, count)| *count > 0)
            .collect();
        all.sort_by_key(|(resource, _)| resource.as_str());
        all
    }

    pub(crate) fn complete(&self) -> Revision {
        self.complete.load(Ordering::Acquire)
    }

    pub(crate) fn compacted(&self) -> Revision {
        self.all.lock().floor
    }

    pub(crate) fn usage(&self, disk_bytes: u64) -> Usage {
        let snapshot = self.snapshot();
        Usage {
            disk_bytes,
            live_bytes: snapshot.tables().map(|(_, table)| table.bytes() as u64).sum(),
            history_bytes: self.bytes.load(Ordering::Relaxed) as u64,
            revision: snapshot.revision(),
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Ends every watch, once it has seen what is there, and every wait.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.all.changed.notify_waiters();
        for log in self.logs.read().unwrap_or_else(PoisonError::into_inner).values() {
            log.changed.notify_waiters();
        }
        self.advanced.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;
    use object::{Draft, Key, body};

    const PODS: Resource = Resource::new("pods");
    const LEASES: Resource = Resource::new("leases.coordination.k8s.io");

    struct Ground {
        hub: Arc<Hub>,
        now: Snapshot,
    }

    impl Ground {
        fn new(window: Window) -> Self {
            let mut now = Snapshot::default();
            now.advance(1);
            Self { hub: Hub::new(window, now.clone()), now }
        }

        fn put(&mut self, resource: Resource, name: &str, bytes: usize) -> Revision {
            let text = serde_json::json!({"metadata": {"name": name}, "data": "x".repeat(bytes)});
            let draft =
                Draft::read(Key::new(resource, "ns", name), [].into(), body::encode(&text)).expect("a draft");
            let event = self.now.put(draft.at(self.now.revision() + 1));
            self.hub.publish(self.now.clone(), &[Arc::new(event)]);
            self.now.revision()
        }
    }

    fn window(bytes: usize) -> Window {
        Window { bytes, age: None, keep: 4 }
    }

    #[test]
    fn a_revision_is_reached_when_its_changes_are_told_too() {
        let on = Ground::new(window(1 << 20));
        let (hub, mut now) = (on.hub.clone(), on.now.clone());
        let text = serde_json::json!({"metadata": {"name": "a"}});
        let draft = Draft::read(Key::new(PODS, "ns", "a"), [].into(), body::encode(&text)).expect("a draft");
        let event = Arc::new(now.put(draft.at(2)));
        let log = hub.log(Some(PODS));
        std::thread::scope(|scope| {
            // Whoever publishes has shown the new state, and waits to tell what led to it.
            let held = log.lock();
            let publishing = scope.spawn(|| on.hub.publish(now.clone(), std::slice::from_ref(&event)));
            while hub.snapshot().revision() < 2 {
                std::thread::yield_now();
            }
            assert!(hub.reached(2).now_or_never().is_none(), "its change is not told yet");
            drop(held);
            publishing.join().expect("published");
        });
        let reached = hub.reached(2).now_or_never().flatten().expect("a state");
        assert_eq!(reached.revision(), 2);
        assert_eq!(hub.watch(None, 1).expect("a watch").take().expect("changes").len(), 1);
    }

    #[test]
    fn what_takes_most_of_the_window_gives_way_first() {
        let mut on = Ground::new(window(100_000));
        let quiet = on.put(LEASES, "quiet", 100);
        for _ in 0..1000 {
            on.put(PODS, "busy", 1000);
        }
        assert!(on.hub.usage(0).history_bytes <= 100_000);
        assert!(matches!(on.hub.watch(Some(PODS), 1), Err(WatchError::Compacted { from: 1, .. })));
        let mut leases = on.hub.watch(Some(LEASES), 1).expect("the quiet resource kept its past");
        assert_eq!(leases.take().expect("changes")[0].revision, quiet);
        // What watches all cannot begin before any of its parts does.
        let floor = on.hub.compacted();
        assert!(floor > quiet);
        assert!(on.hub.watch(None, floor - 1).is_err());
        let rest = on.hub.watch(None, floor).expect("the rest").take().expect("changes");
        assert_eq!(rest.len() as u64, on.now.revision() - floor);
    }

    #[test]
    fn a_watch_that_falls_behind_is_told_so() {
        let mut on = Ground::new(window(50_000));
        let mut slow = on.hub.watch(Some(PODS), 1).expect("a watch");
        let mut idle = on.hub.watch(Some(LEASES), 1).expect("a watch");
        for _ in 0..100 {
            on.put(PODS, "a", 1000);
        }
        assert!(matches!(slow.take(), Err(WatchError::Compacted { from: 1, oldest }) if oldest > 1));
        assert!(idle.take().expect("nothing is wrong").is_empty());
        assert_eq!((idle.progress(), slow.progress()), (on.now.revision(), 1));
    }

    #[tokio::test(start_paused = true)]
    async fn old_changes_go_but_for_a_few() {
        let age = Window::default().age.expect("an age");
        let mut on = Ground::new(Window { keep: 4, ..Window::default() });
        for _ in 0..10 {
            on.put(PODS, "a", 10);
        }
        let past = on.put(LEASES, "quiet", 10);
        tokio::time::advance(age).await;
        on.put(PODS, "a", 10);
        assert!(on.hub.watch(Some(PODS), 1).is_ok(), "nothing is older than five minutes");
        tokio::time::advance(Duration::from_millis(1)).await;
        on.put(PODS, "a", 10);
        assert!(matches!(on.hub.watch(Some(PODS), 1), Err(WatchError::Compacted { from: 1, .. })));
        let floor = on.hub.log(Some(PODS)).lock().floor;
        assert_eq!(on.hub.watch(Some(PODS), floor).expect("a watch").take().expect("changes").len(), 4);
        assert!(on.hub.watch(Some(LEASES), past - 1).is_ok(), "few changes stay however old they are");
    }

    #[test]
    fn a_restart_ends_every_watch_and_begins_anew() {
        let mut on = Ground::new(window(1 << 20));
        let at = on.put(PODS, "a", 10);
        let mut current = on.hub.watch(Some(PODS), at).expect("a watch");
        let mut all = on.hub.watch(None, at).expect("a watch");
        on.now.advance(at + 10);
        on.hub.restart(on.now.clone());
        for watch in [&mut current, &mut all] {
            assert!(matches!(watch.take(), Err(WatchError::Compacted { .. })));
        }
        for resource in [Some(PODS), Some(LEASES), None] {
            assert!(on.hub.watch(resource, at + 9).is_err());
            let mut watch = on.hub.watch(resource, at + 10).expect("a watch from the new beginning");
            assert!(watch.take().expect("nothing yet").is_empty());
        }
        let mut next = on.hub.watch(Some(PODS), at + 10).expect("a watch");
        on.put(PODS, "b", 10);
        assert_eq!(next.take().expect("changes").len(), 1);
    }

    #[test]
    fn what_no_event_tells_ends_the_watches_of_its_resource() {
        let mut on = Ground::new(window(1 << 20));
        let at = on.put(PODS, "a", 10);
        let mut pods = on.hub.watch(Some(PODS), at).expect("a watch");
        let mut late = on.hub.watch(Some(PODS), 1).expect("a watch");
        let mut others = [LEASES, PODS].map(|resource| {
            let resource = Some(resource).filter(|resource| *resource != PODS);
            on.hub.watch(resource, at).expect("a watch")
        });
        on.now.advance(at + 1);
        on.hub.publish(on.now.clone(), &[]);
        on.hub.break_off(PODS);
        for watch in [&mut pods, &mut late] {
            assert!(matches!(watch.take(), Err(WatchError::Compacted { oldest, .. }) if oldest == at + 1));
        }
        for watch in &mut others {
            assert!(watch.take().expect("nothing is wrong").is_empty());
        }
        assert!(on.hub.watch(Some(PODS), at).is_err());
        let mut anew = on.hub.watch(Some(PODS), at + 1).expect("a watch from there");
        assert!(anew.take().expect("nothing yet").is_empty());
        on.put(PODS, "b", 10);
        assert_eq!(anew.take().expect("changes").len(), 1);
        assert_eq!(on.hub.usage(0).history_bytes, 512);
    }

    #[test]
    fn a_thousand_watchers_share_each_event() {
        let mut on = Ground::new(window(1 << 20));
        let mut watches: Vec<_> = (0..1000).map(|_| on.hub.watch(Some(PODS), 1).expect("a watch")).collect();
        on.put(PODS, "a", 1000);
        let told: Vec<_> = watches.iter_mut().map(|watch| watch.take().expect("changes").remove(0)).collect();
        assert!(told.iter().all(|event| Arc::ptr_eq(event, &told[0])));
    }
}
