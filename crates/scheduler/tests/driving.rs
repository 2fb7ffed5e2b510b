//! The scheduler over time: queue, back-off, preemption, volumes, and the fold.

mod world;

use object::{Key, Snapshot};
use plan::Write;
use proptest::prelude::*;
use scheduler::Cluster;
use serde_json::{Value, json};
use world::{World, asking, labelled, merge, node, pod, pod_key, put};

#[test]
fn pods_of_high_priority_go_first() {
    let mut world = World::of(&[node("n1", json!({}))]);
    world.put(&pod("low", json!({})));
    world.put(&pod("high", json!({"priority": 10})));
    world.now = world.now.plus_secs(1);
    world.put(&pod("low-too", json!({})));
    assert_eq!(world.run(), ["high → n1", "low → n1", "low-too → n1"]);
}

#[test]
fn a_pod_counts_as_placed_at_once() {
    let mut world = World::of(&[node("n1", json!({}))]);
    for name in ["one", "two"] {
        world.put(&asking(name, "3", json!({})));
    }
    let first = world.next().expect("a step");
    assert!(matches!(&first.plan.writes[..], [Write::Bind { node, .. }] if &**node == "n1"));
    let second = world.next().expect("a step");
    assert_eq!(second.plan.events[0].reason, "FailedScheduling");
    assert_eq!(world.next(), None);
    // The binding fails: what it held is free again, for both of them, in their time.
    world.scheduler.failed(&first.pod, world.now);
    assert_eq!(world.next(), None, "both are in back-off");
    assert_eq!(world.scheduler.wake_at(), Some(world.now.plus_secs(1)));
    world.now = world.now.plus_secs(1);
    assert_eq!(world.run().len(), 2);
}

#[test]
fn an_unschedulable_pod_is_told_once_and_tried_when_it_helps() {
    let mut world = World::of(&[node("n1", json!({}))]);
    world.put(&asking("p", "5", json!({})));
    assert_eq!(world.run().len(), 1);
    let held = world.get(&pod_key("p"));
    let condition = &held["status"]["conditions"][0];
    assert_eq!(
        json!([condition["type"], condition["status"], condition["reason"], condition["lastTransitionTime"]]),
        json!(["PodScheduled", "False", "Unschedulable", world.now.to_string()])
    );
    // Nothing that concerns it.
    world.put(&json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "v"}}));
    world.put(&node("n1", json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}})));
    world.now = world.now.plus_secs(60);
    assert_eq!(world.run(), [""; 0]);
    // The same answer again: an event, but no write.
    world.put(&node("n1", json!({"metadata": {"labels": {"new": "label"}}})));
    let step = world.next().expect("tried again");
    assert_eq!((step.plan.writes.len(), step.plan.events.len()), (0, 1));
    world.now = world.now.plus_secs(60);
    world.put(&node("big", json!({"status": {"allocatable": {"cpu": "16"}}})));
    assert_eq!(world.run(), ["p → big"]);
}

#[test]
fn pauses_double_up_to_ten_seconds() {
    let mut world = World::of(&[node("n1", json!({}))]);
    world.put(&asking("p", "5", json!({})));
    let mut pauses = Vec::new();
    for round in 0..6 {
        assert_eq!(world.run().len(), 1);
        world.put(&node("n1", json!({"metadata": {"labels": {"round": round.to_string()}}})));
        let at = world.scheduler.wake_at().expect("a back-off");
        pauses.push(at.secs_since(world.now));
        world.now = at;
    }
    assert_eq!(pauses, [1, 2, 4, 8, 10, 10]);
    world.run();
    assert_eq!(
        world.scheduler.wake_at(),
        Some(world.now.plus_secs(300)),
        "and tried without reason in the end"
    );
}

#[test]
fn gates_hold_a_pod_back() {
    let mut world = World::of(&[node("n1", json!({}))]);
    world.put(&pod("p", json!({"schedulingGates": [{"name": "example.com/wait"}]})));
    assert_eq!((world.run(), world.scheduler.wake_at()), (vec![], None));
    world.put(&pod("p", json!({})));
    assert_eq!(world.run(), ["p → n1"]);
}

#[test]
fn others_pods_are_left_alone() {
    let mut world = World::of(&[node("n1", json!({}))]);
    world.put(&pod("p", json!({"schedulerName": "mine"})));
    let mut going = pod("q", json!({}));
    going["metadata"]["deletionTimestamp"] = world.now.to_string().into();
    world.put(&going);
    assert_eq!(world.run(), [""; 0]);
    assert!(world.scheduler.queue().is_empty());
}

