//! What the tests of this crate share: a store in miniature, and short forms of nodes and pods.

#![allow(dead_code, reason = "each test binary uses its own part")]

use object::{Draft, Event, Key, Snapshot, Time, body};
use plan::{Plan, Write};
use scheduler::{Scheduler, Step};
use serde_json::{Value, json};

pub const START: Time = Time::from_secs(1_795_410_000);

/// A snapshot, and a scheduler that is told of every change to it.
pub struct World {
    pub snapshot: Snapshot,
    pub scheduler: Scheduler,
    pub now: Time,
}

pub fn key(value: &Value) -> (Key, &'static schema::Kind) {
    let (group, version) =
        value["apiVersion"].as_str().expect("apiVersion").split_once('/').unwrap_or(("", "v1"));
    let kind = kinds::by_gvk(group, version, value["kind"].as_str().expect("kind")).expect("a known kind");
    let text = |field: &str| value["metadata"][field].as_str().unwrap_or_default();
    (Key::new(kind.resource, text("namespace"), text("name")), kind)
}

pub fn put(snapshot: &mut Snapshot, value: &Value) -> Event {
    let mut value = value.clone();
    let (key, kind) = key(&value);
    if value["metadata"]["uid"].is_null() {
        value["metadata"]["uid"] = format!("uid-{}", key.name).into();
    }
    let fields = kind.selectable.iter().map(|at| schema::path::text(&value, at).into()).collect();
    let revision = snapshot.revision() + 1;
    snapshot.put(Draft::read(key, fields, body::encode(&value)).expect("a draft").at(revision))
}

impl World {
    pub fn of(values: &[Value]) -> Self {
        let mut snapshot = Snapshot::default();
        for value in values {
            put(&mut snapshot, value);
        }
        let scheduler = Scheduler::new(&snapshot, 1, START);
        Self { snapshot, scheduler, now: START }
    }

    pub fn put(&mut self, value: &Value) {
        let event = put(&mut self.snapshot, value);
        self.scheduler.apply(&event, self.now);
    }

    pub fn delete(&mut self, key: &Key) {
        let revision = self.snapshot.revision() + 1;
        let event = self.snapshot.remove(key, revision).expect("it was there");
        self.scheduler.apply(&event, self.now);
    }

    pub fn get(&self, key: &Key) -> Value {
        self.snapshot.get(key).expect("it is there").to_value().expect("JSON")
    }

    pub fn next(&mut self) -> Option<Step> {
        self.scheduler.next(&self.snapshot, self.now)
    }

    /// Does what a gate would do with a plan.
    pub fn carry_out(&mut self, plan: &Plan) {
        for write in &plan.writes {
            match write {
                Write::Bind { pod, node, .. } => {
                    let mut value = self.get(pod);
                    value["spec"]["nodeName"] = (**node).into();
                    self.put(&value);
                }
                Write::Merge { key, patch, .. } => {
                    let mut value = self.get(key);
                    merge(&mut value, patch);
                    self.put(&value);
                }
                Write::Delete { key, .. } => self.delete(key),
                other => panic!("unexpected {other:?}"),
            }
        }
    }

    /// Runs until there is nothing to do; says what happened as `pod → node` or `pod: message`.
    pub fn run(&mut self) -> Vec<String> {
        let mut told = Vec::new();
        while let Some(step) = self.next() {
            self.carry_out(&step.plan);
            told.extend(step.plan.events.iter().map(|event| match event.reason {
                "Scheduled" => {
                    let node = event.message.rsplit(' ').next().unwrap_or_default();
                    format!("{} → {node}", event.about.name)
                }
                _ => format!("{}: {}", event.about.name, event.message),
            }));
        }
        told
    }
}

pub fn pod_key(name: &str) -> Key {
    Key::new(kinds::PODS, "a", name)
}

/// A node with 4 CPUs, 8 GiB and room for 10 pods, and what `more` says.
pub fn node(name: &str, more: Value) -> Value {
    let mut node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "10", "ephemeral-storage": "10Gi"}}});
    merge(&mut node, &more);
    node
}

/// A pod of namespace `a` with this spec; containers are made of `cpu` and `memory` unless they are there.
pub fn pod(name: &str, spec: Value) -> Value {
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "a", "name": name},
        "spec": {"schedulerName": "default-scheduler"}});
    merge(&mut pod["spec"], &spec);
    if pod["spec"]["containers"].is_null() {
        pod["spec"]["containers"] = json!([{"name": "c", "image": "i"}]);
    }
    pod
}

pub fn asking(name: &str, cpu: &str, spec: Value) -> Value {
    let mut pod = pod(name, spec);
    pod["spec"]["containers"] = json!([{"name": "c", "image": "i", "resources": {"requests": {"cpu": cpu}}}]);
    pod
}

pub fn labelled(mut object: Value, labels: Value) -> Value {
    merge(&mut object, &json!({"metadata": {"labels": labels}}));
    object
}

/// RFC 7396.
pub fn merge(target: &mut Value, patch: &Value) {
    let Some(patch) = patch.as_object() else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (field, value) in patch {
        if value.is_null() {
            target.as_object_mut().expect("an object").remove(field);
        } else {
            merge(&mut target[field], value);
        }
    }
}
