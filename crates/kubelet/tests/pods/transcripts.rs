//! What a kubelet does, step by step, for pods of many kinds. Each case is a story and the transcript of it.

use plan::pod::{OpKey, ProbeKind};
use serde_json::{Value, json};

use crate::world::World;

pub fn check(name: &str, spec: Value, story: impl FnOnce(&mut World), expected: &str) {
    let mut world = World::new(spec);
    story(&mut world);
    let lines = |text: &str| {
        text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("\n")
    };
    let found = lines(&world.log.join("\n"));
    assert!(found == lines(expected), "{name}:\n{found}\n--- instead of ---\n{}", lines(expected));
}

pub fn container(name: &str) -> Value {
    json!({"name": name, "image": "bb"})
}

pub fn sidecar(name: &str) -> Value {
    json!({"name": name, "image": "bb", "restartPolicy": "Always"})
}

pub fn pod(restart_policy: &str, init: &[Value], containers: &[Value]) -> Value {
    json!({"restartPolicy": restart_policy, "initContainers": init, "containers": containers})
}

#[test]
fn a_pod_starts() {
    check(
        "plain",
        pod("Always", &[], &[container("c")]),
        |w| {
            w.settle();
        },
        r#"
        = Pending | c ContainerCreating
        sandbox 0
        pull bb
        start c#0
        = Running Ready | c running ready
    "#,
    );
}

#[test]
fn crashes_wait_longer_and_longer() {
    check(
        "crash loop",
        pod("Always", &[], &[container("c")]),
        |w| {
            w.settle();
            for _ in 0..8 {
                w.exit("c", 1);
                w.advance(300);
            }
        },
        r#"
        = Pending | c ContainerCreating
        sandbox 0
        pull bb
        start c#0
        = Running Ready | c running ready
        c exits 1
        = Running | c ended 1
        start c#1
        = Running Ready | c running ready restarts=1
        c exits 1
        event BackOff: Back-off restarting failed container c in pod p_ns(u)
        = Running | c CrashLoopBackOff "back-off 10s restarting failed container=c pod=p_ns(u)" restarts=1
        +10s
        = Running | c ended 1 restarts=1
        start c#2
        = Running Ready | c running ready restarts=2
        remove c#0
        c exits 1
        = Running | c CrashLoopBackOff "back-off 20s restarting failed container=c pod=p_ns(u)" restarts=2
        +20s
        = Running | c ended 1 restarts=2
        start c#3
        = Running Ready | c running ready restarts=3
        remove c#1
        c exits 1
        = Running | c CrashLoopBackOff "back-off 40s restarting failed container=c pod=p_ns(u)" restarts=3
        +40s
        = Running | c ended 1 restarts=3
        start c#4
        = Running Ready | c running ready restarts=4
        remove c#2
        c exits 1
        = Running | c CrashLoopBackOff "back-off 1m20s restarting failed container=c pod=p_ns(u)" restarts=4
        +80s
        = Running | c ended 1 restarts=4
        start c#5
        = Running Ready | c running ready restarts=5
        remove c#3
        c exits 1
        = Running | c CrashLoopBackOff "back-off 2m40s restarting failed container=c pod=p_ns(u)" restarts=5
        +160s
        = Running | c ended 1 restarts=5
        start c#6
        = Running Ready | c running ready restarts=6
        remove c#4
        c exits 1
        = Running | c CrashLoopBackOff "back-off 5m0s restarting failed container=c pod=p_ns(u)" restarts=6
        +300s
        = Running | c ended 1 restarts=6
        start c#7
        = Running Ready | c running ready restarts=7
        remove c#5
        c exits 1
        = Running | c CrashLoopBackOff "back-off 5m0s restarting failed container=c pod=p_ns(u)" restarts=7
        +300s
        = Running | c ended 1 restarts=7
        start c#8
        = Running Ready | c running ready restarts=8
        remove c#6
    "#,
    );
}

