//! What a write to a subresource takes of the body and what it leaves alone, as rows.

mod common;

use common::World;
use gate::{Answer, Change, Outcome, PatchKind, Preconditions};
use object::Status;
use schema::path;
use serde_json::{Value, json};

const DEPLOYMENTS: &str = "deployments.apps";
const REQUESTS: &str = "certificatesigningrequests.certificates.k8s.io";

fn body(outcome: Outcome) -> Value {
    match outcome.answer {
        Answer::Made(value) => value,
        Answer::Object(object) | Answer::Removed(object) => object.to_value().expect("JSON"),
    }
}

async fn change(world: &World, at: (&'static str, &str, &str), change: Change) -> Result<Value, Status> {
    let (resource, name, subresource) = at;
    let request = world.request(resource, "a", name, subresource);
    world.gate.update(&request, &change, &Preconditions::default()).await.map(body)
}

fn deployment() -> Value {
    json!({"metadata": {"name": "d"}, "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "x"}},
        "template": {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}})
}

fn scale(replicas: Value) -> Value {
    json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "d"}, "spec": {"replicas": replicas}})
}

#[tokio::test]
async fn a_scale_is_read_by_its_type() {
    let world = World::new().await;
    world.create(DEPLOYMENTS, deployment()).await.expect("a deployment");
    let at = (DEPLOYMENTS, "d", "scale");
    for (given, wanted) in [
        (Change::Replace(scale(json!(3))), Ok(json!({"replicas": 3}))),
        (Change::Replace(scale(json!(0))), Ok(json!({}))),
        (
            Change::Replace(scale(json!("two"))),
            Err("cannot unmarshal string into Go struct field ScaleSpec.spec.replicas of type int32"),
        ),
        (
            Change::Replace(scale(json!(-1))),
            Err("spec.replicas: Invalid value: -1: must be greater than or equal to 0"),
        ),
        (Change::Patch(PatchKind::Merge, json!({"spec": {"replicas": 4}})), Ok(json!({"replicas": 4}))),
        (
            Change::Patch(PatchKind::Merge, json!({"spec": {"replicas": "two"}})),
            Err("ScaleSpec.spec.replicas of type int32"),
        ),
    ] {
        let seen = change(&world, at, given).await;
        match wanted {
            Ok(spec) => assert_eq!(seen.expect("scaled")["spec"], spec),
            Err(why) => {
                let refused = seen.expect_err(why);
                assert!(refused.message.contains(why), "{}", refused.message);
            }
        }
    }
    let stored = world.get(DEPLOYMENTS, "d").expect("a deployment");
    assert_eq!(path::int(&stored, "spec.replicas"), Some(4), "what was refused changed nothing");
}

#[tokio::test]
async fn an_approval_takes_conditions_and_metadata() {
    let world = World::new().await;
    let asked = json!({"metadata": {"name": "r"}, "spec": {
        "request": "YQ==", "signerName": "example.com/x", "usages": ["client auth"]}});
    world.create(REQUESTS, asked).await.expect("a request");
    let approved = json!({
        "metadata": {"annotations": {"by": "hand"}},
        "spec": {"signerName": "example.com/other"},
        "status": {"certificate": "YQ==", "conditions": [{"type": "Approved", "status": "True", "reason": "r", "message": "m"}]},
    });
    let seen = change(&world, (REQUESTS, "r", "approval"), Change::Patch(PatchKind::Merge, approved)).await;
    let seen = seen.expect("approved");
    assert_eq!(seen["metadata"]["annotations"], json!({"by": "hand"}));
    assert_eq!(
        (&seen["spec"]["signerName"], seen["status"].get("certificate")),
        (&json!("example.com/x"), None)
    );
    let condition = &seen["status"]["conditions"][0];
    assert_eq!(condition["lastUpdateTime"], condition["lastTransitionTime"]);
    let since = condition["lastTransitionTime"].clone();
    world.now.fetch_add(60, std::sync::atomic::Ordering::Relaxed);
    let again =
        json!({"status": {"conditions": [{"type": "Approved", "status": "True", "reason": "again"}]}});
    let seen = change(&world, (REQUESTS, "r", "approval"), Change::Patch(PatchKind::Merge, again)).await;
    let condition = &seen.expect("approved again")["status"]["conditions"][0];
    assert_eq!(condition["lastTransitionTime"], since, "it holds since then");
    assert_ne!(condition["lastUpdateTime"], since, "and was written now");
}
