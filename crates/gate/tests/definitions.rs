//! The catalog follows the definitions in the store, and writes of custom resources go by their rows.

mod common;

use std::sync::Arc;

use common::{World, stored};
use gate::{Catalog, Change, DeleteOptions, PatchKind, Preconditions, Request};
use object::{Object, Reason, Resource, Status};
use schema::Kind;
use serde_json::{Value, json};

const DEFINITIONS: &str = "customresourcedefinitions.apiextensions.k8s.io";
const NAME: &str = "things.example.com";

fn definition() -> Value {
    let schema = json!({"type": "object", "properties": {
        "spec": {"type": "object", "properties": {"n": {"type": "integer", "default": 1}, "s": {"type": "string"}}},
        "status": {"type": "object", "properties": {"n": {"type": "integer"}}},
    }});
    json!({
        "metadata": {"name": NAME},
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": {"plural": "things", "kind": "Thing"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema},
                "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.n", "statusReplicasPath": ".status.n"}}}],
        },
    })
}

fn served(catalog: &Catalog) -> Option<&Arc<Kind>> {
    catalog.served("example.com", "v1", "things")
}

async fn establish(world: &World) {
    let status = json!({"status": {
        "acceptedNames": {"plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList"},
        "conditions": [{"type": "Established", "status": "True"}],
    }});
    world.merge(DEFINITIONS, NAME, "status", status).await.expect("established");
}

async fn established() -> World {
    let world = World::new().await;
    world.create(DEFINITIONS, definition()).await.expect("a definition");
    establish(&world).await;
    world
}

async fn create(world: &World, name: &str, spec: Value) -> Result<Arc<Object>, Status> {
    let kind = world.gate.catalog().by_resource(Resource::intern(NAME)).cloned().expect("served");
    let request = Request { kind: &kind, ..world.request("pods", "a", "", "") };
    stored(world.gate.create(&request, json!({"metadata": {"name": name}, "spec": spec})).await?)
}

async fn patch(
    world: &World,
    name: &str,
    subresource: &str,
    kind: PatchKind,
    body: Value,
) -> Result<Value, Status> {
    let row = world.gate.catalog().by_resource(Resource::intern(NAME)).cloned().expect("served");
    let request = Request { kind: &row, ..world.request("pods", "a", name, subresource) };
    let change = Change::Patch(kind, body);
    let outcome = world.gate.update(&request, &change, &Preconditions::default()).await?;
    Ok(match outcome.answer {
        gate::Answer::Made(value) => value,
        gate::Answer::Object(object) | gate::Answer::Removed(object) => object.to_value().expect("JSON"),
    })
}

#[tokio::test]
async fn the_catalog_follows_the_definitions() {
    let world = World::new().await;
    let before = world.gate.catalog();
    world.create(DEFINITIONS, definition()).await.expect("a definition");
    assert!(served(&world.gate.catalog()).is_none(), "its names are not accepted yet");
    assert!(Arc::ptr_eq(&before, &world.gate.catalog()), "nothing changed for anybody");
    establish(&world).await;
    let first = world.gate.catalog();
    let row = served(&first).expect("served").clone();
    assert!(first.serves(&row) && first.has_version("example.com", "v1"));
    let note = json!({"metadata": {"annotations": {"a": "b"}}});
    world.merge(DEFINITIONS, NAME, "", note).await.expect("annotated");
    assert!(world.gate.catalog().serves(&row), "the row stays while the definition says the same");
    let changed = json!({"spec": {"names": {"plural": "things", "kind": "Thing", "shortNames": ["th"]}}});
    world.merge(DEFINITIONS, NAME, "", changed).await.expect("changed");
    let second = world.gate.catalog();
    assert!(!second.serves(&row) && served(&second).is_some(), "a changed definition is another row");
    assert!(second.served("", "v1", "pods").is_some_and(|pods| first.serves(pods)), "the others stay");
    assert!(
        served(&second).is_some_and(|row| row.short_names.is_empty()),
        "the short name is not accepted yet"
    );
    let accepted = json!({"status": {"acceptedNames": {"shortNames": ["th"]}}});
    world.merge(DEFINITIONS, NAME, "status", accepted).await.expect("accepted");
    let third = world.gate.catalog();
    assert!(served(&third).is_some_and(|row| row.short_names == ["th"]), "names may be accepted later");
    world.delete(DEFINITIONS, NAME, DeleteOptions::default()).await.expect("marked");
    world.merge(DEFINITIONS, NAME, "", json!({"metadata": {"finalizers": null}})).await.expect("gone");
    assert!(served(&world.gate.catalog()).is_none());
}

