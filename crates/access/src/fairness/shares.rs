//! How the seats of a server are divided between its levels: by their shares, and by who needs them at the moment.

use super::LevelSpec;

/// Rounds of halving in which the fair fraction is found: finer than any difference that rounding to seats leaves.
const ROUNDS: usize = 64;

/// A level's seats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) nominal: u32,
    /// What it keeps when it lends all that it may.
    pub(super) lower: u32,
    pub(super) upper: u32,
    pub(super) current: u32,
}

/// What a level needs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Bounds {
    pub(super) lower: f64,
    pub(super) upper: f64,
    pub(super) target: f64,
}

/// `ceil(limit × shares / all shares)` for each level.
pub(super) fn nominal(limit: u32, levels: &[LevelSpec]) -> Vec<u32> {
    let sum: u64 = levels.iter().map(|level| u64::from(level.shares)).sum();
    let one = |level: &LevelSpec| (u64::from(limit) * u64::from(level.shares)).div_ceil(sum.max(1));
    levels.iter().map(|level| u32::try_from(one(level)).unwrap_or(u32::MAX)).collect()
}

impl Limits {
    pub(super) fn of(spec: &LevelSpec, nominal: u32, server: u32) -> Self {
        let part = |percent: u32| (f64::from(nominal) * f64::from(percent) / 100.0).round() as u32;
        Self {
            nominal,
            lower: nominal.saturating_sub(part(spec.lendable)),
            upper: spec.borrowing.map_or(server, |percent| nominal.saturating_add(part(percent))),
            current: nominal,
        }
    }
}

/// Gives each level what it needs between its bounds, and as nearly as can be the same fraction of that to all: seats that nobody needs
/// are spread in proportion too. If not even the lower bounds fit, each gets its own. With the fraction.
pub(super) fn allocate(limit: u32, bounds: &[Bounds]) -> (f64, Vec<u32>) {
    let given = |bound: &Bounds, fraction: f64| (bound.target * fraction).clamp(bound.lower, bound.upper);
    let sum = |fraction: f64| bounds.iter().map(|bound| given(bound, fraction)).sum::<f64>();
    let limit = f64::from(limit);
    let (mut low, mut high) = (0.0, 1.0);
    while sum(high) < limit && high < 1e9 {
        high *= 2.0;
    }
    for _ in 0..ROUNDS {
        let middle = (low + high) / 2.0;
        if sum(middle) < limit { low = middle } else { high = middle }
    }
    (low, bounds.iter().map(|bound| given(bound, low).round() as u32).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(limit: u32, bounds: &[(f64, f64, f64)], expected: &[u32]) {
        let bounds: Vec<Bounds> =
            bounds.iter().map(|&(lower, upper, target)| Bounds { lower, upper, target }).collect();
        assert_eq!(allocate(limit, &bounds).1, expected, "{limit} {bounds:?}");
    }

    #[test]
    fn who_needs_more_borrows_from_who_needs_less() {
        // Both need the same and may have it.
        check(100, &[(10.0, 100.0, 50.0), (10.0, 100.0, 50.0)], &[50, 50]);
        // One needs nothing: its lower bound stays with it, the rest goes to the other.
        check(100, &[(10.0, 100.0, 10.0), (10.0, 100.0, 1000.0)], &[10, 90]);
        // Nobody takes more than its upper bound.
        check(100, &[(10.0, 30.0, 1000.0), (10.0, 100.0, 20.0)], &[30, 70]);
        // More is promised than there is.
        check(10, &[(10.0, 10.0, 10.0), (10.0, 10.0, 10.0)], &[10, 10]);
        check(100, &[], &[]);
    }
}
