use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use controllers::{Controller, EVERY, Refused, Settings};
use gate::Gate;
use object::{Change, Event, Key, Reason, Resource, Snapshot, Status, Time};
use plan::{Plan, User};
use store::{Store, Watch, WatchError};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::events::Recorder;
use crate::measures::{Measures, QueueMeasures};
use crate::queue::{Outcome, Queue};
use crate::scheduling;

/// Wall time. A value, so that a test or the simulator can bring its own.
pub type Clock = Arc<dyn Fn() -> Time + Send + Sync>;

/// How many keys may run at once, over all controllers: enough to fill a group commit, few enough to stay fair to API requests.
const CONCURRENT_RUNS: usize = 64;

/// The deciders of one cluster, running.
pub struct Engine {
    pub store: Arc<dyn Store>,
    pub gate: Arc<Gate>,
    pub clock: Clock,
    pub settings: Arc<Settings>,
    pub recorder: Recorder,
    pub measures: Arc<Measures>,
    /// Breaks ties between nodes that are equally good.
    pub seed: u64,
}

/// One controller at work.
struct Worker {
    controller: &'static Controller,
    user: Arc<User>,
    queue: Queue,
    measures: Arc<QueueMeasures>,
}

impl Worker {
    fn add(&mut self, key: Key, now: Time) {
        if self.queue.add(key, now) {
            self.measures.added();
        }
    }

    fn take(&mut self, now: Time) -> Option<Key> {
        let taken = self.queue.take_since(now);
        self.measures.holds(self.queue.depth());
        let (key, since) = taken?;
        let micros = now.as_micros().saturating_sub(since.as_micros()).max(0);
        self.measures.began(&key, Duration::from_micros(micros.unsigned_abs()));
        Some(key)
    }

    fn finish(&mut self, key: &Key, outcome: Outcome, now: Time) {
        self.measures.ended(key, outcome == Outcome::Failed);
        self.queue.finish(key, outcome, now);
    }
}

/// A run that ended: (index of the worker, its key, how).
type Finished = (usize, Key, Outcome);

impl Engine {
    /// Runs the scheduler until the store is closed.
    pub async fn run_scheduler(self: Arc<Self>) {
        scheduling::run(self).await;
    }

    /// Runs controllers until the store is closed.
    pub async fn run_controllers(self: Arc<Self>, controllers: impl Iterator<Item = &'static Controller>) {
        let mut workers: Vec<Worker> = controllers
            .map(|controller| Worker {
                controller,
                user: controller_user(controller),
                queue: Queue::default(),
                measures: self.measures.queue(controller.name),
            })
            .collect();
        let routes = routes(&workers);
        let (finished, mut runs) = mpsc::unbounded_channel::<Finished>();
        let mut running = 0;
        loop {
            let snapshot = self.store.snapshot();
            for worker in &mut workers {
                enqueue_everything(worker, &snapshot, (self.clock)());
            }
            let mut watch = match self.store.watch(None, snapshot.revision()) {
                Ok(watch) => watch,
                Err(WatchError::Compacted { .. }) => continue,
                Err(WatchError::Closed) => return,
            };
            let end =
                self.follow(&mut watch, &mut workers, &routes, &finished, &mut runs, &mut running).await;
            if end == WatchError::Closed {
                return;
            }
            warn!("controllers fell behind the log and start over from a snapshot");
        }
    }

    /// Feeds the queues from the log and runs keys, until the watch ends.
    async fn follow(
        self: &Arc<Self>,
        watch: &mut Watch,
        workers: &mut [Worker],
        routes: &HashMap<Resource, Vec<(usize, usize)>>,
        finished: &mpsc::UnboundedSender<Finished>,
        runs: &mut mpsc::UnboundedReceiver<Finished>,
        running: &mut usize,
    ) -> WatchError {
        let mut resyncs = Resyncs::new(workers, (self.clock)());
        loop {
            let now = (self.clock)();
            if resyncs.next().is_some_and(|at| at <= now) {
                resyncs.run(workers, &self.store.snapshot(), now);
            }
            for (index, worker) in workers.iter_mut().enumerate() {
                while *running < CONCURRENT_RUNS
                    && let Some(key) = worker.take(now)
                {
                    *running += 1;
                    self.spawn(index, worker, key, finished.clone());
                }
            }
            let wakes = workers.iter().filter_map(|worker| worker.queue.next_wake());
            let next = wakes.chain(resyncs.next()).min();
            tokio::select! {
                biased;
                Some((index, key, outcome)) = runs.recv() => {
                    *running -= 1;
                    workers[index].finish(&key, outcome, (self.clock)());
                }
                batch = watch.next() => match batch {
                    Ok(events) => {
                        let (snapshot, now) = (self.store.snapshot(), (self.clock)());
                        for event in &events {
                            dispatch(workers, routes, &snapshot, event, now);
                        }
                    }
                    Err(end) => return end,
                },
                () = sleep_until(next, now), if *running < CONCURRENT_RUNS => {}
            }
        }
    }

    fn spawn(
        self: &Arc<Self>,
        index: usize,
        worker: &Worker,
        key: Key,
        finished: mpsc::UnboundedSender<Finished>,
    ) {
        let engine = self.clone();
        let (controller, user) = (worker.controller, worker.user.clone());
        tokio::spawn(async move {
            let snapshot = engine.store.snapshot();
            let plan = (controller.reconcile)(&snapshot, &key, (engine.clock)(), &engine.settings);
            let outcome = engine.execute(controller.name, &user, &key, plan, controller.refused).await;
            // The receiver is gone only when the engine has stopped.
            let _ = finished.send((index, key, outcome));
        });
    }

