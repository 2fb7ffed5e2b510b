//! Sites, clusters and namespaces for the stories.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::clients::{
    Answer, aws_binary, brought_folder, ekso_binary, kubectl_binary, python_binary, run, tool,
};
use crate::leftovers::leftovers;

/// What everything comes about in, on two busy cores.
pub const PATIENCE: Duration = Duration::from_secs(120);
const APPLETS: &[&str] = &[
    "cat",
    "chmod",
    "date",
    "dd",
    "echo",
    "env",
    "false",
    "grep",
    "head",
    "hostname",
    "httpd",
    "id",
    "kill",
    "ls",
    "mkdir",
    "nc",
    "nslookup",
    "ps",
    "sh",
    "sha256sum",
    "sleep",
    "stat",
    "tail",
    "tar",
    "test",
    "touch",
    "trap",
    "true",
    "wc",
    "wget",
    "yes",
];

/// Looks until there is something to see. `None` says that it is not there yet, and an error that it never will be.
pub fn until<T>(what: &str, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(seen) = look()? {
            return Ok(seen);
        }
        ensure!(Instant::now() < deadline, "{what}: it did not come within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A data folder and a kubeconfig of a test's own.
pub struct Site {
    scratch: TempDir,
    /// Kept past the site's end, to look for what it left.
    id: std::sync::OnceLock<String>,
}

impl Site {
    pub fn new() -> Result<Self> {
        let scratch = tempfile::Builder::new().prefix("ekso-e2e-").tempdir().context("make a folder")?;
        Ok(Self { scratch, id: std::sync::OnceLock::new() })
    }

    pub fn dir(&self) -> PathBuf {
        self.scratch.path().join("site")
    }

    /// A place for a story's own files.
    pub fn scratch(&self) -> &Path {
        self.scratch.path()
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.scratch.path().join("kubeconfig")
    }

    /// `ekso` with these words and this site.
    pub fn command(&self, words: &str) -> Result<Command> {
        let mut command = Command::new(ekso_binary()?);
        command
            .args(words.split_whitespace())
            .env("EKSO_DATA_DIR", self.dir())
            .env("KUBECONFIG", self.kubeconfig())
            .envs(self.aws_files());
        Ok(command)
    }

    /// Where AWS's tools, and Ekso for them, keep the profile of this site.
    pub fn aws_files(&self) -> [(&'static str, PathBuf); 2] {
        let aws = self.scratch.path().join("aws");
        [("AWS_CONFIG_FILE", aws.join("config")), ("AWS_SHARED_CREDENTIALS_FILE", aws.join("credentials"))]
    }

    /// A program that speaks to AWS, with the profile and nothing else of this host.
    pub fn for_aws(&self, program: PathBuf) -> Command {
        let mut command = Command::new(program);
        command.env_clear().envs(self.aws_files()).env("AWS_PROFILE", "ekso").env("AWS_PAGER", "");
        // Kubeconfigs name programs, not their places.
        command.env("PATH", format!("{}:/usr/local/bin:/usr/bin:/bin", brought_folder().display()));
        command.env("HOME", self.scratch()).env("KUBECONFIG", self.kubeconfig()).env("AWS_MAX_ATTEMPTS", "1");
        command
    }

    /// The stock `aws` with these words.
    pub fn aws(&self, words: &str) -> Result<Answer> {
        run(self.for_aws(aws_binary()?).args(words.split_whitespace()), "")
    }

    /// A story's script in Python, with boto3 and `prelude.py` at hand. `words` are the act, if it has several, and what that needs.
    pub fn act(&self, script: &str, words: &[&str]) -> Result<()> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stories");
        let mut python = self.for_aws(python_binary()?);
        // Without the bytecode, which it would leave in the source tree.
        python.arg("-B").arg(folder.join(script)).args(words);
        let places = [
            ("STORY_AWS", aws_binary()?),
            ("STORY_DATA", self.dir()),
            ("STORY_EKSO", ekso_binary()?),
            ("STORY_KUBECTL", kubectl_binary(36)?),
            ("STORY_SCRATCH", self.scratch().to_owned()),
        ];
        let told = run(python.envs(places), "")?;
        told.ok().map(drop).with_context(|| format!("{script} {}\n{}", words.join(" "), self.logs()))
    }

    pub fn ekso(&self, words: &str) -> Result<Answer> {
        let answer = run(&mut self.command(words)?, "")?;
        self.remember();
        Ok(answer)
    }

    /// Its id, to look for what it leaves.
    pub fn remember(&self) {
        let record = std::fs::read(self.dir().join("site.json")).ok();
        let id = record.and_then(|record| {
            serde_json::from_slice::<Value>(&record).ok()?["id"].as_str().map(str::to_owned)
        });
        if let Some(id) = id {
            self.id.get_or_init(|| id);
        }
    }

    /// The image `e2e:1` and `e2e:2`: busybox, and a file that says which.
    pub fn import_images(&self) -> Result<()> {
        let busybox = tool("busybox")?;
        for version in ["1", "2"] {
            let rootfs = self.scratch.path().join(format!("rootfs-{version}"));
            for folder in ["bin", "etc", "tmp", "www/cgi-bin"] {
                std::fs::create_dir_all(rootfs.join(folder))?;
            }
            std::fs::copy(&busybox, rootfs.join("bin/busybox"))?;
            for applet in APPLETS {
                std::os::unix::fs::symlink("busybox", rootfs.join("bin").join(applet))?;
            }
            std::fs::write(rootfs.join("www/version"), format!("version {version}\n"))?;
            let mut import = self.command("image import --cmd")?;
            import
                .arg("/bin/httpd -f -p 8080 -h /www")
                .arg("--rootfs")
                .arg(&rootfs)
                .arg(format!("e2e:{version}"));
            run(&mut import, "")?.ok()?;
        }
        Ok(())
    }

    /// A cluster named `name`, up, with the images. `options` go to `ekso up`.
    pub fn up(&self, name: &str, options: &str) -> Result<Cluster<'_>> {
        self.ekso(&format!("up --name {name} --api-port 0 --aws-port 0 {options}"))?.ok()?;
        self.import_images()?;
        Ok(Cluster { site: self, name: name.to_owned() })
    }

    /// Deletes a cluster, and demands that nothing is left when it was the last.
    pub fn delete(&self, name: &str) -> Result<()> {
        self.remember();
        self.ekso(&format!("delete --name {name}"))?.ok()?;
        self.is_gone()
    }

    /// Deletes every cluster, and demands that nothing is left.
    pub fn delete_all(&self) -> Result<()> {
        self.remember();
        self.ekso("delete --all")?.ok()?;
        self.is_gone()
    }

    pub fn is_gone(&self) -> Result<()> {
        let Some(id) = self.id.get() else { return Ok(()) };
        let left = leftovers(id, &self.dir())?;
        ensure!(left.is_empty(), "left on the host:\n  {}", left.join("\n  "));
        let config = std::fs::read_to_string(self.kubeconfig()).unwrap_or_default();
        ensure!(!config.contains("ekso-"), "left in the kubeconfig: {config}");
        let aws = self.scratch.path().join("aws");
        ensure!(!aws.exists(), "left of the AWS profile: {}", aws.display());
        Ok(())
    }

    /// The log of the daemon and those of the nodes, for who has to find out what went wrong.
    pub fn logs(&self) -> String {
        let mut paths = vec![self.dir().join("daemon.log")];
        let machines = std::fs::read_dir(self.dir().join("vpc/machines")).into_iter().flatten().flatten();
        paths.extend(machines.map(|machine| machine.path().join("root/var/log/ekso/node.log")));
        let tail = |path: &PathBuf| {
            let text = std::fs::read(path).unwrap_or_default();
            let text = String::from_utf8_lossy(&text).into_owned();
            let lines: Vec<&str> = text.lines().collect();
            format!("--- {}\n{}\n", path.display(), lines[lines.len().saturating_sub(30)..].join("\n"))
        };
        paths.iter().map(tail).collect()
    }
}

impl Drop for Site {
    /// A story that failed half-way leaves clusters; they go here.
    fn drop(&mut self) {
        let _ = self.ekso("delete --all");
    }
}

/// A cluster that runs.
pub struct Cluster<'a> {
    pub site: &'a Site,
    pub name: String,
}

