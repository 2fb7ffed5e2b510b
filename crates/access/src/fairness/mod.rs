//! API Priority and Fairness (KEP-1040): which requests run now, which wait, and which are told to come again.
//!
//! ```text
//! request ─► rules: the first FlowSchema that matches ─► its level ─► free seats? ── run
//!                     │ and the flow within it             │   └ queue of the flow's hand ── wait ── run, or give up
//!                                                          └ no room in the queue ── refuse
//! ```
//!
//! A decider: the caller says what time it is, carries tickets around, and wakes those who wait.
//!
//! Watches take a seat only until they begin. Writes take one seat however many watch their resource: a watcher here is a position in a
//! shared log, so that upstream's charge for the fan-out of events would only make writers wait for nothing.

mod dump;
mod level;
mod rules;
mod shares;
#[cfg(test)]
mod simulation;

use std::collections::HashMap;
use std::sync::Arc;

use dump::Held;
pub use dump::{About, LevelDump, QueueDump, RequestDump};
use level::{Admitted, Level};
use object::Resource;
pub use rules::{LevelSpec, Queuing, Rules, Schema};

/// Seconds since any fixed moment, which never go backwards.
pub type Seconds = f64;

/// Objects that one seat of a list is worth, and the seats that one request takes at most, as upstream.
const OBJECTS_PER_SEAT: usize = 100;
const MOST_SEATS: u32 = 10;
/// The part of a level's nominal seats that one request may take.
const SHARE_OF_ONE: f64 = 0.15;
/// How often levels lend and take back.
const ADJUST_EVERY: Seconds = 10.0;

/// How long requests waited, or ran: upper bounds in seconds, as upstream.
pub const BUCKETS: [f64; 13] = [0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0];

/// A request that has a seat, or waits for one. Given back by [`Fairness::finish`] or [`Fairness::give_up`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ticket {
    id: u64,
    level: usize,
    queue: Option<usize>,
    seats: u32,
    count: usize,
    /// When it began to run, or to wait.
    since: Seconds,
}

impl Ticket {
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The ticket of a request that was woken.
    pub fn woken(self, at: Seconds) -> Self {
        Self { since: at, ..self }
    }
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Verdict {
    Run(Ticket),
    /// It is woken by an id that [`Fairness::finish`] returns, or whatever else makes room.
    Wait(Ticket),
    Refuse(Refusal),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// When to come again.
    pub retry_after_seconds: u32,
}

/// Why requests did not run; the words of upstream's metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    ConcurrencyLimit,
    QueueFull,
    TimeOut,
}

impl Reason {
    pub const ALL: [Self; 3] = [Self::ConcurrencyLimit, Self::QueueFull, Self::TimeOut];

    pub fn word(self) -> &'static str {
        match self {
            Self::ConcurrencyLimit => "concurrency-limit",
            Self::QueueFull => "queue-full",
            Self::TimeOut => "time-out",
        }
    }
}

/// What the requests of one schema at one level did.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    pub dispatched: u64,
    /// By [`Reason`].
    pub refused: [u64; Reason::ALL.len()],
    pub waiting: u32,
    pub executing: u32,
    pub seats: u32,
    pub waited: Histogram,
    pub ran: Histogram,
}

#[derive(Clone, Debug, Default)]
pub struct Histogram {
    /// Cumulative, by [`BUCKETS`].
    pub buckets: [u64; BUCKETS.len()],
    pub count: u64,
    pub sum: f64,
}

impl Histogram {
    fn add(&mut self, value: f64) {
        for (bucket, bound) in self.buckets.iter_mut().zip(BUCKETS) {
            *bucket += u64::from(value <= bound);
        }
        self.count += 1;
        self.sum += value;
    }
}

/// A level's limits in seats, for metrics.
#[derive(Clone, Debug, PartialEq)]
pub struct LevelState {
    pub name: Arc<str>,
    pub nominal: u32,
    pub lower: u32,
    pub upper: u32,
    pub current: u32,
    pub in_use: u32,
    pub waiting: u32,
    pub demand_high: f64,
    pub demand_average: f64,
    pub demand_smoothed: f64,
}

/// How many objects a list goes through: what its width is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Work {
    pub objects: usize,
}

