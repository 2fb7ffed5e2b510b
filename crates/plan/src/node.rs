//! What the kubelet asks of the container runtime, and what the runtime answers: the messages of CRI v1, kept to what
//! is used. They also stand on disk beside the containers, so a field may be added but not renamed.
//!
//! Times are nanoseconds since the Unix epoch, 0 for "not yet", as in CRI. Sizes are bytes. Paths are those of the
//! machine unless the name says `container`.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

/// Everything the runtime must know to make a pod's sandbox.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SandboxConfig {
    pub pod_uid: String,
    pub namespace: String,
    pub name: String,
    /// How many sandboxes this pod had before this one.
    pub attempt: u32,
    /// At most 63 bytes; ignored when the pod shares the machine's network (and so its UTS namespace).
    pub hostname: String,
    /// What `/etc/hosts` calls the pod's addresses, the full name first; empty: the hostname.
    pub host_names: Vec<String>,
    pub dns: DnsConfig,
    pub host_aliases: Vec<HostAlias>,
    pub namespaces: NamespaceOptions,
    /// A network namespace made by somebody else. Without it the runtime makes and pins one.
    pub netns_path: Option<PathBuf>,
    /// As in the pod's security context: `net.ipv4.ip_forward` → `1`.
    pub sysctls: BTreeMap<String, String>,
    /// Where the logs of the pod's containers go; `ContainerConfig::log_path` is relative to it.
    pub log_directory: PathBuf,
    /// The pod's cgroup, relative to the runtime's cgroup root: `kubepods/burstable/pod<uid>`.
    pub cgroup_parent: String,
    /// Limits of the pod as a whole.
    pub resources: Resources,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
}

/// What goes into `/etc/resolv.conf`. All empty: the machine's file is used as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DnsConfig {
    pub servers: Vec<String>,
    pub searches: Vec<String>,
    pub options: Vec<String>,
}

/// One line of `/etc/hosts`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HostAlias {
    pub ip: String,
    pub hostnames: Vec<String>,
}

/// Which namespaces of the machine a pod shares, and whether its containers share one PID namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NamespaceOptions {
    pub host_network: bool,
    pub host_pid: bool,
    pub host_ipc: bool,
    pub share_process_namespace: bool,
}

/// Limits of a cgroup. 0 or `None` leaves the kernel's default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// Relative weight, 2 to 262144 (1024 for one CPU).
    pub cpu_shares: u64,
    pub cpu_period_us: u64,
    /// Microseconds per period; negative removes the limit.
    pub cpu_quota_us: i64,
    pub memory_limit_bytes: i64,
    pub pids_limit: i64,
    /// -1000 to 1000; of containers only.
    pub oom_score_adj: Option<i32>,
}

/// Everything the runtime must know to make one container of a sandbox.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerConfig {
    pub name: String,
    /// How often this container was started before.
    pub attempt: u32,
    /// As the pod names it.
    pub image: String,
    /// Replaces the image's entrypoint (and drops its cmd) when not empty.
    pub command: Vec<String>,
    /// Replaces the image's cmd when not empty.
    pub args: Vec<String>,
    /// In order; a later one wins over an earlier one and over the image's.
    pub env: Vec<(String, String)>,
    /// Empty: the image's.
    pub working_dir: String,
    pub mounts: Vec<Mount>,
    pub image_volumes: Vec<ImageVolume>,
    pub devices: Vec<Device>,
    pub resources: Resources,
    pub security: SecurityContext,
    /// Id of a container of the same sandbox whose PID namespace this one joins: what `targetContainerName` of an
    /// ephemeral container names.
    pub pid_target: Option<String>,
    pub tty: bool,
    pub stdin: bool,
    /// Close stdin when the first attached client goes away.
    pub stdin_once: bool,
    /// Relative to the sandbox's `log_directory`: `<container>/<attempt>.log`.
    pub log_path: String,
    /// A name or number of the pod's `lifecycle.stopSignal`; empty: the image's, else SIGTERM.
    pub stop_signal: String,
    /// Inside the container; empty for none.
    pub termination_message_path: String,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
}

/// A file or directory of the machine seen in a container. Subpaths are already resolved.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Mount {
    pub host_path: PathBuf,
    pub container_path: String,
    pub read_only: bool,
    /// Read-only down to mounts below it (KEP-3857); needs `read_only` and no propagation.
    pub recursive_read_only: bool,
    pub propagation: MountPropagation,
}

/// An image seen in a container, which can neither be written nor executed from (KEP-4639).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageVolume {
    /// Its unpacked layers, the lowest first.
    pub layers: Vec<PathBuf>,
    pub container_path: String,
    /// The part of the image that is mounted; empty for all of it.
    pub sub_path: String,
}

