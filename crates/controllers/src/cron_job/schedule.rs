//! Schedules as robfig/cron reads them: five fields, `@daily` and its kin, `@every 1h30m`, and a time zone in front.
//!
//! <https://pkg.go.dev/github.com/robfig/cron/v3#hdr-CRON_Expression_Format>. A day matches if the day of the month or the day of the
//! week does, unless one of them is `*`: then the other alone decides.

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan, Zoned};
use object::Time;

/// A schedule that matches nothing within so many years (30 February) never runs.
const HORIZON_YEARS: i16 = 5;
/// Missed times beyond this are not counted.
const MOST_COUNTED: usize = 1_000;

pub struct Schedule {
    zone: TimeZone,
    rule: Rule,
}

enum Rule {
    Fields(Fields),
    /// Seconds between two runs.
    Every(i64),
}

/// Each a set of bits; a field given as `*` is marked, for the rule about days.
struct Fields {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    any_day: bool,
    any_weekday: bool,
}

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

impl Schedule {
    /// `zone` holds unless the text starts with `TZ=` or `CRON_TZ=`.
    pub fn parse(text: &str, zone: TimeZone) -> Result<Self, String> {
        let mut text = text.trim();
        let mut zone = zone;
        for prefix in ["TZ=", "CRON_TZ="] {
            if let Some(rest) = text.strip_prefix(prefix) {
                let (name, rest) = rest.split_once(' ').ok_or_else(|| "empty spec string".to_owned())?;
                zone = TimeZone::get(name)
                    .map_err(|_| format!("provided bad location {name}: unknown time zone {name}"))?;
                text = rest.trim();
                break;
            }
        }
        let rule = if text.starts_with('@') { descriptor(text)? } else { Rule::Fields(Fields::parse(text)?) };
        Ok(Self { zone, rule })
    }

    /// The first time after `after`.
    pub fn next_after(&self, after: Time) -> Option<Time> {
        match &self.rule {
            Rule::Every(seconds) => Some(Time::from_secs(after.as_secs() + seconds)),
            Rule::Fields(fields) => {
                let after = Timestamp::from_second(after.as_secs()).ok()?.to_zoned(self.zone.clone());
                Some(Time::from_secs(fields.next(&after)?.timestamp().as_second()))
            }
        }
    }

    /// The last time after `since` up to `now`, and how many there were (counted up to a thousand).
    pub fn last_between(&self, since: Time, now: Time) -> (Option<Time>, usize) {
        if let Rule::Every(seconds) = self.rule {
            let count = (now.as_secs() - since.as_secs()) / seconds.max(1);
            let last = Time::from_secs(since.as_secs() + count * seconds);
            return ((count > 0).then_some(last), usize::try_from(count).unwrap_or(0));
        }
        let times = self.times(since, now);
        let (last, count) = times.take(MOST_COUNTED).fold((None, 0), |(_, count), at| (Some(at), count + 1));
        if count < MOST_COUNTED {
            return (last, count);
        }
        // So many times lie close together: the last of them is in one of these windows.
        let windows: [i64; 4] = [3_600, 86_400, 32 * 86_400, 367 * 86_400];
        let recent = windows.iter().find_map(|seconds| self.times(now.plus_secs(-seconds), now).last());
        (recent.or(last), count)
    }

    /// The times after `since` up to `now`.
    fn times(&self, since: Time, now: Time) -> impl Iterator<Item = Time> {
        let next = move |at: &Time| self.next_after(*at).filter(|next| *next <= now);
        std::iter::successors(next(&since), next)
    }

    fn zoned(&self, at: Time) -> Option<Zoned> {
        Some(Timestamp::from_second(at.as_secs()).ok()?.to_zoned(self.zone.clone()))
    }

    /// `2026-01-01T13:00:00+01:00` in the schedule's zone.
    pub fn rfc3339(&self, at: Time) -> String {
        let Some(zoned) = self.zoned(at) else { return at.to_string() };
        let text = zoned.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string();
        text.strip_suffix("+00:00").map_or(text.clone(), |utc| format!("{utc}Z"))
    }

    /// `Thu, 01 Jan 2026 13:00:00 +0100`
    pub fn rfc1123(&self, at: Time) -> String {
        self.zoned(at)
            .map_or_else(|| at.to_string(), |zoned| zoned.strftime("%a, %d %b %Y %H:%M:%S %z").to_string())
    }
}

