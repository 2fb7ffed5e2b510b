//! What the kubelet wants done for one pod, and what it was told of it: ops and observations.
//!
//! Ops of one step are independent of each other. The doer carries them out at the same time and tells, by `OpKey`, which are under way;
//! the decider never asks for one that is, but to hurry a `KillContainer`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;

use object::Time;
use serde::{Deserialize, Serialize};

use serde_json::Value;

use crate::node::{Container, ContainerConfig, ImageVolume, Resources, Sandbox, SandboxConfig};

/// One thing to do for a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PodOp {
    /// Brings the volumes to this content. Doing it again changes only what differs.
    SetUpVolumes(Vec<Volume>),
    /// The claims of these names, and the volumes bound to them.
    ReadClaims(Vec<String>),
    PullImage(Pull),
    RunSandbox(Box<SandboxConfig>),
    StartContainer(Box<Start>),
    KillContainer(Kill),
    Resize(Resize),
    MeasureDisk(DiskParts),
    RemoveContainer {
        id: String,
    },
    StopSandbox {
        id: String,
    },
    RemoveSandbox {
        id: String,
    },
    /// No sandbox of the pod is left: remove its volumes and logs, then delete the object with grace zero.
    Forget,
}

/// What an op works on: at most one of each is under way.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum OpKey {
    Volumes,
    Claims,
    Image(String),
    Disk,
    Resize,
    /// Making, stopping or removing a sandbox.
    Sandbox,
    /// By name.
    Start(String),
    /// By id.
    Container(String),
    Forget,
}

impl PodOp {
    pub fn key(&self) -> OpKey {
        match self {
            Self::SetUpVolumes(_) => OpKey::Volumes,
            Self::ReadClaims(_) => OpKey::Claims,
            Self::PullImage(pull) => OpKey::Image(pull.image.clone()),
            Self::RunSandbox(_) | Self::StopSandbox { .. } | Self::RemoveSandbox { .. } => OpKey::Sandbox,
            Self::StartContainer(start) => OpKey::Start(start.config.name.clone()),
            Self::KillContainer(kill) => OpKey::Container(kill.id.clone()),
            Self::MeasureDisk(_) => OpKey::Disk,
            Self::Resize(_) => OpKey::Resize,
            Self::RemoveContainer { id } => OpKey::Container(id.clone()),
            Self::Forget => OpKey::Forget,
        }
    }
}

/// An image to fetch for a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pull {
    pub image: String,
    /// The first container that wants it, for its events.
    pub container: String,
    /// Ask the registry even if an image of that name is here.
    pub always: bool,
    /// Contents of the pull secrets: `.dockerconfigjson` or the legacy `.dockercfg`.
    pub credentials: Vec<Vec<u8>>,
}

/// Creates and starts one container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    pub sandbox_id: String,
    pub config: ContainerConfig,
    /// `mounts` whose host path needs a subpath resolved inside the volume first, by index.
    pub subpaths: BTreeMap<usize, String>,
    /// Images that become `config.image_volumes` with their layers, each by its name.
    pub images: Vec<(String, ImageVolume)>,
    /// runAsNonRoot: refuse an image that would run as root.
    pub must_not_be_root: bool,
    pub post_start: Option<Handler>,
}

/// Ends one container: preStop hook, stop signal, and after the grace SIGKILL. Asked again while it is under way, it leaves less time and
/// changes nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kill {
    pub id: String,
    pub name: String,
    /// Of the Killing event.
    pub message: String,
    pub grace_seconds: i64,
    pub pre_stop: Option<Handler>,
}

/// What is measured of a pod's use of the node's disk: its containers' own files and logs, and these volumes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskParts {
    pub volumes: Vec<String>,
}

/// How much of the node's disk a pod uses, in bytes by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DiskUse {
    pub volumes: BTreeMap<String, u64>,
    pub containers: BTreeMap<String, u64>,
    pub at: Time,
}

/// Changes the limits of a pod that runs, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resize {
    pub sandbox_id: String,
    /// Of the pod as long as its containers change: no less than before, and no less than after.
    pub room: Resources,
    /// By id.
    pub containers: Vec<(String, Resources)>,
    /// Of the pod afterwards.
    pub pod: Resources,
}

/// A probe's or a hook's action.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Handler {
    Exec(Vec<String>),
    Http { host: String, port: u16, path: String, https: bool, headers: Vec<(String, String)> },
    Tcp { host: String, port: u16 },
    Grpc { host: String, port: u16, service: String },
    Sleep { seconds: i64 },
}

/// A probe that should be running.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    pub container_id: String,
    pub container: String,
    pub kind: ProbeKind,
    pub handler: Handler,
    pub initial_delay_seconds: i64,
    pub period_seconds: i64,
    pub timeout_seconds: i64,
    pub success_threshold: u32,
    pub failure_threshold: u32,
}

