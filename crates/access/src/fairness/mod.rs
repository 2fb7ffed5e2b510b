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
mod tally;

use std::collections::HashMap;
use std::sync::Arc;

use dump::Held;
pub use dump::{About, LevelDump, QueueDump, RequestDump};
pub use level::Dispatched;
use level::{Admitted, Dispatch, Level};
use object::Resource;
pub use rules::{LevelSpec, Queuing, Rules, Schema};
pub use tally::Histogram;
use tally::{Peak, Usage};

/// Seconds since any fixed moment, which never go backwards.
pub type Seconds = f64;

/// Objects that one seat of a list is worth, and the seats that one request takes at most, as upstream.
const OBJECTS_PER_SEAT: usize = 100;
const MOST_SEATS: u32 = 10;
/// The part of a level's nominal seats that one request may take.
const SHARE_OF_ONE: f64 = 0.15;
/// How often levels lend and take back.
const ADJUST_EVERY: Seconds = 10.0;

// Upper bounds of what is told for metrics, as upstream.
/// How long requests waited, or ran, in seconds.
static DURATION_SECONDS: [f64; 13] = [0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0];
static QUEUE_LENGTHS: [f64; 8] = [0.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0];
static SEATS: [f64; 8] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 100.0];
static WATCHERS: [f64; 6] = [0.0, 1.0, 10.0, 100.0, 1000.0, 10_000.0];
/// Parts of what all levels together may run, or let wait.
static PARTS_OF_ALL: [f64; 15] =
    [0.0, 0.001, 0.01, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0];

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
#[derive(Clone, Debug)]
pub struct Counts {
    pub dispatched: u64,
    /// By [`Reason`].
    pub refused: [u64; Reason::ALL.len()],
    /// How often one was the next to run and wider than the seats that were free.
    pub not_accommodated: u64,
    pub waiting: u32,
    pub waiting_seats: u32,
    pub executing: u32,
    pub seats: u32,
    /// In seconds, those that ran then.
    pub waited: Histogram,
    /// In seconds, those that gave up.
    pub waited_in_vain: Histogram,
    /// In seconds; watches until they began.
    pub ran: Histogram,
    pub watches_ran: Histogram,
    /// Of the queue that a request was put into, with itself.
    pub queue_length: Histogram,
    /// That a request is taken to need.
    pub wanted_seats: Histogram,
    /// Of what a request may change.
    pub watchers: Histogram,
}

impl Default for Counts {
    fn default() -> Self {
        let seconds = || Histogram::new(&DURATION_SECONDS);
        Self {
            dispatched: 0,
            refused: Default::default(),
            not_accommodated: 0,
            waiting: 0,
            waiting_seats: 0,
            executing: 0,
            seats: 0,
            waited: seconds(),
            waited_in_vain: seconds(),
            ran: seconds(),
            watches_ran: seconds(),
            queue_length: Histogram::new(&QUEUE_LENGTHS),
            wanted_seats: Histogram::new(&SEATS),
            watchers: Histogram::new(&WATCHERS),
        }
    }
}

/// Requests that only read, or those that may change something, of all levels.
struct Traffic {
    executing: Peak,
    waiting: Peak,
    executing_part: Usage,
    waiting_part: Usage,
}

impl Traffic {
    fn new() -> Self {
        let part = || Usage::new(&PARTS_OF_ALL, 0.0);
        Self {
            executing: Peak::default(),
            waiting: Peak::default(),
            executing_part: part(),
            waiting_part: part(),
        }
    }

    fn executes(&mut self, change: i32, now: Seconds) {
        let value = self.executing.value().saturating_add_signed(change);
        self.executing.set(value, now);
        self.executing_part.set(value, now);
    }

    fn waits(&mut self, change: i32, now: Seconds) {
        let value = self.waiting.value().saturating_add_signed(change);
        self.waiting.set(value, now);
        self.waiting_part.set(value, now);
    }
}

/// The same, for metrics.
#[derive(Clone, Debug)]
pub struct TrafficState {
    /// The most at once in the last whole second.
    pub executing: u32,
    pub waiting: u32,
    /// Of what may run, or wait, at once in all levels: an observation a nanosecond.
    pub executing_part: Histogram,
    pub waiting_part: Histogram,
}

/// Its place in what is told of traffic: `readOnly`, `mutating`.
fn kind_of(verb: &str) -> usize {
    usize::from(!matches!(verb, "get" | "list" | "watch"))
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
    pub demand_deviation: f64,
    pub demand_smoothed: f64,
    /// What it was to have at the last adjustment, as far as there is enough.
    pub target: f64,
    /// In virtual seconds.
    pub progress: Seconds,
    /// None: no request has left a queue yet.
    pub dispatched: Option<Dispatched>,
    /// What is wanted, runs or waits, as parts of what there is room for: an observation a nanosecond.
    pub demand_part: Histogram,
    pub seats_part: Histogram,
    pub executing_part: Histogram,
    pub waiting_part: Histogram,
}

/// How many objects a list goes through: what its width is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Work {
    pub objects: usize,
    /// How many watch what may be changed; None if nothing is. They cost nothing here, and are counted.
    pub watchers: Option<usize>,
}