fn descriptor(text: &str) -> Result<Rule, String> {
    let fields = match text {
        "@yearly" | "@annually" => "0 0 1 1 *",
        "@monthly" => "0 0 1 * *",
        "@weekly" => "0 0 * * 0",
        "@daily" | "@midnight" => "0 0 * * *",
        "@hourly" => "0 * * * *",
        _ => {
            let duration =
                text.strip_prefix("@every ").ok_or_else(|| format!("unrecognized descriptor: {text}"))?;
            let seconds = go_duration(duration.trim()).ok_or_else(|| {
                format!("failed to parse duration {text}: time: invalid duration \"{duration}\"")
            })?;
            return Ok(Rule::Every(seconds.max(1)));
        }
    };
    Ok(Rule::Fields(Fields::parse(fields)?))
}

/// `1h30m`, `90s`, `1.5h` in whole seconds, as Go's `time.ParseDuration` reads them.
fn go_duration(text: &str) -> Option<i64> {
    let mut seconds = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        let unit_end = rest[end..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |at| end + at);
        seconds += number
            * match &rest[end..unit_end] {
                "h" => 3_600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 1e-3,
                "us" | "µs" => 1e-6,
                "ns" => 1e-9,
                _ => return None,
            };
        rest = &rest[unit_end..];
    }
    (!text.is_empty()).then_some(seconds as i64)
}

impl Fields {
    fn parse(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split_whitespace().collect();
        let [minutes, hours, days, months, weekdays] = parts[..] else {
            return Err(format!("expected exactly 5 fields, found {}: [{}]", parts.len(), parts.join(" ")));
        };
        let is_any = |field: &str| {
            field
                .split(',')
                .any(|part| matches!(part.split('/').next(), Some("*" | "?")) && !part.contains('/'))
        };
        Ok(Self {
            minutes: bits(minutes, 0, 59, &[])?,
            hours: bits(hours, 0, 23, &[])?,
            days: bits(days, 1, 31, &[])?,
            months: bits(months, 1, 12, &MONTHS)?,
            // 7 is not a day here; Sunday is 0.
            weekdays: bits(weekdays, 0, 6, &WEEKDAYS)?,
            any_day: is_any(days),
            any_weekday: is_any(weekdays),
        })
    }

    fn has_day(&self, date: Date) -> bool {
        let day = self.days >> date.day() & 1 == 1;
        let weekday = self.weekdays >> date.weekday().to_sunday_zero_offset() & 1 == 1;
        if self.any_day || self.any_weekday { day && weekday } else { day || weekday }
    }

    /// The next matching minute of the wall clock. One that a change of the clock leaves out is skipped; one that it repeats counts
    /// once.
    fn next(&self, after: &Zoned) -> Option<Zoned> {
        let start = after.datetime().checked_add(1.minute()).ok()?;
        let mut date = start.date();
        let mut from = (start.hour(), start.minute());
        let horizon = date.year().saturating_add(HORIZON_YEARS);
        while date.year() <= horizon {
            if self.months >> date.month() & 1 == 1 && self.has_day(date) {
                if let Some(found) = self.next_in_day(date, from, after) {
                    return Some(found);
                }
            } else if self.months >> date.month() & 1 == 0 {
                date = date.last_of_month();
            }
            date = date.tomorrow().ok()?;
            from = (0, 0);
        }
        None
    }

    fn next_in_day(&self, date: Date, from: (i8, i8), after: &Zoned) -> Option<Zoned> {
        for hour in (from.0..24).filter(|hour| self.hours >> hour & 1 == 1) {
            let first = if hour == from.0 { from.1 } else { 0 };
            for minute in (first..60).filter(|minute| self.minutes >> minute & 1 == 1) {
                let wall: DateTime = date.at(hour, minute, 0, 0);
                let Ok(zoned) = after.time_zone().to_zoned(wall) else { continue };
                if zoned.datetime() == wall && zoned.timestamp() > after.timestamp() {
                    return Some(zoned);
                }
            }
        }
        None
    }
}

/// `*/15`, `1-5`, `10-30/5`, `mon,wed`, `3/4` as bits.
fn bits(field: &str, low: u32, high: u32, names: &[&str]) -> Result<u64, String> {
    field.split(',').try_fold(0, |all, part| Ok(all | range(part, low, high, names)?))
}

