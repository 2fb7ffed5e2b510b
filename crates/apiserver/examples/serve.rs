//! A whole API server on loopback over a memory store, for trying clients by hand: prints a kubeconfig, ends with Ctrl-C.

#[path = "../tests/common/mod.rs"]
mod common;
#[tokio::main]
async fn main() {
    let cluster = common::Cluster::start().await;
    let config = cluster.kubeconfig("admin", &["system:masters"]);
    println!("{}", config.display());
    tokio::signal::ctrl_c().await.expect("signal");
}
