//! What only etcd has: other writers, compaction, and members that go away. The rest is in the suite of all engines.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use object::{Change, Draft, Key, Resource, body};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::compact::Turn;
use super::wire::{AnyRequest, PutRequest, RangeRequest, TxnRequest};
use super::{Etcd, EtcdOptions, import_json};
use crate::{Op, Store, WatchError, Window};

#[path = "../../tests/etcd_server/mod.rs"]
mod etcd_server;

use etcd_server::EtcdServer;

const PODS: Resource = Resource::new("pods");
const OTHERS: Resource = Resource::new("secrets");

fn options(endpoint: String) -> EtcdOptions {
    EtcdOptions {
        endpoints: vec![endpoint],
        tls: None,
        builtins: vec![PODS],
        import: Arc::new(|_, value| import_json(value, |_| [].into())),
        sealing: None,
        window: Window::default(),
        compact_every: None,
    }
}

async fn open(server: &EtcdServer) -> Etcd {
    Etcd::open(options(server.endpoint())).await.expect("etcd opens")
}

fn draft(name: &str) -> Draft {
    let text = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}});
    Draft::read(Key::new(PODS, "ns", name), [].into(), body::encode(&text)).expect("a draft")
}

/// As another program would write it.
async fn write(store: &Etcd, key: &str, value: &'static str) -> u64 {
    let put = PutRequest { key: key.into(), value: Bytes::from_static(value.as_bytes()) };
    let txn = TxnRequest { success: vec![AnyRequest::Put(put).into()], ..TxnRequest::default() };
    let answer = store.client.txn(txn).await.expect("written");
    answer.header.expect("a header").revision as u64
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), what).await.expect("it ends within 30 s")
}

#[tokio::test]
async fn servers_see_each_others_writes() {
    let server = EtcdServer::start();
    let (one, other) = (open(&server).await, open(&server).await);
    let mut watch = other.watch(Some(PODS), other.snapshot().revision()).expect("a watch");
    let created = one.commit(Op::create(draft("a")).into()).await.expect("created");
    // A linearizable read on the other server includes it.
    let seen = soon(other.read()).await.expect("a read");
    assert_eq!(seen.get(&Key::new(PODS, "ns", "a")).expect("the pod").revision, created.revision);
    let deleted =
        other.commit(Op::delete(Key::new(PODS, "ns", "a"), created.revision).into()).await.expect("deleted");
    let mut changes = Vec::new();
    while changes.len() < 2 {
        changes.extend(
            soon(watch.next()).await.expect("changes").iter().map(|event| (event.change, event.revision)),
        );
    }
    assert_eq!(changes, [(Change::Created, created.revision), (Change::Deleted, deleted.revision)]);
}

#[tokio::test]
async fn values_of_other_writers_are_read_and_foreign_keys_passed_over() {
    let server = EtcdServer::start();
    let store = open(&server).await;
    let upstream =
        "{\"kind\":\"Pod\",\"apiVersion\":\"v1\",\"metadata\":{\"name\":\"a\",\"uid\":\"u\"},\"spec\":{}}\n";
    let at = write(&store, "/registry/pods/ns/a", upstream).await;
    for (key, value) in [("/registry/ranges/serviceips", "x"), ("elsewhere", "y")] {
        write(&store, key, value).await;
    }
    for state in [soon(store.read()).await.expect("a read"), open(&server).await.snapshot()] {
        assert_eq!(state.revision(), at + 2);
        let pods: Vec<_> =
            state.list(PODS, "").map(|pod| (&*pod.key.name, &*pod.meta.uid, pod.revision)).collect();
        assert_eq!(pods, [("a", "u", at)]);
        let body: serde_json::Value = state.list(PODS, "").next().expect("the pod").to_value().expect("JSON");
        assert_eq!(body["metadata"]["resourceVersion"], at.to_string());
    }
}

