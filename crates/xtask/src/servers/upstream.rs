//! Upstream's own API server, compiled by `need_kube_apiserver` of the scripts, alone with an etcd.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::{Connection, Door, Identity, brought, etcd, free_port};

/// kube-apiserver and the etcd behind it; they end with this value.
pub struct Upstream {
    child: Child,
    etcd: etcd::Server,
    folder: tempfile::TempDir,
    port: u16,
}

impl Drop for Upstream {
    fn drop(&mut self) {
        // Failing means that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Upstream {
    pub fn is_there() -> bool {
        brought("kube-apiserver").exists() && brought("etcd-of-kubernetes").exists()
    }

    /// Starts it with these flags, besides those that any needs, and waits until it is ready.
    pub async fn start(flags: &[String]) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("ekso-peer-").tempdir().context("make a folder")?;
        let etcd = etcd::Server::start(&brought("etcd-of-kubernetes"), &folder.path().join("etcd"))?;
        let port = free_port()?;
        let mut server = Command::new(brought("kube-apiserver"));
        server.arg(format!("--etcd-servers=http://{}", etcd.address()));
        server.arg(format!("--secure-port={port}"));
        server.arg(format!("--cert-dir={}", folder.path().join("certificates").display()));
        server.args([
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            "--authorization-mode=Node,RBAC",
        ]);
        server.args(flags);
        let log = std::fs::File::create(folder.path().join("log"))?;
        let child = server.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn();
        let mut upstream = Self { child: child.context("start kube-apiserver")?, etcd, folder, port };
        let deadline = Instant::now() + Duration::from_secs(90);
        while upstream.readiness().await? != 200 {
            ensure!(upstream.child.try_wait()?.is_none(), "it has ended: {}", upstream.last_words());
            ensure!(Instant::now() < deadline, "it is not ready: {}", upstream.last_words());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(upstream)
    }

    /// What it answers to whoever asks whether it is ready; 0 if it does not yet.
    async fn readiness(&self) -> Result<u16> {
        if !self.certificate().exists() {
            return Ok(0);
        }
        let door = self.door(None)?;
        let Ok(mut connection) = Connection::open(&door).await else { return Ok(0) };
        let asked = connection.ask(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        Ok(asked.map_or(0, |head| head.code))
    }

    fn certificate(&self) -> PathBuf {
        self.folder.path().join("certificates/apiserver.crt")
    }

    pub fn door(&self, identity: Option<&Identity>) -> Result<Door> {
        Door::new(&self.certificate(), self.port, identity)
    }

    /// Its process and etcd's.
    pub fn processes(&self) -> [u32; 2] {
        [self.child.id(), self.etcd.pid()]
    }

    fn last_words(&self) -> String {
        let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().rev().take(3).collect();
        lines.join(" | ")
    }
}
