//! The node's process may be killed at any time, and the monitor too.

use crate::support::{Node, PATIENCE, exit, monitor_pid, runtime_in, sh};
use plan::node::*;
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

const DIRECTORY: &str = "EKSO_RUNTIME_TEST_DIRECTORY";
const CGROUP: &str = "EKSO_RUNTIME_TEST_CGROUP";

/// Not a test: what `killed_clients_find_their_containers_again` runs as a process of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a helper of another test"]
async fn client() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let directory = std::path::PathBuf::from(directory);
    let runtime = runtime_in(&directory, &std::env::var(CGROUP).unwrap());
    let config = SandboxConfig {
        pod_uid: "uid".into(),
        hostname: "again".into(),
        log_directory: directory.join("logs"),
        cgroup_parent: "kubepods/pod1".into(),
        ..Default::default()
    };
    let sandbox = runtime.run_sandbox(config).await.unwrap();
    for (name, script) in [
        ("stays", "sleep 1000"),
        ("waits", "while ! test -e /tmp/go; do sleep 0.01; done; echo late; exit 9"),
    ] {
        let config = ContainerConfig {
            name: name.into(),
            log_path: format!("{name}/0.log"),
            command: sh(script),
            stop_signal: "SIGKILL".into(),
            ..Default::default()
        };
        let layers = vec![directory.join("layer")];
        let container =
            runtime.create_container(&sandbox.id, config, ImageConfig::default(), layers).await.unwrap();
        runtime.start_container(&container.id).await.unwrap();
    }
    println!("\nstarted");
    std::future::pending::<()>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_clients_find_their_containers_again() {
    let node = Node::new();
    let mut client = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "recovery::client", "--ignored", "--nocapture"])
        .env(DIRECTORY, node.directory.path())
        .env(CGROUP, &node.cgroup)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(client.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "started"), "the client ended early");
    client.kill().unwrap();
    client.wait().unwrap();
    node.runtime.recover().await.unwrap();
    let listing = node.runtime.list();
    assert_eq!(listing.sandboxes.len(), 1);
    assert_eq!(listing.sandboxes[0].state, SandboxState::Ready);
    let find =
        |name: &str| listing.containers.iter().find(|container| container.name == name).unwrap().clone();
    let (stays, waits) = (find("stays"), find("waits"));
    assert_eq!((stays.status.state, waits.status.state), (ContainerState::Running, ContainerState::Running));
    // The container's end may be quicker than that of the exec, and then takes it along.
    node.exec(&waits, "touch /tmp/go").await;
    let status = exit(&node.runtime, &waits.id).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (9, "Error"));
    let log = std::fs::read_to_string(&waits.log_path).unwrap();
    assert!(log.ends_with("stdout F late\n"), "{log}");
    // And again, in the same process: what ended meanwhile is known too.
    let again = runtime_in(node.directory.path(), &node.cgroup);
    again.recover().await.unwrap();
    assert_eq!(again.container(&waits.id).unwrap().status, status);
    assert_eq!(again.container(&stays.id).unwrap().status.state, ContainerState::Running);
    again.stop_container(&stays.id, PATIENCE, None).await.unwrap();
    assert_eq!(exit(&node.runtime, &stays.id).await.exit_code, 137);
    drop(again);
    node.finish().await;
}

