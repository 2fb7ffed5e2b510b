//! Encryption at rest: nothing to be found on the disk or in etcd, keys that change, keys that are missing.

#[path = "etcd_server/mod.rs"]
mod etcd_server;
mod kms;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use base64::Engine as _;
use etcd_server::EtcdServer;
use object::{Draft, Key, Resource, body};
use serde_json::{Value, json};
use store::{
    Embedded, Etcd, EtcdOptions, Op, OpenError, Options, Sealing, SealingRules, Store, Window, import_json,
};

const SECRETS: Resource = Resource::new("secrets");
const CONFIG_MAPS: Resource = Resource::new("configmaps");
const HIDDEN: &str = "the-hidden-thing";

fn rules(providers: &Value) -> SealingRules {
    let text = json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "EncryptionConfiguration",
        "resources": [{"resources": ["secrets"], "providers": providers}]});
    SealingRules::parse(&text).expect("a configuration")
}

async fn sealing(providers: &Value) -> Arc<Sealing> {
    Sealing::open(rules(providers)).await.expect("keys")
}

fn key(kind: &str, name: &str, byte: u8) -> Value {
    let secret = base64::engine::general_purpose::STANDARD.encode([byte; 32]);
    json!({kind: {"keys": [{"name": name, "secret": secret}]}})
}

fn draft(resource: Resource, name: &str) -> Draft {
    let text = json!({"apiVersion": "v1", "kind": "X", "metadata": {"name": name}, "data": HIDDEN});
    Draft::read(Key::new(resource, "default", name), [HIDDEN.into()].into(), body::encode(&text))
        .expect("a draft")
}

async fn open(folder: &Path, sealing: Option<Arc<Sealing>>) -> Result<Embedded, OpenError> {
    let folder = folder.to_owned();
    let options = Options { sealing, ..Options::default() };
    tokio::task::spawn_blocking(move || Embedded::open(&folder, options)).await.expect("no panic")
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

/// Whether any file of the folder holds a text.
fn found(folder: &Path, text: &str) -> bool {
    let files = std::fs::read_dir(folder).expect("a folder");
    files.into_iter().any(|file| holds(&std::fs::read(file.expect("a file").path()).expect("bytes"), text))
}

fn hidden_of(store: &dyn Store, name: &str) -> String {
    let held = store.snapshot().find(SECRETS, "default", name).expect("the secret").clone();
    held.to_value().expect("JSON")["data"].as_str().expect("text").to_owned()
}

#[tokio::test]
async fn nothing_sealed_is_on_the_disk_and_keys_change() {
    for kind in ["aesgcm", "aescbc", "secretbox"] {
        let folder = tempfile::tempdir().expect("a folder");
        let one = sealing(&json!([key(kind, "one", 1)])).await;
        let store = open(folder.path(), Some(one.clone())).await.expect("opened");
        store.commit(Op::create(draft(SECRETS, "a")).into()).await.expect("created");
        assert!(!found(folder.path(), HIDDEN));
        assert!(found(folder.path(), &format!("k8s:enc:{kind}:v1:one:")));
        store.commit(Op::create(draft(CONFIG_MAPS, "a")).into()).await.expect("created");
        assert!(found(folder.path(), HIDDEN), "a config map is not among the resources");

        // While it runs: a second key, and everything under it.
        one.replace(rules(&json!([key(kind, "two", 2), key(kind, "one", 1)]))).await.expect("replaced");
        store.commit(Op::create(draft(SECRETS, "b")).into()).await.expect("created");
        assert!(found(folder.path(), &format!("k8s:enc:{kind}:v1:one:")));
        store.reseal().await.expect("sealed anew");
        assert!(!found(folder.path(), &format!("k8s:enc:{kind}:v1:one:")));
        store.close().await;
        drop(store);

        // The first key is of no use any more; without the second nothing opens.
        let two = sealing(&json!([key(kind, "two", 2)])).await;
        let store = open(folder.path(), Some(two)).await.expect("opened");
        assert_eq!((hidden_of(&store, "a"), hidden_of(&store, "b")), (HIDDEN.to_owned(), HIDDEN.to_owned()));
        let fields = store.snapshot().find(SECRETS, "default", "a").expect("the secret").fields.clone();
        assert_eq!(&*fields[0], HIDDEN);
        store.close().await;
        drop(store);
        let another = sealing(&json!([key(kind, "two", 9)])).await;
        let why = open(folder.path(), Some(another)).await.map(drop).expect_err("refused").to_string();
        assert!(
            why.contains(&format!("secrets default/a cannot be opened with k8s:enc:{kind}:v1:two")),
            "{why}"
        );
        let why = open(folder.path(), None).await.map(drop).expect_err("refused").to_string();
        assert!(
            why.contains("secrets default/a is sealed with k8s:enc")
                && why.contains("--encryption-provider-config"),
            "{why}"
        );
    }
}

#[tokio::test]
async fn what_was_plain_is_sealed_at_the_next_start_and_back_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path(), None).await.expect("opened");
    store.commit(Op::create(draft(SECRETS, "a")).into()).await.expect("created");
    store.close().await;
    drop(store);
    assert!(found(folder.path(), HIDDEN));
    let one = sealing(&json!([key("aesgcm", "one", 1), {"identity": {}}])).await;
    let store = open(folder.path(), Some(one)).await.expect("opened");
    // A commit waits for the writer, which first seals what it has read.
    store.commit(Op::create(draft(SECRETS, "b")).into()).await.expect("created");
    assert!(!found(folder.path(), HIDDEN));
    store.close().await;
    drop(store);
    let back = sealing(&json!([{"identity": {}}, key("aesgcm", "one", 1)])).await;
    let store = open(folder.path(), Some(back)).await.expect("opened");
    store.reseal().await.expect("opened anew");
    store.close().await;
    drop(store);
    assert!(found(folder.path(), HIDDEN));
    let store = open(folder.path(), None).await.expect("opened without any key");
    assert_eq!(hidden_of(&store, "b"), HIDDEN);
}