    /// Carries out a plan: its writes in order until one fails, then its events.
    pub(crate) async fn execute(
        &self,
        component: &str,
        user: &User,
        key: &Key,
        plan: Plan,
        refused: Option<Refused>,
    ) -> Outcome {
        let wake_at = plan.wake_at;
        for write in plan.writes {
            let began = Instant::now();
            let done = self.gate.execute(user, write.clone()).await;
            let is_scheduler = component == scheduling::COMPONENT;
            self.measures.wrote(is_scheduler, &write, done.as_ref().map(drop), began.elapsed());
            let Err(status) = done else { continue };
            if is_about_a_namespace_that_goes(&status) {
                debug!(component, %key, %status, "nothing is made any more");
                return Outcome::Done { wake_at: None };
            }
            match status.reason {
                // The store is closed, or this server no longer leads: who does so next looks at every key.
                Reason::ServiceUnavailable => debug!(component, %key, %status, "too late"),
                // Somebody else was faster; their change is an event that runs this key again. Run it soon in any case.
                Reason::Conflict | Reason::NotFound | Reason::AlreadyExists => {
                    debug!(component, %key, %status, "raced");
                }
                _ => {
                    warn!(component, %key, %status, "a write was refused");
                    if let Some(refused) = refused {
                        let told = refused(&self.store.snapshot(), key, (self.clock)(), &write, &status);
                        Box::pin(self.execute(component, user, key, told, None)).await;
                    }
                }
            }
            return Outcome::Failed;
        }
        for occurrence in plan.events {
            self.recorder.record(component, occurrence);
        }
        Outcome::Done { wake_at }
    }
}

/// When each controller that follows time looks at all of its keys again: (when, worker).
struct Resyncs(BTreeSet<(Time, usize)>);

impl Resyncs {
    fn new(workers: &[Worker], now: Time) -> Self {
        let rows = workers.iter().enumerate();
        Self(
            rows.filter_map(|(index, worker)| Some((now.plus_secs(worker.controller.resync_secs?), index)))
                .collect(),
        )
    }

    fn next(&self) -> Option<Time> {
        self.0.first().map(|(at, _)| *at)
    }

    fn run(&mut self, workers: &mut [Worker], snapshot: &Snapshot, now: Time) {
        while let Some(&(at, index)) = self.0.first().filter(|(at, _)| *at <= now) {
            self.0.remove(&(at, index));
            enqueue_everything(&mut workers[index], snapshot, now);
            let period = workers[index].controller.resync_secs.unwrap_or(i64::from(i32::MAX)).max(1);
            self.0.insert((now.plus_secs(period), index));
        }
    }
}

/// (worker, watch) pairs that an event of a resource goes to. A watch of `""` hears of every resource.
fn routes(workers: &[Worker]) -> HashMap<Resource, Vec<(usize, usize)>> {
    let mut routes: HashMap<Resource, Vec<(usize, usize)>> = HashMap::new();
    for (index, worker) in workers.iter().enumerate() {
        for (row, watch) in worker.controller.watches.iter().enumerate() {
            routes.entry(watch.resource).or_default().push((index, row));
        }
    }
    routes
}

fn dispatch(
    workers: &mut [Worker],
    routes: &HashMap<Resource, Vec<(usize, usize)>>,
    snapshot: &Snapshot,
    event: &Event,
    now: Time,
) {
    for resource in [event.key().resource, EVERY] {
        for &(index, row) in routes.get(&resource).map_or(&[][..], Vec::as_slice) {
            let worker = &mut workers[index];
            for key in (worker.controller.watches[row].keys)(snapshot, event) {
                worker.add(key, now);
            }
        }
    }
}

/// At the start, every object counts as just created.
fn enqueue_everything(worker: &mut Worker, snapshot: &Snapshot, now: Time) {
    for watch in worker.controller.watches {
        let tables =
            snapshot.tables().filter(|(resource, _)| *resource == watch.resource || watch.resource == EVERY);
        for object in tables.flat_map(|(_, table)| table.iter()) {
            let event = Event {
                revision: object.revision,
                change: Change::Created,
                object: object.clone(),
                previous: None,
            };
            for key in (watch.keys)(snapshot, &event) {
                worker.add(key, now);
            }
        }
    }
}

/// Whether a write was refused because its namespace is on its way out. Trying again would be in vain: what the namespace holds is
/// deleted in its own time, and each deletion is an event that runs the key again.
fn is_about_a_namespace_that_goes(status: &Status) -> bool {
    status.causes.iter().any(|cause| cause.reason == "NamespaceTerminating")
}

fn controller_user(controller: &Controller) -> Arc<User> {
    if controller.user.contains(':') {
        return Arc::new(User::new(controller.user, &["system:authenticated"]));
    }
    let name = format!("system:serviceaccount:kube-system:{}", controller.user);
    let groups = ["system:serviceaccounts", "system:serviceaccounts:kube-system", "system:authenticated"];
    Arc::new(User::new(name, &groups))
}

pub(crate) async fn sleep_until(at: Option<Time>, now: Time) {
    match at {
        Some(at) => {
            let wait = at.as_micros().saturating_sub(now.as_micros()).max(0);
            tokio::time::sleep(Duration::from_micros(wait.unsigned_abs())).await;
        }
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use object::Cause;

    use super::*;

    #[test]
    fn only_what_a_namespace_refuses_while_it_goes_is_let_be() {
        let mut status = Status::new(Reason::Forbidden, "pods is forbidden");
        assert!(!is_about_a_namespace_that_goes(&status));
        status.causes.push(Cause {
            reason: "NamespaceTerminating",
            message: String::new(),
            field: "metadata.namespace".into(),
        });
        assert!(is_about_a_namespace_that_goes(&status));
    }
}
