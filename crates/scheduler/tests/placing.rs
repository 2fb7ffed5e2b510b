//! Where one pod goes, or why it goes nowhere.

mod world;

use serde_json::{Value, json};
use world::{World, asking, labelled, node, pod};

/// What becomes of the last pod of the list.
fn check(nodes: &[Value], others: &[Value], pod: Value, expected: &str) {
    let mut world = World::of(&[nodes, others].concat());
    world.put(&pod);
    let told = world.run();
    let name = pod["metadata"]["name"].as_str().expect("a name");
    let own: Vec<&String> = told.iter().filter(|told| told.starts_with(name)).collect();
    assert_eq!(own, [expected], "{pod}");
}

fn on(mut pod: Value, node: &str) -> Value {
    pod["spec"]["nodeName"] = node.into();
    pod
}

fn zone(name: &str, zone: &str) -> Value {
    node(name, json!({"metadata": {"labels": {"topology.kubernetes.io/zone": zone}}}))
}

const NO_HELP: &str = "Preemption is not helpful for scheduling.";

#[test]
fn filters_say_no_in_upstreams_words() {
    let unhelpful = |reasons: &str, nodes: usize| {
        format!(
            "p: 0/{nodes} nodes are available: {reasons}. preemption: 0/{nodes} nodes are available: {nodes} {NO_HELP}"
        )
    };
    let one = [node("n1", json!({}))];
    check(&[], &[], pod("p", json!({})), "p: no nodes available to schedule pods");
    check(&one, &[], pod("p", json!({})), "p → n1");
    let cordoned = [node("n1", json!({"spec": {"unschedulable": true}}))];
    check(&cordoned, &[], pod("p", json!({})), &unhelpful("1 node(s) were unschedulable", 1));
    let tolerates =
        json!({"tolerations": [{"key": "node.kubernetes.io/unschedulable", "operator": "Exists"}]});
    check(&cordoned, &[], pod("p", tolerates), "p → n1");
    let tainted = [
        node("n1", json!({"spec": {"taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]}})),
        node("n2", json!({"spec": {"taints": [{"key": "x", "effect": "NoExecute"}]}})),
    ];
    check(&tainted, &[], pod("p", json!({})), &unhelpful("2 node(s) had untolerated taint(s)", 2));
    check(&tainted, &[], pod("p", json!({"tolerations": [{"key": "k", "value": "v"}]})), "p → n1");
    check(
        &tainted,
        &[],
        pod(
            "p",
            json!({"tolerations": [{"key": "k", "value": "other"}, {"key": "x", "operator": "Exists", "effect": "NoExecute"}]}),
        ),
        "p → n2",
    );
    check(
        &one,
        &[],
        pod("p", json!({"nodeSelector": {"disk": "ssd"}})),
        &unhelpful("1 node(s) didn't match Pod's node affinity/selector", 1),
    );
    check(&one, &[], asking("p", "5", json!({})), &unhelpful("1 Insufficient cpu", 1));
    let gpu = json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "9", "memory": "9Gi", "example.com/gpu": "1", "ephemeral-storage": "20Gi"}}}]});
    check(
        &one,
        &[],
        pod("p", gpu),
        &unhelpful(
            "1 Insufficient cpu, 1 Insufficient ephemeral-storage, 1 Insufficient example.com/gpu, 1 Insufficient memory",
            1,
        ),
    );
    let mixed = [node("n1", json!({})), tainted[0].clone(), cordoned[0].clone()];
    let mut mixed = mixed.to_vec();
    mixed[1]["metadata"]["name"] = "n2".into();
    mixed[2]["metadata"]["name"] = "n3".into();
    check(
        &mixed,
        &[],
        asking("p", "5", json!({})),
        &unhelpful("1 Insufficient cpu, 1 node(s) had untolerated taint(s), 1 node(s) were unschedulable", 3),
    );
}

