use object::Time;
use serde_json::{Value, json};

use crate::model::TimestampFormat;

/// The RFC 3339 text of what a client sent: epoch seconds as a number or a text, or an ISO 8601 text.
pub fn read(value: &Value) -> Option<String> {
    let seconds = |seconds: f64| {
        let micros = seconds * 1e6;
        (micros.abs() < 1e18).then(|| text(Time::from_micros(micros.round() as i64)))
    };
    match value {
        Value::Number(number) => seconds(number.as_f64()?),
        Value::String(text) => match text.parse::<f64>() {
            Ok(number) if number.is_finite() => seconds(number),
            _ => text.parse().ok().map(self::text),
        },
        _ => None,
    }
}

/// RFC 3339, to the millisecond if there are any.
fn text(time: Time) -> String {
    match time.as_micros().rem_euclid(1_000_000) / 1_000 {
        0 => time.to_string(),
        millis => time.to_string().replace('Z', &format!(".{millis:03}Z")),
    }
}

/// A timestamp of an answer, which is an RFC 3339 text, in the form of its place.
pub fn write(value: &Value, format: TimestampFormat) -> Value {
    let Some(time) = value.as_str().and_then(|text| text.parse::<Time>().ok()) else { return value.clone() };
    match format {
        TimestampFormat::Iso8601 => json!(text(time)),
        TimestampFormat::Unix if time.as_micros() % 1_000_000 == 0 => json!(time.as_secs()),
        TimestampFormat::Unix => json!((time.as_micros() / 1_000) as f64 / 1e3),
        TimestampFormat::Rfc822 => json!(http_date(time)),
    }
}

/// `Mon, 23 Nov 2026 04:22:43 GMT`
fn http_date(time: Time) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let iso = time.to_string();
    let day = DAYS[usize::try_from(time.as_secs().div_euclid(86_400).rem_euclid(7)).unwrap_or(0)];
    let month = iso.get(5..7).and_then(|month| month.parse::<usize>().ok()).unwrap_or(1);
    let part = |range: std::ops::Range<usize>| iso.get(range).unwrap_or_default();
    format!("{day}, {} {} {} {} GMT", part(8..10), MONTHS[(month + 11) % 12], part(0..4), part(11..19))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_read_and_written_in_every_form() {
        for (sent, read_as) in [
            (json!(1_795_406_563), Some("2026-11-23T04:02:43Z")),
            (json!(1_795_406_563.25), Some("2026-11-23T04:02:43.250Z")),
            (json!("1795406563"), Some("2026-11-23T04:02:43Z")),
            (json!("2026-11-23T05:02:43+01:00"), Some("2026-11-23T04:02:43Z")),
            (json!(1e300), None),
            (json!("NaN"), None),
            (json!("soon"), None),
            (json!([]), None),
        ] {
            assert_eq!(read(&sent).as_deref(), read_as, "{sent}");
        }
        let moment = json!("2026-11-23T04:02:43.25Z");
        assert_eq!(write(&moment, TimestampFormat::Iso8601), "2026-11-23T04:02:43.250Z");
        assert_eq!(write(&moment, TimestampFormat::Unix), json!(1_795_406_563.25));
        assert_eq!(write(&moment, TimestampFormat::Rfc822), "Mon, 23 Nov 2026 04:02:43 GMT");
        assert_eq!(write(&json!("2026-11-23T04:02:43Z"), TimestampFormat::Unix), json!(1_795_406_563));
    }
}
