//! Carries out what the kubelet decided, one task an op.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use kubelet::{Event, NodeFacts, Pod};
use object::{Revision, Time};
use plan::node::{Container, ContainerState, ImageVolume};
use plan::pod::{
    Claimed, DiskParts, DiskUse, File, FileContent, Handler, Kill, OpKey, PodOp, Pull, Resize, Start, Volume,
    VolumeSource,
};
use runtime::image::{Keyring, Platform, Policy, Prepared, Puller, Reference, Store};
use runtime::{Runtime, RuntimeError};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::api::{Api, ApiError};
use crate::clock;
use crate::disk;
use crate::handlers::Handlers;
use crate::mirror::{Mirror, Source};
use crate::network::PodNetwork;
use crate::patience::Patience;
use crate::reports::Reports;
use crate::volumes::{self, Content};
use crate::worker::occurrence;

/// What a container may say at its end: `terminationMessagePath` is read up to here.
const MESSAGE_LIMIT: u64 = 4_096;
/// With FallbackToLogsOnError, the end of the log: so many bytes, and lines.
const LOG_TAIL_BYTES: usize = 2_048;
const LOG_TAIL_LINES: usize = 80;
/// Between the stop signal and SIGKILL, however short the grace is or whatever a hook took of it. Upstream's minimumGracePeriodInSeconds.
const MINIMUM_GRACE: Duration = Duration::from_secs(2);
/// Hooks have no timeout of their own: a postStart hook ends with its container, a preStop hook with the grace.
const POST_START_PATIENCE: Duration = Duration::from_secs(24 * 3_600);

/// What ops work with.
pub struct Tools {
    pub api: Arc<Api>,
    pub mirror: Arc<Mirror>,
    pub runtime: Runtime,
    pub images: Store,
    pub puller: Puller,
    pub platform: Platform,
    pub handlers: Arc<Handlers>,
    pub network: PodNetwork,
    pub facts: Arc<NodeFacts>,
    pub reports: Reports,
    pub services: Source,
}

/// What became of an op.
#[derive(Debug)]
pub enum Done {
    Claims(BTreeMap<String, Claimed>),
    Volumes {
        volumes: Vec<Volume>,
        tokens_due: Option<Time>,
    },
    VolumesFailed {
        message: String,
    },
    Pulled {
        image: String,
        id: String,
    },
    PullFailed {
        image: String,
        reason: String,
        message: String,
    },
    Sandbox,
    SandboxFailed {
        message: String,
    },
    Resized,
    Disk(DiskUse),
    DiskUnknown,
    ResizeFailed {
        message: String,
    },
    Started {
        name: String,
    },
    StartFailed {
        name: String,
        reason: String,
        message: String,
    },
    PostStartBegan {
        container_id: String,
    },
    PostStartEnded {
        container_id: String,
    },
    Container {
        id: String,
    },
    /// The revision that the pod has with it.
    Status {
        status: Value,
        result: Result<Revision, ApiError>,
    },
    Forgotten,
    ForgetFailed {
        message: String,
    },
}

impl Done {
    /// The op that is no longer under way.
    pub fn key(&self) -> Option<OpKey> {
        match self {
            Self::Claims(_) => Some(OpKey::Claims),
            Self::Volumes { .. } | Self::VolumesFailed { .. } => Some(OpKey::Volumes),
            Self::Pulled { image, .. } | Self::PullFailed { image, .. } => Some(OpKey::Image(image.clone())),
            Self::Sandbox | Self::SandboxFailed { .. } => Some(OpKey::Sandbox),
            Self::Disk(_) | Self::DiskUnknown => Some(OpKey::Disk),
            Self::Resized | Self::ResizeFailed { .. } => Some(OpKey::Resize),
            Self::Started { name } | Self::StartFailed { name, .. } => Some(OpKey::Start(name.clone())),
            Self::Container { id } => Some(OpKey::Container(id.clone())),
            Self::Forgotten | Self::ForgetFailed { .. } => Some(OpKey::Forget),
            Self::PostStartBegan { .. } | Self::PostStartEnded { .. } | Self::Status { .. } => None,
        }
    }
}

impl Tools {
    pub fn has_services(&self) -> bool {
        self.mirror.is_synced(&self.services)
    }

    /// The id of an image that is here. A store that cannot be read has none; the pull then says why.
    pub fn image_id(&self, name: &str) -> Option<String> {
        self.images.get(name).ok().flatten().map(|image| image.id.to_string())
    }

