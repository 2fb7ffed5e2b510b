//! The pod and container that a request names, in what this node knows of them.

use http::StatusCode;
use kinds::PODS;
use plan::node::{Container, ContainerState, SandboxState};
use serde::Deserialize;

use super::Server;
use super::reply::{Refusal, refuse};

/// As in the path.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    pub namespace: &'a str,
    pub pod: &'a str,
    pub container: &'a str,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct PodView {
    pub metadata: Metadata,
    spec: Spec,
    status: Status,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Metadata {
    pub uid: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    containers: Vec<Named>,
    init_containers: Vec<Named>,
    ephemeral_containers: Vec<Named>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Named {
    name: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    container_statuses: Vec<ContainerStatus>,
    init_container_statuses: Vec<ContainerStatus>,
    ephemeral_container_statuses: Vec<ContainerStatus>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ContainerStatus {
    name: String,
    pub state: State,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct State {
    pub waiting: Option<Waiting>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Waiting {
    pub reason: String,
}

impl PodView {
    pub fn has_container(&self, name: &str) -> bool {
        let spec = &self.spec;
        let all = spec.containers.iter().chain(&spec.init_containers).chain(&spec.ephemeral_containers);
        all.into_iter().any(|one| one.name == name)
    }

    pub fn container_status(&self, name: &str) -> Option<&ContainerStatus> {
        let status = &self.status;
        let all = status.container_statuses.iter();
        let mut all = all.chain(&status.init_container_statuses).chain(&status.ephemeral_container_statuses);
        all.find(|one| one.name == name)
    }
}

impl Server {
    pub fn pod(&self, namespace: &str, name: &str) -> Option<PodView> {
        self.tools.mirror.snapshot().find(PODS, namespace, name)?.decode().ok()
    }

    /// The runs of a container, the first one first.
    pub fn runs(&self, pod_uid: &str, container: &str) -> Vec<Container> {
        let mut runs = self.tools.containers(pod_uid);
        runs.retain(|one| one.name == container);
        // A sandbox that was replaced counts its attempts anew.
        runs.sort_by_key(|one| (one.created_at_ns, one.attempt));
        runs
    }

    /// The container that a command or a client is for.
    pub fn running(&self, target: Target<'_>) -> Result<Container, Refusal> {
        let pod = self.pod(target.namespace, target.pod);
        let pod = pod.ok_or_else(|| refuse(StatusCode::NOT_FOUND, "pod does not exist"))?;
        let found = self.runs(&pod.metadata.uid, target.container).pop();
        let Some(container) = found else {
            let message = format!("container not found (\"{}\")", target.container);
            return Err(refuse(StatusCode::INTERNAL_SERVER_ERROR, message));
        };
        let state = match container.status.state {
            ContainerState::Running => return Ok(container),
            ContainerState::Created => "CONTAINER_CREATED",
            ContainerState::Exited => "CONTAINER_EXITED",
        };
        Err(refuse(StatusCode::INTERNAL_SERVER_ERROR, format!("container is in {state} state")))
    }

    /// The id of the sandbox that the pod runs in.
    pub fn sandbox(&self, pod_uid: &str) -> Option<String> {
        let sandboxes = self.tools.runtime.list().sandboxes;
        let of_pod = sandboxes
            .into_iter()
            .filter(|one| one.config.pod_uid == pod_uid && one.state == SandboxState::Ready);
        of_pod.max_by_key(|one| one.created_at_ns).map(|one| one.id)
    }
}
