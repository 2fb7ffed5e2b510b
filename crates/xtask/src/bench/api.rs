//! What the API serves, with `hey` as the client and etcd beside.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::json;

use super::site::{Site, brought, output};
use super::{Row, percentiles, seconds};

const CLIENTS: &str = "64";
const OBJECTS: u32 = 20_000;
const READS: u32 = 60_000;
const LISTS: usize = 20;
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// What `hey` saw.
struct Load {
    a_second: f64,
    p99: Duration,
}

pub fn run() -> Result<Vec<Row>> {
    let site = Site::new()?;
    site.up()?;
    let token = token(&site)?;
    let endpoint = site.status()?["endpoint"].as_str().context("the status has an endpoint")?.to_owned();
    let value = "x".repeat(1_000);
    let body = site.scratch().join("body.json");
    std::fs::write(&body, json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "c-"}, "data": {"v": value}}).to_string())?;

    let header = format!("Authorization: Bearer {token}");
    let cost = |requests: u32, more: &[&str], path: &str| -> Result<(Load, Duration)> {
        let before = site.cpu()?;
        let load = hey(requests, &[&["-H", &header], more].concat(), &format!("{endpoint}{path}"))?;
        Ok((load, (site.cpu()? - before) / requests))
    };
    let body = body.to_string_lossy().into_owned();
    let (creates, create_cpu) = cost(OBJECTS, &["-m", "POST", "-T", "application/json", "-D", &body], MAPS)?;
    let name = first_name(&site)?;
    let (reads, read_cpu) = cost(READS, &[], &format!("{MAPS}/{name}"))?;
    let before = site.memory_bytes()?;
    let (list, list_cpu) = lists(&site)?;
    let grown = site.memory_bytes()?.saturating_sub(before);
    let puts = etcd_puts(site.scratch(), &value)?;
    let micros = |time: Duration| format!("{} µs", time.as_micros());
    let load = |load: &Load| format!("{:.0} a second, p99 {}", load.a_second, seconds(load.p99));
    Ok(vec![
        Row {
            figure: "durable creates of 1 KB ConfigMaps, 64 clients, TLS".into(),
            value: load(&creates),
            cpu: micros(create_cpu),
            peer: format!("etcd, puts through its JSON gateway, no TLS: {}", load(&puts)),
            reach: "10,000 a second, p99 15 ms",
        },
        Row {
            figure: "reads of one object, 64 clients, TLS".into(),
            value: load(&reads),
            cpu: micros(read_cpu),
            peer: String::new(),
            reach: "20,000 a second",
        },
        Row {
            figure: format!("list of {OBJECTS} × 1 KB, p50"),
            value: format!("{}, {:.1} MB more afterwards", seconds(list), grown as f64 / 1e6),
            cpu: micros(list_cpu),
            peer: String::new(),
            reach: "30 ms, 40 MB",
        },
    ])
}

/// Of an account that may do everything: hey shows no certificates.
fn token(site: &Site) -> Result<String> {
    site.post(
        "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
        &json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "bench"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
            "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": "default"}]}),
    )?;
    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
    let answer = site.post("/api/v1/namespaces/default/serviceaccounts/default/token", &request)?;
    Ok(answer["status"]["token"].as_str().context("a token")?.to_owned())
}

fn first_name(site: &Site) -> Result<String> {
    let list: serde_json::Value =
        serde_json::from_str(&output(&mut site.curl(&format!("{MAPS}?limit=1"))?)?)?;
    Ok(list["items"][0]["metadata"]["name"].as_str().context("an object")?.to_owned())
}

fn hey(requests: u32, more: &[&str], url: &str) -> Result<Load> {
    let mut hey = Command::new(brought("hey"));
    // What it shows as the server's name is its Host, where an address with a port is none and is refused.
    hey.args(["-host", "localhost", "-n", &requests.to_string(), "-c", CLIENTS]).args(more).arg(url);
    let report = output(&mut hey)?;
    if !report.lines().any(|line| ["[200]", "[201]"].iter().any(|code| line.trim_start().starts_with(code))) {
        bail!("hey had no success: {report}");
    }
    let number =
        |line: &str, word: usize| line.split_whitespace().nth(word).and_then(|word| word.parse::<f64>().ok());
    let find = |text: &str| report.lines().map(str::trim).find(|line| line.starts_with(text));
    let a_second = find("Requests/sec:").and_then(|line| number(line, 1)).context("hey's rate")?;
    let p99 = find("99%").and_then(|line| number(line, 2)).context("hey's 99th percentile")?;
    Ok(Load { a_second, p99: Duration::from_secs_f64(p99) })
}

/// curl's own start is part of it; the time is curl's, from the request to the last byte.
fn lists(site: &Site) -> Result<(Duration, Duration)> {
    let before = site.cpu()?;
    let mut times = Vec::new();
    for _ in 0..LISTS {
        let mut curl = site.curl(MAPS)?;
        curl.args(["-o", "/dev/null", "-w", "%{time_pretransfer} %{time_total}"]);
        let said = output(&mut curl)?;
        let numbers: Vec<f64> = said.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let [begun, ended] = numbers.as_slice() else { bail!("curl said {said}") };
        times.push(Duration::from_secs_f64(ended - begun));
    }
    Ok((percentiles(times).0, (site.cpu()? - before) / LISTS as u32))
}

/// The same number of values, put by as many clients.
fn etcd_puts(scratch: &Path, value: &str) -> Result<Load> {
    let port = free_port()?;
    let mut etcd = Command::new("etcd");
    etcd.arg("--data-dir").arg(scratch.join("etcd")).args(["--log-level", "error"]);
    etcd.args(["--listen-client-urls", &format!("http://127.0.0.1:{port}")]);
    etcd.args(["--advertise-client-urls", &format!("http://127.0.0.1:{port}")]);
    etcd.args(["--listen-peer-urls", &format!("http://127.0.0.1:{}", free_port()?)]);
    let mut child = etcd
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("start etcd")?;
    let load = put_all(port, scratch, value);
    child.kill().and_then(|()| child.wait()).context("stop etcd")?;
    load
}

fn put_all(port: u16, scratch: &Path, value: &str) -> Result<Load> {
    let deadline = Instant::now() + Duration::from_secs(10);
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        anyhow::ensure!(Instant::now() < deadline, "etcd does not answer");
        std::thread::sleep(Duration::from_millis(20));
    }
    // Both are base64, which these letters happen to be.
    let body = scratch.join("put.json");
    std::fs::write(&body, json!({"key": "YmVuY2g=", "value": value}).to_string())?;
    let body = body.to_string_lossy().into_owned();
    hey(
        OBJECTS,
        &["-m", "POST", "-T", "application/json", "-D", &body],
        &format!("http://127.0.0.1:{port}/v3/kv/put"),
    )
}

fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
