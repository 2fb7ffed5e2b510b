//! Containers: made, started, stopped, removed.

use super::sandbox::pod_cgroup;
use super::{ContainerEntry, Inner, Record, Runtime, blocking, call_error, make_private_dir, new_id};
use crate::cgroup;
use crate::connection::CallError;
use crate::error::{RuntimeError, at};
use crate::protocol::{Call, Start};
use crate::spec::{self, Place};
use crate::{container, layout, signal, sys};
use plan::node::{
    CgroupStats, Container, ContainerConfig, ContainerState, ContainerStatus, ImageConfig, Resources,
    Sandbox, SandboxState,
};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How long a process may take to die of SIGKILL: it may be in the kernel, waiting for a disk.
const KILL_PATIENCE: Duration = Duration::from_secs(30);

impl Runtime {
    /// Writes down how a container is to be started. `layers` are unpacked directories, the lowest first.
    pub async fn create_container(
        &self,
        sandbox: &str,
        config: ContainerConfig,
        image: ImageConfig,
        layers: Vec<PathBuf>,
    ) -> Result<Container, RuntimeError> {
        let of = self.sandbox(sandbox)?;
        if of.state != SandboxState::Ready {
            return Err(RuntimeError::SandboxNotReady(sandbox.into()));
        }
        let id = new_id()?;
        let inner = self.inner.clone();
        let record = blocking(move || {
            let directory = inner.container_dir(&of.id, &id);
            let made = inner.prepare_container(&id, &of, &config, &image, layers);
            if made.is_err() {
                // The first error is the one to tell.
                let _ = std::fs::remove_dir_all(&directory);
            }
            made
        })
        .await?;
        let container = record.container.clone();
        let entry = ContainerEntry { status: watch::Sender::new(ContainerStatus::default()), record };
        self.inner.with_sandbox(sandbox, |sandbox| sandbox.containers.insert(container.id.clone(), entry))?;
        Ok(container)
    }

    /// Starts a container that was created, and returns once its program runs.
    ///
    /// # Errors
    /// `Start` when the program cannot be started; the container has then exited with code 128 and `StartError`.
    pub async fn start_container(&self, id: &str) -> Result<(), RuntimeError> {
        let (sandbox, record, status) = self.inner.with_container(id, |sandbox, entry| {
            (sandbox.id.clone(), entry.record.clone(), entry.status.borrow().clone())
        })?;
        if status.state != ContainerState::Created {
            return Err(wrong_state(id, &status, "start", "created"));
        }
        let connection = self.inner.connection(&sandbox)?;
        let inner = self.inner.clone();
        let start = blocking(move || inner.prepare_start(&record)).await;
        let started = match start {
            Ok(start) => connection.call(Call::Start(start), &[]).await,
            Err(error) => Err(CallError::Refused(error.to_string())),
        };
        match started {
            Ok(_) => Ok(()),
            Err(CallError::Refused(message)) => {
                self.inner.start_failed(id, &message).await;
                Err(RuntimeError::Start { id: id.into(), message })
            }
            Err(CallError::Gone) => Err(RuntimeError::MonitorGone(sandbox)),
        }
    }

    /// Sends the container's stop signal (or `signal`), and SIGKILL after `grace`. Returns once it has exited.
    pub async fn stop_container(
        &self,
        id: &str,
        grace: Duration,
        signal: Option<&str>,
    ) -> Result<(), RuntimeError> {
        let (sandbox, configured, mut status) = self.inner.with_container(id, |sandbox, entry| {
            (sandbox.id.clone(), entry.record.stop_signal.clone(), entry.status.subscribe())
        })?;
        if status.borrow().state != ContainerState::Running {
            return Ok(());
        }
        let name = signal.unwrap_or(&configured);
        let number = signal::number(name).ok_or_else(|| RuntimeError::UnknownSignal(name.into()))?;
        if !grace.is_zero() {
            self.inner.kill(&sandbox, id, number).await?;
            if wait_for_exit(&mut status, grace).await {
                return Ok(());
            }
        }
        self.inner.kill(&sandbox, id, libc::SIGKILL).await?;
        if wait_for_exit(&mut status, KILL_PATIENCE).await {
            return Ok(());
        }
        Err(wrong_state(id, &status.borrow().clone(), "stop", "dead after SIGKILL"))
    }

