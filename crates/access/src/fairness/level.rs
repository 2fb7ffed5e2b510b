//! One priority level: its seats, and the fair queues of those who wait for them.
//!
//! Fair queuing in virtual time (Demers, Keshav and Shenker, 1989, as KEP-1040 adapts it to requests that run side by side): every queue
//! has the virtual time at which its next request would begin if all queues were served round by round; the one that would end first goes
//! first. What a request takes is guessed at first, and corrected when it is done.

use std::collections::VecDeque;
use std::sync::Arc;

use super::rules::{LevelSpec, Queuing};
use super::shares::{Bounds, Limits};
use super::{LevelState, QueueDump, Reason, Seconds, Usage};

/// How long a request is taken to run until it is done: upstream's guess.
const GUESS: Seconds = 0.003;
/// How much of a level's smoothed demand is kept from one adjustment to the next.
const SMOOTHING: f64 = 0.977;
/// Who is refused is told to come again after this many seconds at most.
const LONGEST_RETRY: u32 = 32;

// Upper bounds of the parts that are told for metrics, as upstream.
/// Of the seats that are lent to the level: those that it could use.
static DEMAND_PARTS: [f64; 12] = [0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.7, 2.0, 2.8, 4.0, 6.0];
/// Those that are taken.
static SEATS_PARTS: [f64; 13] = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0];
/// Requests that run, of the seats; that wait, of the places in all queues.
static REQUESTS_PARTS: [f64; 10] = [0.0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.25, 0.5, 0.75, 1.0];

pub(super) struct Level {
    pub(super) name: Arc<str>,
    pub(super) limits: Limits,
    /// Its object is gone; it ends with its last request.
    pub(super) is_retired: bool,
    is_exempt: bool,
    queuing: Option<Queuing>,
    queues: Vec<Queue>,
    /// Where the search for the next queue begins.
    robin: usize,
    /// Seats of those that run.
    pub(super) in_use: u32,
    running: u32,
    waiting: u32,
    waiting_seats: u32,
    /// Queues with requests that run or wait.
    active: u32,
    virtual_now: Seconds,
    virtual_at: Seconds,
    demand: Demand,
    retry: Retry,
    dispatched: Option<Dispatched>,
    parts: Parts,
}

/// When a request left its queue last, in virtual seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dispatched {
    pub at: Seconds,
    /// When it was to begin.
    pub start: Seconds,
    /// The earliest and the latest begin of what was the next in each queue.
    pub starts: (Seconds, Seconds),
    /// The same, less what is guessed to be left of that queue's requests that run.
    pub discounted: (Seconds, Seconds),
}

/// How much of what there is room for is used.
struct Parts {
    demand: Usage,
    seats: Usage,
    executing: Usage,
    waiting: Usage,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    waiting_seats: u32,
    running: u32,
    running_seats: u32,
    /// When its next request begins, in virtual time.
    next_start: Seconds,
}

pub(super) struct Waiting {
    pub(super) id: u64,
    pub(super) seats: u32,
    pub(super) count: usize,
    pub(super) since: Seconds,
}

pub(super) enum Admitted {
    Runs(Option<usize>),
    Waits {
        queue: usize,
        /// With it.
        length: usize,
        /// It would be the next to run, and there are seats, but not enough.
        is_too_wide: bool,
    },
    Refused(Reason),
}

pub(super) enum Dispatch {
    Runs(Waiting),
    /// There are seats, but not enough for the next one, which is counted there.
    TooWide {
        count: usize,
    },
    Nobody,
}

impl Queue {
    fn is_active(&self) -> bool {
        self.running > 0 || !self.waiting.is_empty()
    }

    /// When its next request begins, less what is guessed to be left of those that run.
    fn discounted_start(&self) -> Seconds {
        self.next_start - f64::from(self.running_seats) * GUESS
    }
}

impl Level {
    pub(super) fn new(name: Arc<str>, now: Seconds) -> Self {
        Self {
            name,
            limits: Limits::default(),
            is_retired: false,
            is_exempt: false,
            queuing: None,
            queues: Vec::new(),
            robin: 0,
            in_use: 0,
            running: 0,
            waiting: 0,
            waiting_seats: 0,
            active: 0,
            virtual_now: 0.0,
            virtual_at: now,
            demand: Demand::new(now),
            retry: Retry::default(),
            dispatched: None,
            parts: Parts {
                demand: Usage::new(&DEMAND_PARTS, now),
                seats: Usage::new(&SEATS_PARTS, now),
                executing: Usage::new(&REQUESTS_PARTS, now),
                waiting: Usage::new(&REQUESTS_PARTS, now),
            },
        }
    }

