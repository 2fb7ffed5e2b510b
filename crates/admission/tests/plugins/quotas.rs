//! ResourceQuota: what is charged, by what scopes, and when it is refused.

use super::*;

fn quota(spec: Value, hard: Value, used: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"namespace": "a", "name": "q"}, "spec": spec,
        "status": {"hard": hard, "used": used}})
}

#[test]
fn quota_is_charged_or_refused() {
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": "a", "name": "m"}});
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "a", "name": "s"}, "spec": {"type": "NodePort", "ports": [{}, {}]}});
    let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"namespace": "a", "name": "c"},
        "spec": {"storageClassName": "fast", "resources": {"requests": {"storage": "2Gi"}}}});
    let cpu = |request: &str| sized(json!({"cpu": request}), json!({}));
    for (object, hard, used, expected) in [
        (pod(json!({})), json!({"pods": "2"}), json!({"pods": "1"}), Ok(json!({"pods": "2"}))),
        (
            pod(json!({})),
            json!({"pods": "2"}),
            json!({"pods": "2"}),
            Err("exceeded quota: q, requested: pods=1, used: pods=2, limited: pods=2"),
        ),
        (
            pod(json!({})),
            json!({"pods": "2"}),
            json!({}),
            Err("status unknown for quota: q, resources: pods"),
        ),
        (
            pod(json!({})),
            json!({"requests.cpu": "1", "limits.cpu": "2"}),
            json!({}),
            Err("failed quota: q: must specify limits.cpu for: c; requests.cpu for: c"),
        ),
        (cpu("600m"), json!({"cpu": "1"}), json!({"cpu": "300m"}), Ok(json!({"cpu": "900m"}))),
        (
            cpu("800m"),
            json!({"cpu": "1", "pods": "9"}),
            json!({"cpu": "300m", "pods": "0"}),
            Err("exceeded quota: q, requested: cpu=800m, used: cpu=300m, limited: cpu=1"),
        ),
        (
            map.clone(),
            json!({"configmaps": "1", "count/configmaps": "5"}),
            json!({"configmaps": "0", "count/configmaps": "1"}),
            Ok(json!({"configmaps": "1", "count/configmaps": "2"})),
        ),
        (map, json!({"pods": "0"}), json!({"pods": "0"}), Ok(Value::Null)),
        (
            service,
            json!({"services.nodeports": "1"}),
            json!({"services.nodeports": "0"}),
            Err(
                "exceeded quota: q, requested: services.nodeports=2, used: services.nodeports=0, limited: services.nodeports=1",
            ),
        ),
        (
            claim,
            json!({"requests.storage": "4Gi", "fast.storageclass.storage.k8s.io/requests.storage": "4Gi"}),
            json!({"requests.storage": "1Gi", "fast.storageclass.storage.k8s.io/requests.storage": "0"}),
            Ok(
                json!({"requests.storage": "3Gi", "fast.storageclass.storage.k8s.io/requests.storage": "2Gi"}),
            ),
        ),
        (
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "a", "name": "s"},
                "spec": {"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false, "ports": [{}, {"nodePort": 30001}]}}),
            json!({"services.nodeports": "5", "services.loadbalancers": "5"}),
            json!({"services.nodeports": "0", "services.loadbalancers": "0"}),
            Ok(json!({"services.nodeports": "1", "services.loadbalancers": "1"})),
        ),
        (
            json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"namespace": "a", "name": "c"},
                "spec": {"resources": {"requests": {"storage": "1500m"}}}}),
            json!({"requests.storage": "4Gi"}),
            json!({"requests.storage": "0"}),
            Ok(json!({"requests.storage": "2"})),
        ),
        (
            json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim", "metadata": {"namespace": "a", "name": "c"},
            "spec": {"devices": {"requests": [
                {"name": "a", "exactly": {"deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 2}},
                {"name": "b", "firstAvailable": [
                    {"deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 1},
                    {"deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 3},
                ]},
            ]}}}),
            json!({"gpu.deviceclass.resource.k8s.io/devices": "8"}),
            json!({"gpu.deviceclass.resource.k8s.io/devices": "0"}),
            Ok(json!({"gpu.deviceclass.resource.k8s.io/devices": "5"})),
        ),
        (
            pod(json!({"containers": [{"name": "b"}, {"name": "a"}], "initContainers": [{"name": "a"}]})),
            json!({"cpu": "1"}),
            json!({"cpu": "0"}),
            Err("failed quota: q: must specify cpu for: a,b"),
        ),
        (
            sized(json!({"example.com/gpu": "2"}), json!({"example.com/gpu": "2"})),
            json!({"requests.example.com/gpu": "1"}),
            json!({"requests.example.com/gpu": "0"}),
            Err(
                "exceeded quota: q, requested: requests.example.com/gpu=2, used: requests.example.com/gpu=0, limited: requests.example.com/gpu=1",
            ),
        ),
    ] {
        let world = world(&[quota(json!({}), hard, used)]);
        let case = Case::create(&world, object);
        let answer = case.run().map(|(_, _, writes)| match writes.as_slice() {
            [] => Value::Null,
            [Write::Merge { expect, patch, .. }] => {
                assert!(expect.revision.is_some(), "a charge holds for the quota that was read");
                patch["status"]["used"].clone()
            }
            other => panic!("{other:?}"),
        });
        let answer = answer.map_err(|message| {
            message.split_once(" is forbidden: ").map(|(_, why)| why.to_owned()).unwrap_or(message)
        });
        assert_eq!(answer, expected.map_err(str::to_owned), "{}", case.object);
    }
}

