//! One pod, one step: what should be done now, what its status is, and when to look again.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use object::{Snapshot, Time};
use plan::node::{Container as Known, ContainerState, Sandbox, SandboxState};
use plan::pod::{Failure, Kill, Observed, OpKey, PodOp, Probe, Pull};
use serde_json::Value;

use crate::admit::Rejection;
use crate::claims;
use crate::config::{self, BACKOFF_SECONDS};
use crate::env::Facts;
use crate::eviction;
use crate::lifecycle::handler;
use crate::node_status::NodeFacts;
use crate::pod::{Container, ImageSource, Pod, Volume};
use crate::probes;
use crate::resize::{self, Pending};
use crate::restart;
use crate::status::{self, End, Waiting};
use crate::volumes;

/// The first wait before a container or an image is tried again; it doubles up to the longest.
const FIRST_BACKOFF_SECONDS: i64 = 10;
const LONGEST_BACKOFF_SECONDS: i64 = 300;
/// Between two looks at a claim that is not bound yet.
const CLAIM_RETRY_SECONDS: i64 = 2;
/// Between two tries to give a pod the resources that it asks for.
const RESIZE_RETRY_SECONDS: i64 = 5;
/// A container that ran this long starts without a wait, as if it had never failed.
const FORGIVEN_AFTER_SECONDS: i64 = 600;

/// All that a decision about one pod depends on.
#[derive(Clone, Copy)]
pub struct Input<'a> {
    pub pod: &'a Pod,
    /// The object is gone from the API (deleted by force): clean up without telling anyone.
    pub is_gone: bool,
    /// The node has refused the pod.
    pub rejection: Option<&'a Rejection>,
    /// ConfigMaps, Secrets and Services as this node knows them.
    pub snapshot: &'a Snapshot,
    pub observed: &'a Observed,
    pub node: &'a NodeFacts,
    /// The pods that the node has admitted beside it; needed only when a resize is wanted.
    pub others: &'a [Arc<Pod>],
    pub now: Time,
}

/// What is to be done now, and what is so.
#[derive(Debug, Default)]
pub struct Step {
    pub ops: Vec<PodOp>,
    /// The probes that should be running; all others end.
    pub probes: Vec<Probe>,
    /// The pod's status as it is now.
    pub status: Value,
    pub events: Vec<Event>,
    pub wake_at: Option<Time>,
}

/// Something to tell about the pod that no op tells by itself. The doer tells each only when it is new.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub warning: bool,
    pub reason: &'static str,
    pub message: String,
    /// The container that it is about, or empty.
    pub container: String,
}

/// Decides one step of one pod: from what it should be and what is there to what to do now.
pub fn sync(input: &Input) -> Step {
    let pending = resize::pending(input.pod, input.others, input.node);
    let given = pending.is_some().then(|| resize::as_given(input.pod));
    let input = &Input { pod: given.as_ref().unwrap_or(input.pod), ..*input };
    let ips = pod_ips(input);
    let facts = Facts {
        pod: input.pod,
        node: input.node,
        pod_ips: &ips,
        snapshot: input.snapshot,
        claims: &input.observed.claims,
    };
    let mut step = Steps {
        input,
        facts,
        step: Step::default(),
        waiting: BTreeMap::new(),
        end: None,
        pending,
        evicted: None,
    };
    step.decide();
    step.finish()
}

/// The newest container of a name.
pub fn newest<'a>(observed: &'a Observed, name: &str) -> Option<&'a Known> {
    observed.containers.iter().filter(|one| one.name == name).max_by_key(|one| one.attempt)
}

fn newest_sandbox(observed: &Observed) -> Option<&Sandbox> {
    observed.sandboxes.iter().max_by_key(|sandbox| sandbox.config.attempt)
}

/// Whether containers can start in it. It is up before it is connected; what started then would not know its pod's address.
fn is_ready(sandbox: &Sandbox) -> bool {
    sandbox.state == SandboxState::Ready && !sandbox.ips.is_empty()
}

fn pod_ips(input: &Input) -> Vec<String> {
    if input.pod.spec.host_network {
        return input.node.ips.iter().map(ToString::to_string).collect();
    }
    let ready = newest_sandbox(input.observed).filter(|sandbox| is_ready(sandbox));
    ready.map(|sandbox| sandbox.ips.iter().map(ToString::to_string).collect()).unwrap_or_default()
}

