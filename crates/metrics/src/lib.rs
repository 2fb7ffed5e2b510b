//! Counts and durations of what a process does, and the page on which Prometheus reads them.
//!
//! Whoever does something holds its own [`Counter`]s, [`Histogram`]s and [`Family`]s in a value of its own (there is no registry and no
//! global: a process has many clusters), counts without a lock that is held for long, and writes them to a [`Page`] when it is asked.
//!
//! A counter is one atomic addition, a histogram two; a family is looked up under a read lock, and nothing is allocated for what it knows
//! already. Who counts on a hot path keeps what [`Family::of`] gave.
//!
//! Architecture invariant: labels are what the code knows (rows, verbs, codes), or what somebody bounds: never what a client wrote.

mod page;

pub use page::Page;

use std::hash::{BuildHasher as _, Hash, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use hashbrown::HashTable;

/// Upper bounds in seconds that Prometheus' clients have when nobody says otherwise.
pub const SECONDS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// So many bounds, each `factor` times the one before.
pub const fn exponential<const N: usize>(first: f64, factor: f64) -> [f64; N] {
    let mut bounds = [first; N];
    let mut index = 1;
    while index < N {
        bounds[index] = bounds[index - 1] * factor;
        index += 1;
    }
    bounds
}

/// Something that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn increase(&self) {
        self.add(1);
    }

    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How values are distributed.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [f64],
    /// How many values are in each bucket alone; the last are above all bounds.
    counts: Box<[AtomicU64]>,
    /// The bits of an f64.
    sum: AtomicU64,
}

impl Histogram {
    /// `bounds`: the upper ones of the buckets, ascending; a value that is equal to one is within.
    pub fn new(bounds: &'static [f64]) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds, counts, sum: AtomicU64::new(0) }
    }

    pub fn observe(&self, value: f64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        let add = |sum: u64| Some((f64::from_bits(sum) + value).to_bits());
        // Fails only if `add` gives nothing, and it always has a next value.
        let _ = self.sum.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }

    /// In seconds.
    pub fn took(&self, duration: Duration) {
        self.observe(duration.as_secs_f64());
    }

