//! Columns that many kinds share, and what their cells are made of.

use object::Time;
use schema::{Column, path};
use serde_json::Value;

/// What a cell is made by: the object, and now (for ages).
pub type Cell = fn(&Value, Time) -> Value;

pub const NAME: Column = Column {
    name: "Name",
    r#type: "string",
    format: "name",
    description: "The name, unique within its namespace.",
    priority: 0,
    cell: |object, _| path::text(object, "metadata.name").into(),
};

pub const AGE: Column = column("Age", "string", "The time since it was created.", age);

pub const CREATED_AT: Column = column("Created At", "date", "The time it was created.", |object, _| {
    path::get(object, "metadata.creationTimestamp").cloned().unwrap_or_default()
});

/// A column that is always shown.
pub const fn column(
    name: &'static str,
    r#type: &'static str,
    description: &'static str,
    cell: Cell,
) -> Column {
    Column { name, r#type, format: "", description, priority: 0, cell }
}

/// A column that `-o wide` shows.
pub const fn wide(name: &'static str, r#type: &'static str, description: &'static str, cell: Cell) -> Column {
    Column { name, r#type, format: "", description, priority: 1, cell }
}

/// How long the object has been there: `5m`, or `<unknown>` before it is stored.
pub fn age(object: &Value, now: Time) -> Value {
    since(object, "metadata.creationTimestamp", now).unwrap_or_else(|| "<unknown>".into())
}

/// How long ago the time at a path was; None if there is none.
pub fn since(object: &Value, at: &str, now: Time) -> Option<Value> {
    let time: Time = path::get(object, at)?.as_str()?.parse().ok()?;
    Some(human_duration(now.secs_since(time)).into())
}

/// A duration as kubectl shows it: two units at most, the finer one dropped as it grows.
pub fn human_duration(secs: i64) -> String {
    let (minutes, hours, days) = (secs / 60, secs / 3600, secs / 86400);
    let two = |big: i64, unit: &str, small: i64, small_unit: &str| match small {
        0 => format!("{big}{unit}"),
        _ => format!("{big}{unit}{small}{small_unit}"),
    };
    match secs {
        ..-1 => "<invalid>".into(),
        -1 => "0s".into(),
        0..120 => format!("{secs}s"),
        120..600 => two(minutes, "m", secs % 60, "s"),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => two(hours, "h", minutes % 60, "m"),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => two(days, "d", hours % 24, "h"),
        691_200..63_072_000 => format!("{days}d"),
        63_072_000..252_288_000 => two(days / 365, "y", days % 365, "d"),
        _ => format!("{}y", days / 365),
    }
}

/// The text at a path; empty if absent.
pub fn text(object: &Value, at: &str) -> Value {
    path::text(object, at).into()
}

/// The text at a path, or what stands for its absence.
pub fn text_or(object: &Value, at: &str, absent: &str) -> Value {
    match path::text(object, at) {
        "" => absent.into(),
        text => text.into(),
    }
}

/// The whole number at a path, zero if absent.
pub fn int(object: &Value, at: &str) -> Value {
    path::int(object, at).unwrap_or_default().into()
}

/// `a=b,c=d`, or `<none>`.
pub fn labels(object: &Value, at: &str) -> Value {
    let pairs: Vec<String> = path::members(object, at)
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    if pairs.is_empty() { "<none>".into() } else { pairs.join(",").into() }
}

/// The items of a list, each made a text, joined by commas.
pub fn join<'a>(items: &'a [Value], one: impl Fn(&'a Value) -> &'a str) -> String {
    items.iter().map(one).collect::<Vec<_>>().join(",")
}

/// The first few of a list, and how many more there are: `a,b,c + 2 more...`.
pub fn first(items: &[String], shown: usize, empty: &str) -> String {
    if items.is_empty() {
        return empty.into();
    }
    let front = items[..items.len().min(shown)].join(",");
    match items.len().saturating_sub(shown) {
        0 => front,
        more => format!("{front} + {more} more..."),
    }
}

/// The addresses or names that a load balancer gave, each once, in order.
pub fn ingress(given: &[Value]) -> String {
    let mut names: Vec<&str> = given
        .iter()
        .map(|one| match path::text(one, "ip") {
            "" => path::text(one, "hostname"),
            ip => ip,
        })
        .filter(|name| !name.is_empty())
        .collect();
    names.sort_unstable();
    names.dedup();
    names.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_shown_as_kubectl_shows_them() {
        for (secs, text) in [
            (-2, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (599, "9m59s"),
            (600, "10m"),
            (10_799, "179m"),
            (10_800, "3h"),
            (11_000, "3h3m"),
            (28_800, "8h"),
            (172_800, "2d"),
            (180_000, "2d2h"),
            (691_200, "8d"),
            (63_072_000, "2y"),
            (63_072_000 + 86_400, "2y1d"),
            (252_288_000, "8y"),
        ] {
            assert_eq!(human_duration(secs), text, "{secs}");
        }
    }
}
