//! The audit webhook: events in batches, posted to what a kubeconfig names, as upstream's default mode `batch` does it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::{Instant, sleep, timeout_at};
use tracing::error;

use crate::connection::Connection;
use crate::dial::Dial;

/// Upstream's `--audit-webhook-batch-…`: events that wait at most, and that go at once.
const MOST_EVENTS: usize = 10_000;
const BATCH: usize = 400;
/// Bytes that wait at most, and that go at once.
const MOST_BYTES: usize = 64 << 20;
const BATCH_BYTES: usize = 8 << 20;
/// How long one post may take, how often it is tried, and how long it rests before the second try; before each further one half as long
/// again.
const LIMIT: Duration = Duration::from_secs(30);
const TRIES: u32 = 5;
const FIRST_REST: Duration = Duration::from_secs(10);

/// Where events are posted to.
pub struct AuditWebhook {
    pub connection: Connection,
    pub dial: Dial,
    /// How long the first event of a batch waits for others.
    pub batch_wait: Duration,
}

pub(super) struct Webhook {
    events: Sender<Bytes>,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    waiting_bytes: AtomicUsize,
    lost: AtomicU64,
}

impl Webhook {
    /// Posts until it is dropped, and then what is left. Within a runtime.
    pub(super) fn start(to: AuditWebhook) -> Self {
        let (events, queue) = channel(MOST_EVENTS);
        let counts = Arc::new(Counts::default());
        tokio::spawn(run(to, queue, counts.clone()));
        Self { events, counts }
    }

    pub(super) fn write(&self, event: Bytes) {
        let length = event.len();
        let waiting = self.counts.waiting_bytes.fetch_add(length, Ordering::Relaxed);
        if waiting + length > MOST_BYTES || self.events.try_send(event).is_err() {
            self.counts.waiting_bytes.fetch_sub(length, Ordering::Relaxed);
            self.counts.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn lost(&self) -> u64 {
        self.counts.lost.load(Ordering::Relaxed)
    }
}

async fn run(to: AuditWebhook, mut queue: Receiver<Bytes>, counts: Arc<Counts>) {
    while let Some(first) = queue.recv().await {
        let until = Instant::now() + to.batch_wait;
        let mut bytes = first.len();
        let mut batch = vec![first];
        while batch.len() < BATCH
            && bytes < BATCH_BYTES
            && let Ok(Some(event)) = timeout_at(until, queue.recv()).await
        {
            bytes += event.len();
            batch.push(event);
        }
        if let Err(failure) = deliver(&to, &batch).await {
            counts.lost.fetch_add(batch.len() as u64, Ordering::Relaxed);
            error!(%failure, events = batch.len(), "audit events are lost");
        }
        // They counted as waiting as long as they were held.
        counts.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

async fn deliver(to: &AuditWebhook, batch: &[Bytes]) -> Result<(), String> {
    let list = list(batch);
    let mut rest = FIRST_REST;
    let mut tries = 1;
    loop {
        match to.connection.deliver(&to.dial, list.clone(), LIMIT).await {
            Ok(code) if code.is_success() => return Ok(()),
            // What it does not want now it will not want later.
            Ok(code) if code.is_client_error() && code.as_u16() != 429 => {
                return Err(format!("it answered {code}"));
            }
            Ok(code) if tries == TRIES => return Err(format!("it answered {code}")),
            Err(why) if tries == TRIES => return Err(why),
            _ => {}
        }
        sleep(rest).await;
        rest = rest * 3 / 2;
        tries += 1;
    }
}

/// An `EventList` of events that are JSON already.
fn list(batch: &[Bytes]) -> Bytes {
    let mut text = br#"{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{},"items":["#.to_vec();
    for (index, event) in batch.iter().enumerate() {
        if index > 0 {
            text.push(b',');
        }
        text.extend_from_slice(event);
    }
    text.extend_from_slice(b"]}");
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_a_list_of_events() {
        let batch = [Bytes::from_static(b"{\"auditID\":\"a\"}"), Bytes::from_static(b"{\"auditID\":\"b\"}")];
        let read: serde_json::Value = serde_json::from_slice(&list(&batch)).expect("JSON");
        assert_eq!((&read["kind"], &read["items"][1]["auditID"]), (&"EventList".into(), &"b".into()));
    }
}
