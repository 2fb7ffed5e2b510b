//! What the runtime is told for a pod's fields.

use plan::node::{ContainerConfig, SandboxConfig};
use plan::pod::PodOp;
use serde_json::{Value, json};

use crate::world::World;

/// The sandbox's and the first container's configuration.
fn configs(spec: Value) -> (SandboxConfig, ContainerConfig) {
    let mut world = World::new(spec);
    let mut sandbox = None;
    for _ in 0..10 {
        for op in world.step().ops {
            match op {
                PodOp::StartContainer(start) => return (sandbox.expect("a sandbox before it"), start.config),
                PodOp::RunSandbox(ref config) => sandbox = Some((**config).clone()),
                _ => {}
            }
            world.perform(op);
        }
    }
    panic!("nothing was started: {:?}", world.log);
}

fn one(container: Value) -> Value {
    json!({"containers": [container]})
}

#[test]
fn resources_choose_the_class_the_group_and_the_score() {
    for (resources, group, score, shares, memory) in [
        (json!({}), "kubepods/besteffort/podu", 1000, 2, 0),
        (json!({"requests": {"cpu": "500m", "memory": "4Gi"}}), "kubepods/burstable/podu", 500, 512, 0),
        (json!({"requests": {"cpu": "1"}}), "kubepods/burstable/podu", 999, 1024, 0),
        (
            json!({"requests": {"cpu": "1", "memory": "1Mi"}, "limits": {"cpu": "1", "memory": "1Mi"}}),
            "kubepods/podu",
            -997,
            1024,
            1 << 20,
        ),
    ] {
        let (sandbox, config) = configs(one(json!({"name": "c", "image": "bb", "resources": resources})));
        let found =
            (sandbox.cgroup_parent.as_str(), config.resources.oom_score_adj, config.resources.cpu_shares);
        assert_eq!(found, (group, Some(score), shares), "{resources}");
        assert_eq!(config.resources.memory_limit_bytes, memory, "{resources}");
    }
}

#[test]
fn names_are_resolved_as_the_policy_says() {
    let cluster = ["ns.svc.cluster.local", "svc.cluster.local", "cluster.local"];
    for (policy, host_network, servers, searches) in [
        ("ClusterFirst", false, &["10.100.0.10"][..], &cluster[..]),
        ("ClusterFirst", true, &["9.9.9.9"], &[]),
        ("ClusterFirstWithHostNet", true, &["10.100.0.10"], &cluster),
        ("Default", false, &["9.9.9.9"], &[]),
        ("None", false, &[], &[]),
    ] {
        let mut spec = one(json!({"name": "c", "image": "bb"}));
        spec["dnsPolicy"] = json!(policy);
        spec["hostNetwork"] = json!(host_network);
        let (sandbox, _) = configs(spec);
        assert_eq!(sandbox.dns.servers, servers, "{policy} {host_network}");
        assert_eq!(sandbox.dns.searches, searches, "{policy} {host_network}");
    }
}

#[test]
fn variables_see_those_before_them() {
    let container = json!({
        "name": "c", "image": "bb", "command": ["$(B)", "$$(B)", "$(NONE)"],
        "env": [
            {"name": "A", "value": "1$(C)"},
            {"name": "B", "value": "2$(A)"},
            {"name": "C", "value": "3"},
            {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "LABEL", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
            {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
        ],
    });
    let (_, config) = configs(one(container));
    let env: Vec<String> = config.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(env, ["A=1$(C)", "B=21$(C)", "C=3", "IP=10.244.0.5", "LABEL=web", "CPU=4"]);
    assert_eq!(config.command, ["21$(C)", "$(B)", "$(NONE)"]);
}

#[test]
fn claims_and_images_are_mounted() {
    let container = json!({
        "name": "c", "image": "bb",
        "volumeMounts": [
            {"name": "model", "mountPath": "/model", "subPath": "weights"},
            {"name": "data", "mountPath": "/data", "subPath": "own"},
            {"name": "shared", "mountPath": "/shared"},
        ],
    });
    let mut world = World::new(json!({
        "containers": [container],
        "volumes": [
            {"name": "model", "image": {"reference": "model:1"}},
            {"name": "data", "persistentVolumeClaim": {"claimName": "d"}},
            {"name": "shared", "persistentVolumeClaim": {"claimName": "s", "readOnly": true}},
        ],
    }));
    for (name, source) in
        [("d", json!({"hostPath": {"path": "/srv/d"}})), ("s", json!({"local": {"path": "/srv/s"}}))]
    {
        let claim =
            json!({"metadata": {"uid": name}, "spec": {"volumeName": name}, "status": {"phase": "Bound"}});
        world.claims.insert(name.into(), claim);
        let mut spec = source;
        spec["claimRef"] = json!({"uid": name});
        world.persistent_volumes.insert(name.into(), json!({"spec": spec}));
    }
    let start = (0..10).find_map(|_| {
        let mut started = None;
        for op in world.step().ops {
            if let PodOp::StartContainer(start) = &op {
                started = Some(start.clone());
            }
            world.perform(op);
        }
        started
    });
    let start = start.expect("it starts");
    let mounts: Vec<_> =
        start.config.mounts.iter().map(|one| (one.host_path.display().to_string(), one.read_only)).collect();
    assert_eq!(mounts, [("/srv/d".to_owned(), false), ("/srv/s".to_owned(), true)]);
    assert_eq!(start.subpaths, [(0, "own".to_owned())].into());
    let [(name, volume)] = &start.images[..] else { panic!("{:?}", start.images) };
    assert_eq!(
        (name.as_str(), volume.container_path.as_str(), volume.sub_path.as_str()),
        ("model:1", "/model", "weights")
    );
}

#[test]
fn a_pod_of_a_subdomain_has_a_full_name() {
    const FULL: &str = "h.sub.ns.svc.cluster.local";
    for (hostname, subdomain, as_fqdn, name, names) in [
        ("", "", false, "p", &["p"][..]),
        ("h", "", true, "h", &["h"]),
        ("h", "sub", false, "h", &[FULL, "h"]),
        ("h", "sub", true, FULL, &[FULL, "h"]),
    ] {
        let mut spec = one(json!({"name": "c", "image": "bb"}));
        spec["hostname"] = json!(hostname);
        spec["subdomain"] = json!(subdomain);
        spec["setHostnameAsFQDN"] = json!(as_fqdn);
        let (sandbox, _) = configs(spec);
        assert_eq!(
            (sandbox.hostname.as_str(), &sandbox.host_names[..]),
            (name, &names.iter().map(ToString::to_string).collect::<Vec<_>>()[..])
        );
    }
}
