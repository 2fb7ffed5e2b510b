//! Why a text is no time, in the words of Go's `time.Parse`: it reads the layout piece by piece, and names the first that does not fit.

const SECONDS: &str = "2006-01-02T15:04:05Z07:00";
const MICROS: &str = "2006-01-02T15:04:05.000000Z07:00";
/// Pieces of the layouts: what stands in front of one, and the piece. None of a whole second has a fraction.
const PIECES: [(&str, &str); 8] = [
    ("", "2006"),
    ("-", "01"),
    ("-", "02"),
    ("T", "15"),
    (":", "04"),
    (":", "05"),
    ("", ".000000"),
    ("", "Z07:00"),
];

/// Why a piece does not fit.
enum Misfit {
    Bad,
    OutOfRange(&'static str),
}

use Misfit::{Bad, OutOfRange};

/// `parsing time "x" as "2006-01-02T15:04:05Z07:00": cannot parse "x" as "2006"`. None: it is one. `micro`: with six digits of a second's
/// fraction, no more and no less.
pub(crate) fn wrong(text: &str, micro: bool) -> Option<String> {
    let layout = if micro { MICROS } else { SECONDS };
    let unfit = |rest: &str, piece: &str| {
        Some(format!("parsing time {text:?} as {layout:?}: cannot parse {rest:?} as {piece:?}"))
    };
    let told = |what: String| Some(format!("parsing time {text:?}{what}"));
    let mut rest = text;
    let (mut year, mut month, mut day) = (0, 0, 0);
    for (front, piece) in PIECES.into_iter().filter(|(_, piece)| micro || *piece != ".000000") {
        match rest.strip_prefix(front) {
            Some(behind) => rest = behind,
            None => return unfit(rest, front),
        }
        let before = rest;
        let number = match piece {
            "2006" => long_year(&mut rest),
            "15" => number(&mut rest, false).and_then(|hour| within(hour, 0..24, "hour")),
            "01" => number(&mut rest, true).and_then(|month| within(month, 1..13, "month")),
            "02" => number(&mut rest, true),
            "04" => number(&mut rest, true).and_then(|minute| within(minute, 0..60, "minute")),
            "05" => second(&mut rest, micro),
            "Z07:00" => zone(&mut rest),
            _ => fraction(&mut rest, piece.len()),
        };
        match (number, piece) {
            (Err(Bad), _) => return unfit(before, piece),
            (Err(OutOfRange(what)), _) => return told(format!(": {what} out of range")),
            (Ok(number), "2006") => year = number,
            (Ok(number), "01") => month = number,
            (Ok(number), "02") => day = number,
            _ => {}
        }
    }
    if !rest.is_empty() {
        return told(format!(": extra text: {rest:?}"));
    }
    if day < 1 || day > days(year, month) { told(": day out of range".into()) } else { None }
}

fn within(number: u32, range: std::ops::Range<u32>, what: &'static str) -> Result<u32, Misfit> {
    if range.contains(&number) { Ok(number) } else { Err(OutOfRange(what)) }
}

fn is_digit(text: &str, at: usize) -> bool {
    text.as_bytes().get(at).is_some_and(u8::is_ascii_digit)
}

/// Takes so many bytes off the front.
fn take<'a>(rest: &mut &'a str, bytes: usize) -> Result<&'a str, Misfit> {
    let (front, behind) = rest.split_at_checked(bytes).ok_or(Bad)?;
    *rest = behind;
    Ok(front)
}

/// Two digits, or where one may be enough, one.
fn number(rest: &mut &str, is_fixed: bool) -> Result<u32, Misfit> {
    let count = match (is_digit(rest, 0), is_digit(rest, 1)) {
        (true, true) => 2,
        (true, false) if !is_fixed => 1,
        _ => return Err(Bad),
    };
    take(rest, count)?.parse().map_err(|_| Bad)
}

