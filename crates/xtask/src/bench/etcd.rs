//! etcd, the peer of every durable write: Debian's.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::Load;
use super::site::cpu;
use crate::servers::etcd::{Client, Server};

/// As many puts of a value of so many bytes, each to a key of its own, by so many clients with a connection each;
/// and the CPU time that etcd took for one.
pub fn puts(folder: &Path, count: u32, clients: u32, bytes: usize) -> Result<(Load, Duration)> {
    let server = Server::start(Path::new("etcd"), folder)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let connected = runtime.block_on(async {
        let mut connected = Vec::new();
        for _ in 0..clients {
            connected.push(server.client().await?);
        }
        anyhow::Ok(connected)
    })?;
    let value = bytes::Bytes::from("x".repeat(bytes));
    let (before, since) = (cpu(server.pid()), Instant::now());
    let times = runtime.block_on(async {
        let each = count / clients;
        let clients = connected.into_iter().zip(0..).map(|(client, number)| {
            tokio::spawn(put_all(client, number * each..(number + 1) * each, value.clone()))
        });
        let clients: Vec<_> = clients.collect();
        let mut times = Vec::new();
        for client in clients {
            times.extend(client.await??);
        }
        anyhow::Ok(times)
    })?;
    let took = since.elapsed();
    let made = u32::try_from(times.len())?;
    let spent = cpu(server.pid()) - before;
    let load = Load { a_second: f64::from(made) / took.as_secs_f64(), p99: super::percentiles(times).1 };
    Ok((load, spent / made))
}

async fn put_all(
    mut client: Client,
    numbers: std::ops::Range<u32>,
    value: bytes::Bytes,
) -> Result<Vec<Duration>> {
    let mut times = Vec::new();
    for number in numbers {
        let since = Instant::now();
        client.put(format!("/registry/bench/{number}"), value.clone()).await?;
        times.push(since.elapsed());
    }
    Ok(times)
}
