//! One machine: started, found again, stopped, deleted.

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use netlink::netns::{self, NetNs};
use netlink::sysctl;
use plan::net::Cidr;
use rustix::process::Signal;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::init::Boot;
use crate::process::Process;
use crate::site::{lock, remove_dir, remove_file};
use crate::{Error, Limits, Result, Site, cgroup};

/// What a machine is made of. It is written down, so that a restart of the host brings the same machine back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineSpec {
    pub link: Link,
    /// Its host name; its own name if it has no other.
    #[serde(default)]
    pub hostname: Option<String>,
    /// What its first process keeps running, absolute in the machine: `/usr/bin/ekso node …`.
    pub command: Vec<String>,
    #[serde(default)]
    pub env: Vec<(String, String)>,
    /// Folders and files of the host that the machine sees.
    #[serde(default)]
    pub binds: Vec<Bind>,
    #[serde(default)]
    pub limits: Limits,
    /// The DNS servers of its resolv.conf.
    #[serde(default)]
    pub nameservers: Vec<Ipv4Addr>,
    /// More lines of its /etc/hosts.
    #[serde(default)]
    pub hosts: Vec<(Ipv4Addr, String)>,
    /// How long the command may take to end on SIGTERM before all is killed.
    #[serde(default = "default_grace")]
    pub stop_grace_ms: u64,
}

/// A machine's place in the network: the primary interface of a VPC's that is its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// The VPC's id.
    pub vpc: String,
    /// The primary private address of one of the VPC's interfaces.
    pub address: Ipv4Addr,
    /// The range of that interface's subnet.
    pub subnet: Cidr,
}

fn default_grace() -> u64 {
    10_000
}

/// A bind mount of the machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bind {
    /// On the host; must exist.
    pub source: PathBuf,
    /// Absolute, in the machine; made if absent.
    pub target: PathBuf,
    pub read_only: bool,
}

/// A machine that runs: its first process, in the host's numbering.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Running {
    pub pid: u32,
}

/// A machine of a site, running or not, perhaps not made yet.
#[derive(Clone, Debug)]
pub struct Machine {
    site: Site,
    name: String,
    dir: PathBuf,
}

/// A machine's name is a DNS label, as it is its host name.
pub(crate) fn valid_name(name: &str) -> bool {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=63).contains(&name.len()) && name.bytes().all(fits) && !name.starts_with('-') && !name.ends_with('-')
}

