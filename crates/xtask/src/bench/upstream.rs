//! Upstream's own API server beside ours, where it is built: what a row is measured with on Ekso is then done to it too.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::runtime::Runtime;

use super::client::{Api, Request};
use super::site::{Site, brought, cpu, output, pss_bytes};
use super::{Row, etcd};

const TOKEN: &str = "bench";

/// An API server that is measured.
pub struct Server {
    pub api: Api,
    who: Who,
}

enum Who {
    Ekso(Site),
    Upstream(Upstream),
}

/// kube-apiserver and the etcd behind it; they end with this value.
struct Upstream {
    child: Child,
    etcd: etcd::Server,
    folder: tempfile::TempDir,
}

impl Drop for Upstream {
    fn drop(&mut self) {
        // Failing means that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What one figure came to on one server.
pub struct Figure {
    pub figure: String,
    pub value: String,
    /// For one operation; empty if that means nothing.
    pub cpu: String,
    /// What is known of upstream elsewhere.
    pub published: &'static str,
    pub reach: &'static str,
}

/// Measures Ekso, then upstream's server, if `make bench` has built it.
pub fn compared(measure: fn(&Server, &Runtime) -> Result<Vec<Figure>>) -> Result<Vec<Row>> {
    let runtime = Runtime::new()?;
    let ours = measure(&Server::ekso()?, &runtime)?;
    let theirs = if brought("kube-apiserver").exists() {
        measure(&Server::upstream(&runtime)?, &runtime).context("kube-apiserver")?
    } else {
        Vec::new()
    };
    let mut theirs = theirs.into_iter();
    let row = |figure: Figure| {
        let measured = theirs.next().map(|theirs| match &*theirs.cpu {
            "" => format!("kube-apiserver: {}", theirs.value),
            cpu => format!("kube-apiserver: {}, {cpu} of CPU", theirs.value),
        });
        let published = (!figure.published.is_empty()).then(|| format!("published: {}", figure.published));
        let peer: Vec<String> = measured.into_iter().chain(published).collect();
        let Figure { figure, value, cpu, reach, .. } = figure;
        Row { figure, value, cpu, peer: peer.join("; "), reach }
    };
    Ok(ours.into_iter().map(row).collect())
}

impl Server {
    fn ekso() -> Result<Self> {
        let site = Site::new()?;
        site.up()?;
        Ok(Self { api: site.api()?, who: Who::Ekso(site) })
    }

    fn upstream(runtime: &Runtime) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("ekso-bench-").tempdir().context("make a folder")?;
        let at = |name: &str| folder.path().join(name);
        let etcd = etcd::Server::start(&brought("etcd-of-kubernetes"), &at("etcd"))?;
        let port = etcd::free_port()?;
        output(Command::new("openssl").args(["genrsa", "-out"]).arg(at("sa.key")).arg("2048"))?;
        std::fs::write(at("tokens"), format!("{TOKEN},admin,admin,system:masters\n"))?;
        let mut server = Command::new(brought("kube-apiserver"));
        server.arg(format!("--etcd-servers={}", etcd.url())).arg(format!("--secure-port={port}"));
        for (flag, file) in [
            ("cert-dir", "certificates"),
            ("service-account-key-file", "sa.key"),
            ("service-account-signing-key-file", "sa.key"),
            ("token-auth-file", "tokens"),
        ] {
            server.arg(format!("--{flag}={}", at(file).display()));
        }
        server.args([
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--service-cluster-ip-range=10.0.0.0/24",
            "--authorization-mode=Node,RBAC",
            "--disable-admission-plugins=ServiceAccount",
        ]);
        let log = std::fs::File::create(at("log"))?;
        let child = server.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn();
        let mut upstream = Upstream { child: child.context("start kube-apiserver")?, etcd, folder };
        let certificate = upstream.folder.path().join("certificates/apiserver.crt");
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            if certificate.exists() {
                let api = Api::new(&certificate, port, TOKEN)?;
                let ready = runtime.block_on(async {
                    let request = Request::get("/api/v1/namespaces/default");
                    api.client().await?.ask(&request).await
                });
                if ready.is_ok() {
                    return Ok(Self { api, who: Who::Upstream(upstream) });
                }
            }
            ensure!(upstream.child.try_wait()?.is_none(), "it has ended: {}", upstream.last_words());
            ensure!(Instant::now() < deadline, "it is not ready: {}", upstream.last_words());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// So many for Ekso. Upstream's server gets fewer where a run of the benchmark would take too long.
    pub fn at_most(&self, count: u32, for_upstream: u32) -> u32 {
        match self.who {
            Who::Ekso(_) => count,
            Who::Upstream(_) => count.min(for_upstream),
        }
    }

    /// CPU time used so far, of everything that belongs to it.
    pub fn cpu(&self) -> Result<Duration> {
        match &self.who {
            Who::Ekso(site) => site.cpu(),
            Who::Upstream(upstream) => Ok(cpu(upstream.child.id()) + cpu(upstream.etcd.pid())),
        }
    }

    /// Memory of everything that belongs to it.
    pub fn memory_bytes(&self) -> Result<u64> {
        match &self.who {
            Who::Ekso(site) => site.memory_bytes(),
            Who::Upstream(upstream) => Ok(pss_bytes(upstream.child.id()) + pss_bytes(upstream.etcd.pid())),
        }
    }
}

impl Upstream {
    fn last_words(&self) -> String {
        let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().rev().take(3).collect();
        lines.join(" | ")
    }
}