#[test]
fn a_long_run_is_forgiven() {
    check(
        "forgiven",
        pod("Always", &[], &[container("c")]),
        |w| {
            w.settle();
            w.exit("c", 1);
            w.settle();
            w.exit("c", 1);
            w.advance(10);
            w.advance(600);
            w.exit("c", 1);
            w.settle();
        },
        r#"
        = Pending | c ContainerCreating
        sandbox 0
        pull bb
        start c#0
        = Running Ready | c running ready
        c exits 1
        = Running | c ended 1
        start c#1
        = Running Ready | c running ready restarts=1
        c exits 1
        event BackOff: Back-off restarting failed container c in pod p_ns(u)
        = Running | c CrashLoopBackOff "back-off 10s restarting failed container=c pod=p_ns(u)" restarts=1
        +10s
        = Running | c ended 1 restarts=1
        start c#2
        = Running Ready | c running ready restarts=2
        remove c#0
        c exits 1
        = Running | c ended 1 restarts=2
        start c#3
        = Running Ready | c running ready restarts=3
        remove c#1
    "#,
    );
}

#[test]
fn restart_policies_never() {
    check(
        "Never",
        pod("Never", &[], &[container("a"), container("b")]),
        |w| {
            w.settle();
            w.exit("a", 0);
            w.settle();
            w.exit("b", 2);
            w.settle();
        },
        r#"
        = Pending | a ContainerCreating | b ContainerCreating
        sandbox 0
        pull bb
        start a#0
        start b#0
        = Running Ready | a running ready | b running ready
        a exits 0
        = Running | a ended 0 | b running ready
        b exits 2
        = Failed | a ended 0 | b ended 2
        stop s0
    "#,
    );
}

#[test]
fn restart_policies_on_failure() {
    check(
        "OnFailure",
        pod("OnFailure", &[], &[container("a")]),
        |w| {
            w.settle();
            w.exit("a", 1);
            w.settle();
            w.exit("a", 0);
            w.settle();
        },
        r#"
        = Pending | a ContainerCreating
        sandbox 0
        pull bb
        start a#0
        = Running Ready | a running ready
        a exits 1
        = Running | a ended 1
        start a#1
        = Running Ready | a running ready restarts=1
        a exits 0
        = Succeeded | a ended 0 restarts=1
        stop s0
    "#,
    );
}

#[test]
fn init_containers() {
    check(
        "init",
        pod("Always", &[container("i1"), container("i2")], &[container("c")]),
        |w| {
            w.settle();
            w.exit("i1", 1);
            w.settle();
            w.exit("i1", 0);
            w.settle();
            w.exit("i2", 0);
            w.settle();
        },
        r#"
        = Pending | i1 PodInitializing | i2 PodInitializing | c PodInitializing
        sandbox 0
        pull bb
        start i1#0
        = Pending | i1 running | i2 PodInitializing | c PodInitializing
        i1 exits 1
        = Pending | i1 ended 1 | i2 PodInitializing | c PodInitializing
        start i1#1
        = Pending | i1 running restarts=1 | i2 PodInitializing | c PodInitializing
        i1 exits 0
        = Pending | i1 ended 0 ready restarts=1 | i2 PodInitializing | c PodInitializing
        start i2#0
        = Pending | i1 ended 0 ready restarts=1 | i2 running | c PodInitializing
        i2 exits 0
        = Pending | i1 ended 0 ready restarts=1 | i2 ended 0 ready | c PodInitializing
        start c#0
        = Running Ready | i1 ended 0 ready restarts=1 | i2 ended 0 ready | c running ready
    "#,
    );
}

#[test]
fn init_fails_never() {
    check(
        "init fails",
        pod("Never", &[container("i")], &[container("c")]),
        |w| {
            w.settle();
            w.exit("i", 4);
            w.settle();
        },
        r#"
        = Pending | i PodInitializing | c PodInitializing
        sandbox 0
        pull bb
        start i#0
        = Pending | i running | c PodInitializing
        i exits 4
        = Failed | i ended 4 | c PodInitializing
        stop s0
    "#,
    );
}