struct Steps<'a> {
    input: &'a Input<'a>,
    facts: Facts<'a>,
    step: Step,
    waiting: BTreeMap<String, Waiting>,
    end: Option<End>,
    /// A change of resources that there is no room for.
    pending: Option<Pending>,
    /// Why the pod is evicted.
    evicted: Option<String>,
}

impl<'a> Steps<'a> {
    fn decide(&mut self) {
        let Input { pod, is_gone, .. } = *self.input;
        if is_gone || pod.is_deleting() {
            self.end = Some(End::Deleted);
            self.terminate(true);
        } else if pod.is_terminal() {
            self.end = Some(End::AsStored);
            self.terminate(false);
        } else if let Some(Rejection { reason, message }) = self.input.rejection {
            self.end = Some(End::Rejected);
            self.tell(true, reason, message.clone(), "");
        } else if self.is_past_deadline() {
            self.end = Some(End::DeadlineExceeded);
            self.terminate(false);
        } else if let Some(message) = self.exceeds_disk() {
            self.end = Some(End::Evicted);
            self.tell(true, "Evicted", message.clone(), "");
            self.evicted = Some(message);
            self.terminate(false);
        } else if status::has_finished(pod, &restart::as_told(self.input, &self.waiting)) {
            self.end = Some(End::Finished);
            self.terminate(false);
        } else {
            self.run();
        }
    }

    fn finish(mut self) -> Step {
        let pod_ip = self.facts.pod_ips.first().map_or("", String::as_str);
        let told = match self.end {
            None => restart::as_told(self.input, &self.waiting),
            Some(_) => Cow::Borrowed(self.input.observed),
        };
        // Of one that is being replaced too: where it is asked, it stops being ready by that.
        self.step.probes = probes::wanted(self.input.pod, &told, pod_ip);
        let why = status::Why {
            waiting: &self.waiting,
            end: self.end,
            pending: self.pending.as_ref(),
            evicted: self.evicted.as_deref(),
        };
        let input = Input { observed: &told, ..*self.input };
        self.step.status = status::pod_status(&input, self.facts.pod_ips, &why);
        self.step
    }

    fn is_past_deadline(&mut self) -> bool {
        let Pod { spec, status, .. } = self.input.pod;
        let (Some(seconds), Some(start)) = (spec.active_deadline_seconds, status.start_time) else {
            return false;
        };
        let end = start.plus_secs(seconds);
        if end > self.input.now {
            self.wake(end);
        }
        end <= self.input.now
    }

    /// Why the pod must go for its use of the disk. Has it measured if something limits it.
    fn exceeds_disk(&mut self) -> Option<String> {
        let Input { pod, observed, now, .. } = *self.input;
        let wanted = eviction::wanted(pod)?;
        if let Some(message) = observed.disk.as_ref().and_then(|disk| eviction::exceeded(pod, disk)) {
            return Some(message);
        }
        let is_running = observed.containers.iter().any(|one| one.status.state == ContainerState::Running);
        match observed.disk.as_ref().map(|disk| disk.at.plus_secs(eviction::PERIOD_SECONDS)) {
            Some(at) if at > now => self.wake(at),
            _ if is_running => self.ask(PodOp::MeasureDisk(wanted)),
            _ => {}
        }
        None
    }

    fn wake(&mut self, at: Time) {
        self.step.wake_at = Some(self.step.wake_at.map_or(at, |known| known.min(at)));
    }

    /// Asks for an op unless one of its kind is under way, or asked for.
    fn ask(&mut self, op: PodOp) {
        let key = op.key();
        if !self.input.observed.in_flight.contains(&key)
            && self.step.ops.iter().all(|asked| asked.key() != key)
        {
            self.step.ops.push(op);
        }
    }

    fn wait(&mut self, container: &Container, reason: &str, message: impl Into<String>) {
        let waiting = Waiting { reason: reason.to_owned(), message: message.into() };
        self.waiting.insert(container.name.clone(), waiting);
    }

    fn tell(&mut self, warning: bool, reason: &'static str, message: String, container: &str) {
        self.step.events.push(Event { warning, reason, message, container: container.to_owned() });
    }