#[tokio::test]
async fn a_kms_is_asked_for_a_key_once_and_for_another_when_it_changes() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("kms.sock");
    let (plugin, data) = (kms::Plugin::start(&socket), folder.path().join("data"));
    let endpoint = format!("unix://{}", socket.display());
    let providers =
        json!([{"kms": {"apiVersion": "v2", "name": "mine", "endpoint": endpoint}}, {"identity": {}}]);
    let keys = sealing(&providers).await;
    let store = open(&data, Some(keys.clone())).await.expect("opened");
    for name in ["a", "b"] {
        store.commit(Op::create(draft(SECRETS, name)).into()).await.expect("created");
    }
    assert!(!found(&data, HIDDEN) && found(&data, "k8s:enc:kms:v2:mine:"));
    assert!(!keys.refresh().await.expect("well"), "the key is the same");
    *plugin.key.lock().expect("no panic") = "key-2".into();
    assert!(keys.refresh().await.expect("well"), "the key is another");
    *plugin.key.lock().expect("no panic") = String::new();
    assert!(keys.refresh().await.is_err(), "a key without an id");
    *plugin.key.lock().expect("no panic") = "key-2".into();
    assert!(!keys.refresh().await.expect("well"));
    let mut page = metrics::Page::default();
    keys.write_metrics(&mut page);
    let text = page.into_text();
    for line in [
        "apiserver_envelope_encryption_invalid_key_id_from_status_total{error=\"empty\",provider_name=\"mine\"} 1",
        "apiserver_storage_data_key_generation_duration_seconds_count 2",
    ] {
        assert!(text.lines().any(|one| one == line), "{line} is not in {text}");
    }
    store.commit(Op::create(draft(SECRETS, "c")).into()).await.expect("created");
    assert_eq!(plugin.decrypted.load(Ordering::Relaxed), 0);
    store.close().await;
    drop(store);

    // Another process: two sealed seeds to be opened, however many values there are.
    let keys = sealing(&providers).await;
    let store = open(&data, Some(keys.clone())).await.expect("opened");
    assert_eq!(plugin.decrypted.load(Ordering::Relaxed), 2);
    assert_eq!(hidden_of(&store, "a"), HIDDEN);
    assert_eq!(keys.trouble(), None);
    store.close().await;
    drop(store);
    // Asking is part of opening: the first of each seed took at least as long as the plugin.
    let value = |keys: &Sealing, of: &str| -> f64 {
        let mut page = metrics::Page::default();
        keys.write_metrics(&mut page);
        let text = page.into_text();
        let line = text.lines().find(|line| line.starts_with(of) && line.contains("mine"));
        let value = line.and_then(|line| line.rsplit_once(' ')).map(|(_, value)| value.parse());
        value.unwrap_or_else(|| panic!("{of} is not in {text}")).expect("a number")
    };
    let opened = "apiserver_storage_transformation_duration_seconds_sum{transformation_type=\"from_storage\"";
    let asked = "apiserver_envelope_encryption_kms_operations_latency_seconds_sum{grpc_status_code=\"OK\",method_name=\"/v2.KeyManagementService/Decrypt\"";
    assert!(value(&keys, opened) >= value(&keys, asked));

    // What it does not open is counted by its answer.
    plugin.opens.store(false, Ordering::Relaxed);
    let keys = sealing(&providers).await;
    let why = open(&data, Some(keys.clone())).await.map(drop).expect_err("refused").to_string();
    assert!(why.contains("the KMS \"mine\": Decrypt: "), "{why}");
    let failed = "apiserver_storage_transformation_operations_total{resource=\"secrets\",status=\"Unavailable\",transformation_type=\"from_storage\"";
    assert_eq!(value(&keys, failed), 1.0);
    plugin.is_well.store(false, Ordering::Relaxed);
    let why = keys.refresh().await.expect_err("not well").to_string();
    assert!(why.contains("the KMS \"mine\": it is not well: no key"), "{why}");
    assert!(keys.trouble().is_some_and(|why| why.contains("mine")));
    let why = Sealing::open(rules(&providers)).await.err().expect("refused").to_string();
    assert!(why.contains("mine"), "{why}");
}

