//! The status of a pod, as the API shows it.

use std::collections::BTreeMap;

use object::Time;
use plan::node::{Container as Known, ContainerState, SandboxState};
use plan::pod::Observed;
use serde_json::{Map, Value, json};

use crate::config::{TERMINATION_POLICY, text_or_null};
use crate::pod::{Condition, Container, Pod, Requirements, VolumeMount};
use crate::probes;
use crate::resize::{self, Pending};
use crate::resources::qos_class;
use crate::sync::{Input, newest};

/// Why a container does not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    pub reason: String,
    pub message: String,
}

/// Why a pod does not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Deleted,
    /// The stored status is terminal already: it stays as it is.
    AsStored,
    DeadlineExceeded,
    /// It uses more of the node than it may.
    Evicted,
    /// The node has refused it.
    Rejected,
    /// All that should run to an end has.
    Finished,
}

/// What was decided about a pod that nothing else shows.
pub struct Why<'a> {
    /// Containers that do not run, by name.
    pub waiting: &'a BTreeMap<String, Waiting>,
    pub end: Option<End>,
    /// A change of resources that there is no room for.
    pub pending: Option<&'a Pending>,
    pub evicted: Option<&'a str>,
}

pub fn pod_status(input: &Input, ips: &[String], why: &Why) -> Value {
    let Input { pod, observed, .. } = input;
    let Why { waiting, end, pending, evicted } = *why;
    let spec = &pod.spec;
    let init_done = init_is_done(pod, observed);
    let default = if spec.init_containers.is_empty() { "ContainerCreating" } else { "PodInitializing" };
    let statuses = |containers: &[Container]| -> Vec<Value> {
        containers
            .iter()
            // Of a pod that never ran here there is nothing to say.
            .filter(|one| {
                !(pod.is_terminal() || end == Some(End::Rejected))
                    || newest(observed, &one.name).is_some()
                    || pod.status.of_container(&one.name).is_some()
            })
            .map(|one| container_status(input, one, waiting.get(&one.name), default))
            .collect()
    };
    let phase = phase(pod, observed, waiting, end);
    let terminal = matches!(phase, "Succeeded" | "Failed");
    let (reason, message) = match end {
        Some(End::DeadlineExceeded) if terminal => {
            ("DeadlineExceeded", "Pod was active on the node longer than the specified deadline")
        }
        Some(End::Evicted) if terminal => ("Evicted", evicted.unwrap_or_default()),
        Some(End::Rejected) => {
            input.rejection.map_or(("", ""), |rejection| (rejection.reason, rejection.message.as_str()))
        }
        _ => (pod.status.reason.as_str(), pod.status.message.as_str()),
    };
    // A pod that has ended still says which address it had.
    let last_ips: Vec<&str> = match ips {
        [] => pod.status.pod_ips.iter().map(|one| one.ip.as_str()).collect(),
        _ => ips.iter().map(String::as_str).collect(),
    };
    let host_ips: Vec<Value> = input.node.ips.iter().map(|ip| json!({"ip": ip})).collect();
    json!({
        "observedGeneration": pod.metadata.generation,
        "phase": phase,
        "reason": text_or_null(reason),
        "message": text_or_null(message),
        "conditions": conditions(input, init_done, phase, terminal, pending),
        "hostIP": input.node.ips.first(),
        "hostIPs": host_ips,
        "podIP": last_ips.first(),
        "podIPs": none_if_empty(last_ips.iter().map(|ip| json!({"ip": ip})).collect()),
        "startTime": pod.status.start_time.unwrap_or(input.now),
        "qosClass": qos_class(pod).name(),
        "initContainerStatuses": none_if_empty(statuses(&spec.init_containers)),
        "containerStatuses": none_if_empty(statuses(&spec.containers)),
        "ephemeralContainerStatuses": none_if_empty(statuses(&spec.ephemeral_containers)),
    })
}

