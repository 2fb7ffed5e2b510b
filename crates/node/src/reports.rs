//! Writes the node's events.

use std::sync::Arc;

use events::{Correlator, Source};
use object::Key;
use plan::{Occurrence, Write};
use serde_json::Value;
use tokio::sync::mpsc;
use tracing::{debug, warn};

use crate::api::{Api, ApiError, PatchKind};
use crate::clock;
use crate::task::Task;

const QUEUE: usize = 1_000;

/// Where the node's parts say what happened. Clones share one queue.
#[derive(Clone)]
pub struct Reports {
    queue: mpsc::Sender<Occurrence>,
}

impl Reports {
    /// The events are written as long as the task is held.
    pub fn start(api: Arc<Api>, node_name: &str) -> (Self, Task) {
        let (queue, waiting) = mpsc::channel(QUEUE);
        let source = Source { component: "kubelet".into(), host: node_name.into() };
        (Self { queue }, Task::spawn(write_events(api, source, waiting)))
    }

    pub fn tell(&self, occurrence: Occurrence) {
        if self.queue.try_send(occurrence).is_err() {
            debug!("an event was dropped: too many wait");
        }
    }
}

async fn write_events(api: Arc<Api>, source: Source, mut waiting: mpsc::Receiver<Occurrence>) {
    let mut correlator = Correlator::default();
    while let Some(occurrence) = waiting.recv().await {
        let Some(mut record) = correlator.take(&source, &occurrence, clock::now()) else { continue };
        let mut result = write(&api, &record.write).await;
        if record.is_repeat && result.as_ref().is_err_and(ApiError::is_not_found) {
            record = correlator.again(&record, &source, &occurrence, clock::now());
            result = write(&api, &record.write).await;
        }
        if let Err(error) = result {
            correlator.forget(&record);
            // In a namespace that is being deleted nobody is told anything any more.
            let is_expected = matches!(&error, ApiError::Status { reason, .. } if reason == "Forbidden" || reason == "NotFound");
            if !is_expected {
                warn!(%error, about = %occurrence.about, "an event could not be written");
            }
        }
    }
}

async fn write(api: &Api, write: &Write) -> Result<(), ApiError> {
    let collection = |namespace: &str| format!("/api/v1/namespaces/{namespace}/events");
    match write {
        Write::Create { object, .. } => {
            let namespace = object["metadata"]["namespace"].as_str().unwrap_or("default");
            api.create::<Value>(&collection(namespace), object).await.map(drop)
        }
        Write::Merge { key: Key { namespace, name, .. }, patch, .. } => {
            let path = format!("{}/{name}", collection(namespace));
            api.patch::<Value>(&path, PatchKind::Merge, patch).await.map(drop)
        }
        // A correlator only creates and counts.
        _ => Ok(()),
    }
}