#[test]
fn what_other_pods_hold_is_taken() {
    let one = [node("n1", json!({}))];
    let no_victims = "preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod.";
    check(
        &one,
        &[on(asking("o", "3", json!({})), "n1")],
        asking("p", "2", json!({})),
        &format!("p: 0/1 nodes are available: 1 Insufficient cpu. {no_victims}"),
    );
    let web = |name: &str, ip: &str| {
        pod(
            name,
            json!({"containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 80, "hostIP": ip}]}]}),
        )
    };
    check(
        &one,
        &[on(web("o", ""), "n1")],
        web("p", "10.0.0.1"),
        &format!(
            "p: 0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports. {no_victims}"
        ),
    );
    check(&one, &[on(web("o", "10.0.0.2"), "n1")], web("p", "10.0.0.1"), "p → n1");
    let small = [node("n1", json!({"status": {"allocatable": {"pods": "1"}}}))];
    check(
        &small,
        &[on(pod("o", json!({})), "n1")],
        pod("p", json!({})),
        &format!("p: 0/1 nodes are available: 1 Too many pods. {no_victims}"),
    );
    let over = labelled(on(asking("o", "4", json!({})), "n1"), json!({}));
    let mut over = over;
    over["status"] = json!({"phase": "Succeeded"});
    check(&one, &[over], asking("p", "4", json!({})), "p → n1");
}

#[test]
fn init_containers_sidecars_and_overhead_count() {
    let one = [node("n1", json!({}))];
    let container = |cpu: &str| json!({"name": "c", "resources": {"requests": {"cpu": cpu}}});
    let sidecar =
        |cpu: &str| json!({"name": "s", "restartPolicy": "Always", "resources": {"requests": {"cpu": cpu}}});
    let fits = |spec: Value, fits: bool| {
        let mut world = World::of(&one);
        world.put(&pod("p", spec.clone()));
        assert_eq!(world.run() == ["p → n1"], fits, "{spec}");
    };
    fits(json!({"containers": [container("1")], "initContainers": [container("4")]}), true);
    fits(json!({"containers": [container("1")], "initContainers": [container("5")]}), false);
    fits(json!({"containers": [container("2")], "initContainers": [sidecar("2")]}), true);
    fits(json!({"containers": [container("2")], "initContainers": [sidecar("3")]}), false);
    fits(json!({"containers": [container("1")], "initContainers": [sidecar("1"), container("4")]}), false);
    fits(json!({"containers": [container("4")], "overhead": {"cpu": "100m"}}), false);
    fits(json!({"containers": [container("9")], "resources": {"requests": {"cpu": "3"}}}), true);
}

#[test]
fn pods_go_near_or_away_from_others() {
    let nodes = [zone("n1", "x"), zone("n2", "y")];
    let term = |app: &str| json!([{"labelSelector": {"matchLabels": {"app": app}}, "topologyKey": "topology.kubernetes.io/zone"}]);
    let near = |app: &str| json!({"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": term(app)}}});
    let away = |app: &str| json!({"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": term(app)}}});
    let db = |node: &str| on(labelled(pod("db", json!({})), json!({"app": "db"})), node);
    check(&nodes, &[db("n2")], pod("p", near("db")), "p → n2");
    check(&nodes, &[db("n2")], pod("p", away("db")), "p → n1");
    check(&nodes[..1], &[], labelled(pod("p", near("own")), json!({"app": "own"})), "p → n1");
    check(
        &nodes,
        &[db("n2")],
        pod("p", near("none")),
        &format!(
            "p: 0/2 nodes are available: 2 node(s) didn't match pod affinity rules. preemption: 0/2 nodes are available: 2 {NO_HELP}"
        ),
    );
    let loner = |node: &str| on(labelled(pod(node, away("web")), json!({"app": "loner"})), node);
    check(&nodes, &[loner("n1")], labelled(pod("p", json!({})), json!({"app": "web"})), "p → n2");
    let none = "preemption: 0/2 nodes are available: 2 No preemption victims found for incoming pod.";
    check(
        &nodes,
        &[loner("n1"), loner("n2")],
        labelled(pod("p", json!({})), json!({"app": "web"})),
        &format!(
            "p: 0/2 nodes are available: 2 node(s) didn't satisfy existing pods anti-affinity rules. {none}"
        ),
    );
    check(
        &nodes[..1],
        &[db("n1")],
        pod("p", away("db")),
        "p: 0/1 nodes are available: 1 node(s) didn't match pod anti-affinity rules. preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod.",
    );
    let mut elsewhere = db("n2");
    elsewhere["metadata"]["namespace"] = "b".into();
    let namespace =
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "b", "labels": {"team": "t"}}});
    let mut across = near("db");
    across["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][0]["namespaceSelector"] =
        json!({"matchLabels": {"team": "t"}});
    check(&nodes, &[elsewhere, namespace], pod("p", across), "p → n2");
}

