//! Servers on one memory store, with a clock that is moved by hand.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, Ordering};

use gate::{Authority, ServiceRanges};
use kinds::{CONFIG_MAPS, NAMESPACES};
use object::Time;
use plan::{Attributes, Decision};
use store::Memory;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::*;

struct Anyone;

impl Authority for Anyone {
    fn authorize(&self, _: &Snapshot, _: &User, _: &Attributes<'_>) -> Decision {
        Decision { allowed: true, ..Decision::default() }
    }

    fn may_grant(&self, _: &Snapshot, _: &User, _: &Key, _: &Value, _: Option<&Value>) -> Result<(), Status> {
        Ok(())
    }
}

/// Wall time goes with the runtime's, which stands still unless all wait.
pub(crate) fn clock() -> Clock {
    let start = Instant::now();
    Arc::new(move || Time::from_secs(1_700_000_000).plus_millis(start.elapsed().as_millis() as i64))
}

pub(crate) async fn gate() -> Arc<Gate> {
    let state = AtomicU8::new(0);
    let random = move |bytes: &mut [u8]| bytes.fill_with(|| state.fetch_add(1, Ordering::Relaxed));
    let gate = Gate::new(
        Arc::new(Memory::new()),
        Arc::new(Anyone),
        clock(),
        Arc::new(random),
        ServiceRanges::default(),
    );
    let namespace = json!({"metadata": {"name": NAMESPACE}});
    let create = Write::Create { resource: NAMESPACES, object: namespace };
    gate.execute(&User::default(), create).await.expect("a namespace");
    Arc::new(gate)
}

/// A server that stands for election, and the gates of its terms.
struct Server {
    terms: Arc<Mutex<Vec<Arc<Gate>>>>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Server {
    fn start(identity: &str, gate: &Arc<Gate>) -> Self {
        let election = Election {
            name: "kube-scheduler",
            identity: identity.into(),
            gate: gate.clone(),
            clock: clock(),
        };
        let (stop, stopped) = oneshot::channel::<()>();
        let terms: Arc<Mutex<Vec<Arc<Gate>>>> = Arc::default();
        let (led, gate) = (terms.clone(), gate.clone());
        let task = tokio::spawn(async move {
            let work = |store: Arc<dyn Store>| {
                led.lock().expect("terms").push(Arc::new(gate.over(store)));
                std::future::pending()
            };
            election.run(work, async { drop(stopped.await) }).await;
        });
        Self { terms, stop, task }
    }

    fn terms(&self) -> Vec<Arc<Gate>> {
        self.terms.lock().expect("terms").clone()
    }

    /// As a crash: the Lease is not given back.
    fn kill(self) {
        self.task.abort();
    }

    async fn stop(self) {
        self.stop.send(()).expect("it runs");
        self.task.await.expect("it ends");
    }
}

fn create(name: &str) -> Write {
    let object = json!({"metadata": {"name": name, "namespace": NAMESPACE}});
    Write::Create { resource: CONFIG_MAPS, object }
}

async fn pass(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

fn lease(gate: &Gate) -> Value {
    let snapshot = gate.store().snapshot();
    snapshot.find(LEASES, NAMESPACE, "kube-scheduler").expect("a lease").to_value().expect("JSON")["spec"]
        .clone()
}

#[tokio::test(start_paused = true)]
async fn one_of_two_leads_and_the_other_takes_over() {
    let gate = gate().await;
    let first = Server::start("a", &gate);
    pass(1).await;
    let second = Server::start("b", &gate);
    pass(60).await;
    assert_eq!((first.terms().len(), second.terms().len()), (1, 0), "it renews");
    assert_eq!(
        (&lease(&gate)["holderIdentity"], &lease(&gate)["leaseDurationSeconds"]),
        (&json!("a"), &json!(15))
    );
    first.kill();
    pass(12).await;
    assert_eq!(second.terms().len(), 0, "the lease has not run out");
    pass(5).await;
    assert_eq!(second.terms().len(), 1);
    assert_eq!(
        (&lease(&gate)["holderIdentity"], &lease(&gate)["leaseTransitions"]),
        (&json!("b"), &json!(1))
    );
    let third = Server::start("c", &gate);
    pass(1).await;
    second.stop().await;
    pass(1).await;
    assert_eq!(third.terms().len(), 1, "what is given back is taken at once");
    let gone = gate.store().snapshot();
    gate.store().close().await;
    pass(30).await;
    drop(gone);
}

#[tokio::test(start_paused = true)]
async fn one_that_comes_back_under_its_name_does_not_wait() {
    let gate = gate().await;
    let server = Server::start("a", &gate);
    pass(5).await;
    let [before] = &server.terms()[..] else { panic!("it leads") };
    let before = before.clone();
    server.kill();
    let server = Server::start("a", &gate);
    pass(1).await;
    assert_eq!(server.terms().len(), 1);
    let user = User::default();
    // What is left of the life before is of another term.
    let late = before.execute(&user, create("late")).await.expect_err("another term");
    assert_eq!(late.reason, Reason::ServiceUnavailable);
}

#[tokio::test(start_paused = true)]
async fn who_was_deposed_writes_nothing() {
    let gate = gate().await;
    let user = User::default();
    let server = Server::start("a", &gate);
    pass(3).await;
    let [led] = &server.terms()[..] else { panic!("it leads") };
    led.execute(&user, create("one")).await.expect("the leader writes");
    // Renewals go on meanwhile; they fail no write.
    pass(30).await;
    led.execute(&user, create("two")).await.expect("the leader writes");

    // Another takes the lease while this one sleeps.
    let snapshot = gate.store().snapshot();
    let held = snapshot.find(LEASES, NAMESPACE, "kube-scheduler").expect("a lease");
    let taken = json!({"spec": {"holderIdentity": "b", "leaseTransitions": 1}});
    let take =
        Write::Merge { key: held.key.clone(), expect: Expect::default(), subresource: "", patch: taken };
    gate.execute(&user, take).await.expect("taken");
    let refused = led.execute(&user, create("three")).await.expect_err("deposed");
    assert_eq!(
        refused.message,
        "leases.coordination.k8s.io kube-system/kube-scheduler is held by another server"
    );
    let found = gate.store().snapshot();
    assert!(found.find(CONFIG_MAPS, NAMESPACE, "three").is_none());

    // Not even when the other's term is over and this one leads again: its old work is of an old term.
    pass(60).await;
    assert_eq!(server.terms().len(), 2);
    led.execute(&user, create("four")).await.expect_err("an old term");
    server.terms()[1].execute(&user, create("five")).await.expect("the new term");
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_deleted_ends_the_term() {
    let gate = gate().await;
    let user = User::default();
    let server = Server::start("a", &gate);
    pass(1).await;
    let [led] = &server.terms()[..] else { panic!("it leads") };
    let key = Key::new(LEASES, NAMESPACE, "kube-scheduler");
    let delete = Write::Delete { key, expect: Expect::default(), grace_seconds: None, propagation: None };
    gate.execute(&user, delete).await.expect("deleted");
    led.execute(&user, create("one")).await.expect_err("no lease, no leader");
    pass(10).await;
    assert_eq!(server.terms().len(), 2);
}