fn range(part: &str, low: u32, high: u32, names: &[&str]) -> Result<u64, String> {
    let (span, step) = match part.split_once('/') {
        Some((span, step)) => (span, Some(number(step, &[], 0)?)),
        None => (part, None),
    };
    let (first, last) = match span.split_once('-') {
        _ if span == "*" || span == "?" => (low, high),
        Some((first, last)) => (number(first, names, low)?, number(last, names, low)?),
        None => {
            let one = number(span, names, low)?;
            // `3/4`: from 3 to the end.
            (one, if step.is_some() { high } else { one })
        }
    };
    if first < low {
        return Err(format!("beginning of range ({first}) below minimum ({low}): {part}"));
    }
    if last > high {
        return Err(format!("end of range ({last}) above maximum ({high}): {part}"));
    }
    if first > last {
        return Err(format!("beginning of range ({first}) beyond end of range ({last}): {part}"));
    }
    let step = step.unwrap_or(1);
    if step == 0 {
        return Err(format!("step of range should be a positive number: {part}"));
    }
    Ok((first..=last).step_by(step as usize).fold(0, |bits, value| bits | 1 << value))
}

fn number(text: &str, names: &[&str], low: u32) -> Result<u32, String> {
    let lower = text.to_ascii_lowercase();
    if let Some(at) = names.iter().position(|name| *name == lower) {
        return Ok(u32::try_from(at).unwrap_or(0) + low);
    }
    text.parse().map_err(|_| {
        format!("failed to parse int from {text}: strconv.Atoi: parsing \"{text}\": invalid syntax")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Time {
        text.parse().expect("a time")
    }

    #[test]
    fn the_next_time_is_found() {
        for (schedule, zone, after, next) in [
            ("*/15 * * * *", "UTC", "2026-01-01T12:00:00Z", "2026-01-01T12:15:00Z"),
            ("0 0 29 2 *", "UTC", "2026-01-01T00:00:00Z", "2028-02-29T00:00:00Z"),
            ("0 12 * * mon-fri", "UTC", "2026-01-02T12:00:00Z", "2026-01-05T12:00:00Z"),
            // Either day will do: the 13th, or a Friday.
            ("0 0 13 * fri", "UTC", "2026-01-03T00:00:00Z", "2026-01-09T00:00:00Z"),
            ("0 0 13 * *", "UTC", "2026-01-03T00:00:00Z", "2026-01-13T00:00:00Z"),
            ("30 9 * * *", "Europe/Berlin", "2026-06-30T12:00:00Z", "2026-07-01T07:30:00Z"),
            ("TZ=Asia/Tokyo 0 9 * * *", "UTC", "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"),
            // 02:30 does not exist on the last Sunday of March.
            ("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", "2026-03-30T00:30:00Z"),
            ("@hourly", "UTC", "2026-01-01T12:00:01Z", "2026-01-01T13:00:00Z"),
            ("@every 1h30m", "UTC", "2026-01-01T12:00:01Z", "2026-01-01T13:30:01Z"),
            ("5/20 * * * *", "UTC", "2026-01-01T12:26:00Z", "2026-01-01T12:45:00Z"),
        ] {
            let zone = TimeZone::get(zone).expect("a zone");
            let found = Schedule::parse(schedule, zone).expect("a schedule").next_after(time(after));
            assert_eq!(found.map(|at| at.to_string()).as_deref(), Some(next), "{schedule}");
        }
        let never = Schedule::parse("0 0 30 2 *", TimeZone::UTC).expect("a schedule");
        assert_eq!(never.next_after(time("2026-01-01T00:00:00Z")), None);
    }

    #[test]
    fn missed_times_are_counted() {
        let hourly = Schedule::parse("0 * * * *", TimeZone::UTC).expect("a schedule");
        let (last, count) = hourly.last_between(time("2026-01-01T00:30:00Z"), time("2026-01-01T05:10:00Z"));
        assert_eq!((last, count), (Some(time("2026-01-01T05:00:00Z")), 5));
        let often = Schedule::parse("* * * * *", TimeZone::UTC).expect("a schedule");
        let (last, count) = often.last_between(time("2020-01-01T00:30:00Z"), time("2026-01-01T05:10:30Z"));
        assert_eq!((last, count), (Some(time("2026-01-01T05:10:00Z")), MOST_COUNTED));
    }

    #[test]
    fn what_is_no_schedule_is_told() {
        for (text, error) in [
            ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("@often", "unrecognized descriptor: @often"),
        ] {
            assert_eq!(Schedule::parse(text, TimeZone::UTC).err().as_deref(), Some(error));
        }
    }
}
