//! What is told of the seats for metrics: how values are distributed, and how large something was over time.

use super::Seconds;

/// How values are distributed.
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram {
    bounds: &'static [f64],
    /// How many values are in each bucket alone; the last are above all bounds.
    counts: Box<[u64]>,
    sum: f64,
}

impl Histogram {
    /// `bounds`: the upper ones of the buckets, ascending; a value that is equal to one is within.
    pub(super) fn new(bounds: &'static [f64]) -> Self {
        Self { bounds, counts: vec![0; bounds.len() + 1].into(), sum: 0.0 }
    }

    pub(super) fn add(&mut self, value: f64) {
        self.counts[self.bucket(value)] += 1;
        self.sum += value;
    }

    fn bucket(&self, value: f64) -> usize {
        self.bounds.partition_point(|bound| *bound < value)
    }

    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    pub fn sum(&self) -> f64 {
        self.sum
    }

    /// Each bound with how many values are at most that.
    pub fn buckets(&self) -> impl Iterator<Item = (f64, u64)> + '_ {
        self.bounds.iter().zip(&self.counts).scan(0, |sum, (bound, count)| {
            *sum += count;
            Some((*bound, *sum))
        })
    }
}

/// How large a part of a limit is used: observed at the end of every nanosecond, as upstream's timing histograms are. A change costs two
/// additions.
#[derive(Clone, Debug)]
pub(super) struct Usage {
    histogram: Histogram,
    used: f64,
    limit: f64,
    /// That of what is used now.
    bucket: usize,
    since: Seconds,
}

impl Usage {
    /// Of a limit of one.
    pub(super) fn new(bounds: &'static [f64], now: Seconds) -> Self {
        let histogram = Histogram::new(bounds);
        let bucket = histogram.bucket(0.0);
        Self { histogram, used: 0.0, limit: 1.0, bucket, since: now }
    }

    pub(super) fn set(&mut self, used: u32, now: Seconds) {
        self.change(used.into(), self.limit, now);
    }

    /// A limit of zero counts as one.
    pub(super) fn set_limit(&mut self, limit: u32, now: Seconds) {
        self.change(self.used, limit.max(1).into(), now);
    }

    fn change(&mut self, used: f64, limit: f64, now: Seconds) {
        if (used, limit) == (self.used, self.limit) {
            return;
        }
        self.pass(now);
        (self.used, self.limit) = (used, limit);
        self.bucket = self.histogram.bucket(used / limit);
    }

    fn pass(&mut self, now: Seconds) {
        let nanos = ((now - self.since) * 1e9).round().max(0.0);
        self.histogram.counts[self.bucket] += nanos as u64;
        self.histogram.sum += nanos * self.used / self.limit;
        self.since = now;
    }

    /// What was observed until then.
    pub(super) fn until(&self, now: Seconds) -> Histogram {
        let mut all = self.clone();
        all.pass(now);
        all.histogram
    }
}

/// A number, and the highest that it was in the last whole second.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Peak {
    value: u32,
    /// In the second that runs.
    high: u32,
    second: u64,
    last: u32,
}

impl Peak {
    pub(super) fn set(&mut self, value: u32, now: Seconds) {
        self.roll(now);
        self.value = value;
        self.high = self.high.max(value);
    }

    pub(super) fn value(&self) -> u32 {
        self.value
    }

    /// The highest of the last whole second before then.
    pub(super) fn until(mut self, now: Seconds) -> u32 {
        self.roll(now);
        self.last
    }

    fn roll(&mut self, now: Seconds) {
        let second = now as u64;
        if second == self.second {
            return;
        }
        // Nothing has changed in the seconds between, if there are any.
        self.last = if second == self.second + 1 { self.high } else { self.value };
        (self.second, self.high) = (second, self.value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(histogram: &Histogram, buckets: &[u64], count: u64, sum: f64) {
        let found: Vec<u64> = histogram.buckets().map(|(_, count)| count).collect();
        assert_eq!((&found[..], histogram.count()), (buckets, count), "{histogram:?}");
        assert!((histogram.sum() - sum).abs() < 1e-3, "{histogram:?}");
    }

    #[test]
    fn what_was_used_for_how_long_is_counted_in_nanoseconds() {
        let mut usage = Usage::new(&[0.0, 0.5, 1.0], 1.0);
        usage.set_limit(4, 1.0);
        usage.set(2, 1.5);
        usage.set(8, 1.75);
        check(&usage.until(1.75), &[500_000_000, 750_000_000, 750_000_000], 750_000_000, 0.125e9);
        // Twice the limit, and then the whole of it.
        usage.set_limit(8, 2.0);
        check(&usage.until(3.0), &[500_000_000, 750_000_000, 1_750_000_000], 2_000_000_000, 1.625e9);
        // Nobody counts what is asked for.
        check(&usage.until(2.0), &[500_000_000, 750_000_000, 750_000_000], 1_000_000_000, 0.625e9);
    }

    #[test]
    fn a_peak_is_that_of_the_second_before() {
        let mut peak = Peak::default();
        for (value, now) in [(3, 0.1), (7, 0.5), (2, 0.9)] {
            peak.set(value, now);
        }
        assert_eq!([0.95, 1.5, 2.5, 9.0].map(|now| peak.until(now)), [0, 7, 2, 2]);
        peak.set(1, 5.5);
        assert_eq!([5.9, 6.0, 7.0].map(|now| peak.until(now)), [2, 2, 1]);
    }
}
