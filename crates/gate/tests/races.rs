//! Many at once want what only one can have.

mod common;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;

use common::{World, pod, splitmix};
use gate::{ServiceRange, ServiceRanges};
use object::Reason;
use plan::{Expect, User, Write};
use schema::path;
use serde_json::json;
use tokio::task::JoinSet;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_address_and_a_port_belong_to_one_service() {
    let network = Ipv4Addr::new(10, 7, 0, 0);
    let ranges =
        ServiceRanges { addresses: ServiceRange { network, prefix: 28 }, node_ports: (30000, 30019) };
    let world = Arc::new(World::with(ranges, splitmix).await);
    let mut tasks = JoinSet::new();
    for index in 0..40 {
        let world = world.clone();
        tasks.spawn(async move {
            let service = json!({"metadata": {"name": format!("s{index}")}, "spec": {"type": "NodePort", "ports": [{"port": 80}]}});
            world.create("services", service).await
        });
    }
    let (mut addresses, mut ports, mut refused) = (BTreeSet::new(), BTreeSet::new(), 0);
    while let Some(done) = tasks.join_next().await {
        match done.expect("no panic") {
            Ok(service) => {
                let service = service.to_value().expect("JSON");
                assert!(addresses.insert(path::text(&service, "spec.clusterIP").to_owned()), "{service}");
                assert!(ports.insert(service["spec"]["ports"][0]["nodePort"].as_i64()), "{service}");
            }
            Err(status) => {
                assert!(status.message.contains("range is full"), "{status}");
                refused += 1;
            }
        }
    }
    assert_eq!((addresses.len(), ports.len(), refused), (14, 14, 26));
    let taken = world
        .create(
            "services",
            json!({"metadata": {"name": "t"}, "spec": {"clusterIP": "10.7.0.1", "ports": [{"port": 80}]}}),
        )
        .await;
    let words = "spec.clusterIPs: Invalid value: [\"10.7.0.1\"]: failed to allocate IP 10.7.0.1: provided IP is already allocated";
    assert!(taken.is_err_and(|status| status.message.contains(words)));
    let outside = world
        .create(
            "services",
            json!({"metadata": {"name": "t"}, "spec": {"clusterIP": "10.8.0.1", "ports": [{"port": 80}]}}),
        )
        .await;
    assert!(outside.is_err_and(|status| {
        status.message.contains("the provided network does not match the current range")
    }));
}

