//! Pods and what a node has room for: what fits, what changes in place, what outgrows its share, what is waited for. Told as transcripts.

use serde_json::{Value, json};

use crate::transcripts::{check, container, pod};
use crate::world::World;

#[test]
fn pods_that_do_not_fit_fail() {
    let asking = |cpu: &str| json!({"containers": [{"name": "c", "image": "bb", "resources": {"requests": {"cpu": cpu}}}]});
    let beside = |world: &mut World, cpu: &str| {
        let other = json!({"spec": asking(cpu)});
        world.others.push(serde_json::from_value(other).expect("a pod"));
    };
    check(
        "too large",
        asking("2500m"),
        |w| {
            beside(w, "2");
            w.settle();
            w.delete(1);
            w.settle();
        },
        r"
        event OutOfcpu: Pod was rejected: Node didn't have enough resource: cpu, requested: 2500, used: 2000, capacity: 4000
        = Failed (OutOfcpu)
        delete
        forget
    ",
    );
    check(
        "elsewhere",
        json!({"nodeSelector": {"disk": "hdd"}, "containers": [container("c")]}),
        |w| {
            w.settle();
        },
        r"
        event NodeAffinity: Pod was rejected: Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector
        = Failed (NodeAffinity)
    ",
    );
    // A node of its own has room for nobody else, whatever the status says.
    for start in [Value::Null, json!("2020-01-01T00:00:00Z")] {
        check(
            "on another's node",
            json!({"containers": [container("c")]}),
            |w| {
                w.node.only_pod = Some("another".into());
                w.pod["status"] =
                    if start.is_null() { json!({}) } else { json!({"startTime": start, "phase": "Running"}) };
                w.settle();
            },
            r"
        event NodeReserved: Pod was rejected: Node runs the pod with UID another alone
        = Failed (NodeReserved)
    ",
        );
    }
}

#[test]
fn a_port_of_the_node_is_one_pods() {
    let asking = |ports: Value| json!({"containers": [{"name": "c", "image": "bb", "ports": ports}]});
    let runs = r"
        = Pending | c ContainerCreating
        sandbox 0
        pull bb
        start c#0
        = Running Ready | c running ready
    ";
    let fails = r"
        event NodePorts: Pod was rejected: Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports
        = Failed (NodePorts)
    ";
    let held = json!([{"containerPort": 80, "hostPort": 80}, {"containerPort": 81, "hostPort": 81, "hostIP": "127.0.0.1"}]);
    for (what, port, transcript) in [
        ("the same", json!({"hostPort": 80, "protocol": "TCP"}), fails),
        ("of one address of all", json!({"hostPort": 80, "hostIP": "127.0.0.1"}), fails),
        ("of all addresses with one", json!({"hostPort": 81, "hostIP": "0.0.0.0"}), fails),
        ("of another address", json!({"hostPort": 81, "hostIP": "10.0.0.1"}), runs),
        ("of another protocol", json!({"hostPort": 80, "protocol": "UDP"}), runs),
        ("of the pod alone", json!({"containerPort": 80}), runs),
    ] {
        check(
            what,
            asking(json!([port])),
            |world| {
                let other = json!({"spec": asking(held.clone())});
                world.others.push(serde_json::from_value(other).expect("a pod"));
                world.settle();
            },
            transcript,
        );
    }
}

#[test]
fn a_claim_is_waited_for() {
    let mut spec = pod("Always", &[], &[container("c")]);
    spec["volumes"] = json!([{"name": "data", "persistentVolumeClaim": {"claimName": "d"}}]);
    check(
        "claim",
        spec,
        |w| {
            w.advance(2);
            w.claims.insert("d".into(), json!({"metadata": {"uid": "1"}, "status": {"phase": "Pending"}}));
            w.advance(2);
            w.claims.insert(
                "d".into(),
                json!({"metadata": {"uid": "1"}, "spec": {"volumeName": "v"}, "status": {"phase": "Bound"}}),
            );
            w.persistent_volumes
                .insert("v".into(), json!({"spec": {"claimRef": {"uid": "1"}, "local": {"path": "/mnt/v"}}}));
            w.advance(2);
        },
        r#"
        = Pending | c ContainerCreating
        read claims d
        event FailedMount: Unable to attach or mount volumes: unmounted volumes=[data], unattached volumes=[], failed to process volumes=[data]: error processing PVC ns/d: failed to fetch PVC from API server: persistentvolumeclaims "d" not found
        +2s
        read claims d
        +2s
        read claims d
        event FailedMount: Unable to attach or mount volumes: unmounted volumes=[data], unattached volumes=[], failed to process volumes=[data]: error processing PVC ns/d: PVC is not bound
        +2s
        read claims d
        sandbox 0
        pull bb
        start c#0
        = Running Ready | c running ready
    "#,
    );
}

