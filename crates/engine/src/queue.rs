//! Which keys of one controller wait, run, and sleep. Pure: `now` is an argument.

use std::collections::{BTreeSet, HashMap, VecDeque};

use object::{Key, Time};

/// The first wait after a failure, in milliseconds; it doubles up to the longest. Upstream's rate limiter: 5 ms to 1000 s.
const FIRST_BACKOFF_MILLIS: i64 = 5;
const LONGEST_BACKOFF_MILLIS: i64 = 1_000_000;

/// The work of one controller.
#[derive(Debug)]
pub struct Queue {
    ready: VecDeque<Key>,
    states: HashMap<Key, State>,
    sleeping: BTreeSet<(Time, Key)>,
    longest_backoff_millis: i64,
}

impl Default for Queue {
    fn default() -> Self {
        Self::with_longest_backoff(LONGEST_BACKOFF_MILLIS)
    }
}

#[derive(Debug)]
struct State {
    is_ready: bool,
    /// When it became ready.
    since: Time,
    is_running: bool,
    /// Something happened while it ran.
    is_dirty: bool,
    wakes_at: Option<Time>,
    failures: u32,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Done {
        wake_at: Option<Time>,
    },
    /// Run again after a back-off that grows with each failure in a row.
    Failed,
}

impl Queue {
    /// One that tries again what has failed so many milliseconds after at the latest.
    pub fn with_longest_backoff(longest_backoff_millis: i64) -> Self {
        Self {
            ready: VecDeque::new(),
            states: HashMap::new(),
            sleeping: BTreeSet::new(),
            longest_backoff_millis,
        }
    }

    /// Something happened that this key should look at. Whether that is news: it was not to be run (again) already.
    pub fn add(&mut self, key: Key, now: Time) -> bool {
        let state = self.states.entry(key.clone()).or_insert_with(|| State::new(now));
        if state.is_running {
            return !std::mem::replace(&mut state.is_dirty, true);
        }
        if state.is_ready {
            return false;
        }
        (state.is_ready, state.since) = (true, now);
        self.ready.push_back(key);
        true
    }

    /// How many keys are ready to run.
    pub fn depth(&self) -> usize {
        self.ready.len()
    }

    /// The next key to run, which counts as running until `finish`.
    pub fn take(&mut self, now: Time) -> Option<Key> {
        self.take_since(now).map(|(key, _)| key)
    }

    /// As [`Self::take`], with when the key became ready.
    pub fn take_since(&mut self, now: Time) -> Option<(Key, Time)> {
        self.wake(now);
        let key = self.ready.pop_front()?;
        let state = self.states.entry(key.clone()).or_insert_with(|| State::new(now));
        state.is_ready = false;
        state.is_running = true;
        // A run looks at everything, also at what a timer was for.
        if let Some(at) = state.wakes_at.take() {
            self.sleeping.remove(&(at, key.clone()));
        }
        let since = state.since;
        Some((key, since))
    }

    pub fn finish(&mut self, key: &Key, outcome: Outcome, now: Time) {
        let Some(state) = self.states.get_mut(key) else { return };
        state.is_running = false;
        let dirty = std::mem::take(&mut state.is_dirty);
        let wake_at = match outcome {
            Outcome::Done { wake_at } => {
                state.failures = 0;
                wake_at
            }
            Outcome::Failed => {
                let wait = FIRST_BACKOFF_MILLIS << state.failures.min(20);
                state.failures += 1;
                Some(now.plus_millis(wait.min(self.longest_backoff_millis)))
            }
        };
        if let Some(at) = wake_at {
            state.wakes_at = Some(at);
            self.sleeping.insert((at, key.clone()));
        }
        let failed = outcome == Outcome::Failed;
        if dirty && !failed {
            self.add(key.clone(), now);
        } else if wake_at.is_none() {
            self.states.remove(key);
        }
    }

    /// When the next sleeping key wakes; None if none sleeps.
    pub fn next_wake(&self) -> Option<Time> {
        self.sleeping.first().map(|(at, _)| *at)
    }

    fn wake(&mut self, now: Time) {
        while let Some((at, key)) = self.sleeping.first().cloned().filter(|(at, _)| *at <= now) {
            self.sleeping.remove(&(at, key.clone()));
            if let Some(state) = self.states.get_mut(&key) {
                state.wakes_at = None;
            }
            self.add(key, now);
        }
    }
}

impl State {
    fn new(now: Time) -> Self {
        Self { is_ready: false, since: now, is_running: false, is_dirty: false, wakes_at: None, failures: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use object::Resource;

    fn key(name: &str) -> Key {
        Key::new(Resource::new("pods"), "default", name)
    }

    const NOW: Time = Time::from_secs(1_000);

    #[test]
    fn a_key_runs_once_for_many_events_and_again_for_one_that_came_late() {
        let mut queue = Queue::default();
        queue.add(key("a"), NOW);
        queue.add(key("a"), NOW);
        assert_eq!(queue.take(NOW), Some(key("a")));
        assert_eq!(queue.take(NOW), None);
        queue.add(key("a"), NOW);
        assert_eq!(queue.take(NOW), None, "it runs already");
        queue.finish(&key("a"), Outcome::Done { wake_at: None }, NOW);
        assert_eq!(queue.take(NOW), Some(key("a")));
        queue.finish(&key("a"), Outcome::Done { wake_at: None }, NOW);
        assert_eq!((queue.take(NOW), queue.states.len()), (None, 0));
    }

    #[test]
    fn failures_wait_longer_each_time_and_success_forgets_them() {
        let mut queue = Queue::default();
        queue.add(key("a"), NOW);
        let mut now = NOW;
        for wait in [5, 10, 20, 40] {
            assert_eq!(queue.take(now), Some(key("a")));
            queue.finish(&key("a"), Outcome::Failed, now);
            assert_eq!(queue.next_wake(), Some(now.plus_millis(wait)));
            assert_eq!(queue.take(now.plus_millis(wait - 1)), None);
            now = now.plus_millis(wait);
        }
        assert_eq!(queue.take(now), Some(key("a")));
        queue.finish(&key("a"), Outcome::Done { wake_at: Some(now.plus_secs(9)) }, now);
        assert_eq!(queue.next_wake(), Some(now.plus_secs(9)));
        queue.add(key("a"), NOW);
        assert_eq!(queue.take(now), Some(key("a")));
        assert_eq!(queue.next_wake(), None, "the run replaces the timer");
    }

    #[test]
    fn the_longest_wait_is_a_queues_own() {
        let mut queue = Queue::with_longest_backoff(30);
        queue.add(key("a"), NOW);
        let mut now = NOW;
        for wait in [5, 10, 20, 30, 30] {
            assert_eq!(queue.take(now), Some(key("a")));
            queue.finish(&key("a"), Outcome::Failed, now);
            now = now.plus_millis(wait);
            assert_eq!(queue.next_wake(), Some(now));
        }
    }
}
