//! A host that sleeps: everything stops for longer than a node may be silent, and goes on as if nothing had been.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::{Cluster, Room, Site, until};
use rustix::process::{Pid, Signal, kill_process};

/// A node may be silent for 50 s; what is found silent for 10 s more was asleep.
const ASLEEP: Duration = Duration::from_secs(62);

pub fn tell() -> Result<()> {
    let site = Site::new()?;
    let cluster = site.up("asleep", "--nodes 2").context(site.logs())?;
    let told = sleep_and_wake(&cluster);
    told.map_err(|failure| failure.context(site.logs()))?;
    site.delete("asleep")
}

fn sleep_and_wake(cluster: &Cluster) -> Result<()> {
    let room = Room { cluster, namespace: "default".to_owned() };
    room.kubectl("create deployment web --image=e2e:1 --replicas=4")?;
    room.rolled_out("deployment/web")?;
    let containers = "{range.items[*]}{.status.containerStatuses[0].containerID}{end}";
    let before = room.field("pods", containers)?;

    // The daemon wakes first, and finds nodes that have not been heard of.
    let pids = [cluster.daemon_pid()?, cluster.node_pid("asleep-1")?, cluster.node_pid("asleep-2")?];
    let tell_all = |signal: Signal| -> Result<()> {
        for pid in pids {
            kill_process(Pid::from_raw(pid).context("a process")?, signal).context("tell a process")?;
        }
        Ok(())
    };
    tell_all(Signal::STOP)?;
    let since = Instant::now();
    let slept = until("the night is over", || Ok((since.elapsed() > ASLEEP).then_some(())));
    tell_all(Signal::CONT)?;
    slept?;

    let renewed = || -> Result<String> {
        room.kubectl("-n kube-node-lease get leases -o jsonpath={.items[*].spec.renewTime}")
    };
    let asleep = renewed()?;
    let old: Vec<&str> = asleep.split(' ').collect();
    until("both nodes are heard of again", || {
        let ready = room.field("nodes", "{.items[*].status.conditions[?(@.type=='Ready')].status}")?;
        ensure!(ready == "True True", "nodes that slept are taken for lost: {ready}");
        Ok((renewed()?.split(' ').all(|time| !old.contains(&time))).then_some(()))
    })?;
    let lost = room.kubectl("get events -A --field-selector=reason=NodeNotReady -o name")?;
    ensure!(lost.is_empty(), "nodes were taken for lost: {lost}");
    ensure!(room.field("nodes", "{.items[*].spec.taints}")?.is_empty(), "no taints");
    ensure!(room.field("pods", containers)? == before, "the pods are those that they were");
    room.rolled_out("deployment/web")
}
