//! The world: everything there is, and how it takes a step.

use std::future::Future;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use controllers::{EVERY, Settings};
use gate::{Authority, Gate, ServiceRanges};
use kinds::{NAMESPACES, NODES};
use object::{Change, Event, Key, Reason, Snapshot, Status, Time};
use plan::{Attributes, Decision, Plan, User, Write};
use scheduler::Scheduler;
use serde_json::{Value, json};
use store::{Memory, Store, Watch};

use crate::hollow::{Deed, Kubelets};
use crate::invariants::{self, Bounds, Violation};
use crate::random::Random;
use crate::scenario::Promise;
use crate::work::{Who, Work};

/// 2026-01-01T00:00:00Z
const BEGINNING: Time = Time::from_secs(1_767_225_600);
/// More steps than this in one stretch of time mean that something goes round in circles.
const MOST_STEPS: usize = 200_000;
/// What every namespace has as `ca.crt` in its ConfigMap `kube-root-ca.crt`.
pub(crate) const CA_PEM: &str = "the authority of a cluster without a server";
/// Plans under way at once.
const MOST_FLIGHTS: usize = 8;

/// What goes wrong by chance, each so many times in a thousand.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// A write is refused as if somebody else had been faster.
    pub conflicts: usize,
    /// A write happens and its answer is lost.
    pub lost_answers: usize,
    /// Before a step, the process with all controllers and the scheduler is killed and starts again.
    pub restarts: usize,
}

/// A cluster.
pub struct World {
    gate: Arc<Gate>,
    store: Arc<dyn Store>,
    now: Arc<AtomicI64>,
    random: Random,
    work: Work,
    scheduler: Scheduler,
    watch: Watch,
    kubelets: Kubelets,
    settings: Settings,
    faults: Faults,
    bounds: Option<Bounds>,
    was_reached: bool,
    promise: Promise,
    /// Writes so far, without heartbeats.
    writes: usize,
    log: Vec<String>,
}

/// Everybody may do everything: access is not what is tried here.
struct Permissive;

impl Authority for Permissive {
    fn authorize(&self, _: &Snapshot, _: &User, _: &Attributes<'_>) -> Decision {
        Decision { allowed: true, ..Decision::default() }
    }

    fn may_grant(&self, _: &Snapshot, _: &User, _: &Key, _: &Value, _: Option<&Value>) -> Result<(), Status> {
        Ok(())
    }
}

impl World {
    /// A cluster with the usual namespaces and nodes `n1`, `n2`, …
    pub fn new(seed: u64, nodes: usize, faults: Faults, bounds: Option<Bounds>) -> Self {
        let now = Arc::new(AtomicI64::new(BEGINNING.as_micros()));
        let store: Arc<dyn Store> = Arc::new(Memory::new());
        let clock = now.clone();
        let bytes = Mutex::new(Random::new(seed ^ 0x6761_7465));
        let gate = Arc::new(Gate::new(
            store.clone(),
            Arc::new(Permissive),
            Arc::new(move || Time::from_micros(clock.load(Ordering::Relaxed))),
            Arc::new(move |buffer: &mut [u8]| {
                bytes.lock().unwrap_or_else(PoisonError::into_inner).fill(buffer)
            }),
            ServiceRanges::default(),
        ));
        let snapshot = store.snapshot();
        let watch =
            store.watch(None, snapshot.revision()).unwrap_or_else(|error| panic!("a fresh store: {error}"));
        let mut world = Self {
            gate,
            scheduler: Scheduler::new(&snapshot, seed, BEGINNING),
            store,
            now,
            random: Random::new(seed),
            work: Work::default(),
            watch,
            kubelets: Kubelets::default(),
            settings: Settings { ca_pem: CA_PEM.into(), ..Settings::default() },
            faults,
            bounds,
            was_reached: false,
            promise: |_| Ok(()),
            writes: 0,
            log: Vec::new(),
        };
        for name in ["default", "kube-system", "kube-node-lease"] {
            let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
            world.do_as_admin(Write::Create { resource: NAMESPACES, object });
        }
        (1..=nodes).for_each(|number| world.add_node(&format!("n{number}")));
        world
    }

    pub fn now(&self) -> Time {
        Time::from_micros(self.now.load(Ordering::Relaxed))
    }

    pub fn snapshot(&self) -> Snapshot {
        self.store.snapshot()
    }

    /// Everything that was written, in order, with its virtual time: what a replay must repeat.
    pub fn log(&self) -> &[String] {
        &self.log
    }

    pub fn writes(&self) -> usize {
        self.writes
    }

    /// From now on other bounds hold, or none.
    pub fn set_bounds(&mut self, bounds: Option<Bounds>) {
        self.bounds = bounds;
        self.was_reached = false;
    }

    /// From now on this holds after every step, in the place of what held so far.
    pub fn set_promise(&mut self, promise: Promise) {
        self.promise = promise;
    }

