//! What `kubectl get events` shows, of both groups.

use object::Time;
use schema::{Column, path};
use serde_json::Value;

use crate::column::{NAME, column, since, text, wide};
use crate::event::to_stored;

pub const CORE: &[Column] =
    &columns([last_seen, kind, reason, object, subobject, source, message, first_seen, count]);

/// The same of the newer group, whose events go by other names.
pub const V1: &[Column] = &columns([
    |event, now| last_seen(&to_stored(event.clone()), now),
    kind,
    reason,
    |event, now| object(&to_stored(event.clone()), now),
    |event, now| subobject(&to_stored(event.clone()), now),
    |event, now| source(&to_stored(event.clone()), now),
    |event, now| message(&to_stored(event.clone()), now),
    |event, now| first_seen(&to_stored(event.clone()), now),
    |event, now| count(&to_stored(event.clone()), now),
]);

type Cell = fn(&Value, Time) -> Value;

const fn columns(cells: [Cell; 9]) -> [Column; 10] {
    [
        column("Last Seen", "string", "When it happened last.", cells[0]),
        column("Type", "string", "Whether it is a warning.", cells[1]),
        column("Reason", "string", "What happened, in one word.", cells[2]),
        column("Object", "string", "What it happened to.", cells[3]),
        wide("Subobject", "string", "The part that it happened to.", cells[4]),
        wide("Source", "string", "Who saw it.", cells[5]),
        column("Message", "string", "What happened.", cells[6]),
        wide("First Seen", "string", "When it happened first.", cells[7]),
        wide("Count", "string", "How often it happened.", cells[8]),
        Column { priority: 1, ..NAME },
    ]
}

fn last_seen(event: &Value, now: Time) -> Value {
    since(event, "series.lastObservedTime", now)
        .or_else(|| since(event, "lastTimestamp", now))
        .unwrap_or_else(|| first_seen(event, now))
}

fn first_seen(event: &Value, now: Time) -> Value {
    since(event, "firstTimestamp", now)
        .or_else(|| since(event, "eventTime", now))
        .unwrap_or_else(|| "<unknown>".into())
}

fn kind(event: &Value, _: Time) -> Value {
    text(event, "type")
}

fn reason(event: &Value, _: Time) -> Value {
    text(event, "reason")
}

fn object(event: &Value, _: Time) -> Value {
    let kind = path::text(event, "involvedObject.kind").to_lowercase();
    match path::text(event, "involvedObject.name") {
        "" => kind.into(),
        name => format!("{kind}/{name}").into(),
    }
}

fn subobject(event: &Value, _: Time) -> Value {
    text(event, "involvedObject.fieldPath")
}

fn source(event: &Value, _: Time) -> Value {
    let either = |first: &str, second: &str| match path::text(event, first) {
        "" => path::text(event, second).to_owned(),
        held => held.to_owned(),
    };
    let component = either("source.component", "reportingComponent");
    let host = either("source.host", "reportingInstance");
    if host.is_empty() { component.into() } else { format!("{component}, {host}").into() }
}

fn message(event: &Value, _: Time) -> Value {
    path::text(event, "message").trim().into()
}

fn count(event: &Value, _: Time) -> Value {
    let counted = path::int(event, "series.count").or_else(|| path::int(event, "count")).unwrap_or_default();
    counted.max(1).into()
}
