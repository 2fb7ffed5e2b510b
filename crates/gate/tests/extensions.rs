//! Webhooks and policies in the way of a write, and what comes before and after them.

mod common;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use common::{World, pod};
use gate::{Asking, Options, Request, Webhooks};
use object::Snapshot;
use plan::Call;
use schema::path;
use serde_json::{Value, json};
use tokio::sync::Barrier;
use tokio::task::JoinSet;

const MUTATING: &str = "mutatingwebhookconfigurations.admissionregistration.k8s.io";
const VALIDATING: &str = "validatingwebhookconfigurations.admissionregistration.k8s.io";

/// Answers by the path of the call: `/deny` refuses, `/sidecar` adds a container once, anything else admits. Writes down who was asked.
#[derive(Default)]
struct Hooks(Mutex<Vec<String>>);

impl Webhooks for Hooks {
    fn call<'a>(&'a self, _: &'a Snapshot, call: &'a Call) -> Asking<'a> {
        Box::pin(async move {
            let url = call.target.url();
            let name = url.rsplit('/').next().unwrap_or_default().to_owned();
            let request = &call.body["request"];
            let mut response = json!({"uid": request["uid"], "allowed": name != "deny"});
            let containers = path::list(&request["object"], "spec.containers");
            if name == "sidecar" && containers.len() == 1 {
                // [{"op": "add", "path": "/spec/containers/-", "value": {"name": "s", "image": "i"}}]
                response["patchType"] = "JSONPatch".into();
                response["patch"] = "W3sib3AiOiAiYWRkIiwgInBhdGgiOiAiL3NwZWMvY29udGFpbmVycy8tIiwgInZhbHVlIjogeyJuYW1lIjogInMiLCAiaW1hZ2UiOiAiaSJ9fV0=".into();
            }
            self.0.lock().expect("a lock").push(name);
            Ok(json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "response": response}))
        })
    }
}

fn hook(name: &str, reinvocation: Option<&str>) -> Value {
    let mut hook = json!({
        "name": format!("{name}.example.com"), "sideEffects": "None", "admissionReviewVersions": ["v1"],
        "clientConfig": {"url": format!("https://10.0.0.1/{name}")},
        "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}],
    });
    if let Some(policy) = reinvocation {
        hook["reinvocationPolicy"] = policy.into();
    }
    hook
}

async fn world(kind: &'static str, hooks: Value) -> (Arc<World>, Arc<Hooks>) {
    let answering = Arc::new(Hooks::default());
    let world = World::with_webhooks(answering.clone()).await;
    world.create(kind, json!({"metadata": {"name": "hooks"}, "webhooks": hooks})).await.expect("webhooks");
    (Arc::new(world), answering)
}

async fn limit(world: &World, pods: &str) {
    limit_of(world, "pods", pods).await;
}

async fn limit_of(world: &World, what: &str, hard: &str) {
    let quota = json!({"metadata": {"name": "q"}, "spec": {"hard": {what: hard}}});
    world.create("resourcequotas", quota).await.expect("a quota");
    let status = json!({"status": {"hard": {what: hard}, "used": {what: "0"}}});
    world.merge("resourcequotas", "q", "status", status).await.expect("a status");
}

fn used(world: &World) -> Value {
    used_of(world, "pods")
}

fn used_of(world: &World, what: &str) -> Value {
    world.get("resourcequotas", "q").expect("the quota")["status"]["used"][what].clone()
}