/// What a probe of a container is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProbeKind {
    Startup,
    Liveness,
    Readiness,
}

impl ProbeKind {
    /// As events name it: `Liveness probe failed: …`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        }
    }
}

/// What is known of a probe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProbeState {
    /// None until a threshold was reached for the first time.
    pub healthy: Option<bool>,
    successes: u32,
    failures: u32,
}

impl ProbeState {
    /// Takes in one result; says whether `healthy` changed.
    pub fn record(&mut self, success: bool, probe: &Probe) -> bool {
        let before = self.healthy;
        if success {
            self.failures = 0;
            self.successes = self.successes.saturating_add(1);
            if self.successes >= probe.success_threshold {
                self.healthy = Some(true);
            }
        } else {
            self.successes = 0;
            self.failures = self.failures.saturating_add(1);
            if self.failures >= probe.failure_threshold {
                self.healthy = Some(false);
            }
        }
        before != self.healthy
    }
}

/// A volume of a pod, made under the pod's volume directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    pub name: String,
    pub source: VolumeSource,
    /// `fsGroup`: owner group and group access of what the volume holds.
    pub fs_group: Option<u32>,
}

/// What a volume is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VolumeSource {
    EmptyDir {
        in_memory: bool,
        size_limit_bytes: Option<u64>,
    },
    HostPath {
        path: PathBuf,
        kind: HostPathKind,
    },
    /// A folder of the node that a PersistentVolume of type `local` names; it must be there.
    Local {
        /// The PersistentVolume's name.
        volume: String,
        path: PathBuf,
    },
    /// configMap, secret, downwardAPI, projected: files that are replaced all at once (`..data`).
    Files(Vec<File>),
}

/// `hostPath.type`: what must be at the path, or is made there. `Unchecked` is the empty type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostPathKind {
    Unchecked,
    DirectoryOrCreate,
    Directory,
    FileOrCreate,
    File,
    Socket,
    CharDevice,
    BlockDevice,
}

/// A file of a volume.
#[derive(Clone, PartialEq, Eq)]
pub struct File {
    /// Relative, without `..`.
    pub path: String,
    pub mode: u32,
    /// Owner, for tokens of containers that do not run as root.
    pub uid: Option<u32>,
    pub content: FileContent,
}

/// What a file of a volume holds. A token is fetched by whoever writes the file.
#[derive(Clone, PartialEq, Eq)]
pub enum FileContent {
    Bytes(Vec<u8>),
    /// A bound token of the pod's service account, renewed at four fifths of its life.
    Token {
        audience: Option<String>,
        expiration_seconds: i64,
    },
}

/// Contents stay out of logs: they are secrets.
impl std::fmt::Debug for File {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("File").field("path", &self.path).field("mode", &self.mode).finish_non_exhaustive()
    }
}

/// A claim that a pod names, and the volume bound to it, as the API has them. None: it is not there.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Claimed {
    pub claim: Option<Value>,
    pub volume: Option<Value>,
    /// Why they could not be read.
    pub error: Option<String>,
    pub read_at: Time,
}

/// A failure that keeps something from happening, and since when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// `ErrImagePull`, `CreateContainerError`, `RunContainerError`, …
    pub reason: String,
    pub message: String,
    pub at: Time,
    /// In a row.
    pub count: u32,
}

/// Everything that is known of one pod on this node.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    pub sandboxes: Vec<Sandbox>,
    pub containers: Vec<Container>,
    /// By the name that the pod uses: the image's id, if it is here.
    pub images: BTreeMap<String, String>,
    /// Images that this pod pulled since it came to this node.
    pub pulled: BTreeSet<String>,
    pub pull_failures: BTreeMap<String, Failure>,
    /// By name.
    pub claims: BTreeMap<String, Claimed>,
    /// What `SetUpVolumes` was last done with.
    pub volumes: Option<Vec<Volume>>,
    pub volume_failure: Option<Failure>,
    pub sandbox_failure: Option<Failure>,
    pub resize_failure: Option<Failure>,
    /// As it was last measured.
    pub disk: Option<DiskUse>,
    /// By container name: creating or starting failed.
    pub start_failures: BTreeMap<String, Failure>,
    /// By container id and kind.
    pub probes: BTreeMap<(String, ProbeKind), ProbeState>,
    /// By container id.
    pub termination_messages: BTreeMap<String, String>,
    /// Ids of containers whose postStart hook has not ended yet.
    pub post_start_running: BTreeSet<String>,
    pub in_flight: BTreeSet<OpKey>,
    /// By id: when a container that is being stopped is killed.
    pub stopping: BTreeMap<String, Time>,
    pub host_ips: Vec<IpAddr>,
}