    pub fn containers(&self, pod_uid: &str) -> Vec<Container> {
        self.runtime.list_pod(pod_uid).containers
    }
}

/// One op of one pod.
struct Job {
    tools: Arc<Tools>,
    done: mpsc::UnboundedSender<(String, Done)>,
    pod: Arc<Pod>,
    is_gone: bool,
    patience: Patience,
}

/// Begins an op; it ends with the set at the latest.
pub fn spawn(
    tasks: &mut JoinSet<()>,
    tools: &Arc<Tools>,
    done: &mpsc::UnboundedSender<(String, Done)>,
    pod: Arc<Pod>,
    is_gone: bool,
    patience: Patience,
    op: PodOp,
) {
    let job = Job { tools: tools.clone(), done: done.clone(), pod, is_gone, patience };
    tasks.spawn(async move {
        let result = job.perform(op).await;
        job.report(result);
    });
}

impl Job {
    fn report(&self, done: Done) {
        // The loop is gone only when the node stops.
        let _ = self.done.send((self.pod.metadata.uid.clone(), done));
    }

    fn tell(&self, warning: bool, reason: &'static str, message: impl Into<String>, container: &str) {
        let event = Event { warning, reason, message: message.into(), container: container.to_owned() };
        self.tools.reports.tell(occurrence(&self.pod, event));
    }

    async fn perform(&self, op: PodOp) -> Done {
        match op {
            PodOp::SetUpVolumes(volumes) => self.set_up_volumes(volumes).await,
            PodOp::ReadClaims(names) => self.read_claims(names).await,
            PodOp::PullImage(pull) => self.pull(pull).await,
            PodOp::RunSandbox(config) => self.run_sandbox(*config).await,
            PodOp::StartContainer(start) => self.start(*start).await,
            PodOp::KillContainer(kill) => self.kill(kill).await,
            PodOp::MeasureDisk(parts) => {
                let places = self.places(&parts);
                match blocking(move || Ok::<_, String>(disk::measure(&places))).await {
                    Ok(used) => Done::Disk(used),
                    Err(error) => {
                        tracing::warn!(pod = %self.pod.full_name(), error, "a pod's files could not be measured");
                        Done::DiskUnknown
                    }
                }
            }
            PodOp::Resize(resize) => match self.resize(resize).await {
                Ok(()) => Done::Resized,
                Err(error) => Done::ResizeFailed { message: error.to_string() },
            },
            PodOp::RemoveContainer { id } => {
                if let Err(error) = self.remove_container(&id).await {
                    tracing::warn!(container = id, error, "a container could not be removed");
                }
                Done::Container { id }
            }
            PodOp::StopSandbox { id } => self.end_sandbox(&id, false).await,
            PodOp::RemoveSandbox { id } => self.end_sandbox(&id, true).await,
            PodOp::Forget => match self.forget().await {
                Ok(()) => Done::Forgotten,
                Err(message) => Done::ForgetFailed { message },
            },
        }
    }

    async fn read_claims(&self, names: Vec<String>) -> Done {
        let namespace = &self.pod.metadata.namespace;
        let mut claims = BTreeMap::new();
        for name in names {
            let mut claimed = Claimed { read_at: clock::now(), ..Claimed::default() };
            let path = format!("/api/v1/namespaces/{namespace}/persistentvolumeclaims/{name}");
            match self.read(&path).await {
                Ok(claim) => claimed.claim = claim,
                Err(error) => claimed.error = Some(error.to_string()),
            }
            let volume = claimed.claim.as_ref().and_then(|claim| claim["spec"]["volumeName"].as_str());
            if let Some(volume) = volume.filter(|volume| !volume.is_empty()) {
                match self.read(&format!("/api/v1/persistentvolumes/{volume}")).await {
                    Ok(volume) => claimed.volume = volume,
                    Err(error) => claimed.error = Some(error.to_string()),
                }
            }
            claims.insert(name, claimed);
        }
        Done::Claims(claims)
    }

