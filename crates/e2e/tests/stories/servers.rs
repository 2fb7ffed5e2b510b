//! Several servers on one etcd: what one acknowledges all serve, and each component runs on one of them.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use e2e::{Answer, Etcd, PATIENCE, Running, Site, ekso_binary, free_port, kubectl_binary, run, start, until};
use serde_json::Value;

const REPLICAS: usize = 20;
const SERVICES: usize = 12;

/// `ekso server` with a data folder of its own.
struct Server<'a> {
    site: &'a Site,
    name: &'static str,
    process: Running,
}

impl<'a> Server<'a> {
    fn command(site: &'a Site, name: &str, port: u16, etcd: &Etcd) -> Result<Command> {
        let mut command = Command::new(ekso_binary()?);
        command.arg("server").arg("--data-dir").arg(site.scratch().join(name));
        command.args(["--listen", &format!("127.0.0.1:{port}"), "--store", &etcd.url()]);
        for (option, file) in
            [("--etcd-cafile", "ca.crt"), ("--etcd-certfile", "client.crt"), ("--etcd-keyfile", "client.key")]
        {
            command.arg(option).arg(etcd.folder().join(file));
        }
        Ok(command)
    }

    fn start(site: &'a Site, name: &'static str, etcd: &Etcd) -> Result<Self> {
        let port = free_port()?;
        let process =
            start(&mut Self::command(site, name, port, etcd)?, &site.scratch().join(format!("{name}.log")))?;
        let server = Self { site, name, process };
        until("the server is ready", || Ok(server.kubectl("get --raw /readyz").ok()))
            .context(server.log())?;
        Ok(server)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.site.scratch().join(format!("{}.log", self.name))).unwrap_or_default()
    }

    fn pki(site: &Site, name: &str) -> PathBuf {
        site.scratch().join(name).join("clusters/dev/pki")
    }

    fn try_kubectl(&self, words: &str, input: &str) -> Result<Answer> {
        kubectl(self.site, self.name, words, input)
    }

    fn kubectl(&self, words: &str) -> Result<String> {
        self.try_kubectl(words, "")?.ok()
    }

    fn holder(&self, lease: &str) -> Result<String> {
        self.kubectl(&format!("-n kube-system get lease {lease} -o jsonpath={{.spec.holderIdentity}}"))
    }
}

/// The leader is killed under load: nothing that it acknowledged is lost, the other one goes on in the Lease's time, and no pod, no
/// address and no port is there twice.
pub fn two_on_one_etcd() -> Result<()> {
    let site = Site::new()?;
    let etcd = Etcd::start_secured(site.scratch())?;
    let mut first = Server::start(&site, "first", &etcd)?;

    // A server with other keys than the cluster's is none of it.
    let mut alien = Server::command(&site, "second", free_port()?, &etcd)?;
    run(&mut alien, "")?.fails_with("copy ca.crt, ca.key and sa.key")?;
    for file in ["ca.crt", "ca.key", "sa.key"] {
        std::fs::copy(Server::pki(&site, "first").join(file), Server::pki(&site, "second").join(file))?;
    }
    // Nor is one in the folder of one that runs.
    run(&mut Server::command(&site, "first", free_port()?, &etcd)?, "")?
        .fails_with("another server runs with the keys in")?;
    let mut second = Server::start(&site, "second", &etcd)?;

    let leader = first.holder("kube-controller-manager")?;
    ensure!(leader == first.holder("kube-scheduler")?, "who was first leads");
    first.try_kubectl("create -f -", NODE)?.ok()?;
    let told = fail_over(&mut first, &second).and_then(|()| {
        ensure!(second.holder("kube-controller-manager")? != leader, "another one leads");
        // One that ends in order does not keep the others waiting.
        let first = Server::start(&site, "first", &etcd)?;
        let since = Instant::now();
        second.process.stop()?;
        until("the first leads again", || Ok((first.holder("kube-scheduler")? == leader).then_some(())))?;
        ensure!(since.elapsed() < PATIENCE / 10, "a Lease that was given back is taken at once");
        first.kubectl("create deployment after --image=none --replicas=2")?;
        until("its pods are bound", || Ok((bound(&first, "app=after")?.len() == 2).then_some(())))
    });
    told.with_context(|| format!("--- first\n{}\n--- second\n{}", first.log(), second.log()))
}