/// Of what cannot be read, who runs already keeps the older state and knows it; a server that starts would take what belongs to it for
/// orphaned.
#[tokio::test]
async fn nobody_starts_on_what_cannot_be_read() {
    let server = EtcdServer::start();
    let store = open(&server).await;
    let first = store.commit(Op::create(draft("bad")).into()).await.expect("created").revision;
    store.commit(Op::create(draft("good")).into()).await.expect("created");
    let spoiled = |state: &object::Snapshot| {
        let name = |name| state.unreadable(PODS, "ns", name).map(ToString::to_string);
        [name(None), name(Some("bad")), name(Some("good"))]
    };
    let bad = Some("pods ns/bad".to_owned());
    let now = store.snapshot().revision();
    let mut watches = [Some(PODS), Some(OTHERS), None].map(|what| store.watch(what, now).expect("a watch"));
    write(&store, "/registry/pods/ns/bad", "k8s\0?").await;
    // Who watches is to ask again, and is told then.
    assert!(matches!(soon(watches[0].next()).await, Err(WatchError::Compacted { .. })));
    let seen = soon(store.read()).await.expect("a read");
    assert_eq!(spoiled(&seen), [bad.clone(), bad, None]);
    assert_eq!(seen.get(&Key::new(PODS, "ns", "bad")).expect("the older state").revision, first);
    for watch in &mut watches[1..] {
        assert!(watch.take().expect("nothing is wrong").is_empty());
    }
    let refused = Etcd::open(options(server.endpoint())).await.err().expect("refused").to_string();
    assert!(
        refused.starts_with("etcd holds 1 objects that cannot be read here; the first, pods ns/bad: "),
        "{refused}"
    );
    // A text that can be read, or none at all, and all is well.
    for change in [Some("{\"metadata\":{\"name\":\"bad\"}}"), Some("{"), None] {
        match change {
            Some(value) => drop(write(&store, "/registry/pods/ns/bad", value).await),
            None => {
                let delete = super::wire::DeleteRequest { key: "/registry/pods/ns/bad".into() };
                let txn =
                    TxnRequest { success: vec![AnyRequest::Delete(delete).into()], ..TxnRequest::default() };
                store.client.txn(txn).await.expect("deleted");
            }
        }
        let seen = soon(store.read()).await.expect("a read");
        assert_eq!(spoiled(&seen)[0].is_some(), change == Some("{"), "{change:?}");
    }
}

#[tokio::test]
async fn servers_take_turns_at_compacting() {
    let server = EtcdServer::start();
    let (one, other) = (open(&server).await, open(&server).await);
    let first = one.commit(Op::create(draft("a")).into()).await.expect("created").revision;
    // At its first turn a server only learns where it stands.
    let mine = Turn::default().take(&one.client).await.expect("a turn");
    let theirs = Turn::default().take(&other.client).await.expect("a turn lost");
    let at = |revision| RangeRequest { key: b"x".to_vec(), revision, ..RangeRequest::default() };
    one.client.range(at(first as i64)).await.expect("nothing is compacted yet");
    let mine = mine.take(&one.client).await.expect("the second turn");
    let error = one.client.range(at(first as i64)).await.expect_err("what was before the last turn is gone");
    assert!(error.message().contains("compacted"), "{error}");
    // The other was told the number of a turn that has passed; it loses this one and wins the next.
    let lost = theirs.take(&other.client).await.expect("a turn lost");
    lost.take(&other.client).await.expect("a turn");
    mine.take(&one.client).await.expect("a turn lost");
    let value =
        one.client.range(RangeRequest { key: b"compact_rev_key".to_vec(), ..RangeRequest::default() }).await;
    assert_eq!(value.expect("the key").kvs[0].version, 3);
}

#[tokio::test]
async fn changes_go_on_after_etcd_was_away() {
    let mut server = EtcdServer::start();
    let store = open(&server).await;
    let mut watch = store.watch(Some(PODS), store.snapshot().revision()).expect("a watch");
    let first = store.commit(Op::create(draft("a")).into()).await.expect("created");
    server.kill_and_restart();
    let committed = async {
        loop {
            // While connections are made anew a commit may fail; its precondition keeps it from happening twice.
            match store.commit(Op::create(draft("b")).into()).await {
                Ok(commit) => return commit.revision,
                Err(crate::CommitError::Precondition { revision, .. }) => return revision,
                Err(crate::CommitError::Store(_)) => {}
            }
        }
    };
    let second = soon(committed).await;
    let mut revisions = Vec::new();
    while revisions.len() < 2 {
        revisions
            .extend(soon(watch.next()).await.expect("no watch ended").iter().map(|event| event.revision));
    }
    assert_eq!(revisions, [first.revision, second]);
}

