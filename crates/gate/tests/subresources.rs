//! What a write to a subresource takes of the body and what it leaves alone, as rows.

mod common;

use std::sync::Arc;

use common::World;
use gate::{Answer, Change, Outcome, PatchKind, Preconditions};
use object::{Event, Status};
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

/// Of `CN=jane,O=devs`.
const REQUEST: &str = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0KTUlIWk1JR0FBZ0VBTUI0eERUQUxCZ05WQkFNTUJHcGhibVV4RFRBTEJnTlZCQW9NQkdSbGRuTXdXVEFUQmdjcQpoa2pPUFFJQkJnZ3Foa2pPUFFNQkJ3TkNBQVNSUmsrbnQ5WkpQOEF4OHgyTG90VkRDUmc1SURNYTJyakRyN05aCnpKSkh5OGxYdUh1MzdBaTYwMVU2UHVKUXo0cGpYQVZYNGpHRlhicjNqNDcraE1XSW9BQXdDZ1lJS29aSXpqMEUKQXdJRFNBQXdSUUlnVVFOYWVtbjhocXRqZndMZElVVnJuekNKaGxCdjl0T3lIVzFuUDc5L01kd0NJUURuaml1MQpXditJMENteVduY0NhZnNSdXZ1aWJTckFSb1BDRXQ4K29vM05vZz09Ci0tLS0tRU5EIENFUlRJRklDQVRFIFJFUVVFU1QtLS0tLQo=";

#[tokio::test]
async fn an_approval_takes_conditions_and_metadata() {
    let world = World::new().await;
    let asked = json!({"metadata": {"name": "r"}, "spec": {
        "request": REQUEST, "signerName": "example.com/x", "usages": ["client auth"]}});
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

const BUDGETS: &str = "poddisruptionbudgets.policy";

/// A budget: its policy for pods that are not ready, disruptions that are left, pods that are and should be healthy.
type Budget = (&'static str, i64, i64, i64);

/// The pod's phase and whether it is ready, its budgets, the body; whether the pod goes, or code and words of the refusal.
type Case<'a> = (&'a str, bool, &'a [Budget], Value, Result<bool, (u16, &'a str)>);

