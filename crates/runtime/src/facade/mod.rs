//! The runtime as the node's process uses it: sandboxes, containers, streams, events. Asynchronous, and a handle that
//! is cheap to clone.
//!
//! What it knows is in memory and on disk alike; each pod's monitor is the one to say how its containers fare, and a
//! task per pod listens to it.

mod container;
mod exec;
mod recover;
mod sandbox;
mod spawner;

pub use exec::{Attached, Exec, ExecOutput, ExecRequest};

use crate::cgroup::Cgroups;
use crate::connection::{CallError, Connection};
use crate::error::{RuntimeError, at};
use crate::layout;
use plan::node::{Container, ContainerStatus, RuntimeEvent, Sandbox, SandboxState};
use serde::{Deserialize, Serialize};
use spawner::Spawner;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{broadcast, watch};

/// Events that a receiver may lag behind before it has to list everything again.
const EVENT_BACKLOG: usize = 4096;

/// Where the runtime works, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// For what stays: sandboxes and containers.
    pub root: PathBuf,
    /// For what lives no longer than the machine runs: sockets, namespaces.
    pub run: PathBuf,
    /// Below which all groups are: `/ekso/x` from the top of each hierarchy as mounted, `ekso/x` below this process's
    /// own group (in version 2 beside it).
    pub cgroup_root: String,
    /// The command that runs `monitor::main`, which makes the pods' monitors.
    pub monitor: Vec<OsString>,
    /// `containerLogMaxSize` and `containerLogMaxFiles`.
    pub log_max_bytes: u64,
    pub log_max_files: u32,
}

impl Options {
    /// With this very program as the monitor, and upstream's defaults.
    pub fn new(root: impl Into<PathBuf>, run: impl Into<PathBuf>, cgroup_root: impl Into<String>) -> Options {
        Options {
            root: root.into(),
            run: run.into(),
            cgroup_root: cgroup_root.into(),
            monitor: vec!["/proc/self/exe".into(), "pod-monitor".into()],
            log_max_bytes: 10 << 20,
            log_max_files: 5,
        }
    }
}

/// Everything there is at one moment.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    pub sandboxes: Vec<Sandbox>,
    pub containers: Vec<Container>,
}

#[derive(Clone)]
pub struct Runtime {
    inner: Arc<Inner>,
}

struct Inner {
    options: Options,
    cgroups: Cgroups,
    spawner: Spawner,
    events: broadcast::Sender<RuntimeEvent>,
    /// A std mutex: held for look-ups and changes in memory, never across an await.
    sandboxes: Mutex<BTreeMap<String, SandboxEntry>>,
}

struct SandboxEntry {
    sandbox: Sandbox,
    connection: Option<Arc<Connection>>,
    containers: BTreeMap<String, ContainerEntry>,
    /// Held by whoever changes the sandbox as a whole, on disk or by ending it.
    changing: Arc<tokio::sync::Mutex<()>>,
}

struct ContainerEntry {
    record: Record,
    status: watch::Sender<ContainerStatus>,
}

/// A container as it stands in `container.json`. Its status there is that of its making.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Record {
    container: Container,
    stop_signal: String,
    tty: bool,
    stdin: bool,
    stdin_once: bool,
    own_pid_namespace: bool,
    pid_target: Option<String>,
    privileged: bool,
    devices: Vec<plan::node::Device>,
    /// Below the cgroup root.
    cgroup: String,
}

impl Runtime {
    /// Looks at the machine and makes the directories; `recover` then finds what ran before.
    pub fn new(options: Options) -> Result<Runtime, RuntimeError> {
        let cgroups = Cgroups::detect(&options.cgroup_root)?;
        let sandboxes = options.root.join("sandboxes");
        for directory in [&sandboxes, &options.run] {
            make_private_dir(directory)?;
        }
        let spawner = Spawner::new(options.monitor.clone());
        let events = broadcast::Sender::new(EVENT_BACKLOG);
        let inner = Inner { options, cgroups, spawner, events, sandboxes: Mutex::default() };
        Ok(Runtime { inner: Arc::new(inner) })
    }

    /// Changes from now on.
    pub fn events(&self) -> broadcast::Receiver<RuntimeEvent> {
        self.inner.events.subscribe()
    }

    pub fn list(&self) -> Listing {
        let entries = self.inner.entries();
        let containers = entries.values().flat_map(|entry| entry.containers.values());
        Listing {
            sandboxes: entries.values().map(|entry| entry.sandbox.clone()).collect(),
            containers: containers.map(ContainerEntry::container).collect(),
        }
    }

