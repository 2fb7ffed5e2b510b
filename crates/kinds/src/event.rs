use object::{Resource, Time};
use schema::{At, Conversion, Kind, Violation, names, path};
use serde_json::{Value, json};

use crate::event_columns;
use crate::spec::check::{self, Found};
use crate::{row, strategy};

pub const EVENTS: Resource = Resource::new("events");

pub static KIND: Kind = CORE;

const CORE: Kind = Kind {
    resource: EVENTS,
    group: "",
    version: "v1",
    kind: "Event",
    singular: "event",
    short_names: &["ev"],
    namespaced: true,
    type_name: "core.v1.Event",
    columns: event_columns::CORE,
    selectable: &[
        "involvedObject.uid",
        "involvedObject.apiVersion",
        "involvedObject.fieldPath",
        "involvedObject.kind",
        "involvedObject.name",
        "involvedObject.namespace",
        "involvedObject.resourceVersion",
        "reason",
        "reportingComponent",
        "source",
        "type",
    ],
    selected: |event, path| (path == "source").then(|| source(event)),
    strategy: strategy::CREATE_ON_UPDATE,
    validate,
    ..row::BASE
};

/// The newer group: the same events by other names.
pub static V1: Kind = Kind {
    group: "events.k8s.io",
    type_name: "events.v1.Event",
    columns: event_columns::V1,
    // In the order of the stored row, which keeps them.
    selectable: &[
        "regarding.uid",
        "regarding.apiVersion",
        "regarding.fieldPath",
        "regarding.kind",
        "regarding.name",
        "regarding.namespace",
        "regarding.resourceVersion",
        "reason",
        "reportingController",
        "type",
    ],
    validate: validate_v1,
    conversion: Some(Conversion { to_stored, from_stored }),
    ..CORE
};

/// (in `v1`, in `events.k8s.io/v1`)
const NAMES: [(&str, &str); 7] = [
    ("count", "deprecatedCount"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("involvedObject", "regarding"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
];
const WORDS_MAX: usize = 128;
const MESSAGE_MAX: usize = 1024;

pub fn to_stored(mut object: Value) -> Value {
    object["apiVersion"] = "v1".into();
    for (core, newer) in NAMES {
        if let Some(value) = path::remove(&mut object, newer) {
            object[core] = value;
        }
    }
    path::set_default(&mut object, "involvedObject", json!({}));
    object
}

/// Who saw it: what `source` selects.
fn source(event: &Value) -> String {
    match path::text(event, "source.component") {
        "" => path::text(event, "reportingComponent").to_owned(),
        component => component.to_owned(),
    }
}

fn from_stored(mut object: Value) -> Value {
    object["apiVersion"] = "events.k8s.io/v1".into();
    for (core, newer) in NAMES {
        if let Some(value) = path::remove(&mut object, core) {
            object[newer] = value;
        }
    }
    // The core group writes these though nobody said them.
    for field in ["reportingController", "reportingInstance"] {
        if path::text(&object, field).is_empty() {
            path::remove(&mut object, field);
        }
    }
    object
}

fn validate(event: &Value, _old: Option<&Value>) -> Vec<Violation> {
    let mut found = Vec::new();
    basics(event, "reportingComponent", &mut found);
    found
}

/// What holds through both groups; `reporter` is what each calls the field of who reports.
fn basics(event: &Value, reporter: &str, found: &mut Found) {
    let (own, of) = (path::text(event, "metadata.namespace"), path::text(event, "involvedObject.namespace"));
    let is_timed = event_time(event).is_some();
    let fits = match (of.is_empty(), is_timed) {
        (true, true) => matches!(own, "default" | "kube-system"),
        (true, false) => matches!(own, "" | "default"),
        (false, true) => true,
        (false, false) => own == of,
    };
    if !fits {
        let at = At::root("involvedObject.namespace");
        found.push(Violation::invalid(at, of, "does not match event.namespace"));
    }
    if is_timed {
        timed(event, reporter, found);
    }
}

fn event_time(event: &Value) -> Option<Time> {
    path::text(event, "eventTime").parse().ok()
}

/// An event with a time of its own says who saw what.
fn timed(event: &Value, reporter: &str, found: &mut Found) {
    for field in ["reportingComponent", "reportingInstance", "action", "reason"] {
        let text = path::text(event, field);
        let at = At::root(if field == "reportingComponent" { reporter } else { field });
        if text.is_empty() {
            found.push(Violation::required(at, ""));
        }
        if field == "reportingComponent" {
            found.extend(Violation::all_invalid(at, text, names::qualified_name(text)));
        } else if text.len() > WORDS_MAX {
            found.push(Violation::invalid(at, "", format!("can have at most {WORDS_MAX} characters")));
        }
    }
    if path::text(event, "message").len() > MESSAGE_MAX {
        let detail = format!("can have at most {MESSAGE_MAX} characters");
        found.push(Violation::invalid(At::root("message"), "", detail));
    }
}

/// Through the newer group a new event has a time and a known type, and only its series changes later.
fn validate_v1(event: &Value, old: Option<&Value>) -> Vec<Violation> {
    let mut found = Vec::new();
    basics(event, "reportingController", &mut found);
    let root = At::root("");
    let series = event.get("series");
    let is_as_before = old.is_some_and(|old| old.get("series") == series);
    if let Some(series) = series.filter(|_| !is_as_before) {
        let at = At::root("series");
        if path::int(series, "count").unwrap_or_default() < 2 {
            found.push(Violation::invalid(at.field("count"), "", "should be at least 2"));
        }
        check::required(series, "lastObservedTime", at, &mut found);
    }
    let is_unset = |value: &Value| value.is_null() || *value == 0 || *value == "" || *value == json!({});
    let Some(old) = old else {
        if event_time(event).is_none() {
            found.push(Violation::required(At::root("eventTime"), ""));
        }
        let kind = path::text(event, "type");
        if !matches!(kind, "Normal" | "Warning") {
            found.push(Violation::invalid(At::root("type"), "", format!("has invalid value: {kind}")));
        }
        for field in ["firstTimestamp", "lastTimestamp", "count", "source"] {
            if event.get(field).is_some_and(|value| !is_unset(value)) {
                found.push(Violation::invalid(At::root(field), "", "needs to be unset"));
            }
        }
        return found;
    };
    for field in [
        "involvedObject",
        "reason",
        "message",
        "source",
        "firstTimestamp",
        "lastTimestamp",
        "count",
        "type",
        "action",
        "related",
        "reportingComponent",
        "reportingInstance",
    ] {
        // What was stored may lack what is written of nothing now.
        if [event, old].iter().any(|one| one.get(field).is_some_and(|value| !is_unset(value))) {
            check::immutable(event, old, field, root, &mut found);
        }
    }
    // As moments, for not everyone writes as many digits.
    if event_time(event) != event_time(old) {
        check::immutable(event, old, "eventTime", root, &mut found);
    }
    found
}
