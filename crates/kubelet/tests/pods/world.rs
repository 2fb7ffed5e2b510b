//! A pod on a node that exists only in memory: ops are carried out at once, and what happens is written down.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use kubelet::{Input, NodeFacts, OsFacts, Pod, Step, admit, sync};
use object::{Key, Object, Resource, Snapshot, Time};
use plan::node::{Container, ContainerState, ContainerStatus, DnsConfig, Resources, Sandbox, SandboxState};
use plan::pod::{Claimed, DiskUse, Failure, Observed, OpKey, PodOp, ProbeKind};
use serde_json::{Value, json};

/// More steps than any pod needs to come to rest.
const STEP_LIMIT: usize = 100;

pub struct World {
    /// As the API has it.
    pub pod: Value,
    pub observed: Observed,
    pub snapshot: Snapshot,
    pub node: NodeFacts,
    pub now: Time,
    pub log: Vec<String>,
    pub is_forgotten: bool,
    pub is_gone: bool,
    pub others: Vec<Pod>,
    pub labels: BTreeMap<Box<str>, Box<str>>,
    /// By name, as the API has them.
    pub claims: BTreeMap<String, Value>,
    pub persistent_volumes: BTreeMap<String, Value>,
    /// What is found when it is measured.
    pub disk: DiskUse,
    /// What cannot be pulled.
    pub missing_images: BTreeSet<String>,
    /// Containers whose start fails before it has made anything.
    pub broken: BTreeSet<String>,
    /// Containers that do not end of a stop signal.
    pub deaf: BTreeSet<String>,
    told: BTreeSet<String>,
    last_status: String,
}

pub fn node() -> NodeFacts {
    NodeFacts {
        name: "node-1".into(),
        ips: vec!["172.31.0.10".parse().expect("an address")],
        external_ip: None,
        pod_cidr: None,
        cpu_milli: 4_000,
        memory_bytes: 8 << 30,
        disk_bytes: 100 << 30,
        max_pods: 110,
        only_pod: None,
        cluster_dns: "10.100.0.10".parse().expect("an address"),
        cluster_domain: "cluster.local".into(),
        resolver: DnsConfig { servers: vec!["9.9.9.9".into()], ..DnsConfig::default() },
        pods_dir: PathBuf::from("/pods"),
        logs_dir: PathBuf::from("/logs"),
        seccomp_dir: PathBuf::from("/seccomp"),
        labels: [("disk".to_owned(), "ssd".to_owned())].into(),
        taints: Vec::new(),
        provider_id: String::new(),
        kubelet_port: 10_250,
        version: "v1.36.0".into(),
        os: OsFacts::default(),
    }
}

impl World {
    /// A pod of this spec, bound to the node at second 1000.
    pub fn new(spec: Value) -> Self {
        let pod = json!({
            "metadata": {"name": "p", "namespace": "ns", "uid": "u", "generation": 1, "labels": {"app": "web"}},
            "spec": spec,
            "status": {"phase": "Pending"},
        });
        Self {
            pod,
            observed: Observed::default(),
            snapshot: Snapshot::default(),
            node: node(),
            now: Time::from_micros(1_000_000_000),
            log: Vec::new(),
            is_forgotten: false,
            is_gone: false,
            others: Vec::new(),
            labels: [("disk".into(), "ssd".into())].into(),
            claims: BTreeMap::new(),
            persistent_volumes: BTreeMap::new(),
            disk: DiskUse::default(),
            missing_images: BTreeSet::new(),
            broken: BTreeSet::new(),
            deaf: BTreeSet::new(),
            told: BTreeSet::new(),
            last_status: String::new(),
        }
    }

    pub fn put(&mut self, resource: &'static str, object: Value) {
        let name = object["metadata"]["name"].as_str().expect("a name").to_owned();
        let namespace = object["metadata"]["namespace"].as_str().expect("a namespace").to_owned();
        self.snapshot.put(Object {
            key: Key::new(Resource::new(resource), namespace, name),
            revision: 1,
            meta: serde_json::from_value(object["metadata"].clone()).expect("metadata"),
            fields: [].into(),
            body: object.to_string().into(),
        });
    }