/// Whether the pod has ended by itself, even if sidecars still run.
pub fn has_finished(pod: &Pod, observed: &Observed) -> bool {
    let phase = phase_of_containers(pod, observed, &BTreeMap::new(), None);
    matches!(phase, "Succeeded" | "Failed")
}

/// Whether the stored status tells how everything of the pod ended, so that the rest can be cleaned up.
pub fn is_recorded(pod: &Pod, observed: &Observed) -> bool {
    let is_told = |container: &Container| {
        newest(observed, &container.name).is_none_or(|known| {
            let id = probes::id(known);
            let stored = pod.status.of_container(&container.name);
            known.status.state == ContainerState::Created
                || stored.is_some_and(|stored| stored["state"]["terminated"]["containerID"] == id.as_str())
        })
    };
    pod.is_terminal() && pod.spec.all_containers().all(is_told)
}

/// The strategic merge patch of a pod's status subresource.
pub fn status_patch(uid: &str, status: &Value) -> Value {
    json!({"metadata": {"uid": uid}, "status": status})
}

/// Whether the API's pod is not ready though we wrote that it is: a node that was taken for lost finds its pods so. Other conditions
/// differ for a moment whenever an earlier write of ours comes back after a later one, and nobody else writes them.
pub fn is_overwritten(posted: &Value, pod: &Pod) -> bool {
    let mut written = posted["conditions"].as_array().into_iter().flatten();
    let is_ready = written.any(|one| one["type"] == "Ready" && one["status"] == "True");
    is_ready && pod.status.conditions.iter().any(|held| &*held.r#type == "Ready" && &*held.status != "True")
}

fn none_if_empty(list: Vec<Value>) -> Value {
    if list.is_empty() { Value::Null } else { list.into() }
}

fn init_is_done(pod: &Pod, observed: &Observed) -> bool {
    let done = |container: &Container| {
        newest(observed, &container.name).is_some_and(|known| match known.status.state {
            ContainerState::Exited => !container.is_sidecar() && known.status.exit_code == 0,
            ContainerState::Running => {
                container.is_sidecar() && probes::has_started(pod, container, known, observed)
            }
            ContainerState::Created => false,
        })
    };
    let any_main = pod.spec.containers.iter().any(|one| newest(observed, &one.name).is_some());
    // Once a main container was there, all init containers have done their part.
    any_main || pod.spec.init_containers.iter().all(done)
}

/// A pod that is over is told only when nothing of it runs any more: others may take over what it used.
fn phase(
    pod: &Pod,
    observed: &Observed,
    waiting: &BTreeMap<String, Waiting>,
    end: Option<End>,
) -> &'static str {
    let stored = match pod.status.phase.as_str() {
        "Succeeded" => return "Succeeded",
        "Failed" => return "Failed",
        "Running" => "Running",
        _ => "Pending",
    };
    let phase = match end {
        Some(End::DeadlineExceeded | End::Evicted | End::Rejected) => "Failed",
        _ => phase_of_containers(pod, observed, waiting, end),
    };
    let alive = observed.containers.iter().any(|one| one.status.state == ContainerState::Running);
    if alive && matches!(phase, "Succeeded" | "Failed") { stored } else { phase }
}

fn phase_of_containers(
    pod: &Pod,
    observed: &Observed,
    waiting: &BTreeMap<String, Waiting>,
    end: Option<End>,
) -> &'static str {
    let spec = &pod.spec;
    let alive = observed.containers.iter().any(|one| one.status.state == ContainerState::Running);
    // A pod that is deleted ends by what its containers said, whatever its restart policy.
    let policy = if end.is_some() && !alive { "Never" } else { spec.restart_policy.as_str() };
    if !init_is_done(pod, observed) {
        let failed = spec.init_containers.iter().filter(|one| !one.is_sidecar()).any(|one| {
            newest(observed, &one.name).is_some_and(|known| {
                known.status.state == ContainerState::Exited && known.status.exit_code != 0
            })
        });
        return if (failed && policy == "Never") || (end.is_some() && !alive) { "Failed" } else { "Pending" };
    }
    let (mut running, mut unstarted, mut stopped, mut succeeded) = (0, 0, 0, 0);
    for container in &spec.containers {
        match newest(observed, &container.name).map(|known| &known.status) {
            Some(status) if status.state == ContainerState::Running => running += 1,
            Some(status) if status.state == ContainerState::Exited => {
                stopped += 1;
                succeeded += usize::from(status.exit_code == 0 && !waiting.contains_key(&container.name));
            }
            _ => unstarted += 1,
        }
    }
    match () {
        () if end.is_some() && running == 0 && unstarted > 0 => "Failed",
        () if unstarted > 0 && running == 0 && stopped == 0 => "Pending",
        () if unstarted > 0 && end.is_none() => "Pending",
        () if running > 0 => "Running",
        () if policy == "Always" => "Running",
        () if stopped == succeeded => "Succeeded",
        () if policy == "Never" => "Failed",
        () => "Running",
    }
}

