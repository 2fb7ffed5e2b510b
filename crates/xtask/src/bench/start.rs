//! From `ekso up` to a pod that runs, and what a cluster costs that does nothing.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::pods::create_and_wait;
use super::site::Site;
use super::{Row, percentiles, seconds};

const STARTS: usize = 5;
const SETTLE: Duration = Duration::from_secs(15);
const IDLE: Duration = Duration::from_secs(60);

pub fn run() -> Result<Vec<Row>> {
    let (mut api, mut ready, mut pod) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..STARTS {
        let site = Site::new()?;
        site.import_image()?;
        let since = Instant::now();
        let (api_at, ready_at) = up(&site, since)?;
        create_and_wait(&site, &[format!("first-{number}")], &json!({}))?;
        api.push(api_at);
        ready.push(ready_at);
        pod.push(since.elapsed());
    }
    let row = |figure: &str, times, reach| Row {
        figure: format!("`ekso up` on a built binary: {figure}"),
        value: seconds(percentiles(times).0),
        cpu: String::new(),
        peer: String::new(),
        reach,
    };
    let mut rows = vec![
        row("the API answers", api, "0.3 s"),
        row("the node is Ready", ready, "1 s"),
        row("the first pod runs", pod, "1.5 s"),
    ];
    rows.extend(idle()?);
    Ok(rows)
}

/// When its two steps were told.
fn up(site: &Site, since: Instant) -> Result<(Duration, Duration)> {
    let mut command = site.ekso("up --name bench --api-port 0");
    let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().context("start ekso up")?;
    let stderr = child.stderr.take().context("its errors are piped")?;
    let (mut api, mut ready, mut said) = (None, None, String::new());
    for line in BufReader::new(stderr).lines() {
        let line = line?;
        let step = if line.contains("API server answers") { &mut api } else { &mut ready };
        if line.contains("API server answers") || line.contains("Ready") {
            *step = Some(since.elapsed());
        }
        said.push_str(&line);
    }
    ensure!(child.wait()?.success(), "ekso up failed: {said}");
    Ok((api.context("no step of the API was told")?, ready.context("no step of the node was told")?))
}

fn idle() -> Result<Vec<Row>> {
    let site = Site::new()?;
    site.up()?;
    std::thread::sleep(SETTLE);
    let memory = site.memory_bytes()?;
    let before = site.cpu()?;
    std::thread::sleep(IDLE);
    let used = site.cpu()? - before;
    let row = |figure: &str, value, reach| Row {
        figure: figure.into(),
        value,
        cpu: String::new(),
        peer: String::new(),
        reach,
    };
    let share = used.as_secs_f64() / IDLE.as_secs_f64() * 100.0;
    Ok(vec![
        row(
            "memory of all processes, idle one-node cluster (PSS)",
            format!("{:.1} MB", memory as f64 / 1e6),
            "60 MB",
        ),
        row("idle CPU over a minute", format!("{share:.1} % of a core"), "1 % of a core"),
    ])
}
