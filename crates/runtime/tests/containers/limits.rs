//! Limits hold, and what is used is told.

use crate::support::{Node, sh};
use plan::node::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn out_of_memory() {
    let node = Node::new();
    let sandbox = node.sandbox("oom").await;
    // Its whole input is one line, which sh must hold.
    let ran = node
        .run(&sandbox, "x=$(yes | head -c 200000000)", |config| {
            config.resources.memory_limit_bytes = 16 << 20
        })
        .await;
    assert_eq!((ran.status.reason.as_str(), ran.status.exit_code), ("OOMKilled", 137));
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_of_processes_and_cpu() {
    let node = Node::new();
    let sandbox = node.sandbox("limits").await;
    let container = node
        .start(&sandbox, |config| {
            config.resources = Resources {
                cpu_shares: 512,
                cpu_period_us: 100_000,
                cpu_quota_us: 20_000,
                memory_limit_bytes: 64 << 20,
                pids_limit: 8,
                oom_score_adj: Some(999),
            };
        })
        .await;
    assert_eq!(node.exec(&container, "cat /proc/1/oom_score_adj").await.stdout, b"999\n");
    let forks = node.exec(&container, "for i in 1 2 3 4 5 6 7 8 9; do sleep 100 & done; wait").await;
    assert!(String::from_utf8_lossy(&forks.stderr).contains("fork"), "{forks:?}");
    let read = "cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu.max 2>/dev/null";
    let quota = node.exec(&container, read).await;
    assert!(String::from_utf8_lossy(&quota.stdout).starts_with("20000"), "{quota:?}");
    let resources = Resources { cpu_quota_us: 50_000, memory_limit_bytes: 128 << 20, ..Default::default() };
    node.runtime.update_resources(&container.id, resources).await.unwrap();
    let quota = node.exec(&container, read).await;
    assert!(String::from_utf8_lossy(&quota.stdout).starts_with("50000"), "{quota:?}");
    node.finish().await;
}

/// Guaranteed pods ask for this, also where the machine may not grant it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_low_oom_score_is_no_reason_not_to_start() {
    let node = Node::new();
    let sandbox = node.sandbox("guaranteed").await;
    let ran = node.run(&sandbox, "exit 5", |config| config.resources.oom_score_adj = Some(-997)).await;
    assert_eq!(ran.status.exit_code, 5);
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn usage() {
    let node = Node::new();
    let sandbox = node.sandbox("usage").await;
    let script = "x=$(yes | head -c 20000000); echo ready > /dev/termination-log; sleep 1000";
    let container = node
        .start(&sandbox, |config| {
            config.command = sh("sleep 1000");
        })
        .await;
    let idle = node.runtime.container_stats(&container.id).await.unwrap().unwrap();
    assert_eq!(idle.processes, 1);
    node.exec(&container, &script.replace("sleep 1000", "true").replace("/dev/termination-log", "/tmp/x"))
        .await;
    let busy = node.runtime.container_stats(&container.id).await.unwrap().unwrap();
    assert!(busy.cpu_usage_ns > idle.cpu_usage_ns, "{idle:?} {busy:?}");
    assert!(busy.memory_usage_bytes > 0 && busy.memory_working_set_bytes <= busy.memory_usage_bytes);
    let pod = node.runtime.sandbox_stats(&sandbox.id).await.unwrap().unwrap();
    assert!(pod.cpu_usage_ns >= busy.cpu_usage_ns);
    node.finish().await;
}
