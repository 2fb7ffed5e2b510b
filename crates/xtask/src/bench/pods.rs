//! How long a pod takes from its creation to Running, with runc beside.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::site::Site;
use super::{Row, percentiles, seconds};
use crate::servers::output;

const ONE_AFTER_ANOTHER: usize = 30;
const AT_ONCE: usize = 100;
/// Whatever comes at all comes within it.
const PATIENCE: Duration = Duration::from_secs(60);
const PODS: &str = "/api/v1/namespaces/default/pods";

pub fn run() -> Result<Vec<Row>> {
    let site = Site::new()?;
    site.up()?;
    site.import_image()?;
    create_and_wait(&site, &["warm".to_owned()], &json!({}))?;

    let before = site.cpu()?;
    let mut times = Vec::new();
    for number in 0..ONE_AFTER_ANOTHER {
        times.extend(create_and_wait(&site, &[format!("single-{number}")], &json!({}))?);
    }
    let single_cpu = (site.cpu()? - before) / ONE_AFTER_ANOTHER as u32;
    // A node takes 110 pods.
    clear(&site)?;
    let before = site.cpu()?;
    let names: Vec<String> = (0..AT_ONCE).map(|number| format!("many-{number}")).collect();
    let many = create_and_wait(&site, &names, &json!({}))?;
    let many_cpu = (site.cpu()? - before) / AT_ONCE as u32;
    let (runc_single, runc_many) = runc(&site)?;

    let both = |times: Vec<Duration>| {
        let (p50, p99) = percentiles(times);
        format!("p50 {}, p99 {}", seconds(p50), seconds(p99))
    };
    Ok(vec![
        Row {
            figure: "create → Running of a pod, one after another".into(),
            value: both(times),
            cpu: seconds(single_cpu),
            peer: format!("`runc run` to its end: {}", both(runc_single)),
            reach: "p50 0.1 s, p99 0.3 s",
        },
        Row {
            figure: format!("create → Running, {AT_ONCE} pods at once"),
            value: both(many),
            cpu: seconds(many_cpu),
            peer: format!("`runc run` to its end: {}", both(runc_many)),
            reach: "p99 4 s",
        },
    ])
}

/// Deletes all pods, and waits until they are gone.
fn clear(site: &Site) -> Result<()> {
    output(site.curl(PODS)?.args(["-X", "DELETE", "-o", "/dev/null"]))?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left: Value = serde_json::from_str(&output(&mut site.curl(PODS)?)?)?;
        if left["items"].as_array().is_some_and(Vec::is_empty) {
            return Ok(());
        }
        anyhow::ensure!(Instant::now() < deadline, "pods are left after {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Creates pods with these labels and gives, for each, the time from the request until a watch said that it runs.
pub fn create_and_wait(site: &Site, names: &[String], labels: &Value) -> Result<Vec<Duration>> {
    let mut watch = site.curl(&format!("{PODS}?watch=1&timeoutSeconds={}", PATIENCE.as_secs()))?;
    let mut watch = watch
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("watch the pods")?;
    let waited = create_and_watch(site, names, labels, &mut watch);
    watch.kill().and_then(|()| watch.wait()).context("end the watch")?;
    waited
}

fn create_and_watch(
    site: &Site,
    names: &[String],
    labels: &Value,
    watch: &mut Child,
) -> Result<Vec<Duration>> {
    let events = BufReader::new(watch.stdout.take().context("the watch is piped")?);
    let mut creating: BTreeMap<&str, (Instant, Child)> = BTreeMap::new();
    for name in names {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": {
            "terminationGracePeriodSeconds": 0, "containers": [{"name": "c", "image": "bench:1"}]}});
        let mut curl = site.curl(PODS)?;
        curl.args([
            "-o",
            "/dev/null",
            "-H",
            "Content-Type: application/json",
            "--data-binary",
            &pod.to_string(),
        ]);
        let since = Instant::now();
        creating.insert(name, (since, curl.stdin(Stdio::null()).spawn().context("create a pod")?));
    }
    let mut times = Vec::new();
    for line in events.lines() {
        let event: Value = serde_json::from_str(&line?)?;
        let pod = &event["object"];
        let is_running = pod["status"]["phase"] == "Running";
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        if is_running && let Some((since, mut child)) = creating.remove(name) {
            times.push(since.elapsed());
            child.wait().context("the creation")?;
        }
        if creating.is_empty() {
            break;
        }
    }
    anyhow::ensure!(creating.is_empty(), "the watch ended before all pods ran");
    Ok(times)
}

/// The same root with a command that ends at once, in the same two ways.
fn runc(site: &Site) -> Result<(Vec<Duration>, Vec<Duration>)> {
    let bundle = bundle(site)?;
    let state = site.scratch().join("runc");
    let run = |name: String| -> Command {
        let mut command = Command::new("runc");
        command
            .arg("--root")
            .arg(&state)
            .arg("run")
            .arg("--bundle")
            .arg(&bundle)
            .arg(format!("ekso-bench-{name}"));
        command
    };
    let mut single = Vec::new();
    for number in 0..ONE_AFTER_ANOTHER {
        let since = Instant::now();
        output(&mut run(format!("single-{number}")))?;
        single.push(since.elapsed());
    }
    let many = std::thread::scope(|scope| {
        let runs: Vec<_> = (0..AT_ONCE)
            .map(|number| {
                let mut command = run(format!("many-{number}"));
                scope.spawn(move || {
                    let since = Instant::now();
                    output(&mut command).map(|_| since.elapsed())
                })
            })
            .collect();
        runs.into_iter()
            .map(|run| run.join().unwrap_or_else(|_| anyhow::bail!("a thread panicked")))
            .collect::<Result<_>>()
    })?;
    Ok((single, many))
}

fn bundle(site: &Site) -> Result<PathBuf> {
    let bundle = site.scratch().join("bundle");
    std::fs::create_dir(&bundle)?;
    output(Command::new("runc").arg("spec").current_dir(&bundle))?;
    let path = bundle.join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path)?)?;
    config["process"]["terminal"] = json!(false);
    config["process"]["args"] = json!(["/bin/true"]);
    config["root"]["path"] = json!(Path::new(&site.rootfs()?));
    std::fs::write(&path, config.to_string())?;
    Ok(bundle)
}
