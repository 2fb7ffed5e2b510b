//! Every process of the control plane and of a node is killed again and again under write load.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use anyhow::{Context, Result, ensure};
use e2e::{Cluster, Room, Site, run, until};
use rustix::process::{Pid, Signal, kill_process};

const ROUNDS: u32 = 20;
const WRITERS: u32 = 2;

/// No acknowledged write is lost, no container is restarted, and `ekso up` brings the cluster back to Ready.
pub fn tell() -> Result<()> {
    let site = Site::new()?;
    let cluster = site.up("crashes", "--nodes 2").context(site.logs())?;
    let told = kill_all(&cluster);
    told.map_err(|failure| failure.context(site.logs()))?;
    site.delete("crashes")
}

fn kill_all(cluster: &Cluster) -> Result<()> {
    let room = Room { cluster, namespace: "default".to_owned() };
    room.kubectl("create deployment web --image=e2e:1 --replicas=4")?;
    room.rolled_out("deployment/web")?;
    let containers = "{range.items[*]}{.status.containerStatuses[0].containerID}{end}";
    let before = room.field("pods", containers)?;

    let is_over = AtomicBool::new(false);
    let next = AtomicU32::new(0);
    let acknowledged: Mutex<Vec<u32>> = Mutex::default();
    std::thread::scope(|scope| -> Result<()> {
        for _ in 0..WRITERS {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let written = room
                        .try_kubectl(&format!("create configmap kept-{number} --from-literal=n={number}"));
                    if written.is_ok_and(|answer| answer.code == 0) {
                        acknowledged.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(number);
                    }
                }
            });
        }
        let killed = (0..ROUNDS).try_for_each(|round| kill_and_resume(cluster, &acknowledged, round));
        is_over.store(true, Ordering::Relaxed);
        killed
    })?;

    let kept = room.kubectl("get configmaps -o jsonpath={.items[*].metadata.name}")?;
    let kept: std::collections::HashSet<&str> = kept.split_whitespace().collect();
    let acknowledged = acknowledged.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    let lost: Vec<_> =
        acknowledged.iter().filter(|number| !kept.contains(format!("kept-{number}").as_str())).collect();
    ensure!(lost.is_empty(), "of {} acknowledged writes these are lost: {lost:?}", acknowledged.len());
    room.rolled_out("deployment/web")?;
    room.wait("nodes --all", "condition=Ready")?;
    ensure!(room.field("pods", containers)? == before, "containers are not those that they were");
    let restarts = room.field("pods", "{.items[*].status.containerStatuses[0].restartCount}")?;
    ensure!(restarts.split_whitespace().all(|count| count == "0"), "restarts: {restarts}");
    // A node's agent that was killed a moment ago comes back after a delay.
    until("pods are reached again", || Ok(room.sh("deployment/web", "cat /www/version").ok())).map(drop)
}

fn kill_and_resume(cluster: &Cluster, acknowledged: &Mutex<Vec<u32>>, round: u32) -> Result<()> {
    let count = || acknowledged.lock().unwrap_or_else(std::sync::PoisonError::into_inner).len();
    let before = count();
    // In the midst of writing.
    until("writes are acknowledged", || Ok((count() > before + 2).then_some(())))?;
    // One that was killed a moment ago comes back after a delay that grows.
    let node =
        |number| until("the node runs again", || Ok(cluster.node_pid(&format!("crashes-{number}")).ok()));
    let nodes = [node(1)?, node(2)?];
    for pid in [cluster.daemon_pid()?].into_iter().chain(nodes) {
        let process = Pid::from_raw(pid).context("a process id")?;
        kill_process(process, Signal::KILL).with_context(|| format!("kill {pid} in round {round}"))?;
        until(&format!("{pid} is gone"), || Ok((!is_running(pid)).then_some(())))?;
    }
    run(&mut cluster.site.command("up --name crashes")?, "")?
        .ok()
        .with_context(|| format!("round {round}"))
        .map(drop)
}

/// Whether it still holds what it had: its first thread may have ended before the others.
fn is_running(pid: i32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().count();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    threads > 1 || (threads == 1 && !status.contains("State:\tZ"))
}
