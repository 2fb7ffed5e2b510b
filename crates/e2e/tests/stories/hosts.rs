//! `ekso server` on one host and `ekso node` on two others.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use e2e::{Answer, Host, Lan, Running, Site, Wanted, ekso_binary, issue, kubectl_binary, run, until};
use serde_json::Value;

/// A server and its nodes.
struct Cluster {
    lan: Lan,
    server: Host,
    /// What runs on the server's host.
    _serving: Running,
    token: String,
    /// The folder of images, which the hosts have from the same disk.
    images: String,
}

impl Cluster {
    fn start(site: &Site) -> Result<Self> {
        let lan = Lan::new("h")?;
        let server = lan.host(1, site.scratch())?;
        let listen = format!("{}:6443", server.address);
        let ekso = ekso_binary()?;
        let serving = server.boot(&[
            &ekso.to_string_lossy(),
            "server",
            "--data-dir",
            &server.folder.join("data").to_string_lossy(),
            "--listen",
            &listen,
        ])?;
        let token = until("the server prints a token", || {
            let log = server.log();
            Ok(log
                .split("--token ")
                .nth(1)
                .and_then(|rest| rest.split_whitespace().next())
                .map(str::to_owned))
        })
        .with_context(|| server.log())?;
        let images = site.dir().join("images").to_string_lossy().into_owned();
        Ok(Self { lan, server, _serving: serving, token, images })
    }

    fn url(&self) -> String {
        format!("https://{}:6443", self.server.address)
    }

    /// What makes a host a node.
    fn node_words(&self, host: &Host, token: &str) -> Result<Vec<String>> {
        let (ekso, folder) = (ekso_binary()?, host.folder.join("node"));
        let words = [&*ekso.to_string_lossy(), "node", "--server", &self.url(), "--token", token];
        let folders =
            ["--root-dir", &*folder.to_string_lossy(), "--image-dir", &self.images].map(str::to_owned);
        Ok(words.into_iter().map(str::to_owned).chain(folders).collect())
    }