#[test]
fn a_restarted_scheduler_knows_all_of_it() {
    let mut placed = asking("one", "3", json!({}));
    placed["spec"]["nodeName"] = "n1".into();
    let mut world =
        World::of(&[node("n1", json!({})), node("n2", json!({})), placed, asking("two", "3", json!({}))]);
    assert_eq!(world.run(), ["two → n2"]);
}

#[test]
fn room_is_made_for_a_more_important_pod() {
    let placed = |name: &str, node: &str, cpu: &str, priority: i64| {
        asking(name, cpu, json!({"nodeName": node, "priority": priority}))
    };
    let mut world = World::of(&[
        node("n1", json!({})),
        node("n2", json!({})),
        placed("a-low", "n1", "2", 1),
        placed("b-lowest", "n1", "2", 0),
        placed("c-mid", "n2", "4", 5),
    ]);
    world.put(&asking("vip", "2", json!({"priority": 10})));
    let step = world.next().expect("a step");
    let [
        Write::Merge { key: marked, patch: why, .. },
        Write::Delete { key: victim, .. },
        Write::Merge { key: told, patch, .. },
    ] = &step.plan.writes[..]
    else {
        panic!("{:?}", step.plan.writes)
    };
    assert_eq!((marked, victim, told), (&pod_key("b-lowest"), &pod_key("b-lowest"), &pod_key("vip")));
    assert_eq!(why["status"]["conditions"][0]["reason"], "PreemptionByScheduler");
    assert_eq!(patch["status"]["nominatedNodeName"], "n1");
    assert_eq!(step.plan.events[0].message, "Preempted by pod uid-vip on node n1");
    assert_eq!(step.plan.events[1].message, "0/2 nodes are available: 2 Insufficient cpu.");
    // The victim takes its time, and nobody of lower priority takes the place meanwhile.
    let Write::Merge { patch, .. } = &step.plan.writes[2] else { unreachable!() };
    let mut vip = world.get(&pod_key("vip"));
    merge(&mut vip, patch);
    world.put(&vip);
    let mut going = world.get(&pod_key("b-lowest"));
    going["metadata"]["deletionTimestamp"] = world.now.to_string().into();
    world.put(&going);
    world.now = world.now.plus_secs(1);
    assert_eq!(
        world.run(),
        [
            "vip: 0/2 nodes are available: 2 Insufficient cpu. preemption: not eligible due to a terminating pod on the nominated node."
        ]
    );
    world.delete(&pod_key("b-lowest"));
    world.put(&asking("thief", "1", json!({"priority": 1})));
    let told = world.run();
    assert!(told[0].starts_with("thief: 0/2 nodes are available: 2 Insufficient cpu."), "{told:?}");
    world.now = world.now.plus_secs(2);
    assert!(world.run().contains(&"vip → n1".to_owned()));
}

#[test]
fn preemption_respects_budgets_and_policies() {
    let low =
        |name: &str, node: &str| labelled(asking(name, "4", json!({"nodeName": node})), json!({"app": name}));
    let budget = json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"namespace": "a", "name": "b"},
        "spec": {"selector": {"matchLabels": {"app": "guarded"}}}, "status": {"disruptionsAllowed": 0}});
    let all = [node("n1", json!({})), node("n2", json!({})), low("guarded", "n1"), low("free", "n2"), budget];
    let mut world = World::of(&all);
    world.put(&asking("vip", "4", json!({"priority": 10})));
    let step = world.next().expect("a step");
    let victims: Vec<&Key> = step
        .plan
        .writes
        .iter()
        .filter_map(|write| match write {
            Write::Delete { key, .. } => Some(key),
            _ => None,
        })
        .collect();
    assert_eq!(victims, [&pod_key("free")]);
    let mut world = World::of(&all);
    world.put(&asking("meek", "4", json!({"priority": 10, "preemptionPolicy": "Never"})));
    assert_eq!(
        world.run(),
        [
            "meek: 0/2 nodes are available: 2 Insufficient cpu. preemption: not eligible due to preemptionPolicy=Never."
        ]
    );
}

