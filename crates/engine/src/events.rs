//! Writes what deciders say happened.

use std::sync::Arc;

use events::{Correlator, Source};
use gate::Gate;
use object::Reason;
use plan::{Occurrence, User};
use tokio::sync::mpsc;
use tracing::{debug, warn};

use crate::run::Clock;

/// Occurrences that wait for the store; more are dropped, as upstream's broadcaster does.
const QUEUE: usize = 1_000;

/// Where deciders' occurrences go. Clones share one queue.
#[derive(Clone)]
pub struct Recorder {
    queue: mpsc::Sender<(Source, Occurrence)>,
}

impl Recorder {
    /// Starts the task that writes events as `user`; it ends when the last recorder is dropped.
    pub fn start(gate: Arc<Gate>, clock: Clock, user: User) -> Self {
        let (queue, waiting) = mpsc::channel(QUEUE);
        tokio::spawn(write_events(gate, clock, user, waiting));
        Self { queue }
    }

    /// `component` is `reportingComponent`: `deployment-controller`.
    pub fn record(&self, component: &str, occurrence: Occurrence) {
        let source = Source { component: component.into(), host: "".into() };
        if self.queue.try_send((source, occurrence)).is_err() {
            debug!(component, "an event was dropped: too many wait");
        }
    }
}

async fn write_events(
    gate: Arc<Gate>,
    clock: Clock,
    user: User,
    mut waiting: mpsc::Receiver<(Source, Occurrence)>,
) {
    let mut correlator = Correlator::default();
    while let Some((source, occurrence)) = waiting.recv().await {
        let Some(mut record) = correlator.take(&source, &occurrence, clock()) else { continue };
        let mut result = gate.execute(&user, record.write.clone()).await;
        if record.is_repeat && is_gone(&result) {
            record = correlator.again(&record, &source, &occurrence, clock());
            result = gate.execute(&user, record.write.clone()).await;
        }
        if let Err(status) = result {
            correlator.forget(&record);
            // In a namespace that is being deleted nobody is told anything any more, nor by a server that no longer leads.
            if !matches!(status.reason, Reason::Forbidden | Reason::NotFound | Reason::ServiceUnavailable) {
                warn!(%status, about = %occurrence.about, "an event could not be written");
            }
        }
    }
}

fn is_gone<T>(result: &Result<Option<T>, object::Status>) -> bool {
    match result {
        Ok(written) => written.is_none(),
        Err(status) => status.reason == Reason::NotFound,
    }
}