#[tokio::test]
async fn quota_is_asked_last_and_charged_for_what_is_stored() {
    let (world, hooks) = world(VALIDATING, json!([hook("deny", None)])).await;
    limit(&world, "0").await;
    let refused = world.create("pods", pod("p")).await.expect_err("refused");
    assert!(
        refused.message.starts_with("admission webhook \"deny.example.com\" denied the request"),
        "{refused}"
    );
    world.delete(VALIDATING, "hooks", gate::DeleteOptions::default()).await.expect("no webhooks");
    let refused = world.create("pods", pod("p")).await.expect_err("refused");
    assert!(refused.message.contains("exceeded quota: q"), "{refused}");
    assert_eq!((used(&world), hooks.0.lock().expect("a lock").len()), (json!("0"), 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_last_place_is_given_once() {
    let (world, _) = world(VALIDATING, json!([hook("admit", None)])).await;
    limit(&world, "3").await;
    let mut tasks = JoinSet::new();
    for index in 0..20 {
        let world = world.clone();
        // Every name is wanted twice: one of the two is there already, and costs nothing.
        tasks.spawn(async move { world.create("pods", pod(&format!("p{}", index / 2))).await });
    }
    let made = tasks.join_all().await.into_iter().filter(Result::is_ok).count();
    assert_eq!((made, used(&world)), (3, json!("3")));
}

/// Changes the pod while it is asked about its binding for the first time, so that the commit comes too late; adds an annotation.
#[derive(Default)]
struct Meddler {
    world: OnceLock<World>,
    seen: Mutex<Vec<Value>>,
}

impl Webhooks for Meddler {
    fn call<'a>(&'a self, _: &'a Snapshot, call: &'a Call) -> Asking<'a> {
        Box::pin(async move {
            let request = &call.body["request"];
            let is_first = {
                let mut seen = self.seen.lock().expect("a lock");
                seen.push(request["object"].clone());
                seen.len() == 1
            };
            if let Some(world) = self.world.get().filter(|_| is_first) {
                let label = json!({"metadata": {"labels": {"moved": "yes"}}});
                world.merge("pods", "p", "", label).await.expect("changed");
            }
            // [{"op": "add", "path": "/metadata/annotations", "value": {"a": "b"}}]
            let patch = "W3sib3AiOiAiYWRkIiwgInBhdGgiOiAiL21ldGFkYXRhL2Fubm90YXRpb25zIiwgInZhbHVlIjogeyJhIjogImIifX1d";
            let response =
                json!({"uid": request["uid"], "allowed": true, "patchType": "JSONPatch", "patch": patch});
            Ok(json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "response": response}))
        })
    }
}

#[tokio::test]
async fn a_binding_that_came_too_late_is_asked_for_as_it_was_given() {
    let meddler = Arc::new(Meddler::default());
    let world = World::with_webhooks(meddler.clone()).await;
    assert!(meddler.world.set(world.beside(meddler.clone())).is_ok());
    world.create("pods", pod("p")).await.expect("a pod");
    let mut hook = hook("bindings", None);
    hook["rules"][0]["resources"] = json!(["pods/binding"]);
    world
        .create(MUTATING, json!({"metadata": {"name": "hooks"}, "webhooks": [hook]}))
        .await
        .expect("webhooks");
    let binding = json!({"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n1"}});
    world.post("pods", "p", "binding", binding).await.expect("bound");
    let seen = meddler.seen.lock().expect("a lock").clone();
    assert_eq!(seen.len(), 2);
    assert_eq!(seen[0], seen[1]);
    let bound = world.get("pods", "p").expect("the pod");
    let (metadata, node) = (&bound["metadata"], &bound["spec"]["nodeName"]);
    assert_eq!((&metadata["annotations"]["a"], &metadata["labels"]["moved"]), (&json!("b"), &json!("yes")));
    assert_eq!(node, "n1");
}

const CROWD: usize = 100;

/// Lets pass, and `/all` only when the whole crowd is there: all have seen the same quota then. Counts how often it is asked.
struct Crowd {
    gathering: Barrier,
    gathered: AtomicUsize,
    asked: AtomicUsize,
}

impl Webhooks for Crowd {
    fn call<'a>(&'a self, _: &'a Snapshot, call: &'a Call) -> Asking<'a> {
        Box::pin(async move {
            self.asked.fetch_add(1, Ordering::Relaxed);
            // Who is asked again waits for nobody.
            if call.target.url().ends_with("/all") && self.gathered.fetch_add(1, Ordering::Relaxed) < CROWD {
                self.gathering.wait().await;
            }
            let response = json!({"uid": call.body["request"]["uid"], "allowed": true});
            Ok(json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "response": response}))
        })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nobody_is_asked_again_because_others_are_charged() {
    for (operation, resource, what) in
        [("CREATE", "pods", "pods"), ("UPDATE", "services", "services.loadbalancers")]
    {
        let (gathering, gathered, asked) = (Barrier::new(CROWD), AtomicUsize::new(0), AtomicUsize::new(0));
        let crowd = Arc::new(Crowd { gathering, gathered, asked });
        let world = World::with_webhooks(crowd.clone()).await;
        let name = |index: usize| format!("o{index}");
        for index in (0..CROWD).filter(|_| operation == "UPDATE") {
            let service = json!({"metadata": {"name": name(index)}, "spec": {"ports": [{"port": 80}]}});
            world.create("services", service).await.expect("a service");
        }
        for (kind, path) in [(MUTATING, "one"), (VALIDATING, "all")] {
            let mut hook = hook(path, None);
            hook["rules"][0]["operations"] = json!([operation]);
            hook["rules"][0]["resources"] = json!([resource]);
            let hooks = json!({"metadata": {"name": "hooks"}, "webhooks": [hook]});
            world.create(kind, hooks).await.expect("webhooks");
        }
        limit_of(&world, what, &CROWD.to_string()).await;
        // Those of two servers do not know each other.
        let servers = [Arc::new(world.beside(crowd.clone())), Arc::new(world)];
        let mut tasks = JoinSet::new();
        for index in 0..CROWD {
            let (world, name) = (servers[index % 2].clone(), name(index));
            tasks.spawn(async move {
                if operation == "CREATE" {
                    return world.create("pods", pod(&name)).await;
                }
                let balanced = json!({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false});
                world.merge("services", &name, "", json!({"spec": balanced})).await
            });
        }
        for done in tasks.join_all().await {
            done.expect("there is room for all");
        }
        let seen = (used_of(&servers[0], what), crowd.asked.load(Ordering::Relaxed));
        assert_eq!(seen, (CROWD.to_string().into(), 2 * CROWD), "{operation}");
    }
}

