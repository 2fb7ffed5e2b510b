//! What the embedded engine costs: durable commits by 1, 64 and 1000 committers, and telling watchers. `make bench` has a large cluster.
//!
//! `cargo run --release -p store --example bench [FOLDER]`; the folder is made below the given one and removed.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use object::{Draft, Key, Resource, body};
use rustix::time::{ClockId, clock_gettime};
use store::{Embedded, Op, Options, Precondition, Put, Store};

const PODS: Resource = Resource::new("pods");

fn main() -> Result<(), Box<dyn Error>> {
    let below = std::env::args().nth(1).unwrap_or_else(|| ".".to_owned());
    let folder = tempfile::tempdir_in(below)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    println!("committers  commits/s  p50 ms  p99 ms  max ms  CPU µs/commit");
    for committers in [1, 64, 1000] {
        let path = folder.path().join(format!("c{committers}"));
        let store = Arc::new(Embedded::open(&path, Options::default())?);
        runtime.block_on(commits(store, committers))?;
        std::fs::remove_dir_all(&path)?;
    }
    for watchers in [1, 1000] {
        let path = folder.path().join(format!("w{watchers}"));
        let store = Arc::new(Embedded::open(&path, Options::default())?);
        runtime.block_on(watched(store, watchers))?;
    }
    Ok(())
}

/// 1 KB objects, each committer its own, for two seconds.
async fn commits(store: Arc<Embedded>, committers: usize) -> Result<(), Box<dyn Error>> {
    let (begun, cpu) = (Instant::now(), cpu());
    let end = begun + Duration::from_secs(2);
    let tasks: Vec<_> = (0..committers)
        .map(|nth| {
            let store = store.clone();
            tokio::spawn(async move {
                let draft = draft(&format!("pod-{nth}"), 1024);
                let mut waits = Vec::new();
                let mut revision = None;
                while Instant::now() < end {
                    let asked = Instant::now();
                    let op = revision
                        .map_or_else(|| Op::create(draft.clone()), |at| Op::update(draft.clone(), at));
                    revision = Some(store.commit(op.into()).await?.revision);
                    waits.push(asked.elapsed());
                }
                Ok::<_, store::CommitError>(waits)
            })
        })
        .collect();
    let mut waits = Vec::new();
    for task in tasks {
        waits.extend(task.await??);
    }
    let (took, cpu) = (begun.elapsed(), self::cpu() - cpu);
    waits.sort_unstable();
    let at = |share: usize| waits[(waits.len() - 1) * share / 1000].as_secs_f64() * 1e3;
    println!(
        "{committers:>10}  {:>9.0}  {:>6.2}  {:>6.2}  {:>6.2}  {:>13.1}",
        waits.len() as f64 / took.as_secs_f64(),
        at(500),
        at(990),
        at(1000),
        cpu.as_secs_f64() * 1e6 / waits.len() as f64,
    );
    store.close().await;
    Ok(())
}

/// One committer, and watchers that are told of each commit before the next.
async fn watched(store: Arc<Embedded>, watchers: usize) -> Result<(), Box<dyn Error>> {
    let commits = 1000;
    let tasks: Vec<_> = (0..watchers)
        .map(|_| {
            let mut watch = store.watch(Some(PODS), 1)?;
            Ok::<_, store::WatchError>(tokio::spawn(async move {
                let mut told = 0;
                while told < commits {
                    told += watch.next().await?.len();
                }
                Ok::<_, store::WatchError>(())
            }))
        })
        .collect::<Result<_, _>>()?;
    let cpu_before = cpu();
    for _ in 0..commits {
        let op = Op {
            key: draft("a", 0).key,
            precondition: Precondition::Unchecked,
            put: Put::Object(draft("a", 1024)),
        };
        store.commit(op.into()).await?;
    }
    for task in tasks {
        task.await??;
    }
    println!(
        "{watchers} watchers: {:.1} µs CPU a commit",
        (cpu() - cpu_before).as_secs_f64() * 1e6 / commits as f64
    );
    store.close().await;
    Ok(())
}

/// A pod of about so many bytes.
fn draft(name: &str, bytes: usize) -> Draft {
    let text = serde_json::json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "uid": name, "labels": {"app": "bench"}},
        "spec": {"nodeName": "n1", "filling": "x".repeat(bytes.saturating_sub(170))},
    });
    let key = Key::new(PODS, "default", name);
    let meta = object::Meta { uid: name.into(), ..object::Meta::default() };
    Draft { key, meta, fields: ["n1".into()].into(), stored: body::encode(&text) }
}

fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