impl Work {
    /// Of a list, or a watch that begins with one: `stored` objects of the resource, an optional limit, whether a selector drops some.
    pub fn of_list(stored: usize, limit: usize, selects: bool) -> Self {
        let objects = if limit == 0 || selects { stored } else { stored.min(2 * limit) };
        Self { objects }
    }

    fn seats(self, most: u32) -> u32 {
        let wanted = u32::try_from(self.objects.div_ceil(OBJECTS_PER_SEAT)).unwrap_or(u32::MAX);
        wanted.clamp(1, most.clamp(1, MOST_SEATS))
    }
}

/// The seats of one server.
pub struct Fairness {
    rules: Arc<Rules>,
    /// The seats of all levels together.
    limit: u32,
    levels: Vec<Level>,
    /// The level of each level of the rules.
    places: Vec<usize>,
    /// One for each pair of a schema and its level that there ever was.
    counts: Vec<(Arc<str>, Arc<str>, Counts)>,
    /// The counts of each schema of the rules.
    counted: Vec<usize>,
    /// What runs and what waits, by the ids of their tickets.
    held: HashMap<u64, Held>,
    next_id: u64,
    adjusted_at: Seconds,
}

impl Fairness {
    /// `limit`: requests at work at once, of seats one each.
    pub fn new(limit: u32, rules: Rules) -> Self {
        let mut new = Self {
            rules: Arc::new(rules),
            limit,
            levels: Vec::new(),
            places: Vec::new(),
            counts: Vec::new(),
            counted: Vec::new(),
            held: HashMap::new(),
            next_id: 0,
            adjusted_at: 0.0,
        };
        new.settle(0.0);
        new
    }

    /// The rules that it goes by. Who classifies a request by them needs nothing else of it.
    pub fn rules(&self) -> &Arc<Rules> {
        &self.rules
    }

    /// Goes by other rules, if they are of a later state. Returns the ids of those that run now.
    pub fn follow(&mut self, rules: Arc<Rules>, now: Seconds) -> Vec<u64> {
        if !rules.is_later_than(&self.rules) {
            return Vec::new();
        }
        self.rules = rules;
        self.settle(now);
        self.wake_all(now)
    }

    /// Gives every level of the rules a place. One that is no longer there keeps its own until its last request is done.
    fn settle(&mut self, now: Seconds) {
        let rules = self.rules.clone();
        let nominal = shares::nominal(self.limit, &rules.levels);
        self.places.clear();
        for (spec, nominal) in rules.levels.iter().zip(nominal) {
            let known = self.levels.iter().position(|level| level.name == spec.name);
            let place = known.or_else(|| self.levels.iter().position(Level::is_free)).unwrap_or_else(|| {
                self.levels.push(Level::new(spec.name.clone(), now));
                self.levels.len() - 1
            });
            if known.is_none() {
                self.levels[place] = Level::new(spec.name.clone(), now);
            }
            self.levels[place].configure(spec, nominal, self.limit);
            self.places.push(place);
        }
        for (place, level) in self.levels.iter_mut().enumerate() {
            level.is_retired = !self.places.contains(&place);
        }
        self.counted.clear();
        for schema in &rules.schemas {
            let level = &rules.levels[schema.level].name;
            let known = self.counts.iter().position(|(name, of, _)| *name == schema.name && of == level);
            self.counted.push(known.unwrap_or_else(|| {
                self.counts.push((schema.name.clone(), level.clone(), Counts::default()));
                self.counts.len() - 1
            }));
        }
    }

    /// Whether, when and how a request of a schema (see [`Rules::classify`], of the rules that it goes by now) runs. To be called after
    /// [`Fairness::adjust`].
    pub fn begin(&mut self, schema: usize, about: Box<About>, work: Work, now: Seconds) -> Verdict {
        let rules = self.rules.clone();
        let (schema, count) = (&rules.schemas[schema], self.counted[schema]);
        let place = self.places[schema.level];
        let level = &mut self.levels[place];
        let most = (f64::from(level.limits.nominal) * SHARE_OF_ONE).ceil() as u32;
        let seats = work.seats(most);
        self.next_id += 1;
        let counts = &mut self.counts[count].2;
        let ticket = Ticket { id: self.next_id, level: place, queue: None, seats, count, since: now };
        let verdict = match level.admit(self.next_id, seats, count, || schema.flow(&about), now) {
            Admitted::Runs(queue) => {
                counts.dispatched += 1;
                counts.executing += 1;
                counts.seats += seats;
                counts.waited.add(0.0);
                Verdict::Run(Ticket { queue, ..ticket })
            }
            Admitted::Waits(queue) => {
                counts.waiting += 1;
                Verdict::Wait(Ticket { queue: Some(queue), ..ticket })
            }
            Admitted::Refused(reason) => {
                counts.refused[reason as usize] += 1;
                return Verdict::Refuse(Refusal { retry_after_seconds: level.refused(now) });
            }
        };
        if let Verdict::Run(ticket) | Verdict::Wait(ticket) = verdict {
            let started = matches!(verdict, Verdict::Run(_)).then_some(now);
            let distinguisher = schema.distinguisher;
            self.held.insert(ticket.id, Held { about, distinguisher, ticket, started });
        }
        verdict
    }