#[test]
fn quotas_have_scopes() {
    let full = |spec: Value| world(&[quota(spec, json!({"pods": "0"}), json!({"pods": "0"}))]);
    let term = |name: &str, operator: &str, values: &[&str]| json!({"scopeSelector": {"matchExpressions": [{"scopeName": name, "operator": operator, "values": values}]}});
    for (scope, spec, is_refused) in [
        (json!({"scopes": ["BestEffort"]}), json!({}), true),
        (json!({"scopes": ["NotBestEffort"]}), json!({}), false),
        (json!({"scopes": ["Terminating"]}), json!({}), false),
        (json!({"scopes": ["Terminating"]}), json!({"activeDeadlineSeconds": 5}), true),
        (json!({"scopes": ["NotTerminating", "BestEffort"]}), json!({"activeDeadlineSeconds": 5}), false),
        (term("PriorityClass", "Exists", &[]), json!({}), false),
        (
            json!({"scopes": ["CrossNamespacePodAffinity"]}),
            json!({"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"namespaceSelector": {}}]}}}),
            true,
        ),
    ] {
        let refusal = Case::create(&full(scope.clone()), pod(spec)).refusal();
        assert_eq!(refusal.contains("exceeded quota"), is_refused, "{scope}: {refusal}");
    }
    let class = json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "high"}, "value": 1});
    let mut world = full(term("PriorityClass", "In", &["high"]));
    world.push(class);
    assert!(
        Case::create(&world, pod(json!({"priorityClassName": "high"}))).refusal().contains("exceeded quota")
    );
    assert_eq!(Case::create(&world, pod(json!({}))).refusal(), "");
}

#[test]
fn a_claim_that_comes_under_a_quota_is_charged_whole() {
    let claim = |class: &str| {
        json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"namespace": "a", "name": "c"},
        "spec": {"volumeAttributesClassName": class, "resources": {"requests": {"storage": "2Gi"}}}, "status": {"phase": "Bound"}})
    };
    let scope = json!({"scopeSelector": {"matchExpressions": [{"scopeName": "VolumeAttributesClass", "operator": "In", "values": ["gold"]}]}});
    let world = world(&[quota(
        scope,
        json!({"persistentvolumeclaims": "1"}),
        json!({"persistentvolumeclaims": "0"}),
    )]);
    let writes = |old: Value, new: Value| Case::update(&world, old, new).run().expect("admitted").2.len();
    assert_eq!(writes(claim("silver"), claim("gold")), 1);
    assert_eq!(writes(claim("gold"), claim("gold")), 0);
    let mut going = claim("silver");
    going["status"]["currentVolumeAttributesClassName"] = "gold".into();
    assert_eq!(writes(claim("gold"), going), 0, "it is of both classes");
}

#[test]
fn a_grown_claim_is_charged_by_its_growth() {
    let claim = |size: &str| {
        json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"namespace": "a", "name": "c"},
        "spec": {"storageClassName": "grows", "resources": {"requests": {"storage": size}}}, "status": {"phase": "Bound"}})
    };
    let class = json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "grows"}, "allowVolumeExpansion": true});
    let world = world(&[
        class,
        quota(
            json!({}),
            json!({"requests.storage": "5Gi", "persistentvolumeclaims": "1"}),
            json!({"requests.storage": "2Gi", "persistentvolumeclaims": "1"}),
        ),
    ]);
    let (_, _, writes) = Case::update(&world, claim("2Gi"), claim("4Gi")).run().expect("admitted");
    let [Write::Merge { patch, .. }] = writes.as_slice() else { panic!("{writes:?}") };
    assert_eq!(patch["status"]["used"], json!({"requests.storage": "4Gi"}));
    assert!(Case::update(&world, claim("2Gi"), claim("6Gi")).refusal().contains("exceeded quota: q, requested: requests.storage=4Gi, used: requests.storage=2Gi, limited: requests.storage=5Gi"));
}
