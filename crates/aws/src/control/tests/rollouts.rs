//! Updates of a node group's version that do not go well.

use super::*;

/// Begins an update to 1.36 of a node group of so many nodes, until the three that there are more meanwhile are Ready; its id.
fn surged(world: &mut World, size: usize) -> String {
    let update = world.update("UpdateNodegroupVersion", &json!({"version": "1.36"}));
    while world.cluster.list(NODES, "").count() < size + 3 {
        assert!(world.turn(), "no node more for each of the three zones");
    }
    update
}

fn ids(world: &World) -> Vec<String> {
    world.members().into_iter().map(|member| member.record.instance_id).collect()
}

fn set_ready(world: &mut World, node: &str, status: &str) {
    let key = Key::cluster(NODES, node);
    let mut node = world.cluster.get(&key).expect("a node").to_value().expect("JSON");
    node["status"]["conditions"][0]["status"] = status.into();
    put(&mut world.cluster, key, &node);
}

fn change_record(world: &mut World, change: impl FnOnce(&mut NodeGroupRecord)) {
    let mut record = state::get::<NodeGroupRecord>(&world.account.state, CLUSTER, NG).expect("a node group");
    change(&mut record.record);
    world.account.change(|changes| changes.update(&record));
}

#[test]
fn an_update_whose_nodes_cannot_be_launched_takes_no_more_than_may_be_unavailable() {
    for (strategy, at_once, left) in
        [("MINIMAL", 1, 2), ("MINIMAL", 2, 1), ("DEFAULT", 1, 5), ("DEFAULT", 2, 4)]
    {
        let mut world = World::new(3);
        world.settle();
        change_record(&mut world, |record| {
            record.shown.update_config.update_strategy = Some(strategy.into());
            record.shown.update_config.max_unavailable = Some(at_once);
        });
        let before = ids(&world);
        let update = if strategy == "DEFAULT" {
            surged(&mut world, 3)
        } else {
            world.update("UpdateNodegroupVersion", &json!({"version": "1.36"}))
        };
        let mut group = world.group();
        let subnets = std::mem::take(&mut group.record.subnets);
        let zone = subnets[0].1.clone();
        group.record.subnets = vec![("subnet-gone".into(), zone)];
        world.account.change(|changes| changes.update(&group));
        world.settle();
        let case = format!("{strategy} {at_once}");
        assert_eq!(
            (world.update_status(&update), world.members().len()),
            ("InProgress".into(), left),
            "{case}"
        );
        world.later(15 * 60);
        world.settle();
        let shown = world.shown_update(&update);
        assert_eq!(shown.status, "Failed", "{case}");
        let error = &shown.errors[0];
        assert_eq!(error.error_code, "NodeCreationFailure", "{case}");
        assert_eq!(error.resource_ids, [world.name()], "{case}: there is no instance");
        assert!(error.error_message.contains("subnet-gone"), "{case}: {}", error.error_message);
        assert_eq!((&world.shown()["version"], world.group().record.desired), (&json!("1.35"), 3), "{case}");

        let mut group = world.group();
        group.record.subnets = subnets;
        world.account.change(|changes| changes.update(&group));
        world.settle();
        let after = ids(&world);
        assert_eq!((after.len(), world.shown()["status"].as_str()), (3, Some("ACTIVE")), "{case}");
        let kept = before.iter().filter(|id| after.contains(id)).count();
        assert_eq!(kept, 3 - at_once as usize, "{case}: the other old nodes are still there");
    }
}

#[test]
fn an_update_whose_later_nodes_do_not_join_fails_and_they_go() {
    for size in [1, 3] {
        let mut world = World::new(size);
        world.settle();
        let before = ids(&world);
        let update = surged(&mut world, size as usize);
        world.is_mute = true;
        world.settle();
        assert_eq!(world.update_status(&update), "InProgress");
        let has_node = |world: &World, name: &str| world.cluster.find(NODES, "", name).is_some();
        let members = world.members().into_iter().map(|member| member.record);
        let mute: Vec<_> = members.filter(|member| !has_node(&world, &member.node_name)).collect();
        let [mute] = mute.try_into().expect("one that was to come in the place of an old one");
        world.later(15 * 60 - 20);
        world.settle();
        assert_eq!(world.update_status(&update), "InProgress", "not yet");
        world.later(20);
        world.settle();
        let shown = world.shown_update(&update);
        assert_eq!(shown.status, "Failed");
        assert_eq!(shown.errors[0].error_code, "NodeCreationFailure");
        assert_eq!(shown.errors[0].resource_ids, std::slice::from_ref(&mute.instance_id));
        let members = world.members();
        assert_eq!(members.len(), size as usize);
        assert!(members.iter().all(|member| has_node(&world, &member.record.node_name)), "those that joined");
        let after = ids(&world);
        assert_eq!(before.iter().filter(|id| after.contains(id)).count(), size as usize - 1);
    }
}

