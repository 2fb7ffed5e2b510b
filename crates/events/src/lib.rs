//! Occurrences become Kubernetes Events: named, counted when they repeat, dropped when they flood. Pure.
//!
//! Upstream's rules: <https://github.com/kubernetes/design-proposals-archive/blob/main/api-machinery/event_compression.md>.

use std::collections::HashMap;
use std::sync::Arc;

use object::{Key, Resource, Time};
use plan::{Expect, Occurrence, Write};
use serde_json::{Value, json};

const EVENTS: Resource = Resource::new("events");
/// Distinct events remembered for counting; the memory is emptied when it is full.
const REMEMBERED: usize = 4_096;
/// Events of one source about one object: so many at once, then one each `REFILL_SECS`.
const BURST: f64 = 25.0;
const REFILL_SECS: f64 = 300.0;

/// Who reports: `reportingComponent` and, for a node's parts, the node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Source {
    pub component: Arc<str>,
    pub host: Arc<str>,
}

/// Turns occurrences into writes, and remembers what it wrote.
#[derive(Default)]
pub struct Correlator {
    known: HashMap<Sameness, Known>,
    buckets: HashMap<(Source, Key), Bucket>,
}

/// What makes two occurrences the same event.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Sameness {
    source: Source,
    uid: Box<str>,
    about: Key,
    field_path: Box<str>,
    reason: &'static str,
    message: String,
}

struct Known {
    key: Key,
    count: u64,
}

/// The write of one occurrence. After a failure that says that the event is gone, `Correlator::take` it once more.
pub struct Record {
    pub write: Write,
    /// Whether the event exists already, so that "not found" means that its time to live is over.
    pub is_repeat: bool,
    sameness: Sameness,
}

impl Correlator {
    /// None if this source has said too much about this object.
    pub fn take(&mut self, source: &Source, occurrence: &Occurrence, now: Time) -> Option<Record> {
        if self.known.len() >= REMEMBERED {
            self.known.clear();
        }
        if self.buckets.len() >= REMEMBERED {
            self.buckets.clear();
        }
        let bucket = (source.clone(), occurrence.about.clone());
        if !self.buckets.entry(bucket).or_insert_with(|| Bucket::full(now)).take(now) {
            return None;
        }
        Some(self.record(source, occurrence, now))
    }

    /// The event of a record is gone: a record that makes a new one.
    pub fn again(&mut self, record: &Record, source: &Source, occurrence: &Occurrence, now: Time) -> Record {
        self.known.remove(&record.sameness);
        self.record(source, occurrence, now)
    }

    /// The write of a record failed: the event may not exist.
    pub fn forget(&mut self, record: &Record) {
        self.known.remove(&record.sameness);
    }

    fn record(&mut self, source: &Source, occurrence: &Occurrence, now: Time) -> Record {
        let sameness = Sameness {
            source: source.clone(),
            uid: occurrence.uid.clone(),
            about: occurrence.about.clone(),
            field_path: occurrence.field_path.clone(),
            reason: occurrence.reason,
            message: occurrence.message.clone(),
        };
        if let Some(seen) = self.known.get_mut(&sameness) {
            seen.count += 1;
            let patch = json!({"count": seen.count, "lastTimestamp": now});
            let write =
                Write::Merge { key: seen.key.clone(), expect: Expect::default(), subresource: "", patch };
            return Record { write, is_repeat: true, sameness };
        }
        let (key, object) = event(source, occurrence, now);
        self.known.insert(sameness.clone(), Known { key, count: 1 });
        Record { write: Write::Create { resource: EVENTS, object }, is_repeat: false, sameness }
    }
}

fn event(source: &Source, occurrence: &Occurrence, now: Time) -> (Key, Value) {
    let Occurrence { about, api_version, kind, uid, field_path, warning, reason, message } = occurrence;
    let namespace = if about.namespace.is_empty() { "default" } else { &*about.namespace };
    let name = format!("{}.{:x}", about.name, now.as_micros().saturating_mul(1_000));
    let mut involved = json!({"apiVersion": api_version, "kind": kind, "name": &*about.name, "uid": uid});
    if !about.namespace.is_empty() {
        involved["namespace"] = (&*about.namespace).into();
    }
    if !field_path.is_empty() {
        involved["fieldPath"] = (&**field_path).into();
    }
    let mut origin = json!({"component": &*source.component});
    if !source.host.is_empty() {
        origin["host"] = (&*source.host).into();
    }
    let object = json!({
        "apiVersion": "v1", "kind": "Event",
        "metadata": {"name": name, "namespace": namespace},
        "involvedObject": involved,
        "reason": reason, "message": message, "type": if *warning { "Warning" } else { "Normal" },
        "firstTimestamp": now, "lastTimestamp": now, "count": 1,
        "source": origin, "reportingComponent": &*source.component, "reportingInstance": &*source.host,
    });
    (Key::new(EVENTS, namespace, name), object)
}

/// A token bucket.
struct Bucket {
    tokens: f64,
    at: Time,
}

impl Bucket {
    fn full(now: Time) -> Self {
        Self { tokens: BURST, at: now }
    }

    fn take(&mut self, now: Time) -> bool {
        let gained = now.secs_since(self.at).max(0) as f64 / REFILL_SECS;
        if gained > 0.0 {
            self.at = now;
        }
        self.tokens = (self.tokens + gained).min(BURST);
        let allowed = self.tokens >= 1.0;
        if allowed {
            self.tokens -= 1.0;
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn occurrence(message: &str) -> Occurrence {
        Occurrence {
            about: Key::new(Resource::new("pods"), "default", "web"),
            api_version: "v1".into(),
            kind: "Pod".into(),
            uid: "u".into(),
            field_path: "".into(),
            warning: false,
            reason: "Pulled",
            message: message.into(),
        }
    }

    #[test]
    fn repeats_are_counted_and_new_words_make_new_events() {
        let mut correlator = Correlator::default();
        let source = Source { component: "kubelet".into(), host: "n1".into() };
        let mut take = |message| {
            correlator.take(&source, &occurrence(message), Time::from_secs(7)).map(|record| record.write)
        };
        assert!(matches!(take("a"), Some(Write::Create { .. })));
        match take("a") {
            Some(Write::Merge { key, patch, .. }) => {
                assert_eq!((&*key.namespace, &patch["count"]), ("default", &json!(2)));
            }
            other => panic!("expected a count, got {other:?}"),
        }
        assert!(matches!(take("b"), Some(Write::Create { .. })));
    }

    #[test]
    fn a_flood_about_one_object_is_cut_and_trickles_on() {
        let start = Time::from_secs(0);
        let mut bucket = Bucket::full(start);
        assert_eq!((0..40).filter(|_| bucket.take(start)).count(), 25);
        assert!(bucket.take(start.plus_secs(600)));
    }
}
