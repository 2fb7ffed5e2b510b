//! A large cluster in the store: what it takes in memory, what one change to it costs, how long a restart takes.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use object::{Draft, Key, Meta, Resource, Revision, body};
use serde_json::json;
use store::{Embedded, Op, Options, Store};

use super::site::{cpu, pss_bytes};
use super::{Row, micros, percentiles, seconds};

const PODS: Resource = Resource::new("pods");
const NODES: Resource = Resource::new("nodes");
const POD_COUNT: usize = 150_000;
const NODE_COUNT: usize = 5_000;
/// A pod of a Deployment with its status and managed fields; a node with its conditions and images.
const POD_BYTES: usize = 5_600;
const NODE_BYTES: usize = 9_000;
const FILLERS: usize = 64;
const UPDATES: usize = 5_000;

pub fn run() -> Result<Vec<Row>> {
    let folder = tempfile::Builder::new().prefix("ekso-bench-").tempdir().context("make a folder")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(measure(folder.path()))
}

async fn measure(folder: &Path) -> Result<Vec<Row>> {
    let me = std::process::id();
    let before = (pss_bytes(me), cpu(me));
    let store = Arc::new(Embedded::open(folder, Options::default())?);
    fill(&store).await?;
    let each = (cpu(me) - before.1) / (POD_COUNT + NODE_COUNT) as u32;
    let usage = store.usage();
    let memory = pss_bytes(me).saturating_sub(before.0);
    let alone = in_memory(&*store);
    let (durable, durable_cpu) = durable(&*store).await?;
    let (p50, p99) = percentiles(durable);
    store.close().await;
    drop(store);
    let (since, cpu_before) = (Instant::now(), cpu(me));
    let store = Embedded::open(folder, Options::default())?;
    let (reopened, reopen_cpu) = (since.elapsed(), cpu(me) - cpu_before);
    store.close().await;
    let row = |figure: String, value, cpu| Row { figure, value, cpu, peer: String::new(), reach: "a figure" };
    let per_object = memory.saturating_sub(usage.live_bytes) / (POD_COUNT + NODE_COUNT) as u64;
    Ok(vec![
        row(
            format!("store with {POD_COUNT} pods and {NODE_COUNT} nodes: memory"),
            format!(
                "{} MB, of it bodies {} MB: {per_object} B an object besides",
                mb(memory),
                mb(usage.live_bytes)
            ),
            micros(each),
        ),
        row("the same: one update of the snapshot, the older one kept".into(), micros(alone), micros(alone)),
        row(
            "the same: one durable update, one after another".into(),
            format!("p50 {}, p99 {}", micros(p50), micros(p99)),
            micros(durable_cpu),
        ),
        row("the same: opened again".into(), seconds(reopened), seconds(reopen_cpu)),
    ])
}

async fn fill(store: &Arc<Embedded>) -> Result<()> {
    let fillers: Vec<_> = (0..FILLERS)
        .map(|filler| {
            let store = store.clone();
            tokio::spawn(async move {
                for nth in (filler..NODE_COUNT + POD_COUNT).step_by(FILLERS) {
                    store.commit(Op::create(draft(nth)).into()).await?;
                }
                Ok::<_, store::CommitError>(())
            })
        })
        .collect();
    for filler in fillers {
        filler.await??;
    }
    Ok(())
}

/// CPU time of a change to a copy of the snapshot, with readers still holding the one before.
fn in_memory(store: &dyn Store) -> Duration {
    let mut now = store.snapshot();
    let drafts: Vec<Draft> = (0..UPDATES).map(some_pod).collect();
    let since = Instant::now();
    for draft in drafts {
        let held = now.clone();
        let revision = now.revision() + 1;
        now.put(draft.at(revision));
        drop(held);
    }
    since.elapsed() / UPDATES as u32
}

async fn durable(store: &dyn Store) -> Result<(Vec<Duration>, Duration)> {
    let me = std::process::id();
    let ops: Vec<Op> = (0..UPDATES)
        .map(|nth| {
            let draft = some_pod(nth);
            let at: Revision = store.snapshot().get(&draft.key).map_or(0, |object| object.revision);
            Op::update(draft, at)
        })
        .collect();
    let before = cpu(me);
    let mut times = Vec::new();
    for op in ops {
        let since = Instant::now();
        store.commit(op.into()).await?;
        times.push(since.elapsed());
    }
    Ok((times, (cpu(me) - before) / UPDATES as u32))
}

/// One of the pods, all over the place: the step is prime to their number.
fn some_pod(nth: usize) -> Draft {
    draft(NODE_COUNT + nth * 7_919 % POD_COUNT)
}

/// The nodes first, then the pods.
fn draft(nth: usize) -> Draft {
    let (resource, kind, namespace, name, bytes, node) = match nth.checked_sub(NODE_COUNT) {
        None => (NODES, "Node", "", format!("node-{nth}"), NODE_BYTES, String::new()),
        Some(pod) => {
            (PODS, "Pod", "default", format!("pod-{pod}"), POD_BYTES, format!("node-{}", pod % NODE_COUNT))
        }
    };
    let uid = format!("00000000-0000-4000-8000-{nth:012}");
    let text = json!({
        "apiVersion": "v1", "kind": kind,
        "metadata": {"name": name, "namespace": namespace, "uid": uid, "labels": {"app": "bench"}},
        "spec": {"nodeName": node, "filling": "x".repeat(bytes - 250)},
    });
    let labels = [("app".into(), "bench".into())].into();
    let meta = Meta { uid: uid.into(), labels, ..Meta::default() };
    let key = Key::new(resource, namespace, name);
    Draft { key, meta, fields: [node.into()].into(), stored: body::encode(&text) }
}

fn mb(bytes: u64) -> u64 {
    bytes / 1_000_000
}
