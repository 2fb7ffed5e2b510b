//! What waits to be done: ready keys, timers, and plans under way.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use controllers::Controller;
use object::{Key, Time};
use plan::{Occurrence, Plan, User, Write};

use crate::random::Random;

const FIRST_BACKOFF_MILLIS: i64 = 5;
const LONGEST_BACKOFF_MILLIS: i64 = 1_000_000;

/// Who plans.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    /// Its place in `controllers::ALL`.
    Controller(usize),
    Scheduler,
}

impl Who {
    pub fn controller(self) -> Option<&'static Controller> {
        match self {
            Self::Controller(index) => controllers::ALL.get(index).copied(),
            Self::Scheduler => None,
        }
    }

    pub fn name(self) -> &'static str {
        self.controller().map_or("default-scheduler", |controller| controller.name)
    }

    pub fn user(self) -> User {
        match self.controller() {
            None => User::new("system:kube-scheduler", &["system:authenticated"]),
            Some(controller) => {
                let name = format!("system:serviceaccount:kube-system:{}", controller.user);
                let groups =
                    ["system:serviceaccounts", "system:serviceaccounts:kube-system", "system:authenticated"];
                User::new(name, &groups)
            }
        }
    }
}

/// A plan of which some writes are still to be done. Others may write in between.
pub struct Flight {
    pub who: Who,
    pub key: Key,
    pub writes: VecDeque<Write>,
    pub events: Vec<Occurrence>,
    pub wake_at: Option<Time>,
}

/// The keys of all controllers, as the engine keeps them: none runs twice at once, failures wait longer each time.
#[derive(Default)]
pub struct Work {
    ready: BTreeSet<(usize, Key)>,
    running: BTreeSet<(usize, Key)>,
    /// Woken while running.
    dirty: BTreeSet<(usize, Key)>,
    timers: BTreeSet<(Time, usize, Key)>,
    failures: BTreeMap<(usize, Key), u32>,
    flights: Vec<Flight>,
}

impl Work {
    pub fn add(&mut self, controller: usize, key: Key) {
        let entry = (controller, key);
        if self.running.contains(&entry) {
            self.dirty.insert(entry);
        } else {
            self.ready.insert(entry);
        }
    }

    /// Moves timers that are due to the ready keys.
    pub fn wake(&mut self, now: Time) {
        while let Some((_, controller, key)) = self.timers.first().filter(|(at, _, _)| *at <= now).cloned() {
            self.timers.pop_first();
            self.add(controller, key);
        }
    }

    pub fn next_timer(&self) -> Option<Time> {
        self.timers.first().map(|(at, _, _)| *at)
    }

    pub fn ready_count(&self) -> usize {
        self.ready.len()
    }

    pub fn flight_count(&self) -> usize {
        self.flights.len()
    }

    /// Any ready key, which counts as running from now on.
    pub fn take(&mut self, random: &mut Random) -> Option<(usize, Key)> {
        if self.ready.is_empty() {
            return None;
        }
        let entry = self.ready.iter().nth(random.below(self.ready.len())).cloned()?;
        self.ready.remove(&entry);
        // A run looks at everything, also at what a timer was for.
        self.timers.retain(|(_, controller, key)| (*controller, key) != (entry.0, &entry.1));
        self.running.insert(entry.clone());
        Some(entry)
    }

    pub fn start(&mut self, who: Who, key: Key, plan: Plan) {
        let Plan { writes, events, wake_at } = plan;
        self.flights.push(Flight { who, key, writes: writes.into(), events, wake_at });
    }

    /// Any plan under way, with its next write taken off; None as the write: it is through.
    pub fn advance(&mut self, random: &mut Random) -> Option<(usize, Option<Write>)> {
        if self.flights.is_empty() {
            return None;
        }
        let index = random.below(self.flights.len());
        let write = self.flights[index].writes.pop_front();
        Some((index, write))
    }

    pub fn flight(&self, index: usize) -> &Flight {
        &self.flights[index]
    }

    /// The plan is through, or a write of it failed.
    pub fn finish(&mut self, index: usize, failed: bool, now: Time) -> Flight {
        let flight = self.flights.swap_remove(index);
        let Who::Controller(controller) = flight.who else { return flight };
        let entry = (controller, flight.key.clone());
        self.running.remove(&entry);
        let was_dirty = self.dirty.remove(&entry);
        if failed {
            let failures = self.failures.entry(entry.clone()).or_default();
            let wait = (FIRST_BACKOFF_MILLIS << (*failures).min(20)).min(LONGEST_BACKOFF_MILLIS);
            *failures += 1;
            self.timers.insert((now.plus_millis(wait), entry.0, entry.1));
            return flight;
        }
        self.failures.remove(&entry);
        if let Some(at) = flight.wake_at {
            self.timers.insert((at, entry.0, entry.1.clone()));
        }
        if was_dirty {
            self.ready.insert(entry);
        }
        flight
    }
}