    /// Whether nobody would miss it.
    pub(super) fn is_free(&self) -> bool {
        self.is_retired && self.in_use == 0 && self.waiting == 0
    }

    pub(super) fn configure(&mut self, spec: &LevelSpec, nominal: u32, server: u32, now: Seconds) {
        let limits = Limits::of(spec, nominal, server);
        if (limits.nominal, limits.lower, limits.upper)
            != (self.limits.nominal, self.limits.lower, self.limits.upper)
        {
            self.limits = limits;
        }
        self.is_exempt = spec.is_exempt;
        self.queuing = spec.queuing;
        // Fewer queues than before: those beyond are dealt to nobody and run empty.
        let wanted = spec.queuing.map_or(0, |queuing| queuing.queues);
        if self.queues.len() < wanted {
            self.queues.resize_with(wanted, Queue::default);
        }
        let room = spec.queuing.map_or(1, Queuing::room);
        self.parts.waiting.set_limit(u32::try_from(room).unwrap_or(u32::MAX), now);
        self.measure_by_seats(server, now);
    }

    /// Has so many seats from now on; `target`: what it was to have.
    pub(super) fn lend(&mut self, current: u32, target: f64, server: u32, now: Seconds) {
        self.limits.current = current;
        self.demand.target = target;
        self.measure_by_seats(server, now);
    }

    /// What is used is told as a part of the seats; where there are none, of a tenth of the server's, as upstream.
    fn measure_by_seats(&mut self, server: u32, now: Seconds) {
        let seats = match self.limits.current {
            0 => (f64::from(server) / 10.0).round() as u32,
            current => current,
        };
        for usage in [&mut self.parts.demand, &mut self.parts.seats, &mut self.parts.executing] {
            usage.set_limit(seats, now);
        }
    }

    pub(super) fn admit(
        &mut self,
        id: u64,
        seats: u32,
        count: usize,
        flow: impl FnOnce() -> u64,
        now: Seconds,
    ) -> Admitted {
        if self.is_exempt {
            self.take(None, seats, now);
            return Admitted::Runs(None);
        }
        let Some(queuing) = self.queuing else {
            if !self.has_room(seats) {
                return Admitted::Refused(Reason::ConcurrencyLimit);
            }
            self.take(None, seats, now);
            return Admitted::Runs(None);
        };
        self.advance(now);
        let at = self.deal(flow(), queuing);
        if self.waiting == 0 && self.has_room(seats) {
            self.activate(at);
            let queue = &self.queues[at];
            let (start, discounted) = (queue.next_start, queue.discounted_start());
            let (starts, discounted) = ((start, start), (discounted, discounted));
            self.dispatched = Some(Dispatched { at: self.virtual_now, start, starts, discounted });
            self.take(Some(at), seats, now);
            return Admitted::Runs(Some(at));
        }
        if self.queues[at].waiting.len() >= queuing.length {
            return Admitted::Refused(Reason::QueueFull);
        }
        self.activate(at);
        let queue = &mut self.queues[at];
        queue.waiting.push_back(Waiting { id, seats, count, since: now });
        queue.waiting_seats += seats;
        let length = queue.waiting.len();
        self.waiting += 1;
        self.waiting_seats += seats;
        self.note(now);
        let is_too_wide = self.waiting == 1 && self.in_use < self.limits.current;
        Admitted::Waits { queue: at, length, is_too_wide }
    }

    /// A request wider than all seats runs when it is alone.
    fn has_room(&self, seats: u32) -> bool {
        self.in_use == 0 || self.in_use + seats <= self.limits.current
    }

    /// The queue with least to do among the hand that the flow is dealt.
    fn deal(&self, flow: u64, queuing: Queuing) -> usize {
        let mut rest = flow;
        // Cards are drawn without putting back: each draw counts among those that are left.
        let mut drawn = [usize::MAX; 64];
        let hand = queuing.hand.min(queuing.queues);
        let mut best = (u64::MAX, 0);
        for dealt in 0..hand {
            let left = (queuing.queues - dealt) as u64;
            let mut card = (rest % left) as usize;
            rest /= left;
            for held in drawn[..dealt].iter() {
                if *held <= card {
                    card += 1;
                }
            }
            let place = drawn[..dealt].partition_point(|held| *held < card);
            drawn.copy_within(place..dealt, place + 1);
            drawn[place] = card;
            let queue = &self.queues[card];
            let load = u64::from(queue.waiting_seats) + u64::from(queue.running_seats);
            if load < best.0 {
                best = (load, card);
            }
        }
        best.1
    }