    /// Kills the container if need be, and forgets it and its files; its log stays. One that is not there is removed
    /// already.
    pub async fn remove_container(&self, id: &str) -> Result<(), RuntimeError> {
        match self.stop_container(id, Duration::ZERO, Some("SIGKILL")).await {
            Err(RuntimeError::ContainerNotFound(_)) => return Ok(()),
            other => other?,
        }
        let (sandbox, group) = self
            .inner
            .with_container(id, |sandbox, entry| (sandbox.id.clone(), entry.record.cgroup.clone()))?;
        if let Ok(connection) = self.inner.connection(&sandbox) {
            let call = Call::Remove { container: id.into() };
            match connection.call(call, &[]).await {
                // A monitor that is gone has forgotten it.
                Ok(_) | Err(CallError::Gone) => {}
                Err(error) => return Err(call_error(&sandbox)(error)),
            }
        }
        self.inner.remove_group(&group).await?;
        let directory = self.inner.container_dir(&sandbox, id);
        blocking(move || match std::fs::remove_dir_all(&directory) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(at("remove", directory)(error)),
            _ => Ok(()),
        })
        .await?;
        self.inner.with_sandbox(&sandbox, |entry| entry.containers.remove(id))?;
        Ok(())
    }

    /// Changes the limits of a container, running or not.
    pub async fn update_resources(&self, id: &str, resources: Resources) -> Result<(), RuntimeError> {
        let (sandbox, mut record) =
            self.inner.with_container(id, |sandbox, entry| (sandbox.id.clone(), entry.record.clone()))?;
        record.container.resources = resources.clone();
        let (inner, updated) = (self.inner.clone(), record.clone());
        blocking(move || {
            let group = inner.cgroups.group(&record.cgroup)?;
            group.create()?;
            cgroup::apply_limits(&group, &resources, true)?;
            let path = inner.container_dir(&sandbox, &record.container.id).join(layout::CONTAINER);
            layout::write_json(&path, &record, true).map_err(at("write", path))
        })
        .await?;
        self.inner.with_container(id, |_, entry| entry.record = updated)
    }

    /// Goes on in a new log file: the old one was moved.
    pub async fn reopen_log(&self, id: &str) -> Result<(), RuntimeError> {
        let sandbox = self.inner.with_container(id, |sandbox, _| sandbox.id.clone())?;
        let call = Call::ReopenLog { container: id.into() };
        self.inner.connection(&sandbox)?.call(call, &[]).await.map(drop).map_err(call_error(&sandbox))
    }

    /// What a container has used; `None` when it has not been started.
    pub async fn container_stats(&self, id: &str) -> Result<Option<CgroupStats>, RuntimeError> {
        let group = self.inner.with_container(id, |_, entry| entry.record.cgroup.clone())?;
        let inner = self.inner.clone();
        blocking(move || Ok(cgroup::read_stats(&inner.cgroups.group(&group)?, sys::now_ns()))).await
    }

    /// Where a container's own changes to its root filesystem are.
    pub fn writable_layer(&self, id: &str) -> Result<PathBuf, RuntimeError> {
        let sandbox = self.inner.with_container(id, |sandbox, _| sandbox.id.clone())?;
        Ok(self.inner.container_dir(&sandbox, id).join("upper"))
    }
}

async fn wait_for_exit(status: &mut watch::Receiver<ContainerStatus>, patience: Duration) -> bool {
    let exited = status.wait_for(|status| status.state == ContainerState::Exited);
    // The sender goes when the container is forgotten, which is as good.
    tokio::time::timeout(patience, exited).await.is_ok()
}

fn wrong_state(
    id: &str,
    status: &ContainerStatus,
    operation: &'static str,
    wanted: &'static str,
) -> RuntimeError {
    RuntimeError::WrongState { id: id.into(), state: format!("{:?}", status.state), operation, wanted }
}

impl Inner {
    fn prepare_container(
        &self,
        id: &str,
        sandbox: &Sandbox,
        config: &ContainerConfig,
        image: &ImageConfig,
        mut layers: Vec<PathBuf>,
    ) -> Result<Record, RuntimeError> {
        let refused = |message: String| RuntimeError::Config { name: config.name.clone(), message };
        let directory = self.container_dir(&sandbox.id, id);
        let cgroup = format!("{}/{id}", pod_cgroup(sandbox));
        let group = self.cgroups.group(&cgroup)?;
        for name in ["upper", "work", "rootfs", "volumes"] {
            make_private_dir(&directory.join(name))?;
        }
        // The root directory of the container is this one's: everybody in it may look into `/`.
        set_mode(&directory.join("upper"), 0o755)?;
        for number in 0..image.volumes.len() {
            let volume = directory.join("volumes").join(number.to_string());
            std::fs::create_dir_all(&volume).map_err(at("create", &volume))?;
            set_mode(&volume, 0o777)?;
        }
        if layers.is_empty() {
            let empty = directory.join("empty");
            make_private_dir(&empty)?;
            layers.push(empty);
        }
        let termination_log = directory.join("termination-log");
        if !config.termination_message_path.is_empty() {
            std::fs::write(&termination_log, "").map_err(at("write", &termination_log))?;
            set_mode(&termination_log, 0o666)?;
        }
        let shm = match sandbox.config.namespaces.host_ipc {
            true => PathBuf::from("/dev/shm"),
            false => self.run_dir(&sandbox.id).join(layout::SHM),
        };
        let sandbox_dir = self.sandbox_dir(&sandbox.id);
        let place = Place {
            directory: &directory,
            sandbox: &sandbox_dir,
            shm,
            cgroups: group.directories(),
            cgroup_views: group.views(),
            cgroup_namespace: self.cgroups.unified(),
        };
        container::capability::granted(&config.security).map_err(refused)?;
        let spec = spec::resolve(&sandbox.config, config, image, layers, place).map_err(refused)?;
        write(&directory.join(layout::SPEC), &spec)?;
        let record = record(id, sandbox, config, image, cgroup, termination_log);
        signal::number(&record.stop_signal)
            .ok_or_else(|| RuntimeError::UnknownSignal(record.stop_signal.clone()))?;
        write(&directory.join(layout::CONTAINER), &record)?;
        Ok(record)
    }