    /// Containers first, sidecars after them in reverse order, then the sandbox; and if the pod is to go, everything.
    fn terminate(&mut self, remove: bool) {
        let Input { pod, observed, .. } = *self.input;
        let running = |name: &str| {
            observed
                .containers
                .iter()
                .filter(|one| one.name == name && one.status.state == ContainerState::Running)
                .collect::<Vec<_>>()
        };
        let spec = &pod.spec;
        let mut groups: Vec<Vec<&Container>> = vec![spec.containers.iter().collect()];
        groups[0].extend(spec.init_containers.iter().filter(|one| !one.is_sidecar()));
        groups[0].extend(&spec.ephemeral_containers);
        groups.extend(spec.init_containers.iter().rev().filter(|one| one.is_sidecar()).map(|one| vec![one]));
        for group in groups {
            let alive: Vec<_> = group
                .iter()
                .flat_map(|container| running(&container.name).into_iter().map(move |one| (*container, one)))
                .collect();
            if !alive.is_empty() {
                for (container, known) in alive {
                    let message = format!("Stopping container {}", container.name);
                    self.kill(container, known, message, self.grace_seconds(container));
                }
                return;
            }
        }
        let starting = observed.in_flight.iter().any(|key| matches!(key, OpKey::Start(_) | OpKey::Sandbox));
        if starting {
            return;
        }
        for sandbox in &observed.sandboxes {
            if sandbox.state == SandboxState::Ready {
                return self.ask(PodOp::StopSandbox { id: sandbox.id.clone() });
            }
        }
        if !remove {
            return;
        }
        match observed.sandboxes.first() {
            // How its containers ended stands nowhere else yet.
            Some(_) if !self.input.is_gone && !status::is_recorded(pod, observed) => {}
            Some(sandbox) => self.ask(PodOp::RemoveSandbox { id: sandbox.id.clone() }),
            None => self.ask(PodOp::Forget),
        }
    }

    /// The grace of a container whose pod ends. Never zero, as upstream's pod worker has it; a sidecar, which waits for its turn, has
    /// what the others left.
    fn grace_seconds(&self, container: &Container) -> i64 {
        let Input { pod, now, .. } = *self.input;
        if self.evicted.is_some() {
            return eviction::GRACE_SECONDS;
        }
        let grace = pod.grace_seconds();
        let left = pod.metadata.deletion_timestamp.filter(|_| container.is_sidecar());
        left.map_or(grace, |end| end.secs_since(now).min(grace)).max(1)
    }

    /// Has a container stopped. One that is being stopped already gets no more than this.
    fn kill(&mut self, container: &Container, known: &Known, message: String, grace_seconds: i64) {
        let pod_ip = self.facts.pod_ips.first().map_or("", String::as_str);
        let pre_stop =
            container.lifecycle.pre_stop.as_ref().and_then(|spec| handler(spec, container, pod_ip));
        let (id, name) = (known.id.clone(), known.name.clone());
        let until = self.input.now.plus_secs(grace_seconds);
        let has_longer = self.input.observed.stopping.get(&id).is_some_and(|end| until < *end);
        let op = PodOp::KillContainer(Kill { id, name, message, grace_seconds, pre_stop });
        if has_longer {
            return self.step.ops.push(op);
        }
        self.ask(op);
    }

    fn run(&mut self) {
        let has_volumes = self.set_up_volumes();
        let sandbox = newest_sandbox(self.input.observed);
        let ready = sandbox.filter(|sandbox| is_ready(sandbox));
        let wanted = self.wanted_starts(ready);
        match ready {
            Some(sandbox) => {
                self.sweep(sandbox);
                self.resize(sandbox);
                if has_volumes {
                    for (container, attempt, backoff) in wanted {
                        self.start(container, sandbox, attempt, backoff);
                    }
                }
            }
            None if wanted.is_empty() => {}
            None => self.make_sandbox(sandbox, has_volumes),
        }
    }

    /// Brings the limits of what runs to what they should be.
    fn resize(&mut self, sandbox: &Sandbox) {
        let Input { pod, observed, node, now, .. } = *self.input;
        if self.pending.is_some() {
            self.wake(now.plus_secs(RESIZE_RETRY_SECONDS));
        }
        let Some(op) = resize::op(pod, sandbox, observed, node) else { return };
        match retry_at(observed.resize_failure.as_ref(), RESIZE_RETRY_SECONDS, LONGEST_BACKOFF_SECONDS) {
            Some(at) if at > now => self.wake(at),
            _ => self.ask(PodOp::Resize(op)),
        }
    }

    fn set_up_volumes(&mut self) -> bool {
        let observed = self.input.observed;
        let was_set_up = observed.volumes.is_some();
        if !self.knows_claims() {
            return was_set_up;
        }
        match volumes::volumes(&self.facts) {
            Err(message) => {
                self.tell(true, "FailedMount", message, "");
                was_set_up
            }
            Ok(volumes) if observed.volumes.as_ref() == Some(&volumes) => true,
            Ok(volumes) => {
                match retry_at(observed.volume_failure.as_ref(), 1, 120) {
                    Some(at) if at > self.input.now => self.wake(at),
                    _ => self.ask(PodOp::SetUpVolumes(volumes)),
                }
                was_set_up
            }
        }
    }

