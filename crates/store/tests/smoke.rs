use object::{Draft, Key, Resource, body};
use store::{CommitError, Embedded, Op, Options, Store};

const PODS: Resource = Resource::new("pods");
fn draft(name: &str, value: &str) -> Draft {
    let text = serde_json::json!({"apiVersion":"v1","kind":"Pod","metadata":{"name":name,"labels":{"v":value}},"spec":{}});
    Draft::read(Key::new(PODS, "default", name), [value.into()].into(), body::encode(&text)).expect("draft")
}

#[tokio::test]
async fn what_was_committed_is_there_after_a_restart() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = Embedded::open(dir.path(), Options::default()).expect("open");
    assert_eq!(store.snapshot().revision(), 1);
    let mut watch = store.watch(Some(PODS), 1).expect("watch");
    let one = store.commit(Op::create(draft("a", "1")).into()).await.expect("create");
    assert_eq!(one.revision, 2);
    assert!(matches!(
        store.commit(Op::create(draft("a", "1")).into()).await,
        Err(CommitError::Precondition { revision: 2, .. })
    ));
    let two = store.commit(Op::update(draft("a", "2"), 2).into()).await.expect("update");
    assert_eq!(watch.next().await.expect("events").len(), 2);
    assert!(matches!(Embedded::open(dir.path(), Options::default()), Err(store::OpenError::Folder(_))));
    store.close().await;
    drop(store);
    let store = Embedded::open(dir.path(), Options::default()).expect("open again");
    let now = store.snapshot();
    assert_eq!(now.revision(), two.revision);
    let pod = now.find(PODS, "default", "a").expect("the pod");
    assert_eq!((pod.meta.label("v"), &*pod.fields[0]), (Some("2"), "2"));
    assert_eq!(store.watch(Some(PODS), 2).expect("watch").take().expect("one").len(), 1);
    store.close().await;
}