/// KEP-432: whether mounts made later on one side appear on the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountPropagation {
    #[default]
    None,
    HostToContainer,
    Bidirectional,
}

/// A device node of the machine given to a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Device {
    pub host_path: PathBuf,
    pub container_path: String,
    /// Of `r`, `w`, `m`.
    pub permissions: String,
}

/// Who a container runs as, and what it may do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SecurityContext {
    pub privileged: bool,
    /// `None`: the image's user, else root.
    pub run_as_user: Option<u32>,
    /// `None`: the primary group of the user in the image's `/etc/passwd`, else 0.
    pub run_as_group: Option<u32>,
    pub supplemental_groups: Vec<u32>,
    pub supplemental_groups_policy: SupplementalGroupsPolicy,
    pub read_only_root_filesystem: bool,
    /// Without `CAP_`; `ALL` is understood.
    pub add_capabilities: Vec<String>,
    pub drop_capabilities: Vec<String>,
    pub no_new_privileges: bool,
    pub seccomp: Seccomp,
    pub proc_mount: ProcMount,
}

/// KEP-3619: whether groups from the image's `/etc/group` are added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SupplementalGroupsPolicy {
    #[default]
    Merge,
    Strict,
}

/// `securityContext.seccompProfile`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Seccomp {
    RuntimeDefault,
    /// Kubernetes' default when nothing is said.
    #[default]
    Unconfined,
    /// A profile in the JSON of `containers/common`, by its path on the machine.
    Localhost(PathBuf),
}

/// `Default` masks and write-protects the usual parts of `/proc` and `/sys`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProcMount {
    #[default]
    Default,
    Unmasked,
}

/// What an image says about running it: the `config` of an OCI image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageConfig {
    /// Digest of the image's configuration: `sha256:…`.
    pub id: String,
    /// `repository@sha256:…`, when pulled by a registry's name.
    pub reference: String,
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// `user`, `uid`, `user:group`, …; empty for root.
    pub user: String,
    pub working_dir: String,
    pub stop_signal: String,
    pub volumes: Vec<String>,
}

/// A sandbox as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sandbox {
    pub id: String,
    pub config: SandboxConfig,
    pub state: SandboxState,
    pub created_at_ns: i64,
    /// As told by whoever made the pod's network; empty until then and with the machine's network.
    pub ips: Vec<IpAddr>,
}

/// Whether containers can run in a sandbox, as CRI has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SandboxState {
    Ready,
    /// Stopped, or its monitor died: its containers are dead and it can only be removed.
    #[default]
    NotReady,
}

/// A container as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Container {
    pub id: String,
    pub sandbox_id: String,
    pub name: String,
    pub attempt: u32,
    /// As the pod names it.
    pub image: String,
    /// Digest of the image's configuration.
    pub image_id: String,
    /// `repository@sha256:…`.
    pub image_ref: String,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub created_at_ns: i64,
    pub log_path: PathBuf,
    pub resources: Resources,
    /// On the machine: the file behind `termination_message_path`; empty without one.
    pub termination_message_file: PathBuf,
    pub status: ContainerStatus,
}

/// The part of a container that changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerStatus {
    pub state: ContainerState,
    /// In the machine's PID namespace; 0 unless running.
    pub pid: u32,
    pub started_at_ns: i64,
    pub finished_at_ns: i64,
    /// 128 + signal when a signal ended it.
    pub exit_code: i32,
    /// 0 unless a signal ended it.
    pub signal: i32,
    /// When exited: `Completed`, `Error`, `OOMKilled`, `StartError`, `ContainerStatusUnknown`.
    pub reason: String,
    pub message: String,
}

/// Where a container is in its one life, as CRI has it; a restart makes another container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContainerState {
    #[default]
    Created,
    Running,
    Exited,
}

/// Use of resources, read from a cgroup at `at_ns`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CgroupStats {
    pub at_ns: i64,
    /// CPU time used since the group was made.
    pub cpu_usage_ns: u64,
    pub memory_usage_bytes: u64,
    /// Usage without the inactive file cache: what eviction and `kubectl top` look at.
    pub memory_working_set_bytes: u64,
    pub memory_rss_bytes: u64,
    pub page_faults: u64,
    pub major_page_faults: u64,
    pub processes: u64,
}

/// What the runtime tells without being asked. Whoever misses some lists everything again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RuntimeEvent {
    ContainerChanged {
        sandbox_id: String,
        container_id: String,
        pod_uid: String,
        status: ContainerStatus,
    },
    /// The sandbox's monitor is gone, unasked: the sandbox is no longer ready and its containers are dead.
    SandboxLost {
        sandbox_id: String,
        pod_uid: String,
    },
}