#[test]
fn pods_spread_over_zones() {
    let nodes = [zone("n1", "x"), zone("n2", "y"), node("n3", json!({}))];
    let spread = |skew: i64, rest: Value| {
        let mut constraint = json!({"maxSkew": skew, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"app": "web"}}});
        world::merge(&mut constraint, &rest);
        labelled(pod("p", json!({"topologySpreadConstraints": [constraint]})), json!({"app": "web"}))
    };
    let web = |name: &str, node: &str| on(labelled(pod(name, json!({})), json!({"app": "web"})), node);
    check(&nodes, &[web("w1", "n1")], spread(1, json!({})), "p → n2");
    let full = node(
        "n2",
        json!({"metadata": {"labels": {"topology.kubernetes.io/zone": "y"}}, "status": {"allocatable": {"pods": "0"}}}),
    );
    let expected = "p: 0/3 nodes are available: 1 Too many pods, 1 node(s) didn't match pod topology spread constraints, 1 node(s) didn't match pod topology spread constraints (missing required label). preemption: 0/3 nodes are available: 1 Preemption is not helpful for scheduling, 2 No preemption victims found for incoming pod.";
    let prior = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a"}});
    check(
        &[nodes[0].clone(), full, nodes[2].clone()],
        &[web("w1", "n1"), prior],
        spread(1, json!({})),
        expected,
    );
    check(&nodes[..1], &[], spread(1, json!({"minDomains": 2})), "p → n1");
    let told = "p: 0/1 nodes are available: 1 node(s) didn't match pod topology spread constraints. preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod.";
    check(&nodes[..1], &[web("w1", "n1")], spread(1, json!({"minDomains": 2})), told);
}

#[test]
fn better_nodes_win() {
    let plain = || node("n1", json!({}));
    check(
        &[plain(), node("n2", json!({"spec": {"taints": [{"key": "k", "effect": "PreferNoSchedule"}]}}))],
        &[],
        pod("p", json!({})),
        "p → n1",
    );
    let preferred = json!({"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
        {"weight": 1, "preference": {"matchExpressions": [{"key": "disk", "operator": "In", "values": ["ssd"]}]}}]}}});
    check(
        &[plain(), node("n2", json!({"metadata": {"labels": {"disk": "ssd"}}}))],
        &[],
        pod("p", preferred),
        "p → n2",
    );
    check(
        &[plain(), node("n2", json!({}))],
        &[on(asking("o", "2", json!({})), "n1")],
        asking("p", "1", json!({})),
        "p → n2",
    );
    let has = |name: &str| {
        node(name, json!({"status": {"images": [{"names": ["i:latest"], "sizeBytes": 900_000_000_i64}]}}))
    };
    check(&[plain(), has("n2")], &[], pod("p", json!({})), "p → n2");
    let near = json!({"affinity": {"podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "podAffinityTerm":
        {"labelSelector": {"matchLabels": {"app": "db"}}, "topologyKey": "kubernetes.io/hostname"}}]}}});
    check(
        &[plain(), node("n2", json!({}))],
        &[on(labelled(pod("db", json!({})), json!({"app": "db"})), "n2")],
        pod("p", near),
        "p → n2",
    );
}

#[test]
fn pods_prefer_to_be_alone_on_a_host() {
    let host = |name: &str, host: &str, cpu: &str| {
        node(
            name,
            json!({"metadata": {"labels": {"kubernetes.io/hostname": host}}, "status": {"allocatable": {"cpu": cpu}}}),
        )
    };
    let away = |app: &str| {
        json!({"affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100,
        "podAffinityTerm": {"labelSelector": {"matchLabels": {"app": app}}, "topologyKey": "kubernetes.io/hostname"}}]}}})
    };
    // The last node has the least room, so that only its being alone speaks for it.
    let apart = [host("n1", "a", "8"), host("n2", "b", "8"), host("n3", "c", "4")];
    let one_host = [host("n1", "a", "8"), host("n2", "a", "8"), host("n3", "c", "4")];
    let db = |node: &str| on(labelled(pod(node, json!({})), json!({"app": "db"})), node);
    check(&apart, &[db("n1"), db("n2")], asking("p", "1", away("db")), "p → n3");
    check(&one_host, &[db("n2")], asking("p", "1", away("db")), "p → n3");
    // As much if those that are there are the ones who say so.
    let loner = |node: &str| on(labelled(pod(node, away("web")), json!({"app": "loner"})), node);
    let web = || labelled(asking("p", "1", json!({})), json!({"app": "web"}));
    check(&apart, &[loner("n1"), loner("n2")], web(), "p → n3");
    check(&one_host, &[loner("n1")], web(), "p → n3");
}

