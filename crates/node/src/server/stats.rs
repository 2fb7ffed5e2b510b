//! What the node says of itself and its pods: `/pods`, `/stats/summary`, `/metrics` and `/metrics/resource`.
//! <https://kubernetes.io/docs/reference/instrumentation/node-metrics/>

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Mutex, PoisonError};

use kinds::PODS;
use object::Time;
use plan::node::{CgroupStats, Container, ContainerState, Sandbox, SandboxState};
use serde_json::{Map, Value, json};

use super::Server;
use crate::clock;
use crate::ops::Tools;

/// The use of CPU at an earlier moment, by sandbox or container: two of these make a rate.
#[derive(Default)]
pub struct Rates(Mutex<BTreeMap<String, Sample>>);

#[derive(Clone, Copy)]
struct Sample {
    at_ns: i64,
    cpu_usage_ns: u64,
    nano_cores: Option<u64>,
}

/// A shorter time says little: the rate before is given again.
const RATE_PERIOD_NS: i64 = 1_000_000_000;

impl Rates {
    /// How much of a billionth of a CPU was used on average since the last question.
    fn nano_cores(&self, id: &str, stats: &CgroupStats) -> Option<u64> {
        let mut samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Sample { at_ns: stats.at_ns, cpu_usage_ns: stats.cpu_usage_ns, nano_cores: None };
        let Some(before) = samples.get_mut(id) else {
            samples.insert(id.to_owned(), now);
            return None;
        };
        let elapsed_ns = now.at_ns - before.at_ns;
        if elapsed_ns < RATE_PERIOD_NS {
            return before.nano_cores;
        }
        let used_ns = u128::from(now.cpu_usage_ns.saturating_sub(before.cpu_usage_ns));
        let rate = used_ns * 1_000_000_000 / u128::from(elapsed_ns.unsigned_abs());
        *before = Sample { nano_cores: u64::try_from(rate).ok(), ..now };
        before.nano_cores
    }

    fn retain(&self, is_there: impl Fn(&str) -> bool) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|id, _| is_there(id));
    }
}

/// One pod that runs, with what it and its containers have used.
struct PodStats {
    sandbox: Sandbox,
    stats: Option<CgroupStats>,
    containers: Vec<(Container, CgroupStats)>,
}

async fn gather(server: &Server) -> Vec<PodStats> {
    let runtime = &server.tools.runtime;
    let runtime::Listing { sandboxes, containers } = runtime.list();
    let mut pods = Vec::new();
    for sandbox in sandboxes.into_iter().filter(|one| one.state == SandboxState::Ready) {
        // One that goes meanwhile has nothing to say.
        let stats = runtime.sandbox_stats(&sandbox.id).await.ok().flatten();
        let mut of_pod = Vec::new();
        let is_here =
            |one: &&Container| one.sandbox_id == sandbox.id && one.status.state == ContainerState::Running;
        for container in containers.iter().filter(is_here) {
            if let Ok(Some(stats)) = runtime.container_stats(&container.id).await {
                of_pod.push((container.clone(), stats));
            }
        }
        pods.push(PodStats { sandbox, stats, containers: of_pod });
    }
    server.rates.retain(|id| {
        id.is_empty()
            || pods
                .iter()
                .any(|pod| pod.sandbox.id == id || pod.containers.iter().any(|(one, _)| one.id == id))
    });
    pods
}

/// The node as a whole, as its kernel counts.
fn node_stats() -> CgroupStats {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let memory = Memory::parse(&read("/proc/meminfo"));
    let at_ns = clock::now().as_micros().saturating_mul(1_000);
    CgroupStats {
        at_ns,
        cpu_usage_ns: cpu_usage_ns(&read("/proc/stat")),
        memory_usage_bytes: memory.total.saturating_sub(memory.free),
        memory_working_set_bytes: memory
            .total
            .saturating_sub(memory.free)
            .saturating_sub(memory.inactive_file),
        memory_rss_bytes: memory.anonymous,
        ..CgroupStats::default()
    }
}