    /// What there is of one pod. Of many pods it copies only this one's.
    pub fn list_pod(&self, pod_uid: &str) -> Listing {
        let entries = self.inner.entries();
        let mut listing = Listing::default();
        for entry in entries.values().filter(|entry| entry.sandbox.config.pod_uid == pod_uid) {
            listing.sandboxes.push(entry.sandbox.clone());
            listing.containers.extend(entry.containers.values().map(ContainerEntry::container));
        }
        listing
    }

    pub fn sandbox(&self, id: &str) -> Result<Sandbox, RuntimeError> {
        self.inner.with_sandbox(id, |entry| entry.sandbox.clone())
    }

    pub fn container(&self, id: &str) -> Result<Container, RuntimeError> {
        self.inner.with_container(id, |_, entry| entry.container())
    }

    /// The network namespace of a pod; `None` when it has the machine's.
    pub fn netns_path(&self, sandbox: &str) -> Result<Option<PathBuf>, RuntimeError> {
        let config = self.inner.with_sandbox(sandbox, |entry| entry.sandbox.config.clone())?;
        if config.namespaces.host_network {
            return Ok(None);
        }
        Ok(Some(config.netns_path.unwrap_or_else(|| self.inner.run_dir(sandbox).join(layout::NETNS))))
    }
}

impl ContainerEntry {
    fn container(&self) -> Container {
        Container { status: self.status.borrow().clone(), ..self.record.container.clone() }
    }
}

impl Inner {
    fn entries(&self) -> MutexGuard<'_, BTreeMap<String, SandboxEntry>> {
        self.sandboxes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with_sandbox<T>(&self, id: &str, f: impl FnOnce(&mut SandboxEntry) -> T) -> Result<T, RuntimeError> {
        let mut entries = self.entries();
        let entry = entries.get_mut(id).ok_or_else(|| RuntimeError::SandboxNotFound(id.into()))?;
        Ok(f(entry))
    }

    fn with_container<T>(
        &self,
        id: &str,
        f: impl FnOnce(&Sandbox, &mut ContainerEntry) -> T,
    ) -> Result<T, RuntimeError> {
        let mut entries = self.entries();
        for entry in entries.values_mut() {
            if let Some(container) = entry.containers.get_mut(id) {
                return Ok(f(&entry.sandbox, container));
            }
        }
        Err(RuntimeError::ContainerNotFound(id.into()))
    }

    fn sandbox_dir(&self, id: &str) -> PathBuf {
        self.options.root.join("sandboxes").join(id)
    }

    fn run_dir(&self, id: &str) -> PathBuf {
        self.options.run.join(id)
    }

    fn container_dir(&self, sandbox: &str, id: &str) -> PathBuf {
        layout::container(&self.sandbox_dir(sandbox), id)
    }

    /// Waits until nobody else changes the sandbox as a whole.
    async fn change(&self, sandbox: &str) -> Result<tokio::sync::OwnedMutexGuard<()>, RuntimeError> {
        let changing = self.with_sandbox(sandbox, |entry| entry.changing.clone())?;
        Ok(changing.lock_owned().await)
    }

    /// The connection to the monitor of a sandbox that is ready.
    fn connection(&self, sandbox: &str) -> Result<Arc<Connection>, RuntimeError> {
        self.with_sandbox(sandbox, |entry| match (&entry.connection, entry.sandbox.state) {
            (Some(connection), SandboxState::Ready) => Ok(connection.clone()),
            _ => Err(RuntimeError::SandboxNotReady(sandbox.into())),
        })?
    }

    /// Takes in what became of a container, and tells everybody.
    fn container_changed(&self, sandbox: &str, id: &str, status: ContainerStatus) {
        let known = self.with_sandbox(sandbox, |entry| {
            let container = entry.containers.get(id)?;
            // The same again (after a reconnection) is no news.
            let changed = container.status.send_if_modified(|old| {
                let news = *old != status;
                old.clone_from(&status);
                news
            });
            changed.then(|| entry.sandbox.config.pod_uid.clone())
        });
        if let Ok(Some(pod_uid)) = known {
            let (sandbox_id, container_id) = (sandbox.to_string(), id.to_string());
            // Nobody listening is fine.
            let _ = self.events.send(RuntimeEvent::ContainerChanged {
                sandbox_id,
                container_id,
                pod_uid,
                status,
            });
        }
    }
}

fn call_error(sandbox: &str) -> impl FnOnce(CallError) -> RuntimeError {
    let sandbox = sandbox.to_string();
    move |error| match error {
        CallError::Gone => RuntimeError::MonitorGone(sandbox),
        CallError::Refused(message) => RuntimeError::Refused { sandbox, message },
    }
}

/// 64 hexadecimal digits, as containerd's.
fn new_id() -> Result<String, RuntimeError> {
    use std::io::Read;
    let mut bytes = [0; 32];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(at("read", "/dev/urandom"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn make_private_dir(path: &Path) -> Result<(), RuntimeError> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(at("create", path))
}

/// Runs file work where it may block.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