    pub fn step(&mut self) -> Step {
        let pod: Pod = serde_json::from_value(self.pod.clone()).expect("a pod");
        let asked = || admit(&pod, self.others.iter(), &self.node, Some(&self.labels)).err();
        let rejection = (!self.is_gone).then(asked).flatten();
        let others: Vec<Arc<Pod>> = self.others.iter().cloned().map(Arc::new).collect();
        let step = sync(&Input {
            pod: &pod,
            is_gone: self.is_gone,
            rejection: rejection.as_ref(),
            snapshot: &self.snapshot,
            observed: &self.observed,
            node: &self.node,
            others: &others,
            now: self.now,
        });
        self.pod["status"] = without_nulls(&step.status);
        if let Some(conditions) = self.pod["status"]["conditions"].as_array_mut() {
            conditions.retain(|condition| condition["$patch"] != "delete");
        }
        for event in &step.events {
            let line = format!("event {}: {}", event.reason, event.message);
            if self.told.insert(line.clone()) {
                self.log.push(line);
            }
        }
        step
    }

    /// Does what is asked until nothing more is; the status is written down whenever it differs.
    pub fn settle(&mut self) -> Step {
        for _ in 0..STEP_LIMIT {
            let step = self.step();
            // The API tells of what was written.
            let is_new = self.write_status(&step);
            if (step.ops.is_empty() && !is_new) || self.is_forgotten {
                return step;
            }
            for op in step.ops {
                self.perform(op);
            }
        }
        panic!("the pod does not come to rest:\n{}", self.log.join("\n"));
    }

    /// Whether it was new.
    fn write_status(&mut self, step: &Step) -> bool {
        let text = summary(&step.status);
        if text != self.last_status {
            self.log.push(format!("= {text}"));
            self.last_status = text;
            return true;
        }
        false
    }

    /// Lets time pass, and the kubelet look when it wanted to.
    pub fn advance(&mut self, seconds: i64) {
        let end = self.now.plus_secs(seconds);
        for _ in 0..STEP_LIMIT {
            let step = self.settle();
            match step.wake_at.filter(|at| *at <= end && *at > self.now) {
                Some(at) => {
                    self.log.push(format!("+{}s", at.secs_since(self.now)));
                    self.now = at;
                }
                None => break,
            }
        }
        self.now = end;
        self.settle();
    }