#[test]
fn sidecars() {
    check(
        "sidecar",
        pod("Never", &[sidecar("s1"), sidecar("s2")], &[container("c")]),
        |w| {
            w.settle();
            w.exit("s1", 1);
            w.settle();
            w.exit("c", 0);
            w.settle();
        },
        r#"
        = Pending | s1 PodInitializing | s2 PodInitializing | c PodInitializing
        sandbox 0
        pull bb
        start s1#0
        = Pending | s1 running ready | s2 PodInitializing | c PodInitializing
        start s2#0
        = Pending | s1 running ready | s2 running ready | c PodInitializing
        start c#0
        = Running Ready | s1 running ready | s2 running ready | c running ready
        s1 exits 1
        = Running | s1 ended 1 | s2 running ready | c running ready
        start s1#1
        = Running Ready | s1 running ready restarts=1 | s2 running ready | c running ready
        c exits 0
        = Running | s1 running ready restarts=1 | s2 running ready | c ended 0
        kill s2#0 grace 30: Stopping container s2
        = Running | s1 running ready restarts=1 | s2 ended 137 | c ended 0
        kill s1#1 grace 30: Stopping container s1
        = Succeeded | s1 ended 137 restarts=1 | s2 ended 137 | c ended 0
        stop s0
    "#,
    );
}

#[test]
fn termination() {
    check(
        "termination",
        pod("Always", &[sidecar("s1"), sidecar("s2")], &[container("a"), container("b")]),
        |w| {
            w.settle();
            w.delete(7);
            w.settle();
        },
        r#"
        = Pending | s1 PodInitializing | s2 PodInitializing | a PodInitializing | b PodInitializing
        sandbox 0
        pull bb
        start s1#0
        = Pending | s1 running ready | s2 PodInitializing | a PodInitializing | b PodInitializing
        start s2#0
        = Pending | s1 running ready | s2 running ready | a PodInitializing | b PodInitializing
        start a#0
        start b#0
        = Running Ready | s1 running ready | s2 running ready | a running ready | b running ready
        delete
        kill a#0 grace 7: Stopping container a
        kill b#0 grace 7: Stopping container b
        = Running | s1 running ready | s2 running ready | a ended 137 | b ended 137
        kill s2#0 grace 7: Stopping container s2
        = Running | s1 running ready | s2 ended 137 | a ended 137 | b ended 137
        kill s1#0 grace 7: Stopping container s1
        = Failed | s1 ended 137 | s2 ended 137 | a ended 137 | b ended 137
        stop s0
        remove s0
        forget
    "#,
    );
}

#[test]
fn never_started() {
    check(
        "deleted before its image came",
        pod("Always", &[], &[container("c")]),
        |w| {
            w.missing_images.insert("bb".into());
            w.settle();
            w.advance(30);
            w.delete(30);
            w.settle();
        },
        r#"
        = Pending | c ContainerCreating
        sandbox 0
        pull bb fails
        event BackOff: Back-off pulling image "bb"
        event Failed: Error: ImagePullBackOff
        = Pending | c ImagePullBackOff "Back-off pulling image "bb": ErrImagePull: not found"
        +10s
        = Pending | c ErrImagePull "not found"
        pull bb fails
        = Pending | c ImagePullBackOff "Back-off pulling image "bb": ErrImagePull: not found"
        +20s
        = Pending | c ErrImagePull "not found"
        pull bb fails
        = Pending | c ImagePullBackOff "Back-off pulling image "bb": ErrImagePull: not found"
        delete
        = Failed | c ContainerCreating
        stop s0
        remove s0
        forget
    "#,
    );
}