    fn activate(&mut self, at: usize) {
        let queue = &mut self.queues[at];
        if !queue.is_active() {
            self.active += 1;
            // It has no claim on the time when it was empty.
            queue.next_start = queue.next_start.max(self.virtual_now);
        }
    }

    fn take(&mut self, queue: Option<usize>, seats: u32, now: Seconds) {
        self.in_use += seats;
        self.running += 1;
        if let Some(at) = queue {
            let queue = &mut self.queues[at];
            queue.running += 1;
            queue.running_seats += seats;
            queue.next_start += f64::from(seats) * GUESS;
        }
        self.note(now);
    }

    pub(super) fn finish(&mut self, queue: Option<usize>, seats: u32, since: Seconds, now: Seconds) {
        self.advance(now);
        self.in_use = self.in_use.saturating_sub(seats);
        self.running = self.running.saturating_sub(1);
        if let Some(queue) = queue.and_then(|at| self.queues.get_mut(at)) {
            queue.running = queue.running.saturating_sub(1);
            queue.running_seats = queue.running_seats.saturating_sub(seats);
            queue.next_start += f64::from(seats) * (now - since - GUESS);
            if !queue.is_active() {
                self.active = self.active.saturating_sub(1);
            }
        }
        self.note(now);
    }

    /// Takes out who waits. False: it waits no longer.
    pub(super) fn leave(&mut self, at: usize, id: u64, now: Seconds) -> bool {
        self.advance(now);
        let Some(queue) = self.queues.get_mut(at) else { return false };
        let Some(place) = queue.waiting.iter().position(|waiting| waiting.id == id) else { return false };
        let seats = queue.waiting.remove(place).map_or(0, |gone| gone.seats);
        queue.waiting_seats = queue.waiting_seats.saturating_sub(seats);
        if !queue.is_active() {
            self.active = self.active.saturating_sub(1);
        }
        self.waiting = self.waiting.saturating_sub(1);
        self.waiting_seats = self.waiting_seats.saturating_sub(seats);
        self.note(now);
        true
    }

    /// The next request to run, if there is one and a place for it.
    pub(super) fn dispatch(&mut self, now: Seconds) -> Dispatch {
        if self.waiting == 0 {
            return Dispatch::Nobody;
        }
        self.advance(now);
        let count = self.queues.len();
        let mut best: Option<(Seconds, usize)> = None;
        let nothing = (Seconds::INFINITY, Seconds::NEG_INFINITY);
        let (mut starts, mut discounted) = (nothing, nothing);
        let widen = |range: &mut (Seconds, Seconds), to: Seconds| *range = (range.0.min(to), range.1.max(to));
        for step in 1..=count {
            let at = (self.robin + step) % count;
            let queue = &self.queues[at];
            let Some(first) = queue.waiting.front() else { continue };
            widen(&mut starts, queue.next_start);
            widen(&mut discounted, queue.discounted_start());
            let end = queue.next_start + f64::from(first.seats) * GUESS;
            if best.is_none_or(|(earliest, _)| end < earliest) {
                best = Some((end, at));
            }
        }
        let Some((_, at)) = best else { return Dispatch::Nobody };
        let Some(&Waiting { seats, count, .. }) = self.queues[at].waiting.front() else {
            return Dispatch::Nobody;
        };
        // Nobody overtakes: a wide request would never find enough seats at once.
        if !self.has_room(seats) {
            let are_some = self.in_use < self.limits.current;
            return if are_some { Dispatch::TooWide { count } } else { Dispatch::Nobody };
        }
        self.robin = at;
        let queue = &mut self.queues[at];
        let start = queue.next_start;
        let Some(next) = queue.waiting.pop_front() else { return Dispatch::Nobody };
        queue.waiting_seats = queue.waiting_seats.saturating_sub(seats);
        self.dispatched = Some(Dispatched { at: self.virtual_now, start, starts, discounted });
        self.waiting = self.waiting.saturating_sub(1);
        self.waiting_seats = self.waiting_seats.saturating_sub(seats);
        self.take(Some(at), seats, now);
        Dispatch::Runs(next)
    }

    /// Virtual time goes as fast as each active queue would be served.
    fn advance(&mut self, now: Seconds) {
        if self.active > 0 {
            let wanted = self.in_use.saturating_add(self.waiting_seats).min(self.limits.current.max(1));
            self.virtual_now += (now - self.virtual_at) * f64::from(wanted) / f64::from(self.active);
        }
        self.virtual_at = now;
    }

