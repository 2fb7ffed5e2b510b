//! What plugins are told by an AdmissionConfiguration.

use super::*;

fn read(plugins: Value) -> Result<Configuration, String> {
    let file = json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AdmissionConfiguration", "plugins": plugins});
    let security = json!({"apiVersion": "pod-security.admission.config.k8s.io/v1", "kind": "PodSecurityConfiguration",
        "defaults": {"enforce": "baseline"}});
    Configuration::read(file, |path| match path {
        "security.yaml" => Ok(security.clone()),
        other => Err(format!("no such file: {other}")),
    })
}

fn security(content: Value) -> Value {
    let mut configuration = content;
    configuration["apiVersion"] = "pod-security.admission.config.k8s.io/v1".into();
    configuration["kind"] = "PodSecurityConfiguration".into();
    json!({"name": "PodSecurity", "configuration": configuration})
}

fn limited(resources: Value) -> Value {
    json!({"name": "ResourceQuota", "configuration": {"apiVersion": "resourcequota.admission.k8s.io/v1",
        "kind": "Configuration", "limitedResources": resources}})
}

#[test]
fn what_is_wrong_is_named() {
    for (plugins, expected) in [
        (json!([]), ""),
        (json!([{"name": "PodSecurity", "path": "security.yaml"}]), ""),
        (json!([{"name": "PodSecurity", "path": "other"}]), "plugins[0].path: no such file: other"),
        (
            json!([{"name": "EventRateLimit", "path": "security.yaml"}]),
            "plugins[0]: name: Unsupported value: \"EventRateLimit\": this server has no such plugin, or none that could be told anything; supported values: \"PodSecurity\", \"ResourceQuota\"",
        ),
        (
            json!([security(json!({})), security(json!({}))]),
            "plugins[1].name: Duplicate value: \"PodSecurity\": plugins[0] has it",
        ),
        (
            json!([{"name": "ResourceQuota", "path": "security.yaml"}]),
            "plugins[0]: configuration of ResourceQuota: it is of apiVersion \"pod-security.admission.config.k8s.io/v1\" and kind \"PodSecurityConfiguration\": expected resourcequota.admission.k8s.io/v1 and Configuration",
        ),
        (
            json!([security(json!({"defaults": {"enforce": "strict", "warn-version": "1.30"},
                "exemptions": {"namespaces": ["A", "b", "b"], "usernames": [""]}}))]),
            "plugins[0]: configuration of PodSecurity: defaults.enforce: Invalid value: \"strict\": must be one of privileged, baseline, restricted; \
             defaults.warn-version: Invalid value: \"1.30\": must be \"latest\" or \"v1.x\"; \
             exemptions.namespaces[0]: Invalid value: \"A\": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?'); \
             exemptions.namespaces[2]: Duplicate value: \"b\"; exemptions.usernames[0]: Invalid value: \"\": username must not be empty",
        ),
        (
            json!([limited(json!([{"matchContains": ["x"]}]))]),
            "plugins[0]: configuration of ResourceQuota: limitedResources[0].resource: Required value",
        ),
    ] {
        let found = read(plugins.clone()).err().unwrap_or_default();
        assert_eq!(found, expected, "{plugins}");
    }
}

#[test]
fn namespaces_have_defaults_and_some_are_exempt() {
    let configuration = read(json!([security(json!({
        "defaults": {"enforce": "baseline", "enforce-version": "v1.30", "warn": "restricted"},
        "exemptions": {"usernames": ["root"], "namespaces": ["open"], "runtimeClasses": ["vm"]},
    }))]));
    let configuration = configuration.expect("a configuration");
    let class = json!({"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "vm"}, "handler": "vm"});
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"namespace": "open", "name": "default"}});
    let world = world(&[namespace("open"), account, class]);
    let host = || pod(json!({"hostNetwork": true}));
    let in_open = || {
        let mut pod = host();
        pod["metadata"]["namespace"] = "open".into();
        pod
    };
    let exempt = |why: &str| vec![("pod-security.kubernetes.io/exempt".to_owned(), why.to_owned())];
    let denied = Case { configuration: &configuration, ..Case::create(&world, host()) }.refusal();
    assert!(
        denied.ends_with("violates PodSecurity \"baseline:v1.30\": host namespaces (hostNetwork=true)"),
        "{denied}"
    );
    let vm = pod(json!({"hostNetwork": true, "runtimeClassName": "vm"}));
    for (user, object, why) in
        [("root", host(), "user"), ("alice", in_open(), "namespace"), ("alice", vm, "runtimeClass")]
    {
        let case = Case { configuration: &configuration, user, ..Case::create(&world, object) };
        assert_eq!(case.run().expect("admitted").1.audit, exempt(why));
    }
    let mut labelled = namespace("open");
    labelled["metadata"]["labels"] = json!({"pod-security.kubernetes.io/enforce": "restricted"});
    let case = Case { configuration: &configuration, ..Case::create(&world, labelled) };
    assert_eq!(
        case.run().expect("admitted").1.warnings,
        [
            "namespace \"open\" is exempt from Pod Security, and the policy (enforce=restricted:v1.30) will be ignored"
        ]
    );
}