#[test]
fn pull() {
    check(
        "pull comes back",
        pod("Always", &[], &[container("c")]),
        |w| {
            w.missing_images.insert("bb".into());
            w.advance(10);
            w.missing_images.clear();
            w.advance(20);
        },
        r#"
        = Pending | c ContainerCreating
        sandbox 0
        pull bb fails
        event BackOff: Back-off pulling image "bb"
        event Failed: Error: ImagePullBackOff
        = Pending | c ImagePullBackOff "Back-off pulling image "bb": ErrImagePull: not found"
        +10s
        = Pending | c ErrImagePull "not found"
        pull bb fails
        = Pending | c ImagePullBackOff "Back-off pulling image "bb": ErrImagePull: not found"
        +20s
        = Pending | c ErrImagePull "not found"
        pull bb
        = Pending | c ContainerCreating
        start c#0
        = Running Ready | c running ready
    "#,
    );
}

#[test]
fn broken() {
    check(
        "create fails",
        pod("Always", &[], &[container("c")]),
        |w| {
            w.broken.insert("c".into());
            w.advance(30);
            w.broken.clear();
            w.advance(60);
        },
        r#"
        = Pending | c ContainerCreating
        sandbox 0
        pull bb
        start c fails
        = Pending | c CreateContainerError "no space"
        +10s
        start c fails
        +20s
        start c fails
        +40s
        start c#0
        = Running Ready | c running ready
    "#,
    );
}

#[test]
fn probes() {
    check(
        "probes",
        pod(
            "Always",
            &[],
            &[json!({"name": "c", "image": "bb",
                "startupProbe": {"exec": {"command": ["x"]}},
                "livenessProbe": {"exec": {"command": ["x"]}, "terminationGracePeriodSeconds": 3},
                "readinessProbe": {"exec": {"command": ["x"]}}})],
        ),
        |w| {
            w.settle();
            w.probe("c", ProbeKind::Startup, true);
            w.settle();
            w.probe("c", ProbeKind::Readiness, true);
            w.settle();
            w.probe("c", ProbeKind::Readiness, false);
            w.settle();
            w.probe("c", ProbeKind::Liveness, false);
            w.settle();
            w.probe("c", ProbeKind::Startup, false);
            w.settle();
        },
        r#"
        = Pending | c ContainerCreating
        sandbox 0
        pull bb
        start c#0
        = Running | c running
        = Running Ready | c running ready
        = Running | c running
        kill c#0 grace 3: Container c failed liveness probe, will be restarted
        start c#1
        = Running | c running restarts=1
        kill c#1 grace 30: Container c failed startup probe, will be restarted
        event BackOff: Back-off restarting failed container c in pod p_ns(u)
        = Running | c CrashLoopBackOff "back-off 10s restarting failed container=c pod=p_ns(u)" restarts=1
    "#,
    );
}

/// KEP-4781: nothing changes for who is ready, until probes say so.
#[test]
fn probed_before_a_restart() {
    check(
        "probed_before_a_restart",
        pod(
            "Always",
            &[],
            &[json!({"name": "c", "image": "bb",
                "startupProbe": {"exec": {"command": ["x"]}},
                "readinessProbe": {"exec": {"command": ["x"]}}})],
        ),
        |w| {
            w.settle();
            w.probe("c", ProbeKind::Startup, true);
            w.probe("c", ProbeKind::Readiness, true);
            w.settle();
            w.restart_kubelet();
            w.settle();
            w.probe("c", ProbeKind::Readiness, true);
            w.settle();
        },
        r#"
        = Pending | c ContainerCreating
        sandbox 0
        pull bb
        start c#0
        = Running | c running
        = Running Ready | c running ready
    "#,
    );
}

#[test]
fn deadline() {
    check(
        "deadline",
        json!({"restartPolicy": "Never", "activeDeadlineSeconds": 20, "containers": [container("c")]}),
        |w| {
            w.advance(25);
        },
        r#"
        = Pending | c ContainerCreating
        sandbox 0
        pull bb
        start c#0
        = Running Ready | c running ready
        +20s
        kill c#0 grace 30: Stopping container c
        = Failed (DeadlineExceeded) | c ended 137
        stop s0
    "#,
    );
}