    fn note(&mut self, now: Seconds) {
        let demand = self.in_use.saturating_add(self.waiting_seats);
        self.demand.set(demand.into(), now);
        self.parts.demand.set(demand, now);
        self.parts.seats.set(self.in_use, now);
        self.parts.executing.set(self.running, now);
        self.parts.waiting.set(self.waiting, now);
    }

    /// Ends a period: what the level needs for the next.
    pub(super) fn bounds(&mut self, now: Seconds) -> Bounds {
        self.demand.end(now);
        let (minimum, nominal) = (f64::from(self.limits.lower), f64::from(self.limits.nominal));
        // Exempt requests run whatever is left for them; the others have what those leave.
        let high = if self.is_exempt { self.demand.high } else { self.demand.high.min(nominal) };
        let lower = minimum.max(high);
        Bounds {
            lower,
            upper: lower.max(f64::from(self.limits.upper)),
            target: lower.max(self.demand.smoothed),
        }
    }

    /// Counts a refusal; when to come again. The time doubles while many are refused each second, and halves when few are.
    pub(super) fn refused(&mut self, now: Seconds) -> u32 {
        self.retry.count(now)
    }

    pub(super) fn queue_dumps(&self) -> Vec<QueueDump> {
        let nanos = |seconds: Seconds| (seconds * 1e9).round() as u64;
        let dump = |queue: &Queue| QueueDump {
            waiting: queue.waiting.len(),
            waiting_seats: queue.waiting_seats,
            executing: queue.running,
            seats: queue.running_seats,
            next_start_nanos: nanos(queue.next_start),
            work_nanos: nanos(f64::from(queue.waiting_seats) * GUESS),
        };
        self.queues.iter().map(dump).collect()
    }

    pub(super) fn state(&self, now: Seconds) -> LevelState {
        let Limits { nominal, lower, upper, current } = self.limits;
        LevelState {
            name: self.name.clone(),
            nominal,
            lower,
            upper,
            current,
            in_use: self.in_use,
            waiting: self.waiting,
            demand_high: self.demand.high,
            demand_average: self.demand.average,
            demand_deviation: self.demand.deviation,
            demand_smoothed: self.demand.smoothed,
            target: self.demand.target,
            progress: self.virtual_now,
            dispatched: self.dispatched,
            demand_part: self.parts.demand.until(now),
            seats_part: self.parts.seats.until(now),
            executing_part: self.parts.executing.until(now),
            waiting_part: self.parts.waiting.until(now),
        }
    }
}

/// The seats that are wanted, over a period.
struct Demand {
    value: f64,
    since: Seconds,
    began: Seconds,
    /// The highest value of the period that runs.
    peak: f64,
    sum: f64,
    squares: f64,
    /// Of the last period.
    high: f64,
    average: f64,
    deviation: f64,
    smoothed: f64,
    /// The seats that it was to have then.
    target: f64,
}

impl Demand {
    fn new(now: Seconds) -> Self {
        Self {
            value: 0.0,
            since: now,
            began: now,
            peak: 0.0,
            sum: 0.0,
            squares: 0.0,
            high: 0.0,
            average: 0.0,
            deviation: 0.0,
            smoothed: 0.0,
            target: 0.0,
        }
    }

    fn set(&mut self, value: f64, now: Seconds) {
        let took = now - self.since;
        self.sum += self.value * took;
        self.squares += self.value * self.value * took;
        self.since = now;
        self.value = value;
        self.peak = self.peak.max(value);
    }

    /// Smoothed demand follows a rise at once and a fall slowly.
    fn end(&mut self, now: Seconds) {
        self.set(self.value, now);
        let took = (now - self.began).max(1e-9);
        self.average = self.sum / took;
        let variance = (self.squares / took - self.average * self.average).max(0.0);
        self.deviation = variance.sqrt();
        let envelope = self.average + self.deviation;
        self.smoothed = envelope.max(SMOOTHING * self.smoothed + (1.0 - SMOOTHING) * envelope);
        self.high = self.peak;
        (self.began, self.peak, self.sum, self.squares) = (now, self.value, 0.0, 0.0);
    }
}

#[derive(Default)]
struct Retry {
    second: u64,
    refused: u32,
    /// Zero stands for one.
    after: u32,
}

impl Retry {
    fn count(&mut self, now: Seconds) -> u32 {
        let second = now as u64;
        if second != self.second {
            let after = self.after.max(1);
            self.after = if self.refused >= 3 * after {
                (2 * after).min(LONGEST_RETRY)
            } else if self.refused < after {
                (after / 2).max(1)
            } else {
                after
            };
            (self.second, self.refused) = (second, 0);
        }
        self.refused += 1;
        self.after.max(1)
    }
}