    /// Makes what a start needs on the machine.
    fn prepare_start(&self, record: &Record) -> Result<Start, RuntimeError> {
        let group = self.cgroups.group(&record.cgroup)?;
        group.create()?;
        cgroup::apply_limits(&group, &record.container.resources, true)?;
        if !record.privileged {
            let refused =
                |message: String| RuntimeError::Config { name: record.container.name.clone(), message };
            let numbers = record.devices.iter().map(container::device_numbers);
            let rules = numbers.collect::<Result<Vec<_>, _>>().map_err(refused)?;
            group.restrict_devices(&rules)?;
        }
        let log = &record.container.log_path;
        if let Some(directory) = log.parent() {
            std::fs::create_dir_all(directory).map_err(at("create", directory))?;
        }
        let mut cgroups = group.directories();
        cgroups.dedup();
        Ok(Start {
            container: record.container.id.clone(),
            log_path: log.clone(),
            log_max_bytes: self.options.log_max_bytes,
            log_max_files: self.options.log_max_files,
            tty: record.tty,
            stdin: record.stdin,
            stdin_once: record.stdin_once,
            cgroups,
            pid_target: record.pid_target.clone(),
            own_pid_namespace: record.own_pid_namespace,
        })
    }

    /// Records a failure that the monitor has not recorded itself.
    async fn start_failed(self: &Arc<Self>, id: &str, message: &str) {
        let created = self.with_container(id, |sandbox, entry| {
            (entry.status.borrow().state == ContainerState::Created).then(|| sandbox.id.clone())
        });
        let Ok(Some(sandbox)) = created else { return };
        let status = ContainerStatus {
            state: ContainerState::Exited,
            exit_code: 128,
            reason: "StartError".into(),
            message: message.into(),
            finished_at_ns: sys::now_ns(),
            ..Default::default()
        };
        let path = self.container_dir(&sandbox, id).join(layout::STATUS);
        let (to_write, container) = (status.clone(), id.to_string());
        blocking(move || {
            if let Err(error) = layout::write_json(&path, &to_write, true) {
                tracing::warn!(container, %error, "the status of a container was not written");
            }
        })
        .await;
        self.container_changed(&sandbox, id, status);
    }

    async fn kill(&self, sandbox: &str, id: &str, signal: i32) -> Result<(), RuntimeError> {
        let call = Call::Kill { container: id.into(), signal };
        self.connection(sandbox)?.call(call, &[]).await.map(drop).map_err(call_error(sandbox))
    }
}

fn record(
    id: &str,
    sandbox: &Sandbox,
    config: &ContainerConfig,
    image: &ImageConfig,
    cgroup: String,
    termination_log: PathBuf,
) -> Record {
    let namespaces = sandbox.config.namespaces;
    let stop_signal = [&config.stop_signal, &image.stop_signal].into_iter().find(|name| !name.is_empty());
    let termination_message_file = match config.termination_message_path.is_empty() {
        true => PathBuf::new(),
        false => termination_log,
    };
    Record {
        container: Container {
            id: id.into(),
            sandbox_id: sandbox.id.clone(),
            name: config.name.clone(),
            attempt: config.attempt,
            image: config.image.clone(),
            image_id: image.id.clone(),
            image_ref: image.reference.clone(),
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
            created_at_ns: sys::now_ns(),
            log_path: sandbox.config.log_directory.join(&config.log_path),
            resources: config.resources.clone(),
            termination_message_file,
            status: ContainerStatus::default(),
        },
        stop_signal: stop_signal.cloned().unwrap_or_else(|| "SIGTERM".into()),
        tty: config.tty,
        stdin: config.stdin,
        stdin_once: config.stdin_once,
        own_pid_namespace: !namespaces.host_pid
            && !namespaces.share_process_namespace
            && config.pid_target.is_none(),
        pid_target: config.pid_target.clone(),
        privileged: config.security.privileged,
        devices: config.devices.clone(),
        cgroup,
    }
}

fn set_mode(path: &Path, mode: u32) -> Result<(), RuntimeError> {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
        .map_err(at("change the mode of", path))
}

/// Not waiting for the disk: after a crash of the machine the container would not run anyway.
fn write(path: &Path, value: &impl serde::Serialize) -> Result<(), RuntimeError> {
    layout::write_json(path, value, false).map_err(at("write", path))
}