#[test]
fn sandbox_lost() {
    check(
        "sandbox lost",
        pod("Always", &[container("i")], &[container("c")]),
        |w| {
            w.settle();
            w.exit("i", 0);
            w.settle();
            w.lose_sandbox("s0");
            w.settle();
            w.exit("i", 0);
            w.advance(10);
        },
        r#"
        = Pending | i PodInitializing | c PodInitializing
        sandbox 0
        pull bb
        start i#0
        = Pending | i running | c PodInitializing
        i exits 0
        = Pending | i ended 0 ready | c PodInitializing
        start c#0
        = Running Ready | i ended 0 ready | c running ready
        event SandboxChanged: Pod sandbox changed, it will be killed and re-created.
        = Running | i ended 0 ready | c ended 137
        sandbox 1
        start i#1
        = Running | i running restarts=1 | c ended 137
        i exits 0
        = Running | i ended 0 ready restarts=1 | c ended 137
        start c#1
        = Running Ready | i ended 0 ready restarts=1 | c running ready restarts=1
        remove s0
    "#,
    );
}

/// What the world looks like while the op that makes a sandbox has not connected it yet.
fn disconnect(world: &mut World) {
    while world.observed.sandboxes.is_empty() {
        let step = world.step();
        assert!(!step.ops.is_empty(), "no sandbox is made");
        step.ops.into_iter().for_each(|op| world.perform(op));
    }
    world.observed.sandboxes[0].ips.clear();
}

#[test]
fn sandbox_being_connected() {
    check(
        "sandbox being connected",
        pod("Always", &[], &[container("c")]),
        |w| {
            disconnect(w);
            let ips = w.node.ips.clone();
            w.observed.in_flight.insert(OpKey::Sandbox);
            w.settle();
            w.log.push("connected".to_owned());
            w.observed.sandboxes[0].ips = ips;
            w.observed.in_flight.clear();
            w.settle();
        },
        r#"
        sandbox 0
        = Pending | c ContainerCreating
        connected
        pull bb
        start c#0
        = Running Ready | c running ready
    "#,
    );
}

#[test]
fn sandbox_never_connected() {
    check(
        "the kubelet ends before a sandbox is connected",
        pod("Always", &[], &[container("c")]),
        |w| {
            disconnect(w);
            w.restart_kubelet();
            w.settle();
        },
        r#"
        sandbox 0
        = Pending | c ContainerCreating
        stop s0
        event SandboxChanged: Pod sandbox changed, it will be killed and re-created.
        sandbox 1
        remove s0
        pull bb
        start c#0
        = Running Ready | c running ready
    "#,
    );
}

#[test]
fn sandbox_lost_never() {
    check(
        "sandbox lost, Never",
        pod("Never", &[], &[container("a"), container("b")]),
        |w| {
            w.settle();
            w.exit("a", 0);
            w.settle();
            w.lose_sandbox("s0");
            w.settle();
        },
        r#"
        = Pending | a ContainerCreating | b ContainerCreating
        sandbox 0
        pull bb
        start a#0
        start b#0
        = Running Ready | a running ready | b running ready
        a exits 0
        = Running | a ended 0 | b running ready
        = Failed | a ended 0 | b ended 137
    "#,
    );
}

#[test]
fn restarted_kubelet() {
    check(
        "kubelet restarts",
        pod("Always", &[], &[container("c")]),
        |w| {
            w.settle();
            w.exit("c", 1);
            w.settle();
            w.exit("c", 1);
            w.restart_kubelet();
            w.advance(10);
        },
        r#"
        = Pending | c ContainerCreating
        sandbox 0
        pull bb
        start c#0
        = Running Ready | c running ready
        c exits 1
        = Running | c ended 1
        start c#1
        = Running Ready | c running ready restarts=1
        c exits 1
        event BackOff: Back-off restarting failed container c in pod p_ns(u)
        = Running | c CrashLoopBackOff "back-off 10s restarting failed container=c pod=p_ns(u)" restarts=1
        +10s
        event Pulled: Container image "bb" already present on machine and can be accessed by the pod
        = Running | c ended 1 restarts=1
        start c#2
        = Running Ready | c running ready restarts=2
        remove c#0
    "#,
    );
}

