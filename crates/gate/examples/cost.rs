//! What writes cost without a disk and without HTTP: `cargo run --release -p gate --example cost`.

#[path = "../tests/common/mod.rs"]
mod common;

use std::time::Instant;

use common::World;
use serde_json::json;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let world = World::new().await;
    let data = "x".repeat(1000);
    time("create a ConfigMap of 1 KB", 20_000, async |index| {
        let object = json!({"metadata": {"name": format!("c{index}")}, "data": {"key": data}});
        world.create("configmaps", object).await.expect("created");
    })
    .await;
    time("patch one of its labels", 20_000, async |index| {
        let patch = json!({"metadata": {"labels": {"n": index.to_string()}}});
        world.merge("configmaps", &format!("c{index}"), "", patch).await.expect("patched");
    })
    .await;
    time("create a pod", 5_000, async |index| {
        world.create("pods", common::pod(&format!("p{index}"))).await.expect("created");
    })
    .await;
    time("write a pod's status", 5_000, async |index| {
        let status = json!({"status": {"phase": "Running", "podIP": "10.0.0.1", "conditions": [{"type": "Ready", "status": "True"}]}});
        world.merge("pods", &format!("p{index}"), "status", status).await.expect("written");
    })
    .await;
    time("delete a ConfigMap", 20_000, async |index| {
        world
            .delete("configmaps", &format!("c{index}"), gate::DeleteOptions::default())
            .await
            .expect("deleted");
    })
    .await;
}

async fn time(what: &str, count: u32, mut one: impl AsyncFnMut(u32)) {
    let began = Instant::now();
    for index in 0..count {
        one(index).await;
    }
    println!("{what}: {:.1} µs", began.elapsed().as_secs_f64() * 1e6 / f64::from(count));
}
