//! What a container must not be able to do.

use crate::support::{MONITOR, Node, PATIENCE, Ran, monitor_pid, runtime_with, sh};
use plan::node::*;
use std::path::Path;

fn capabilities(text: &str, set: &str) -> u64 {
    let line =
        text.lines().find_map(|line| line.strip_prefix(set)).unwrap_or_else(|| panic!("no {set} in {text}"));
    u64::from_str_radix(line.trim(), 16).unwrap()
}

const DEFAULT: u64 = 0xa804_25fb;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn capabilities_of_start_and_exec() {
    let node = Node::new();
    let sandbox = node.sandbox("caps").await;
    let check = async |change: fn(&mut ContainerConfig), effective: u64, bounding: u64| {
        let container = node.start(&sandbox, change).await;
        for status in ["/proc/1/status", "/proc/self/status"] {
            let output = node.exec(&container, &format!("cat {status}")).await;
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            assert_eq!(capabilities(&text, "CapEff:"), effective, "{status}");
            assert_eq!(capabilities(&text, "CapBnd:"), bounding, "{status}");
            assert_eq!(capabilities(&text, "CapInh:"), 0, "{status}");
        }
        node.runtime.remove_container(&container.id).await.unwrap();
    };
    check(|_| {}, DEFAULT, DEFAULT).await;
    check(|config| config.security.run_as_user = Some(1000), 0, DEFAULT).await;
    check(
        |config| {
            config.security.drop_capabilities = vec!["ALL".into()];
            config.security.add_capabilities = vec!["NET_BIND_SERVICE".into()];
        },
        1 << 10,
        1 << 10,
    )
    .await;
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn seccomp_holds_for_start_and_exec() {
    let node = Node::new();
    let sandbox = node.sandbox("seccomp").await;
    let check =
        async |seccomp: Seccomp, user: u32, no_new_privileges: bool, mode: &str, unshare_works: bool| {
            let container = node
                .start(&sandbox, |config| {
                    config.security.seccomp = seccomp;
                    config.security.run_as_user = Some(user);
                    config.security.no_new_privileges = no_new_privileges;
                    config.security.add_capabilities = vec!["SYS_PTRACE".into()];
                })
                .await;
            for process in ["1", "self"] {
                let script = format!("grep -E '^(Seccomp|NoNewPrivs):' /proc/{process}/status");
                let output = node.exec(&container, &script).await;
                let text = String::from_utf8_lossy(&output.stdout).into_owned();
                let nnp = u8::from(no_new_privileges);
                assert_eq!(text, format!("NoNewPrivs:\t{nnp}\nSeccomp:\t{mode}\n"), "process {process}");
            }
            // A user namespace needs no capability, so only the filter refuses it.
            let unshare = node.exec(&container, "unshare -U true").await;
            assert_eq!(unshare.exit_code == 0, unshare_works, "{unshare:?}");
            node.runtime.remove_container(&container.id).await.unwrap();
        };
    for user in [0, 1000] {
        for no_new_privileges in [false, true] {
            check(Seccomp::RuntimeDefault, user, no_new_privileges, "2", false).await;
        }
    }
    check(Seccomp::Unconfined, 0, false, "0", true).await;
    let profile = node.directory.path().join("profile.json");
    let text = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["unshare"], "action": "SCMP_ACT_ERRNO"}]}"#;
    std::fs::write(&profile, text).unwrap();
    check(Seccomp::Localhost(profile), 1000, true, "2", false).await;
    let container = node
        .create(&sandbox, |config| config.security.seccomp = Seccomp::Localhost("/no/profile".into()))
        .await;
    let error = node.runtime.start_container(&container.id).await.unwrap_err().to_string();
    assert!(error.contains("seccomp profile /no/profile"), "{error}");
    node.finish().await;
}