fn fail_over(first: &mut Server, second: &Server) -> Result<()> {
    let (is_over, next) = (AtomicBool::new(false), AtomicU32::new(0));
    let acknowledged: Mutex<Vec<u32>> = Mutex::default();
    let count = || acknowledged.lock().unwrap_or_else(PoisonError::into_inner).len();
    std::thread::scope(|scope| -> Result<()> {
        // Each writes to one of the servers.
        for name in [first.name, second.name] {
            let (site, is_over, next, acknowledged) = (second.site, &is_over, &next, &acknowledged);
            scope.spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let written = kubectl(site, name, &format!("create configmap kept-{number}"), "");
                    if written.is_ok_and(|answer| answer.code == 0) {
                        acknowledged.lock().unwrap_or_else(PoisonError::into_inner).push(number);
                    }
                }
            });
        }
        let told = (|| {
            make_services(&*first, second)?;
            second.kubectl(&format!("create deployment web --image=none --replicas={REPLICAS}"))?;
            until("writes are acknowledged", || Ok((count() > 4).then_some(())))?;
            until("some pods are bound", || Ok((!bound(second, "app=web")?.is_empty()).then_some(())))?;
            first.process.kill()?;
            // Meanwhile there is work that only a leader does.
            second.kubectl("create deployment late --image=none --replicas=3")?;
            let before = count();
            until("the other serves on", || Ok((count() > before + 2).then_some(())))?;
            until("all pods are bound", || {
                let all =
                    bound(second, "app=web")?.len() == REPLICAS && bound(second, "app=late")?.len() == 3;
                Ok(all.then_some(()))
            })
        })();
        is_over.store(true, Ordering::Relaxed);
        told
    })?;
    let kept = second.kubectl("get configmaps -o jsonpath={.items[*].metadata.name}")?;
    let kept: BTreeSet<&str> = kept.split_whitespace().collect();
    let acknowledged = acknowledged.into_inner().unwrap_or_else(PoisonError::into_inner);
    let lost: Vec<_> =
        acknowledged.iter().filter(|number| !kept.contains(&*format!("kept-{number}"))).collect();
    ensure!(lost.is_empty(), "of {} acknowledged writes these are lost: {lost:?}", acknowledged.len());
    no_double_pods(second)
}

/// kubectl, speaking to the server of this name.
fn kubectl(site: &Site, server: &str, words: &str, input: &str) -> Result<Answer> {
    let mut command = Command::new(kubectl_binary(36)?);
    let config = site.scratch().join(server).join("clusters/dev/admin.kubeconfig");
    command.env("KUBECONFIG", config).env("HOME", site.scratch());
    run(command.args(words.split_whitespace()), input)
}

/// The names of the pods that have a node.
fn bound(server: &Server, selector: &str) -> Result<Vec<String>> {
    let shown = "jsonpath={range.items[?(@.spec.nodeName)]}{.metadata.name}{\"\\n\"}{end}";
    let names = server.kubectl(&format!("get pods -l {selector} -o {shown}"))?;
    Ok(names.lines().map(str::to_owned).collect())
}

/// By both servers at once.
fn make_services(first: &Server, second: &Server) -> Result<()> {
    std::thread::scope(|scope| {
        let by = |server: &Server, from: usize| -> Result<()> {
            (from..SERVICES).step_by(2).try_for_each(|number| {
                server.kubectl(&format!("create service nodeport s{number} --tcp=80")).map(drop)
            })
        };
        let other = scope.spawn(move || by(second, 1));
        by(first, 0)?;
        other.join().map_err(|_| anyhow::anyhow!("a writer panicked"))?
    })?;
    let services: Value = serde_json::from_str(&second.kubectl("get services -o json")?)?;
    let services = services["items"].as_array().context("services")?;
    let mut held: HashMap<String, usize> = HashMap::new();
    for spec in services.iter().map(|service| &service["spec"]) {
        *held.entry(spec["clusterIP"].to_string()).or_default() += 1;
        if let Some(port) = spec["ports"][0]["nodePort"].as_u64() {
            *held.entry(port.to_string()).or_default() += 1;
        }
    }
    held.retain(|_, times| *times > 1);
    ensure!(held.is_empty() && services.len() == SERVICES + 1, "held twice: {held:?}");
    Ok(())
}

fn no_double_pods(server: &Server) -> Result<()> {
    let pods: Value = serde_json::from_str(&server.kubectl("get pods -o json")?)?;
    let pods = pods["items"].as_array().context("pods")?;
    ensure!(pods.len() == REPLICAS + 3, "{} pods instead of {}", pods.len(), REPLICAS + 3);
    let sets = server.kubectl("get replicasets -o jsonpath={.items[*].spec.replicas}")?;
    let mut sets: Vec<&str> = sets.split_whitespace().collect();
    sets.sort_unstable();
    ensure!(sets == ["20", "3"], "replica sets of {sets:?}");
    Ok(())
}

/// Nobody runs it, and nothing on it runs.
const NODE: &str = r#"{"apiVersion": "v1", "kind": "Node", "metadata": {"name": "hollow"},
    "status": {"capacity": {"cpu": "64", "memory": "64Gi", "pods": "110"},
        "allocatable": {"cpu": "64", "memory": "64Gi", "pods": "110"},
        "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "hollow"}]}}"#;