fn long_year(rest: &mut &str) -> Result<u32, Misfit> {
    if !is_digit(rest, 0) {
        return Err(Bad);
    }
    take(rest, 4)?.parse().map_err(|_| Bad)
}

/// A fraction that the layout does not speak of is read with its second.
fn second(rest: &mut &str, micro: bool) -> Result<u32, Misfit> {
    let second = within(number(rest, true)?, 0..60, "second")?;
    if !micro && rest.starts_with(['.', ',']) && is_digit(rest, 1) {
        let digits = rest[1..].bytes().take_while(u8::is_ascii_digit).count();
        take(rest, 1 + digits)?;
    }
    Ok(second)
}

fn fraction(rest: &mut &str, bytes: usize) -> Result<u32, Misfit> {
    let digits = take(rest, bytes)?.strip_prefix(['.', ',']).ok_or(Bad)?;
    if digits.bytes().all(|byte| byte.is_ascii_digit()) { Ok(0) } else { Err(Bad) }
}

fn zone(rest: &mut &str) -> Result<u32, Misfit> {
    if let Some(behind) = rest.strip_prefix('Z') {
        *rest = behind;
        return Ok(0);
    }
    let zone = take(rest, 6)?;
    let (sign, mut hours, mut minutes) =
        (zone.get(..1), zone.get(1..3).ok_or(Bad)?, zone.get(4..).ok_or(Bad)?);
    if zone.as_bytes()[3] != b':' {
        return Err(Bad);
    }
    let (hours, minutes) = (number(&mut hours, true)?, number(&mut minutes, true)?);
    within(hours, 0..25, "time zone offset hour")?;
    within(minutes, 0..61, "time zone offset minute")?;
    if matches!(sign, Some("+" | "-")) { Ok(0) } else { Err(Bad) }
}

fn days(year: u32, month: u32) -> u32 {
    let is_leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    match month {
        2 if is_leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Go 1.26 says of each.
    #[test]
    fn times_are_refused_in_gos_words() {
        let as_seconds =
            |rest: &str, piece: &str| format!(" as {SECONDS:?}: cannot parse {rest:?} as {piece:?}");
        let as_micros =
            |rest: &str, piece: &str| format!(" as {MICROS:?}: cannot parse {rest:?} as {piece:?}");
        let cases = [
            ("x", false, as_seconds("x", "2006")),
            ("", false, as_seconds("", "2006")),
            ("2020", false, as_seconds("", "-")),
            ("2020-1-01T00:00:00Z", false, as_seconds("1-01T00:00:00Z", "01")),
            ("2020-01-01 00:00:00Z", false, as_seconds(" 00:00:00Z", "T")),
            ("2020-01-01T00:00:00", false, as_seconds("", "Z07:00")),
            ("2020-01-01T00:00:00+1:00", false, as_seconds("+1:00", "Z07:00")),
            ("2020-13-01T00:00:00Z", false, ": month out of range".into()),
            ("2020-02-30T00:00:00Z", false, ": day out of range".into()),
            ("2020-01-01T24:00:00Z", false, ": hour out of range".into()),
            ("2020-01-01T00:00:00Zx", false, ": extra text: \"x\"".into()),
            ("2020-01-01T00:00:00Z", true, as_micros("Z", ".000000")),
            ("2020-01-01T00:00:00.123Z", true, as_micros(".123Z", ".000000")),
            ("2020-01-01T00:00:00.1234567Z", true, as_micros("7Z", "Z07:00")),
        ];
        for (text, micro, why) in cases {
            assert_eq!(wrong(text, micro), Some(format!("parsing time {text:?}{why}")), "{text}");
        }
        for (text, micro) in [
            ("2020-02-29T23:59:59Z", false),
            ("2020-01-01T00:00:00.5+02:00", false),
            ("2020-01-01T00:00:00.123456-23:00", true),
        ] {
            assert_eq!(wrong(text, micro), None, "{text}");
        }
    }
}
