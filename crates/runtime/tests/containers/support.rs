//! A node of its own for each test, and the look around afterwards.

use plan::node::*;
use runtime::{ExecOutput, Options, Runtime};
use rustix::process::{Pid, Signal, kill_process};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Everything that is waited for comes long before this on any machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

#[rustfmt::skip]
const APPLETS: [&str; 35] = [
    "cat", "chroot", "dd", "echo", "env", "false", "grep", "head", "hostname", "id", "kill", "ls", "mkdir", "mknod",
    "mount", "nproc", "printf", "ps", "pwd", "readlink", "seq", "sh", "sleep", "stat", "stty", "sync", "tail", "test", "touch", "true", "tty",
    "umount", "unshare", "wc", "yes",
];

pub struct Node {
    pub runtime: Runtime,
    pub directory: tempfile::TempDir,
    pub cgroup: String,
}

/// The image of all tests: busybox and three users.
fn make_layer(layer: &Path) {
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].map(Path::new).into_iter().find(|path| path.exists());
    let busybox = busybox.expect("these tests run busybox; install it: apt-get install -y busybox-static");
    for directory in ["bin", "etc", "tmp", "home/web"] {
        std::fs::create_dir_all(layer.join(directory)).unwrap();
    }
    std::fs::copy(busybox, layer.join("bin/busybox")).unwrap();
    for applet in APPLETS {
        std::os::unix::fs::symlink("busybox", layer.join("bin").join(applet)).unwrap();
    }
    std::fs::write(
        layer.join("etc/passwd"),
        "root:x:0:0::/root:/bin/sh\nweb:x:1000:1000::/home/web:/bin/sh\n",
    )
    .unwrap();
    std::fs::write(layer.join("etc/group"), "root:x:0:\nweb:x:1000:\nextra:x:44:web\n").unwrap();
    std::fs::write(layer.join("bin/garbage"), "\u{1}not a program").unwrap();
    std::fs::write(layer.join("etc/plain"), "text").unwrap();
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(layer.join("bin/garbage"), std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::set_permissions(layer.join("tmp"), std::fs::Permissions::from_mode(0o1777)).unwrap();
}

/// The runtime of the node in `directory`; a second one on the same directory is the node's process started again.
pub fn runtime_in(directory: &Path, cgroup: &str) -> Runtime {
    runtime_with(directory, cgroup, Path::new(MONITOR))
}

pub const MONITOR: &str = env!("CARGO_BIN_EXE_runtime-test-monitor");

pub fn runtime_with(directory: &Path, cgroup: &str, monitor: &Path) -> Runtime {
    let mut options = Options::new(directory.join("root"), directory.join("run"), cgroup);
    options.monitor = vec![monitor.into(), "pod-monitor".into()];
    Runtime::new(options).expect("these tests need root, cgroups and overlayfs")
}

impl Node {
    pub fn new() -> Node {
        static NODES: AtomicU32 = AtomicU32::new(0);
        let cgroup = format!("ekso-test-{}-{}", std::process::id(), NODES.fetch_add(1, Ordering::Relaxed));
        let directory = tempfile::tempdir().unwrap();
        make_layer(&directory.path().join("layer"));
        Node { runtime: runtime_in(directory.path(), &cgroup), directory, cgroup }
    }

    pub async fn sandbox(&self, name: &str) -> Sandbox {
        self.sandbox_with(name, |_| {}).await
    }

    pub async fn sandbox_with(&self, name: &str, change: impl FnOnce(&mut SandboxConfig)) -> Sandbox {
        let mut config = SandboxConfig {
            pod_uid: format!("uid-{name}"),
            namespace: "default".into(),
            name: name.into(),
            hostname: name.into(),
            log_directory: self.directory.path().join("logs").join(name),
            cgroup_parent: format!("kubepods/pod{name}"),
            ..Default::default()
        };
        change(&mut config);
        self.runtime.run_sandbox(config).await.unwrap()
    }

    pub async fn create(&self, sandbox: &Sandbox, change: impl FnOnce(&mut ContainerConfig)) -> Container {
        let mut config =
            ContainerConfig { name: "c".into(), log_path: "c/0.log".into(), ..Default::default() };
        change(&mut config);
        let image = ImageConfig { cmd: vec!["sleep".into(), "1000".into()], ..Default::default() };
        let layers = vec![self.directory.path().join("layer")];
        self.runtime.create_container(&sandbox.id, config, image, layers).await.unwrap()
    }

    pub async fn start(&self, sandbox: &Sandbox, change: impl FnOnce(&mut ContainerConfig)) -> Container {
        let container = self.create(sandbox, change).await;
        self.runtime.start_container(&container.id).await.unwrap();
        container
    }

    /// Runs a shell script as a container of its own to its end.
    pub async fn run(
        &self,
        sandbox: &Sandbox,
        script: &str,
        change: impl FnOnce(&mut ContainerConfig),
    ) -> Ran {
        let container = self
            .start(sandbox, |config| {
                config.command = sh(script);
                change(config);
            })
            .await;
        let status = self.exit(&container.id).await;
        let log = std::fs::read_to_string(&container.log_path).unwrap();
        self.runtime.remove_container(&container.id).await.unwrap();
        std::fs::remove_file(&container.log_path).unwrap();
        Ran { status, log }
    }

