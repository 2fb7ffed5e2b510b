//! One priority level: its seats, and the fair queues of those who wait for them.
//!
//! Fair queuing in virtual time (Demers, Keshav and Shenker, 1989, as KEP-1040 adapts it to requests that run side by side): every queue
//! has the virtual time at which its next request would begin if all queues were served round by round; the one that would end first goes
//! first. What a request takes is guessed at first, and corrected when it is done.

use std::collections::VecDeque;
use std::sync::Arc;

use super::rules::{LevelSpec, Queuing};
use super::shares::{Bounds, Limits};
use super::{LevelState, QueueDump, Reason, Seconds};

/// How long a request is taken to run until it is done: upstream's guess.
const GUESS: Seconds = 0.003;
/// How much of a level's smoothed demand is kept from one adjustment to the next.
const SMOOTHING: f64 = 0.977;
/// Who is refused is told to come again after this many seconds at most.
const LONGEST_RETRY: u32 = 32;

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
    in_use: u32,
    waiting: u32,
    waiting_seats: u32,
    /// Queues with requests that run or wait.
    active: u32,
    virtual_now: Seconds,
    virtual_at: Seconds,
    demand: Demand,
    retry: Retry,
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
    Waits(usize),
    Refused(Reason),
}

impl Queue {
    fn is_active(&self) -> bool {
        self.running > 0 || !self.waiting.is_empty()
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
            waiting: 0,
            waiting_seats: 0,
            active: 0,
            virtual_now: 0.0,
            virtual_at: now,
            demand: Demand::new(now),
            retry: Retry::default(),
        }
    }

    /// Whether nobody would miss it.
    pub(super) fn is_free(&self) -> bool {
        self.is_retired && self.in_use == 0 && self.waiting == 0
    }

    pub(super) fn configure(&mut self, spec: &LevelSpec, nominal: u32, server: u32) {
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
        self.waiting += 1;
        self.waiting_seats += seats;
        self.note(now);
        Admitted::Waits(at)
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
    pub(super) fn dispatch(&mut self, now: Seconds) -> Option<Waiting> {
        if self.waiting == 0 {
            return None;
        }
        self.advance(now);
        let count = self.queues.len();
        let mut best: Option<(Seconds, usize)> = None;
        for step in 1..=count {
            let at = (self.robin + step) % count;
            let Some(first) = self.queues[at].waiting.front() else { continue };
            let end = self.queues[at].next_start + f64::from(first.seats) * GUESS;
            if best.is_none_or(|(earliest, _)| end < earliest) {
                best = Some((end, at));
            }
        }
        let (_, at) = best?;
        let seats = self.queues[at].waiting.front()?.seats;
        // Nobody overtakes: a wide request would never find enough seats at once.
        if !self.has_room(seats) {
            return None;
        }
        self.robin = at;
        let next = self.queues[at].waiting.pop_front()?;
        self.queues[at].waiting_seats = self.queues[at].waiting_seats.saturating_sub(seats);
        self.waiting = self.waiting.saturating_sub(1);
        self.waiting_seats = self.waiting_seats.saturating_sub(seats);
        self.take(Some(at), seats, now);
        Some(next)
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
        self.demand.set(f64::from(self.in_use.saturating_add(self.waiting_seats)), now);
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

    pub(super) fn state(&self) -> LevelState {
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
            demand_smoothed: self.demand.smoothed,
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
    smoothed: f64,
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
            smoothed: 0.0,
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
        let envelope = self.average + variance.sqrt();
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