    /// Takes in what another one with the same bounds has observed.
    pub fn absorb(&self, other: &Self) {
        for (own, more) in self.counts.iter().zip(&other.counts) {
            own.fetch_add(more.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        let more = other.sum();
        let add = |sum: u64| Some((f64::from_bits(sum) + more).to_bits());
        let _ = self.sum.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }

    pub fn sum(&self) -> f64 {
        f64::from_bits(self.sum.load(Ordering::Relaxed))
    }

    pub fn count(&self) -> u64 {
        self.counts.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// The bound that so large a part of all values is at most; NaN if there are none.
    pub fn quantile(&self, part: f64) -> f64 {
        let wanted = (self.count() as f64 * part).ceil().max(1.0) as u64;
        self.cumulative().find(|(_, count)| *count >= wanted).map_or(f64::NAN, |(bound, _)| bound)
    }

    /// Each bound with how many values are at most that.
    fn cumulative(&self) -> impl Iterator<Item = (f64, u64)> + '_ {
        let bounds = self.bounds.iter().copied().chain([f64::INFINITY]);
        bounds.zip(&self.counts).scan(0, |sum, (bound, count)| {
            *sum += count.load(Ordering::Relaxed);
            Some((bound, *sum))
        })
    }
}

/// One metric for each combination of its labels' values. `L` is what tells them apart: `[&'static str; N]`, `[Box<str>; N]` where the
/// words are not known before, or anything with a face of that shape.
#[derive(Debug)]
pub struct Family<L, M> {
    make: fn() -> M,
    hasher: RandomState,
    all: RwLock<HashTable<(L, Arc<M>)>>,
}

/// What a combination of labels is looked for by: itself, or its words wherever they stand. Both have one hash, and only a combination that
/// is not known yet is copied.
pub trait Names<L>: Hash {
    fn is(&self, labels: &L) -> bool;
    fn to_labels(&self) -> L;
}

impl<L: Clone + Eq + Hash> Names<L> for L {
    fn is(&self, labels: &L) -> bool {
        self == labels
    }

    fn to_labels(&self) -> L {
        self.clone()
    }
}

impl<const N: usize> Names<[Box<str>; N]> for [&str; N] {
    fn is(&self, labels: &[Box<str>; N]) -> bool {
        self.iter().zip(labels).all(|(word, label)| **word == **label)
    }

    fn to_labels(&self) -> [Box<str>; N] {
        self.map(Box::from)
    }
}

impl<A: Copy + Eq + Hash, const N: usize> Names<(A, [Box<str>; N])> for (A, [&str; N]) {
    fn is(&self, (other, labels): &(A, [Box<str>; N])) -> bool {
        self.0 == *other && self.1.is(labels)
    }

    fn to_labels(&self) -> (A, [Box<str>; N]) {
        (self.0, self.1.map(Box::from))
    }
}

impl<L, M: Default> Default for Family<L, M> {
    fn default() -> Self {
        Self::new(M::default)
    }
}

impl<L, M> Family<L, M> {
    pub fn new(make: fn() -> M) -> Self {
        Self { make, hasher: RandomState::new(), all: RwLock::default() }
    }
}

impl<L: Clone + Eq + Hash + Ord, M> Family<L, M> {
    /// The metric of these labels, made if there is none yet.
    pub fn of(&self, labels: &impl Names<L>) -> Arc<M> {
        let hash = self.hasher.hash_one(labels);
        let is_it = |(known, _): &(L, Arc<M>)| labels.is(known);
        if let Some((_, known)) = self.all.read().unwrap_or_else(PoisonError::into_inner).find(hash, is_it) {
            return known.clone();
        }
        let mut all = self.all.write().unwrap_or_else(PoisonError::into_inner);
        let entry = all.entry(hash, is_it, |(known, _)| self.hasher.hash_one(known));
        let (_, metric) = entry.or_insert_with(|| (labels.to_labels(), Arc::new((self.make)()))).into_mut();
        metric.clone()
    }

    /// How many combinations are known.
    pub fn len(&self) -> usize {
        self.all.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All of them, in the order of their labels.
    pub fn sorted(&self) -> Vec<(L, Arc<M>)> {
        let all = self.all.read().unwrap_or_else(PoisonError::into_inner);
        let mut sorted: Vec<_> = all.iter().cloned().collect();
        drop(all);
        sorted.sort_by(|(one, _), (other, _)| one.cmp(other));
        sorted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_in_the_bucket_whose_bound_it_reaches() {
        let histogram = Histogram::new(&[0.5, 1.0]);
        for value in [0.5, 0.6, 1.0, 7.0] {
            histogram.observe(value);
        }
        let cumulative: Vec<_> = histogram.cumulative().collect();
        assert_eq!(cumulative, [(0.5, 1), (1.0, 3), (f64::INFINITY, 4)]);
        assert_eq!((histogram.count(), histogram.sum()), (4, 9.1));
        assert_eq!(
            [0.0, 0.25, 0.5, 0.99].map(|part| histogram.quantile(part)),
            [0.5, 0.5, 1.0, f64::INFINITY]
        );
        assert!(Histogram::new(SECONDS).quantile(0.5).is_nan());
    }

    #[test]
    fn words_that_stand_elsewhere_name_the_same_labels() {
        let family: Family<[Box<str>; 2], Counter> = Family::default();
        for (labels, until) in [(["a", "b"], 1), (["a", "c"], 1), (["a", "b"], 2)] {
            let owned = labels.map(str::to_owned);
            family.of(&[owned[0].as_str(), owned[1].as_str()]).increase();
            assert_eq!(family.of(&labels.map(Box::<str>::from)).get(), until, "{labels:?}");
        }
        assert_eq!(family.len(), 2);
        let coded: Family<(u16, [Box<str>; 1]), Counter> = Family::default();
        for (labels, until) in [((200, ["a"]), 1), ((404, ["a"]), 1), ((200, ["a"]), 2)] {
            coded.of(&labels).increase();
            assert_eq!(coded.of(&(labels.0, labels.1.map(Box::<str>::from))).get(), until, "{labels:?}");
        }
        assert_eq!(coded.len(), 2);
    }

    #[test]
    fn what_many_count_at_once_is_all_counted() {
        let family: Family<[&'static str; 1], Histogram> = Family::new(|| Histogram::new(SECONDS));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1000).for_each(|_| family.of(&["a"]).observe(1.0)));
            }
        });
        let of = family.of(&["a"]);
        assert_eq!((of.count(), of.sum(), family.len()), (4000, 4000.0, 1));
    }
}