#[test]
fn a_new_node_that_is_not_ready_for_a_moment_ends_no_update() {
    let mut world = World::new(3);
    world.settle();
    let update = surged(&mut world, 3);
    while !world.members().iter().any(|member| member.record.lifecycle.is_terminating()) {
        assert!(world.turn(), "all that are wanted more have joined, and the first old one goes");
    }
    let new = world.members().into_iter().find(|one| one.record.template.version == "2").expect("a new one");
    world.later(60 * 60);
    set_ready(&mut world, &new.record.node_name, "False");
    world.settle();
    assert_eq!(world.update_status(&update), "InProgress");
    set_ready(&mut world, &new.record.node_name, "True");
    world.settle();
    assert_eq!(world.update_status(&update), "Successful");
}

#[test]
fn a_node_that_is_empty_at_last_goes_though_another_ends_the_update() {
    let mut world = World::new(3);
    world.settle();
    change_record(&mut world, |record| record.shown.update_config.max_unavailable = Some(2));
    world.put_pods();
    world.held = world.cluster.list(PODS, "").map(|pod| pod.key.clone()).collect();
    let update = world.update("UpdateNodegroupVersion", &json!({"version": "1.36"}));
    world.settle();
    let leaving = world.members().into_iter().map(|member| member.record);
    let leaving = leaving.filter(|member| member.lifecycle == Lifecycle::TerminatingWait);
    let [stuck, empty] = leaving.collect::<Vec<_>>().try_into().expect("two");
    let next = world.cluster.revision() + 1;
    world.cluster.remove(&Key::new(PODS, "default", format!("web-{}", empty.instance_id)), next);
    world.later(15 * 60);
    world.settle();
    let shown = world.shown_update(&update);
    assert_eq!((shown.status.as_str(), &shown.errors[0].resource_ids), ("Failed", &vec![stuck.node_name]));
    let after = ids(&world);
    assert!(after.contains(&stuck.instance_id) && !after.contains(&empty.instance_id), "{after:?}");
}

#[test]
fn what_is_too_many_after_an_update_goes_in_time() {
    for (is_ready, status) in [("True", "Successful"), ("False", "Failed")] {
        let mut world = World::new(1);
        world.settle();
        let update = surged(&mut world, 1);
        let is_shrinking = |world: &World| {
            let record = state::get::<NodeGroupRecord>(&world.account.state, CLUSTER, NG).expect("a group");
            record.record.rollout.is_some_and(|rollout| rollout.phase == eks::Phase::Shrinking)
        };
        for _ in 0..50 {
            if is_shrinking(&world) {
                break;
            }
            world.turn();
            world.later(1);
        }
        assert!(is_shrinking(&world), "all are new");
        world.put_pods();
        world.held = world.cluster.list(PODS, "").map(|pod| pod.key.clone()).collect();
        let nodes: Vec<_> = world.cluster.list(NODES, "").map(|node| node.key.name.to_string()).collect();
        nodes.iter().for_each(|node| set_ready(&mut world, node, is_ready));
        world.settle();
        assert_eq!(world.update_status(&update), "InProgress");
        // A budget holds them as long as it would in a group that is asked for less.
        world.later(15 * 60);
        world.settle();
        assert_eq!(world.members().len(), 1);
        world.later(15 * 60);
        world.settle();
        assert_eq!(world.update_status(&update), status);
        assert_eq!((&world.shown()["status"], &world.shown()["version"]), (&json!("ACTIVE"), &json!("1.36")));
    }
}