#[test]
fn preemption_sees_that_a_victims_company_goes_with_it() {
    let away = json!({"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"labelSelector": {"matchLabels": {"app": "web"}}, "topologyKey": "kubernetes.io/hostname"}]}}});
    let mut loner = labelled(pod("loner", away), json!({"app": "loner"}));
    loner["spec"]["nodeName"] = "n1".into();
    let mut other = pod("other", json!({}));
    other["spec"]["nodeName"] = "n1".into();
    let mut world = World::of(&[node("n1", json!({})), loner, other]);
    world.put(&labelled(pod("vip", json!({"priority": 10})), json!({"app": "web"})));
    let told = world.run();
    assert_eq!(told[0], "loner: Preempted by pod uid-vip on node n1");
    assert!(told.iter().all(|told| !told.starts_with("other")), "{told:?}");
    world.now = world.now.plus_secs(1);
    assert_eq!(world.run(), ["vip → n1"]);
}

#[test]
fn a_volume_is_made_where_the_pod_will_be() {
    let class = json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "late"},
        "provisioner": "example.com/disk", "volumeBindingMode": "WaitForFirstConsumer"});
    let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"namespace": "a", "name": "data"},
        "spec": {"storageClassName": "late", "resources": {"requests": {"storage": "1Gi"}}}});
    let mut world = World::of(&[node("n1", json!({})), class, claim]);
    world.put(&pod("p", json!({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]})));
    assert_eq!(world.run(), [""; 0], "not bound yet");
    let key = Key::new(kinds::PERSISTENT_VOLUME_CLAIMS, "a", "data");
    let mut held = world.get(&key);
    assert_eq!(held["metadata"]["annotations"]["volume.kubernetes.io/selected-node"], "n1");
    merge(
        &mut held,
        &json!({"spec": {"volumeName": "pv"}, "metadata": {"annotations": {"pv.kubernetes.io/bind-completed": "yes"}}}),
    );
    world.put(&json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "pv"}}));
    world.put(&held);
    assert_eq!(world.run(), ["p → n1"]);
}

#[test]
fn a_free_volume_is_reserved() {
    let class = json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "local"},
        "provisioner": "kubernetes.io/no-provisioner", "volumeBindingMode": "WaitForFirstConsumer"});
    let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"namespace": "a", "name": "data"},
        "spec": {"storageClassName": "local", "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
    let volume = |name: &str, size: &str, host: &str| {
        json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name},
        "spec": {"storageClassName": "local", "accessModes": ["ReadWriteOnce"], "capacity": {"storage": size}, "nodeAffinity": {"required": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [host]}]}]}}}, "status": {"phase": "Available"}})
    };
    let mounts =
        pod("p", json!({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]}));
    let nodes = [node("n1", json!({})), node("n2", json!({})), class, claim];
    let mut world = World::of(
        &[
            &nodes[..],
            &[volume("big", "9Gi", "n2"), volume("right", "2Gi", "n2"), volume("small", "1Mi", "n1")],
        ]
        .concat(),
    );
    world.put(&mounts);
    let step = world.next().expect("a step");
    let [Write::Merge { key, patch, .. }] = &step.plan.writes[..] else { panic!("{:?}", step.plan.writes) };
    assert_eq!((&*key.name, &patch["spec"]["claimRef"]["name"]), ("right", &json!("data")));
    // Another pod's claim is faster.
    let mut taken = volume("right", "2Gi", "n2");
    taken["spec"]["claimRef"] = json!({"namespace": "a", "name": "other", "uid": "other"});
    world.put(&taken);
    assert_eq!(world.next(), None, "given up, and in back-off");
    world.now = world.now.plus_secs(1);
    let step = world.next().expect("the next best");
    assert!(matches!(&step.plan.writes[..], [Write::Merge { key, .. }] if &*key.name == "big"), "{step:?}");
    let mut world = World::of(&nodes);
    world.put(&mounts);
    assert!(world.run()[0].starts_with(
        "p: 0/2 nodes are available: 2 node(s) didn't find available persistent volumes to bind."
    ));
}

#[test]
fn a_pod_whose_volume_is_lost_looks_for_another_node() {
    let class = json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "late"},
        "provisioner": "example.com/disk", "volumeBindingMode": "WaitForFirstConsumer"});
    let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"namespace": "a", "name": "data"},
        "spec": {"storageClassName": "late", "resources": {"requests": {"storage": "1Gi"}}}});
    let mut world = World::of(&[node("n1", json!({})), class, claim.clone()]);
    world.put(&pod("p", json!({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]})));
    assert_eq!(world.run(), [""; 0]);
    assert_eq!(world.scheduler.cluster().nodes()[0].pods.len(), 1, "its place is kept");
    // The provisioner takes the node off the claim: it cannot make the volume there.
    world.put(&claim);
    assert_eq!(world.next(), None);
    assert_eq!(world.scheduler.cluster().nodes()[0].pods.len(), 0);
    assert_eq!(world.scheduler.wake_at(), Some(world.now.plus_secs(1)));
    world.now = world.now.plus_secs(1);
    let step = world.next().expect("tried again");
    world.carry_out(&step.plan);
    // Nobody makes it, for ten minutes.
    assert_eq!(world.next(), None);
    world.now = world.now.plus_secs(600);
    let retried = world.next().expect("tried anew");
    assert!(matches!(&retried.plan.writes[..], [Write::Merge { .. }]), "{retried:?}");
}