/// The node's process is gone, in the shape of a runtime that is dropped, while a container ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_that_nobody_saw_is_on_disk() {
    let mut node = Node::new();
    let next = runtime_in(node.directory.path(), &node.cgroup);
    let runtime = std::mem::replace(&mut node.runtime, next);
    let config = SandboxConfig { cgroup_parent: "kubepods/podend".into(), ..Default::default() };
    let sandbox = runtime.run_sandbox(config).await.unwrap();
    let directory = node.directory.path();
    let config = ContainerConfig {
        name: "c".into(),
        log_path: directory.join("c.log").display().to_string(),
        command: sh("exit 11"),
        ..Default::default()
    };
    let layers = vec![directory.join("layer")];
    let container =
        runtime.create_container(&sandbox.id, config, ImageConfig::default(), layers).await.unwrap();
    runtime.start_container(&container.id).await.unwrap();
    drop(runtime);
    let status = directory
        .join("root/sandboxes")
        .join(&sandbox.id)
        .join("containers")
        .join(&container.id)
        .join("status.json");
    let ended = async {
        while !std::fs::read_to_string(&status).is_ok_and(|text| text.contains("Exited")) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, ended).await.unwrap();
    node.runtime.recover().await.unwrap();
    assert_eq!(node.runtime.container(&container.id).unwrap().status.exit_code, 11);
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_monitor_takes_its_containers_along() {
    let node = Node::new();
    let sandbox = node.sandbox("lost").await;
    let container = node.start(&sandbox, |config| config.command = sh("sleep 1001 & sleep 1000")).await;
    let user = node
        .start(&sandbox, |config| {
            config.name = "user".into();
            config.security.run_as_user = Some(1000);
        })
        .await;
    let pids = [&container, &user].map(|c| node.runtime.container(&c.id).unwrap().status.pid);
    let mut events = node.runtime.events();
    kill_process(Pid::from_raw(monitor_pid(&sandbox)).unwrap(), Signal::KILL).unwrap();
    let status = node.exit(&container.id).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (137, "ContainerStatusUnknown"));
    let lost = async {
        loop {
            if let RuntimeEvent::SandboxLost { sandbox_id, pod_uid } = events.recv().await.unwrap() {
                return (sandbox_id, pod_uid);
            }
        }
    };
    let lost = tokio::time::timeout(PATIENCE, lost).await.unwrap();
    assert_eq!(lost, (sandbox.id.clone(), "uid-lost".to_string()));
    assert_eq!(node.runtime.sandbox(&sandbox.id).unwrap().state, SandboxState::NotReady);
    for pid in pids {
        let gone = async {
            while std::fs::read_to_string(format!("/proc/{pid}/comm"))
                .is_ok_and(|comm| comm.trim() == "sleep")
            {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, gone).await.unwrap();
    }
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_monitor_that_died_while_nobody_looked() {
    let node = Node::new();
    let sandbox = node.sandbox("unseen").await;
    let container = node.start(&sandbox, |_| {}).await;
    kill_process(Pid::from_raw(monitor_pid(&sandbox)).unwrap(), Signal::KILL).unwrap();
    node.exit(&container.id).await;
    let again = runtime_in(node.directory.path(), &node.cgroup);
    again.recover().await.unwrap();
    assert_eq!(again.sandbox(&sandbox.id).unwrap().state, SandboxState::NotReady);
    assert_eq!(again.container(&container.id).unwrap().status.exit_code, 137);
    drop(again);
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopping_is_final_and_repeatable() {
    let node = Node::new();
    let sandbox = node.sandbox("stopped").await;
    let container = node.start(&sandbox, |_| {}).await;
    node.runtime.stop_sandbox(&sandbox.id).await.unwrap();
    let status = node.runtime.container(&container.id).unwrap().status;
    assert_eq!((status.state, status.exit_code), (ContainerState::Exited, 137));
    node.runtime.stop_sandbox(&sandbox.id).await.unwrap();
    assert!(
        node.runtime.exec_sync(&container.id, sh("true"), Some(Duration::from_secs(1)), 1).await.is_err()
    );
    node.runtime.remove_sandbox(&sandbox.id).await.unwrap();
    node.runtime.remove_sandbox(&sandbox.id).await.unwrap();
    node.runtime.remove_container(&container.id).await.unwrap();
    node.finish().await;
}

/// Nobody misses the process that makes monitors: pods go on, and the next one gets a new one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_spawner_is_replaced() {
    let node = Node::new();
    let first = node.sandbox("first").await;
    let container = node.start(&first, |_| {}).await;
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", monitor_pid(&first))).unwrap();
    let spawner: i32 = stat.rsplit(')').next().unwrap().split_whitespace().nth(1).unwrap().parse().unwrap();
    assert_eq!(std::fs::read_to_string(format!("/proc/{spawner}/comm")).unwrap(), "pod-spawner\n");
    kill_process(Pid::from_raw(spawner).unwrap(), Signal::KILL).unwrap();
    let second = node.sandbox("second").await;
    assert_eq!(node.run(&second, "exit 3", |_| {}).await.status.exit_code, 3);
    assert_eq!(node.exec(&container, "echo alive").await.stdout, b"alive\n");
    node.finish().await;
}

/// Prints what a pod costs; the limit is ten times what was measured.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_monitor_is_small() {
    let node = Node::new();
    let sandbox = node.sandbox("small").await;
    let began = std::time::Instant::now();
    let container = node.create(&sandbox, |_| {}).await;
    node.runtime.start_container(&container.id).await.unwrap();
    let took = began.elapsed();
    let rollup = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", monitor_pid(&sandbox))).unwrap();
    let kilobytes = |key: &str| -> u64 {
        let line = rollup.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    };
    let private = kilobytes("Private_Dirty:");
    eprintln!(
        "monitor: {private} kB private dirty, {} kB PSS; create to running {took:?}",
        kilobytes("Pss:")
    );
    assert!(private < 700, "{rollup}");
    node.finish().await;
}