    /// Waits until a container has exited.
    pub async fn exit(&self, id: &str) -> ContainerStatus {
        exit(&self.runtime, id).await
    }

    pub async fn exec(&self, container: &Container, script: &str) -> ExecOutput {
        self.runtime.exec_sync(&container.id, sh(script), Some(PATIENCE), 1 << 20).await.unwrap()
    }

    /// Removes everything, and sees that nothing is left.
    pub async fn finish(self) {
        for sandbox in self.runtime.list().sandboxes {
            self.runtime.remove_sandbox(&sandbox.id).await.unwrap();
        }
        self.assert_clean();
    }

    pub fn assert_clean(self) {
        let path = self.directory.path().to_str().unwrap().to_string();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(&path), "mounts are left in {path}:\n{mounts}");
        let groups = remove_groups(&self.cgroup);
        assert!(groups.iter().all(|group| group.ends_with("kubepods")), "cgroups are left: {groups:?}");
        for directory in ["root/sandboxes", "run"] {
            let left: Vec<_> = std::fs::read_dir(self.directory.path().join(directory)).unwrap().collect();
            assert!(left.is_empty(), "files are left: {left:?}");
        }
        let left = processes_with(&path);
        assert!(left.is_empty(), "processes are left: {left:?}");
    }
}

/// A test that fails leaves nothing behind either.
impl Drop for Node {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let path = self.directory.path().to_str().unwrap_or_default();
        for process in processes_with(path) {
            let pid = process.split(':').next().and_then(|pid| pid.parse().ok()).and_then(Pid::from_raw);
            // The containers go with their monitor.
            let _ = pid.map(|pid| kill_process(pid, Signal::KILL));
        }
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        for mount in
            mounts.lines().rev().filter_map(|line| line.split(' ').nth(4)).filter(|at| at.starts_with(path))
        {
            let _ = rustix::mount::unmount(mount, rustix::mount::UnmountFlags::DETACH);
        }
        // Once the last process is gone.
        for _ in 0..1000 {
            let groups = remove_groups(&self.cgroup);
            if groups.is_empty() {
                return;
            }
            for group in groups {
                let _ = std::fs::write(group.join("cgroup.kill"), "1");
            }
            std::thread::yield_now();
        }
    }
}

/// Waits until a container has exited.
pub async fn exit(runtime: &Runtime, id: &str) -> ContainerStatus {
    let mut events = runtime.events();
    let wait = async {
        loop {
            let status = runtime.container(id).unwrap().status;
            if status.state == ContainerState::Exited {
                return status;
            }
            events.recv().await.unwrap();
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("the container did not exit")
}

pub struct Ran {
    pub status: ContainerStatus,
    pub log: String,
}

impl Ran {
    /// The lines of the log without their times.
    pub fn lines(&self) -> Vec<&str> {
        self.log.lines().map(|line| line.split_once(' ').unwrap().1).collect()
    }

    /// What was printed on standard output.
    pub fn text(&self) -> String {
        let text = |line: &str| line.strip_prefix("stdout F ").map(|text| format!("{text}\n"));
        self.lines().into_iter().filter_map(text).collect()
    }
}

pub fn sh(script: &str) -> Vec<String> {
    ["sh", "-c", script].map(String::from).to_vec()
}

/// The empty parents of pods' groups belong to the machine; whoever ends it removes them. Returns what there was below.
fn remove_groups(root: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    for mount in mounts.lines().filter(|line| line.contains(" - cgroup")) {
        let mount = Path::new(mount.split(' ').nth(4).unwrap());
        find_groups(mount, root, 0, &mut found);
    }
    found
}

fn find_groups(directory: &Path, root: &str, depth: u32, found: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        if entry.file_name() == root {
            collect(&entry.path(), found);
            let _ = std::fs::remove_dir(entry.path());
        } else if depth < 4 {
            find_groups(&entry.path(), root, depth + 1, found);
        }
    }
}

fn collect(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap().flatten() {
        if entry.file_type().unwrap().is_dir() {
            collect(&entry.path(), found);
            found.push(entry.path());
            let _ = std::fs::remove_dir(entry.path());
        }
    }
}

/// Processes that have `text` in their command or, as monitors do, in the path of their log.
fn processes_with(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        let log = std::fs::read_link(entry.path().join("fd/2")).unwrap_or_default();
        if line.contains(text) || log.to_string_lossy().contains(text) {
            found.push(format!("{}: {line}", entry.file_name().display()));
        }
    }
    found
}

/// The monitor of a sandbox of this node.
pub fn monitor_pid(sandbox: &Sandbox) -> i32 {
    let found = processes_with(&sandbox.id);
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].split(':').next().unwrap().parse().unwrap()
}
