//! What the API server costs as it grows: more objects, larger ones, more who write, more who watch.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use super::client::{Api, Client, Request, allow_sockets};
use super::upstream::{Figure, Server, share};
use super::{Load, micros, percentiles, seconds};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const CLIENTS: u32 = 64;
const CROWD: u32 = 400;
const VALUE_BYTES: usize = 1_000;

/// How the cost of a list that selects nothing grows: the largest is that of upstream's own measurement.
const GROWTH: [u32; 4] = [1_000, 10_000, 100_000, 300_000];
/// Lists behind a change each.
const CHANGES: u32 = 200;

const INFORMERS: u32 = 1_000;
const LARGE_BYTES: usize = 100_000;
const LARGE_OBJECTS: u32 = 10_000;
const READERS: u32 = 4;

/// The nth request.
type Make = fn(u32) -> Request;
/// The nth request of so many.
type MakeOf = fn(u32, u32) -> Request;

/// Creates, patches and applies, and what many at once wait for.
pub fn writes(server: &Server, runtime: &Runtime) -> Result<Vec<Figure>> {
    allow_sockets(CROWD)?;
    let count = share(20_000);
    let load = |clients: u32, make: MakeOf| -> Result<(Load, Duration)> {
        let before = server.cpu()?;
        let load = runtime.block_on(server.api.load(share(clients), count, move |nth| make(nth, count)))?;
        Ok((load, (server.cpu()? - before) / count))
    };
    let mut figures = Vec::new();
    let loads: [(&str, u32, MakeOf, &'static str); 6] = [
        ("creates of 1 KB ConfigMaps", CLIENTS, |nth, _| create(nth, VALUE_BYTES), "10,000 a second"),
        ("reads of one object", CLIENTS, |nth, _| Request::get(&path(nth)), "20,000 a second"),
        ("merge patches of one field", CLIENTS, |nth, _| patch(nth), "a figure"),
        ("server-side applies of one field", CLIENTS, |nth, _| apply(nth), "a figure"),
        ("reads of one object", CROWD, |nth, _| Request::get(&path(nth)), "p99 a tenth of upstream's"),
        ("nine reads to a patch", CROWD, read_or_patch, "p99 a tenth of upstream's"),
    ];
    for (figure, clients, make, reach) in loads {
        let (load, cpu) = load(clients, make).with_context(|| figure.to_owned())?;
        let figure = format!("{figure}, {} clients at once, TLS", share(clients));
        let value = format!("{load} ({count} of them)");
        figures.push(Figure { figure, value, cpu: micros(cpu), published: "", reach });
    }
    Ok(figures)
}

fn read_or_patch(nth: u32, count: u32) -> Request {
    if nth % 10 == 9 { patch(nth) } else { Request::get(&path(nth * 7 % count)) }
}

/// Lists that select none of ever more objects.
pub fn lists(server: &Server, runtime: &Runtime) -> Result<Vec<Figure>> {
    let list = Request::get(&format!("{MAPS}?labelSelector=bench%3Dnone"));
    let mut figures = Vec::new();
    let mut there = 0;
    for full in GROWTH {
        let count = share(full);
        let from = there;
        runtime.block_on(
            server.api.load(share(CLIENTS), count - from, move |nth| create(from + nth, VALUE_BYTES)),
        )?;
        there = count;
        let mut client = runtime.block_on(server.api.client())?;
        let since = Instant::now();
        runtime.block_on(client.ask(&list))?;
        let first = since.elapsed();
        let before = server.cpu()?;
        let (time, lists) = runtime.block_on(client.repeat(&list))?;
        let cpu = (server.cpu()? - before) / lists;
        let behind = runtime.block_on(async {
            let mut times = Vec::new();
            for nth in 0..CHANGES {
                client.ask(&patch(nth * 7_919 % count)).await?;
                let since = Instant::now();
                client.ask(&list).await?;
                times.push(since.elapsed());
            }
            anyhow::Ok(percentiles(times).0)
        })?;
        figures.push(Figure {
            figure: format!("list of {count} × 1 KB by a label that none has, p50"),
            value: format!(
                "{} ({} for the first, {} right behind a change)",
                seconds(time),
                seconds(first),
                seconds(behind)
            ),
            cpu: micros(cpu),
            published: if full == 300_000 {
                "p50 499 ms, p99 648 ms, 0.63 cores at one a second (KEP-2340)"
            } else {
                ""
            },
            reach: if full == 300_000 { "1 ms" } else { "a figure" },
        });
    }
    Ok(figures)
}

/// Memory of objects beside what they say.
pub fn memory(server: &Server, runtime: &Runtime) -> Result<Vec<Figure>> {
    let count = share(20_000);
    let definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "things.bench.example.com"},
        "spec": {"group": "bench.example.com", "scope": "Namespaced", "names": {"plural": "things", "kind": "Thing"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema":
                {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}]}});
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let things = "/apis/bench.example.com/v1/namespaces/default/things";
    runtime.block_on(async {
        let mut client = server.api.client().await?;
        client.ask(&post(definitions, definition.to_string())).await?;
        served(&server.api, things).await
    })?;
    let mut figures = Vec::new();
    let kinds: [(&str, &str, Make, &'static str); 2] = [
        ("a ConfigMap", MAPS, |nth| create(nth, VALUE_BYTES), ""),
        ("a custom resource", things, thing, "5.2 × its JSON, and etcd's (kubernetes#142062)"),
    ];
    for (name, path, make, published) in kinds {
        let before = server.memory_bytes()?;
        runtime.block_on(server.api.load(share(CLIENTS), count, make))?;
        let grown = server.memory_bytes()?.saturating_sub(before) / u64::from(count);
        let json = runtime.block_on(async { server.api.client().await?.ask(&Request::get(path)).await })?;
        let json = json as u64 / u64::from(count);
        figures.push(Figure {
            figure: format!("memory for {name} of {json} bytes of JSON, with the store"),
            value: format!("{grown} bytes, {:.1} × its JSON ({count} of them)", grown as f64 / json as f64),
            cpu: String::new(),
            published,
            reach: "half of 5.2 ×",
        });
    }
    Ok(figures)
}

