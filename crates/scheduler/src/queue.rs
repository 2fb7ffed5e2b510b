//! Who waits, and for what.
//!
//! ```text
//! add ─► active ─pop─► in flight ─► (placed: gone)
//!          ▲  ▲            ├─ failed ──────► back-off ─► active
//!          │  └─ back-off ─┤
//!          └── a change ── └─ rejected ────► unschedulable, until something changes that a rejecting plugin waits for
//! gated: until its scheduling gates are gone
//! ```
//!
//! A pod that was tried `n` times waits 2ⁿ⁻¹ seconds, ten at most, before it is tried again; an unschedulable one is tried
//! after five minutes even if nothing has changed.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use object::{Key, Time};

use crate::plugins::Plugins;
use crate::pod::Pod;

const FIRST_BACK_OFF_MS: i64 = 1_000;
const LONGEST_BACK_OFF_MS: i64 = 10_000;
const LONGEST_WAIT_SECONDS: i64 = 5 * 60;

/// Highest priority first, then who came first, then by name.
type Rank = (Reverse<i64>, Time, Key);

/// The pods that have no node yet.
#[derive(Debug, Default)]
pub struct Queue {
    entries: BTreeMap<Key, Entry>,
    active: BTreeSet<Rank>,
    /// Ends of back-offs and of waits.
    timers: BTreeSet<(Time, Key)>,
    unschedulable: BTreeSet<Key>,
    gated: usize,
}

/// How many pods wait, by what for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pending {
    /// For the scheduler to come to them.
    pub active: usize,
    /// For the end of a pause.
    pub back_off: usize,
    /// For their gates to go.
    pub gated: usize,
    /// For a change: they fit nowhere.
    pub unschedulable: usize,
}

#[derive(Debug)]
struct Entry {
    pod: Arc<Pod>,
    /// When it was first put here.
    since: Time,
    attempts: u32,
    last_try: Time,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Active { since: Time },
    BackOff { until: Time },
    Gated,
    InFlight,
    Unschedulable { plugins: Plugins, until: Time },
}

impl Queue {
    /// A pod to be placed, or a change to one. `now` orders pods of the same priority.
    pub fn put(&mut self, pod: Arc<Pod>, now: Time) {
        let key = pod.key.clone();
        let known = self.entries.remove(&key);
        if let Some(known) = &known {
            self.unlist(&key, known);
        }
        let Some(known) = known else {
            let state = if pod.gates.is_empty() { State::Active { since: now } } else { State::Gated };
            return self.list(Entry { pod, since: now, attempts: 0, last_try: now, state });
        };
        let is_other = !known.pod.needs_the_same(&pod) || known.pod.uid != pod.uid;
        let state = match known.state {
            _ if !pod.gates.is_empty() => State::Gated,
            State::Gated => State::Active { since: now },
            // Somebody else's change came before what the pod was to be told, which is lost: it is told again.
            State::Unschedulable { .. } if is_other || !pod.is_told => known.retry(now),
            State::Active { since } => State::Active { since },
            state => state,
        };
        self.list(Entry { pod, state, ..known });
    }

    pub fn remove(&mut self, key: &Key) {
        if let Some(entry) = self.entries.remove(key) {
            self.unlist(key, &entry);
        }
    }

    /// The next pod to try. It stays known, in flight, until it is removed or comes back.
    pub fn pop(&mut self, now: Time) -> Option<Arc<Pod>> {
        self.wake(now);
        let (.., key) = self.active.pop_first()?;
        let entry = self.entries.get_mut(&key)?;
        entry.state = State::InFlight;
        entry.attempts = entry.attempts.saturating_add(1);
        entry.last_try = now;
        Some(entry.pod.clone())
    }

    /// The pod that was popped fits nowhere, says who.
    pub fn rejected(&mut self, key: &Key, plugins: Plugins, now: Time) {
        let until = now.plus_secs(LONGEST_WAIT_SECONDS);
        self.set(key, |_| State::Unschedulable { plugins, until });
    }