#[tokio::test]
async fn a_custom_resource_is_written_as_any() {
    let world = established().await;
    let made = create(&world, "t", json!({"s": "x", "nonsense": 1})).await.expect("a thing");
    let value = made.to_value().expect("JSON");
    assert_eq!((&value["spec"], &value["metadata"]["generation"]), (&json!({"n": 1, "s": "x"}), &json!(1)));
    assert_eq!((&value["apiVersion"], &value["kind"]), (&json!("example.com/v1"), &json!("Thing")));
    let refused = create(&world, "u", json!({"s": 1})).await.expect_err("of the wrong type");
    assert!(
        refused.message.starts_with("Thing.example.com \"u\" is invalid: spec.s: Invalid value: \"integer\"")
    );
    let changed =
        patch(&world, "t", "", PatchKind::Merge, json!({"spec": {"n": 2}, "status": {"n": 9}})).await;
    let changed = changed.expect("changed");
    assert_eq!((&changed["metadata"]["generation"], changed.get("status")), (&json!(2), None));
    let told = json!({"status": {"n": 2}, "metadata": {"labels": {"a": "b"}}});
    let told = patch(&world, "t", "status", PatchKind::Merge, told).await.expect("told");
    assert_eq!((&told["status"], told["metadata"].get("labels")), (&json!({"n": 2}), None));
    assert_eq!(told["metadata"]["generation"], 2, "a status counts for nothing");
    let scale = patch(&world, "t", "scale", PatchKind::Merge, json!({"spec": {"replicas": 5}})).await;
    let scale = scale.expect("scaled");
    assert_eq!(
        (&scale["kind"], &scale["spec"], &scale["status"]["replicas"]),
        (&json!("Scale"), &json!({"replicas": 5}), &json!(2))
    );
    let config =
        json!({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "t"}, "spec": {"z": 1}});
    let refused = patch(&world, "t", "", PatchKind::Apply, config).await.expect_err("an unknown field");
    assert!(refused.message.ends_with(": .spec.z: field not declared in schema"), "{}", refused.message);
}

#[tokio::test]
async fn a_definition_goes_after_its_objects() {
    let world = established().await;
    create(&world, "t", json!({})).await.expect("a thing");
    world.delete(DEFINITIONS, NAME, DeleteOptions::default()).await.expect("marked");
    let marked = world.get(DEFINITIONS, NAME).expect("it waits");
    assert_eq!(marked["metadata"]["finalizers"], json!(["customresourcecleanup.apiextensions.k8s.io"]));
    let terminating =
        marked["status"]["conditions"].as_array().and_then(|all| all.last()).expect("a condition");
    assert_eq!(
        (&terminating["type"], &terminating["reason"]),
        (&json!("Terminating"), &json!("InstanceDeletionPending"))
    );
    let refused = create(&world, "u", json!({})).await.expect_err("too late");
    assert_eq!(refused.reason, Reason::Forbidden);
    assert!(world.gate.catalog().by_resource(Resource::intern(NAME)).is_some(), "what is there is served");
}

/// A policy, as a webhook, may write what the schema does not know, as long as others look at the object after it.
#[tokio::test]
async fn what_a_policy_adds_beside_the_schema_is_dropped() {
    let world = established().await;
    let rules = json!([{"apiGroups": ["example.com"], "apiVersions": ["v1"], "resources": ["things"], "operations": ["CREATE"]}]);
    let patch = r#"[JSONPatch{op: "add", path: "/spec/s", value: "known"}, JSONPatch{op: "add", path: "/spec/z", value: "unknown"}]"#;
    let policy = json!({"metadata": {"name": "p"}, "spec": {
        "matchConstraints": {"resourceRules": rules}, "reinvocationPolicy": "Never", "failurePolicy": "Fail",
        "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": patch}}],
    }});
    world.create("mutatingadmissionpolicies.admissionregistration.k8s.io", policy).await.expect("a policy");
    let binding = json!({"metadata": {"name": "p"}, "spec": {"policyName": "p"}});
    world
        .create("mutatingadmissionpolicybindings.admissionregistration.k8s.io", binding)
        .await
        .expect("bound");
    let made = create(&world, "t", json!({})).await.expect("a thing").to_value().expect("JSON");
    assert_eq!(made["spec"], json!({"n": 1, "s": "known"}));
}