    pub fn perform(&mut self, op: PodOp) {
        match op {
            PodOp::ReadClaims(names) => {
                self.log.push(format!("read claims {}", names.join(" ")));
                for name in names {
                    let claim = self.claims.get(&name).cloned();
                    let volume = claim.as_ref().and_then(|claim| claim["spec"]["volumeName"].as_str());
                    let volume = volume.and_then(|volume| self.persistent_volumes.get(volume).cloned());
                    let claimed = Claimed { claim, volume, error: None, read_at: self.now };
                    self.observed.claims.insert(name, claimed);
                }
            }
            PodOp::SetUpVolumes(volumes) => self.observed.volumes = Some(volumes),
            PodOp::PullImage(pull) if self.missing_images.contains(&pull.image) => {
                self.log.push(format!("pull {} fails", pull.image));
                let count =
                    self.observed.pull_failures.get(&pull.image).map_or(0, |failure| failure.count) + 1;
                let failure = Failure {
                    reason: "ErrImagePull".into(),
                    message: "not found".into(),
                    at: self.now,
                    count,
                };
                self.observed.pull_failures.insert(pull.image, failure);
            }
            PodOp::PullImage(pull) => {
                self.log.push(format!("pull {}", pull.image));
                self.observed.pull_failures.remove(&pull.image);
                self.observed.pulled.insert(pull.image.clone());
                self.observed.images.insert(pull.image, "sha256:1".into());
            }
            PodOp::RunSandbox(config) => {
                let is_up =
                    self.observed.sandboxes.iter().any(|sandbox| sandbox.state == SandboxState::Ready);
                assert!(!is_up, "a second sandbox:\n{}", self.log.join("\n"));
                self.log.push(format!("sandbox {}", config.attempt));
                let id = format!("s{}", config.attempt);
                let ips = vec!["10.244.0.5".parse().expect("an address")];
                self.observed.sandboxes.push(Sandbox {
                    id,
                    config: *config,
                    state: SandboxState::Ready,
                    ips,
                    created_at_ns: 1,
                });
            }
            PodOp::StartContainer(start) if self.broken.contains(&start.config.name) => {
                let name = start.config.name;
                self.log.push(format!("start {name} fails"));
                let count = self.observed.start_failures.get(&name).map_or(0, |failure| failure.count) + 1;
                let failure = Failure {
                    reason: "CreateContainerError".into(),
                    message: "no space".into(),
                    at: self.now,
                    count,
                };
                self.observed.start_failures.insert(name, failure);
            }
            PodOp::StartContainer(start) => self.start(*start),
            PodOp::KillContainer(kill) => {
                self.log.push(format!("kill {} grace {}: {}", kill.id, kill.grace_seconds, kill.message));
                if self.deaf.contains(&kill.name) {
                    self.observed.in_flight.insert(OpKey::Container(kill.id.clone()));
                    self.observed.stopping.insert(kill.id, self.now.plus_secs(kill.grace_seconds));
                } else {
                    self.end(&kill.id, 137);
                }
            }
            PodOp::MeasureDisk(_) => {
                self.log.push("measure".into());
                self.observed.disk = Some(DiskUse { at: self.now, ..self.disk.clone() });
            }
            PodOp::Resize(resize) => {
                let shown =
                    |of: &Resources| format!("{}m {}Mi", of.cpu_quota_us / 100, of.memory_limit_bytes >> 20);
                self.log.push(format!("resize pod to {}", shown(&resize.room)));
                for (id, resources) in resize.containers {
                    self.log.push(format!("resize {id} to {}", shown(&resources)));
                    let container = self.observed.containers.iter_mut().find(|one| one.id == id);
                    container.expect("a container").resources = resources;
                }
                self.log.push(format!("resize pod to {}", shown(&resize.pod)));
                let sandbox = self.observed.sandboxes.iter_mut().find(|one| one.id == resize.sandbox_id);
                sandbox.expect("a sandbox").config.resources = resize.pod;
            }
            PodOp::RemoveContainer { id } => {
                self.log.push(format!("remove {id}"));
                self.observed.containers.retain(|one| one.id != id);
            }
            PodOp::StopSandbox { id } => {
                self.log.push(format!("stop {id}"));
                self.lose_sandbox(&id);
            }
            PodOp::RemoveSandbox { id } => {
                self.log.push(format!("remove {id}"));
                self.observed.sandboxes.retain(|sandbox| sandbox.id != id);
                self.observed.containers.retain(|one| one.sandbox_id != id);
            }
            PodOp::Forget => {
                assert!(
                    self.observed.containers.iter().all(|one| one.status.state != ContainerState::Running)
                );
                self.log.push("forget".into());
                self.is_forgotten = true;
            }
        }
    }

    fn start(&mut self, start: plan::pod::Start) {
        let config = start.config;
        let is_running =
            |one: &Container| one.name == config.name && one.status.state == ContainerState::Running;
        assert!(
            !self.observed.containers.iter().any(is_running),
            "two of {}:\n{}",
            config.name,
            self.log.join("\n")
        );
        let sandbox = self.observed.sandboxes.iter().find(|sandbox| sandbox.id == start.sandbox_id);
        assert!(
            sandbox.is_some_and(|sandbox| sandbox.state == SandboxState::Ready),
            "{} starts nowhere",
            config.name
        );
        let beside = config.pid_target.as_ref().map(|id| format!(" beside {id}")).unwrap_or_default();
        self.log.push(format!("start {}#{}{beside}", config.name, config.attempt));
        self.observed.start_failures.remove(&config.name);
        self.observed.containers.push(Container {
            id: format!("{}#{}", config.name, config.attempt),
            sandbox_id: start.sandbox_id,
            name: config.name,
            attempt: config.attempt,
            image: config.image,
            annotations: config.annotations,
            resources: config.resources,
            status: ContainerStatus {
                state: ContainerState::Running,
                started_at_ns: self.now.as_micros() * 1_000,
                ..ContainerStatus::default()
            },
            ..Container::default()
        });
    }

    /// A running container of this name ends by itself.
    pub fn exit(&mut self, name: &str, code: i32) {
        let running = self
            .observed
            .containers
            .iter()
            .find(|one| one.name == name && one.status.state == ContainerState::Running)
            .map(|one| one.id.clone());
        self.end(&running.unwrap_or_else(|| panic!("{name} does not run:\n{}", self.log.join("\n"))), code);
        self.log.push(format!("{name} exits {code}"));
    }

