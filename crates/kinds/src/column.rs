//! Columns that many kinds share, and what their cells are made of.

use std::borrow::Cow;

use object::Time;
pub use schema::human_duration;
use schema::{Column, path};
use serde_json::Value;

/// What a cell is made by: the object, and now (for ages).
pub type Cell = fn(&Value, Time) -> Value;

pub const NAME: Column = Column {
    name: Cow::Borrowed("Name"),
    r#type: "string",
    format: "name",
    description: Cow::Borrowed("The name, unique within its namespace."),
    priority: 0,
    cell: schema::Cell::Compiled(|object, _| path::text(object, "metadata.name").into()),
};

pub const AGE: Column = column("Age", "string", "The time since it was created.", age);

/// The same of custom resources, whose columns have types of their own.
pub const CUSTOM_AGE: Column = column("Age", "date", "The time since it was created.", age);

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
    made(name, r#type, "", description, 0, cell)
}

/// A column that `-o wide` shows.
pub const fn wide(name: &'static str, r#type: &'static str, description: &'static str, cell: Cell) -> Column {
    made(name, r#type, "", description, 1, cell)
}

/// A column that holds a name of something.
pub const fn name_column(name: &'static str, description: &'static str, cell: Cell) -> Column {
    made(name, "string", "name", description, 0, cell)
}

const fn made(
    name: &'static str,
    r#type: &'static str,
    format: &'static str,
    description: &'static str,
    priority: i32,
    cell: Cell,
) -> Column {
    Column {
        name: Cow::Borrowed(name),
        r#type,
        format,
        description: Cow::Borrowed(description),
        priority,
        cell: schema::Cell::Compiled(cell),
    }
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