#[test]
fn what_was_told_in_vain_is_told_again() {
    let mut world = World::of(&[node("n1", json!({}))]);
    world.put(&asking("p", "5", json!({})));
    let step = world.next().expect("a step");
    assert_eq!(step.plan.writes.len(), 1);
    // Somebody changes the pod first, so that the write finds another revision and is dropped.
    let mut changed = asking("p", "5", json!({}));
    changed["metadata"]["annotations"] = json!({"a": "b"});
    world.put(&changed);
    world.now = world.now.plus_secs(1);
    let step = world.next().expect("told again");
    assert_eq!(step.plan.writes.len(), 1);
    world.carry_out(&step.plan);
    world.now = world.now.plus_secs(60);
    assert_eq!(world.next(), None);
}

#[test]
fn large_clusters_are_sampled_in_turns() {
    let mut world = World::of(&(0..400).map(|at| node(&format!("n{at:03}"), json!({}))).collect::<Vec<_>>());
    for at in 0..400 {
        world.put(&asking(&format!("p{at:03}"), "3", json!({})));
    }
    assert_eq!(
        world.run().iter().filter(|told| told.contains('→')).count(),
        400,
        "every node is found in the end"
    );
}

/// (what, which, variant, is it put or removed)
fn changes() -> impl Strategy<Value = Vec<(u8, u8, u8, bool)>> {
    prop::collection::vec((0..5u8, 0..4u8, 0..4u8, prop::bool::weighted(0.7)), 0..60)
}

fn thing(what: u8, which: u8, variant: u8) -> Value {
    let placed = if variant == 0 { String::new() } else { format!("n{}", variant - 1) };
    match what {
        0 => node(
            &format!("n{which}"),
            json!({"metadata": {"labels": {"v": variant.to_string(), "topology.kubernetes.io/zone": variant.to_string(),
                "kubernetes.io/hostname": (variant > 0).then(|| format!("h{}", variant / 2))}},
            "status": {"images": [{"names": [format!("i{variant}"), "both"], "sizeBytes": 5}]}}),
        ),
        1 => labelled(asking(&format!("p{which}"), "100m", json!({"nodeName": placed})), json!({"app": "x"})),
        2 => {
            let mut pod = pod(
                &format!("q{which}"),
                json!({"nodeName": placed,
                "containers": [{"name": "c", "ports": [{"hostPort": 80 + u16::from(variant)}]}],
                "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "v", "labelSelector": {}}]}}}),
            );
            let phase = if which == 3 { "Succeeded" } else { "Running" };
            pod["status"] = json!({"nominatedNodeName": format!("n{which}"), "phase": phase});
            pod
        }
        3 => {
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "a", "name": format!("s{which}")},
            "spec": {"selector": {"app": variant.to_string()}}})
        }
        _ => {
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": format!("ns{which}"), "labels": {"v": variant.to_string()}}})
        }
    }
}

proptest! {
    #[test]
    fn folding_events_and_rebuilding_come_to_the_same(changes in changes()) {
        let mut snapshot = Snapshot::default();
        let mut cluster = Cluster::default();
        for (what, which, variant, is_put) in changes {
            let value = thing(what, which, variant);
            let event = if is_put {
                Some(put(&mut snapshot, &value))
            } else {
                let revision = snapshot.revision() + 1;
                snapshot.remove(&world::key(&value).0, revision)
            };
            if let Some(event) = event {
                cluster.apply(&event);
            }
        }
        prop_assert_eq!(cluster, Cluster::of(&snapshot));
    }

    #[test]
    fn no_node_is_ever_given_more_than_it_has(asks in prop::collection::vec((1..20u16, 0..3i64), 1..40)) {
        let mut world = World::of(&[node("n1", json!({})), node("n2", json!({}))]);
        for (at, (cpu, priority)) in asks.iter().enumerate() {
            world.put(&asking(&format!("p{at}"), &format!("{}00m", cpu), json!({"priority": priority})));
        }
        world.run();
        for node in world.scheduler.cluster().nodes() {
            prop_assert!(node.requested.cpu_millis <= node.allocatable.cpu_millis);
            prop_assert!(node.pods.len() <= 10);
        }
    }
}
