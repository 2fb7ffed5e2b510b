//! What every engine promises: one table of cases, run against each.

mod etcd_server;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use object::{Change, Draft, Event, Key, Resource, body};
use serde_json::json;
use store::{
    CommitError, Embedded, Etcd, EtcdOptions, EtcdTls, MAX_OPS, MAX_REQUEST_BYTES, Memory, Op, Options,
    Precondition, Put, Store, StoreError, Transaction, WatchError, Window, import_json,
};

const PODS: Resource = Resource::new("pods");
const NODES: Resource = Resource::new("nodes");
const DEPLOYMENTS: Resource = Resource::new("deployments.apps");
const WIDGETS: Resource = Resource::new("widgets.example.com");

type Case = (&'static str, for<'a> fn(Ground<'a>) -> Pin<Box<dyn Future<Output = ()> + 'a>>);

/// What a case stands on: a store, and a namespace of its own in it.
#[derive(Clone, Copy)]
struct Ground<'a> {
    store: &'a dyn Store,
    namespace: &'static str,
}

macro_rules! cases {
    ($($name:ident),* $(,)?) => { &[$((stringify!($name), |ground| Box::pin($name(ground)))),*] };
}

const CASES: &[Case] = cases![
    a_batch_of_a_watch_holds_whole_transactions,
    a_closed_store_says_so,
    a_commit_is_in_the_snapshot_when_it_returns,
    a_failed_precondition_leaves_everything_as_it_was,
    a_read_at_a_coming_revision_waits,
    a_watch_continues_exactly_from_a_snapshot,
    a_watch_that_is_dropped_while_waiting_loses_nothing,
    an_object_lives_through_its_changes,
    contenders_lose_no_update,
    fields_and_labels_are_kept,
    resources_of_every_kind_are_kept_apart,
    what_breaks_a_limit_is_refused,
    what_changes_nothing_takes_no_revision,
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory() {
    for (name, case) in CASES {
        let store = Memory::new();
        assert_eq!(store.snapshot().revision(), 1);
        case(Ground { store: &store, namespace: name }).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn embedded() {
    for (name, case) in CASES {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Embedded::open(folder.path(), Options::default()).expect("it opens");
        assert_eq!(store.snapshot().revision(), 1);
        case(Ground { store: &store, namespace: name }).await;
        let before = store.snapshot();
        store.close().await;
        drop(store);
        let store = Embedded::open(folder.path(), Options::default()).expect("it opens again");
        let after = store.snapshot();
        assert_eq!(after.revision(), before.revision(), "{name}");
        for (resource, table) in before.tables() {
            let held: Vec<_> =
                after.list(resource, "").map(|object| (&object.key, &object.body, &object.fields)).collect();
            let expected: Vec<_> =
                table.iter().map(|object| (&object.key, &object.body, &object.fields)).collect();
            assert_eq!(held, expected, "{name}");
        }
        store.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd() {
    let server = etcd_server::EtcdServer::start();
    for (name, case) in CASES {
        let store = Etcd::open(etcd_options(&server)).await.expect("etcd opens");
        case(Ground { store: &store, namespace: name }).await;
        store.close().await;
    }
}

#[tokio::test]
async fn etcd_over_tls() {
    let (server, [authority, certificate, key]) = etcd_server::EtcdServer::start_secured();
    let tls = |identity| Some(EtcdTls { authority: authority.clone(), identity });
    let options = EtcdOptions { tls: tls(Some((certificate, key))), ..etcd_options(&server) };
    let printed = format!("{:?}", options.tls);
    assert!(!printed.contains("BEGIN"), "{printed}");
    let store = Etcd::open(options).await.expect("etcd opens");
    let on = Ground { store: &store, namespace: "tls" };
    on.create("a").await;
    assert!(store.snapshot().get(&on.key(PODS, "a")).is_some());
    let without = EtcdOptions { tls: tls(None), ..etcd_options(&server) };
    assert!(Etcd::open(without).await.is_err(), "etcd wants a certificate");
    store.close().await;
}

fn etcd_options(server: &etcd_server::EtcdServer) -> EtcdOptions {
    EtcdOptions {
        endpoints: vec![server.endpoint()],
        tls: None,
        builtins: vec![PODS, NODES, DEPLOYMENTS],
        import: Arc::new(|_, value| {
            import_json(value, |object| {
                [object["spec"]["nodeName"].as_str().unwrap_or_default().into()].into()
            })
        }),
        sealing: None,
        window: Window::default(),
        compact_every: None,
    }
}

impl Ground<'_> {
    fn key(&self, resource: Resource, name: &str) -> Key {
        Key::new(resource, self.namespace, name)
    }

    fn draft(&self, name: &str, node: &str) -> Draft {
        draft(self.key(PODS, name), node)
    }

    async fn create(&self, name: &str) -> store::Commit {
        self.store.commit(Op::create(self.draft(name, "")).into()).await.expect("it is created")
    }
}

fn draft(key: Key, node: &str) -> Draft {
    let text = json!({
        "apiVersion": "v1", "kind": "Pod", "spec": {"nodeName": node},
        "metadata": {"name": &*key.name, "namespace": &*key.namespace, "labels": {"node": node}},
    });
    Draft::read(key, [node.into()].into(), body::encode(&text)).expect("a draft")
}

fn names(events: &[Arc<Event>]) -> Vec<(Change, &str)> {
    events.iter().map(|event| (event.change, &*event.object.key.name)).collect()
}

/// The next changes, or a failure: a case that would wait for ever ends.
async fn next(watch: &mut store::Watch) -> Vec<Arc<Event>> {
    let waited = tokio::time::timeout(Duration::from_secs(20), watch.next()).await;
    waited.expect("changes within 20 s").expect("changes")
}

async fn an_object_lives_through_its_changes(on: Ground<'_>) {
    let created = on.create("a").await;
    let updated =
        on.store.commit(Op::update(on.draft("a", "n1"), created.revision).into()).await.expect("updated");
    let deleted =
        on.store.commit(Op::delete(on.key(PODS, "a"), updated.revision).into()).await.expect("deleted");
    assert!(created.revision < updated.revision && updated.revision < deleted.revision);
    let [created, updated, deleted] = [created, updated, deleted].map(|commit| {
        assert_eq!(commit.events.len(), 1);
        assert_eq!(commit.events[0].revision, commit.revision);
        commit.events[0].clone()
    });
    assert_eq!(
        [created.change, updated.change, deleted.change],
        [Change::Created, Change::Updated, Change::Deleted]
    );
    assert!(created.previous.is_none());
    assert_eq!(updated.previous.as_ref().map(|old| old.revision), Some(created.revision));
    assert_eq!(deleted.previous.as_ref().map(|old| old.revision), Some(updated.revision));
    assert_eq!(deleted.object.revision, deleted.revision);
    let last: serde_json::Value = deleted.object.decode().expect("JSON");
    assert_eq!(last["spec"]["nodeName"], "n1");
    assert_eq!(last["metadata"]["resourceVersion"], deleted.revision.to_string());
    assert!(on.store.snapshot().get(&on.key(PODS, "a")).is_none());
}

async fn a_failed_precondition_leaves_everything_as_it_was(on: Ground<'_>) {
    let at = on.create("held").await.revision;
    let (held, free) = (on.key(PODS, "held"), on.key(PODS, "free"));
    for (key, precondition, found) in [
        (&held, Precondition::Absent, at),
        (&held, Precondition::At(at + 1_000_000), at),
        (&held, Precondition::At(0), at),
        (&free, Precondition::At(at), 0),
        (&free, Precondition::At(0), 0),
    ] {
        let before = on.store.snapshot().revision();
        let other = Op {
            key: on.key(PODS, "other"),
            precondition: Precondition::Unchecked,
            put: Put::Object(on.draft("other", "")),
        };
        let failing = Op { key: key.clone(), precondition, put: Put::Object(draft(key.clone(), "x")) };
        let error =
            on.store.commit(Transaction { ops: vec![other, failing] }).await.expect_err("it must not hold");
        match error {
            CommitError::Precondition { op: 1, key: named, revision } => {
                assert_eq!((&named, revision), (key, found))
            }
            other => panic!("{precondition:?}: {other}"),
        }
        let now = on.store.read().await.expect("a read");
        assert_eq!(now.revision(), before, "{precondition:?}");
        assert!(now.get(&on.key(PODS, "other")).is_none());
    }
    for precondition in [Precondition::At(at), Precondition::Unchecked] {
        let op = Op { key: held.clone(), precondition, put: Put::Object(on.draft("held", "y")) };
        on.store.commit(op.into()).await.expect("it holds");
    }
}

async fn what_changes_nothing_takes_no_revision(on: Ground<'_>) {
    let at = on.create("a").await.revision;
    let nothing = |name, precondition, put| Op { key: on.key(PODS, name), precondition, put };
    for op in [
        nothing("a", Precondition::At(at), Put::Nothing),
        nothing("b", Precondition::Absent, Put::Nothing),
        nothing("b", Precondition::Unchecked, Put::Delete),
    ] {
        let commit = on.store.commit(op.into()).await.expect("it holds");
        assert_eq!((commit.revision, commit.events.len()), (at, 0));
    }
    let commit = on.store.commit(Transaction::default()).await.expect("an empty transaction");
    assert_eq!((commit.revision, commit.events.len()), (at, 0));
    // Beside a change, what does nothing tells nothing.
    let ops = vec![
        nothing("a", Precondition::At(at), Put::Nothing),
        Op::create(on.draft("c", "")),
        nothing("b", Precondition::Unchecked, Put::Delete),
    ];
    let commit = on.store.commit(Transaction { ops }).await.expect("it holds");
    assert_eq!(names(&commit.events), [(Change::Created, "c")]);
}

async fn a_commit_is_in_the_snapshot_when_it_returns(on: Ground<'_>) {
    for name in ["a", "b", "c"] {
        let commit = on.create(name).await;
        let now = on.store.snapshot();
        assert!(now.revision() >= commit.revision);
        assert_eq!(now.get(&on.key(PODS, name)).expect("the object").revision, commit.revision);
        assert!(on.store.read().await.expect("a read").revision() >= commit.revision);
    }
}

async fn a_read_at_a_coming_revision_waits(on: Ground<'_>) {
    let coming = on.store.snapshot().revision() + 2;
    let waiting = on.store.read_at_least(coming);
    let writing = async {
        on.create("a").await;
        on.create("b").await;
    };
    let (found, ()) = tokio::join!(waiting, writing);
    let found = found.expect("a state");
    assert!(found.revision() >= coming);
    assert!(found.get(&on.key(PODS, "b")).is_some());
}

async fn a_watch_continues_exactly_from_a_snapshot(on: Ground<'_>) {
    on.create("before").await;
    let from = on.store.snapshot().revision();
    let mut early = on.store.watch(Some(PODS), from).expect("a watch");
    let mut all = on.store.watch(None, from).expect("a watch");
    let at = on.create("a").await.revision;
    let deployment = draft(on.key(DEPLOYMENTS, "d"), "");
    on.store.commit(Op::create(deployment).into()).await.expect("created");
    on.store.commit(Op::update(on.draft("a", "n"), at).into()).await.expect("updated");
    let mut late = on.store.watch(Some(PODS), from).expect("a watch of what was");
    let mut middle = on.store.watch(Some(PODS), at).expect("a watch from the middle");
    for (watch, expected) in [
        (&mut early, &[(Change::Created, "a"), (Change::Updated, "a")][..]),
        (&mut late, &[(Change::Created, "a"), (Change::Updated, "a")]),
        (&mut middle, &[(Change::Updated, "a")]),
        (&mut all, &[(Change::Created, "a"), (Change::Created, "d"), (Change::Updated, "a")]),
    ] {
        let mut events = Vec::new();
        while events.len() < expected.len() {
            events.extend(next(watch).await);
        }
        assert_eq!(names(&events), expected);
        assert!(watch.take().expect("no failure").is_empty(), "none comes twice");
        assert_eq!(watch.progress(), on.store.snapshot().revision());
    }
}

async fn a_batch_of_a_watch_holds_whole_transactions(on: Ground<'_>) {
    let from = on.store.snapshot().revision();
    let mut watch = on.store.watch(Some(PODS), from).expect("a watch");
    let ops = (0..MAX_OPS).map(|at| Op::create(on.draft(&format!("p{at:03}"), ""))).collect();
    let commit = on.store.commit(Transaction { ops }).await.expect("created");
    assert_eq!(commit.events.len(), MAX_OPS);
    assert!(commit.events.iter().all(|event| event.revision == commit.revision));
    assert_eq!(next(&mut watch).await.len(), MAX_OPS);
}

async fn a_watch_that_is_dropped_while_waiting_loses_nothing(on: Ground<'_>) {
    let mut watch = on.store.watch(Some(PODS), on.store.snapshot().revision()).expect("a watch");
    for name in ["a", "b", "c"] {
        tokio::select! {
            biased;
            events = watch.next() => panic!("{:?}", events.map(|events| events.len())),
            () = std::future::ready(()) => {}
        }
        on.create(name).await;
        assert_eq!(names(&next(&mut watch).await), [(Change::Created, name)]);
    }
}

async fn contenders_lose_no_update(on: Ground<'_>) {
    on.create("counter").await;
    let key = on.key(PODS, "counter");
    let contend = async || {
        let mut done = 0;
        while done < 10 {
            let now = on.store.snapshot();
            let held = now.get(&key).expect("the counter");
            let count: u32 = held.fields[0].parse().unwrap_or(0);
            let op = Op::update(on.draft("counter", &(count + 1).to_string()), held.revision);
            match on.store.commit(op.into()).await {
                Ok(_) => done += 1,
                Err(CommitError::Precondition { revision, .. }) => {
                    on.store.read_at_least(revision).await.expect("the winner's state");
                }
                Err(other) => panic!("{other}"),
            }
        }
    };
    tokio::join!(contend(), contend(), contend(), contend(), contend(), contend(), contend(), contend());
    assert_eq!(&*on.store.snapshot().get(&key).expect("the counter").fields[0], "80");
}

async fn fields_and_labels_are_kept(on: Ground<'_>) {
    let node = format!("node-of-{}", on.namespace);
    on.store.commit(Op::create(on.draft("a", &node)).into()).await.expect("created");
    let now = on.store.snapshot();
    let found: Vec<_> = now.list_by_field(PODS, &node).map(|object| &*object.key.name).collect();
    assert_eq!(found, ["a"]);
    let object = now.get(&on.key(PODS, "a")).expect("the object");
    assert_eq!((&*object.fields[0], object.meta.label("node")), (&*node, Some(&*node)));
}

async fn resources_of_every_kind_are_kept_apart(on: Ground<'_>) {
    let keys = [
        on.key(PODS, "x"),
        on.key(DEPLOYMENTS, "x"),
        on.key(WIDGETS, "x"),
        Key::cluster(NODES, on.namespace),
    ];
    let ops = keys.iter().map(|key| Op::create(draft(key.clone(), key.resource.as_str()))).collect();
    on.store.commit(Transaction { ops }).await.expect("created");
    let now = on.store.snapshot();
    for key in &keys {
        assert_eq!(&*now.get(key).expect("the object").fields[0], key.resource.as_str());
    }
}

async fn what_breaks_a_limit_is_refused(on: Ground<'_>) {
    let before = on.store.snapshot().revision();
    let mut large = on.draft("large", "");
    large.stored = vec![b' '; MAX_REQUEST_BYTES + 1].into();
    let too_large = on.store.commit(Op::create(large).into()).await;
    assert!(matches!(too_large, Err(CommitError::Store(StoreError::TooLarge))), "{too_large:?}");
    let twice = vec![Op::create(on.draft("a", "")), Op::create(on.draft("a", ""))];
    let many = (0..=MAX_OPS).map(|at| Op::create(on.draft(&format!("p{at}"), ""))).collect();
    let crossed = vec![Op {
        key: on.key(PODS, "b"),
        precondition: Precondition::Absent,
        put: Put::Object(on.draft("a", "")),
    }];
    for ops in [twice, many, crossed] {
        let refused = on.store.commit(Transaction { ops }).await;
        assert!(matches!(refused, Err(CommitError::Store(StoreError::Malformed(_)))), "{refused:?}");
    }
    assert_eq!(on.store.read().await.expect("a read").revision(), before);
}

async fn a_closed_store_says_so(on: Ground<'_>) {
    let mut watch = on.store.watch(Some(PODS), on.store.snapshot().revision()).expect("a watch");
    on.create("a").await;
    let coming = on.store.snapshot().revision() + 1;
    let closing = async { on.store.close().await };
    let (waited, ()) = tokio::join!(on.store.read_at_least(coming), closing);
    assert!(matches!(waited, Err(StoreError::Closed)));
    assert_eq!(names(&next(&mut watch).await), [(Change::Created, "a")], "what was there is still told");
    assert!(matches!(watch.next().await, Err(WatchError::Closed)));
    let refused = on.store.commit(Op::create(on.draft("b", "")).into()).await;
    assert!(matches!(refused, Err(CommitError::Store(StoreError::Closed))), "{refused:?}");
    assert!(matches!(on.store.watch(None, coming), Err(WatchError::Closed)));
}
