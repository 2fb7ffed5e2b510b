//! etcd, the peer of every durable write: Debian's, with its defaults, spoken to by gRPC.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use http::uri::PathAndQuery;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

use super::Load;
use super::site::cpu;

/// `etcdserverpb.PutRequest`, as far as it is used.
#[derive(Clone, PartialEq, prost::Message)]
struct Put {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "bytes", tag = "2")]
    value: bytes::Bytes,
}

/// A response whose contents are not looked at.
#[derive(Clone, PartialEq, prost::Message)]
struct Ignored {}

/// An etcd of the benchmark's own; it ends with this value.
pub struct Server {
    child: Child,
    port: u16,
}

impl Drop for Server {
    fn drop(&mut self) {
        // Failing means that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// As many puts of a value of so many bytes, each to a key of its own, by so many clients with a connection each;
/// and the CPU time that etcd took for one.
pub fn puts(folder: &Path, count: u32, clients: u32, bytes: usize) -> Result<(Load, Duration)> {
    let server = Server::start(Path::new("etcd"), folder)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{}", server.port))?;
    let channels = runtime.block_on(connect(&endpoint, clients))?;
    let value = bytes::Bytes::from("x".repeat(bytes));
    let (before, since) = (cpu(server.child.id()), Instant::now());
    let times = runtime.block_on(async {
        let each = count / clients;
        let clients = channels.into_iter().zip(0..).map(|(channel, client)| {
            tokio::spawn(put_all(channel, client * each..(client + 1) * each, value.clone()))
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
    let spent = cpu(server.child.id()) - before;
    let load = Load { a_second: f64::from(made) / took.as_secs_f64(), p99: super::percentiles(times).1 };
    Ok((load, spent / made))
}

async fn connect(endpoint: &Endpoint, clients: u32) -> Result<Vec<Channel>> {
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut channels = Vec::new();
    while channels.len() < clients as usize {
        match endpoint.connect().await {
            Ok(channel) => channels.push(channel),
            Err(error) => {
                ensure!(Instant::now() < deadline, "etcd does not answer: {error}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
    Ok(channels)
}

async fn put_all(
    channel: Channel,
    numbers: std::ops::Range<u32>,
    value: bytes::Bytes,
) -> Result<Vec<Duration>> {
    let mut grpc = Grpc::new(channel);
    let mut times = Vec::new();
    for number in numbers {
        let since = Instant::now();
        let put = Put { key: format!("/registry/bench/{number}").into(), value: value.clone() };
        grpc.ready().await?;
        let path = PathAndQuery::from_static("/etcdserverpb.KV/Put");
        let codec = ProstCodec::<Put, Ignored>::default();
        grpc.unary(tonic::Request::new(put), path, codec).await.context("put into etcd")?;
        times.push(since.elapsed());
    }
    Ok(times)
}

impl Server {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn start(program: &Path, folder: &Path) -> Result<Self> {
        let (port, peer) = (free_port()?, free_port()?);
        let mut etcd = Command::new(program);
        etcd.arg("--data-dir").arg(folder).args(["--log-level", "error"]);
        // Room for what the benchmarks put into it.
        etcd.arg(format!("--quota-backend-bytes={}", 8_u64 << 30));
        for flag in ["--listen-client-urls", "--advertise-client-urls"] {
            etcd.arg(flag).arg(format!("http://127.0.0.1:{port}"));
        }
        for flag in ["--listen-peer-urls", "--initial-advertise-peer-urls"] {
            etcd.arg(flag).arg(format!("http://127.0.0.1:{peer}"));
        }
        etcd.arg("--initial-cluster").arg(format!("default=http://127.0.0.1:{peer}"));
        etcd.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Self { child: etcd.spawn().context("start etcd")?, port })
    }
}

pub fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