impl Work {
    /// Of a list, or a watch that begins with one: `stored` objects of the resource, an optional limit, whether a selector drops some.
    pub fn of_list(stored: usize, limit: usize, selects: bool) -> Self {
        let objects = if limit == 0 || selects { stored } else { stored.min(2 * limit) };
        Self { objects, watchers: None }
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
    /// The part of its target that each level got at the last adjustment.
    fair_fraction: f64,
    /// Requests that only read, and those that may change something.
    traffic: [Traffic; 2],
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
            fair_fraction: 0.0,
            traffic: [Traffic::new(), Traffic::new()],
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
        let most_waiting: usize =
            rules.levels.iter().filter_map(|spec| spec.queuing).map(Queuing::room).sum();
        for kind in &mut self.traffic {
            kind.executing_part.set_limit(nominal.iter().sum(), now);
            kind.waiting_part.set_limit(u32::try_from(most_waiting).unwrap_or(u32::MAX), now);
        }
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
            self.levels[place].configure(spec, nominal, self.limit, now);
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
        counts.wanted_seats.add(seats.into());
        if let Some(watchers) = work.watchers {
            counts.watchers.add(watchers as f64);
        }
        let traffic = &mut self.traffic[kind_of(&about.verb)];
        let ticket = Ticket { id: self.next_id, level: place, queue: None, seats, count, since: now };
        let verdict = match level.admit(self.next_id, seats, count, || schema.flow(&about), now) {
            Admitted::Runs(queue) => {
                counts.dispatched += 1;
                counts.executing += 1;
                counts.seats += seats;
                counts.waited.add(0.0);
                if queue.is_some() {
                    // It went through its queue without a stop.
                    counts.queue_length.add(1.0);
                }
                traffic.executes(1, now);
                Verdict::Run(Ticket { queue, ..ticket })
            }
            Admitted::Waits { queue, length, is_too_wide } => {
                counts.waiting += 1;
                counts.waiting_seats += seats;
                counts.queue_length.add(length as f64);
                counts.not_accommodated += u64::from(is_too_wide);
                traffic.waits(1, now);
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
        if let Some(Held { about, .. }) = self.held.remove(&ticket.id) {
            let of = if &*about.verb == "watch" { &mut counts.watches_ran } else { &mut counts.ran };
            of.add(now - ticket.since);
            self.traffic[kind_of(&about.verb)].executes(-1, now);
        }
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
        if let Some(Held { about, .. }) = self.held.remove(&ticket.id) {
            self.traffic[kind_of(&about.verb)].waits(-1, now);
        }
        let counts = &mut self.counts[ticket.count].2;
        counts.waiting = counts.waiting.saturating_sub(1);
        counts.waiting_seats = counts.waiting_seats.saturating_sub(ticket.seats);
        counts.waited_in_vain.add(now - ticket.since);
        counts.refused[Reason::TimeOut as usize] += 1;
        Ok((Refusal { retry_after_seconds }, self.wake(ticket.level, now)))
    }

    fn wake(&mut self, place: usize, now: Seconds) -> Vec<u64> {
        let mut woken = Vec::new();
        loop {
            let next = match self.levels[place].dispatch(now) {
                Dispatch::Runs(next) => next,
                Dispatch::TooWide { count } => {
                    self.counts[count].2.not_accommodated += 1;
                    return woken;
                }
                Dispatch::Nobody => return woken,
            };
            let counts = &mut self.counts[next.count].2;
            counts.waiting = counts.waiting.saturating_sub(1);
            counts.waiting_seats = counts.waiting_seats.saturating_sub(next.seats);
            counts.dispatched += 1;
            counts.executing += 1;
            counts.seats += next.seats;
            counts.waited.add(now - next.since);
            if let Some(held) = self.held.get_mut(&next.id) {
                held.started = Some(now);
                let traffic = &mut self.traffic[kind_of(&held.about.verb)];
                traffic.waits(-1, now);
                traffic.executes(1, now);
            }
            woken.push(next.id);
        }
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
        let (fair_fraction, current) = shares::allocate(self.limit, &bounds);
        self.fair_fraction = fair_fraction;
        for ((&place, current), bounds) in self.places.iter().zip(current).zip(&bounds) {
            self.levels[place].lend(current, bounds.target, self.limit, now);
        }
        self.wake_all(now)
    }

    /// Counts by schema and level.
    pub fn counts(&self) -> impl Iterator<Item = (&str, &str, &Counts)> {
        self.counts.iter().map(|(schema, level, counts)| (&**schema, &**level, counts))
    }

    /// What the levels are at a moment.
    pub fn levels(&self, now: Seconds) -> impl Iterator<Item = LevelState> {
        self.places.iter().map(move |&place| self.levels[place].state(now))
    }

    /// The part of its target that each level got when seats were lent last; nought before.
    pub fn fair_fraction(&self) -> f64 {
        self.fair_fraction
    }

    /// Requests that only read, and those that may change something, at a moment.
    pub fn traffic(&self, now: Seconds) -> [TrafficState; 2] {
        self.traffic.each_ref().map(|traffic| TrafficState {
            executing: traffic.executing.until(now),
            waiting: traffic.waiting.until(now),
            executing_part: traffic.executing_part.until(now),
            waiting_part: traffic.waiting_part.until(now),
        })
    }
}

/// What the rules are read from.
pub const SOURCES: [Resource; 2] = [kinds::FLOW_SCHEMAS, kinds::PRIORITY_LEVEL_CONFIGURATIONS];
