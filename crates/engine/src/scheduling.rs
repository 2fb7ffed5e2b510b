//! Drives the scheduler: events in, steps out, each carried out by a task of its own.

use std::sync::Arc;

use object::{Key, Time};
use plan::User;
use scheduler::{Scheduler, Step};
use store::{Watch, WatchError};
use tokio::sync::mpsc;
use tracing::warn;

use crate::queue::Outcome;
use crate::run::{Engine, sleep_until};

/// `reportingComponent` of its events.
const COMPONENT: &str = "default-scheduler";

/// Schedules until the store is closed.
pub async fn run(engine: Arc<Engine>) {
    let user = Arc::new(User::new("system:kube-scheduler", &["system:authenticated"]));
    loop {
        let snapshot = engine.store.snapshot();
        let mut watch = match engine.store.watch(None, snapshot.revision()) {
            Ok(watch) => watch,
            Err(WatchError::Compacted { .. }) => continue,
            Err(WatchError::Closed) => return,
        };
        let scheduler = Scheduler::new(&snapshot, engine.seed, (engine.clock)());
        if follow(&engine, &user, scheduler, &mut watch).await == WatchError::Closed {
            return;
        }
        warn!("the scheduler fell behind the log and starts over from a snapshot");
    }
}

async fn follow(
    engine: &Arc<Engine>,
    user: &Arc<User>,
    mut scheduler: Scheduler,
    watch: &mut Watch,
) -> WatchError {
    let (failed, mut failures) = mpsc::unbounded_channel::<Key>();
    loop {
        let now = (engine.clock)();
        let snapshot = engine.store.snapshot();
        // Every event up to the snapshot is folded before the scheduler sees it.
        match watch.take() {
            Ok(events) => events.iter().for_each(|event| scheduler.apply(event, now)),
            Err(end) => return end,
        }
        while let Some(step) = scheduler.next(&snapshot, now) {
            carry_out(engine, user, step, failed.clone());
        }
        let wake_at: Option<Time> = scheduler.wake_at();
        tokio::select! {
            biased;
            Some(pod) = failures.recv() => scheduler.failed(&pod, (engine.clock)()),
            batch = watch.next() => match batch {
                Ok(events) => {
                    let now = (engine.clock)();
                    events.iter().for_each(|event| scheduler.apply(event, now));
                }
                Err(end) => return end,
            },
            () = sleep_until(wake_at, now) => {}
        }
    }
}

fn carry_out(engine: &Arc<Engine>, user: &Arc<User>, step: Step, failed: mpsc::UnboundedSender<Key>) {
    let (engine, user) = (engine.clone(), user.clone());
    tokio::spawn(async move {
        let outcome = engine.execute(COMPONENT, &user, &step.pod, step.plan, None).await;
        if outcome == Outcome::Failed {
            // The receiver is gone only when the scheduler starts over, which looks at every pod again.
            let _ = failed.send(step.pod);
        }
    });
}
