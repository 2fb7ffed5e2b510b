//! The wall clock, as objects tell time.

use std::time::{SystemTime, UNIX_EPOCH};

use object::Time;

pub fn now() -> Time {
    time_of(SystemTime::now())
}

/// A moment of the wall clock; before 1970, its first.
pub fn time_of(moment: SystemTime) -> Time {
    let since = moment.duration_since(UNIX_EPOCH).unwrap_or_default();
    Time::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}