/// KEP-1880: further ranges are drawn from when the first is used up, as long as they are ready.
#[tokio::test]
async fn services_draw_from_every_range_that_is_ready() {
    let network = Ipv4Addr::new(10, 7, 0, 0);
    let ranges =
        ServiceRanges { addresses: ServiceRange { network, prefix: 30 }, ..ServiceRanges::default() };
    let world = World::with(ranges, splitmix).await;
    let service = async |name: &str, address: Option<&str>| {
        let object =
            json!({"metadata": {"name": name}, "spec": {"clusterIP": address, "ports": [{"port": 80}]}});
        let made = world.create("services", object).await.map_err(|status| status.message)?;
        Ok::<_, String>(path::text(&made.to_value().expect("JSON"), "spec.clusterIP").to_owned())
    };
    let range = |name: &str, cidr: &str| json!({"metadata": {"name": name}, "spec": {"cidrs": [cidr]}});
    world
        .create("servicecidrs.networking.k8s.io", range("kubernetes", "10.7.0.0/30"))
        .await
        .expect("the first");
    for name in ["a", "b"] {
        assert!(service(name, None).await.expect("an address").starts_with("10.7.0."));
    }
    let full = service("c", None).await.expect_err("no address is left");
    assert!(full.ends_with("failed to allocate a serviceIP for Service \"c\": range is full"), "{full}");
    world.create("servicecidrs.networking.k8s.io", range("more", "10.8.0.0/29")).await.expect("another");
    assert!(service("c", None).await.expect("an address").starts_with("10.8.0."));
    assert_eq!(service("d", Some("10.8.0.1")).await.as_deref(), Ok("10.8.0.1"));
    let taken = world.get("ipaddresses.networking.k8s.io", "10.8.0.1").expect("it is taken");
    assert_eq!(taken["spec"]["parentRef"]["name"], "d");
    let ready = |status: &str| {
        json!({"status": {"conditions": [{"type": "Ready", "status": status,
        "reason": "Terminating", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}})
    };
    world.merge("servicecidrs.networking.k8s.io", "more", "status", ready("False")).await.expect("not ready");
    let why = service("e", Some("10.8.0.2")).await.expect_err("not ready");
    assert!(
        why.ends_with(
            "failed to allocate IP 10.8.0.2: the provided network does not match the current range"
        ),
        "{why}"
    );
    world.merge("servicecidrs.networking.k8s.io", "more", "status", ready("True")).await.expect("ready");
    assert_eq!(service("e", Some("10.8.0.2")).await.as_deref(), Ok("10.8.0.2"));
}

#[tokio::test]
async fn a_service_gives_back_what_it_had() {
    let world = World::new().await;
    let made = world
        .create(
            "services",
            json!({"metadata": {"name": "s"}, "spec": {"type": "NodePort", "ports": [{"port": 80}]}}),
        )
        .await;
    let made = made.expect("a service").to_value().expect("JSON");
    let address = path::text(&made, "spec.clusterIP").to_owned();
    assert!(world.get("ipaddresses.networking.k8s.io", &address).is_some());
    // An update that does not speak of them keeps both.
    let change = json!({"spec": {"clusterIP": null, "clusterIPs": null, "ports": [{"port": 81}]}});
    let kept = world.merge("services", "s", "", change).await.expect("kept").to_value().expect("JSON");
    assert_eq!(
        (path::text(&kept, "spec.clusterIP"), &kept["spec"]["ports"][0]["nodePort"]),
        (&*address, &made["spec"]["ports"][0]["nodePort"])
    );
    // Another type has none of them; going back takes new ones.
    let named = json!({"spec": {"type": "ExternalName", "externalName": "example.com", "ports": kept["spec"]["ports"]}});
    let named = world.merge("services", "s", "", named).await.expect("a name").to_value().expect("JSON");
    assert!(
        named["spec"].get("clusterIP").is_none() && named["spec"]["ports"][0].get("nodePort").is_none(),
        "{named}"
    );
    assert!(world.get("ipaddresses.networking.k8s.io", &address).is_none());
    let back = json!({"spec": {"type": "NodePort", "externalName": null, "clusterIP": address,
        "ports": [{"port": 80, "nodePort": made["spec"]["ports"][0]["nodePort"]}]}});
    world.merge("services", "s", "", back).await.expect("both were free");
    world.delete("services", "s", gate::DeleteOptions::default()).await.expect("deleted");
    assert!(world.get("ipaddresses.networking.k8s.io", &address).is_none());
    let again = json!({"metadata": {"name": "t"}, "spec": {"type": "NodePort", "clusterIP": address,
        "ports": [{"port": 80, "nodePort": made["spec"]["ports"][0]["nodePort"]}]}});
    world.create("services", again).await.expect("both are free again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_patch_is_lost() {
    let world = Arc::new(World::new().await);
    world.create("configmaps", json!({"metadata": {"name": "c"}})).await.expect("a map");
    let mut tasks = JoinSet::new();
    for index in 0..40 {
        let world = world.clone();
        tasks.spawn(async move {
            // A patch is tried six times and then refused; whoever is refused asks again, as a client would.
            loop {
                match world.merge("configmaps", "c", "", json!({"data": {format!("k{index}"): "v"}})).await {
                    Ok(_) => return,
                    Err(status) => assert_eq!(status.reason, Reason::Conflict),
                }
            }
        });
    }
    tasks.join_all().await;
    assert_eq!(
        world.get("configmaps", "c").and_then(|map| map["data"].as_object().map(|data| data.len())),
        Some(40)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_budget_is_not_overspent() {
    let world = Arc::new(World::new().await);
    let budget = json!({"metadata": {"name": "b"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "x"}}}});
    world.create("poddisruptionbudgets.policy", budget).await.expect("a budget");
    let status = json!({"status": {"observedGeneration": 1, "disruptionsAllowed": 2, "currentHealthy": 3, "desiredHealthy": 1, "expectedPods": 3}});
    world.merge("poddisruptionbudgets.policy", "b", "status", status).await.expect("a status");
    for index in 0..5 {
        let name = format!("p{index}");
        world.create("pods", pod(&name)).await.expect("a pod");
        let binding = json!({"metadata": {"name": name}, "target": {"kind": "Node", "name": "n1"}});
        world.post("pods", &name, "binding", binding).await.expect("bound");
        let ready =
            json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
        world.merge("pods", &name, "status", ready).await.expect("a status");
    }
    let mut tasks = JoinSet::new();
    for index in 0..5 {
        let world = world.clone();
        tasks.spawn(async move {
            let name = format!("p{index}");
            world.post("pods", &name, "eviction", json!({"metadata": {"name": name}})).await
        });
    }
    let done = tasks.join_all().await;
    assert_eq!(done.iter().filter(|one| one.is_ok()).count(), 2);
    for refused in done.iter().filter_map(|one| one.as_ref().err()) {
        assert_eq!((refused.code, refused.causes[0].reason), (429, "DisruptionBudget"), "{refused}");
    }
}

#[tokio::test]
async fn a_name_is_generated_until_it_is_free() {
    // Every number is the same three times in a row: the second object meets the name of the first.
    let world = World::with(ServiceRanges::default(), |state| splitmix(state / 6)).await;
    let object = json!({"metadata": {"generateName": "g-"}});
    let mut names = BTreeSet::new();
    for _ in 0..20 {
        names.insert(world.create("configmaps", object.clone()).await.expect("a name").key.name.clone());
    }
    assert_eq!(names.len(), 20);
    let stuck = World::with(ServiceRanges::default(), |_| 7).await;
    stuck.create("configmaps", object.clone()).await.expect("the first");
    let refused = stuck.create("configmaps", object).await.expect_err("the only name is taken");
    assert!(
        refused.message.contains("the server was not able to generate a unique name for the object"),
        "{refused}"
    );
}

#[tokio::test]
async fn plans_are_carried_out_as_they_are_meant() {
    let world = World::new().await;
    let user = User::new("system:serviceaccount:kube-system:replicaset-controller", &["system:masters"]);
    let owner = |uid: &str| json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": uid, "controller": true}]);
    let map = |uid: &str| Write::Create {
        resource: kinds::CONFIG_MAPS,
        object: json!({"metadata": {"name": "c", "namespace": "a", "ownerReferences": owner(uid)}}),
    };
    let first = world.gate.execute(&user, map("u1")).await.expect("made").expect("an object");
    let again = world.gate.execute(&user, map("u1")).await.expect("already there").expect("an object");
    assert_eq!(first.revision, again.revision);
    assert_eq!(
        world.gate.execute(&user, map("u2")).await.expect_err("somebody else's").reason,
        Reason::AlreadyExists
    );

    let merge = |expect: Expect| Write::Merge {
        key: first.key.clone(),
        expect,
        subresource: "",
        patch: json!({"data": {"a": "b"}}),
    };
    let other = Expect { uid: Some("another".into()), revision: None };
    assert!(world.gate.execute(&user, merge(other)).await.expect("quiet").is_none());
    let changed = world
        .gate
        .execute(&user, merge(Expect::unchanged(&first)))
        .await
        .expect("changed")
        .expect("an object");
    assert!(changed.revision > first.revision);
    let stale = world.gate.execute(&user, merge(Expect::unchanged(&first))).await.expect_err("stale");
    assert_eq!(stale.reason, Reason::Conflict);

    let delete = Write::Delete {
        key: first.key.clone(),
        expect: Expect::same(&first),
        grace_seconds: None,
        propagation: None,
    };
    world.gate.execute(&user, delete.clone()).await.expect("deleted");
    assert!(world.gate.execute(&user, delete).await.expect("gone already").is_none());
}
