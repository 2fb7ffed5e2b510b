//! Sandboxes: made, stopped, removed.

use super::{Inner, Runtime, SandboxEntry, blocking, make_private_dir, new_id};
use crate::cgroup;
use crate::connection::{Connection, Told};
use crate::error::{RuntimeError, at};
use crate::protocol::Call;
use crate::{etc, layout, monitor, sys};
use plan::node::{
    CgroupStats, ContainerState, ContainerStatus, Resources, RuntimeEvent, Sandbox, SandboxConfig,
    SandboxState,
};
use rustix::fd::{AsFd, OwnedFd};
use rustix::mount::UnmountFlags;
use rustix::pipe::{PipeFlags, pipe_with};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;

/// How long a monitor may take to kill what it has; then it is killed itself.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(10);

/// How long a monitor may take to make a pod's namespaces.
const START_PATIENCE: Duration = Duration::from_secs(30);

impl Runtime {
    /// Makes a pod's namespaces and cgroup and starts its monitor. On error nothing is left.
    pub async fn run_sandbox(&self, config: SandboxConfig) -> Result<Sandbox, RuntimeError> {
        let id = new_id()?;
        match self.inner.make_sandbox(&id, config).await {
            Ok(sandbox) => Ok(sandbox),
            Err(error) => {
                // The first error is the one to tell.
                let _ = self.inner.erase_sandbox(&id).await;
                self.inner.entries().remove(&id);
                Err(error)
            }
        }
    }

    /// Tells the addresses of a pod's network, once it is made: they stand in its `/etc/hosts`.
    pub async fn set_sandbox_ips(&self, id: &str, ips: Vec<IpAddr>) -> Result<(), RuntimeError> {
        let _changing = self.inner.change(id).await?;
        let mut sandbox = self.inner.with_sandbox(id, |entry| entry.sandbox.clone())?;
        sandbox.ips.clone_from(&ips);
        let directory = self.inner.sandbox_dir(id);
        blocking(move || {
            etc::write_hosts(&directory, &sandbox.config, &sandbox.ips)
                .map_err(at("write hosts in", &directory))?;
            save(&directory, &sandbox)
        })
        .await?;
        // Whoever sees the addresses starts containers, which read the file.
        self.inner.with_sandbox(id, |entry| entry.sandbox.ips = ips)
    }

    /// Kills what runs and gives back everything but the record: afterwards the sandbox is not ready. Stopping again
    /// does nothing.
    pub async fn stop_sandbox(&self, id: &str) -> Result<(), RuntimeError> {
        let _changing = self.inner.change(id).await?;
        self.inner.stop_sandbox(id).await
    }

    /// Stops the sandbox if need be, and forgets it and its containers. One that is not there is removed already.
    pub async fn remove_sandbox(&self, id: &str) -> Result<(), RuntimeError> {
        let Ok(_changing) = self.inner.change(id).await else { return Ok(()) };
        if self.sandbox(id).is_err() {
            return Ok(());
        }
        self.inner.stop_sandbox(id).await?;
        self.inner.erase_sandbox(id).await?;
        self.inner.entries().remove(id);
        Ok(())
    }

    /// What the pod as a whole has used; `None` when its group is gone.
    pub async fn sandbox_stats(&self, id: &str) -> Result<Option<CgroupStats>, RuntimeError> {
        let path = self.inner.with_sandbox(id, |entry| pod_cgroup(&entry.sandbox))?;
        let inner = self.inner.clone();
        blocking(move || Ok(cgroup::read_stats(&inner.cgroups.group(&path)?, sys::now_ns()))).await
    }

    /// Changes the limits of the pod as a whole.
    pub async fn update_sandbox_resources(&self, id: &str, resources: Resources) -> Result<(), RuntimeError> {
        let _changing = self.inner.change(id).await?;
        let inner = self.inner.clone();
        let sandbox = self.inner.with_sandbox(id, |entry| {
            entry.sandbox.config.resources = resources.clone();
            entry.sandbox.clone()
        })?;
        blocking(move || {
            cgroup::apply_limits(&inner.cgroups.group(&pod_cgroup(&sandbox))?, &resources, false)?;
            save(&inner.sandbox_dir(&sandbox.id), &sandbox)
        })
        .await
    }
}