/// A definition is served soon after it was made.
async fn served(api: &Api, path: &str) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let asked = api.client().await?.ask(&Request::get(path)).await;
        match asked {
            Ok(_) => return Ok(()),
            Err(error) => ensure!(Instant::now() < deadline, "it is not served: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A thousand informers that begin at once, each on a connection of its own.
pub fn informers(server: &Server, runtime: &Runtime) -> Result<Vec<Figure>> {
    allow_sockets(INFORMERS)?;
    let (count, informers) = (share(1_000), share(INFORMERS));
    runtime.block_on(server.api.load(share(CLIENTS), count, |nth| create(nth, VALUE_BYTES)))?;
    let (memory, before) = (server.memory_bytes()?, server.cpu()?);
    let connected = runtime.block_on(clients(&server.api, informers))?;
    let since = Instant::now();
    let synced: Vec<_> = connected.into_iter().map(|client| runtime.spawn(synced(client))).collect();
    let peak = while_they_run(server, &synced)?;
    let mut times = Vec::new();
    for informer in synced {
        times.push(runtime.block_on(informer)??.duration_since(since));
    }
    let cpu = (server.cpu()? - before) / informers;
    let (p50, _) = percentiles(times.clone());
    let last = times.iter().max().copied().unwrap_or_default();
    let each = peak.saturating_sub(memory) / u64::from(informers);
    Ok(vec![Figure {
        figure: format!("{informers} informers that begin at once with {count} × 1 KB, TLS"),
        value: format!(
            "all synced after {} (p50 {}); at most {:.0} MB more, {} kB each",
            seconds(last),
            seconds(p50),
            peak.saturating_sub(memory) as f64 / 1e6,
            each / 1_000
        ),
        cpu: format!("{} each", micros(cpu)),
        published: "about 2 MB a watch is the goal (KEP-3157)",
        reach: "0.2 MB each",
    }])
}

/// Large objects, listed and watched by several at once.
pub fn large(server: &Server, runtime: &Runtime) -> Result<Vec<Figure>> {
    let count = share(LARGE_OBJECTS);
    runtime.block_on(server.api.load(8, count, |nth| create(nth, LARGE_BYTES)))?;
    let mut figures = Vec::new();
    for (what, is_watch) in [("lists", false), ("watches that begin", true)] {
        let (memory, before) = (server.memory_bytes()?, server.cpu()?);
        let connected = runtime.block_on(clients(&server.api, READERS))?;
        let since = Instant::now();
        let begin =
            |client| if is_watch { runtime.spawn(synced(client)) } else { runtime.spawn(listed(client)) };
        let readers: Vec<_> = connected.into_iter().map(begin).collect();
        let peak = while_they_run(server, &readers)?;
        let mut last = Duration::ZERO;
        for reader in readers {
            last = last.max(runtime.block_on(reader)??.duration_since(since));
        }
        let cpu = (server.cpu()? - before) / READERS;
        figures.push(Figure {
            figure: format!("{READERS} {what} at once with {count} × 100 KB, TLS"),
            value: format!(
                "all after {}, at most {:.0} MB more than the {:.0} MB before",
                seconds(last),
                peak.saturating_sub(memory) as f64 / 1e6,
                memory as f64 / 1e6
            ),
            cpu: format!("{} each", seconds(cpu)),
            published: if is_watch { "" } else { "3 GB, before streaming 70 to 80 (KEP-5116)" },
            reach: "no more than what is on its way",
        });
    }
    Ok(figures)
}

/// The most memory that a server has while something runs.
fn while_they_run(server: &Server, tasks: &[JoinHandle<Result<Instant>>]) -> Result<u64> {
    let mut peak = server.memory_bytes()?;
    while tasks.iter().any(|task| !task.is_finished()) {
        std::thread::sleep(Duration::from_millis(100));
        peak = peak.max(server.memory_bytes()?);
    }
    Ok(peak)
}

async fn clients(api: &Api, count: u32) -> Result<Vec<Client>> {
    let mut all = Vec::new();
    for _ in 0..count {
        all.push(api.client().await?);
    }
    Ok(all)
}

/// When the state that a watch begins with has come whole. The watch ends then.
async fn synced(mut client: Client) -> Result<Instant> {
    const END: &[u8] = b"k8s.io/initial-events-end";
    /// More than the event that has it in it.
    const TAIL: usize = 512;
    let watch = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut seen: Vec<u8> = Vec::new();
    let mut is_whole = false;
    let end = |piece: &[u8]| {
        // It is the last that comes: it stands at the end of a piece, or over its edge.
        seen.extend_from_slice(&piece[piece.len().saturating_sub(TAIL)..]);
        is_whole = seen.windows(END.len()).any(|window| window == END);
        seen.drain(..seen.len().saturating_sub(TAIL));
        is_whole
    };
    client.read(&Request::get(&format!("{MAPS}?{watch}")), end).await?;
    ensure!(is_whole, "the watch ended before its state was whole");
    Ok(Instant::now())
}

async fn listed(mut client: Client) -> Result<Instant> {
    client.ask(&Request::get(MAPS)).await?;
    Ok(Instant::now())
}

fn path(nth: u32) -> String {
    format!("{MAPS}/map-{nth}")
}

fn post(path: &str, body: String) -> Request {
    Request { method: "POST", path: path.to_owned(), content_type: "application/json", body }
}

fn create(nth: u32, bytes: usize) -> Request {
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("map-{nth}")},
        "data": {"v": "x".repeat(bytes)}});
    post(MAPS, object.to_string())
}

fn thing(nth: u32) -> Request {
    let fields: serde_json::Map<String, _> =
        (0..20).map(|at| (format!("field{at}"), json!("x".repeat(20)))).collect();
    let object = json!({"apiVersion": "bench.example.com/v1", "kind": "Thing", "metadata": {"name": format!("thing-{nth}")},
        "spec": {"inner": {"number": nth, "fields": fields}, "list": [1, 2, 3]}});
    post("/apis/bench.example.com/v1/namespaces/default/things", object.to_string())
}

/// Says something else each time.
fn patch(nth: u32) -> Request {
    let now = Instant::now();
    let body = json!({"metadata": {"annotations": {"change": format!("{nth} {now:?}")}}}).to_string();
    Request { method: "PATCH", path: path(nth), content_type: "application/merge-patch+json", body }
}

fn apply(nth: u32) -> Request {
    let name = format!("map-{nth}");
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"applied": nth.to_string()}});
    let path = format!("{}?fieldManager=bench", path(nth));
    Request { method: "PATCH", path, content_type: "application/apply-patch+yaml", body: object.to_string() }
}
