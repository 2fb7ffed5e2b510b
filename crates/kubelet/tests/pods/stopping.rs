//! A stop that is under way, and a shorter grace.

use plan::pod::ProbeKind;
use serde_json::json;

use crate::transcripts::{check, container, pod, sidecar};

#[test]
fn a_stop_is_hurried_and_never_delayed() {
    check(
        "graces of a pod that is ending",
        pod("Always", &[sidecar("s")], &[container("a")]),
        |w| {
            w.deaf = ["a".to_owned(), "s".to_owned()].into();
            w.settle();
            w.delete(60);
            w.settle();
            w.now = w.now.plus_secs(10);
            // The server refuses a longer one; one that ends later is of no use.
            w.delete(55);
            w.settle();
            w.delete(20);
            w.settle();
            w.settle();
            w.lose_patience("a#0");
            w.delete(0);
            w.settle();
            w.lose_patience("s#0");
        },
        r#"
        = Pending | s PodInitializing | a PodInitializing
        sandbox 0
        pull bb
        start s#0
        = Pending | s running ready | a PodInitializing
        start a#0
        = Running Ready | s running ready | a running ready
        delete
        kill a#0 grace 60: Stopping container a
        delete
        delete
        kill a#0 grace 20: Stopping container a
        a#0 is killed at 1030
        = Running | s running ready | a ended 137
        kill s#0 grace 1: Stopping container s
        delete
        s#0 is killed at 1031
        = Failed | s ended 137 | a ended 137
        stop s0
        remove s0
        forget
    "#,
    );
}

#[test]
fn a_deletion_hurries_a_restart() {
    check(
        "a deletion with less grace than the restart under way",
        pod(
            "Always",
            &[],
            &[json!({
                "name": "c", "image": "bb",
                "livenessProbe": {"exec": {"command": ["x"]}, "terminationGracePeriodSeconds": 300},
            })],
        ),
        |w| {
            w.deaf = ["c".to_owned()].into();
            w.settle();
            w.probe("c", ProbeKind::Liveness, false);
            w.settle();
            w.delete(30);
            w.settle();
            w.lose_patience("c#0");
        },
        r#"
        = Pending | c ContainerCreating
        sandbox 0
        pull bb
        start c#0
        = Running Ready | c running ready
        kill c#0 grace 300: Container c failed liveness probe, will be restarted
        delete
        kill c#0 grace 30: Stopping container c
        c#0 is killed at 1030
        = Failed | c ended 137
        stop s0
        remove s0
        forget
    "#,
    );
}