#[tokio::test]
async fn etcd_holds_what_upstream_would_have_written() {
    let server = EtcdServer::start();
    let options = |sealing: Option<Arc<Sealing>>| EtcdOptions {
        endpoints: vec![server.endpoint()],
        tls: None,
        builtins: vec![SECRETS, CONFIG_MAPS],
        import: Arc::new(|_, value| import_json(value, |_| [].into())),
        sealing,
        window: Window::default(),
        compact_every: None,
    };
    let plain = Etcd::open(options(None)).await.expect("opened");
    plain.commit(Op::create(draft(SECRETS, "old")).into()).await.expect("created");
    plain.close().await;
    let keys = sealing(&json!([key("aesgcm", "one", 1), {"identity": {}}])).await;
    let store = Etcd::open(options(Some(keys.clone()))).await.expect("opened");
    assert!(store.was_stale(), "what is plain is to be sealed");
    let made = store.commit(Op::create(draft(SECRETS, "a")).into()).await.expect("created");
    store.commit(Op::update(draft(SECRETS, "a"), made.revision).into()).await.expect("updated");
    assert_eq!((hidden_of(&store, "a"), hidden_of(&store, "old")), (HIDDEN.to_owned(), HIDDEN.to_owned()));
    keys.replace(rules(&json!([key("secretbox", "two", 2), key("aesgcm", "one", 1), {"identity": {}}])))
        .await
        .expect("replaced");
    store.reseal().await.expect("sealed anew");

    // A server that is given a key later than others serves nothing old meanwhile, and goes on once it has it.
    let late = sealing(&json!([key("secretbox", "two", 2)])).await;
    let other = Etcd::open(options(Some(late.clone()))).await.expect("opened");
    keys.replace(rules(&json!([key("aesgcm", "three", 3), key("secretbox", "two", 2)])))
        .await
        .expect("replaced");
    let at = store.snapshot().find(SECRETS, "default", "a").expect("the secret").revision;
    let made = store.commit(Op::update(draft(SECRETS, "a"), at).into()).await.expect("updated");
    let early = tokio::time::timeout(Duration::from_millis(500), other.read()).await;
    assert!(early.is_err(), "a state without the last change was taken for the newest");
    late.replace(rules(&json!([key("aesgcm", "three", 3), key("secretbox", "two", 2)])))
        .await
        .expect("replaced");
    let read =
        tokio::time::timeout(Duration::from_secs(30), other.read()).await.expect("in time").expect("read");
    assert_eq!(read.find(SECRETS, "default", "a").expect("the secret").revision, made.revision);
    other.close().await;
    keys.replace(rules(&json!([key("secretbox", "two", 2), key("aesgcm", "three", 3)])))
        .await
        .expect("replaced");
    store.reseal().await.expect("sealed anew");
    store.close().await;
    let two = sealing(&json!([key("secretbox", "two", 2)])).await;
    let store = Etcd::open(options(Some(two))).await.expect("opened with the second key alone");
    assert!(!store.was_stale());
    assert_eq!((hidden_of(&store, "a"), hidden_of(&store, "old")), (HIDDEN.to_owned(), HIDDEN.to_owned()));
    store.close().await;
    let another = sealing(&json!([key("secretbox", "two", 9)])).await;
    let why = Etcd::open(options(Some(another))).await.err().expect("refused").to_string();
    assert!(why.contains("secrets default/a") && why.contains("k8s:enc:secretbox:v1:two"), "{why}");
}