    pub fn set_faults(&mut self, faults: Faults) {
        self.faults = faults;
    }

    pub fn add_node(&mut self, name: &str) {
        let labels = json!({"kubernetes.io/hostname": name, "kubernetes.io/os": "linux"});
        let object =
            json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}});
        self.do_as_admin(Write::Create { resource: NODES, object });
        self.kubelets.register(name, self.now());
    }

    /// The node's kubelet falls silent.
    pub fn lose_node(&mut self, name: &str) {
        self.note(format!("{name} is lost"));
        self.kubelets.lose(name);
    }

    /// The node's kubelet starts again.
    pub fn restart_kubelet(&mut self, name: &str) {
        self.note(format!("the kubelet of {name} restarts"));
        let (snapshot, now) = (self.store.snapshot(), self.now());
        self.kubelets.restart(name, &snapshot, &mut self.random, now);
    }

    /// Every controller and the scheduler forget everything and start from a snapshot; plans under way stop where they are.
    pub fn restart_controllers(&mut self) {
        self.note("the controllers restart".to_owned());
        self.work = Work::default();
        self.drain();
        let snapshot = self.store.snapshot();
        let seed = self.random.next();
        self.scheduler = Scheduler::new(&snapshot, seed, self.now());
        for object in snapshot.tables().flat_map(|(_, table)| table.iter()) {
            let event = Event {
                revision: object.revision,
                change: Change::Created,
                object: object.clone(),
                previous: None,
            };
            self.dispatch(&snapshot, &event);
        }
    }

    /// A write of whoever plays the user. It must go through.
    pub fn do_as_admin(&mut self, write: Write) {
        let user = User::new("admin", &["system:masters", "system:authenticated"]);
        if let Err(status) = self.execute(&user, "admin", write, false) {
            panic!("the scenario's own write: {status}");
        }
    }

    /// Takes steps until the clock has moved on by so many seconds.
    ///
    /// # Errors
    /// The first invariant that did not hold, with the time.
    pub fn run_for(&mut self, seconds: i64) -> Result<(), Violation> {
        let end = self.now().plus_secs(seconds);
        let at = |now: Time, Violation(what): Violation| Violation(format!("at {}: {what}", now.micro()));
        let mut steps = 0;
        while self.step(end) {
            let snapshot = self.store.snapshot();
            invariants::check_step(&snapshot, self.bounds, &mut self.was_reached)
                .and_then(|()| (self.promise)(&snapshot).map_err(Violation))
                .map_err(|violation| at(self.now(), violation))?;
            steps += 1;
            if steps > MOST_STEPS {
                let last = self.log.last().cloned().unwrap_or_default();
                return Err(at(self.now(), Violation(format!("it never comes to rest; last: {last}"))));
            }
        }
        self.now.store(end.as_micros(), Ordering::Relaxed);
        Ok(())
    }

    /// One thing happens, or the clock jumps to when one will. False: nothing before `end`.
    fn step(&mut self, end: Time) -> bool {
        self.drain();
        let now = self.now();
        self.work.wake(now);
        if self.random.chance(self.faults.restarts) {
            self.restart_controllers();
            return true;
        }
        // What can happen next, in an order that chance chooses.
        let first = self.random.below(4);
        for turn in 0..4 {
            let happened = match (first + turn) % 4 {
                0 => self.plan_a_key(),
                1 => self.write_something(),
                2 => self.schedule_a_pod(),
                _ => self.let_a_kubelet_act(),
            };
            if happened {
                return true;
            }
        }
        let timers = [self.work.next_timer(), self.kubelets.next_timer(), self.scheduler.wake_at()];
        let next = timers.into_iter().flatten().min().filter(|next| *next < end);
        if let Some(next) = next {
            // Never stands still: what is due and did nothing must not be due again at once.
            let next = next.max(now.plus_millis(1));
            self.now.store(next.as_micros(), Ordering::Relaxed);
        }
        next.is_some()
    }

    fn plan_a_key(&mut self) -> bool {
        if self.work.flight_count() >= MOST_FLIGHTS {
            return false;
        }
        let Some((index, key)) = self.work.take(&mut self.random) else { return false };
        let snapshot = self.store.snapshot();
        let plan = (controllers::ALL[index].reconcile)(&snapshot, &key, self.now(), &self.settings);
        self.work.start(Who::Controller(index), key, plan);
        true
    }

    fn schedule_a_pod(&mut self) -> bool {
        let snapshot = self.store.snapshot();
        let Some(step) = self.scheduler.next(&snapshot, self.now()) else { return false };
        self.work.start(Who::Scheduler, step.pod, step.plan);
        true
    }

    fn write_something(&mut self) -> bool {
        let Some((index, write)) = self.work.advance(&mut self.random) else { return false };
        let (who, key) = (self.work.flight(index).who, self.work.flight(index).key.clone());
        let Some(write) = write else {
            let done = self.work.finish(index, false, self.now());
            for event in done.events {
                self.note(format!("{}: {} {}: {}", who.name(), event.about, event.reason, event.message));
            }
            return true;
        };
        let refusal = self.execute(&who.user(), who.name(), write.clone(), true).err();
        let Some(status) = refusal else { return true };
        self.work.finish(index, true, self.now());
        match who.controller() {
            None => self.scheduler.failed(&key, self.now()),
            Some(controller) if !is_race(&status) => {
                let snapshot = self.store.snapshot();
                let answer =
                    controller.refused.map(|refused| refused(&snapshot, &key, self.now(), &write, &status));
                self.tell(who, answer.unwrap_or_default());
            }
            Some(_) => {}
        }
        true
    }

    /// What a controller says about a refusal; if that fails too, it will say it again.
    fn tell(&mut self, who: Who, plan: Plan) {
        for write in plan.writes {
            if self.execute(&who.user(), who.name(), write, false).is_err() {
                return;
            }
        }
    }

    fn let_a_kubelet_act(&mut self) -> bool {
        let snapshot = self.store.snapshot();
        let Some((user, deed, writes)) = self.kubelets.act(&snapshot, self.now()) else { return false };
        let is_heartbeat = deed == Deed::Heartbeat;
        let before = self.writes;
        let mut failed = false;
        for write in writes {
            failed |= self.execute(&user, &user.name, write, !is_heartbeat).is_err();
        }
        if is_heartbeat {
            self.writes = before;
        }
        if failed {
            self.kubelets.again(&user, deed, self.now());
        }
        true
    }

    /// One write through the gate, with the faults that chance adds.
    fn execute(&mut self, user: &User, name: &str, write: Write, faulty: bool) -> Result<(), Box<Status>> {
        if faulty && self.random.chance(self.faults.conflicts) {
            return Err(Box::new(Status::new(Reason::Conflict, "a conflict by chance")));
        }
        let told = describe(&write);
        let before = self.store.snapshot().revision();
        let gate = self.gate.clone();
        let done = now_or_never(gate.execute(user, write));
        let after = self.store.snapshot().revision();
        if after != before {
            self.writes += 1;
            self.note(format!("{name}: {told} at {after}"));
        } else if let Err(status) = &done {
            self.note(format!("{name}: {told} refused: {status}"));
        }
        if faulty && self.random.chance(self.faults.lost_answers) {
            return Err(Box::new(Status::new(Reason::Timeout, "an answer lost by chance")));
        }
        done.map(drop).map_err(Box::new)
    }

    fn note(&mut self, what: String) {
        self.log.push(format!("{} {what}", self.now().micro()));
    }

    /// Hands new events to everybody.
    fn drain(&mut self) {
        loop {
            let events = self.watch.take().unwrap_or_else(|error| panic!("the simulator keeps up: {error}"));
            if events.is_empty() {
                return;
            }
            let (snapshot, now) = (self.store.snapshot(), self.now());
            for event in &events {
                self.scheduler.apply(event, now);
                self.kubelets.see(event, &mut self.random, now);
                self.dispatch(&snapshot, event);
            }
        }
    }

    fn dispatch(&mut self, snapshot: &Snapshot, event: &Event) {
        for (index, controller) in controllers::ALL.iter().enumerate() {
            for watch in controller.watches {
                if watch.resource == event.key().resource || watch.resource == EVERY {
                    (watch.keys)(snapshot, event).into_iter().for_each(|key| self.work.add(index, key));
                }
            }
        }
    }

    /// What is ready or under way: nothing, when the world is at rest.
    pub fn unrest(&self) -> usize {
        self.work.ready_count() + self.work.flight_count()
    }

    pub fn is_alive(&self, node: &str) -> bool {
        self.kubelets.is_alive(node)
    }
}

/// Somebody else was faster; not a refusal.
fn is_race(status: &Status) -> bool {
    matches!(status.reason, Reason::Conflict | Reason::NotFound | Reason::AlreadyExists | Reason::Timeout)
}

fn describe(write: &Write) -> String {
    match write {
        Write::Create { resource, object } => {
            let metadata = &object["metadata"];
            let name = metadata["name"].as_str().or(metadata["generateName"].as_str()).unwrap_or_default();
            format!("create {resource} {name}")
        }
        Write::Merge { key, subresource, patch, .. } => format!("merge {key} {subresource} {patch}"),
        Write::Replace { key, subresource, .. } => format!("replace {key} {subresource}"),
        Write::Delete { key, .. } => format!("delete {key}"),
        Write::Bind { pod, node, .. } => format!("bind {pod} to {node}"),
    }
}

/// The result of a future that never waits: over the memory store the gate has nothing to wait for.
fn now_or_never<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => panic!("the gate waits for something, over a store that never does"),
    }
}
