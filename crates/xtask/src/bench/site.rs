//! A cluster of the benchmark's own, and what its processes cost.

use std::cell::OnceCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::client::Api;
use crate::servers::{Door, brought, output};

/// A site in a temporary folder, deleted with this value.
pub struct Site {
    scratch: tempfile::TempDir,
    /// Asked for once: asking costs the daemon some time.
    endpoint: OnceCell<String>,
}

impl Site {
    pub fn new() -> Result<Self> {
        let scratch = tempfile::Builder::new().prefix("ekso-bench-").tempdir().context("make a folder")?;
        Ok(Self { scratch, endpoint: OnceCell::new() })
    }

    pub fn scratch(&self) -> &Path {
        self.scratch.path()
    }

    fn dir(&self) -> PathBuf {
        self.scratch.path().join("site")
    }

    pub fn ekso(&self, words: &str) -> Command {
        let mut command = Command::new(brought("ekso"));
        command.args(words.split_whitespace()).env("EKSO_DATA_DIR", self.dir());
        command.env("KUBECONFIG", self.scratch.path().join("kubeconfig"));
        command.env("AWS_CONFIG_FILE", self.scratch.path().join("aws/config"));
        command.env("AWS_SHARED_CREDENTIALS_FILE", self.scratch.path().join("aws/credentials"));
        command
    }

    /// The root of a container: busybox alone.
    pub fn rootfs(&self) -> Result<PathBuf> {
        let rootfs = self.scratch.path().join("rootfs");
        if !rootfs.exists() {
            fs::create_dir_all(rootfs.join("bin"))?;
            let busybox =
                ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
            fs::copy(
                busybox.context("busybox is missing: `make bench` installs it")?,
                rootfs.join("bin/busybox"),
            )?;
            for applet in ["sh", "sleep", "true"] {
                std::os::unix::fs::symlink("busybox", rootfs.join("bin").join(applet))?;
            }
        }
        Ok(rootfs)
    }

    pub fn import_image(&self) -> Result<()> {
        let mut import = self.ekso("image import --rootfs");
        import.arg(self.rootfs()?).args(["--cmd", "/bin/sleep 100000", "bench:1"]);
        output(&mut import).map(drop)
    }

    pub fn up(&self) -> Result<()> {
        output(&mut self.ekso("up --name bench --api-port 0 --aws-port 0")).map(drop)
    }

    pub fn status(&self) -> Result<Value> {
        Ok(serde_json::from_str(&output(&mut self.ekso("status --name bench -o json"))?)?)
    }

    /// `https://127.0.0.1:6443`
    pub fn endpoint(&self) -> Result<String> {
        if let Some(known) = self.endpoint.get() {
            return Ok(known.clone());
        }
        let status = self.status()?;
        let endpoint = status["endpoint"].as_str().context("the status has an endpoint")?;
        Ok(self.endpoint.get_or_init(|| endpoint.to_owned()).clone())
    }

    /// The cluster's keys and certificates.
    pub fn pki(&self) -> PathBuf {
        self.dir().join("clusters/bench/pki")
    }

    /// The AWS account's endpoint and its administrator's key.
    pub fn access(&self) -> PathBuf {
        self.dir().join("aws/access.json")
    }

    /// A token of an account that may do everything, for clients that show no certificate.
    pub fn token(&self) -> Result<String> {
        self.post(
            "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
            &json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "bench"},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
                "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": "default"}]}),
        )?;
        let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
        let answer = self.post("/api/v1/namespaces/default/serviceaccounts/default/token", &request)?;
        Ok(answer["status"]["token"].as_str().context("a token")?.to_owned())
    }

    /// The API, as an account that may do everything.
    pub fn api(&self) -> Result<Api> {
        let endpoint = self.endpoint()?;
        let port = endpoint.rsplit(':').next().and_then(|port| port.parse().ok()).context("the port")?;
        let door = Door::new(&self.pki().join("ca.crt"), port, None)?;
        Ok(Api::new(door, &self.token()?))
    }

    /// curl as the administrator, for a path of the API.
    pub fn curl(&self, path: &str) -> Result<Command> {
        let (pki, endpoint) = (self.pki(), self.endpoint()?);
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--fail", "--no-buffer", "--cacert"]).arg(pki.join("ca.crt"));
        curl.arg("--cert").arg(pki.join("admin.crt")).arg("--key").arg(pki.join("admin.key"));
        curl.arg(format!("{endpoint}{path}"));
        Ok(curl)
    }

    /// Creates an object.
    pub fn post(&self, path: &str, object: &Value) -> Result<Value> {
        let mut curl = self.curl(path)?;
        curl.args(["-H", "Content-Type: application/json", "--data-binary", &object.to_string()]);
        Ok(serde_json::from_str(&output(&mut curl)?)?)
    }

    /// The daemon, the machines and all that runs in them.
    fn processes(&self) -> Result<Vec<u32>> {
        let record: Value = serde_json::from_slice(&fs::read(self.dir().join("site.json"))?)?;
        let group = format!("ekso-{}", record["id"].as_str().context("the site has an id")?);
        let folder = self.dir().to_string_lossy().into_owned();
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc")?.flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let text = |file: &str| {
                String::from_utf8_lossy(&fs::read(entry.path().join(file)).unwrap_or_default()).into_owned()
            };
            let command = text("cmdline");
            if text("cgroup").contains(&group) || (command.contains("--daemon") && command.contains(&folder))
            {
                found.push(pid);
            }
        }
        Ok(found)
    }

    /// CPU time that they have used so far.
    pub fn cpu(&self) -> Result<Duration> {
        Ok(self.processes()?.into_iter().map(cpu).sum())
    }

    /// Proportional set size of them all.
    pub fn memory_bytes(&self) -> Result<u64> {
        Ok(self.processes()?.into_iter().map(pss_bytes).sum())
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = output(&mut self.ekso("delete --all"));
    }
}

/// User and system time of a process: fields 14 and 15 of /proc/PID/stat, counted behind the command's name.
pub fn cpu(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let Some((_, rest)) = stat.rsplit_once(')') else { return Duration::ZERO };
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks: u64 = [11, 12].iter().filter_map(|at| fields.get(*at)?.parse::<u64>().ok()).sum();
    // USER_HZ is 100 on every machine that this runs on.
    Duration::from_millis(ticks * 10)
}

pub fn pss_bytes(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    line.and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()).unwrap_or(0) * 1_024
}
