//! Containers that are ended to be started anew. As upstream has it, nothing is told between the two.

use plan::pod::{OpKey, ProbeKind};
use serde_json::{Value, json};

use crate::transcripts::{check, container, pod, sidecar};
use crate::world::World;

const STARTED: &str = "
    = Pending | c ContainerCreating
    sandbox 0
    pull bb
    start c#0
    = Running Ready | c running ready
";

fn probed(name: &str, kind: &str) -> Value {
    json!({"name": name, "image": "bb", kind: {"exec": {"command": ["x"]}}})
}

fn new_image(world: &mut World, image: &str) {
    world.pod["spec"]["containers"][0]["image"] = json!(image);
    world.settle();
}

/// A pod of one container that runs, and what comes then.
fn check_running(name: &str, spec: Value, story: impl FnOnce(&mut World), expected: &str) {
    let whole = |w: &mut World| {
        w.settle();
        story(w);
    };
    check(name, spec, whole, &format!("{STARTED}{expected}"));
}

#[test]
fn a_new_image_restarts_whatever_the_policy() {
    for policy in ["Always", "OnFailure", "Never"] {
        check_running(
            policy,
            pod(policy, &[], &[container("c")]),
            |w| new_image(w, "cc"),
            "
            kill c#0 grace 30: Container c definition changed, will be restarted
            pull cc
            start c#1
            = Running Ready | c running ready restarts=1
        ",
        );
    }
}

#[test]
fn what_keeps_the_next_one_from_starting_is_told() {
    let kill = "kill c#0 grace 30: Container c definition changed, will be restarted";
    check_running(
        "an image that nobody has",
        pod("Always", &[], &[container("c")]),
        |w| {
            w.missing_images.insert("cc".into());
            new_image(w, "cc");
        },
        &format!(
            r#"
            {kill}
            pull cc fails
            event BackOff: Back-off pulling image "cc"
            event Failed: Error: ImagePullBackOff
            = Running | c ImagePullBackOff "Back-off pulling image "cc": ErrImagePull: not found"
        "#
        ),
    );
    check_running(
        "a container that cannot be made",
        pod("Always", &[], &[container("c")]),
        |w| {
            w.broken.insert("c".into());
            new_image(w, "cc");
        },
        &format!(
            r#"
            {kill}
            pull cc
            start c fails
            = Running | c CreateContainerError "no space"
        "#
        ),
    );
    check_running(
        "a pod that never restarts and cannot",
        pod("Never", &[], &[container("c")]),
        |w| {
            w.missing_images.insert("cc".into());
            new_image(w, "cc");
        },
        &format!(
            r#"
            {kill}
            pull cc fails
            event BackOff: Back-off pulling image "cc"
            event Failed: Error: ImagePullBackOff
            = Failed | c ImagePullBackOff "Back-off pulling image "cc": ErrImagePull: not found"
            = Failed | c ended 137
            stop s0
        "#
        ),
    );
}

#[test]
fn a_pull_and_a_hook_are_no_time_to_tell() {
    check_running(
        "a slow pull, a slow hook",
        pod("Always", &[], &[container("c")]),
        |w| {
            let pulling = OpKey::Image("cc".into());
            w.observed.in_flight.insert(pulling.clone());
            new_image(w, "cc");
            w.log.push("pulled".into());
            w.observed.in_flight.remove(&pulling);
            w.observed.post_start_running.insert("c#1".into());
            w.settle();
            w.log.push("hooked".into());
            w.observed.post_start_running.clear();
            w.settle();
        },
        "
        kill c#0 grace 30: Container c definition changed, will be restarted
        pulled
        pull cc
        start c#1
        hooked
        = Running Ready | c running ready restarts=1
    ",
    );
}