    /// A request is done, whatever came of it. Returns the ids of those that run now.
    pub fn finish(&mut self, ticket: Ticket, now: Seconds) -> Vec<u64> {
        let counts = &mut self.counts[ticket.count].2;
        counts.executing = counts.executing.saturating_sub(1);
        counts.seats = counts.seats.saturating_sub(ticket.seats);
        counts.ran.add(now - ticket.since);
        self.held.remove(&ticket.id);
        self.levels[ticket.level].finish(ticket.queue, ticket.seats, ticket.since, now);
        let mut woken = self.adjust(now);
        woken.extend(self.wake(ticket.level, now));
        woken
    }

    /// A request no longer wants to wait; with the ids of those that it stood in the way of.
    ///
    /// # Errors
    /// The ticket, if it has been woken meanwhile: it runs, and is to be finished.
    pub fn give_up(&mut self, ticket: Ticket, now: Seconds) -> Result<(Refusal, Vec<u64>), Ticket> {
        let level = &mut self.levels[ticket.level];
        let Some(queue) = ticket.queue else { return Err(ticket) };
        if !level.leave(queue, ticket.id, now) {
            return Err(ticket);
        }
        let retry_after_seconds = level.refused(now);
        self.held.remove(&ticket.id);
        let counts = &mut self.counts[ticket.count].2;
        counts.waiting = counts.waiting.saturating_sub(1);
        counts.refused[Reason::TimeOut as usize] += 1;
        Ok((Refusal { retry_after_seconds }, self.wake(ticket.level, now)))
    }

    fn wake(&mut self, place: usize, now: Seconds) -> Vec<u64> {
        let mut woken = Vec::new();
        while let Some(next) = self.levels[place].dispatch(now) {
            let counts = &mut self.counts[next.count].2;
            counts.waiting = counts.waiting.saturating_sub(1);
            counts.dispatched += 1;
            counts.executing += 1;
            counts.seats += next.seats;
            counts.waited.add(now - next.since);
            if let Some(held) = self.held.get_mut(&next.id) {
                held.started = Some(now);
            }
            woken.push(next.id);
        }
        woken
    }

    fn wake_all(&mut self, now: Seconds) -> Vec<u64> {
        (0..self.levels.len()).flat_map(|place| self.wake(place, now)).collect()
    }

    /// Every ten seconds levels lend what they do not need to those that need more than is theirs. Returns the ids of those that run now.
    pub fn adjust(&mut self, now: Seconds) -> Vec<u64> {
        if now - self.adjusted_at < ADJUST_EVERY {
            return Vec::new();
        }
        self.adjusted_at = now;
        let bounds: Vec<shares::Bounds> =
            self.places.iter().map(|&place| self.levels[place].bounds(now)).collect();
        let current = shares::allocate(self.limit, &bounds);
        for (&place, current) in self.places.iter().zip(current) {
            self.levels[place].limits.current = current;
        }
        self.wake_all(now)
    }

    /// Counts by schema and level.
    pub fn counts(&self) -> impl Iterator<Item = (&str, &str, &Counts)> {
        self.counts.iter().map(|(schema, level, counts)| (&**schema, &**level, counts))
    }

    pub fn levels(&self) -> impl Iterator<Item = LevelState> {
        self.places.iter().map(|&place| self.levels[place].state())
    }
}

/// What the rules are read from.
pub const SOURCES: [Resource; 2] = [kinds::FLOW_SCHEMAS, kinds::PRIORITY_LEVEL_CONFIGURATIONS];