async fn run(node: &Node, script: &str, change: impl FnOnce(&mut ContainerConfig)) -> Ran {
    let sandbox = node.runtime.list().sandboxes.remove(0);
    node.run(&sandbox, script, change).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn masked_and_protected_paths() {
    let node = Node::new();
    node.sandbox("masked").await;
    let script = "cat /proc/kcore /proc/keys | wc -c; ls /sys/firmware | wc -l; echo 1 2>/dev/null > /proc/sysrq-trigger; echo $?; \
        echo x 2>/dev/null > /proc/sys/kernel/hostname; echo $?; touch /sys/x 2>/dev/null; echo $?";
    assert_eq!(run(&node, script, |_| {}).await.text(), "0\n0\n1\n1\n1\n");
    let unmasked = run(&node, "cat /proc/keys | wc -l; mount | grep -c ' /proc/sys '", |config| {
        config.security.proc_mount = ProcMount::Unmasked;
    });
    assert!(unmasked.await.text().ends_with("\n0\n"));
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cgroups_are_read_only() {
    let node = Node::new();
    node.sandbox("cgroups").await;
    let script = "for f in $(ls -d /sys/fs/cgroup /sys/fs/cgroup/*/); do mkdir $f/x 2>/dev/null && echo made $f/x; done; \
        for f in memory/memory.limit_in_bytes memory.max; do \
        test -e /sys/fs/cgroup/$f && echo -1 2>/dev/null > /sys/fs/cgroup/$f && echo wrote $f; done; echo end";
    let ran = run(&node, script, |config| {
        config.security.seccomp = Seccomp::Unconfined;
        config.resources.memory_limit_bytes = 64 << 20;
    })
    .await;
    assert_eq!(ran.text(), "end\n");
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_root_that_cannot_be_written() {
    let node = Node::new();
    node.sandbox("readonly").await;
    let volume = node.directory.path().join("v");
    std::fs::create_dir(&volume).unwrap();
    let script = "touch /x 2>/dev/null; echo $?; touch /etc/hosts 2>/dev/null; echo $?; touch /v/x; echo $?; echo > /dev/null; echo $?; \
        echo message > /dev/termination-log; echo $?";
    let ran = run(&node, script, |config| {
        config.security.read_only_root_filesystem = true;
        config.termination_message_path = "/dev/termination-log".into();
        config.mounts = vec![Mount { host_path: volume, container_path: "/v".into(), ..Default::default() }];
    })
    .await;
    assert_eq!(ran.text(), "1\n1\n0\n0\n0\n");
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn devices() {
    let node = Node::new();
    node.sandbox("devices").await;
    // A node may be made but not opened; the disk of this machine has some number.
    let script = "head -c 4 /dev/zero | wc -c; mknod /tmp/kmsg c 1 11 && head -c 1 /tmp/kmsg 2>&1 | grep -c 'not permitted'; ls /dev | sort 2>/dev/null | wc -l";
    let text = run(&node, script, |_| {}).await.text();
    assert!(text.starts_with("4\n1\n"), "{text}");
    let privileged =
        run(&node, "mknod /tmp/kmsg c 1 11 && head -c 1 /tmp/kmsg | wc -c; ls /dev/kmsg", |config| {
            config.security.privileged = true;
        });
    assert_eq!(privileged.await.text(), "1\n/dev/kmsg\n");
    let open = "exec 3</dev/given/loops && echo opened; (exec 3>/dev/given/loops) 2>/dev/null || echo not for writing";
    let given = run(&node, open, |config| {
        config.devices = vec![Device {
            host_path: "/dev/loop-control".into(),
            container_path: "/dev/given/loops".into(),
            permissions: "r".into(),
        }];
    });
    assert_eq!(given.await.text(), "opened\nnot for writing\n");
    node.finish().await;
}

/// What makes the kernel run a program as root of the host, or stops the host, is not for privileged containers either.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_privileged_container_does_not_steer_the_host() {
    let node = Node::new();
    node.sandbox("steering").await;
    // Opened for appending and not written, so that nothing happens where it can be.
    let script = "for f in /proc/sys/kernel/core_pattern /proc/sysrq-trigger /proc/sys/vm/swappiness; do \
        [ -e $f ] || continue; (: >> $f) 2>/dev/null && echo $f; done";
    let open = run(&node, script, |config| config.security.privileged = true);
    assert_eq!(open.await.text(), "/proc/sys/vm/swappiness\n");
    node.finish().await;
}

/// An image must not be able to have anything mounted or made outside its root.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_in_an_image_do_not_lead_out() {
    let node = Node::new();
    let sandbox = node.sandbox("links").await;
    let outside = node.directory.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    let evil = node.directory.path().join("evil");
    std::fs::create_dir(&evil).unwrap();
    std::os::unix::fs::symlink(&outside, evil.join("absolute")).unwrap();
    std::os::unix::fs::symlink("../../../../../../../../tmp", evil.join("relative")).unwrap();
    std::os::unix::fs::symlink("/proc/self/fd", evil.join("fds")).unwrap();
    std::os::unix::fs::symlink("/proc/self/exe", evil.join("self")).unwrap();
    let volume = node.directory.path().join("volume");
    std::fs::create_dir(&volume).unwrap();
    let create = async |config: ContainerConfig| {
        let layers = vec![node.directory.path().join("layer"), evil.clone()];
        node.runtime.create_container(&sandbox.id, config, ImageConfig::default(), layers).await.unwrap()
    };
    let base = || ContainerConfig {
        name: "c".into(),
        log_path: "c/0.log".into(),
        command: sh("true"),
        ..Default::default()
    };
    let mount =
        |path: &str| Mount { host_path: volume.clone(), container_path: path.into(), ..Default::default() };
    let container =
        create(ContainerConfig { mounts: vec![mount("/absolute/in"), mount("/relative/in")], ..base() })
            .await;
    // The link's target does not exist inside, and is not made.
    let error = node.runtime.start_container(&container.id).await.unwrap_err().to_string();
    assert!(error.contains("to rootfs at \"/absolute/in\""), "{error}");
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
    for fd in 3..12 {
        let container = create(ContainerConfig { working_dir: format!("/fds/{fd}"), ..base() }).await;
        let error = node.runtime.start_container(&container.id).await.unwrap_err().to_string();
        assert!(error.contains("chdir to cwd"), "{error}");
    }
    // The monitor's own program may be run.
    let container = create(ContainerConfig { command: vec!["/self".into()], ..base() }).await;
    let _ = node.runtime.start_container(&container.id).await;
    node.exit(&container.id).await;
    node.finish().await;
}

/// Who gets hold of the program by `/proc/PID/exe` cannot write to it, also when nobody runs it any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_monitors_program_cannot_be_overwritten() {
    let mut node = Node::new();
    // A copy that no other test runs.
    let copy = node.directory.path().join("monitor");
    std::fs::copy(MONITOR, &copy).unwrap();
    node.runtime = runtime_with(node.directory.path(), &node.cgroup, &copy);
    let sandbox = node.sandbox("program").await;
    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC;
    let program = format!("/proc/{}/exe", monitor_pid(&sandbox));
    let program = rustix::fs::open(program, flags, rustix::fs::Mode::empty()).unwrap();
    node.runtime.remove_sandbox(&sandbox.id).await.unwrap();
    let path = format!("/proc/self/fd/{}", rustix::fd::AsRawFd::as_raw_fd(&program));
    // The spawner runs it too, and ends with its runtime.
    node.runtime = runtime_with(node.directory.path(), &node.cgroup, Path::new(MONITOR));
    let open = || std::fs::OpenOptions::new().write(true).open(&path).unwrap_err();
    let idle = async {
        while open().kind() == std::io::ErrorKind::ExecutableFileBusy {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, idle).await.unwrap();
    let error = open();
    assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem, "{error}");
    drop(program);
    node.finish().await;
}
