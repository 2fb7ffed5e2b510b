//! Which probes should run now.

use plan::node::{Container as Running, ContainerState};
use plan::pod::{Handler, Observed, Probe, ProbeKind};

use crate::lifecycle::handler;
use crate::pod::{Container, Pod, Probe as Spec};
use crate::sync::newest;

/// The probes of all running containers: startup first, the others once it has succeeded.
pub fn wanted(pod: &Pod, observed: &Observed, pod_ip: &str) -> Vec<Probe> {
    let mut probes = Vec::new();
    let sidecars = pod.spec.init_containers.iter().filter(|container| container.is_sidecar());
    for container in pod.spec.containers.iter().chain(sidecars) {
        let Some(running) = newest(observed, &container.name) else { continue };
        if running.status.state != ContainerState::Running {
            continue;
        }
        if container.startup_probe.is_some() && !has_started(pod, container, running, observed) {
            probes.extend(probe(container, running, ProbeKind::Startup, pod_ip));
            continue;
        }
        // A pod that is going away stays alive by its grace, but leaves its services by its readiness.
        let kinds: &[_] = if pod.is_deleting() {
            &[ProbeKind::Readiness]
        } else {
            &[ProbeKind::Liveness, ProbeKind::Readiness]
        };
        probes.extend(kinds.iter().filter_map(|&kind| probe(container, running, kind, pod_ip)));
    }
    probes
}

/// Whether a running container has passed its startup probe, if it has one.
pub fn has_started(pod: &Pod, container: &Container, running: &Running, observed: &Observed) -> bool {
    if running.status.state != ContainerState::Running || observed.post_start_running.contains(&running.id) {
        return false;
    }
    container.startup_probe.is_none()
        || health(running, ProbeKind::Startup, observed)
            .unwrap_or_else(|| was(pod, container, running, "started"))
}

/// Whether a running container takes requests.
pub fn is_ready(pod: &Pod, container: &Container, running: &Running, observed: &Observed) -> bool {
    has_started(pod, container, running, observed)
        && (container.readiness_probe.is_none()
            || health(running, ProbeKind::Readiness, observed)
                .unwrap_or_else(|| was(pod, container, running, "ready")))
}

/// What was last written of a running container. It holds until probes say otherwise: an agent that starts anew has not asked yet, and
/// nothing has changed for who takes requests (KEP-4781).
fn was(pod: &Pod, container: &Container, running: &Running, member: &str) -> bool {
    let written = pod.status.of_container(&container.name);
    let is_same = |status: &&serde_json::Value| status["containerID"] == id(running);
    written.filter(is_same).is_some_and(|status| status[member] == true)
}

/// A container as the API names it.
pub fn id(container: &Running) -> String {
    format!("ekso://{}", container.id)
}

/// The probe that says a running container must be restarted, if one does.
pub fn failed(running: &Running, observed: &Observed) -> Option<ProbeKind> {
    [ProbeKind::Startup, ProbeKind::Liveness]
        .into_iter()
        .find(|&kind| health(running, kind, observed) == Some(false))
}

fn health(running: &Running, kind: ProbeKind, observed: &Observed) -> Option<bool> {
    observed.probes.get(&(running.id.clone(), kind))?.healthy
}

pub fn spec(container: &Container, kind: ProbeKind) -> Option<&Spec> {
    match kind {
        ProbeKind::Startup => container.startup_probe.as_ref(),
        ProbeKind::Liveness => container.liveness_probe.as_ref(),
        ProbeKind::Readiness => container.readiness_probe.as_ref(),
    }
}

fn probe(container: &Container, running: &Running, kind: ProbeKind, pod_ip: &str) -> Option<Probe> {
    let spec = spec(container, kind)?;
    let handler: Handler = handler(&spec.handler, container, pod_ip)?;
    Some(Probe {
        container_id: running.id.clone(),
        container: container.name.clone(),
        kind,
        handler,
        initial_delay_seconds: spec.initial_delay_seconds,
        period_seconds: spec.period_seconds.unwrap_or(10).max(1),
        timeout_seconds: spec.timeout_seconds.unwrap_or(1).max(1),
        success_threshold: spec.success_threshold.unwrap_or(1).max(1),
        failure_threshold: spec.failure_threshold.unwrap_or(3).max(1),
    })
}

/// The text of the Unhealthy event.
pub fn failure_message(kind: ProbeKind, output: &str) -> String {
    format!("{} probe failed: {output}", kind.name())
}