#[test]
fn debug() {
    check(
        "debug",
        pod("Always", &[], &[container("c")]),
        |w| {
            w.settle();
            w.pod["spec"]["ephemeralContainers"] = json!([
                {"name": "d1", "image": "bb", "targetContainerName": "c"},
                {"name": "d2", "image": "bb", "targetContainerName": "other"},
            ]);
            w.settle();
            w.exit("d1", 3);
            w.settle();
            w.delete(1);
            w.settle();
        },
        r#"
        = Pending | c ContainerCreating
        sandbox 0
        pull bb
        start c#0
        = Running Ready | c running ready
        event Failed: Error: unable to find target container "other"
        = Running Ready | c running ready | d1 ContainerCreating | d2 CreateContainerConfigError "unable to find target container "other""
        start d1#0 beside c#0
        = Running Ready | c running ready | d1 running ready | d2 CreateContainerConfigError "unable to find target container "other""
        d1 exits 3
        = Running Ready | c running ready | d1 ended 3 | d2 CreateContainerConfigError "unable to find target container "other""
        delete
        = Running Ready | c running ready | d1 ended 3 | d2 ContainerCreating
        kill c#0 grace 1: Stopping container c
        = Failed | c ended 137 | d1 ended 3 | d2 ContainerCreating
        stop s0
        remove s0
        forget
    "#,
    );
}

#[test]
fn new_image() {
    check(
        "new image",
        pod("Always", &[], &[container("c")]),
        |w| {
            w.settle();
            w.pod["spec"]["containers"][0]["image"] = json!("cc");
            w.settle();
        },
        r#"
        = Pending | c ContainerCreating
        sandbox 0
        pull bb
        start c#0
        = Running Ready | c running ready
        kill c#0 grace 30: Container c definition changed, will be restarted
        pull cc
        start c#1
        = Running Ready | c running ready restarts=1
    "#,
    );
}

#[test]
fn missing_config() {
    check(
        "config comes late",
        json!({"restartPolicy": "Always", "containers": [{"name": "c", "image": "bb",
                "envFrom": [{"configMapRef": {"name": "m"}}]}]}),
        |w| {
            w.settle();
            w.put("configmaps", json!({"metadata": {"name": "m", "namespace": "ns"}, "data": {"A": "1"}}));
            w.settle();
        },
        r#"
        = Pending | c ContainerCreating
        sandbox 0
        pull bb
        event Failed: Error: configmap "m" not found
        = Pending | c CreateContainerConfigError "configmap "m" not found"
        = Pending | c ContainerCreating
        start c#0
        = Running Ready | c running ready
    "#,
    );
}

#[test]
fn missing_volume() {
    check(
        "volume comes late",
        json!({"restartPolicy": "Always", "containers": [container("c")],
                "volumes": [{"name": "v", "secret": {"secretName": "s"}}]}),
        |w| {
            w.settle();
            w.put("secrets", json!({"metadata": {"name": "s", "namespace": "ns"}, "data": {"A": "MQ=="}}));
            w.settle();
        },
        r#"
        event FailedMount: MountVolume.SetUp failed for volume "v" : secret "s" not found
        = Pending | c ContainerCreating
        sandbox 0
        pull bb
        start c#0
        = Running Ready | c running ready
    "#,
    );
}

#[test]
fn gone() {
    check(
        "deleted by force",
        pod("Always", &[], &[container("c")]),
        |w| {
            w.settle();
            w.is_gone = true;
            w.settle();
        },
        r#"
        = Pending | c ContainerCreating
        sandbox 0
        pull bb
        start c#0
        = Running Ready | c running ready
        kill c#0 grace 30: Stopping container c
        = Failed | c ended 137
        stop s0
        remove s0
        forget
    "#,
    );
}
