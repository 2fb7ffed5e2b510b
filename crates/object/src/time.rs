use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A moment of wall time in microseconds since the epoch: what `metav1.Time` (written in whole seconds) and `MicroTime` hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Time(pub i64);

impl Time {
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    pub const fn from_secs(secs: i64) -> Self {
        Self(secs * 1_000_000)
    }

    pub const fn as_secs(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// Later by so many seconds (earlier if negative); stays at the ends of the range.
    pub const fn plus_secs(self, secs: i64) -> Self {
        Self(self.0.saturating_add(secs.saturating_mul(1_000_000)))
    }

    pub const fn plus_millis(self, millis: i64) -> Self {
        Self(self.0.saturating_add(millis.saturating_mul(1_000)))
    }

    /// Seconds from `earlier` to `self`, rounded down; negative if `earlier` is later.
    pub const fn secs_since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0).div_euclid(1_000_000)
    }

    /// RFC 3339 with six digits, as `MicroTime` is written: `2026-11-23T04:22:43.000000Z`.
    pub fn micro(self) -> String {
        format!("{:.6}", self.timestamp())
    }

    /// The day in UTC: `2026-11-23`.
    pub fn day(self) -> String {
        self.timestamp().strftime("%Y-%m-%d").to_string()
    }

    /// The beginning of a day as [`Time::day`] writes it.
    pub fn of_day(text: &str) -> Option<Self> {
        let is_day = text.len() == "2026-11-23".len();
        is_day.then(|| format!("{text}T00:00:00Z").parse().ok()).flatten()
    }

    fn timestamp(self) -> Timestamp {
        Timestamp::from_microsecond(self.0).unwrap_or(if self.0 < 0 {
            Timestamp::MIN
        } else {
            Timestamp::MAX
        })
    }
}

/// RFC 3339 in whole seconds, as `metav1.Time` is written: `2026-11-23T04:22:43Z`.
impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.0}", Self::from_secs(self.as_secs()).timestamp())
    }
}

impl FromStr for Time {
    type Err = jiff::Error;

    fn from_str(text: &str) -> Result<Self, jiff::Error> {
        text.parse::<Timestamp>().map(|t| Self(t.as_microsecond()))
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_upstream_writes_them() {
        let time: Time = "2026-11-23T05:22:43.123456+01:00".parse().expect("a time");
        assert_eq!(time.to_string(), "2026-11-23T04:22:43Z");
        assert_eq!(time.micro(), "2026-11-23T04:22:43.123456Z");
        assert_eq!(time.plus_secs(60).secs_since(time), 60);
        assert_eq!(time.day(), "2026-11-23");
        assert_eq!(
            Time::of_day("2026-11-23").map(|day| day.to_string()).as_deref(),
            Some("2026-11-23T00:00:00Z")
        );
        assert!(
            ["", "2026-13-01", "2026-11-3", "2026-11-23T04"].iter().all(|text| Time::of_day(text).is_none())
        );
    }
}