#[tokio::test]
async fn a_feed_that_was_compacted_away_lists_again() {
    let mut server = EtcdServer::start();
    let store = open(&server).await;
    let writer = open(&server).await;
    store.commit(Op::create(draft("a")).into()).await.expect("created");
    let mut watch = store.watch(Some(PODS), store.snapshot().revision()).expect("a watch");
    // The feed stands still while others write and compact.
    for task in &store.tasks {
        task.abort();
    }
    writer.commit(Op::create(draft("c")).into()).await.expect("created");
    let last = writer.commit(Op::create(draft("b")).into()).await.expect("created").revision;
    let last =
        writer.commit(Op::delete(Key::new(PODS, "ns", "b"), last).into()).await.expect("deleted").revision;
    writer.client.compact(last as i64).await.expect("compacted");
    server.kill_and_restart();
    let source = super::feed::Source {
        client: store.client.clone(),
        keys: store.keys.clone(),
        import: Arc::new(|_, value| import_json(value, |_| [].into())),
        sealing: None,
    };
    let feed = tokio::spawn(source.follow(store.hub.clone()));
    let state = soon(store.read_at_least(last)).await.expect("a state");
    let names: Vec<_> = state.list(PODS, "").map(|pod| &*pod.key.name).collect();
    assert_eq!(names, ["a", "c"]);
    // Who follows the table by its revision sees that something is gone.
    assert_eq!(state.table(PODS).map(object::Table::revision), Some(last));
    assert!(matches!(soon(watch.next()).await, Err(WatchError::Compacted { .. })));
    store.close().await;
    feed.abort();
}

#[tokio::test]
async fn an_etcd_that_is_not_there_is_named() {
    let endpoint = {
        let held = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        held.local_addr().expect("its address").to_string()
    };
    let error = soon(Etcd::open(options(endpoint.clone()))).await.err().expect("nothing listens").to_string();
    assert!(error.contains(&endpoint), "{error}");
}

/// Stands between a store and its etcd. While it is mute, what etcd answers is not passed on; then all connections are cut.
struct Relay {
    endpoint: String,
    mute: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Relay {
    async fn to(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let endpoint = listener.local_addr().expect("its address").to_string();
        let (mute, muted) = watch::channel(false);
        let task = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.expect("a connection");
                let etcd = TcpStream::connect(&server).await.expect("etcd");
                tokio::spawn(relay(client, etcd, muted.clone()));
            }
        });
        Self { endpoint, mute, task }
    }
}

async fn relay(client: TcpStream, etcd: TcpStream, mut muted: watch::Receiver<bool>) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_etcd, mut to_etcd) = etcd.into_split();
    let forth = async { tokio::io::copy(&mut from_client, &mut to_etcd).await.map(drop) };
    let back = async {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let count = from_etcd.read(&mut buffer).await?;
            if count == 0 {
                return Ok(());
            }
            if *muted.borrow_and_update() {
                let _ = muted.wait_for(|muted| !muted).await;
                return Ok::<_, std::io::Error>(());
            }
            to_client.write_all(&buffer[..count]).await?;
        }
    };
    // Whichever way ends first, both connections end with it.
    let _ = tokio::select! { ended = forth => ended, ended = back => ended };
}

#[tokio::test]
async fn a_read_settles_what_a_lost_answer_left_open() {
    let server = EtcdServer::start();
    let direct = open(&server).await;
    let relay = Relay::to(server.endpoint()).await;
    let store = Etcd::open(options(relay.endpoint.clone())).await.expect("etcd opens");
    let key = Key::new(PODS, "ns", "a");
    let mut at = 0;
    for step in ["create", "update", "delete"] {
        let mut seen = direct.watch(Some(PODS), direct.snapshot().revision()).expect("a watch");
        let op = match step {
            "create" => Op::create(draft("a")),
            "update" => Op::update(draft("a"), at),
            _ => Op::delete(key.clone(), at),
        };
        relay.mute.send_replace(true);
        let cut = async {
            // It has happened, and only the answer is missing.
            let happened = soon(seen.next()).await.expect("changes")[0].revision;
            relay.mute.send_replace(false);
            happened
        };
        let (commit, happened) = tokio::join!(soon(store.commit(op.into())), cut);
        let commit = commit.unwrap_or_else(|error| panic!("{step}: {error}"));
        assert_eq!((commit.revision, commit.events.len()), (happened, 1), "{step}");
        at = commit.revision;
    }
    relay.task.abort();
}
