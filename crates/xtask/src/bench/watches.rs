//! A thousand watchers of one kind, and a change that all of them are told of.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::client::TlsStream;

use super::client::{Api, Request, allow_sockets};
use super::site::Site;
use super::{Row, micros, percentiles, seconds};

const WATCHERS: u32 = 1_000;
const CHANGES: u32 = 50;
const PATH: &str = "/api/v1/namespaces/default/configmaps";
/// Whatever comes at all comes within it.
const PATIENCE: Duration = Duration::from_secs(30);

pub fn run() -> Result<Vec<Row>> {
    allow_sockets(WATCHERS)?;
    let site = Site::new()?;
    site.up()?;
    let value = "x".repeat(1_000);
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "watched"}, "data": {"v": value}});
    let created = site.post(PATH, &object)?;
    let revision = created["metadata"]["resourceVersion"].as_str().context("a revision")?;
    let api = site.api()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;

    let (memory, cpu) = (site.memory_bytes()?, site.cpu()?);
    let (tell, mut told) = mpsc::unbounded_channel();
    let watchers = runtime.block_on(watch_all(&api, revision, &tell))?;
    let memory = site.memory_bytes()?.saturating_sub(memory) / u64::from(WATCHERS);
    let connect_cpu = (site.cpu()? - cpu) / WATCHERS;

    let before = site.cpu()?;
    let times = runtime.block_on(change_all(&api, &mut told))?;
    let spent = (site.cpu()? - before) / (WATCHERS * CHANGES);
    watchers.iter().for_each(|watcher| watcher.abort());
    let (p50, p99) = percentiles(times);
    let row = |figure: String, value, cpu| Row { figure, value, cpu, peer: String::new(), reach: "a figure" };
    Ok(vec![
        row(
            format!("{WATCHERS} watchers of one kind, TLS: from a change's request to an event at a watcher"),
            format!("p50 {}, p99 {}", seconds(p50), seconds(p99)),
            format!("{} an event", micros(spent)),
        ),
        row(
            "the same: one watcher more".into(),
            format!("{} kB", memory / 1_000),
            format!("{} to connect", micros(connect_cpu)),
        ),
    ])
}

/// When this many watchers watch, each tells when an event has come whole.
async fn watch_all(
    api: &Api,
    revision: &str,
    tell: &mpsc::UnboundedSender<Instant>,
) -> Result<Vec<tokio::task::JoinHandle<Result<()>>>> {
    let request = api.request(&Request::get(&format!("{PATH}?watch=1&resourceVersion={revision}")));
    let mut watchers = Vec::new();
    for _ in 0..WATCHERS {
        let mut stream = api.door.connect().await?;
        stream.write_all(request.as_bytes()).await?;
        let mut head = vec![0; 4_096];
        let read = stream.read(&mut head).await?;
        let head = String::from_utf8_lossy(&head[..read]);
        ensure!(head.starts_with("HTTP/1.1 200"), "a watch was answered with {head}");
        watchers.push(tokio::spawn(listen(stream, tell.clone())));
    }
    Ok(watchers)
}

/// An event is one line of JSON, and nothing else in the stream ends with a brace and a line feed.
async fn listen(mut stream: TlsStream<TcpStream>, tell: mpsc::UnboundedSender<Instant>) -> Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    let mut last = 0;
    loop {
        let read = stream.read(&mut buffer).await?;
        if read == 0 {
            bail!("a watch ended");
        }
        let now = Instant::now();
        for byte in &buffer[..read] {
            if (last, *byte) == (b'}', b'\n') {
                tell.send(now)?;
            }
            last = *byte;
        }
    }
}

/// A whole answer of known length, its head included.
async fn answer(stream: &mut TlsStream<TcpStream>) -> Result<String> {
    let mut read = Vec::new();
    loop {
        ensure!(stream.read_buf(&mut read).await? > 0, "the connection ended within an answer");
        let text = String::from_utf8_lossy(&read);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let mut fields = head.lines().filter_map(|line| line.split_once(':'));
        let length = fields.find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
        let length: usize = length.context("the answer has no length")?.1.trim().parse()?;
        if body.len() >= length {
            return Ok(text.into_owned());
        }
    }
}

/// One change after another, each when all have been told of the one before; how long each watcher waited for each.
async fn change_all(api: &Api, told: &mut mpsc::UnboundedReceiver<Instant>) -> Result<Vec<Duration>> {
    let mut writer = api.door.connect().await?;
    let mut times = Vec::new();
    for change in 0..CHANGES {
        let body = json!({"metadata": {"annotations": {"change": change.to_string()}}}).to_string();
        let content_type = "application/merge-patch+json";
        let path = format!("{PATH}/watched");
        let request = api.request(&Request { method: "PATCH", path, content_type, body });
        let since = Instant::now();
        writer.write_all(request.as_bytes()).await?;
        let said = answer(&mut writer).await?;
        ensure!(said.starts_with("HTTP/1.1 200"), "a change was answered with {said}");
        for _ in 0..WATCHERS {
            let at = tokio::time::timeout(PATIENCE, told.recv()).await.context("an event is missing")?;
            times.push(at.context("all watches ended")? - since);
        }
    }
    Ok(times)
}