#[test]
fn an_image_that_is_a_volume_is_pulled_like_any_other() {
    let mut main = container("c");
    main["volumeMounts"] = json!([{"name": "model", "mountPath": "/model"}]);
    let mut spec = pod("Always", &[], &[main]);
    spec["volumes"] = json!([
        {"name": "model", "image": {"reference": "model:1", "pullPolicy": "IfNotPresent"}},
        {"name": "unused", "image": {"reference": "unused:1"}},
    ]);
    check(
        "image volume",
        spec,
        |w| {
            w.missing_images.insert("model:1".into());
            w.settle();
            w.missing_images.clear();
            w.advance(10);
        },
        r#"
        = Pending | c ContainerCreating
        sandbox 0
        pull bb
        pull model:1 fails
        event BackOff: Back-off pulling image "model:1"
        event Failed: Error: ImagePullBackOff
        = Pending | c ImagePullBackOff "Back-off pulling image "model:1": ErrImagePull: not found"
        +10s
        = Pending | c ErrImagePull "not found"
        pull model:1
        = Pending | c ContainerCreating
        start c#0
        = Running Ready | c running ready
    "#,
    );
}

fn sized(milli_cpu: u32, memory_mi: u32) -> Value {
    let list = json!({"cpu": format!("{milli_cpu}m"), "memory": format!("{memory_mi}Mi")});
    json!({"name": "c", "image": "bb", "resources": {"requests": list, "limits": list}})
}

/// What the status says that the container has, and how far a change is.
fn resources(w: &mut World) {
    let status = &w.pod["status"];
    let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
    let resizes = conditions
        .iter()
        .filter(|one| one["type"].as_str().is_some_and(|name| name.starts_with("PodResize")));
    let resizes: Vec<String> = resizes
        .map(|one| format!(" {} {} {}", one["type"], one["reason"], one["message"]).replace('"', ""))
        .collect();
    let has = &status["containerStatuses"][0]["resources"]["limits"];
    w.log.push(format!("has {} {}{}", has["cpu"], has["memory"], resizes.concat()).replace('"', ""));
}

fn ask_for(w: &mut World, milli_cpu: u32, memory_mi: u32) {
    w.pod["spec"]["containers"][0]["resources"] = sized(milli_cpu, memory_mi)["resources"].clone();
    w.log.push(format!("ask for {milli_cpu}m {memory_mi}Mi"));
}

#[test]
fn resources_change_in_place_or_wait_for_room() {
    check(
        "resize",
        pod("Always", &[], &[sized(1_000, 64)]),
        |w| {
            w.settle();
            resources(w);
            ask_for(w, 2_000, 32);
            w.settle();
            resources(w);
            ask_for(w, 5_000, 32);
            w.settle();
            resources(w);
            ask_for(w, 3_000, 32);
            let other = json!({"spec": pod("Always", &[], &[sized(2_000, 1)])});
            w.others.push(serde_json::from_value(other).expect("a pod"));
            w.settle();
            resources(w);
            w.others.clear();
            w.advance(5);
            resources(w);
        },
        r#"
        = Pending | c ContainerCreating
        sandbox 0
        pull bb
        start c#0
        = Running Ready | c running ready
        has 1000m 64Mi
        ask for 2000m 32Mi
        resize pod to 2000m 64Mi
        resize c#0 to 2000m 32Mi
        resize pod to 2000m 32Mi
        has 2000m 32Mi
        ask for 5000m 32Mi
        has 2000m 32Mi PodResizePending Infeasible Node didn't have enough capacity: cpu, requested: 5000, capacity: 4000
        ask for 3000m 32Mi
        has 2000m 32Mi PodResizePending Deferred Node didn't have enough resource: cpu, requested: 3000, used: 2000, capacity: 4000
        resize pod to 3000m 32Mi
        resize c#0 to 3000m 32Mi
        resize pod to 3000m 32Mi
        has 3000m 32Mi
    "#,
    );
}

#[test]
fn resources_that_need_a_restart_get_one() {
    let mut main = sized(1_000, 64);
    main["resizePolicy"] = json!([{"resourceName": "memory", "restartPolicy": "RestartContainer"}]);
    check(
        "resize with a restart",
        pod("Always", &[], &[main]),
        |w| {
            w.settle();
            ask_for(w, 1_000, 128);
            w.settle();
            resources(w);
        },
        r#"
        = Pending | c ContainerCreating
        sandbox 0
        pull bb
        start c#0
        = Running Ready | c running ready
        ask for 1000m 128Mi
        kill c#0 grace 30: Container c resize requires restart
        resize pod to 1000m 128Mi
        resize pod to 1000m 128Mi
        start c#1
        = Running Ready | c running ready restarts=1
        has 1000m 128Mi
    "#,
    );
}

#[test]
fn a_volume_that_outgrows_its_limit_ends_the_pod() {
    let mut spec = pod("Always", &[], &[container("c")]);
    spec["volumes"] = json!([{"name": "v", "emptyDir": {"sizeLimit": "1Mi"}}]);
    check(
        "eviction",
        spec,
        |w| {
            w.settle();
            w.disk.volumes.insert("v".into(), 2 << 20);
            w.advance(10);
            w.log.push(w.pod["status"]["reason"].to_string());
            w.delete(30);
            w.settle();
        },
        r#"
        = Pending | c ContainerCreating
        sandbox 0
        pull bb
        start c#0
        = Running Ready | c running ready
        measure
        +10s
        measure
        event Evicted: Usage of EmptyDir volume "v" exceeds the limit "1Mi".
        kill c#0 grace 1: Stopping container c
        = Failed (Evicted) | c ended 137
        stop s0
        "Evicted"
        delete
        remove s0
        forget
    "#,
    );
}