#[tokio::test]
async fn a_dry_run_is_held_to_the_quota_and_charged_nothing() {
    let world = World::new().await;
    limit(&world, "1").await;
    let dry = Options { dry_run: true, ..Options::default() };
    let request = Request { options: &dry, ..world.request("pods", "a", "", "") };
    for _ in 0..2 {
        world.gate.create(&request, pod("p")).await.expect("there is room");
    }
    assert_eq!(used(&world), json!("0"));
    world.create("pods", pod("p")).await.expect("there is room");
    let refused = world.gate.create(&request, pod("q")).await.expect_err("refused");
    assert!(refused.message.contains("exceeded quota: q, requested: pods=1, used: pods=1"), "{refused}");
}

#[tokio::test]
async fn what_a_webhook_adds_is_completed_as_the_rest_is() {
    let limits = json!({"metadata": {"name": "l"}, "spec": {"limits": [{"type": "Container", "default": {"cpu": "1"}}]}});
    for (later, expected) in [
        (None, vec!["early", "sidecar"]),
        (Some("Never"), vec!["early", "sidecar"]),
        (Some("IfNeeded"), vec!["early", "sidecar", "early"]),
    ] {
        let (world, hooks) = world(MUTATING, json!([hook("early", later), hook("sidecar", None)])).await;
        world.create("limitranges", limits.clone()).await.expect("limits");
        let made = world.create("pods", pod("p")).await.expect("a pod").to_value().expect("JSON");
        let limits: Vec<&Value> = path::list(&made, "spec.containers")
            .iter()
            .map(|one| &one["resources"]["limits"]["cpu"])
            .collect();
        assert_eq!(limits, ["1", "1"], "{made}");
        assert_eq!(*hooks.0.lock().expect("a lock"), expected);
    }
}

/// A policy about the first version of a resource that is written in the second.
#[tokio::test]
async fn a_policy_sees_a_built_in_kind_in_its_own_version() {
    let world = World::new().await;
    let rules = json!([{"apiGroups": ["autoscaling"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["horizontalpodautoscalers"]}]);
    let expression =
        "Object{spec: Object.spec{targetCPUUtilizationPercentage: object.spec.maxReplicas * 10}}";
    let policy = json!({"metadata": {"name": "p"}, "spec": {
        "matchConstraints": {"resourceRules": rules}, "reinvocationPolicy": "Never", "failurePolicy": "Fail",
        "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}}]}});
    world.create("mutatingadmissionpolicies.admissionregistration.k8s.io", policy).await.expect("a policy");
    let binding = json!({"metadata": {"name": "b"}, "spec": {"policyName": "p"}});
    world
        .create("mutatingadmissionpolicybindings.admissionregistration.k8s.io", binding)
        .await
        .expect("a binding");
    let scaler = json!({"metadata": {"name": "s"}, "spec": {"maxReplicas": 7,
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}}});
    let made = world.create("horizontalpodautoscalers.autoscaling", scaler).await.expect("a scaler");
    let made = made.to_value().expect("JSON");
    let metrics = json!([{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}}}]);
    assert_eq!((&made["apiVersion"], &made["spec"]["metrics"]), (&json!("autoscaling/v2"), &metrics));
}