fn conditions(
    input: &Input,
    init_done: bool,
    phase: &str,
    terminal: bool,
    pending: Option<&Pending>,
) -> Vec<Value> {
    let Input { pod, observed, .. } = input;
    let spec = &pod.spec;
    let unready: Vec<&str> = spec
        .containers
        .iter()
        .chain(spec.init_containers.iter().filter(|one| one.is_sidecar()))
        .filter(|one| {
            !newest(observed, &one.name).is_some_and(|known| probes::is_ready(pod, one, known, observed))
        })
        .map(|one| one.name.as_str())
        .collect();
    let incomplete: Vec<&str> = spec
        .init_containers
        .iter()
        .filter(|one| {
            !newest(observed, &one.name).is_some_and(|known| match known.status.state {
                ContainerState::Exited => known.status.exit_code == 0,
                ContainerState::Running => one.is_sidecar() && probes::has_started(pod, one, known, observed),
                ContainerState::Created => false,
            })
        })
        .map(|one| one.name.as_str())
        .collect();
    let has_sandbox = observed.sandboxes.iter().any(|sandbox| {
        sandbox.state == SandboxState::Ready && (spec.host_network || !sandbox.ips.is_empty())
    });
    let ended = if phase == "Succeeded" { "PodCompleted" } else { "PodFailed" };
    let initialized = match () {
        () if phase == "Succeeded" => (true, "PodCompleted", String::new()),
        () if init_done => (true, "", String::new()),
        () => {
            let list = incomplete.join(" ");
            (false, "ContainersNotInitialized", format!("containers with incomplete status: [{list}]"))
        }
    };
    let containers_ready = match () {
        () if terminal => (false, ended, String::new()),
        () if unready.is_empty() => (true, "", String::new()),
        () => {
            (false, "ContainersNotReady", format!("containers with unready status: [{}]", unready.join(" ")))
        }
    };
    let gates = readiness_gates(pod);
    let ready = match &gates {
        Some(message) if containers_ready.0 => (false, "ReadinessGatesNotReady", message.clone()),
        _ => containers_ready.clone(),
    };
    [
        ("PodReadyToStartContainers", (has_sandbox, "", String::new())),
        ("Initialized", initialized),
        ("Ready", ready),
        ("ContainersReady", containers_ready),
    ]
    .into_iter()
    .map(|(name, (holds, reason, message))| condition(input, name, holds, reason, &message))
    .chain(pod.status.conditions.iter().filter(|known| known.r#type == "PodScheduled").map(keep))
    .chain(resize_conditions(input, pending))
    .collect()
}

/// How far a change of resources is (KEP-1287). Neither condition is there without one.
fn resize_conditions(input: &Input, pending: Option<&Pending>) -> Vec<Value> {
    let Input { pod, observed, node, .. } = input;
    let is_under_way = pod.spec.all_containers().any(|container| {
        newest(observed, &container.name).is_some_and(|known| {
            known.status.state == ContainerState::Running && !resize::is_done(pod, container, known, node)
        })
    });
    let failure = observed.resize_failure.as_ref();
    let reached = failure.map_or(("", ""), |failure| ("Error", failure.message.as_str()));
    let progress = is_under_way.then_some(reached);
    let pending = pending.map(|pending| (pending.reason, pending.message.as_str()));
    let rows = [("PodResizePending", pending), ("PodResizeInProgress", progress)];
    rows.into_iter()
        .filter_map(|(name, holds)| match holds {
            Some((reason, message)) => Some(condition(input, name, true, reason, message)),
            None => resize::has_condition(pod, name).then(|| resize::without_condition(name)),
        })
        .collect()
}

/// What keeps the pod's readiness gates from being open, if anything does.
fn readiness_gates(pod: &Pod) -> Option<String> {
    let messages: Vec<String> = pod
        .spec
        .readiness_gates
        .iter()
        .filter_map(|gate| {
            let name = &gate.condition_type;
            match pod.status.conditions.iter().find(|condition| condition.r#type == *name) {
                None => {
                    Some(format!("corresponding condition of pod readiness gate \"{name}\" does not exist."))
                }
                Some(condition) if condition.status != "True" => Some(format!(
                    "the status of pod readiness gate \"{name}\" is not \"True\", but {}",
                    condition.status
                )),
                Some(_) => None,
            }
        })
        .collect();
    (!messages.is_empty()).then(|| messages.join(", "))
}

fn condition(input: &Input, name: &str, holds: bool, reason: &str, message: &str) -> Value {
    let status = if holds { "True" } else { "False" };
    let known = input.pod.status.conditions.iter().find(|known| known.r#type == name);
    let since = known.filter(|known| known.status == status).and_then(|known| known.last_transition_time);
    json!({
        "type": name, "status": status, "reason": text_or_null(reason), "message": text_or_null(message),
        "lastProbeTime": null, "lastTransitionTime": since.unwrap_or(input.now),
        "observedGeneration": input.pod.metadata.generation,
    })
}

fn keep(known: &Condition) -> Value {
    json!({
        "type": known.r#type, "status": known.status, "reason": text_or_null(&known.reason),
        "message": text_or_null(&known.message), "lastProbeTime": null,
        "lastTransitionTime": known.last_transition_time,
    })
}

fn container_status(
    input: &Input,
    container: &Container,
    waiting: Option<&Waiting>,
    default_reason: &str,
) -> Value {
    let Input { pod, observed, node, .. } = input;
    let known = newest(observed, &container.name);
    let stored = pod.status.of_container(&container.name);
    if known.is_none()
        && let Some(stored) = stored.filter(|stored| stored["state"]["terminated"].is_object())
    {
        // It has been cleaned up: its end stays told.
        return stored.clone();
    }
    let before = known.and_then(|last| {
        observed.containers.iter().find(|one| one.name == container.name && one.attempt + 1 == last.attempt)
    });
    let mut status = json!({
        "name": container.name,
        "image": known.map_or(container.image.as_str(), |known| known.image.as_str()),
        "imageID": known.map_or("", |known| if known.image_ref.is_empty() { &known.image_id } else { &known.image_ref }),
        "restartCount": restart_count(pod, container, known),
        "ready": known.is_some_and(|known| is_shown_ready(pod, container, known, observed)),
        "started": known.is_some_and(|known| probes::has_started(pod, container, known, observed)),
        "state": {}, "lastState": {},
    });
    if let Some(known) = known {
        status["containerID"] = probes::id(known).into();
    }
    if let Some(known) = known.filter(|known| known.status.state == ContainerState::Running) {
        let Requirements { requests, limits } = resize::shown(pod, container, known, node);
        let list = |list: &BTreeMap<String, String>| if list.is_empty() { Value::Null } else { json!(list) };
        status["resources"] = json!({"limits": list(&limits), "requests": list(&requests)});
        status["allocatedResources"] = list(&container.resources.requests);
    }
    if !container.volume_mounts.is_empty() {
        status["volumeMounts"] = container.volume_mounts.iter().map(mount_status).collect();
    }
    let exited = known.filter(|known| known.status.state == ContainerState::Exited);
    status["state"] = match (known, waiting) {
        (Some(known), _) if known.status.state == ContainerState::Running => {
            json!({"running": {"startedAt": time(known.status.started_at_ns)}})
        }
        (_, Some(Waiting { reason, message })) => {
            json!({"waiting": {"reason": reason, "message": text_or_null(message)}})
        }
        (Some(known), None) if known.status.state == ContainerState::Exited => {
            json!({"terminated": terminated(known, observed)})
        }
        _ => json!({"waiting": {"reason": default_reason}}),
    };
    let last = match exited {
        Some(exited) if waiting.is_some() => Some(exited),
        _ => before,
    };
    if let Some(last) = last {
        status["lastState"] = json!({"terminated": terminated(last, observed)});
    }
    prune_nulls(&mut status);
    status
}

/// KEP-3857: how each volume is mounted.
fn mount_status(mount: &VolumeMount) -> Value {
    let recursive = match mount.recursive_read_only.as_str() {
        "" => "Disabled",
        "IfPossible" => "Enabled",
        asked => asked,
    };
    json!({
        "name": mount.name, "mountPath": mount.mount_path,
        "readOnly": if mount.read_only { json!(true) } else { Value::Null },
        "recursiveReadOnly": if mount.read_only { json!(recursive) } else { Value::Null },
    })
}

fn restart_count(pod: &Pod, container: &Container, known: Option<&Known>) -> u32 {
    let stored = pod.status.of_container(&container.name).and_then(|stored| stored["restartCount"].as_u64());
    let before = stored.and_then(|count| u32::try_from(count).ok()).unwrap_or(0);
    known.map_or(before, |known| known.attempt.max(before))
}

/// An init container is "ready" when it has done its work.
fn is_shown_ready(pod: &Pod, container: &Container, known: &Known, observed: &Observed) -> bool {
    let is_init = pod.spec.init_containers.iter().any(|one| one.name == container.name);
    if is_init && !container.is_sidecar() {
        return known.status.state == ContainerState::Exited && known.status.exit_code == 0;
    }
    probes::is_ready(pod, container, known, observed)
}

fn terminated(known: &Known, observed: &Observed) -> Value {
    let status = &known.status;
    let told = observed.termination_messages.get(&known.id).map_or("", String::as_str);
    let message = match (told.is_empty(), known.annotations.contains_key(TERMINATION_POLICY)) {
        (false, _) => told,
        _ => status.message.as_str(),
    };
    let mut state = json!({
        "exitCode": status.exit_code,
        "reason": status.reason,
        "message": text_or_null(message),
        "startedAt": time(status.started_at_ns),
        "finishedAt": time(status.finished_at_ns),
        "containerID": probes::id(known),
    });
    if status.signal != 0 {
        state["signal"] = status.signal.into();
    }
    state
}

fn time(nanos: i64) -> Value {
    if nanos == 0 { Value::Null } else { json!(Time::from_micros(nanos / 1_000)) }
}

/// Lists of containers are replaced whole, so an absent field is left out instead of being null.
fn prune_nulls(value: &mut Value) {
    match value {
        Value::Object(members) => {
            *members = std::mem::take(members)
                .into_iter()
                .filter(|(_, member)| !member.is_null())
                .collect::<Map<_, _>>();
            members.values_mut().for_each(prune_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(prune_nulls),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_wrote_over_our_conditions_is_seen() {
        let posted = json!({"conditions": [{"type": "Ready", "status": "True"}, {"type": "Initialized", "status": "True"}]});
        for (held, expected) in [
            (json!([]), false),
            (
                json!([{"type": "Ready", "status": "True"}, {"type": "DisruptionTarget", "status": "True"}]),
                false,
            ),
            (json!([{"type": "Ready", "status": "False"}]), true),
        ] {
            let pod: Pod = serde_json::from_value(json!({"status": {"conditions": held}})).expect("a pod");
            assert_eq!(is_overwritten(&posted, &pod), expected, "{held}");
        }
    }
}
