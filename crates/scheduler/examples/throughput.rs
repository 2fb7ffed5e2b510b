//! How many pods a second the scheduler places: `cargo run --release -p scheduler --example throughput [NODES] [PODS] [apart]`.
//!
//! Pods of ten ReplicaSets with a Service each, on nodes in three zones; every step's binding comes back as an event, so
//! that the fold is measured too. `apart`: every pod prefers not to share a node with its like.

use std::time::Instant;

use object::{Draft, Event, Key, Snapshot, Time, body};
use plan::Write;
use scheduler::Scheduler;
use serde_json::{Value, json};

fn put(snapshot: &mut Snapshot, key: Key, node: &str, value: &Value) -> Event {
    let revision = snapshot.revision() + 1;
    let draft = Draft::read(key, [node.into()].into(), body::encode(value)).expect("an object's JSON");
    snapshot.put(draft.at(revision))
}

fn pod(at: usize, node: &str, is_apart: bool) -> (Key, Value) {
    let (app, name) = (format!("app{}", at % 10), format!("pod-{at}"));
    let mut value = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": "load", "name": name, "uid": name, "labels": {"app": app, "pod-template-hash": "5f7d9c"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": app, "uid": app, "controller": true}]},
        "spec": {"nodeName": node, "schedulerName": "default-scheduler", "priority": 0,
            "tolerations": [{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}],
            "containers": [{"name": "c", "image": "registry.example.com/app:1", "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}}}]}});
    if is_apart {
        let term =
            json!({"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": app}}});
        value["spec"]["affinity"] = json!({"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
            {"weight": 100, "podAffinityTerm": term}]}});
    }
    (Key::new(kinds::PODS, "load", name), value)
}

fn main() {
    let number = |at: usize, default: usize| {
        std::env::args().nth(at).and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let (nodes, pods) = (number(1, 5_000), number(2, 10_000));
    let is_apart = std::env::args().nth(3).is_some_and(|text| text == "apart");
    let mut snapshot = Snapshot::default();
    for at in 0..nodes {
        let name = format!("node-{at:05}");
        let value = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {
            "kubernetes.io/hostname": name, "topology.kubernetes.io/zone": format!("zone-{}", at % 3)}},
            "status": {"allocatable": {"cpu": "4", "memory": "16Gi", "pods": "110"}}});
        put(&mut snapshot, Key::cluster(kinds::NODES, name), "", &value);
    }
    for at in 0..10 {
        let name = format!("app{at}");
        let selector = json!({"app": name});
        let service =
            json!({"metadata": {"name": name, "namespace": "load"}, "spec": {"selector": selector}});
        put(&mut snapshot, Key::new(kinds::SERVICES, "load", name.as_str()), "", &service);
        let set = json!({"metadata": {"name": name, "namespace": "load"}, "spec": {"selector": {"matchLabels": selector}}});
        put(&mut snapshot, Key::new(kinds::REPLICA_SETS, "load", name.as_str()), "", &set);
    }
    let now = Time::from_secs(1_795_410_000);
    let mut scheduler = Scheduler::new(&snapshot, 1, now);
    let events: Vec<Event> = (0..pods)
        .map(|at| {
            let (key, value) = pod(at, "", is_apart);
            put(&mut snapshot, key, "", &value)
        })
        .collect();
    let start = Instant::now();
    events.iter().for_each(|event| scheduler.apply(event, now));
    let queued = start.elapsed();
    let mut placed = 0;
    while let Some(step) = scheduler.next(&snapshot, now) {
        if let [Write::Bind { pod: key, node, .. }] = &step.plan.writes[..] {
            let at = key.name.trim_start_matches("pod-").parse().unwrap_or(0);
            let (key, value) = pod(at, node, is_apart);
            let event = put(&mut snapshot, key, node, &value);
            scheduler.apply(&event, now);
            placed += 1;
        }
    }
    let took = start.elapsed();
    println!(
        "{nodes} nodes, {placed} of {pods} pods placed in {took:?} (queued in {queued:?}): {:.0} pods/s",
        placed as f64 / took.as_secs_f64()
    );
}