/// The pod's group below the cgroup root.
pub(super) fn pod_cgroup(sandbox: &Sandbox) -> String {
    match sandbox.config.cgroup_parent.trim_matches('/') {
        "" => format!("pod{}", sandbox.id),
        path => path.to_string(),
    }
}

/// Not waiting for the disk: after a crash of the machine nothing of the pod runs, and what is half there is removed.
fn save(directory: &std::path::Path, sandbox: &Sandbox) -> Result<(), RuntimeError> {
    let path = directory.join(layout::SANDBOX);
    layout::write_json(&path, sandbox, false).map_err(at("write", path))
}

impl Inner {
    async fn make_sandbox(
        self: &Arc<Self>,
        id: &str,
        config: SandboxConfig,
    ) -> Result<Sandbox, RuntimeError> {
        let sandbox = Sandbox {
            id: id.into(),
            config,
            state: SandboxState::Ready,
            created_at_ns: sys::now_ns(),
            ips: Vec::new(),
        };
        let (inner, to_write) = (self.clone(), sandbox.clone());
        blocking(move || inner.prepare_sandbox(&to_write)).await?;
        let connection = self.start_monitor(id).await?;
        let entry = SandboxEntry {
            sandbox: sandbox.clone(),
            connection: Some(connection.clone()),
            containers: BTreeMap::new(),
            changing: Arc::default(),
        };
        self.entries().insert(id.into(), entry);
        self.listen(id.into(), connection);
        Ok(sandbox)
    }

    fn prepare_sandbox(&self, sandbox: &Sandbox) -> Result<(), RuntimeError> {
        let (directory, run) = (self.sandbox_dir(&sandbox.id), self.run_dir(&sandbox.id));
        make_private_dir(&layout::containers(&directory))?;
        make_private_dir(&run)?;
        let group = self.cgroups.group(&pod_cgroup(sandbox))?;
        group.create()?;
        cgroup::apply_limits(&group, &sandbox.config.resources, false)?;
        etc::write(&directory, &sandbox.config, &sandbox.ips)
            .map_err(at("write files of /etc in", &directory))?;
        save(&directory, sandbox)
    }