    /// None: it is not there.
    async fn read(&self, path: &str) -> Result<Option<Value>, ApiError> {
        match self.tools.api.get(path).await {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn set_up_volumes(&self, volumes: Vec<Volume>) -> Done {
        match self.try_set_up_volumes(&volumes).await {
            Ok(tokens_due) => Done::Volumes { volumes, tokens_due },
            Err(message) => Done::VolumesFailed { message },
        }
    }

    async fn try_set_up_volumes(&self, wanted: &[Volume]) -> Result<Option<Time>, String> {
        let mut due: Option<Time> = None;
        for volume in wanted {
            let mut contents = Vec::new();
            if let VolumeSource::Files(files) = &volume.source {
                for file in files {
                    let (content, renew_at) = self.content(volume, file).await?;
                    contents.push(content);
                    due = [due, renew_at].into_iter().flatten().min();
                }
            }
            let dir = self.tools.facts.volumes_dir(&self.pod.metadata.uid);
            let volume = volume.clone();
            blocking(move || volumes::set_up(&dir, &volume, &contents)).await?;
        }
        Ok(due)
    }

    async fn content(&self, volume: &Volume, file: &File) -> Result<(Content, Option<Time>), String> {
        let (bytes, renew_at) = match &file.content {
            FileContent::Bytes(bytes) => (bytes.clone(), None),
            FileContent::Token { audience, expiration_seconds } => {
                let token = self.token(audience.as_deref(), *expiration_seconds).await;
                let (token, expires) = token.map_err(|error| {
                    format!(
                        "MountVolume.SetUp failed for volume \"{}\" : failed to fetch token: {error}",
                        volume.name
                    )
                })?;
                (token.into_bytes(), Some(kubelet::renew_token_at(clock::now(), expires)))
            }
        };
        Ok((Content { path: file.path.clone(), mode: file.mode, uid: file.uid, bytes }, renew_at))
    }

    /// A token of the pod's service account, bound to the pod, and when it is over: the server may give less time than is asked for.
    async fn token(
        &self,
        audience: Option<&str>,
        expiration_seconds: i64,
    ) -> Result<(String, Time), ApiError> {
        let Pod { metadata, spec, .. } = &*self.pod;
        let path = format!(
            "/api/v1/namespaces/{}/serviceaccounts/{}/token",
            metadata.namespace, spec.service_account_name
        );
        let request = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
            "spec": {
                "audiences": audience.map_or_else(Vec::new, |audience| vec![audience]),
                "expirationSeconds": expiration_seconds,
                "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": metadata.name, "uid": metadata.uid},
            },
        });
        let answer: Value = self.tools.api.create(&path, &request).await?;
        let status = &answer["status"];
        let expires = status["expirationTimestamp"].as_str().and_then(|text| text.parse().ok());
        let expires = expires.unwrap_or_else(|| clock::now().plus_secs(expiration_seconds));
        Ok((status["token"].as_str().unwrap_or_default().to_owned(), expires))
    }

    async fn pull(&self, pull: Pull) -> Done {
        let Pull { image, container, always, credentials } = pull;
        let failed = |reason: &str, message: String| Done::PullFailed {
            image: image.clone(),
            reason: reason.into(),
            message,
        };
        let reference: Reference = match image.parse() {
            Ok(reference) => reference,
            Err(error) => {
                let message = format!("Failed to apply default image tag \"{image}\": {error}");
                self.tell(true, "InspectFailed", message.clone(), &container);
                return failed("InvalidImageName", message);
            }
        };
        let mut keyring = Keyring::default();
        for secret in &credentials {
            if keyring.add_config_json(secret).is_err() && keyring.add_dockercfg(secret).is_err() {
                tracing::warn!(pod = %self.pod.full_name(), "a pull secret is malformed and left out");
            }
        }
        self.tell(false, "Pulling", format!("Pulling image \"{image}\""), &container);
        let began = Instant::now();
        let policy = if always { Policy::Always } else { Policy::IfNotPresent };
        let known = keyring.lookup(&reference);
        match self.tools.puller.pull(&reference, &known, &self.tools.platform, policy, |_| {}).await {
            Ok(found) => {
                let took = format!("{}ms", began.elapsed().as_millis());
                let message = format!(
                    "Successfully pulled image \"{image}\" in {took} ({took} including waiting). Image size: {} bytes.",
                    found.size_bytes
                );
                self.tell(false, "Pulled", message, &container);
                Done::Pulled { image: image.clone(), id: found.id.to_string() }
            }
            Err(error) => {
                let message = format!("rpc error: code = {} desc = {error}", error.grpc_code());
                self.tell(true, "Failed", format!("Failed to pull image \"{image}\": {message}"), &container);
                self.tell(true, "Failed", "Error: ErrImagePull", &container);
                failed("ErrImagePull", message)
            }
        }
    }

    async fn run_sandbox(&self, config: plan::node::SandboxConfig) -> Done {
        let host_network = config.namespaces.host_network;
        let sandbox = match self.tools.runtime.run_sandbox(config).await {
            Ok(sandbox) => sandbox,
            Err(error) => return Done::SandboxFailed { message: error.to_string() },
        };
        let ips =
            if host_network { Ok(self.tools.facts.ips.clone()) } else { self.connect(&sandbox.id).await };
        let result = match ips {
            Ok(ips) => {
                self.tools.runtime.set_sandbox_ips(&sandbox.id, ips).await.map_err(|error| error.to_string())
            }
            Err(message) => Err(format!("failed to setup network for sandbox \"{}\": {message}", sandbox.id)),
        };
        let Err(message) = result else { return Done::Sandbox };
        if let Err(error) = self.tools.runtime.remove_sandbox(&sandbox.id).await {
            tracing::warn!(sandbox = sandbox.id, %error, "a sandbox without a network could not be removed");
        }
        Done::SandboxFailed { message }
    }

    async fn connect(&self, sandbox_id: &str) -> Result<Vec<std::net::IpAddr>, String> {
        let netns = self.tools.runtime.netns_path(sandbox_id).map_err(|error| error.to_string())?;
        let netns = netns.ok_or("the sandbox has no network namespace")?;
        let (tools, uid) = (self.tools.clone(), self.pod.metadata.uid.clone());
        let ip = blocking(move || tools.network.attach(&uid, netns)).await?;
        Ok(vec![ip.into()])
    }

    async fn end_sandbox(&self, id: &str, remove: bool) -> Done {
        let uid = self.pod.metadata.uid.clone();
        let of_pod = self.tools.runtime.list_pod(&uid).sandboxes;
        let is_last =
            !of_pod.iter().any(|other| other.id != id && other.state == plan::node::SandboxState::Ready);
        let mut result = self.tools.runtime.stop_sandbox(id).await;
        if remove && result.is_ok() {
            for container in self.tools.containers(&uid).iter().filter(|one| one.sandbox_id == id) {
                self.release_image(&container.id);
            }
            result = self.tools.runtime.remove_sandbox(id).await;
        }
        if is_last && result.is_ok() {
            let tools = self.tools.clone();
            if let Err(message) = blocking(move || tools.network.detach(&uid)).await {
                return Done::SandboxFailed { message };
            }
        }
        match result {
            Ok(()) => Done::Sandbox,
            Err(error) => Done::SandboxFailed { message: error.to_string() },
        }
    }

    async fn start(&self, start: Start) -> Done {
        let name = start.config.name.clone();
        match self.try_start(start).await {
            Ok(()) => Done::Started { name },
            Err((reason, message)) => {
                self.tell(true, "Failed", format!("Error: {message}"), &name);
                Done::StartFailed { name, reason: reason.into(), message }
            }
        }
    }

    async fn try_start(&self, start: Start) -> Result<(), (&'static str, String)> {
        let Start { sandbox_id, mut config, subpaths, images: mounted, must_not_be_root, post_start } = start;
        let create_failed = |message: String| ("CreateContainerError", message);
        self.resolve_subpaths(&mut config.mounts, subpaths)
            .await
            .map_err(|message| ("CreateContainerConfigError", message))?;
        let find = |name: &str| {
            let found = self.tools.images.get(name).map_err(|error| create_failed(error.to_string()))?;
            found.ok_or_else(|| create_failed(format!("image \"{name}\" is not here")))
        };
        let image = find(&config.image)?;
        if must_not_be_root && let Some(why) = runs_as_root(&config.security.run_as_user, &image.config.user)
        {
            return Err(("CreateContainerConfigError", why));
        }
        let (name, attempt) = (config.name.clone(), config.attempt);
        let holder = self.holder(&format!("{}-{name}-{attempt}", self.pod.metadata.uid));
        let (store, held) = (self.tools.images.clone(), holder.clone());
        let mut images = vec![image];
        for (name, _) in &mounted {
            images.push(find(name)?);
        }
        let prepared = blocking(move || store.prepare_all(&images, &held)).await.map_err(create_failed)?;
        let mut prepared = prepared.into_iter();
        let Prepared { layers, config: image } =
            prepared.next().ok_or_else(|| create_failed("the image has gone".into()))?;
        config.image_volumes = mounted
            .into_iter()
            .zip(prepared)
            .map(|((_, volume), prepared)| ImageVolume { layers: prepared.layers, ..volume })
            .collect();
        let created = self.tools.runtime.create_container(&sandbox_id, config, image, layers).await;
        let container = match created {
            Ok(container) => container,
            Err(error) => {
                self.release(&holder);
                return Err(create_failed(error.to_string()));
            }
        };
        self.tell(false, "Created", "Container created", &name);
        if post_start.is_some() {
            self.report(Done::PostStartBegan { container_id: container.id.clone() });
        }
        if let Err(error) = self.tools.runtime.start_container(&container.id).await {
            self.tell(true, "Failed", format!("Error: {error}"), &name);
            // It has exited with StartError: the back-off of restarts holds from here.
            self.report(Done::PostStartEnded { container_id: container.id });
            return Ok(());
        }
        self.tell(false, "Started", "Container started", &name);
        if let Some(hook) = post_start {
            self.post_start(&container.id, &name, &hook).await;
        }
        Ok(())
    }

    async fn post_start(&self, id: &str, name: &str, hook: &Handler) {
        let result = self.tools.handlers.check(id, hook, POST_START_PATIENCE).await;
        self.report(Done::PostStartEnded { container_id: id.to_owned() });
        if result.is_err() {
            self.tell(true, "FailedPostStartHook", "PostStartHook failed", name);
            self.tell(false, "Killing", "FailedPostStartHook", name);
            let grace = Duration::from_secs(self.pod.grace_seconds().max(0).unsigned_abs());
            if let Err(error) = self.tools.runtime.stop_container(id, grace, None).await {
                tracing::warn!(container = id, %error, "a container could not be stopped");
            }
        }
    }

    async fn resolve_subpaths(
        &self,
        mounts: &mut [plan::node::Mount],
        subpaths: BTreeMap<usize, String>,
    ) -> Result<(), String> {
        for (index, subpath) in subpaths {
            let Some(mount) = mounts.get_mut(index) else { continue };
            let base = mount.host_path.clone();
            let asked = subpath.clone();
            mount.host_path = blocking(move || crate::subpath::resolve(&base, &asked))
                .await
                .map_err(|why| format!("failed to prepare subPath for volumeMount \"{subpath}\": {why}"))?;
        }
        Ok(())
    }

    async fn kill(&self, kill: Kill) -> Done {
        let Kill { id, name, message, grace_seconds, pre_stop } = kill;
        self.tell(false, "Killing", message, &name);
        if let Some(hook) = pre_stop.filter(|_| grace_seconds > 0) {
            let grace = Duration::from_secs(grace_seconds.unsigned_abs());
            let is_done = tokio::select! {
                result = self.tools.handlers.check(&id, &hook, grace) => result.is_ok(),
                () = self.patience.is_over(&id, Instant::now()) => false,
            };
            if !is_done {
                self.tell(true, "FailedPreStopHook", "PreStopHook failed", &name);
            }
        }
        let runtime = &self.tools.runtime;
        let stopped = tokio::select! {
            stopped = runtime.stop_container(&id, Duration::MAX, None) => stopped,
            () = self.patience.is_over(&id, Instant::now() + MINIMUM_GRACE) => {
                runtime.stop_container(&id, Duration::ZERO, None).await
            }
        };
        if let Err(error) = stopped
            && !error.is_not_found()
        {
            tracing::warn!(container = id, %error, "a container could not be stopped");
        }
        Done::Container { id }
    }

    fn places(&self, parts: &DiskParts) -> disk::Places {
        let uid = &self.pod.metadata.uid;
        let volumes_dir = self.tools.facts.volumes_dir(uid);
        let volumes = parts.volumes.iter().map(|name| (name.clone(), volumes_dir.join(name)));
        let mut containers: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
        for container in self.tools.containers(uid) {
            let layer = self.tools.runtime.writable_layer(&container.id).ok();
            let logs = container.log_path.parent().map(PathBuf::from);
            let paths = containers.entry(container.name).or_default();
            paths.extend(layer);
            // The logs of all of a container's runs are in one folder.
            paths.extend(logs.filter(|logs| !paths.contains(logs)));
        }
        disk::Places { volumes: volumes.collect(), containers }
    }

    async fn resize(&self, resize: Resize) -> Result<(), RuntimeError> {
        let Resize { sandbox_id, room, containers, pod } = resize;
        self.tools.runtime.update_sandbox_resources(&sandbox_id, room).await?;
        for (id, resources) in containers {
            self.tools.runtime.update_resources(&id, resources).await?;
        }
        self.tools.runtime.update_sandbox_resources(&sandbox_id, pod).await
    }

    async fn remove_container(&self, id: &str) -> Result<(), String> {
        self.release_image(id);
        self.tools.runtime.remove_container(id).await.map_err(|error| error.to_string())
    }

    /// Gives back the layers that a container held.
    fn release_image(&self, container_id: &str) {
        if let Ok(container) = self.tools.runtime.container(container_id) {
            let uid = &self.pod.metadata.uid;
            self.release(&self.holder(&format!("{uid}-{}-{}", container.name, container.attempt)));
        }
    }

    fn holder(&self, what: &str) -> String {
        format!("{}/{what}", self.tools.facts.name)
    }

    fn release(&self, holder: &str) {
        if let Err(error) = self.tools.images.release(holder) {
            tracing::warn!(holder, %error, "layers of an image stay held");
        }
    }

    /// The pod's folders, and then its object.
    async fn forget(&self) -> Result<(), String> {
        let Pod { metadata, .. } = &*self.pod;
        let facts = self.tools.facts.clone();
        let uid = metadata.uid.clone();
        blocking(move || volumes::tear_down(&facts.pods_dir.join(uid))).await?;
        let log_dir = format!("{}_{}_{}", metadata.namespace, metadata.name, metadata.uid);
        match std::fs::remove_dir_all(self.tools.facts.logs_dir.join(log_dir)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.to_string()),
            _ => {}
        }
        if self.is_gone {
            return Ok(());
        }
        let path = format!("/api/v1/namespaces/{}/pods/{}", metadata.namespace, metadata.name);
        let options = json!({
            "apiVersion": "v1", "kind": "DeleteOptions",
            "gracePeriodSeconds": 0, "preconditions": {"uid": metadata.uid},
        });
        match self.tools.api.delete(&path, &options).await {
            Err(error) if !(error.is_not_found() || error.is_conflict()) => Err(error.to_string()),
            _ => Ok(()),
        }
    }
}

