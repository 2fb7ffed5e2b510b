//! Pod Security: levels, versions, and what is only told.

use super::*;

fn labelled(labels: Value) -> Vec<Value> {
    let mut world = world(&[]);
    for (name, value) in labels.as_object().expect("labels") {
        world[0]["metadata"]["labels"][format!("pod-security.kubernetes.io/{name}")] = value.clone();
    }
    world
}

#[test]
fn pod_security_has_levels_and_versions() {
    let context =
        |context: Value| json!({"containers": [{"name": "c", "image": "i", "securityContext": context}]});
    let strict = |more: Value| {
        let mut spec = json!({"securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{"name": "c", "image": "i",
                "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}}]});
        spec.as_object_mut().expect("a spec").extend(more.as_object().expect("a map").clone());
        spec
    };
    let rootless = strict(
        json!({"hostUsers": false, "securityContext": {"runAsUser": 0, "seccompProfile": {"type": "Localhost"}}}),
    );
    let proc_mount = |host_users: bool| {
        let mut spec = context(json!({"procMount": "Unmasked"}));
        spec["hostUsers"] = host_users.into();
        spec
    };
    let unmasked = "procMount (container \"c\" must not set securityContext.procMount to \"Unmasked\")";
    let sysctl = |name: &str| json!({"securityContext": {"sysctls": [{"name": name, "value": "1"}]}});
    let engine = json!({"securityContext": {"seLinuxOptions": {"type": "container_engine_t"}}});
    let probe = json!({"containers": [{"name": "c", "livenessProbe": {"httpGet": {"host": "10.0.0.1"}, "tcpSocket": {"host": "h"}}}]});
    let volumes = json!({"volumes": [{"name": "v", "hostPath": {"path": "/"}}, {"name": "w", "nfs": {}}, {"name": "x", "image": {}}]});
    for (level, version, spec, expected) in [
        (
            "restricted",
            "latest",
            json!({"containers": [{"name": "c", "image": "i"}]}),
            "allowPrivilegeEscalation != false (container \"c\" must set securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (container \"c\" must set securityContext.capabilities.drop=[\"ALL\"]), runAsNonRoot != true (pod or container \"c\" must set securityContext.runAsNonRoot=true), seccompProfile (pod or container \"c\" must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")",
        ),
        ("baseline", "latest", json!({}), ""),
        ("restricted", "latest", strict(json!({})), ""),
        // Baseline's findings come first, whatever they are about.
        (
            "restricted",
            "v1.7",
            json!({"hostNetwork": true, "hostPID": true, "volumes": [{"name": "v", "hostPath": {"path": "/"}}], "securityContext": {"runAsNonRoot": true}}),
            "host namespaces (hostNetwork=true, hostPID=true), restricted volume types (volume \"v\" uses restricted volume type \"hostPath\")",
        ),
        (
            "restricted",
            "latest",
            strict(volumes.clone()),
            "restricted volume types (volumes \"v\", \"w\" use restricted volume types \"hostPath\", \"nfs\")",
        ),
        ("baseline", "latest", volumes, "hostPath volumes (volume \"v\")"),
        (
            "baseline",
            "latest",
            context(json!({"privileged": true})),
            "privileged (container \"c\" must not set securityContext.privileged=true)",
        ),
        (
            "baseline",
            "latest",
            context(json!({"capabilities": {"add": ["NET_ADMIN", "CHOWN"]}})),
            "non-default capabilities (container \"c\" must not include \"NET_ADMIN\" in securityContext.capabilities.add)",
        ),
        (
            "restricted",
            "latest",
            strict(
                json!({"containers": [{"name": "c", "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"add": ["CHOWN"]}}}]}),
            ),
            "unrestricted capabilities (container \"c\" must set securityContext.capabilities.drop=[\"ALL\"]; container \"c\" must not include \"CHOWN\" in securityContext.capabilities.add)",
        ),
        (
            "baseline",
            "latest",
            json!({"containers": [{"name": "c", "ports": [{"hostPort": 80}]}, {"name": "d", "ports": [{"hostPort": 81}]}]}),
            "hostPort (containers \"c\", \"d\" use hostPorts 80, 81)",
        ),
        (
            "baseline",
            "latest",
            probe.clone(),
            "probe or lifecycle host (container \"c\" uses probe or lifecycle hosts \"10.0.0.1\", \"h\")",
        ),
        ("baseline", "v1.33", probe, ""),
        ("baseline", "latest", sysctl("kernel.msgmax"), "forbidden sysctls (kernel.msgmax)"),
        ("baseline", "latest", sysctl("net.ipv4.tcp_rmem"), ""),
        ("baseline", "v1.99", sysctl("net.ipv4.tcp_rmem"), ""),
        ("baseline", "v1.31", sysctl("net.ipv4.tcp_rmem"), "forbidden sysctls (net.ipv4.tcp_rmem)"),
        (
            "baseline",
            "v1.26",
            sysctl("net.ipv4.ip_local_reserved_ports"),
            "forbidden sysctls (net.ipv4.ip_local_reserved_ports)",
        ),
        ("baseline", "v1.31", engine.clone(), ""),
        (
            "baseline",
            "v1.30",
            engine,
            "seLinuxOptions (pod set forbidden securityContext.seLinuxOptions: type \"container_engine_t\")",
        ),
        (
            "baseline",
            "latest",
            json!({"securityContext": {"seLinuxOptions": {"user": "u", "role": "r"}}, "containers": [{"name": "c", "securityContext": {"seLinuxOptions": {"type": "t"}}}]}),
            "seLinuxOptions (pod and container \"c\" set forbidden securityContext.seLinuxOptions: type \"t\"; user may not be set; role may not be set)",
        ),
        ("baseline", "v1.35", proc_mount(false), ""),
        ("baseline", "v1.34", proc_mount(false), unmasked),
        ("baseline", "latest", proc_mount(true), unmasked),
        ("restricted", "latest", rootless.clone(), ""),
        (
            "restricted",
            "v1.34",
            rootless,
            "runAsNonRoot != true (pod or container \"c\" must set securityContext.runAsNonRoot=true), runAsUser=0 (pod must not set runAsUser=0)",
        ),
        (
            "restricted",
            "latest",
            strict(
                json!({"securityContext": {"runAsNonRoot": false, "seccompProfile": {"type": "Unconfined"}}}),
            ),
            "runAsNonRoot != true (pod must not set securityContext.runAsNonRoot=false), seccompProfile (pod must not set securityContext.seccompProfile.type to \"Unconfined\")",
        ),
        (
            "baseline",
            "latest",
            json!({"securityContext": {"appArmorProfile": {"type": "Unconfined"}, "windowsOptions": {"hostProcess": true}}}),
            "forbidden AppArmor profile (pod must not set AppArmor profile type to \"Unconfined\"), hostProcess (pod must not set securityContext.windowsOptions.hostProcess=true)",
        ),
        (
            "restricted",
            "latest",
            json!({"os": {"name": "windows"}, "securityContext": {"runAsNonRoot": true}}),
            "",
        ),
        (
            "restricted",
            "v1.24",
            json!({"os": {"name": "windows"}, "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}}, "containers": [{"name": "c", "securityContext": {"allowPrivilegeEscalation": false}}]}),
            "unrestricted capabilities (container \"c\" must set securityContext.capabilities.drop=[\"ALL\"])",
        ),
    ] {
        let world = labelled(json!({"enforce": level, "enforce-version": version}));
        let expected = match expected {
            "" => String::new(),
            found => {
                format!("pods \"web\" is forbidden: violates PodSecurity \"{level}:{version}\": {found}")
            }
        };
        assert_eq!(Case::create(&world, pod(spec)).refusal(), expected);
    }
    let mut annotated = pod(json!({}));
    annotated["metadata"]["annotations"] = json!({
        "container.apparmor.security.beta.kubernetes.io/c": "unconfined",
        "seccomp.security.alpha.kubernetes.io/pod": "unconfined",
    });
    assert_eq!(
        Case::create(&labelled(json!({"enforce": "baseline", "enforce-version": "v1.18"})), annotated)
            .refusal(),
        "pods \"web\" is forbidden: violates PodSecurity \"baseline:v1.18\": forbidden AppArmor profile (annotation must not set AppArmor profile type to \"container.apparmor.security.beta.kubernetes.io/c=\"unconfined\"\"), seccompProfile (forbidden annotation seccomp.security.alpha.kubernetes.io/pod=\"unconfined\")"
    );
}

#[test]
fn pod_security_warns_and_is_written_down() {
    let host = json!({"hostNetwork": true});
    let found = "would violate PodSecurity \"baseline:latest\": host namespaces (hostNetwork=true)";
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"namespace": "a", "name": "d"},
        "spec": {"template": {"spec": {"hostNetwork": true, "containers": []}}}});
    let policy = |text: &str| ("pod-security.kubernetes.io/enforce-policy".to_owned(), text.to_owned());
    let violation = ("pod-security.kubernetes.io/audit-violations".to_owned(), found.to_owned());
    let unread = (
        "pod-security.kubernetes.io/error".to_owned(),
        "Failed to parse policy: metadata.labels[pod-security.kubernetes.io/warn]: Invalid value: \"strict\": must be one of privileged, baseline, restricted".to_owned(),
    );
    for (labels, object, warnings, audit) in [
        (json!({}), pod(host.clone()), vec![], vec![policy("privileged:latest")]),
        (json!({}), deployment.clone(), vec![], vec![]),
        (json!({"warn": "baseline"}), pod(host.clone()), vec![found], vec![policy("privileged:latest")]),
        (json!({"warn": "baseline"}), deployment.clone(), vec![found], vec![]),
        (
            json!({"audit": "baseline"}),
            pod(host.clone()),
            vec![],
            vec![violation.clone(), policy("privileged:latest")],
        ),
        // Who enforces is warned of as much, if nothing else is said.
        (
            json!({"enforce": "baseline", "audit": "baseline"}),
            deployment.clone(),
            vec![found],
            vec![violation],
        ),
        (json!({"enforce": "baseline", "warn": "privileged"}), deployment, vec![], vec![]),
        (json!({"warn": "strict"}), pod(host), vec![], vec![unread, policy("privileged:latest")]),
    ] {
        let (_, verdict, _) = Case::create(&labelled(labels.clone()), object).run().expect("admitted");
        assert_eq!(
            (verdict.warnings, verdict.audit),
            (warnings.into_iter().map(str::to_owned).collect(), audit),
            "{labels}"
        );
    }
    let old = pod(json!({"hostNetwork": true, "containers": [{"name": "c", "image": "i"}]}));
    let enforced = labelled(json!({"enforce": "baseline"}));
    let update = |spec: Value, subresource: &'static str| {
        let case = Case { subresource, ..Case::update(&enforced, old.clone(), pod(spec)) };
        case.refusal().contains("violates PodSecurity")
    };
    let with = |more: Value| {
        let mut spec = old["spec"].clone();
        spec.as_object_mut().expect("a spec").extend(more.as_object().expect("a map").clone());
        spec
    };
    assert!(!update(with(json!({"activeDeadlineSeconds": 5})), ""));
    assert!(update(with(json!({"containers": [{"name": "c", "image": "other"}]})), ""));
    assert!(!update(old["spec"].clone(), "ephemeralcontainers"));
    assert!(update(
        with(json!({"ephemeralContainers": [{"name": "e", "image": "i"}]})),
        "ephemeralcontainers"
    ));
    assert!(!update(old["spec"].clone(), "resize"));
}

#[test]
fn a_stricter_namespace_tells_of_its_pods() {
    let named = |name: &str, spec: Value, owner: &str| {
        let mut pod = pod(spec);
        pod["metadata"]["name"] = name.into();
        if !owner.is_empty() {
            pod["metadata"]["ownerReferences"] = json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": owner, "uid": owner, "controller": true}]);
        }
        pod
    };
    let host = json!({"hostNetwork": true, "hostPID": true});
    let world = world(&[
        named("b", host.clone(), "r"),
        named("c", host.clone(), "r"),
        named("a", host, ""),
        named("d", json!({"volumes": [{"name": "v", "hostPath": {}}]}), ""),
        named("e", json!({}), ""),
    ]);
    let labels = |level: &str, version: &str| {
        let mut namespace = namespace("a");
        namespace["metadata"]["labels"] = json!({"pod-security.kubernetes.io/enforce": level, "pod-security.kubernetes.io/enforce-version": version});
        namespace
    };
    let told = |level: &str| {
        vec![
            format!("existing pods in namespace \"a\" violate the new PodSecurity enforce level \"{level}\""),
            "a (and 2 other pods): host namespaces".to_owned(),
            "d: hostPath volumes".to_owned(),
        ]
    };
    for (old, new, expected) in [
        (namespace("a"), labels("baseline", "latest"), told("baseline:latest")),
        (labels("restricted", "v1.30"), labels("baseline", "v1.31"), told("baseline:v1.31")),
        (labels("restricted", "latest"), labels("baseline", "latest"), vec![]),
        (labels("baseline", "latest"), labels("baseline", "latest"), vec![]),
        (labels("baseline", "latest"), labels("privileged", "v1.30"), vec![]),
    ] {
        let (_, verdict, _) = Case::update(&world, old, new).run().expect("admitted");
        assert_eq!(verdict.warnings, expected);
    }
    let wrong = labels("strict", "v1.05");
    let expected = "Namespace \"a\" is invalid: [metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: \"strict\": must be one of privileged, baseline, restricted, metadata.labels[pod-security.kubernetes.io/enforce-version]: Invalid value: \"v1.05\": must be \"latest\" or \"v1.x\"]";
    assert_eq!(Case::create(&[], wrong.clone()).refusal(), expected);
    assert_eq!(Case::update(&[], namespace("a"), wrong.clone()).refusal(), expected);
    assert_eq!(Case::update(&[], wrong.clone(), wrong).refusal(), "", "who cannot mend it may still write");
}
