//! Drives the scheduler: events in, steps out, each carried out by a task of its own.

use std::sync::Arc;

use object::{Key, Time};
use plan::User;
use scheduler::{Attempt, Scheduler, Step};
use store::{Watch, WatchError};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::warn;

use crate::queue::Outcome;
use crate::run::{Engine, sleep_until};

/// `reportingComponent` of its events.
pub(crate) const COMPONENT: &str = "default-scheduler";

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
        loop {
            let began = Instant::now();
            let step = scheduler.next(&snapshot, now);
            engine.measures.tried(scheduler.attempts(), began.elapsed());
            let Some(step) = step else { break };
            let placed = scheduler.attempts().last().filter(|last| last.placed).cloned();
            carry_out(engine, user, step, placed.map(|placed| (placed, began)), failed.clone());
        }
        engine.measures.sees(&scheduler);
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

/// `placed`: the try that the step is about, and when it began, if it found a node.
fn carry_out(
    engine: &Arc<Engine>,
    user: &Arc<User>,
    step: Step,
    placed: Option<(Attempt, Instant)>,
    failed: mpsc::UnboundedSender<Key>,
) {
    let (engine, user) = (engine.clone(), user.clone());
    tokio::spawn(async move {
        let outcome = engine.execute(COMPONENT, &user, &step.pod, step.plan, None).await;
        if let Some((attempt, began)) = placed {
            let is_bound = outcome != Outcome::Failed;
            engine.measures.bound(&attempt, is_bound, began.elapsed(), (engine.clock)());
        }
        if outcome == Outcome::Failed {
            // The receiver is gone only when the scheduler starts over, which looks at every pod again.
            let _ = failed.send(step.pod);
        }
    });
}