    /// Whether every claim has been read; one that cannot be mounted is read again after a while.
    fn knows_claims(&mut self) -> bool {
        let observed = self.input.observed;
        let names = claims::names(self.input.pod);
        if names.iter().any(|name| !observed.claims.contains_key(name)) {
            self.ask(PodOp::ReadClaims(names));
            return false;
        }
        let unusable = self.input.pod.spec.volumes.iter().filter_map(|volume| {
            let name = claims::claim_name(self.input.pod, volume)?;
            claims::bound(&self.facts, volume, &name).is_err().then(|| observed.claims.get(&name))?
        });
        if let Some(at) = unusable.map(|claimed| claimed.read_at.plus_secs(CLAIM_RETRY_SECONDS)).min() {
            if at > self.input.now {
                self.wake(at);
            } else {
                self.ask(PodOp::ReadClaims(names));
            }
        }
        true
    }

    fn make_sandbox(&mut self, old: Option<&Sandbox>, has_volumes: bool) {
        if !has_volumes {
            return;
        }
        if let Some(at) = retry_at(self.input.observed.sandbox_failure.as_ref(), 1, 60)
            && at > self.input.now
        {
            return self.wake(at);
        }
        if let Some(old) = old.filter(|old| old.state == SandboxState::Ready) {
            // It is being connected; or the agent ended in the middle, and nobody does any more.
            return self.ask(PodOp::StopSandbox { id: old.id.clone() });
        }
        if old.is_some() && !self.input.observed.in_flight.contains(&OpKey::Sandbox) {
            let message = "Pod sandbox changed, it will be killed and re-created.".to_owned();
            self.tell(false, "SandboxChanged", message, "");
        }
        let attempt = old.map_or(0, |old| old.config.attempt + 1);
        self.ask(PodOp::RunSandbox(Box::new(config::sandbox(&self.facts, attempt))));
    }

    /// Containers that should be started, each with its attempt and the back-off that its next failure waits; also kills those that must
    /// not go on as they are.
    fn wanted_starts(&mut self, sandbox: Option<&Sandbox>) -> Vec<(&'a Container, u32, i64)> {
        let spec = &self.input.pod.spec;
        let mut starts = Vec::new();
        if sandbox.is_some() {
            // Even before the pod is initialized, and each only once.
            let fresh = spec.ephemeral_containers.iter().filter(|one| {
                newest(self.input.observed, &one.name)
                    .is_none_or(|known| known.status.state == ContainerState::Created)
            });
            for container in fresh {
                starts.extend(self.restart_or_first(container, newest(self.input.observed, &container.name)));
            }
        }
        for container in &spec.init_containers {
            let here = self.in_sandbox(container, sandbox);
            match here {
                Some(known) if known.status.state == ContainerState::Running => {
                    self.check_health(container, known);
                    if !container.is_sidecar()
                        || !probes::has_started(self.input.pod, container, known, self.input.observed)
                    {
                        return starts;
                    }
                }
                Some(known) if known.status.state == ContainerState::Exited && !container.is_sidecar() => {
                    if known.status.exit_code == 0 {
                        continue;
                    }
                    if spec.restart_policy != "Never" {
                        starts.extend(self.restart(container, known));
                    }
                    return starts;
                }
                other => {
                    starts.extend(self.restart_or_first(container, other));
                    return starts;
                }
            }
        }
        for container in &spec.containers {
            match self.in_sandbox(container, sandbox) {
                Some(known) if known.status.state == ContainerState::Running => {
                    self.check_health(container, known)
                }
                Some(known) if known.status.state == ContainerState::Exited => {
                    let again = match container.restart_policy.as_deref().unwrap_or(&spec.restart_policy) {
                        "Never" => false,
                        "OnFailure" => known.status.exit_code != 0,
                        _ => true,
                    };
                    if again || restart::is_replaced(self.input, container, known) {
                        starts.extend(self.restart(container, known));
                    }
                }
                other => starts.extend(self.restart_or_first(container, other)),
            }
        }
        starts
    }

