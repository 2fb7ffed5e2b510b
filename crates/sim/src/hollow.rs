//! Kubelets without containers: a pod bound to a node runs after a while, ends if it was told to, and goes when it is deleted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kinds::{LEASES, NODES, PODS};
use object::{Change, Event, Key, Object, Snapshot, Time};
use plan::{Expect, User, Write};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::random::Random;

/// Annotation of pods that end by themselves: so many seconds after they started.
pub const RUNS_FOR: &str = "sim.ekso.dev/runs-for-seconds";
/// Annotation: the exit code they end with; 0 without it.
pub const EXIT_CODE: &str = "sim.ekso.dev/exit-code";
/// Annotation of pods that never get ready.
pub const NEVER_READY: &str = "sim.ekso.dev/never-ready";
const HEARTBEAT_SECS: i64 = 10;

/// What a kubelet is going to do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Deed {
    Heartbeat,
    Start(Key, Box<str>),
    End(Key, Box<str>),
    Remove(Key, Box<str>),
}

#[derive(Default)]
pub struct Kubelets {
    dead: BTreeSet<String>,
    /// (when, node, what)
    timers: BTreeSet<(Time, String, Deed)>,
    addresses: BTreeMap<String, u32>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct View {
    metadata: Metadata,
    spec: Spec,
    status: Status,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Metadata {
    annotations: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    node_name: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    phase: String,
    conditions: Vec<Value>,
    start_time: Option<Value>,
}

impl Kubelets {
    pub fn register(&mut self, node: &str, now: Time) {
        self.dead.remove(node);
        self.timers.insert((now, node.to_owned(), Deed::Heartbeat));
    }

    pub fn is_alive(&self, node: &str) -> bool {
        !self.dead.contains(node)
    }

    /// The node falls silent: nothing it was going to do happens.
    pub fn lose(&mut self, node: &str) {
        self.dead.insert(node.to_owned());
        self.timers.retain(|(_, held, _)| held != node);
    }

    /// The node's kubelet starts (again) and looks at all its pods.
    pub fn restart(&mut self, node: &str, snapshot: &Snapshot, random: &mut Random, now: Time) {
        self.lose(node);
        self.register(node, now);
        let pods: Vec<Arc<Object>> = snapshot.list_by_field(PODS, node).cloned().collect();
        for pod in pods {
            self.look(&pod, random, now);
        }
    }

    pub fn see(&mut self, event: &Event, random: &mut Random, now: Time) {
        if event.key().resource == PODS && event.change != Change::Deleted {
            self.look(&event.object, random, now);
        }
    }

    fn look(&mut self, pod: &Object, random: &mut Random, now: Time) {
        let view: View = pod.decode().unwrap_or_default();
        let node = view.spec.node_name.clone();
        if node.is_empty() || self.dead.contains(&node) {
            return;
        }
        let uid = pod.meta.uid.clone();
        let millis = i64::try_from(random.below(4_000)).unwrap_or(0) + 200;
        let is_over = matches!(view.status.phase.as_str(), "Succeeded" | "Failed");
        let is_planned = |kubelets: &Self, deed: &Deed| {
            kubelets.timers.iter().any(|(_, held, planned)| *held == node && planned == deed)
        };
        let key = pod.key.clone();
        let (at, deed) = if pod.meta.is_deleting() {
            (now.plus_millis(millis), Deed::Remove(key, uid))
        } else if is_over {
            return;
        } else if view.status.start_time.is_none() || !is_ready(&view) {
            (now.plus_millis(millis), Deed::Start(key, uid))
        } else if let Some(seconds) =
            view.metadata.annotations.get(RUNS_FOR).and_then(|text| text.parse().ok())
        {
            (now.plus_secs(seconds), Deed::End(key, uid))
        } else {
            return;
        };
        let is_hopeless =
            view.metadata.annotations.contains_key(NEVER_READY) && view.status.start_time.is_some();
        if is_planned(self, &deed) || matches!(deed, Deed::Start(..)) && is_hopeless {
            return;
        }
        self.timers.insert((at, node.clone(), deed));
    }

    pub fn next_timer(&self) -> Option<Time> {
        self.timers.first().map(|(at, _, _)| *at)
    }

    /// What is due, one at a time, with the writes that it means and who makes them.
    pub fn act(&mut self, snapshot: &Snapshot, now: Time) -> Option<(User, Deed, Vec<Write>)> {
        let (_, node, deed) = self.timers.first().filter(|(at, _, _)| *at <= now).cloned()?;
        self.timers.pop_first();
        let user = User::new(format!("system:node:{node}"), &["system:nodes", "system:authenticated"]);
        let writes = match &deed {
            Deed::Heartbeat => {
                self.timers.insert((now.plus_secs(HEARTBEAT_SECS), node.clone(), Deed::Heartbeat));
                heartbeat(snapshot, &node, now)
            }
            Deed::Start(key, uid) => self.start(snapshot, key, uid, now),
            Deed::End(key, uid) => end(snapshot, key, uid, now),
            Deed::Remove(key, uid) => remove(snapshot, key, uid, now),
        };
        Some((user, deed, writes))
    }

    /// A kubelet lost its answer: it does the same again soon.
    pub fn again(&mut self, user: &User, deed: Deed, now: Time) {
        let node = user.name.strip_prefix("system:node:").unwrap_or_default();
        if deed != Deed::Heartbeat && !self.dead.contains(node) {
            self.timers.insert((now.plus_secs(1), node.to_owned(), deed));
        }
    }

    fn start(&mut self, snapshot: &Snapshot, key: &Key, uid: &str, now: Time) -> Vec<Write> {
        let Some(pod) = same(snapshot, key, uid).filter(|pod| !pod.meta.is_deleting()) else {
            return Vec::new();
        };
        let view: View = pod.decode().unwrap_or_default();
        let last = self.addresses.entry(view.spec.node_name.clone()).or_default();
        *last += 1;
        let node: u32 = view
            .spec
            .node_name
            .bytes()
            .filter(u8::is_ascii_digit)
            .fold(0, |all, digit| all * 10 + u32::from(digit - b'0'));
        let ip = format!("10.244.{}.{}", node % 250, *last % 250 + 1);
        let ready = if view.metadata.annotations.contains_key(NEVER_READY) { "False" } else { "True" };
        let mut conditions = view.status.conditions;
        conditions.retain(|held| {
            !matches!(held["type"].as_str(), Some("Ready" | "ContainersReady" | "Initialized"))
        });
        for (kind, status) in [("Initialized", "True"), ("ContainersReady", ready), ("Ready", ready)] {
            conditions.push(json!({"type": kind, "status": status, "lastTransitionTime": now}));
        }
        let status = json!({
            "phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}], "startTime": now, "conditions": conditions,
        });
        vec![patch_status(pod, status)]
    }
}

fn is_ready(view: &View) -> bool {
    view.status.conditions.iter().any(|held| held["type"] == "Ready" && held["status"] == "True")
}

fn same<'a>(snapshot: &'a Snapshot, key: &Key, uid: &str) -> Option<&'a Arc<Object>> {
    snapshot.get(key).filter(|pod| *pod.meta.uid == *uid)
}

