//! What a DELETE does to objects with and without grace, finalizers and policies.

mod common;

use std::sync::atomic::Ordering;

use common::{World, pod};
use gate::{Answer, DeleteOptions};
use plan::Propagation;
use serde_json::{Value, json};

/// A pod that runs on a node.
async fn running(world: &World, name: &str) {
    world.create("pods", pod(name)).await.expect("a pod");
    let binding = json!({"metadata": {"name": name}, "target": {"kind": "Node", "name": "n1"}});
    world.post("pods", name, "binding", binding).await.expect("bound");
    world.merge("pods", name, "status", json!({"status": {"phase": "Running"}})).await.expect("a status");
}

fn grace(seconds: i64) -> DeleteOptions {
    DeleteOptions { grace_seconds: Some(seconds), ..DeleteOptions::default() }
}

/// What is left of a pod: its grace, or nothing.
fn left(world: &World, name: &str) -> Option<i64> {
    world.get("pods", name).map(|pod| pod["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(-1))
}

#[tokio::test]
async fn grace_is_given_once_and_only_shortened() {
    let world = World::new().await;
    world.create("pods", pod("pending")).await.expect("a pod");
    world.delete("pods", "pending", DeleteOptions::default()).await.expect("deleted");
    assert_eq!(left(&world, "pending"), None, "nothing runs: nothing to wait for");

    running(&world, "p").await;
    let steps: &[(DeleteOptions, Option<i64>)] = &[
        (DeleteOptions::default(), Some(30)),
        (DeleteOptions::default(), Some(30)),
        (grace(60), Some(30)),
        (grace(10), Some(10)),
        (grace(-5), Some(1)),
        (grace(0), None),
    ];
    for (index, (options, expected)) in steps.iter().enumerate() {
        world.delete("pods", "p", options.clone()).await.expect("deleted");
        assert_eq!(left(&world, "p"), *expected, "step {index}");
    }

    running(&world, "q").await;
    world.delete("pods", "q", DeleteOptions::default()).await.expect("deleted");
    assert_eq!(world.get("pods", "q").map(|pod| pod["metadata"]["generation"].clone()), Some(json!(2)));
    world.now.fetch_add(100, Ordering::Relaxed);
    world.delete("pods", "q", grace(5)).await.expect("deleted");
    assert_eq!(left(&world, "q"), Some(1), "the time has passed: one second is what is left");
}

#[tokio::test]
async fn finalizers_and_policies_hold_an_object() {
    let policy = |propagation| DeleteOptions { propagation: Some(propagation), ..DeleteOptions::default() };
    let template =
        json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let set = |name: &str, finalizers: &[&str]| {
        json!({"metadata": {"name": name, "finalizers": finalizers},
            "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template}})
    };
    let cases: [(&str, &[&str], DeleteOptions, Option<Value>); 6] = [
        ("plain", &[], DeleteOptions::default(), None),
        ("background", &[], policy(Propagation::Background), None),
        ("foreground", &[], policy(Propagation::Foreground), Some(json!(["foregroundDeletion"]))),
        ("orphan", &[], policy(Propagation::Orphan), Some(json!(["orphan"]))),
        ("held", &["example.com/x"], DeleteOptions::default(), Some(json!(["example.com/x"]))),
        (
            "both",
            &["example.com/x"],
            policy(Propagation::Foreground),
            Some(json!(["example.com/x", "foregroundDeletion"])),
        ),
    ];
    let world = World::new().await;
    for (name, finalizers, options, expected) in cases {
        world.create("replicasets.apps", set(name, finalizers)).await.expect("a set");
        world.delete("replicasets.apps", name, options).await.expect("deleted");
        let left = world.get("replicasets.apps", name);
        assert_eq!(left.as_ref().map(|left| left["metadata"]["finalizers"].clone()), expected, "{name}");
        if let Some(left) = left {
            assert_eq!(left["metadata"]["deletionGracePeriodSeconds"], 0, "{name}");
            let gone =
                world.merge("replicasets.apps", name, "", json!({"metadata": {"finalizers": null}})).await;
            assert!(gone.is_ok() && world.get("replicasets.apps", name).is_none(), "{name}");
        }
    }
    let both = DeleteOptions { orphan_dependents: Some(true), ..policy(Propagation::Orphan) };
    let refused = world.delete("replicasets.apps", "plain", both).await.expect_err("a contradiction");
    assert!(refused.message.contains("cannot be both set"), "{refused}");
}

#[tokio::test]
async fn a_namespace_is_emptied_before_it_goes() {
    let world = World::new().await;
    world.delete("namespaces", "a", DeleteOptions::default()).await.expect("deleted");
    let namespace = world.get("namespaces", "a").expect("it waits");
    assert_eq!(namespace["status"]["phase"], "Terminating");
    let refused =
        world.create("configmaps", json!({"metadata": {"name": "late"}})).await.expect_err("too late");
    assert_eq!((refused.code, refused.causes[0].reason), (403, "NamespaceTerminating"));
    let waiting = world.delete("namespaces", "a", DeleteOptions::default()).await.expect("deleted again");
    assert!(matches!(waiting.answer, Answer::Object(_)));
    let emptied = world.merge("namespaces", "a", "finalize", json!({"spec": {"finalizers": null}})).await;
    assert!(emptied.is_ok() && world.get("namespaces", "a").is_none());
}

/// Protobuf and CBOR carry values that JSON's reader, which reads what is stored, would refuse: they would stay for ever.
#[tokio::test]
async fn what_is_too_deep_to_be_deleted_is_not_created() {
    let world = World::new().await;
    for (levels, is_made) in [(126, true), (127, false)] {
        let data = (1..levels).fold(json!({}), |inner, _| json!({"a": inner}));
        let name = format!("r{levels}");
        let made = world
            .create(
                "controllerrevisions.apps",
                json!({"metadata": {"name": name}, "revision": 1, "data": data}),
            )
            .await;
        assert_eq!(made.map_err(|status| status.code).err(), (!is_made).then_some(400), "{levels}");
        assert_eq!(world.get("controllerrevisions.apps", &name).is_some(), is_made, "{levels}");
    }
}