#[test]
fn replicas_of_a_service_do_not_pile_up() {
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "a", "name": "web"}, "spec": {"selector": {"app": "web"}}});
    // n1 has more room, so that only spreading speaks for n2.
    let nodes =
        [node("n1", json!({"status": {"allocatable": {"cpu": "6"}}})), node("n2", json!({})), service];
    let web = |name: &str| labelled(asking(name, "100m", json!({})), json!({"app": "web"}));
    check(&nodes, &[on(web("w1"), "n1")], web("p"), "p → n2");
}

#[test]
fn daemon_pods_go_to_their_node() {
    let nodes = [
        node("n1", json!({})),
        node("n2", json!({"spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]}})),
        node("n3", json!({})),
    ];
    let daemon = |name: &str| {
        pod(
            "p",
            json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
        {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [name]}]}]}}}}),
        )
    };
    check(&nodes, &[], daemon("n3"), "p → n3");
    check(
        &nodes,
        &[],
        daemon("n2"),
        &format!(
            "p: 0/3 nodes are available: 1 node(s) had untolerated taint(s), 2 node(s) didn't satisfy plugin(s) [NodeAffinity]. preemption: 0/3 nodes are available: 3 {NO_HELP}"
        ),
    );
}

#[test]
fn a_pod_waits_for_its_claims() {
    let one = [node("n1", json!({}))];
    let mounts =
        pod("p", json!({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]}));
    let claim = |spec: Value| {
        json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"namespace": "a", "name": "data",
        "annotations": {"pv.kubernetes.io/bind-completed": "yes"}}, "spec": spec})
    };
    let refused = |why: &str| {
        format!("p: 0/1 nodes are available: {why}. preemption: 0/1 nodes are available: 1 {NO_HELP}")
    };
    check(&one, &[], mounts.clone(), &refused("persistentvolumeclaim \"data\" not found"));
    check(
        &one,
        &[claim(json!({}))],
        mounts.clone(),
        &refused("pod has unbound immediate PersistentVolumeClaims"),
    );
    check(
        &one,
        &[claim(json!({"volumeName": "pv"}))],
        mounts.clone(),
        &refused("persistentvolumeclaim \"data\" bound to non-existent persistentvolume \"pv\""),
    );
    let volume = |host: &str| {
        json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "pv"}, "spec": {"nodeAffinity": {"required": {"nodeSelectorTerms": [
        {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [host]}]}]}}}})
    };
    check(&one, &[claim(json!({"volumeName": "pv"})), volume("n1")], mounts.clone(), "p → n1");
    check(
        &one,
        &[claim(json!({"volumeName": "pv"})), volume("n2")],
        mounts.clone(),
        &refused("1 node(s) didn't match PersistentVolume's node affinity"),
    );
    let zonal = json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "pv", "labels": {"topology.kubernetes.io/zone": "x__y"}}});
    let expected = format!(
        "p: 0/2 nodes are available: 2 node(s) had no available volume zone. preemption: 0/2 nodes are available: 2 {NO_HELP}"
    );
    check(
        &[zone("n1", "z"), node("n2", json!({}))],
        &[claim(json!({"volumeName": "pv"})), zonal.clone()],
        mounts.clone(),
        &expected,
    );
    check(
        &[zone("n1", "z"), zone("n2", "y")],
        &[claim(json!({"volumeName": "pv"})), zonal],
        mounts.clone(),
        "p → n2",
    );
    let ephemeral = pod("p", json!({"volumes": [{"name": "v", "ephemeral": {"volumeClaimTemplate": {}}}]}));
    check(
        &one,
        &[],
        ephemeral,
        &refused("waiting for ephemeral volume controller to create the persistentvolumeclaim \"p-v\""),
    );
}