    fn boot(&self, host: &Host) -> Result<Running> {
        let words = self.node_words(host, &self.token)?;
        host.boot(&words.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn try_kubectl(&self, words: &[&str], input: &str) -> Result<Answer> {
        let mut command = self.server.command(&kubectl_binary(36)?)?;
        command.env("KUBECONFIG", self.server.folder.join("data/clusters/dev/admin.kubeconfig"));
        run(command.env("HOME", &self.server.folder).args(words), input)
    }

    fn kubectl(&self, words: &str) -> Result<String> {
        self.try_kubectl(&words.split_whitespace().collect::<Vec<_>>(), "")?.ok()
    }

    fn sh(&self, pod: &str, script: &str) -> Result<String> {
        self.try_kubectl(&["exec", pod, "--", "sh", "-c", script], "")?.ok()
    }

    fn ready(&self, node: &str) -> Result<String> {
        self.kubectl(&format!(
            "get node {node} -o jsonpath={{.status.conditions[?(@.type=='Ready')].status}}"
        ))
    }
}

pub fn tell() -> Result<()> {
    let site = Site::new()?;
    site.import_images()?;
    let cluster = Cluster::start(&site)?;
    let hosts = [cluster.lan.host(2, site.scratch())?, cluster.lan.host(3, site.scratch())?];
    let told = refused(&cluster, &hosts[0]).and_then(|()| joined(&cluster, &hosts));
    told.with_context(|| {
        let logs = [&cluster.server, &hosts[0], &hosts[1]].map(|host| {
            let (log, name) = (host.log(), &host.name);
            let lines: Vec<&str> = log.lines().collect();
            format!("--- {name}\n{}\n", lines[lines.len().saturating_sub(40)..].join("\n"))
        });
        logs.concat()
    })
}

/// Who has no good token is told so, and makes nothing.
fn refused(cluster: &Cluster, host: &Host) -> Result<()> {
    let mut parts: Vec<&str> = cluster.token.split('.').collect();
    let pin = parts.pop().context("a pin")?;
    let past = "apiVersion: v1\nkind: Secret\ntype: bootstrap.kubernetes.io/token\n\
        metadata: {name: bootstrap-token-aaaaaa, namespace: kube-system}\n\
        stringData: {token-id: aaaaaa, token-secret: bbbbbbbbbbbbbbbb, usage-bootstrap-authentication: 'true', \
        expiration: '2020-01-01T00:00:00Z'}\n";
    cluster.try_kubectl(&["create", "-f", "-"], past)?.ok()?;
    let other_pin: String = pin.chars().rev().collect();
    for (token, says) in [
        (
            format!("aaaaaa.bbbbbbbbbbbbbbbb.{pin}"),
            "the cluster does not know the join token, or it has expired",
        ),
        (format!("{}.cccccccccccccccc.{pin}", parts[0]), "the cluster does not know the join token"),
        (
            format!("{}.{other_pin}", parts.join(".")),
            "the server is not of the cluster that the token is for",
        ),
        ("nonsense".to_owned(), "the join token is malformed"),
    ] {
        let words = cluster.node_words(host, &token)?;
        let mut command = host.command(Path::new(&words[0]))?;
        run(command.args(&words[1..]), "")?.fails_with(says)?;
    }
    ensure!(cluster.kubectl("get nodes,csr -o name")?.is_empty(), "a refused host leaves something");
    Ok(())
}

fn joined(cluster: &Cluster, hosts: &[Host; 2]) -> Result<()> {
    let mut first = cluster.boot(&hosts[0])?;
    let mut second = cluster.boot(&hosts[1])?;
    for host in hosts {
        until("the node joins", || {
            Ok((cluster.ready(&host.name).ok().as_deref() == Some("True")).then_some(()))
        })?;
    }
    for (name, node) in [("a", "host-2"), ("b", "host-3")] {
        let pod = pod(name, node).to_string();
        cluster.try_kubectl(&["create", "-f", "-"], &pod)?.ok()?;
    }
    cluster.kubectl("wait pod/a pod/b --for=condition=Ready --timeout=60s")?;
    cluster.kubectl("expose pod b --name=b --port=80 --target-port=8080")?;
    let b = cluster.kubectl("get pod b -o jsonpath={.status.podIP}")?;
    // From host to host: by address, by a Service's name, and logs and exec from the server.
    ensure!(cluster.sh("a", &format!("wget -qO- http://{b}:8080/version"))? == "version 1\n", "by address");
    let service = cluster.kubectl("get service b -o jsonpath={.spec.clusterIP}")?;
    // Debian's busybox has a wget whose time limit crashes.
    let ask = format!(
        "nslookup b.default.svc.cluster.local | grep {service} && \
         echo 'GET /version HTTP/1.0\n' | nc -w 5 {service} 80 | grep version"
    );
    until("the Service answers", || Ok(cluster.sh("a", &ask).ok()))?;
    cluster.kubectl("logs b")?;

    lost_and_found(cluster, &hosts[1], &mut second, &ask)?;
    rotation(cluster, &hosts[0], &mut first)
}

/// A node whose plug is pulled is NotReady after its grace, and back as it was; so is one that has lost its power.
fn lost_and_found(cluster: &Cluster, host: &Host, running: &mut Running, ask: &str) -> Result<()> {
    let id = |pod: &str| {
        cluster.kubectl(&format!("get pod {pod} -o jsonpath={{.status.containerStatuses[0].containerID}}"))
    };
    let before = id("b")?;
    cluster.lan.plug(3, false)?;
    until("the node is lost", || Ok((cluster.ready(&host.name)? == "Unknown").then_some(())))?;
    let told = cluster.kubectl(&format!("get node {} -o jsonpath={{.spec.taints[*].key}}", host.name))?;
    ensure!(told.contains("node.kubernetes.io/unreachable"), "taints {told}");
    ensure!(cluster.ready("host-2")? == "True", "the other is not concerned");
    cluster.lan.plug(3, true)?;
    until("the node is back", || Ok((cluster.ready(&host.name)? == "True").then_some(())))?;
    ensure!(id("b")? == before, "its pods went on");
    until("it is reached again", || Ok(cluster.sh("a", ask).ok()))?;

    running.kill()?;
    *running = cluster.boot(host)?;
    until("its pods are started anew", || {
        let is_new = id("b")? != before;
        Ok((is_new && cluster.sh("a", ask).is_ok()).then_some(()))
    })
    .map(drop)
}

/// Certificates that end soon are renewed while the node runs.
fn rotation(cluster: &Cluster, host: &Host, running: &mut Running) -> Result<()> {
    let pki = host.folder.join("node/pki");
    let kept = |file: &str| std::fs::read(pki.join(file)).with_context(|| format!("read {file}"));
    running.kill()?;
    for (file, usage) in [("client.pem", "clientAuth"), ("server.pem", "serverAuth")] {
        std::fs::write(pki.join(file), short_lived(cluster, host, usage)?)?;
    }
    let before = [kept("client.pem")?, kept("server.pem")?];
    *running = cluster.boot(host)?;
    for (file, before) in ["client.pem", "server.pem"].into_iter().zip(before) {
        until(&format!("{file} is renewed"), || Ok((kept(file)? != before).then_some(())))?;
    }
    // The files come before the words.
    let told = || host.log().matches("a certificate of this node was renewed").count();
    until("both are told of", || Ok((told() >= 2).then_some(())))?;
    ensure!(told() == 2, "both, once");
    // With the new ones the node speaks to the server, and the server to the node.
    cluster.try_kubectl(&["create", "-f", "-"], &pod("c", &host.name).to_string())?.ok()?;
    cluster.kubectl("wait pod/c --for=condition=Ready --timeout=60s")?;
    ensure!(cluster.sh("c", "echo reached")? == "reached\n", "the server reaches the node");
    Ok(())
}

/// A certificate of the cluster's own authority that has used up most of its life, with its key.
fn short_lived(cluster: &Cluster, host: &Host, usage: &str) -> Result<String> {
    let wanted = Wanted {
        subject: &format!("/O=system:nodes/CN=system:node:{}", host.name),
        usage,
        names: &format!("DNS:{},IP:{}", host.name, host.address),
        from: "-80 seconds",
        to: "+30 seconds",
    };
    let pki = cluster.server.folder.join("data/clusters/dev/pki");
    let issued = issue(&pki, &host.folder.join(usage), &wanted)?;
    Ok(std::fs::read_to_string(issued.certificate)? + &std::fs::read_to_string(issued.key)?)
}

fn pod(name: &str, node: &str) -> Value {
    serde_json::json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"nodeName": node, "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "c", "image": "e2e:1", "ports": [{"containerPort": 8080}]}]}})
}