    fn end(&mut self, id: &str, code: i32) {
        let now = self.now.as_micros() * 1_000;
        for one in self.observed.containers.iter_mut().filter(|one| one.id == id) {
            one.status.state = ContainerState::Exited;
            one.status.exit_code = code;
            one.status.finished_at_ns = now;
            one.status.reason = if code == 0 { "Completed".into() } else { "Error".into() };
        }
    }

    /// Lets so much time pass as a stop is patient, and the container die.
    pub fn lose_patience(&mut self, id: &str) {
        self.now = self.observed.stopping.remove(id).expect("a stop");
        self.observed.in_flight.remove(&OpKey::Container(id.to_owned()));
        self.end(id, 137);
        self.log.push(format!("{id} is killed at {}", self.now.as_micros() / 1_000_000));
        self.settle();
    }

    /// The sandbox and everything in it dies.
    pub fn lose_sandbox(&mut self, id: &str) {
        for sandbox in self.observed.sandboxes.iter_mut().filter(|sandbox| sandbox.id == id) {
            sandbox.state = SandboxState::NotReady;
        }
        let inside: Vec<String> = self
            .observed
            .containers
            .iter()
            .filter(|one| one.sandbox_id == id && one.status.state == ContainerState::Running)
            .map(|one| one.id.clone())
            .collect();
        inside.iter().for_each(|id| self.end(id, 137));
    }

    /// A probe of the newest container of this name has reached a threshold.
    pub fn probe(&mut self, name: &str, kind: ProbeKind, healthy: bool) {
        let newest =
            self.observed.containers.iter().filter(|one| one.name == name).max_by_key(|one| one.attempt);
        let id = newest.expect("a container").id.clone();
        self.observed.probes.entry((id, kind)).or_default().healthy = Some(healthy);
    }

    pub fn delete(&mut self, grace_seconds: i64) {
        self.log.push("delete".into());
        self.pod["metadata"]["deletionTimestamp"] = json!(self.now.plus_secs(grace_seconds));
        self.pod["metadata"]["deletionGracePeriodSeconds"] = json!(grace_seconds);
    }

    /// The kubelet's process is another one: what it alone knew is lost.
    pub fn restart_kubelet(&mut self) {
        let images = std::mem::take(&mut self.observed.images);
        self.observed = Observed {
            sandboxes: std::mem::take(&mut self.observed.sandboxes),
            containers: std::mem::take(&mut self.observed.containers),
            images,
            ..Observed::default()
        };
    }
}

/// What a patch leaves: a null clears its field.
fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(members) => members
            .iter()
            .filter(|(_, member)| !member.is_null())
            .map(|(name, member)| (name.clone(), without_nulls(member)))
            .collect(),
        Value::Array(items) => items.iter().map(without_nulls).collect(),
        other => other.clone(),
    }
}

/// `Running Ready | c running ready restarts=1`
pub fn summary(status: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut line = text(&status["phase"]);
    if let Some(reason) = status["reason"].as_str() {
        line.push_str(&format!(" ({reason})"));
    }
    for condition in status["conditions"].as_array().into_iter().flatten() {
        if condition["type"] == "Ready" && condition["status"] == "True" {
            line.push_str(" Ready");
        }
    }
    for list in ["initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses"] {
        for one in status[list].as_array().into_iter().flatten() {
            line.push_str(&format!(" | {} {}", text(&one["name"]), state(&one["state"])));
            if one["ready"] == true {
                line.push_str(" ready");
            }
            if one["restartCount"] != 0 {
                line.push_str(&format!(" restarts={}", one["restartCount"]));
            }
        }
    }
    line
}

fn state(state: &Value) -> String {
    let waiting = &state["waiting"];
    if let Some(reason) = waiting["reason"].as_str() {
        return match waiting["message"].as_str() {
            Some(message) => format!("{reason} \"{message}\""),
            None => reason.to_owned(),
        };
    }
    match state["terminated"]["exitCode"].as_i64() {
        Some(code) => format!("ended {code}"),
        None => "running".into(),
    }
}