#[test]
fn its_readiness_probe_is_asked_meanwhile() {
    check(
        "readiness",
        pod("Always", &[], &[probed("c", "readinessProbe")]),
        |w| {
            w.settle();
            w.probe("c", ProbeKind::Readiness, true);
            w.settle();
            w.observed.in_flight.insert(OpKey::Image("cc".into()));
            new_image(w, "cc");
            let asked: Vec<String> = w.step().probes.into_iter().map(|probe| probe.container_id).collect();
            assert_eq!(asked, ["c#0"]);
            w.probe("c", ProbeKind::Readiness, false);
            w.settle();
        },
        "
        = Pending | c ContainerCreating
        sandbox 0
        pull bb
        start c#0
        = Running | c running
        = Running Ready | c running ready
        kill c#0 grace 30: Container c definition changed, will be restarted
        = Running | c running
    ",
    );
}

#[test]
fn who_crashed_is_told_so_and_another_image_does_not_wait() {
    check_running(
        "crash loop, new image",
        pod("Always", &[], &[container("c")]),
        |w| {
            for _ in 0..2 {
                w.exit("c", 1);
                w.settle();
            }
            new_image(w, "cc");
        },
        r#"
        c exits 1
        = Running | c ended 1
        start c#1
        = Running Ready | c running ready restarts=1
        c exits 1
        event BackOff: Back-off restarting failed container c in pod p_ns(u)
        = Running | c CrashLoopBackOff "back-off 10s restarting failed container=c pod=p_ns(u)" restarts=1
        = Running | c ended 1 restarts=1
        pull cc
        start c#2
        = Running Ready | c running ready restarts=2
        remove c#0
    "#,
    );
}

#[test]
fn a_probe_asks_for_the_policy() {
    let kill = "kill c#0 grace 30: Container c failed liveness probe";
    for (policy, after) in [
        ("Always", ", will be restarted\nstart c#1\n= Running Ready | c running ready restarts=1"),
        ("OnFailure", ", will be restarted\nstart c#1\n= Running Ready | c running ready restarts=1"),
        ("Never", "\n= Failed | c ended 137\nstop s0"),
    ] {
        check_running(
            policy,
            pod(policy, &[], &[probed("c", "livenessProbe")]),
            |w| {
                w.probe("c", ProbeKind::Liveness, false);
                w.settle();
            },
            &format!("{kill}{after}"),
        );
    }
}

#[test]
fn one_that_obeys_its_stop_signal_is_restarted_on_failure_too() {
    check_running(
        "ends with 0 when it is stopped",
        pod("OnFailure", &[], &[probed("c", "livenessProbe")]),
        |w| {
            w.deaf.insert("c".into());
            w.probe("c", ProbeKind::Liveness, false);
            w.settle();
            w.observed.stopping.clear();
            w.observed.in_flight.clear();
            w.exit("c", 0);
            w.settle();
        },
        "
        kill c#0 grace 30: Container c failed liveness probe, will be restarted
        c exits 0
        start c#1
        = Running Ready | c running ready restarts=1
    ",
    );
}

#[test]
fn a_sidecar_too() {
    check(
        "a sidecar's new image",
        pod("Always", &[sidecar("s")], &[container("c")]),
        |w| {
            w.settle();
            w.pod["spec"]["initContainers"][0]["image"] = json!("cc");
            w.settle();
        },
        "
        = Pending | s PodInitializing | c PodInitializing
        sandbox 0
        pull bb
        start s#0
        = Pending | s running ready | c PodInitializing
        start c#0
        = Running Ready | s running ready | c running ready
        kill s#0 grace 30: Init container s definition changed
        pull cc
        start s#1
        = Running Ready | s running ready restarts=1 | c running ready
    ",
    );
}

#[test]
fn a_deletion_in_between_is_told_as_it_is() {
    check_running(
        "deleted while its next image is pulled",
        pod("Always", &[], &[container("c")]),
        |w| {
            w.observed.in_flight.insert(OpKey::Image("cc".into()));
            new_image(w, "cc");
            w.delete(30);
            w.settle();
        },
        "
        kill c#0 grace 30: Container c definition changed, will be restarted
        delete
        = Failed | c ended 137
        stop s0
        remove s0
        forget
    ",
    );
}