    async fn start_monitor(&self, id: &str) -> Result<Arc<Connection>, RuntimeError> {
        let failed = |message: String| RuntimeError::Monitor { sandbox: id.into(), message };
        let (directory, run) = (self.sandbox_dir(id), self.run_dir(id));
        let log = directory.join("monitor.log");
        let log = std::fs::File::create(&log).map_err(at("create", log))?;
        let (said, stdout) = pipe_with(PipeFlags::CLOEXEC).map_err(|error| failed(error.to_string()))?;
        let spawned = self.spawner.spawn(directory, run.clone(), stdout, log.into()).await;
        let pidfd = spawned.map_err(|error| failed(error.to_string()))?;
        let serving = serving(said).await;
        let connection = serving.and_then(|()| Connection::open(&run).map_err(|error| error.to_string()));
        if connection.is_err() {
            // It may have ended by itself.
            let _ = sys::pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL);
        }
        connection.map_err(failed)
    }

    /// Starts the task that hears what the monitor tells. It ends with the runtime.
    pub(super) fn listen(self: &Arc<Self>, id: String, connection: Arc<Connection>) {
        let inner = Arc::downgrade(self);
        tokio::spawn(async move {
            while let Some(told) = connection.next().await {
                let Told::Container { id: container, status } = told;
                match inner.upgrade() {
                    Some(inner) => inner.container_changed(&id, &container, status),
                    None => return,
                }
            }
            if let Some(inner) = inner.upgrade() {
                inner.connection_ended(&id).await;
            }
        });
    }

    /// A monitor that is alive has dropped us for being slow; else its containers are dead.
    async fn connection_ended(self: &Arc<Self>, id: &str) {
        // Without one it was to end.
        let expected = self.with_sandbox(id, |entry| entry.connection.is_none()).unwrap_or(true);
        if expected {
            return;
        }
        if let Ok(connection) = Connection::open(&self.run_dir(id)) {
            let known = self.with_sandbox(id, |entry| entry.connection = Some(connection.clone()));
            if known.is_ok() {
                self.listen(id.into(), connection.clone());
                // If this fails too, the new listener hears of it.
                let _ = connection.call(Call::Status, &[]).await;
            }
            return;
        }
        self.sandbox_lost(id).await;
    }

    /// Cleans up after a monitor that died: kills what is left, records the containers as dead and tells.
    pub(super) async fn sandbox_lost(self: &Arc<Self>, id: &str) {
        let Ok(_changing) = self.change(id).await else { return };
        let Ok((sandbox, live)) = self.with_sandbox(id, |entry| {
            entry.connection = None;
            entry.sandbox.state = SandboxState::NotReady;
            (entry.sandbox.clone(), live(entry))
        }) else {
            return;
        };
        let (inner, to_save) = (self.clone(), sandbox.clone());
        let dead = blocking(move || {
            inner.kill_sandbox(&to_save);
            inner.release(&to_save.id);
            if let Err(error) = save(&inner.sandbox_dir(&to_save.id), &to_save) {
                tracing::warn!(sandbox = to_save.id, %error, "the state of a sandbox was not written");
            }
            inner.settle(&to_save.id, live)
        })
        .await;
        for (container, status) in dead {
            self.container_changed(id, &container, status);
        }
        let event = RuntimeEvent::SandboxLost { sandbox_id: id.into(), pod_uid: sandbox.config.pod_uid };
        // Nobody listening is fine.
        let _ = self.events.send(event);
    }

    async fn stop_sandbox(self: &Arc<Self>, id: &str) -> Result<(), RuntimeError> {
        let connection = self.with_sandbox(id, |entry| {
            entry.sandbox.state = SandboxState::NotReady;
            // Taken away, so that its end is no surprise.
            entry.connection.take()
        })?;
        if let Some(connection) = connection {
            let ended = tokio::time::timeout(SHUTDOWN_PATIENCE, connection.call(Call::Shutdown, &[])).await;
            if ended.is_err() {
                // It has our word that it may end; what it could not kill, the cgroup does below.
                let _ = sys::kill(connection.pid, libc::SIGKILL);
            }
        }
        let inner = self.clone();
        let (sandbox, live) = self.with_sandbox(id, |entry| (entry.sandbox.clone(), live(entry)))?;
        let statuses = blocking(move || {
            inner.kill_sandbox(&sandbox);
            inner.release(&sandbox.id);
            save(&inner.sandbox_dir(&sandbox.id), &sandbox)?;
            Ok::<_, RuntimeError>(inner.settle(&sandbox.id, live))
        })
        .await?;
        for (container, status) in statuses {
            self.container_changed(id, &container, status);
        }
        Ok(())
    }

    /// How these containers, which were running when last heard of, have ended. What the monitor wrote down may not
    /// have come to us, or it may have died before it could.
    fn settle(&self, sandbox: &str, live: Vec<(String, ContainerStatus)>) -> Vec<(String, ContainerStatus)> {
        let settled = live.into_iter().map(|(container, old)| {
            let path = self.container_dir(sandbox, &container).join(layout::STATUS);
            match layout::read_json::<ContainerStatus>(&path) {
                Ok(status) if status.state == ContainerState::Exited => (container, status),
                _ => {
                    let status = lost_status(old);
                    if let Err(error) = layout::write_json(&path, &status, true) {
                        tracing::warn!(container, %error, "the status of a container was not written");
                    }
                    (container, status)
                }
            }
        });
        settled.collect()
    }

    /// Kills every process of the sandbox's containers by their groups.
    fn kill_sandbox(&self, sandbox: &Sandbox) {
        let records: Vec<String> = self
            .with_sandbox(&sandbox.id, |entry| {
                entry.containers.values().map(|c| c.record.cgroup.clone()).collect()
            })
            .unwrap_or_default();
        for path in records {
            if let Ok(group) = self.cgroups.group(&path) {
                group.kill();
            }
        }
    }

    /// Gives back what a sandbox has outside its directory.
    pub(super) fn release(&self, id: &str) {
        let run = self.run_dir(id);
        for mount in [layout::NETNS, layout::SHM] {
            // Not mounted is as good.
            let _ = rustix::mount::unmount(run.join(mount), UnmountFlags::DETACH);
        }
        if let Err(error) = std::fs::remove_dir_all(&run)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(path = %run.display(), %error, "not removed");
        }
    }

    /// Removes every trace of a sandbox that does not run.
    async fn erase_sandbox(self: &Arc<Self>, id: &str) -> Result<(), RuntimeError> {
        let directory = self.sandbox_dir(id);
        let (inner, id) = (self.clone(), id.to_string());
        let groups = blocking(move || {
            inner.release(&id);
            let sandbox = layout::read_json::<Sandbox>(&directory.join(layout::SANDBOX)).ok();
            if let Err(error) = std::fs::remove_dir_all(&directory)
                && error.kind() != std::io::ErrorKind::NotFound
            {
                return Err(at("remove", directory)(error));
            }
            let containers = inner
                .with_sandbox(&id, |entry| {
                    entry.containers.values().map(|c| c.record.cgroup.clone()).collect::<Vec<_>>()
                })
                .unwrap_or_default();
            // The pod's own group goes only if no other sandbox of the same pod has it.
            let pod = sandbox.map(|sandbox| pod_cgroup(&sandbox));
            let used = |path: &String| {
                inner
                    .entries()
                    .values()
                    .any(|other| other.sandbox.id != id && pod_cgroup(&other.sandbox) == *path)
            };
            Ok(containers.into_iter().chain(pod.filter(|path| !used(path))).collect::<Vec<_>>())
        })
        .await?;
        for path in groups {
            self.remove_group(&path).await?;
        }
        Ok(())
    }

    /// Waits for the last process of a group to be gone, for which version 1 has no notification.
    pub(super) async fn remove_group(&self, path: &str) -> Result<(), RuntimeError> {
        let group = self.cgroups.group(path)?;
        for round in 0..40 {
            if group.remove()? {
                return Ok(());
            }
            group.kill();
            tokio::time::sleep(Duration::from_millis(1 + 5 * round)).await;
        }
        let source = std::io::Error::from_raw_os_error(libc::EBUSY);
        Err(RuntimeError::Io { operation: "remove cgroup", path: path.into(), source })
    }
}