#[test]
fn what_is_limited_wants_a_quota() {
    let classes = json!([
        {"resource": "pods", "matchScopes": [{"scopeName": "PriorityClass", "operator": "In", "values": ["high"]}]},
        {"resource": "persistentvolumeclaims", "matchContains": ["gold.storageclass.storage.k8s.io/requests.storage"]},
    ]);
    let configuration = read(json!([limited(classes)])).expect("a configuration");
    let class = |name: &str| json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name}, "value": 1});
    let claim = |class: &str| {
        json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"namespace": "a", "name": "c"},
            "spec": {"storageClassName": class, "resources": {"requests": {"storage": "2Gi"}}}})
    };
    let quota = |spec: Value, name: &str| {
        json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"namespace": "a", "name": "q"}, "spec": spec,
            "status": {"hard": {name: "9Gi"}, "used": {name: "0"}}})
    };
    let bare = world(&[class("high"), class("low")]);
    let scope = json!({"scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "In", "values": ["high"]}]}});
    let covered = world(&[class("high"), quota(scope, "pods")]);
    let gold = world(&[quota(json!({}), "gold.storageclass.storage.k8s.io/requests.storage")]);
    let high = || pod(json!({"priorityClassName": "high"}));
    for (world, object, expected) in [
        (&bare, pod(json!({"priorityClassName": "low"})), ""),
        (&bare, high(), "insufficient quota to match these scopes: [{PriorityClass In [high]}]"),
        (&covered, high(), ""),
        (&bare, claim("silver"), ""),
        (
            &bare,
            claim("gold"),
            "persistentvolumeclaims \"c\" is forbidden: insufficient quota to consume: gold.storageclass.storage.k8s.io/requests.storage",
        ),
        (&gold, claim("gold"), ""),
    ] {
        let case = Case { configuration: &configuration, ..Case::create(world, object) };
        assert_eq!(case.refusal(), expected, "{}", case.object);
    }
}

#[test]
fn what_is_given_back_wants_no_quota() {
    let name = "gold.storageclass.storage.k8s.io/requests.storage";
    let configuration =
        read(json!([limited(json!([{"resource": "persistentvolumeclaims", "matchContains": [name]}]))]));
    let configuration = configuration.expect("a configuration");
    let claim = |size: &str| {
        json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"namespace": "a", "name": "c"},
            "spec": {"storageClassName": "gold", "resources": {"requests": {"storage": size}}}, "status": {"phase": "Bound"}})
    };
    let class = json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "gold"}, "allowVolumeExpansion": true});
    // It counts them, but not under the name that is limited.
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"namespace": "a", "name": "q"}, "spec": {},
        "status": {"hard": {"requests.storage": "9Gi"}, "used": {"requests.storage": "2Gi"}}});
    let (bare, counted) = (world(std::slice::from_ref(&class)), world(&[class, quota]));
    for world in [&bare, &counted] {
        let update = |size: &str| Case {
            configuration: &configuration,
            ..Case::update(world, claim("2Gi"), claim(size))
        };
        assert_eq!(update("1Gi").refusal(), "");
        assert!(update("3Gi").refusal().ends_with(&format!("insufficient quota to consume: {name}")));
    }
}

#[test]
fn a_pod_is_not_changed_into_one_that_its_node_cannot_run() {
    let node = |declared: Value| {
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1", "labels": {"kubernetes.io/os": "linux"}},
            "status": {"declaredFeatures": declared, "allocatable": {"cpu": "9", "memory": "9Gi"}}})
    };
    let pod = |generation: i64, cpu: &str, of_init: &str| {
        let sized = |cpu: &str| json!({"requests": {"cpu": cpu}});
        let mut pod = pod(json!({"nodeName": "n1", "resources": sized(cpu),
            "initContainers": [{"name": "i", "image": "i", "resources": sized(of_init)}]}));
        pod["metadata"]["generation"] = generation.into();
        pod
    };
    let both = json!(["InPlacePodLevelResourcesVerticalScaling", "InPlacePodVerticalScalingInitContainers"]);
    for (declared, new, expected) in [
        (json!([]), pod(2, "1", "1"), ""),
        (json!([]), pod(1, "2", "1"), ""),
        (json!([]), pod(2, "2", "1"), "InPlacePodLevelResourcesVerticalScaling"),
        (
            json!([]),
            pod(2, "2", "2"),
            "InPlacePodLevelResourcesVerticalScaling, InPlacePodVerticalScalingInitContainers",
        ),
        (json!([&both[0]]), pod(2, "2", "2"), "InPlacePodVerticalScalingInitContainers"),
        (both.clone(), pod(2, "2", "2"), ""),
    ] {
        let world = world(&[node(declared)]);
        let case = Case { subresource: "resize", ..Case::update(&world, pod(1, "1", "1"), new) };
        let expected = match expected {
            "" => String::new(),
            lacking => format!(
                "pods \"web\" is forbidden: pod update requires features {lacking} which are not available on node \"n1\""
            ),
        };
        assert_eq!(case.refusal(), expected);
    }
}