    /// What was decided for the pod that was popped did not come about.
    pub fn failed(&mut self, key: &Key, now: Time) {
        self.set(key, |entry| entry.retry(now));
    }

    /// Something has changed that these plugins wait for.
    pub fn changed(&mut self, plugins: Plugins, now: Time) {
        if plugins.is_empty() {
            return;
        }
        let concerned: Vec<Key> = self
            .unschedulable
            .iter()
            .filter(|key| match self.entries.get(*key).map(|entry| entry.state) {
                Some(State::Unschedulable { plugins: by, .. }) => by.meets(plugins),
                _ => false,
            })
            .cloned()
            .collect();
        for key in concerned {
            self.set(&key, |entry| entry.retry(now));
        }
    }

    /// When `pop` has something again. None: not before something changes.
    pub fn wake_at(&self) -> Option<Time> {
        let active = self.active.first().map(|(_, since, _)| *since);
        active.or_else(|| self.timers.first().map(|(at, _)| *at))
    }

    pub fn get(&self, key: &Key) -> Option<&Arc<Pod>> {
        self.entries.get(key).map(|entry| &entry.pod)
    }

    /// Since when a pod has been waiting, and how often it was tried.
    pub fn tried(&self, key: &Key) -> Option<(Time, u32)> {
        self.entries.get(key).map(|entry| (entry.since, entry.attempts))
    }

    pub fn pending(&self) -> Pending {
        let unschedulable = self.unschedulable.len();
        Pending {
            active: self.active.len(),
            // Who is unschedulable has a timer too.
            back_off: self.timers.len().saturating_sub(unschedulable),
            gated: self.gated,
            unschedulable,
        }
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn wake(&mut self, now: Time) {
        while let Some((at, key)) = self.timers.first().cloned() {
            if at > now {
                break;
            }
            self.set(&key, |_| State::Active { since: now });
        }
    }

    fn set(&mut self, key: &Key, state: impl FnOnce(&Entry) -> State) {
        let Some(entry) = self.entries.remove(key) else { return };
        self.unlist(key, &entry);
        let state = state(&entry);
        self.list(Entry { state, ..entry });
    }

    fn list(&mut self, entry: Entry) {
        let key = entry.pod.key.clone();
        match entry.state {
            State::Active { since } => {
                self.active.insert((Reverse(entry.pod.priority), since, key.clone()));
            }
            State::BackOff { until } => {
                self.timers.insert((until, key.clone()));
            }
            State::Unschedulable { until, .. } => {
                self.timers.insert((until, key.clone()));
                self.unschedulable.insert(key.clone());
            }
            State::Gated => self.gated += 1,
            State::InFlight => {}
        }
        self.entries.insert(key, entry);
    }

    fn unlist(&mut self, key: &Key, entry: &Entry) {
        match entry.state {
            State::Active { since } => {
                self.active.remove(&(Reverse(entry.pod.priority), since, key.clone()));
            }
            State::BackOff { until } => {
                self.timers.remove(&(until, key.clone()));
            }
            State::Unschedulable { until, .. } => {
                self.timers.remove(&(until, key.clone()));
                self.unschedulable.remove(key);
            }
            State::Gated => self.gated -= 1,
            State::InFlight => {}
        }
    }
}

impl Entry {
    fn retry(&self, now: Time) -> State {
        let doublings = self.attempts.saturating_sub(1).min(10);
        let pause_ms =
            if self.attempts == 0 { 0 } else { (FIRST_BACK_OFF_MS << doublings).min(LONGEST_BACK_OFF_MS) };
        let until = self.last_try.plus_millis(pause_ms);
        if until <= now { State::Active { since: now } } else { State::BackOff { until } }
    }
}

impl Pod {
    /// But for its status, is it the same to a scheduler?
    fn needs_the_same(&self, other: &Self) -> bool {
        let bare = |pod: &Self| Self { nominated: "".into(), started: None, is_told: false, ..pod.clone() };
        bare(self) == bare(other)
    }
}