/// Why a container that must not run as root may not run, if so. Upstream's words.
fn runs_as_root(run_as_user: &Option<u32>, image_user: &str) -> Option<String> {
    if let Some(user) = run_as_user {
        return (*user == 0).then(|| "container's runAsUser breaks non-root policy".to_owned());
    }
    let user = image_user.split(':').next().unwrap_or_default();
    match user.parse::<u32>() {
        Ok(0) => Some("container has runAsNonRoot and image will run as root".into()),
        Ok(_) => None,
        Err(_) if user.is_empty() => Some("container has runAsNonRoot and image will run as root".into()),
        Err(_) => Some(format!(
            "container has runAsNonRoot and image has non-numeric user ({user}), cannot verify user is non-root"
        )),
    }
}

/// What an exited container left as its last words.
pub fn termination_message(container: &Container) -> Option<String> {
    if container.status.state != ContainerState::Exited {
        return None;
    }
    let mut message = read_message(&container.termination_message_file);
    let policy = container.annotations.get(kubelet::TERMINATION_POLICY).map_or("", String::as_str);
    if message.is_empty() && policy == "FallbackToLogsOnError" && container.status.exit_code != 0 {
        message = crate::logs::tail(&container.log_path, LOG_TAIL_LINES, LOG_TAIL_BYTES);
    }
    (!message.is_empty()).then_some(message)
}

/// A container can put anything in its place: it is opened without following links or waiting for a pipe's other end.
fn read_message(path: &PathBuf) -> String {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let opened = std::fs::OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path);
    let mut bytes = Vec::new();
    if let Ok(file) = opened
        && file.metadata().is_ok_and(|meta| meta.is_file())
        && file.take(MESSAGE_LIMIT).read_to_end(&mut bytes).is_err()
    {
        bytes.clear();
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Runs what blocks on a thread for that; its error as text.
pub async fn blocking<T: Send + 'static, E: std::fmt::Display + Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, String> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(panic) => Err(panic.to_string()),
    }
}
