#[path = "../tests/common/mod.rs"]
mod common;
#[tokio::main]
async fn main() {
    let cluster = common::Cluster::start().await;
    let config = cluster.kubeconfig("admin", &["system:masters"]);
    println!("{}", config.display());
    tokio::signal::ctrl_c().await.expect("signal");
}
