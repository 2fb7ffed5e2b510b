//! Runs probes on their schedules and tells how they went.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use plan::pod::{Probe, ProbeKind};
use tokio::sync::mpsc;

use crate::handlers::Handlers;
use crate::task::Task;

/// One result of one probe.
#[derive(Debug)]
pub struct Outcome {
    pub pod_uid: String,
    pub probe: Probe,
    /// What the check said, if it failed.
    pub failure: Option<String>,
}

/// The probes of one pod that are running now.
#[derive(Default)]
pub struct Probes {
    running: HashMap<(String, ProbeKind), (Probe, Task)>,
}

impl Probes {
    /// Starts what is wanted and does not run, ends what runs and is not wanted.
    pub fn set(
        &mut self,
        pod_uid: &str,
        wanted: Vec<Probe>,
        handlers: &Arc<Handlers>,
        outcomes: &mpsc::UnboundedSender<Outcome>,
    ) {
        self.running.retain(|_, (probe, _)| wanted.contains(probe));
        for probe in wanted {
            let key = (probe.container_id.clone(), probe.kind);
            self.running.entry(key).or_insert_with(|| {
                let task = Task::spawn(repeat(
                    pod_uid.to_owned(),
                    probe.clone(),
                    handlers.clone(),
                    outcomes.clone(),
                ));
                (probe, task)
            });
        }
    }
}

async fn repeat(
    pod_uid: String,
    probe: Probe,
    handlers: Arc<Handlers>,
    outcomes: mpsc::UnboundedSender<Outcome>,
) {
    let seconds = |seconds: i64| Duration::from_secs(seconds.max(0).unsigned_abs());
    tokio::time::sleep(seconds(probe.initial_delay_seconds)).await;
    let mut ticks = tokio::time::interval(seconds(probe.period_seconds));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let check = handlers.check(&probe.container_id, &probe.handler, seconds(probe.timeout_seconds));
        let failure = check.await.err();
        let outcome = Outcome { pod_uid: pod_uid.clone(), probe: probe.clone(), failure };
        if outcomes.send(outcome).is_err() {
            return;
        }
    }
}
