//! Containers that run and must be started anew, and what is told of them meanwhile.

use std::borrow::Cow;
use std::collections::BTreeMap;

use plan::node::{Container as Known, ContainerState};
use plan::pod::{Observed, ProbeKind};

use crate::config::{self, SPEC_HASH};
use crate::pod::{Container, Pod};
use crate::probes;
use crate::resize;
use crate::status::Waiting;
use crate::sync::{Input, newest};

/// Why a container must not go on as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    DefinitionChanged,
    Unhealthy(ProbeKind),
    Resized,
}

/// Why a container must not go on as it is, if it must not. Also of one that was ended for it.
pub fn reason(input: &Input, container: &Container, known: &Known) -> Option<Reason> {
    let Input { pod, observed, node, .. } = *input;
    let is_resized = || resize::needs_restart(pod, container, known, node).then_some(Reason::Resized);
    if is_init(pod, container) && !container.is_sidecar() {
        return is_resized();
    }
    let is_changed = has_changed(container, known).then_some(Reason::DefinitionChanged);
    is_changed.or_else(|| probes::failed(known, observed).map(Reason::Unhealthy)).or_else(is_resized)
}

/// Whether it was started with another definition than the pod has now.
pub fn has_changed(container: &Container, known: &Known) -> bool {
    known.annotations.get(SPEC_HASH).is_some_and(|hash| *hash != config::spec_hash(container))
}

/// Whether a container that is ended for this reason is started again. Only where a probe failed it is asked what its policy is.
pub fn is_followed(pod: &Pod, container: &Container, reason: Reason) -> bool {
    let policy = container.restart_policy.as_deref().unwrap_or(&pod.spec.restart_policy);
    !matches!(reason, Reason::Unhealthy(_)) || policy != "Never"
}

/// Of the event that tells of its end. Only of the pod's main containers it says that they come back.
pub fn message(pod: &Pod, container: &Container, reason: Reason) -> String {
    let name = &container.name;
    let is_init = is_init(pod, container);
    let what = match reason {
        Reason::Resized => return format!("Container {name} resize requires restart"),
        Reason::DefinitionChanged => "definition changed".to_owned(),
        Reason::Unhealthy(kind) => format!("failed {} probe", kind.name().to_lowercase()),
    };
    match () {
        () if is_init => format!("Init container {name} {what}"),
        () if is_followed(pod, container, reason) => format!("Container {name} {what}, will be restarted"),
        () => format!("Container {name} {what}"),
    }
}

/// Whether a container ended because it must be started anew, and nobody was told of its end yet.
pub fn is_replaced(input: &Input, container: &Container, known: &Known) -> bool {
    let stored = input.pod.status.of_container(&container.name);
    let is_told_running = stored.is_some_and(|stored| {
        stored["state"]["running"].is_object() && stored["containerID"] == probes::id(known)
    });
    let is_wanted =
        || reason(input, container, known).is_some_and(|reason| is_followed(input.pod, container, reason));
    known.status.state == ContainerState::Exited && is_told_running && is_wanted()
}

/// What the pod's status is made of. Upstream's kubelet ends a container and starts the next one in one step, and tells no status in
/// between: who restarts by a new image stays ready. So a container that is being replaced is told as it was until the next one has
/// started, hooks and all, or is kept from it.
pub fn as_told<'a>(input: &Input<'a>, waiting: &BTreeMap<String, Waiting>) -> Cow<'a, Observed> {
    let observed = input.observed;
    let spec = &input.pod.spec;
    let mut told = Cow::Borrowed(observed);
    for container in spec.containers.iter().chain(&spec.init_containers) {
        let name = &container.name;
        let is_replaced = |one: &&Known| one.name == *name && is_replaced(input, container, one);
        let Some(old) = observed.containers.iter().find(is_replaced) else { continue };
        let is_up = newest(observed, name).is_some_and(|next| {
            next.id != old.id
                && next.status.state != ContainerState::Created
                && !observed.post_start_running.contains(&next.id)
        });
        if is_up || waiting.contains_key(name) {
            continue;
        }
        let told = told.to_mut();
        told.containers.retain(|one| one.name != *name || one.attempt <= old.attempt);
        for one in told.containers.iter_mut().filter(|one| one.id == old.id) {
            one.status.state = ContainerState::Running;
        }
    }
    told
}

fn is_init(pod: &Pod, container: &Container) -> bool {
    pod.spec.init_containers.iter().any(|init| init.name == container.name)
}