impl Cluster<'_> {
    pub fn kubectl_command(&self, minor: u32, words: &str) -> Result<Command> {
        let mut command = Command::new(kubectl_binary(minor)?);
        command.env("KUBECONFIG", self.site.kubeconfig()).env("HOME", self.site.scratch());
        command.args(["--context", &format!("ekso-{}", self.name)]).args(words.split_whitespace());
        Ok(command)
    }

    /// What kubectl 1.36 prints for these words.
    pub fn kubectl(&self, words: &str) -> Result<String> {
        run(&mut self.kubectl_command(36, words)?, "")?.ok()
    }

    pub fn status(&self) -> Result<Value> {
        let text = self.site.ekso(&format!("status --name {} -o json", self.name))?.ok()?;
        serde_json::from_str(&text).context("read the status")
    }

    /// Where the host reaches the ports of the nodes.
    pub fn node_addresses(&self) -> Result<Vec<IpAddr>> {
        let status = self.status()?;
        let nodes = status["nodes"].as_array().context("the status has nodes")?;
        let address = |node: &Value| node["externalIp"].as_str().unwrap_or_default().parse();
        nodes.iter().map(|node| address(node).with_context(|| format!("the address of {node}"))).collect()
    }

    /// The processes of this cluster's control plane: the site's daemon.
    pub fn daemon_pid(&self) -> Result<i32> {
        let wanted = self.site.dir();
        let wanted = wanted.canonicalize().context("the site's folder")?;
        process_with(&["server", "--daemon", &wanted.to_string_lossy()])
    }

    /// The process of a node's agent, not that of its machine's first process.
    pub fn node_pid(&self, node: &str) -> Result<i32> {
        let public =
            self.status()?["nodes"].as_array().into_iter().flatten().find(|one| one["name"] == node).cloned();
        let public = public.with_context(|| format!("there is no node {node}"))?["externalIp"].clone();
        process_with(&["node", "--server", "--external-ip", public.as_str().unwrap_or_default()])
    }
}

