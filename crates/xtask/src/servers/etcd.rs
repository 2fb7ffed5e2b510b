//! etcd with its defaults, spoken to by gRPC.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use http::uri::PathAndQuery;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

use super::free_port;

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

/// An etcd of a task's own; it ends with this value.
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

impl Server {
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

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `127.0.0.1:2379`
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// A connection, as soon as it answers.
    pub async fn client(&self) -> Result<Client> {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address()))?;
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            match endpoint.connect().await {
                Ok(channel) => return Ok(Client { grpc: Grpc::new(channel) }),
                Err(error) => ensure!(Instant::now() < deadline, "etcd does not answer: {error}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// A connection to one.
pub struct Client {
    grpc: Grpc<Channel>,
}

impl Client {
    pub async fn put(&mut self, key: String, value: bytes::Bytes) -> Result<()> {
        self.grpc.ready().await?;
        let put = tonic::Request::new(Put { key: key.into(), value });
        let path = PathAndQuery::from_static("/etcdserverpb.KV/Put");
        self.grpc.unary(put, path, ProstCodec::<Put, Ignored>::default()).await.context("put into etcd")?;
        Ok(())
    }
}
