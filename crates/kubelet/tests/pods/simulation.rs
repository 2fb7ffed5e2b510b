//! Whatever happens to a pod, it comes to rest, no container runs twice, and no end is forgotten. `World` asserts the second at every op.

use plan::node::{ContainerState, SandboxState};
use plan::pod::ProbeKind;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::world::World;

const NAMES: [&str; 4] = ["side", "init", "a", "b"];

#[derive(Clone, Debug)]
enum Happening {
    Exit(usize, i32),
    Advance(i64),
    LoseSandbox,
    RestartKubelet,
    Probe(usize, bool),
    PullBreaks(bool),
    StartBreaks(usize, bool),
    NewImage,
    Delete,
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        6 => (0..4usize, prop_oneof![Just(0), Just(1)]).prop_map(|(which, code)| Happening::Exit(which, code)),
        4 => (0..700i64).prop_map(Happening::Advance),
        1 => Just(Happening::LoseSandbox),
        2 => Just(Happening::RestartKubelet),
        2 => (2..4usize, any::<bool>()).prop_map(|(which, healthy)| Happening::Probe(which, healthy)),
        1 => any::<bool>().prop_map(Happening::PullBreaks),
        1 => (0..4usize, any::<bool>()).prop_map(|(which, breaks)| Happening::StartBreaks(which, breaks)),
        1 => Just(Happening::NewImage),
        1 => Just(Happening::Delete),
    ]
}

fn pod(restart_policy: &str) -> Value {
    let probed =
        |name: &str| json!({"name": name, "image": "bb", "livenessProbe": {"exec": {"command": ["x"]}}});
    json!({
        "restartPolicy": restart_policy,
        "initContainers": [{"name": "side", "image": "bb", "restartPolicy": "Always"}, {"name": "init", "image": "bb"}],
        "containers": [probed("a"), probed("b")],
    })
}

fn happen(world: &mut World, what: Happening) {
    let is_running = |world: &World, name: &str| {
        world
            .observed
            .containers
            .iter()
            .any(|one| one.name == name && one.status.state == ContainerState::Running)
    };
    match what {
        Happening::Exit(which, code) if is_running(world, NAMES[which]) => world.exit(NAMES[which], code),
        Happening::Exit(..) => {}
        Happening::Advance(seconds) => world.advance(seconds),
        Happening::LoseSandbox => {
            let ready = world.observed.sandboxes.iter().find(|sandbox| sandbox.state == SandboxState::Ready);
            if let Some(id) = ready.map(|sandbox| sandbox.id.clone()) {
                world.lose_sandbox(&id);
            }
        }
        Happening::RestartKubelet => world.restart_kubelet(),
        Happening::Probe(which, healthy) if is_running(world, NAMES[which]) => {
            world.probe(NAMES[which], ProbeKind::Liveness, healthy);
        }
        Happening::Probe(..) => {}
        Happening::PullBreaks(true) => {
            world.missing_images.insert("bb".into());
        }
        Happening::PullBreaks(false) => world.missing_images.clear(),
        Happening::StartBreaks(which, true) => {
            world.broken.insert(NAMES[which].into());
        }
        Happening::StartBreaks(which, false) => {
            world.broken.remove(NAMES[which]);
        }
        Happening::NewImage => world.pod["spec"]["containers"][0]["image"] = json!("cc"),
        Happening::Delete => world.delete(5),
    }
}

proptest! {
    #[test]
    fn pods_come_to_rest(
        policy in prop_oneof![Just("Always"), Just("OnFailure"), Just("Never")],
        happenings in prop::collection::vec(happening(), 0..30),
    ) {
        let mut world = World::new(pod(policy));
        world.settle();
        let mut over: Option<Value> = None;
        for what in happenings {
            happen(&mut world, what);
            world.settle();
            let status = &world.pod["status"];
            let phase = status["phase"].as_str().unwrap_or_default();
            if let Some(last) = &over {
                prop_assert_eq!(last, &status["phase"], "an end is final:\n{}", world.log.join("\n"));
            }
            if matches!(phase, "Succeeded" | "Failed") {
                prop_assert!(world.observed.containers.iter().all(|one| one.status.state != ContainerState::Running));
                over = Some(status["phase"].clone());
            }
            if world.is_forgotten {
                prop_assert!(over.is_some(), "a pod goes without its end:\n{}", world.log.join("\n"));
                return Ok(());
            }
        }
        world.delete(5);
        world.settle();
        prop_assert!(world.is_forgotten, "a pod stays:\n{}", world.log.join("\n"));
        prop_assert!(world.observed.sandboxes.is_empty());
    }
}