impl Machine {
    pub(crate) fn new(site: &Site, name: &str) -> Result<Self> {
        if !valid_name(name) {
            let why = "it must be a DNS label";
            return Err(Error::Name { what: "machine", name: name.into(), why });
        }
        Ok(Self { site: site.clone(), name: name.to_owned(), dir: site.machine_dir(name) })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// The site that it is of.
    pub fn site(&self) -> &Site {
        &self.site
    }

    /// Its root on the host: files survive restarts of the machine.
    pub fn root(&self) -> PathBuf {
        self.dir.join("root")
    }

    /// Its network namespace's pin.
    pub fn netns_path(&self) -> PathBuf {
        self.site.netns_path(&self.name)
    }

    /// Its log on the host: what its first process and its command write.
    pub fn log(&self) -> PathBuf {
        self.root().join(crate::init::LOG)
    }

    /// As it was last started; none if it never was.
    pub fn spec(&self) -> Result<Option<MachineSpec>> {
        read_json(&self.dir.join("spec.json"))
    }

    /// Its first process; none if it does not run.
    pub fn running(&self) -> Option<Running> {
        let process = self.process().filter(|process| process.is_running())?;
        Some(Running { pid: process.pid })
    }

    /// What becomes readable when its first process, the one that runs now, has ended; none if it does not run.
    pub fn end(&self) -> Result<Option<OwnedFd>> {
        let Some(process) = self.process() else { return Ok(None) };
        let fail = |source| Error::Process { name: self.name.clone(), pid: process.pid, source };
        process.handle().map_err(fail)
    }

    fn process(&self) -> Option<Process> {
        Process::read(&self.dir.join("pid.json"))
    }

    /// Starts the machine, or does nothing if it runs. Its VPC must have been applied, with the interface of its link.
    /// What an earlier start left half-made is cleared away first.
    pub fn start(&self, spec: &MachineSpec) -> Result<Running> {
        let _lock = self.lock()?;
        // One whose start was not seen to its end may be on its way out: it is cleared away with the rest.
        if let Some(running) = self.running().filter(|_| !self.boot_path().exists()) {
            return Ok(running);
        }
        self.clear()?;
        write_json(&self.dir.join("spec.json"), spec)?;
        let started = self.boot(spec);
        if started.is_err() {
            self.clear()?;
        }
        started
    }

    fn boot(&self, spec: &MachineSpec) -> Result<Running> {
        let ns = NetNs::ensure(self.netns_path())?;
        self.site.attach(&ns, &spec.link)?;
        netns::run_in(&ns, || sysctl::set("net.ipv4.ip_forward", "1"))??;

        let boot = Boot {
            hostname: spec.hostname.clone().unwrap_or_else(|| self.name.clone()),
            root: self.root(),
            netns: self.netns_path(),
            groups: cgroup::create(&self.site.group(), &self.name, spec.limits)?,
            pid_file: self.dir.join("pid.json"),
            starter: std::process::id(),
            spec: spec.clone(),
        };
        let path = self.boot_path();
        let bytes =
            serde_json::to_vec(&boot).map_err(|source| Error::Record { path: path.clone(), source })?;
        files::write(&path, 0o600, &bytes)?;

        let mut command = Command::new("/proc/self/exe");
        command.arg("machine-init").arg(&path).stdin(Stdio::null()).stdout(Stdio::null());
        let output = command.output().map_err(Error::file("run", "/proc/self/exe machine-init"))?;
        let fail = |why: String| Error::Start { name: self.name.clone(), why };
        if !output.status.success() {
            let why = String::from_utf8_lossy(&output.stderr);
            return Err(fail(format!("{} ({})", why.trim(), output.status)));
        }
        remove_file(&path)?;
        let log = self.log();
        self.running().ok_or_else(|| fail(format!("its first process ended; see {}", log.display())))
    }

    /// What its first process is told; there as long as it is being started.
    fn boot_path(&self) -> PathBuf {
        self.dir.join("boot.json")
    }

    /// Has a command that waits to be started again, after it failed several times in a row, started at once.
    pub fn nudge(&self) -> Result<()> {
        let Some(process) = self.process() else { return Ok(()) };
        let fail = |source| Error::Process { name: self.name.clone(), pid: process.pid, source };
        process.signal(Signal::USR1).map_err(fail)
    }

    /// Asks the command to end, then ends all processes of the machine. Its files stay.
    pub fn stop(&self) -> Result<()> {
        if !self.dir.exists() {
            return Ok(());
        }
        let _lock = self.lock()?;
        self.terminate()?;
        self.clear()
    }

    /// The orderly part: SIGTERM to the first process, which passes it on.
    fn terminate(&self) -> Result<()> {
        let Some(process) = self.process() else { return Ok(()) };
        let fail = |source| Error::Process { name: self.name.clone(), pid: process.pid, source };
        let grace = Duration::from_millis(self.spec()?.map_or(0, |spec| spec.stop_grace_ms));
        process.signal(Signal::TERM).map_err(fail)?;
        process.wait(grace).map_err(fail)?;
        Ok(())
    }

    /// Stops the machine and removes all of it. Absent is fine.
    pub fn delete(&self) -> Result<()> {
        self.stop()?;
        remove_dir(&self.dir)
    }

    /// Ends every process of the machine and removes its namespace, link and groups.
    fn clear(&self) -> Result<()> {
        if let Some(process) = self.process() {
            let fail = |source| Error::Process { name: self.name.clone(), pid: process.pid, source };
            process.signal(Signal::KILL).map_err(fail)?;
            process.wait(Duration::from_secs(30)).map_err(fail)?;
        }
        cgroup::remove(&Path::new(&self.site.group()).join(&self.name))?;
        if let Some(spec) = self.spec()? {
            self.site.detach(&spec.link)?;
        }
        netns::remove(&self.netns_path())?;
        remove_file(&self.dir.join("pid.json"))?;
        remove_file(&self.boot_path())
    }

    /// One at a time starts or stops a machine.
    fn lock(&self) -> Result<File> {
        fs::create_dir_all(&self.dir).map_err(Error::file("create", &self.dir))?;
        lock(&self.dir.join("lock"))
    }
}

/// Absent is none.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|source| Error::Record { path: path.to_owned(), source }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::file("read", path)(error)),
    }
}

pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let bytes =
        serde_json::to_vec_pretty(value).map_err(|source| Error::Record { path: path.to_owned(), source })?;
    Ok(files::write(path, 0o600, &bytes)?)
}
