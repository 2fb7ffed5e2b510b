//! What the API serves, with `hey` and curl as the clients and etcd beside.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::site::Site;
use super::{Load, Row, etcd, micros, percentiles, seconds};
use crate::servers::{brought, output};

const CLIENTS: u32 = 64;
const OBJECTS: u32 = 20_000;
const PODS: u32 = 10_000;
const READS: u32 = 60_000;
const LISTS: u32 = 40;
const VALUE_BYTES: usize = 1_000;
const MAPS_PATH: &str = "/api/v1/namespaces/default/configmaps";
const PODS_PATH: &str = "/api/v1/namespaces/default/pods";
/// How kubectl asks for a list to print.
const TABLE: &str = "Accept: application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

const CROWD: u32 = 400;

pub fn run() -> Result<Vec<Row>> {
    let client = Client::new()?;
    let map = map();
    let (creates, create_cpu) = client.create(OBJECTS, MAPS_PATH, &map)?;
    let name = client.first_name()?;
    let (reads, read_cpu) = client.cost(READS, &[], &format!("{MAPS_PATH}/{name}"))?;
    let crowd = ["-c", &CROWD.to_string()];
    let (crowded, crowded_cpu) = client.cost(READS, &crowd, &format!("{MAPS_PATH}/{name}"))?;
    let before = client.site.memory_bytes()?;
    let (list, list_cpu) = client.lists(MAPS_PATH, &[])?;
    let grown = client.site.memory_bytes()?.saturating_sub(before);
    let pods = client.pods()?;
    let (puts, put_cpu) = etcd::puts(&client.site.scratch().join("etcd"), OBJECTS, CLIENTS, VALUE_BYTES)?;
    let peer = format!("etcd, puts by gRPC, as many clients, no TLS: {puts}, {} of CPU", micros(put_cpu));
    let row = |figure: String, value, cpu, peer, reach| Row { figure, value, cpu: micros(cpu), peer, reach };
    let mut rows = vec![
        row(
            format!("durable creates of 1 KB ConfigMaps, {CLIENTS} clients, TLS"),
            creates.to_string(),
            create_cpu,
            peer,
            "10,000 a second, p99 15 ms",
        ),
        row(
            format!("reads of one object, {CLIENTS} clients, TLS"),
            reads.to_string(),
            read_cpu,
            String::new(),
            "20,000 a second",
        ),
        row(
            format!("the same, {CROWD} clients"),
            crowded.to_string(),
            crowded_cpu,
            String::new(),
            "a figure",
        ),
        row(
            format!("list of {OBJECTS} × 1 KB, p50"),
            format!("{}, {:.1} MB more afterwards", seconds(list), grown as f64 / 1e6),
            list_cpu,
            String::new(),
            "30 ms, 40 MB",
        ),
    ];
    rows.extend(pods);
    Ok(rows)
}

fn map() -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "c-"}, "data": {"v": "x".repeat(VALUE_BYTES)}})
}

/// Speaks to the API as an account that may do everything: hey shows no certificates.
struct Client {
    site: Site,
    header: String,
    endpoint: String,
}

impl Client {
    fn new() -> Result<Self> {
        let site = Site::new()?;
        site.up()?;
        let header = format!("Authorization: Bearer {}", site.token()?);
        Ok(Self { header, endpoint: site.endpoint()?, site })
    }

    /// hey's requests, and the CPU time that Ekso took for one.
    fn cost(&self, requests: u32, more: &[&str], path: &str) -> Result<(Load, Duration)> {
        let before = self.site.cpu()?;
        let load =
            hey(requests, &[&["-H", &self.header], more].concat(), &format!("{}{path}", self.endpoint))?;
        Ok((load, (self.site.cpu()? - before) / requests))
    }

    fn create(&self, count: u32, path: &str, object: &Value) -> Result<(Load, Duration)> {
        let body = self.site.scratch().join("body.json");
        std::fs::write(&body, object.to_string())?;
        self.cost(count, &["-m", "POST", "-T", "application/json", "-D", &body.to_string_lossy()], path)
    }

    fn first_name(&self) -> Result<String> {
        let first = output(&mut self.site.curl(&format!("{MAPS_PATH}?limit=1"))?)?;
        let list: Value = serde_json::from_str(&first)?;
        Ok(list["items"][0]["metadata"]["name"].as_str().context("an object")?.to_owned())
    }

    /// How long one list takes, the middle of many, and the CPU time that Ekso took for one.
    /// The time is curl's, from the request to the last byte.
    fn lists(&self, path: &str, more: &[&str]) -> Result<(Duration, Duration)> {
        let before = self.site.cpu()?;
        let mut times = Vec::new();
        for _ in 0..LISTS {
            let mut curl = self.site.curl(path)?;
            curl.args(["-o", "/dev/null", "-w", "%{time_pretransfer} %{time_total}"]).args(more);
            let said = output(&mut curl)?;
            let numbers: Vec<f64> = said.split_whitespace().filter_map(|word| word.parse().ok()).collect();
            let [begun, ended] = numbers.as_slice() else { bail!("curl said {said}") };
            times.push(Duration::from_secs_f64(ended - begun));
        }
        Ok((percentiles(times).0, (self.site.cpu()? - before) / LISTS))
    }

    /// Pods that a gate holds back, so that nothing but the API works on them.
    fn pods(&self) -> Result<Vec<Row>> {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "p-", "labels": {"app": "bench"}},
            "spec": {"schedulingGates": [{"name": "bench.example.com/held"}],
                "containers": [{"name": "c", "image": "bench:1", "env": [{"name": "A", "value": "1"}],
                    "resources": {"requests": {"cpu": "1m", "memory": "1Mi"}}, "ports": [{"containerPort": 80}]}]}});
        let (creates, create_cpu) = self.create(PODS, PODS_PATH, &pod)?;
        let (list, list_cpu) = self.lists(PODS_PATH, &[])?;
        let (table, table_cpu) = self.lists(PODS_PATH, &["-H", TABLE])?;
        let row = |figure: String, value, cpu| Row {
            figure,
            value,
            cpu: micros(cpu),
            peer: String::new(),
            reach: "a figure",
        };
        Ok(vec![
            row(format!("durable creates of pods, {CLIENTS} clients, TLS"), creates.to_string(), create_cpu),
            row(format!("list of {PODS} pods, p50: bodies as they are stored"), seconds(list), list_cpu),
            row(
                format!("list of {PODS} pods, p50: the table that kubectl prints"),
                seconds(table),
                table_cpu,
            ),
        ])
    }
}

fn hey(requests: u32, more: &[&str], url: &str) -> Result<Load> {
    let mut hey = Command::new(brought("hey"));
    // What it shows as the server's name is its Host, where an address with a port is none and is refused.
    hey.args(["-host", "localhost", "-n", &requests.to_string(), "-c", &CLIENTS.to_string()])
        .args(more)
        .arg(url);
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