    /// The newest container of this name, if it belongs to the sandbox that counts. A new sandbox starts over; without one, the last
    /// one's containers still say what has ended for good.
    fn in_sandbox(&self, container: &Container, sandbox: Option<&Sandbox>) -> Option<&'a Known> {
        let known = newest(self.input.observed, &container.name)?;
        let is_init = self.input.pod.spec.init_containers.iter().any(|init| init.name == container.name);
        match sandbox {
            Some(sandbox) if known.sandbox_id == sandbox.id => Some(known),
            // A container that ended for good does not run again in a new sandbox; an init container does.
            _ if !is_init && known.status.state == ContainerState::Exited => Some(known),
            _ => None,
        }
    }

    fn restart_or_first(
        &mut self,
        container: &'a Container,
        known: Option<&Known>,
    ) -> Option<(&'a Container, u32, i64)> {
        match known {
            Some(known) if known.status.state == ContainerState::Exited => self.restart(container, known),
            Some(_) if self.input.observed.in_flight.contains(&OpKey::Start(container.name.clone())) => None,
            // Created but never started: the node process died in between.
            Some(known) => {
                self.ask(PodOp::RemoveContainer { id: known.id.clone() });
                None
            }
            None => {
                let attempt = newest(self.input.observed, &container.name).map_or(0, |old| old.attempt + 1);
                Some((container, attempt, 0))
            }
        }
    }

    fn restart(&mut self, container: &'a Container, known: &Known) -> Option<(&'a Container, u32, i64)> {
        let finished = Time::from_micros(known.status.finished_at_ns / 1_000);
        let started = Time::from_micros(known.status.started_at_ns / 1_000);
        let ran_long =
            known.status.started_at_ns > 0 && finished.secs_since(started) >= FORGIVEN_AFTER_SECONDS;
        let held =
            known.annotations.get(BACKOFF_SECONDS).and_then(|text| text.parse::<i64>().ok()).unwrap_or(0);
        // Another definition starts over.
        let wait = if ran_long || restart::has_changed(container, known) { 0 } else { held };
        let at = finished.plus_secs(wait);
        if at > self.input.now {
            self.wake(at);
            let pod = self.input.pod.full_name();
            let message = format!(
                "back-off {} restarting failed container={} pod={pod}",
                go_duration(wait),
                container.name
            );
            self.wait(container, "CrashLoopBackOff", message);
            let told = format!("Back-off restarting failed container {} in pod {pod}", container.name);
            self.tell(true, "BackOff", told, &container.name);
            return None;
        }
        let next = if wait == 0 { FIRST_BACKOFF_SECONDS } else { (wait * 2).min(LONGEST_BACKOFF_SECONDS) };
        Some((container, known.attempt + 1, next))
    }

    /// Ends a container that must be started anew.
    fn check_health(&mut self, container: &Container, known: &Known) {
        let pod = self.input.pod;
        let Some(reason) = restart::reason(self.input, container, known) else { return };
        let own = match reason {
            restart::Reason::Unhealthy(kind) => {
                probes::spec(container, kind).and_then(|probe| probe.termination_grace_period_seconds)
            }
            _ => None,
        };
        let message = restart::message(pod, container, reason);
        self.kill(container, known, message, own.unwrap_or_else(|| pod.grace_seconds()));
    }

    fn start(&mut self, container: &'a Container, sandbox: &Sandbox, attempt: u32, backoff: i64) {
        let has_image = self.has_image(container, &container.image, &container.image_pull_policy);
        // Asked for all at once.
        let volumes = self.mounted_images(container);
        let has_volumes =
            volumes.iter().filter(|image| !self.has_image(container, &image.reference, &image.pull_policy));
        if has_volumes.count() > 0 || !has_image {
            return;
        }
        let failure = self.input.observed.start_failures.get(&container.name);
        if let Some(Failure { reason, message, .. }) = failure {
            self.wait(container, reason, message.clone());
        }
        if let Some(at) = retry_at(failure, FIRST_BACKOFF_SECONDS, LONGEST_BACKOFF_SECONDS)
            && at > self.input.now
        {
            return self.wake(at);
        }
        let pid_target = match self.pid_target(container) {
            Ok(id) => id,
            Err(message) => {
                self.tell(true, "Failed", format!("Error: {message}"), &container.name);
                return self.wait(container, "CreateContainerConfigError", message);
            }
        };
        match config::start(&self.facts, container, &sandbox.id, attempt, backoff) {
            Ok(mut start) => {
                start.config.pid_target = pid_target;
                if !self.input.observed.pulled.contains(&container.image) {
                    let image = &container.image;
                    let message = format!(
                        "Container image \"{image}\" already present on machine and can be accessed by the pod"
                    );
                    self.tell(false, "Pulled", message, &container.name);
                }
                self.ask(PodOp::StartContainer(Box::new(start)));
            }
            Err((reason, message)) => {
                self.tell(true, "Failed", format!("Error: {message}"), &container.name);
                self.wait(container, reason, message);
            }
        }
    }

    /// The id of the container whose processes an ephemeral container asked to see.
    fn pid_target(&self, container: &Container) -> Result<Option<String>, String> {
        let target = &container.target_container_name;
        if target.is_empty() {
            return Ok(None);
        }
        match newest(self.input.observed, target) {
            Some(known) if known.status.state == ContainerState::Running => Ok(Some(known.id.clone())),
            _ => Err(format!("unable to find target container \"{target}\"")),
        }
    }

    /// The images that a container mounts as volumes.
    fn mounted_images(&self, container: &Container) -> Vec<&'a ImageSource> {
        let is_mounted =
            |volume: &Volume| container.volume_mounts.iter().any(|mount| mount.name == volume.name);
        let volumes = self.input.pod.spec.volumes.iter().filter(|volume| is_mounted(volume));
        volumes.filter_map(|volume| volume.image.as_ref()).collect()
    }

    /// Whether an image that the container needs is here and may be used; asks for it otherwise.
    fn has_image(&mut self, container: &Container, image: &str, policy: &str) -> bool {
        let observed = self.input.observed;
        let is_here = observed.images.contains_key(image);
        let always = match policy {
            "Always" => true,
            "Never" if !is_here => {
                let message = format!("Container image \"{image}\" is not present with pull policy of Never");
                self.tell(true, "ErrImageNeverPull", message.clone(), &container.name);
                self.wait(container, "ErrImageNeverPull", message);
                return false;
            }
            _ => false,
        };
        if is_here && (!always || observed.pulled.contains(image)) {
            return true;
        }
        let failure = observed.pull_failures.get(image);
        if let Some(Failure { reason, message, .. }) =
            failure.filter(|failure| failure.reason == "InvalidImageName")
        {
            self.wait(container, reason, message.clone());
            return false;
        }
        if let Some(at) = retry_at(failure, FIRST_BACKOFF_SECONDS, LONGEST_BACKOFF_SECONDS)
            && let Some(Failure { reason, message, .. }) = failure
            && at > self.input.now
        {
            self.wake(at);
            let told = format!("Back-off pulling image \"{image}\"");
            self.wait(container, "ImagePullBackOff", format!("{told}: {reason}: {message}"));
            self.tell(false, "BackOff", told, &container.name);
            self.tell(true, "Failed", "Error: ImagePullBackOff".into(), &container.name);
            return false;
        }
        if let Some(Failure { reason, message, .. }) = failure {
            self.wait(container, reason, message.clone());
        }
        let credentials = config::pull_credentials(&self.facts);
        let (image, container) = (image.to_owned(), container.name.clone());
        self.ask(PodOp::PullImage(Pull { image, container, always, credentials }));
        false
    }

    /// Removes what is no longer needed: containers before the last one of a name, and sandboxes that hold none of the newest.
    fn sweep(&mut self, current: &Sandbox) {
        let observed = self.input.observed;
        for old in &observed.sandboxes {
            let holds_newest = observed.containers.iter().any(|one| {
                one.sandbox_id == old.id && newest(observed, &one.name).is_some_and(|last| last.id == one.id)
            });
            if old.id != current.id && !holds_newest {
                self.ask(PodOp::RemoveSandbox { id: old.id.clone() });
            }
        }
        for one in &observed.containers {
            let last = newest(observed, &one.name).map_or(0, |last| last.attempt);
            if one.attempt + 1 < last && one.status.state == ContainerState::Exited {
                self.ask(PodOp::RemoveContainer { id: one.id.clone() });
            }
        }
    }
}

/// When to try again after a failure; None if there was none.
fn retry_at(failure: Option<&Failure>, first_seconds: i64, longest_seconds: i64) -> Option<Time> {
    let failure = failure?;
    let doublings = failure.count.saturating_sub(1).min(16);
    Some(failure.at.plus_secs((first_seconds << doublings).min(longest_seconds)))
}

/// Seconds as Go prints a duration: `10s`, `2m40s`, `5m0s`.
pub fn go_duration(seconds: i64) -> String {
    if seconds < 60 { format!("{seconds}s") } else { format!("{}m{}s", seconds / 60, seconds % 60) }
}