/// `/proc/stat`'s first line counts hundredths of a second: user, nice, system, idle, iowait, irq, softirq, steal, and
/// guests, who are in user and nice already.
fn cpu_usage_ns(stat: &str) -> u64 {
    let first = stat.lines().next().unwrap_or_default();
    let ticks: Vec<u64> =
        first.split_whitespace().skip(1).take(8).filter_map(|word| word.parse().ok()).collect();
    let busy: u64 =
        ticks.iter().enumerate().filter(|(index, _)| !matches!(index, 3 | 4)).map(|(_, ticks)| ticks).sum();
    busy.saturating_mul(10_000_000)
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Memory {
    total: u64,
    free: u64,
    inactive_file: u64,
    anonymous: u64,
}

impl Memory {
    /// Of `/proc/meminfo`, into bytes.
    fn parse(text: &str) -> Self {
        let field = |name: &str| {
            let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            let kilobytes =
                value.and_then(|value| value.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
            kilobytes.unwrap_or(0).saturating_mul(1_024)
        };
        Self {
            total: field("MemTotal"),
            free: field("MemFree"),
            inactive_file: field("Inactive(file)"),
            anonymous: field("AnonPages"),
        }
    }
}

/// The pods of this node as a PodList.
pub fn pods(tools: &Tools) -> String {
    let snapshot = tools.mirror.snapshot();
    let mut text = String::from(r#"{"kind":"PodList","apiVersion":"v1","metadata":{},"items":["#);
    for (index, pod) in snapshot.list(PODS, "").enumerate() {
        if index > 0 {
            text.push(',');
        }
        text.push_str(&String::from_utf8_lossy(&pod.body));
    }
    text.push_str("]}");
    text
}

/// Upstream's `Summary`.
pub async fn summary(server: &Server) -> Value {
    let pods = gather(server).await;
    let node = node_stats();
    let facts = &server.tools.facts;
    let mut of_node = usage(&server.rates, "", &node);
    of_node.insert("nodeName".into(), json!(facts.name));
    of_node["memory"]["availableBytes"] =
        json!(facts.memory_bytes.saturating_sub(node.memory_working_set_bytes));
    let pods: Vec<Value> = pods.iter().map(|pod| pod_summary(&server.rates, pod)).collect();
    json!({"node": of_node, "pods": pods})
}

fn pod_summary(rates: &Rates, pod: &PodStats) -> Value {
    let config = &pod.sandbox.config;
    let of_container = |(container, stats): &(Container, CgroupStats)| {
        let mut value = usage(rates, &container.id, stats);
        value.insert("name".into(), json!(container.name));
        value.insert("startTime".into(), json!(time(container.status.started_at_ns)));
        Value::Object(value)
    };
    let containers: Vec<Value> = pod.containers.iter().map(of_container).collect();
    let mut value = pod.stats.map_or_else(Map::new, |stats| usage(rates, &pod.sandbox.id, &stats));
    value.insert(
        "podRef".into(),
        json!({"name": config.name, "namespace": config.namespace, "uid": config.pod_uid}),
    );
    value.insert("startTime".into(), json!(time(pod.sandbox.created_at_ns)));
    value.insert("containers".into(), json!(containers));
    if let Some(stats) = pod.stats {
        value.insert("process_stats".into(), json!({"process_count": stats.processes}));
    }
    Value::Object(value)
}

fn usage(rates: &Rates, id: &str, stats: &CgroupStats) -> Map<String, Value> {
    let at = time(stats.at_ns);
    let mut cpu = json!({"time": at, "usageCoreNanoSeconds": stats.cpu_usage_ns});
    if let Some(rate) = rates.nano_cores(id, stats) {
        cpu["usageNanoCores"] = json!(rate);
    }
    let memory = json!({
        "time": at, "usageBytes": stats.memory_usage_bytes, "workingSetBytes": stats.memory_working_set_bytes,
        "rssBytes": stats.memory_rss_bytes, "pageFaults": stats.page_faults, "majorPageFaults": stats.major_page_faults,
    });
    Map::from_iter([("cpu".to_owned(), cpu), ("memory".to_owned(), memory)])
}

fn time(ns: i64) -> Time {
    Time::from_micros(ns / 1_000)
}

/// What metrics-server scrapes.
pub async fn resource_metrics(server: &Server) -> String {
    render(&gather(server).await, &node_stats())
}

fn render(pods: &[PodStats], node: &CgroupStats) -> String {
    let mut text = Metrics::default();
    let container_labels = |pod: &PodStats, one: &Container| {
        format!("container=\"{}\",{}", escape(&one.name), pod_labels(&pod.sandbox))
    };
    let containers =
        || pods.iter().flat_map(|pod| pod.containers.iter().map(move |(one, stats)| (pod, one, stats)));
    text.family(
        "container_cpu_usage_seconds_total",
        "counter",
        "Cumulative cpu time consumed by the container in core-seconds",
    );
    for (pod, one, stats) in containers() {
        text.sample(&container_labels(pod, one), seconds(stats.cpu_usage_ns), stats.at_ns);
    }
    text.family(
        "container_memory_working_set_bytes",
        "gauge",
        "Current working set of the container in bytes",
    );
    for (pod, one, stats) in containers() {
        text.sample(&container_labels(pod, one), stats.memory_working_set_bytes.to_string(), stats.at_ns);
    }
    text.family(
        "container_start_time_seconds",
        "gauge",
        "Start time of the container since unix epoch in seconds",
    );
    for (pod, one, stats) in containers() {
        let started = seconds(one.status.started_at_ns.max(0).unsigned_abs());
        text.sample(&container_labels(pod, one), started, stats.at_ns);
    }
    text.family(
        "node_cpu_usage_seconds_total",
        "counter",
        "Cumulative cpu time consumed by the node in core-seconds",
    );
    text.sample("", seconds(node.cpu_usage_ns), node.at_ns);
    text.family("node_memory_working_set_bytes", "gauge", "Current working set of the node in bytes");
    text.sample("", node.memory_working_set_bytes.to_string(), node.at_ns);
    let with_stats = || pods.iter().filter_map(|pod| Some((&pod.sandbox, pod.stats.as_ref()?)));
    text.family(
        "pod_cpu_usage_seconds_total",
        "counter",
        "Cumulative cpu time consumed by the pod in core-seconds",
    );
    for (sandbox, stats) in with_stats() {
        text.sample(&pod_labels(sandbox), seconds(stats.cpu_usage_ns), stats.at_ns);
    }
    text.family("pod_memory_working_set_bytes", "gauge", "Current working set of the pod in bytes");
    for (sandbox, stats) in with_stats() {
        text.sample(&pod_labels(sandbox), stats.memory_working_set_bytes.to_string(), stats.at_ns);
    }
    text.family(
        "resource_scrape_error",
        "gauge",
        "1 if there was an error while getting container metrics, 0 otherwise",
    );
    text.line("", "0".to_owned());
    text.text
}

/// Counts of what this process looks after.
pub fn own_metrics(server: &Server) -> String {
    let runtime::Listing { sandboxes, containers } = server.tools.runtime.list();
    let mut text = Metrics::default();
    text.family("kubelet_node_name", "gauge", "The node's name. The count is always 1.");
    text.line(&format!("node=\"{}\"", escape(&server.tools.facts.name)), "1".to_owned());
    text.family("kubelet_running_pods", "gauge", "Number of pods that have a running pod sandbox");
    let ready = sandboxes.iter().filter(|one| one.state == SandboxState::Ready).count();
    text.line("", ready.to_string());
    text.family("kubelet_running_containers", "gauge", "Number of containers currently running");
    let states = [
        ("created", ContainerState::Created),
        ("running", ContainerState::Running),
        ("exited", ContainerState::Exited),
    ];
    for (name, state) in states {
        let count = containers.iter().filter(|one| one.status.state == state).count();
        text.line(&format!("container_state=\"{name}\""), count.to_string());
    }
    text.text
}

/// The text format of Prometheus.
#[derive(Default)]
struct Metrics {
    text: String,
    name: &'static str,
}

impl Metrics {
    fn family(&mut self, name: &'static str, kind: &str, help: &str) {
        self.name = name;
        // Writing to memory does not fail.
        let _ = write!(self.text, "# HELP {name} [STABLE] {help}\n# TYPE {name} {kind}\n");
    }

    fn line(&mut self, labels: &str, value: String) {
        let name = self.name;
        let _ = if labels.is_empty() {
            writeln!(self.text, "{name} {value}")
        } else {
            writeln!(self.text, "{name}{{{labels}}} {value}")
        };
    }

    /// With the time of its measurement, in milliseconds.
    fn sample(&mut self, labels: &str, value: String, at_ns: i64) {
        self.line(labels, format!("{value} {}", at_ns / 1_000_000));
    }
}

fn pod_labels(sandbox: &Sandbox) -> String {
    let config = &sandbox.config;
    format!("namespace=\"{}\",pod=\"{}\"", escape(&config.namespace), escape(&config.name))
}

fn escape(value: &str) -> String {
    value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n")
}

fn seconds(ns: u64) -> String {
    format!("{}.{:09}", ns / 1_000_000_000, ns % 1_000_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(at_seconds: i64, cpu_usage_ns: u64) -> CgroupStats {
        CgroupStats {
            at_ns: at_seconds * 1_000_000_000,
            cpu_usage_ns,
            memory_working_set_bytes: 7,
            ..CgroupStats::default()
        }
    }

    fn pod() -> PodStats {
        let mut sandbox = Sandbox { id: "s".into(), ..Sandbox::default() };
        sandbox.config.name = "web".into();
        sandbox.config.namespace = "shop".into();
        let mut container = Container { id: "c".into(), name: "nginx".into(), ..Container::default() };
        container.status.started_at_ns = 1_500_000_000;
        PodStats {
            sandbox,
            stats: Some(stats(2, 3_000_000_000)),
            containers: vec![(container, stats(2, 2_500_000_000))],
        }
    }

    #[test]
    fn rates_need_two_looks() {
        let rates = Rates::default();
        assert_eq!(rates.nano_cores("a", &stats(10, 1_000)), None);
        assert_eq!(rates.nano_cores("a", &stats(20, 5_000_001_000)), Some(500_000_000));
        assert_eq!(rates.nano_cores("a", &stats(20, 6_000_000_000)), Some(500_000_000), "too soon");
        assert_eq!(rates.nano_cores("a", &stats(22, 5_000_001_000)), Some(0));
        rates.retain(|id| id == "b");
        assert_eq!(rates.nano_cores("a", &stats(30, 0)), None);
    }

    #[test]
    fn metrics_are_those_that_metrics_server_reads() {
        let text = render(&[pod()], &stats(2, 9_000_000_000));
        for line in [
            "container_cpu_usage_seconds_total{container=\"nginx\",namespace=\"shop\",pod=\"web\"} 2.500000000 2000",
            "container_memory_working_set_bytes{container=\"nginx\",namespace=\"shop\",pod=\"web\"} 7 2000",
            "container_start_time_seconds{container=\"nginx\",namespace=\"shop\",pod=\"web\"} 1.500000000 2000",
            "node_cpu_usage_seconds_total 9.000000000 2000",
            "pod_cpu_usage_seconds_total{namespace=\"shop\",pod=\"web\"} 3.000000000 2000",
            "# TYPE pod_memory_working_set_bytes gauge",
            "resource_scrape_error 0",
        ] {
            assert!(text.lines().any(|one| one == line), "{line}\nis not in\n{text}");
        }
    }

    #[test]
    fn a_pod_in_the_summary() {
        let got = pod_summary(&Rates::default(), &pod());
        assert_eq!(got["podRef"], json!({"name": "web", "namespace": "shop", "uid": ""}));
        assert_eq!(got["containers"][0]["name"], "nginx");
        assert_eq!(
            got["containers"][0]["cpu"],
            json!({"time": "1970-01-01T00:00:02Z", "usageCoreNanoSeconds": 2_500_000_000_u64})
        );
        assert_eq!(got["memory"]["workingSetBytes"], 7);
    }

    #[test]
    fn the_kernels_counts_are_read() {
        assert_eq!(cpu_usage_ns("cpu  1 2 3 400 50 6 7 8 9 9\ncpu0 1 1"), 27 * 10_000_000);
        let text =
            "MemTotal:       16 kB\nMemFree:         8 kB\nInactive(file):  2 kB\nAnonPages:       1 kB\n";
        let want = Memory { total: 16 << 10, free: 8 << 10, inactive_file: 2 << 10, anonymous: 1 << 10 };
        assert_eq!(Memory::parse(text), want);
    }
}
