//! What a build has stored that knew fewer defaults: it is changed like anything else.

mod common;

use common::World;
use object::{Draft, Key, Resource, body};
use serde_json::{Value, json};
use store::{Op, Transaction};

/// Puts an object into the store as it is.
async fn put(world: &World, resource: &'static str, object: &Value) {
    let key = Key::new(Resource::new(resource), "a", object["metadata"]["name"].as_str().expect("a name"));
    let draft = Draft::read(key, [].into(), body::encode(object)).expect("an object");
    world.gate.store().commit(Transaction::from(Op::create(draft))).await.expect("stored");
}

fn template(claim: &Value) -> Value {
    json!({"metadata": {"labels": {"app": "x"}}, "spec": {
        // As Go leaves it out.
        "hostNetwork": false,
        "containers": [{"name": "c", "image": "i", "tty": false, "env": [{"name": "E", "value": ""}]}],
        "volumes": [{"name": "v", "ephemeral": {"volumeClaimTemplate": claim}}]}})
}

#[tokio::test]
async fn an_object_without_the_newer_defaults_can_be_labelled() {
    let world = World::new().await;
    let claim =
        json!({"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
    let selector = json!({"matchLabels": {"app": "x"}});
    let pod = template(&claim)["spec"].clone();
    for (resource, api, kind, spec) in [
        (
            "statefulsets.apps",
            "apps/v1",
            "StatefulSet",
            json!({"selector": selector, "template": template(&claim)}),
        ),
        (
            "resourceclaimtemplates.resource.k8s.io",
            "resource.k8s.io/v1",
            "ResourceClaimTemplate",
            json!({"spec": {"devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "d"}}]}}}),
        ),
        ("pods", "v1", "Pod", pod),
        (
            "deployments.apps",
            "apps/v1",
            "Deployment",
            json!({"selector": selector, "template": template(&claim)}),
        ),
    ] {
        let object = json!({"apiVersion": api, "kind": kind, "spec": spec,
            "metadata": {"name": "old", "namespace": "a", "uid": "u", "generation": 7, "creationTimestamp": "2023-11-01T00:00:00Z"}});
        put(&world, resource, &object).await;
        let changed = world.merge(resource, "old", "", json!({"metadata": {"labels": {"a": "b"}}})).await;
        let changed = changed.unwrap_or_else(|status| panic!("{kind}: {}", status.message));
        if kind == "Pod" {
            // Plugins complete it on every update.
            continue;
        }
        let changed = changed.to_value().expect("JSON");
        assert_eq!(changed["metadata"]["generation"], 7, "{kind}: nothing was asked of it");
        let owned = changed["metadata"]["managedFields"].to_string();
        assert!(!owned.contains("f:spec"), "{kind}: who labels it owns no more: {owned}");
    }
}
