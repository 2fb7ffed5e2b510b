//! What the tests of this crate share: snapshots made of JSON.

#![allow(dead_code, reason = "each test binary uses its own part")]

use object::{Draft, Event, Key, Object, Revision, Snapshot, Time, body};
use plan::{Attributes, User};
use serde_json::Value;

/// 2026-11-23T05:00:00Z
pub const NOW: Time = Time::from_secs(1_795_410_000);

/// The object of a JSON text of a known kind, as a store would hold it. Without a uid it gets `uid-<name>`.
pub fn object(value: &Value, revision: Revision) -> Object {
    let mut value = value.clone();
    let (group, version) =
        value["apiVersion"].as_str().expect("apiVersion").split_once('/').unwrap_or(("", "v1"));
    let kind = kinds::by_gvk(group, version, value["kind"].as_str().expect("kind")).expect("a known kind");
    let text = |field: &str| value["metadata"][field].as_str().unwrap_or_default().to_owned();
    let key = Key::new(kind.resource, text("namespace"), text("name"));
    if text("uid").is_empty() {
        value["metadata"]["uid"] = format!("uid-{}", key.name).into();
    }
    let fields = kind.selectable.iter().map(|at| schema::path::text(&value, at).into()).collect();
    Draft::read(key, fields, body::encode(&value)).expect("a draft").at(revision)
}

pub fn put(snapshot: &mut Snapshot, value: &Value) -> Event {
    let revision = snapshot.revision() + 1;
    snapshot.put(object(value, revision))
}

pub fn snapshot(values: &[Value]) -> Snapshot {
    let mut snapshot = Snapshot::default();
    for value in values {
        put(&mut snapshot, value);
    }
    snapshot
}

/// `alice:devs,ops`
pub fn user(text: &str) -> User {
    let (name, groups) = text.rsplit_once('|').unwrap_or((text, ""));
    User::new(name, &groups.split(',').filter(|group| !group.is_empty()).collect::<Vec<_>>())
}

/// `get pods/log ns/name`, `list deployments.apps ns/`, `get nodes /n1`, `get /healthz`
pub fn attributes(text: &str) -> Attributes<'_> {
    let mut words = text.split(' ');
    let verb = words.next().unwrap_or_default();
    let what = words.next().unwrap_or_default();
    if what.starts_with('/') {
        return Attributes { verb, path: what, ..Attributes::default() };
    }
    let (what, subresource) = what.split_once('/').unwrap_or((what, ""));
    let (resource, group) = what.split_once('.').unwrap_or((what, ""));
    let (namespace, name) = words.next().unwrap_or("/").split_once('/').unwrap_or_default();
    Attributes { verb, group, version: "v1", resource, subresource, namespace, name, ..Attributes::default() }
}
