//! What reads cost over loopback without TLS: `cargo run --release -p apiserver --example reads`.

#[path = "../tests/common/mod.rs"]
mod common;

use std::time::Instant;

use common::Cluster;
use plan::{User, Write};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const OBJECTS: u32 = 20_000;

#[tokio::main]
async fn main() {
    let cluster = Cluster::start().await;
    let system = User::new("system:apiserver", &["system:masters"]);
    let everyone = json!({"metadata": {"name": "everyone"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "system:anonymous"}]});
    cluster.write(&system, Write::Create { resource: kinds::CLUSTER_ROLE_BINDINGS, object: everyone }).await;
    let data = "x".repeat(800);
    for index in 0..OBJECTS {
        let object =
            json!({"metadata": {"name": format!("c{index}"), "namespace": "default"}, "data": {"key": data}});
        cluster.write(&system, Write::Create { resource: kinds::CONFIG_MAPS, object }).await;
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let server = cluster.server.clone();
    tokio::spawn(async move { server.serve(listener, None).await });
    for _ in 0..5 {
        let began = Instant::now();
        let bytes = fetch(address, "/api/v1/namespaces/default/configmaps", "close").await;
        println!(
            "LIST {OBJECTS} objects, {} KB: {:.1} ms",
            bytes / 1024,
            began.elapsed().as_secs_f64() * 1e3
        );
    }
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    let began = Instant::now();
    let mut buffer = vec![0; 16 * 1024];
    for index in 0..OBJECTS {
        let request =
            format!("GET /api/v1/namespaces/default/configmaps/c{index} HTTP/1.1\r\nHost: x\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("written");
        // An answer of about 1 KB comes in one piece on loopback.
        let read = stream.read(&mut buffer).await.expect("read");
        assert!(read > 1000, "{}", String::from_utf8_lossy(&buffer[..read]));
    }
    println!("GET: {:.1} µs", began.elapsed().as_secs_f64() * 1e6 / f64::from(OBJECTS));
}

async fn fetch(address: std::net::SocketAddr, path: &str, connection: &str) -> usize {
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: {connection}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("written");
    let mut buffer = vec![0; 1 << 20];
    let mut total = 0;
    loop {
        match stream.read(&mut buffer).await.expect("read") {
            0 => return total,
            read => total += read,
        }
    }
}