/// A world with a pod `p` and budgets `b0`, `b1`, … that are about it.
async fn world_of(phase: &str, is_ready: bool, budgets: &[Budget]) -> World {
    let world = World::new().await;
    let pod = json!({"metadata": {"name": "p", "labels": {"app": "x"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    world.create("pods", pod).await.expect("a pod");
    let ready = if is_ready { "True" } else { "False" };
    let status = json!({"status": {"phase": phase, "conditions": [{"type": "Ready", "status": ready}]}});
    change(&world, ("pods", "p", "status"), Change::Patch(PatchKind::Merge, status)).await.expect("a status");
    for (index, (policy, allowed, healthy, desired)) in budgets.iter().enumerate() {
        let name = format!("b{index}");
        let mut spec = json!({"minAvailable": 1, "selector": {"matchLabels": {"app": "x"}}});
        if !policy.is_empty() {
            spec["unhealthyPodEvictionPolicy"] = (*policy).into();
        }
        world.create(BUDGETS, json!({"metadata": {"name": name}, "spec": spec})).await.expect("a budget");
        let status = json!({"status": {"observedGeneration": 1, "disruptionsAllowed": allowed,
            "currentHealthy": healthy, "desiredHealthy": desired, "expectedPods": 2}});
        change(&world, (BUDGETS, &name, "status"), Change::Patch(PatchKind::Merge, status))
            .await
            .expect("a status");
    }
    world
}

#[tokio::test]
async fn an_eviction_asks_the_budget() {
    const MORE: &str =
        "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
    const NO: &str = "Cannot evict pod as it would violate the pod's disruption budget.";
    let dry = json!({"deleteOptions": {"dryRun": ["All"]}});
    let cases: &[Case<'_>] = &[
        ("Running", true, &[], json!({}), Ok(true)),
        ("Running", true, &[], dry.clone(), Ok(false)),
        ("Running", true, &[("", 1, 2, 1)], json!({}), Ok(true)),
        ("Running", true, &[("", 1, 2, 1)], dry.clone(), Ok(false)),
        ("Running", true, &[("", 0, 1, 1)], json!({}), Err((429, NO))),
        ("Running", true, &[("", 0, 1, 1)], dry, Err((429, NO))),
        ("Pending", false, &[("", 0, 0, 1)], json!({}), Ok(true)),
        ("Running", false, &[("", 0, 0, 1)], json!({}), Err((429, NO))),
        ("Running", false, &[("", 0, 1, 1)], json!({}), Ok(true)),
        ("Running", false, &[("AlwaysAllow", 0, 0, 1)], json!({}), Ok(true)),
        ("Running", true, &[("", 1, 2, 1), ("", 1, 2, 1)], json!({}), Err((500, MORE))),
        (
            "Running",
            true,
            &[],
            json!({"metadata": {"name": "other"}}),
            Err((400, "name in URL does not match name in Eviction object")),
        ),
        (
            "Running",
            true,
            &[],
            json!({"deleteOptions": {"preconditions": {"uid": "x"}}}),
            Err((409, "the UID in the precondition (x) does not match")),
        ),
    ];
    for (phase, is_ready, budgets, body, wanted) in cases {
        let world = world_of(phase, *is_ready, budgets).await;
        let mut eviction = json!({"metadata": {"name": "p"}});
        schema::merge_patch(&mut eviction, body);
        let answer = world.post("pods", "p", "eviction", eviction).await;
        let about = format!("{phase} {is_ready} {budgets:?} {body}");
        match (answer, wanted) {
            (Ok(_), Ok(is_gone)) => assert_eq!(world.get("pods", "p").is_none(), *is_gone, "{about}"),
            (Err(status), Err((code, words))) => {
                assert_eq!(status.code, *code, "{about}: {}", status.message);
                assert!(status.message.contains(words), "{about}: {}", status.message);
                assert!(world.get("pods", "p").is_some(), "{about}");
            }
            (answer, _) => panic!("{about}: {answer:?}"),
        }
    }
}

/// Nothing is marked or spent for a pod that was not meant; who names the pod as it is gets it evicted, also by its revision.
#[tokio::test]
async fn an_eviction_looks_at_its_preconditions_first() {
    for (field, is_right, is_dry) in [
        ("uid", false, false),
        ("uid", false, true),
        ("uid", true, false),
        ("resourceVersion", false, false),
        ("resourceVersion", false, true),
        ("resourceVersion", true, false),
        ("resourceVersion", true, true),
    ] {
        let about = format!("{field}, right: {is_right}, dry: {is_dry}");
        let world = world_of("Running", true, &[("", 1, 2, 1)]).await;
        let before = (world.get("pods", "p").expect("a pod"), world.get(BUDGETS, "b0").expect("a budget"));
        let wanted = if is_right { before.0["metadata"][field].clone() } else { "1".into() };
        let mut eviction =
            json!({"metadata": {"name": "p"}, "deleteOptions": {"preconditions": {field: wanted}}});
        if is_dry {
            eviction["deleteOptions"]["dryRun"] = json!(["All"]);
        }
        let answer = world.post("pods", "p", "eviction", eviction).await;
        assert_eq!(
            answer.as_ref().map(|_| 201).map_err(|status| status.code),
            if is_right { Ok(201) } else { Err(409) },
            "{about}"
        );
        if is_right && !is_dry {
            assert!(world.get("pods", "p").is_none(), "{about}");
            assert_eq!(
                path::int(&world.get(BUDGETS, "b0").expect("a budget"), "status.disruptionsAllowed"),
                Some(0),
                "{about}"
            );
        } else {
            let after = (world.get("pods", "p").expect("a pod"), world.get(BUDGETS, "b0").expect("a budget"));
            assert_eq!(after, before, "{about}");
        }
    }
}

/// A crash finds an eviction done or not begun: a disruption that is spent for a pod that stays would keep others from being evicted.
#[tokio::test]
async fn a_budget_is_spent_in_the_transaction_that_gives_a_pod_its_grace() {
    let world = world_of("Running", true, &[("", 1, 2, 1)]).await;
    let binding = json!({"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n1"}});
    world.post("pods", "p", "binding", binding).await.expect("bound");
    world.post("pods", "p", "eviction", json!({"metadata": {"name": "p"}})).await.expect("evicted");
    let (pod, budget) = (world.get("pods", "p").expect("a pod"), world.get(BUDGETS, "b0").expect("a budget"));
    assert_eq!(pod["metadata"]["resourceVersion"], budget["metadata"]["resourceVersion"]);
    assert_eq!(pod["metadata"]["deletionGracePeriodSeconds"], 30);
    let told = path::list(&pod, "status.conditions").iter().find(|one| one["type"] == "DisruptionTarget");
    assert_eq!(told.map(|one| &one["reason"]), Some(&json!("EvictionByEvictionAPI")));
    assert_eq!(path::int(&budget, "status.disruptionsAllowed"), Some(0));
}

/// Who watches learns from the last state of a pod without grace that it was evicted.
#[tokio::test]
async fn what_is_evicted_without_grace_is_marked_before() {
    let world = world_of("Running", true, &[("", 1, 2, 1)]).await;
    let store = world.gate.store();
    let mut watch = store.watch(None, store.snapshot().revision()).expect("a watch");
    world.post("pods", "p", "eviction", json!({"metadata": {"name": "p"}})).await.expect("evicted");
    let mut events = Vec::new();
    while !events.iter().any(|event: &Arc<Event>| event.change == object::Change::Deleted) {
        events.extend(watch.next().await.expect("events"));
    }
    let gone = events.last().expect("an event").object.to_value().expect("JSON");
    assert_eq!(gone["status"]["conditions"][1]["type"], "DisruptionTarget");
}
