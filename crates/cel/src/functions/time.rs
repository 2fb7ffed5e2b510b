//! Timestamps and durations.

use jiff::tz::{Offset, TimeZone};
use jiff::{SignedDuration, Zoned};

use super::{overload, text};
use crate::error::EvalError;
use crate::function::Ty::{Duration, Int, String, Timestamp};
use crate::function::{Cost, Function};
use crate::value::Value;

/// A part of a date: with and without a time zone; those that a duration has too are its whole length in that unit.
macro_rules! part {
    ($name:literal, $part:expr) => {
        Function {
            name: $name,
            overloads: &[
                overload!(member (Timestamp) -> Int, Cost::One, |args| Ok(Value::Int($part(&zoned(args)?)))),
                overload!(member (Timestamp, String) -> Int, Cost::One, |args| Ok(Value::Int($part(&zoned(args)?)))),
            ],
        }
    };
    ($name:literal, $part:expr, $length:expr) => {
        Function {
            name: $name,
            overloads: &[
                overload!(member (Timestamp) -> Int, Cost::One, |args| Ok(Value::Int($part(&zoned(args)?)))),
                overload!(member (Timestamp, String) -> Int, Cost::One, |args| Ok(Value::Int($part(&zoned(args)?)))),
                overload!(member (Duration) -> Int, Cost::One, |args| Ok(Value::Int($length(length(args)?)))),
            ],
        }
    };
}

pub const FUNCTIONS: &[Function] = &[
    part!("getDate", |at: &Zoned| i64::from(at.day())),
    part!("getDayOfMonth", |at: &Zoned| i64::from(at.day()) - 1),
    part!("getDayOfWeek", |at: &Zoned| i64::from(at.weekday().to_sunday_zero_offset())),
    part!("getDayOfYear", |at: &Zoned| i64::from(at.day_of_year()) - 1),
    part!("getFullYear", |at: &Zoned| i64::from(at.year())),
    part!("getHours", |at: &Zoned| i64::from(at.hour()), |length: SignedDuration| length.as_hours()),
    part!("getMilliseconds", |at: &Zoned| i64::from(at.millisecond()), |length: SignedDuration| {
        i64::from(length.subsec_millis())
    }),
    part!("getMinutes", |at: &Zoned| i64::from(at.minute()), |length: SignedDuration| length.as_mins()),
    part!("getMonth", |at: &Zoned| i64::from(at.month()) - 1),
    part!("getSeconds", |at: &Zoned| i64::from(at.second()), |length: SignedDuration| length.as_secs()),
];

fn zoned(args: &[Value]) -> Result<Zoned, EvalError> {
    let Some(Value::Timestamp(at)) = args.first() else { return Err(EvalError::no_such_overload()) };
    let zone = if args.len() > 1 { zone(text(args, 1)?)? } else { TimeZone::UTC };
    Ok(at.to_zoned(zone))
}

/// A name of the time zone database, or an offset: `-08:00`.
fn zone(name: &str) -> Result<TimeZone, EvalError> {
    let unknown = || EvalError::new(format!("unknown time zone {name}"));
    let (sign, digits) = match name.split_at_checked(1) {
        Some(("+", digits)) => (1, digits),
        Some(("-", digits)) => (-1, digits),
        _ if name.starts_with(|c: char| c.is_ascii_digit()) => (1, name),
        _ => return TimeZone::get(name).map_err(|_| unknown()),
    };
    let (hours, minutes) = digits.split_once(':').ok_or_else(unknown)?;
    let number = |text: &str| text.parse::<i32>().map_err(|_| unknown());
    let seconds = number(hours)?
        .checked_mul(3600)
        .and_then(|seconds| number(minutes).ok()?.checked_mul(60)?.checked_add(seconds));
    let offset = Offset::from_seconds(sign * seconds.ok_or_else(unknown)?).map_err(|_| unknown())?;
    Ok(TimeZone::fixed(offset))
}

fn length(args: &[Value]) -> Result<SignedDuration, EvalError> {
    match args.first() {
        Some(Value::Duration(length)) => Ok(*length),
        _ => Err(EvalError::no_such_overload()),
    }
}

/// Go's notation: `1h30m`, `-1.5s`, `300ms`.
pub(crate) fn duration(text: &str) -> Option<SignedDuration> {
    let (negative, mut rest) = match text.split_at_checked(1)? {
        ("-", rest) => (true, rest),
        ("+", rest) => (false, rest),
        _ => (false, text),
    };
    if rest == "0" {
        return Some(SignedDuration::ZERO);
    }
    if rest.is_empty() {
        return None;
    }
    let mut nanos: i128 = 0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, behind) = rest.split_at(end);
        let unit_end = behind.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(unit_end);
        let scale: i128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        nanos = nanos.checked_add(scaled(number, scale)?)?;
        rest = behind;
    }
    let nanos = i64::try_from(if negative { -nanos } else { nanos }).ok()?;
    Some(SignedDuration::from_nanos(nanos))
}

/// `1.5` times a scale.
fn scaled(number: &str, scale: i128) -> Option<i128> {
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && part.is_empty() {
        return None;
    }
    let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut total = whole.checked_mul(scale)?;
    let mut unit = scale;
    for digit in part.bytes() {
        unit /= 10;
        total = total.checked_add(unit * i128::from(digit.checked_sub(b'0')?))?;
    }
    Some(total)
}

/// Seconds, as CEL writes a duration: `5400s`, `1.5s`.
pub(crate) fn duration_text(length: SignedDuration) -> std::string::String {
    let nanos = length.as_nanos();
    let sign = if nanos < 0 { "-" } else { "" };
    let (seconds, part) = (nanos.abs() / 1_000_000_000, nanos.abs() % 1_000_000_000);
    if part == 0 {
        return format!("{sign}{seconds}s");
    }
    let part = format!("{part:09}");
    format!("{sign}{seconds}.{}s", part.trim_end_matches('0'))
}
