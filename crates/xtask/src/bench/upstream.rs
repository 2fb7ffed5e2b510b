//! Upstream's own API server beside ours, where it is built: what a row is measured with on Ekso is then done to it too.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::runtime::Runtime;

use super::Row;
use super::client::Api;
use super::site::{Site, cpu, pss_bytes};
use crate::servers::{Upstream, output};

const TOKEN: &str = "bench";

/// An API server that is measured.
pub struct Server {
    pub api: Api,
    who: Who,
}

enum Who {
    Ekso(Site),
    Upstream { server: Upstream, _keys: tempfile::TempDir },
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

/// Measures Ekso, then upstream's server, if `make bench` has built it. What is not measured beside says so.
pub fn compared(measure: fn(&Server, &Runtime) -> Result<Vec<Figure>>) -> Result<Vec<Row>> {
    let runtime = Runtime::new()?;
    let ours = measure(&Server::ekso()?, &runtime)?;
    let theirs = if Upstream::is_there() {
        eprintln!("… and of kube-apiserver");
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
        let mut peer = measured.unwrap_or_else(|| "kube-apiserver: not built, see PEER=1".to_owned());
        if !figure.published.is_empty() {
            peer += &format!("; published: {}", figure.published);
        }
        let Figure { figure, value, cpu, reach, .. } = figure;
        Row { figure, value, cpu, peer, reach }
    };
    Ok(ours.into_iter().map(row).collect())
}

/// A part of so many, for a run that only shows that it ends: `BENCH_SHARE=100` is a hundredth.
pub fn share(count: u32) -> u32 {
    let told = std::env::var("BENCH_SHARE").ok().and_then(|text| text.parse::<u32>().ok());
    // Each of the readers at once has something to do.
    (count / told.unwrap_or(1).max(1)).max(count.min(20))
}

impl Server {
    fn ekso() -> Result<Self> {
        let site = Site::new()?;
        site.up()?;
        Ok(Self { api: site.api()?, who: Who::Ekso(site) })
    }

    fn upstream(runtime: &Runtime) -> Result<Self> {
        let keys = tempfile::Builder::new().prefix("ekso-bench-").tempdir().context("make a folder")?;
        let at = |name: &str| keys.path().join(name);
        output(Command::new("openssl").args(["genrsa", "-out"]).arg(at("sa.key")).arg("2048"))?;
        std::fs::write(at("tokens"), format!("{TOKEN},admin,admin,system:masters\n"))?;
        let flags = [
            format!("--service-account-key-file={}", at("sa.key").display()),
            format!("--service-account-signing-key-file={}", at("sa.key").display()),
            format!("--token-auth-file={}", at("tokens").display()),
            "--service-account-issuer=https://kubernetes.default.svc".into(),
            "--service-cluster-ip-range=10.0.0.0/24".into(),
            "--disable-admission-plugins=ServiceAccount".into(),
        ];
        let server = runtime.block_on(Upstream::start(&flags))?;
        let api = Api::new(server.door(None)?, TOKEN);
        Ok(Self { api, who: Who::Upstream { server, _keys: keys } })
    }

    /// CPU time used so far, of everything that belongs to it.
    pub fn cpu(&self) -> Result<Duration> {
        match &self.who {
            Who::Ekso(site) => site.cpu(),
            Who::Upstream { server, .. } => Ok(server.processes().into_iter().map(cpu).sum()),
        }
    }

    /// Memory of everything that belongs to it.
    pub fn memory_bytes(&self) -> Result<u64> {
        match &self.who {
            Who::Ekso(site) => site.memory_bytes(),
            Who::Upstream { server, .. } => Ok(server.processes().into_iter().map(pss_bytes).sum()),
        }
    }
}