/// The one process of Ekso's whose command line has all of these words.
fn process_with(words: &[&str]) -> Result<i32> {
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        let has = |word: &&str| line.split('\0').any(|part| part == *word);
        if words.iter().all(has) && !line.contains("machine-init") && !line.contains("pod-monitor") {
            return Ok(pid);
        }
    }
    bail!("no process was started with {words:?}")
}

/// A namespace of a story's own.
pub struct Room<'a> {
    pub cluster: &'a Cluster<'a>,
    pub namespace: String,
}

impl Room<'_> {
    pub fn command(&self, words: &str) -> Result<Command> {
        self.cluster.kubectl_command(36, &format!("-n {} {words}", self.namespace))
    }

    pub fn try_kubectl(&self, words: &str) -> Result<Answer> {
        run(&mut self.command(words)?, "")
    }

    pub fn kubectl(&self, words: &str) -> Result<String> {
        self.try_kubectl(words)?.ok()
    }

    /// Runs a shell's script in a pod, `pod` or `deployment/name`, and gives what it prints.
    pub fn sh(&self, target: &str, script: &str) -> Result<String> {
        run(self.command(&format!("exec {target} -- sh -c"))?.arg(script), "")?.ok()
    }

    /// Applies a manifest.
    pub fn apply(&self, manifest: &str) -> Result<()> {
        run(&mut self.command("apply -f -")?, manifest)?.ok().map(drop)
    }

    /// A field of objects, by jsonpath without spaces.
    pub fn field(&self, target: &str, path: &str) -> Result<String> {
        self.kubectl(&format!("get {target} -o jsonpath={path}"))
    }

    pub fn json(&self, target: &str) -> Result<Value> {
        serde_json::from_str(&self.kubectl(&format!("get {target} -o json"))?).context("read JSON")
    }

    /// Waits for a rollout, and for the Service's endpoints to be those pods.
    pub fn rolled_out(&self, target: &str) -> Result<()> {
        self.kubectl(&format!("rollout status {target} --timeout=120s")).map(drop)
    }

    /// `kubectl wait` for a condition such as `condition=Ready`, `delete`, `jsonpath={.status.phase}=Running`.
    pub fn wait(&self, target: &str, condition: &str) -> Result<()> {
        self.kubectl(&format!("wait {target} --for={condition} --timeout=120s")).map(drop)
    }

    /// Where a NodePort Service is on each node.
    pub fn node_ports(&self, service: &str) -> Result<Vec<SocketAddr>> {
        let port: u16 = self.field(&format!("service/{service}"), "{.spec.ports[0].nodePort}")?.parse()?;
        Ok(self.cluster.node_addresses()?.into_iter().map(|address| SocketAddr::new(address, port)).collect())
    }

    /// What there is to see when a story failed.
    pub fn describe(&self) -> String {
        let show = |words: &str| {
            self.try_kubectl(words).map(|answer| answer.stdout + &answer.stderr).unwrap_or_default()
        };
        show("get all,endpointslices -o wide") + &show("get events --sort-by=.lastTimestamp")
    }
}

/// A port of the loopback address that nobody listens on now.
pub fn free_port() -> Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("find a free port")?;
    Ok(listener.local_addr()?.port())
}
