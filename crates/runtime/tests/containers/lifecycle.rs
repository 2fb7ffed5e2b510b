//! Started, logged, stopped, removed; what a container finds around itself.

use crate::support::{Node, PATIENCE, sh};
use plan::node::*;
use std::time::{Duration, Instant};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_logs_and_exits() {
    let node = Node::new();
    let sandbox = node.sandbox("runs").await;
    let ran = node.run(&sandbox, "echo out; echo err >&2; printf rest; exit 3", |_| {}).await;
    let mut lines = ran.lines();
    lines.sort_unstable();
    assert_eq!(lines, ["stderr F err", "stdout F out", "stdout P rest"]);
    assert_eq!((ran.status.exit_code, ran.status.signal, ran.status.reason.as_str()), (3, 0, "Error"));
    assert!(ran.status.started_at_ns > 0 && ran.status.finished_at_ns >= ran.status.started_at_ns);
    let ran = node.run(&sandbox, "true", |_| {}).await;
    assert_eq!((ran.status.exit_code, ran.status.reason.as_str()), (0, "Completed"));
    // The first process of a PID namespace does not hear itself.
    let ran = node.run(&sandbox, "sh -c 'kill -KILL $$'; exit $?", |_| {}).await;
    assert_eq!((ran.status.exit_code, ran.status.signal), (137, 0));
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_identity_of_its_own() {
    let node = Node::new();
    let sandbox = node
        .sandbox_with("identity", |config| {
            config.dns.servers = vec!["10.100.0.10".into()];
            config.host_aliases = vec![HostAlias { ip: "10.9.8.7".into(), hostnames: vec!["seven".into()] }];
            config.sysctls.insert("net.ipv4.ip_local_port_range".into(), "1024 2048".into());
        })
        .await;
    node.runtime.set_sandbox_ips(&sandbox.id, vec!["10.244.0.9".parse().unwrap()]).await.unwrap();
    let script = "hostname; cat /etc/hostname /etc/resolv.conf; cat /etc/hosts | tail -4; echo $$; pwd; \
        echo $FOO $HOSTNAME $HOME; cat /proc/sys/net/ipv4/ip_local_port_range; cat /proc/net/dev | wc -l; ls /proc | grep -c '^[0-9]'";
    let ran = node
        .run(&sandbox, script, |config| {
            config.env = vec![("FOO".into(), "bar".into())];
            config.working_dir = "/made/here".into();
        })
        .await;
    let want = "identity\nidentity\nnameserver 10.100.0.10\n10.244.0.9\tidentity\n\n# Entries added by HostAliases.\n\
        10.9.8.7\tseven\n1\n/made/here\nbar identity /root\n1024\t2048\n";
    // Two lines of heading, lo, and whatever tunnels the kernel makes everywhere.
    assert!(ran.text().starts_with(want), "{}", ran.text());
    let netns = node.runtime.netns_path(&sandbox.id).unwrap().unwrap();
    assert!(netns.exists());
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_of_the_image_and_of_the_pod() {
    let node = Node::new();
    let sandbox = node.sandbox("users").await;
    let check = async |change: fn(&mut ContainerConfig), want: &str| {
        let ran = node.run(&sandbox, "id -u; id -g; id -G; echo $HOME", change).await;
        assert_eq!(ran.text(), want);
    };
    check(|_| {}, "0\n0\n0\n/root\n").await;
    check(|config| config.security.run_as_user = Some(1000), "1000\n1000\n1000 44\n/home/web\n").await;
    check(
        |config| {
            config.security.run_as_user = Some(12345);
            config.security.run_as_group = Some(7);
            config.security.supplemental_groups = vec![8, 9];
        },
        "12345\n7\n7 8 9\n/\n",
    )
    .await;
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_start_says_why() {
    let node = Node::new();
    let sandbox = node.sandbox("failing").await;
    let check = async |change: &dyn Fn(&mut ContainerConfig), want: &str| {
        let container = node.create(&sandbox, |config| change(config)).await;
        let error = node.runtime.start_container(&container.id).await.unwrap_err().to_string();
        assert!(error.contains(want), "{error}");
        let status = node.exit(&container.id).await;
        assert_eq!((status.exit_code, status.reason.as_str()), (128, "StartError"));
        assert!(status.message.contains(want), "{}", status.message);
        node.runtime.remove_container(&container.id).await.unwrap();
    };
    let command = |words: &[&str]| {
        let words: Vec<String> = words.iter().map(|word| word.to_string()).collect();
        move |config: &mut ContainerConfig| config.command = words.clone()
    };
    check(&command(&["foo"]), r#"exec: "foo": executable file not found in $PATH"#).await;
    check(&command(&["/foo"]), r#"exec: "/foo": stat /foo: no such file or directory"#).await;
    check(&command(&["/etc/plain"]), r#"exec: "/etc/plain": permission denied"#).await;
    check(&command(&["/etc"]), r#"exec: "/etc": is a directory"#).await;
    check(&command(&["garbage"]), "exec /bin/garbage: exec format error").await;
    check(&|config| config.working_dir = "/etc/plain/x".into(), "chdir to cwd").await;
    check(
        &|config| {
            config.mounts = vec![Mount {
                host_path: "/no/such/place".into(),
                container_path: "/x".into(),
                ..Default::default()
            }]
        },
        "mount source /no/such/place",
    )
    .await;
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stops_with_grace_then_by_force() {
    let node = Node::new();
    let sandbox = node.sandbox("stops").await;
    let ready = |name: &str| format!("echo ready > /dev/termination-log; {name}");
    let polite = node
        .start(&sandbox, |config| {
            config.command =
                sh(&format!("trap 'echo bye; exit 7' TERM; {}", ready("while :; do sleep 0.01; done")));
            config.termination_message_path = "/dev/termination-log".into();
        })
        .await;
    wait_for_file(&polite.termination_message_file, "ready\n").await;
    node.runtime.stop_container(&polite.id, PATIENCE, None).await.unwrap();
    assert_eq!(node.exit(&polite.id).await.exit_code, 7);
    let deaf = node
        .start(&sandbox, |config| {
            config.name = "deaf".into();
            config.command = sh(&format!("trap '' TERM; {}", ready("sleep 1000")));
            config.termination_message_path = "/dev/termination-log".into();
        })
        .await;
    wait_for_file(&deaf.termination_message_file, "ready\n").await;
    let began = Instant::now();
    node.runtime.stop_container(&deaf.id, Duration::from_millis(300), None).await.unwrap();
    assert!(began.elapsed() >= Duration::from_millis(300));
    let status = node.exit(&deaf.id).await;
    assert_eq!((status.exit_code, status.signal), (137, 9));
    node.finish().await;
}

/// Looks at a file until it has this content.
async fn wait_for_file(path: &std::path::Path, content: &str) {
    let wait = async {
        while std::fs::read_to_string(path).unwrap() != content {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("{} stayed empty", path.display()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mounts() {
    let node = Node::new();
    let sandbox = node.sandbox("mounts").await;
    let volume = node.directory.path().join("volume");
    std::fs::create_dir_all(volume.join("sub")).unwrap();
    std::fs::write(volume.join("file"), "content").unwrap();
    let mount = |container_path: &str, host_path: &std::path::Path, read_only| Mount {
        host_path: host_path.into(),
        container_path: container_path.into(),
        read_only,
        ..Default::default()
    };
    let script = "cat /ro/file; echo; touch /ro/x; echo $?; touch /rw/sub/new; echo $?; cat /one/file; echo; \
        echo shared > /dev/shm/x; cat /dev/shm/x; mount | grep -c ' /dev/mqueue '";
    let ran = node
        .run(&sandbox, script, |config| {
            config.mounts = vec![
                mount("/ro", &volume, true),
                mount("/rw", &volume, false),
                mount("/one/file", &volume.join("file"), false),
            ];
        })
        .await;
    assert_eq!(ran.text(), "content\n1\n0\ncontent\nshared\n1\n");
    assert!(volume.join("sub/new").exists());
    // Shared memory is the pod's, not the container's.
    assert_eq!(node.run(&sandbox, "cat /dev/shm/x", |_| {}).await.text(), "shared\n");
    node.finish().await;
}

/// KEP-4639.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn images_as_volumes() {
    let node = Node::new();
    let sandbox = node.sandbox("images").await;
    let layers = ["lower", "upper"].map(|name| node.directory.path().join(name));
    for layer in &layers {
        std::fs::create_dir_all(layer.join("dir")).unwrap();
        std::fs::write(layer.join("dir/file"), layer.file_name().unwrap().as_encoded_bytes()).unwrap();
        std::fs::write(layer.join(layer.file_name().unwrap()), "").unwrap();
    }
    std::fs::copy("/bin/busybox", layers[0].join("busybox")).unwrap();
    std::os::unix::fs::symlink("/etc", layers[1].join("out")).unwrap();
    let mount = |container_path: &str, sub_path: &str, layers: &[std::path::PathBuf]| ImageVolume {
        container_path: container_path.into(),
        layers: layers.to_vec(),
        sub_path: sub_path.into(),
    };
    let script = "ls /image; cat /image/dir/file /part/file /single/dir/file; echo; touch /image/x 2>/dev/null; echo $?; \
        /image/busybox true 2>/dev/null; echo $?";
    let ran = node
        .run(&sandbox, script, |config| {
            config.image_volumes = vec![
                mount("/image", "", &layers),
                mount("/part", "dir", &layers),
                mount("/single", "", &layers[..1]),
            ];
        })
        .await;
    assert_eq!(ran.text(), "busybox\ndir\nlower\nout\nupper\nupperupperlower\n1\n126\n");
    let escaping =
        node.create(&sandbox, |config| config.image_volumes = vec![mount("/x", "out/passwd", &layers)]).await;
    let error = node.runtime.start_container(&escaping.id).await.unwrap_err().to_string();
    assert!(error.contains("No such file"), "{error}");
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mount_propagation() {
    use rustix::mount::{
        MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_change, unmount,
    };
    let node = Node::new();
    let sandbox = node.sandbox("propagation").await;
    let shared = node.directory.path().join("shared");
    std::fs::create_dir_all(shared.join("inner")).unwrap();
    mount_bind(&shared, &shared).unwrap();
    mount_change(&shared, MountPropagationFlags::SHARED).unwrap();
    let bind = |propagation| {
        let host_path = shared.clone();
        move |config: &mut ContainerConfig| {
            config.name = format!("{propagation:?}");
            config.mounts =
                vec![Mount { host_path, container_path: "/m".into(), propagation, ..Default::default() }];
        }
    };
    let none = node.start(&sandbox, bind(MountPropagation::None)).await;
    let slave = node.start(&sandbox, bind(MountPropagation::HostToContainer)).await;
    let both = node
        .start(&sandbox, |config| {
            bind(MountPropagation::Bidirectional)(config);
            config.security.privileged = true;
        })
        .await;
    mount("late", shared.join("inner"), "tmpfs", MountFlags::empty(), None).unwrap();
    std::fs::write(shared.join("inner/seen"), "").unwrap();
    for (container, sees) in [(&none, 1), (&slave, 0), (&both, 0)] {
        assert_eq!(node.exec(container, "ls /m/inner/seen").await.exit_code, sees);
    }
    let made = node.exec(&both, "mkdir /m/back && mount -t tmpfs back /m/back && touch /m/back/x").await;
    assert_eq!(made.exit_code, 0, "{}", String::from_utf8_lossy(&made.stderr));
    assert!(shared.join("back/x").exists());
    for directory in ["back", "inner"] {
        unmount(shared.join(directory), UnmountFlags::DETACH).unwrap();
    }
    unmount(&shared, UnmountFlags::DETACH).unwrap();
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containers_that_share_processes() {
    let node = Node::new();
    let sandbox =
        node.sandbox_with("sharing", |config| config.namespaces.share_process_namespace = true).await;
    let first = node.start(&sandbox, |config| config.command = sh("sleep 4321 & sleep 1000")).await;
    let second = node.start(&sandbox, |config| config.name = "second".into()).await;
    let seen = node.exec(&second, "ps").await;
    let seen = String::from_utf8_lossy(&seen.stdout).into_owned();
    assert!(seen.contains("sleep 4321"), "{seen}");
    let root = node.exec(&second, "ls /proc/1/root/ 2>&1").await;
    let root = String::from_utf8_lossy(&root.stdout).into_owned();
    assert!(root.ends_with("Permission denied\n"), "the holder shows the machine: {root}");
    node.runtime.stop_container(&first.id, Duration::ZERO, None).await.unwrap();
    // What it left in the background is dead too, though its PID namespace lives on.
    let wait = async {
        while String::from_utf8_lossy(&node.exec(&second, "ps").await.stdout).contains("sleep 4321") {}
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap();
    node.finish().await;
}

/// What `kubectl debug --target` makes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_that_joins_another() {
    let node = Node::new();
    let sandbox = node.sandbox("debug").await;
    let target = node.start(&sandbox, |config| config.command = sh("sleep 4444; true")).await;
    let debugger = node
        .start(&sandbox, |config| {
            config.name = "debugger".into();
            config.pid_target = Some(target.id.clone());
        })
        .await;
    let seen = node.exec(&debugger, "ps | grep -c '[s]leep 4444'").await;
    assert_eq!(seen.stdout, b"2\n", "{seen:?}");
    // It dies with the namespace.
    node.runtime.stop_container(&target.id, Duration::ZERO, None).await.unwrap();
    assert_eq!(node.exit(&debugger.id).await.exit_code, 137);
    let late = node.create(&sandbox, |config| config.pid_target = Some(target.id.clone())).await;
    let error = node.runtime.start_container(&late.id).await.unwrap_err().to_string();
    assert!(error.contains("is not running"), "{error}");
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_at_once() {
    let node = Node::new();
    let mut sandboxes = Vec::new();
    for number in 0..10 {
        sandboxes.push(node.sandbox(&format!("many-{number}")).await);
    }
    let mut tasks = Vec::new();
    for number in 0..50 {
        let container = node
            .create(&sandboxes[number % 10], |config| {
                config.name = format!("c{number}");
                config.log_path = format!("c{number}/0.log");
                config.command = sh(&format!("echo {number}; sleep 1000"));
            })
            .await;
        let runtime = node.runtime.clone();
        tasks.push(tokio::spawn(async move {
            let began = Instant::now();
            runtime.start_container(&container.id).await.unwrap();
            began.elapsed()
        }));
    }
    let mut times = Vec::new();
    for task in tasks {
        times.push(task.await.unwrap());
    }
    times.sort();
    eprintln!("create to running, 50 at once: median {:?}, worst {:?}", times[25], times[49]);
    let running =
        node.runtime.list().containers.into_iter().filter(|c| c.status.state == ContainerState::Running);
    assert_eq!(running.count(), 50);
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_of_many_layers() {
    let node = Node::new();
    let sandbox = node.sandbox("layers").await;
    let mut layers = vec![node.directory.path().join("layer")];
    for number in 0..120 {
        // Long paths, so that they would not fit into one page.
        let layer = node.directory.path().join(format!("{number}-{}", "x".repeat(100)));
        std::fs::create_dir(&layer).unwrap();
        std::fs::write(layer.join("top"), format!("{number}\n")).unwrap();
        layers.push(layer);
    }
    let config = ContainerConfig {
        name: "c".into(),
        log_path: "c/0.log".into(),
        command: sh("cat /top"),
        ..Default::default()
    };
    let container =
        node.runtime.create_container(&sandbox.id, config, ImageConfig::default(), layers).await.unwrap();
    node.runtime.start_container(&container.id).await.unwrap();
    assert_eq!(node.exit(&container.id).await.exit_code, 0);
    assert!(std::fs::read_to_string(&container.log_path).unwrap().ends_with("stdout F 119\n"));
    node.finish().await;
}

/// A pod may share the machine's network, processes and IPC; here "the machine" is where the test runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_machines_own_namespaces() {
    let node = Node::new();
    let sandbox = node
        .sandbox_with("host", |config| {
            config.namespaces = NamespaceOptions {
                host_network: true,
                host_pid: true,
                host_ipc: true,
                share_process_namespace: false,
            };
        })
        .await;
    assert_eq!(node.runtime.netns_path(&sandbox.id).unwrap(), None);
    let container = node.start(&sandbox, |config| config.command = sh("sleep 1000 & sleep 2000")).await;
    let own = |name: &str| std::fs::read_link(format!("/proc/self/ns/{name}")).unwrap().display().to_string();
    let output =
        node.exec(&container, "for n in net pid ipc uts mnt; do readlink /proc/self/ns/$n; done").await;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let seen: Vec<&str> = text.lines().collect();
    assert_eq!(seen[..4], [own("net"), own("pid"), own("ipc"), own("uts")]);
    assert_ne!(seen[4], own("mnt"));
    let group = node.runtime.container_stats(&container.id).await.unwrap().unwrap();
    assert_eq!(group.processes, 2);
    node.runtime.stop_container(&container.id, Duration::ZERO, None).await.unwrap();
    node.finish().await;
}

/// A network namespace that somebody else made.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_given_network() {
    let node = Node::new();
    let first = node.sandbox("first").await;
    let path = node.runtime.netns_path(&first.id).unwrap().unwrap();
    let second = node.sandbox_with("second", |config| config.netns_path = Some(path.clone())).await;
    assert_eq!(node.runtime.netns_path(&second.id).unwrap().as_ref(), Some(&path));
    let script = "readlink /proc/self/ns/net; readlink /proc/self/ns/ipc";
    let (a, b) =
        (node.run(&first, script, |_| {}).await.text(), node.run(&second, script, |_| {}).await.text());
    let (a, b): (Vec<&str>, Vec<&str>) = (a.lines().collect(), b.lines().collect());
    assert_eq!(a[0], b[0]);
    assert_ne!(a[1], b[1]);
    node.finish().await;
}

/// What a container takes from being asked for to running, without the pod; prints the numbers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn how_long_a_start_takes() {
    let node = Node::new();
    let began = Instant::now();
    let sandbox = node.sandbox("timing").await;
    let pod = began.elapsed();
    let (mut starts, mut execs) = (Vec::new(), Vec::new());
    for number in 0..20 {
        let began = Instant::now();
        let container = node.start(&sandbox, |config| config.name = format!("c{number}")).await;
        starts.push(began.elapsed());
        let began = Instant::now();
        node.exec(&container, "true").await;
        execs.push(began.elapsed());
        node.runtime.remove_container(&container.id).await.unwrap();
    }
    starts.sort();
    execs.sort();
    eprintln!(
        "pod {pod:?}; create to running: median {:?}, worst {:?}; exec: median {:?}",
        starts[10], starts[19], execs[10]
    );
    assert!(starts[10] < Duration::from_secs(1));
    node.finish().await;
}