/// Waits until a monitor serves requests, by what it says.
async fn serving(said: OwnedFd) -> Result<(), String> {
    let mut stdout = Receiver::from_owned_fd(said).map_err(|error| error.to_string())?.take(4096);
    let mut said = String::new();
    match tokio::time::timeout(START_PATIENCE, stdout.read_to_string(&mut said)).await {
        Err(_) => Err(format!("it did not serve within {} s", START_PATIENCE.as_secs())),
        Ok(Err(error)) => Err(error.to_string()),
        Ok(Ok(_)) if said == monitor::READY => Ok(()),
        Ok(Ok(_)) if said.is_empty() => Err("it ended without a word; see monitor.log".into()),
        Ok(Ok(_)) => Err(said),
    }
}

fn live(entry: &SandboxEntry) -> Vec<(String, ContainerStatus)> {
    let statuses =
        entry.containers.iter().map(|(id, container)| (id.clone(), container.status.borrow().clone()));
    statuses.filter(|(_, status)| status.state == ContainerState::Running).collect()
}

/// What is said of a container whose end nobody saw; the kubelet's words and code for that.
fn lost_status(old: ContainerStatus) -> ContainerStatus {
    ContainerStatus {
        state: ContainerState::Exited,
        pid: 0,
        exit_code: 137,
        signal: libc::SIGKILL,
        reason: "ContainerStatusUnknown".into(),
        message: "The pod's monitor died, and the container with it".into(),
        finished_at_ns: sys::now_ns(),
        ..old
    }
}