fn patch_status(object: &Object, status: Value) -> Write {
    Write::Merge {
        key: object.key.clone(),
        expect: Expect::same(object),
        subresource: "status",
        patch: json!({"status": status}),
    }
}

fn heartbeat(snapshot: &Snapshot, node: &str, now: Time) -> Vec<Write> {
    let mut writes = Vec::new();
    let Some(object) = snapshot.find(NODES, "", node) else { return writes };
    let spec = json!({"holderIdentity": node, "leaseDurationSeconds": 40, "renewTime": now.micro()});
    match snapshot.find(LEASES, "kube-node-lease", node) {
        Some(lease) => writes.push(Write::Merge {
            key: lease.key.clone(),
            expect: Expect::same(lease),
            subresource: "",
            patch: json!({"spec": spec}),
        }),
        None => writes.push(Write::Create {
            resource: LEASES,
            object: json!({
                "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                "metadata": {"namespace": "kube-node-lease", "name": node}, "spec": spec,
            }),
        }),
    }
    let view: View = object.decode().unwrap_or_default();
    if !is_ready(&view) {
        let ready = json!({
            "type": "Ready", "status": "True", "reason": "KubeletReady", "message": "kubelet is posting ready status",
            "lastHeartbeatTime": now, "lastTransitionTime": now,
        });
        let amounts = json!({"cpu": "8", "memory": "16Gi", "pods": "110"});
        writes.push(patch_status(
            object,
            json!({"conditions": [ready], "capacity": amounts, "allocatable": amounts}),
        ));
    }
    writes
}

fn end(snapshot: &Snapshot, key: &Key, uid: &str, now: Time) -> Vec<Write> {
    let Some(pod) = same(snapshot, key, uid) else { return Vec::new() };
    let view: View = pod.decode().unwrap_or_default();
    if matches!(view.status.phase.as_str(), "Succeeded" | "Failed") {
        return Vec::new();
    }
    let code: i64 = view.metadata.annotations.get(EXIT_CODE).and_then(|text| text.parse().ok()).unwrap_or(0);
    vec![patch_status(pod, ended(&view, code, now))]
}

fn ended(view: &View, code: i64, now: Time) -> Value {
    let mut conditions = view.status.conditions.clone();
    for held in conditions
        .iter_mut()
        .filter(|held| matches!(held["type"].as_str(), Some("Ready" | "ContainersReady")))
    {
        held["status"] = "False".into();
        held["lastTransitionTime"] = json!(now);
    }
    let terminated = json!({"exitCode": code, "finishedAt": now, "startedAt": now, "reason": if code == 0 { "Completed" } else { "Error" }});
    json!({
        "phase": if code == 0 { "Succeeded" } else { "Failed" },
        "conditions": conditions,
        "containerStatuses": [{
            "name": "c", "image": "c", "imageID": "c", "ready": false, "restartCount": 0,
            "state": {"terminated": terminated},
        }],
    })
}

/// The containers have stopped; the pod object goes when nothing else holds it.
fn remove(snapshot: &Snapshot, key: &Key, uid: &str, now: Time) -> Vec<Write> {
    let Some(pod) = same(snapshot, key, uid) else { return Vec::new() };
    let view: View = pod.decode().unwrap_or_default();
    let mut writes = Vec::new();
    if !matches!(view.status.phase.as_str(), "Succeeded" | "Failed") {
        writes.push(patch_status(pod, ended(&view, 137, now)));
    }
    if pod.meta.deletion_grace_period_seconds != Some(0) {
        writes.push(Write::Delete {
            key: key.clone(),
            expect: Expect::same(pod),
            grace_seconds: Some(0),
            propagation: None,
        });
    }
    writes
}
