//! Occurrences become Kubernetes Events: named, counted when they repeat, dropped when they flood.
//!
//! Upstream's rules: <https://github.com/kubernetes/design-proposals-archive/blob/main/api-machinery/event_compression.md>.

use std::collections::HashMap;
use std::sync::Arc;

use gate::Gate;
use object::{Key, Reason, Resource, Time};
use plan::{Expect, Occurrence, User, Write};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tracing::{debug, warn};

use crate::run::Clock;

const EVENTS: Resource = Resource::new("events");
/// Occurrences that wait for the store; more are dropped, as upstream's broadcaster does.
const QUEUE: usize = 1_000;
/// Distinct events remembered for counting; the memory is emptied when it is full.
const REMEMBERED: usize = 4_096;
/// Events of one source about one object: so many at once, then one each `REFILL_SECS`.
const BURST: f64 = 25.0;
const REFILL_SECS: f64 = 300.0;

/// Where deciders' occurrences go. Clones share one queue.
#[derive(Clone)]
pub struct Recorder {
    queue: mpsc::Sender<(Arc<str>, Occurrence)>,
}

impl Recorder {
    /// Starts the task that writes events as `user`; it ends when the last recorder is dropped.
    pub fn start(gate: Arc<Gate>, clock: Clock, user: User) -> Self {
        let (queue, waiting) = mpsc::channel(QUEUE);
        tokio::spawn(write_events(gate, clock, user, waiting));
        Self { queue }
    }

    /// `component` is `reportingComponent`: `deployment-controller`, `kubelet`.
    pub fn record(&self, component: &str, occurrence: Occurrence) {
        if self.queue.try_send((component.into(), occurrence)).is_err() {
            debug!(component, "an event was dropped: too many wait");
        }
    }
}

/// What makes two occurrences the same event.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Sameness {
    component: Arc<str>,
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

async fn write_events(
    gate: Arc<Gate>,
    clock: Clock,
    user: User,
    mut waiting: mpsc::Receiver<(Arc<str>, Occurrence)>,
) {
    let mut known: HashMap<Sameness, Known> = HashMap::new();
    let mut buckets: HashMap<(Arc<str>, Key), Bucket> = HashMap::new();
    while let Some((component, occurrence)) = waiting.recv().await {
        let now = clock();
        if known.len() >= REMEMBERED {
            known.clear();
        }
        if buckets.len() >= REMEMBERED {
            buckets.clear();
        }
        let bucket = buckets.entry((component.clone(), occurrence.about.clone())).or_insert_with(|| Bucket::full(now));
        if !bucket.take(now) {
            continue;
        }
        let sameness = Sameness {
            component: component.clone(),
            uid: occurrence.uid.clone(),
            about: occurrence.about.clone(),
            field_path: occurrence.field_path.clone(),
            reason: occurrence.reason,
            message: occurrence.message.clone(),
        };
        if let Some(seen) = known.get_mut(&sameness) {
            seen.count += 1;
            let patch = json!({"count": seen.count, "lastTimestamp": now});
            let write = Write::Merge { key: seen.key.clone(), expect: Expect::default(), subresource: "", patch };
            match gate.execute(&user, write).await {
                Ok(Some(_)) => continue,
                // Its time to live is over: it starts again at one.
                Ok(None) => {}
                Err(status) if status.reason == Reason::NotFound => {}
                Err(status) => {
                    warn!(%status, key = %seen.key, "an event could not be counted");
                    continue;
                }
            }
        }
        let (key, object) = event_object(&component, &occurrence, now);
        match gate.execute(&user, Write::Create { resource: EVENTS, object }).await {
            Ok(_) => {
                known.insert(sameness, Known { key, count: 1 });
            }
            // The namespace is being deleted, with everything that events could be about.
            Err(status) if matches!(status.reason, Reason::Forbidden | Reason::NotFound) => {}
            Err(status) => warn!(%status, %key, "an event could not be written"),
        }
    }
}

fn event_object(component: &str, occurrence: &Occurrence, now: Time) -> (Key, Value) {
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
    let object = json!({
        "apiVersion": "v1", "kind": "Event",
        "metadata": {"name": name, "namespace": namespace},
        "involvedObject": involved,
        "reason": reason, "message": message, "type": if *warning { "Warning" } else { "Normal" },
        "firstTimestamp": now, "lastTimestamp": now, "count": 1,
        "source": {"component": component}, "reportingComponent": component, "reportingInstance": "",
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

    #[test]
    fn a_flood_about_one_object_is_cut_and_trickles_on() {
        let start = Time::from_secs(0);
        let mut bucket = Bucket::full(start);
        assert_eq!((0..40).filter(|_| bucket.take(start)).count(), 25);
        assert!(!bucket.take(start.plus_secs(299)));
        assert!(bucket.take(start.plus_secs(600)));
    }
}
