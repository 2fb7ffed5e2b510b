//! Every plugin: a cluster, a request, and what becomes of it.

mod configuration;
mod eks;
mod pod_security;
mod quotas;

use std::sync::LazyLock;

use admission::{
    Configuration, Fargate, Operation, Plugin, PodIdentity, Request, Step, Verdict, mutate, validate,
};
use object::{Draft, Key, Snapshot, Time, body};
use plan::{Attributes, Decision, User, Write};
use serde_json::{Value, json};

fn key(value: &Value) -> (Key, &'static schema::Kind) {
    let (group, version) =
        value["apiVersion"].as_str().expect("apiVersion").split_once('/').unwrap_or(("", "v1"));
    let kind = kinds::by_gvk(group, version, value["kind"].as_str().expect("kind")).expect("a known kind");
    let text = |field: &str| value["metadata"][field].as_str().unwrap_or_default();
    (Key::new(kind.resource, text("namespace"), text("name")), kind)
}

fn snapshot(values: &[Value]) -> Snapshot {
    let mut snapshot = Snapshot::default();
    for value in values {
        let mut value = value.clone();
        let (key, kind) = key(&value);
        if value["metadata"]["uid"].is_null() {
            value["metadata"]["uid"] = format!("uid-{}", key.name).into();
        }
        let fields = kind.selectable.iter().map(|at| schema::path::text(&value, at).into()).collect();
        let revision = snapshot.revision() + 1;
        snapshot.put(Draft::read(key, fields, body::encode(&value)).expect("a draft").at(revision));
    }
    snapshot
}

/// The plugins of the chain.
fn steps() -> impl Iterator<Item = &'static [Plugin]> {
    admission::CHAIN.iter().filter_map(|step| match step {
        Step::Plugins(plugins) => Some(*plugins),
        _ => None,
    })
}

/// One request against a cluster.
struct Case<'a> {
    world: &'a [Value],
    user: &'a str,
    operation: Operation,
    subresource: &'a str,
    object: Value,
    old: Option<Value>,
    /// `verb resource name` of what the user may do besides.
    may: &'a str,
    configuration: &'a Configuration,
    pod_identity: Option<&'a PodIdentity>,
    fargate: Option<&'a dyn Fargate>,
}

/// Of a cluster that is told nothing.
static PLAIN: LazyLock<Configuration> = LazyLock::new(Configuration::default);

impl Case<'_> {
    fn create(world: &[Value], object: Value) -> Case<'_> {
        let (user, subresource, may) = ("alice", "", "");
        Case {
            world,
            user,
            operation: Operation::Create,
            subresource,
            object,
            old: None,
            may,
            configuration: &PLAIN,
            pod_identity: None,
            fargate: None,
        }
    }

    fn update(world: &[Value], old: Value, object: Value) -> Case<'_> {
        Case { operation: Operation::Update, old: Some(old), ..Case::create(world, object) }
    }

    /// The object as it would be stored, the verdict and what is charged, or the message of the refusal.
    fn run(&self) -> Result<(Value, Verdict, Vec<Write>), String> {
        let snapshot = snapshot(self.world);
        let (key, kind) = key(self.old.as_ref().unwrap_or(&self.object));
        let (name, groups) = self.user.split_once('|').unwrap_or((self.user, ""));
        let user = User::new(name, &groups.split(',').collect::<Vec<_>>());
        let authorize = |asked: &Attributes| Decision {
            allowed: format!("{} {} {}", asked.verb, asked.resource, asked.name) == self.may,
            ..Decision::default()
        };
        let request = Request {
            user: &user,
            operation: self.operation,
            kind: self.object["kind"].as_str().unwrap_or(kind.kind),
            key: &key,
            namespaced: kind.namespaced,
            subresource: self.subresource,
            old: self.old.as_ref(),
            options: &Value::Null,
            dry_run: false,
            now: Time::from_secs(1_795_410_000),
            suffix: "x2z4v",
            configuration: self.configuration,
            pod_identity: self.pod_identity,
            fargate: self.fargate,
            authorize: &authorize,
        };
        let mut completed = self.object.clone();
        for plugins in steps() {
            let admitted = mutate(plugins, &snapshot, &request, completed, |_, _| ())
                .map_err(|status| status.message)?;
            completed = admitted.object;
        }
        let object = (self.operation != Operation::Delete).then_some(&completed);
        let mut verdict = Verdict::default();
        for plugins in steps() {
            validate(plugins, &snapshot, &request, object, &mut verdict, |_, _| ())
                .map_err(|status| status.message)?;
        }
        let mut writes = Vec::new();
        for step in admission::CHAIN {
            if let (Step::Charge(_, charge), Some(object)) = (step, object) {
                writes.extend(charge(&snapshot, &request, object).map_err(|status| status.message)?);
            }
        }
        Ok((completed, verdict, writes))
    }

    fn refusal(&self) -> String {
        self.run().err().unwrap_or_default()
    }

    fn stored(&self) -> Value {
        self.run().expect("admitted").0
    }
}

fn namespace(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
}

/// A namespace `a` with its default service account, and more.
fn world(more: &[Value]) -> Vec<Value> {
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"namespace": "a", "name": "default"}});
    [&[namespace("a"), account], more].concat()
}

fn pod(spec: Value) -> Value {
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "a", "name": "web"}, "spec": spec});
    if pod["spec"].get("containers").is_none() {
        pod["spec"]["containers"] = json!([{"name": "c", "image": "i"}]);
    }
    pod
}

fn sized(requests: Value, limits: Value) -> Value {
    pod(
        json!({"containers": [{"name": "c", "image": "i", "resources": {"requests": requests, "limits": limits}}]}),
    )
}

#[test]
fn namespaces_must_be_there_and_stay() {
    let going = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "going", "deletionTimestamp": "2026-11-23T05:00:00Z"}});
    let world = world(&[going]);
    let map = |namespace: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": namespace, "generateName": "m-"}});
    for (namespace, expected) in [
        ("a", ""),
        ("absent", "namespaces \"absent\" not found"),
        (
            "going",
            "configmaps \"m-\" is forbidden: unable to create new content in namespace going because it is being terminated",
        ),
    ] {
        assert_eq!(Case::create(&world, map(namespace)).refusal(), expected);
    }
    assert_eq!(Case::update(&world, map("going"), map("going")).refusal(), "");
    for (name, expected) in [
        ("default", "namespaces \"default\" is forbidden: this namespace may not be deleted"),
        ("kube-system", "namespaces \"kube-system\" is forbidden: this namespace may not be deleted"),
        ("kube-node-lease", ""),
    ] {
        let delete =
            Case { operation: Operation::Delete, ..Case::update(&world, namespace(name), namespace(name)) };
        assert_eq!(delete.refusal(), expected);
    }
}

#[test]
fn a_pod_gets_its_service_account_and_token() {
    let account = |name: &str, rest: Value| {
        let mut account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"namespace": "a", "name": name}});
        account.as_object_mut().expect("a map").extend(rest.as_object().expect("a map").clone());
        account
    };
    let world = world(&[
        account("pulls", json!({"imagePullSecrets": [{"name": "registry"}]})),
        account("bare", json!({"automountServiceAccountToken": false})),
    ]);
    let mount = json!({"name": "kube-api-access-x2z4v", "readOnly": true, "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"});
    let stored = Case::create(&world, pod(json!({}))).stored();
    assert_eq!(stored["spec"]["serviceAccountName"], "default");
    assert_eq!(stored["spec"]["containers"][0]["volumeMounts"], json!([mount]));
    assert_eq!(
        stored["spec"]["volumes"][0]["projected"]["sources"][0]["serviceAccountToken"]["expirationSeconds"],
        3607
    );
    let stored =
        Case::create(&world, pod(json!({"serviceAccountName": "pulls", "initContainers": [{"name": "i"}]})))
            .stored();
    assert_eq!(stored["spec"]["imagePullSecrets"], json!([{"name": "registry"}]));
    assert_eq!(stored["spec"]["initContainers"][0]["volumeMounts"], json!([mount]));
    for spec in [json!({"serviceAccountName": "bare"}), json!({"automountServiceAccountToken": false})] {
        assert_eq!(Case::create(&world, pod(spec)).stored()["spec"].get("volumes"), None);
    }
    let twice = Case::create(&world, stored.clone()).stored();
    assert_eq!(twice, stored, "a second pass adds nothing");
    assert_eq!(
        Case::create(&world, pod(json!({"serviceAccountName": "none"}))).refusal(),
        "pods \"web\" is forbidden: error looking up service account a/none: serviceaccount \"none\" not found"
    );
}

#[test]
fn limits_are_set_and_kept() {
    let range = |limits: Value| {
        world(&[
            json!({"apiVersion": "v1", "kind": "LimitRange", "metadata": {"namespace": "a", "name": "l"}, "spec": {"limits": limits}}),
        ])
    };
    let defaults = range(
        json!([{"type": "Container", "default": {"cpu": "1", "memory": "1Gi"}, "defaultRequest": {"cpu": "100m"}}]),
    );
    let stored = Case::create(&defaults, sized(json!({}), json!({"memory": "2Gi"}))).stored();
    assert_eq!(
        stored["spec"]["containers"][0]["resources"],
        json!({"requests": {"cpu": "100m"}, "limits": {"cpu": "1", "memory": "2Gi"}})
    );
    assert_eq!(
        stored["metadata"]["annotations"]["kubernetes.io/limit-ranger"],
        "LimitRanger plugin set: cpu request for container c; cpu limit for container c"
    );
    let refused = |limits: Value, requests: Value, most: Value| {
        let message = Case::create(&range(limits), sized(requests, most)).refusal();
        message.strip_prefix("pods \"web\" is forbidden: ").unwrap_or(&message).to_owned()
    };
    for (limit, requests, limits, expected) in [
        (
            json!({"type": "Container", "min": {"cpu": "100m"}}),
            json!({"cpu": "50m"}),
            json!({}),
            "minimum cpu usage per Container is 100m, but request is 50m",
        ),
        (
            json!({"type": "Container", "min": {"cpu": "100m"}}),
            json!({}),
            json!({}),
            "minimum cpu usage per Container is 100m.  No request is specified",
        ),
        (
            json!({"type": "Container", "max": {"cpu": "1"}}),
            json!({}),
            json!({}),
            "maximum cpu usage per Container is 1.  No limit is specified",
        ),
        (
            json!({"type": "Container", "max": {"cpu": "1", "memory": "1Gi"}}),
            json!({}),
            json!({"cpu": "2", "memory": "2Gi"}),
            "[maximum cpu usage per Container is 1, but limit is 2, maximum memory usage per Container is 1Gi, but limit is 2Gi]",
        ),
        (
            json!({"type": "Pod", "max": {"memory": "1Gi"}}),
            json!({}),
            json!({"memory": "2Gi"}),
            "maximum memory usage per Pod is 1Gi, but limit is 2Gi",
        ),
        (
            json!({"type": "Container", "maxLimitRequestRatio": {"cpu": "2"}}),
            json!({"cpu": "1"}),
            json!({"cpu": "4"}),
            "cpu max limit to request ratio per Container is 2, but provided ratio is 4.000000",
        ),
        (json!({"type": "Container", "max": {"cpu": "1"}}), json!({"cpu": "1"}), json!({"cpu": "1"}), ""),
    ] {
        assert_eq!(refused(json!([limit]), requests, limits), expected);
    }
    let two = pod(
        json!({"overhead": {"memory": "1Gi"}, "containers": [{"name": "c", "resources": {"limits": {"memory": "1Gi"}}}, {"name": "d"}, {"name": "e"}]}),
    );
    assert_eq!(
        Case::create(&range(json!([{"type": "Container", "max": {"cpu": "1"}}])), two.clone()).refusal(),
        "pods \"web\" is forbidden: maximum cpu usage per Container is 1.  No limit is specified",
        "the same text once"
    );
    let most = range(json!([{"type": "Pod", "max": {"memory": "1Gi"}}]));
    let resize = Case { subresource: "resize", ..Case::update(&most, two.clone(), two) };
    assert_eq!(resize.refusal(), "", "the overhead is not the pod's");
    let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"namespace": "a", "name": "data"},
        "spec": {"resources": {"requests": {"storage": "3Gi"}}}});
    assert_eq!(
        Case::create(&range(json!([{"type": "PersistentVolumeClaim", "max": {"storage": "2Gi"}}])), claim)
            .refusal(),
        "persistentvolumeclaims \"data\" is forbidden: maximum storage usage per PersistentVolumeClaim is 2Gi, but request is 3Gi"
    );
    let mut both = defaults;
    both.push(json!({"apiVersion": "v1", "kind": "LimitRange", "metadata": {"namespace": "a", "name": "m"},
        "spec": {"limits": [{"type": "Container", "defaultRequest": {"ephemeral-storage": "1Gi"}}]}}));
    assert_eq!(
        Case::create(&both, sized(json!({}), json!({}))).stored()["metadata"]["annotations"]["kubernetes.io/limit-ranger"],
        "LimitRanger plugin set: ephemeral-storage request for container c",
        "the last range that set something"
    );
}

#[test]
fn resizes_fit_the_node() {
    let mut node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n", "labels": {"kubernetes.io/os": "linux"}},
        "status": {"allocatable": {"cpu": "4", "memory": "1Gi"}}});
    let asking = |cpu: &str, memory: &str| {
        let mut pod = sized(json!({"cpu": cpu, "memory": memory}), json!({}));
        pod["spec"]["nodeName"] = "n".into();
        pod
    };
    let refused = |node: &Value, new: Value| {
        let world = world(std::slice::from_ref(node));
        let case = Case { subresource: "resize", ..Case::update(&world, asking("9", "9Gi"), new) };
        let message = case.refusal();
        message.split_once(" is forbidden: ").map_or(message.clone(), |(_, why)| why.to_owned())
    };
    for (cpu, memory, expected) in [
        ("4", "1Gi", ""),
        ("9", "9Gi", ""),
        (
            "4001m",
            "1Gi",
            "Node didn't have enough allocatable resources: cpu, requested: 4001, allocatable: 4000",
        ),
        (
            "5",
            "2Gi",
            "Node didn't have enough allocatable resources: cpu, requested: 5000, allocatable: 4000; memory, requested: 2147483648, allocatable: 1073741824",
        ),
    ] {
        assert_eq!(refused(&node, asking(cpu, memory)), expected, "{cpu} {memory}");
    }
    node["metadata"]["labels"]["kubernetes.io/os"] = "windows".into();
    assert_eq!(
        refused(&node, asking("1", "1Gi")),
        "pod resize is only supported on linux nodes, node \"n\" is \"windows\""
    );
}

#[test]
fn pods_have_the_priority_of_their_class() {
    let class = |name: &str, value: i64, rest: Value| {
        let mut class = json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name}, "value": value});
        class.as_object_mut().expect("a map").extend(rest.as_object().expect("a map").clone());
        class
    };
    let plain = world(&[class("high", 1000, json!({"preemptionPolicy": "Never"}))]);
    let with_default = world(&[class("usual", 5, json!({"globalDefault": true}))]);
    for (world, spec, expected) in [
        (&plain, json!({}), json!([null, 0, "PreemptLowerPriority"])),
        (&plain, json!({"priorityClassName": "high"}), json!(["high", 1000, "Never"])),
        (&with_default, json!({}), json!(["usual", 5, "PreemptLowerPriority"])),
    ] {
        let spec = Case::create(world, pod(spec)).stored()["spec"].clone();
        assert_eq!(json!([spec["priorityClassName"], spec["priority"], spec["preemptionPolicy"]]), expected);
    }
    for (spec, expected) in [
        (json!({"priorityClassName": "none"}), "no PriorityClass with name none was found"),
        (
            json!({"priority": 5}),
            "the integer value of priority (5) must not be provided in pod spec; priority admission controller computed 0 from the given PriorityClass name",
        ),
        (
            json!({"preemptionPolicy": "Never"}),
            "the string value of PreemptionPolicy (Never) must not be provided in pod spec; priority admission controller computed PreemptLowerPriority from the given PriorityClass name",
        ),
    ] {
        assert_eq!(
            Case::create(&plain, pod(spec)).refusal(),
            format!("pods \"web\" is forbidden: {expected}")
        );
    }
    assert_eq!(
        Case::create(&with_default, class("other", 1, json!({"globalDefault": true}))).refusal(),
        "priorityclasses.scheduling.k8s.io \"other\" is forbidden: PriorityClass usual is already marked as default. Only one default can exist"
    );
    assert_eq!(Case::create(&with_default, class("usual", 1, json!({"globalDefault": true}))).refusal(), "");
}

#[test]
fn pods_tolerate_lost_nodes_for_a_while() {
    let world = world(&[]);
    let tolerations = |given: Value| {
        Case::create(&world, pod(json!({"tolerations": given}))).stored()["spec"]["tolerations"].clone()
    };
    let usual = |key: &str| json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300});
    let (ready, reach) = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable");
    assert_eq!(tolerations(json!([])), json!([usual(ready), usual(reach)]));
    let own = json!({"key": ready, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5});
    assert_eq!(tolerations(json!([own])), json!([own, usual(reach)]));
    assert_eq!(tolerations(json!([{"operator": "Exists"}])), json!([{"operator": "Exists"}]));
}

#[test]
fn nodes_start_unready_and_storage_starts_protected() {
    let world = world(&[]);
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}, "spec": {}});
    let stored = Case::create(&world, node).stored();
    assert_eq!(
        stored["spec"]["taints"],
        json!([{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}])
    );
    assert_eq!(Case::create(&world, stored.clone()).stored(), stored);
    let volume = json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "v"}});
    let stored = Case::create(&world, volume).stored();
    assert_eq!(stored["metadata"]["finalizers"], json!(["kubernetes.io/pv-protection"]));
}

#[test]
fn what_names_no_class_gets_the_default_one() {
    let storage = |name: &str, made: &str| {
        json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": name,
        "creationTimestamp": made, "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}})
    };
    let ingress = json!({"apiVersion": "networking.k8s.io/v1", "kind": "IngressClass", "metadata": {"name": "nginx",
        "annotations": {"ingressclass.kubernetes.io/is-default-class": "true"}}});
    let world =
        world(&[storage("old", "2026-01-01T00:00:00Z"), storage("new", "2026-02-01T00:00:00Z"), ingress]);
    let claim = |spec: Value| json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"namespace": "a", "name": "c"}, "spec": spec});
    for (spec, expected) in [
        (json!({}), "new"),
        (json!({"storageClassName": ""}), ""),
        (json!({"storageClassName": "old"}), "old"),
    ] {
        assert_eq!(Case::create(&world, claim(spec)).stored()["spec"]["storageClassName"], expected);
    }
    let ingress = json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"namespace": "a", "name": "i"}, "spec": {}});
    assert_eq!(Case::create(&world, ingress).stored()["spec"]["ingressClassName"], "nginx");
}

#[test]
fn claims_grow_where_their_class_lets_them() {
    let class = |name: &str, expands: bool| json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": name}, "allowVolumeExpansion": expands});
    let world = world(&[class("grows", true), class("fixed", false)]);
    let claim = |class: &str, size: &str, phase: &str| {
        json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"namespace": "a", "name": "c"},
        "spec": {"storageClassName": class, "resources": {"requests": {"storage": size}}}, "status": {"phase": phase}})
    };
    for (class, from, to, phase, expected) in [
        ("grows", "1Gi", "2Gi", "Bound", ""),
        (
            "fixed",
            "1Gi",
            "2Gi",
            "Bound",
            "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize",
        ),
        ("grows", "1Gi", "2Gi", "Pending", "Only bound persistent volume claims can be expanded"),
        ("fixed", "1Gi", "1024Mi", "Pending", ""),
    ] {
        let message = Case::update(&world, claim(class, from, phase), claim(class, to, phase)).refusal();
        let message = message.strip_prefix("persistentvolumeclaims \"c\" is forbidden: ").unwrap_or(&message);
        assert_eq!(message, expected);
    }
}

#[test]
fn runtime_classes_bring_overhead_and_place() {
    let class = json!({"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "vm"}, "handler": "vm",
        "overhead": {"podFixed": {"cpu": "250m"}},
        "scheduling": {"nodeSelector": {"vm": "yes"}, "tolerations": [{"key": "vm", "operator": "Exists"}]}});
    let world = world(&[class]);
    let stored =
        Case::create(&world, pod(json!({"runtimeClassName": "vm", "nodeSelector": {"a": "b"}}))).stored();
    assert_eq!(stored["spec"]["overhead"], json!({"cpu": "250m"}));
    assert_eq!(stored["spec"]["nodeSelector"], json!({"a": "b", "vm": "yes"}));
    assert!(
        stored["spec"]["tolerations"]
            .as_array()
            .is_some_and(|held| held.contains(&json!({"key": "vm", "operator": "Exists"})))
    );
    for (spec, expected) in [
        (json!({"runtimeClassName": "none"}), "pod rejected: RuntimeClass \"none\" not found"),
        (
            json!({"runtimeClassName": "vm", "overhead": {"cpu": "1"}}),
            "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead",
        ),
        (
            json!({"overhead": {"cpu": "1"}}),
            "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead",
        ),
        (
            json!({"runtimeClassName": "vm", "nodeSelector": {"vm": "no"}}),
            "conflict: runtimeClass.scheduling.nodeSelector[vm] = yes; pod.spec.nodeSelector[vm] = no",
        ),
    ] {
        assert_eq!(
            Case::create(&world, pod(spec)).refusal(),
            format!("pods \"web\" is forbidden: {expected}")
        );
    }
}

#[test]
fn signers_are_guarded() {
    let request = |status: Value| {
        json!({"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
        "metadata": {"name": "r"}, "spec": {"signerName": "example.com/one"}, "status": status})
    };
    let world = world(&[]);
    for (subresource, may, expected) in [
        (
            "approval",
            "",
            "certificatesigningrequests.certificates.k8s.io \"r\" is forbidden: user not permitted to approve requests with signerName \"example.com/one\"",
        ),
        ("approval", "approve signers example.com/one", ""),
        ("approval", "approve signers example.com/*", ""),
        (
            "approval",
            "sign signers example.com/one",
            "certificatesigningrequests.certificates.k8s.io \"r\" is forbidden: user not permitted to approve requests with signerName \"example.com/one\"",
        ),
        (
            "status",
            "approve signers example.com/one",
            "certificatesigningrequests.certificates.k8s.io \"r\" is forbidden: user not permitted to sign requests with signerName \"example.com/one\"",
        ),
        ("status", "sign signers example.com/one", ""),
    ] {
        let case = Case {
            subresource,
            may,
            ..Case::update(&world, request(json!({})), request(json!({"certificate": "Zm9v"})))
        };
        assert_eq!(case.refusal(), expected, "{subresource} {may}");
    }
}

#[test]
fn nobody_asks_for_a_masters_certificate() {
    use base64::Engine;
    let world = world(&[]);
    let asked = |group: &str, signer: &str| {
        let mut params = rcgen::CertificateParams::new(Vec::new()).expect("params");
        params.distinguished_name.push(rcgen::DnType::OrganizationName, group);
        let key = rcgen::KeyPair::generate().expect("a key");
        let pem = params.serialize_request(&key).expect("a request").pem().expect("PEM");
        let spec =
            json!({"signerName": signer, "request": base64::engine::general_purpose::STANDARD.encode(pem)});
        let object = json!({"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": {"name": "r"}, "spec": spec});
        Case::create(&world, object).refusal()
    };
    assert_eq!(
        asked("system:masters", "kubernetes.io/kube-apiserver-client"),
        "certificatesigningrequests.certificates.k8s.io \"r\" is forbidden: use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed"
    );
    assert_eq!(asked("devs", "kubernetes.io/kube-apiserver-client"), "");
    assert_eq!(asked("system:masters", "example.com/own"), "");
}

#[test]
fn a_binding_carries_the_labels_of_its_node() {
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1", "labels": {
        "topology.kubernetes.io/zone": "a", "topology.kubernetes.io/region": "r", "other": "x"}}});
    let world = world(&[node]);
    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"namespace": "a", "name": "web"}, "target": {"kind": "Node", "name": "n1"}});
    let stored = Case { subresource: "binding", ..Case::create(&world, binding) }.stored();
    assert_eq!(
        stored["metadata"]["labels"],
        json!({"topology.kubernetes.io/zone": "a", "topology.kubernetes.io/region": "r"})
    );
    let mut placed = pod(json!({"nodeName": "n1"}));
    placed["metadata"]["labels"] = json!({"topology.kubernetes.io/zone": "elsewhere"});
    assert_eq!(
        Case::create(&world, placed).stored()["metadata"]["labels"],
        json!({"topology.kubernetes.io/zone": "a", "topology.kubernetes.io/region": "r"})
    );
}

#[test]
fn a_kubelet_keeps_to_its_node() {
    let on = |node: &str| pod(json!({"nodeName": node}));
    let mirror = |mut pod: Value| {
        pod["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "x"});
        let owner =
            json!({"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "uid-n1", "controller": true});
        pod["metadata"]["ownerReferences"] = json!([owner]);
        pod
    };
    let with = |field: &str, value: Value| {
        let mut pod = mirror(on("n1"));
        pod["spec"][field] = value;
        pod
    };
    let volume = |source: Value| {
        let mut volume = json!({"name": "v"});
        volume.as_object_mut().expect("an object").extend(source.as_object().expect("an object").clone());
        with("volumes", json!([volume]))
    };
    let unowned = {
        let mut pod = mirror(on("n1"));
        pod["metadata"]["ownerReferences"] = json!([]);
        pod
    };
    let claims = |names: &[&str]| {
        let mut pod = on("n1");
        let statuses: Vec<Value> =
            names.iter().map(|name| json!({"name": "c", "resourceClaimName": name})).collect();
        pod["status"]["resourceClaimStatuses"] = statuses.into();
        pod
    };
    let claim = |status: Value| {
        json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"namespace": "a", "name": "c"},
        "spec": {"volumeName": "v"}, "status": status})
    };
    let node = |name: &str, labels: Value, taints: Value| json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}, "spec": {"taints": taints}});
    let token = |name: &str, uid: &str| json!({"kind": "TokenRequest", "apiVersion": "v1", "spec": {"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid}}});
    let mut far = on("n2");
    far["metadata"]["name"] = "far".into();
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"namespace": "a", "name": "default"}});
    let mut near = on("n1");
    near["spec"]["volumes"] = json!([
        {"name": "token", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}},
        {"name": "vault", "projected": {"sources": [{"serviceAccountToken": {"path": "token", "audience": "vault"}}]}},
        {"name": "csi", "csi": {"driver": "csi.example.com"}},
    ]);
    let driver = json!({"apiVersion": "storage.k8s.io/v1", "kind": "CSIDriver", "metadata": {"name": "csi.example.com"},
        "spec": {"tokenRequests": [{"audience": "driver"}]}});
    let own = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}});
    let world = world(&[near, far, account.clone(), driver, own]);
    let plain = |name: &str| node(name, json!({}), json!([]));
    let base = |object: Value| Case { user: "system:node:n1|system:nodes", ..Case::create(&world, object) };
    let update = |old: Value, new: Value, subresource: &'static str| Case {
        operation: Operation::Update,
        subresource,
        old: Some(old),
        ..base(new)
    };
    let delete = |old: Value| Case { operation: Operation::Delete, ..update(old.clone(), old, "") };
    let mut labelled = on("n1");
    labelled["metadata"]["labels"] = json!({"a": "b"});
    for (case, expected) in [
        (base(mirror(on("n1"))), ""),
        (
            base(on("n1")),
            "pod does not have \"kubernetes.io/config.mirror\" annotation, node \"n1\" can only create mirror pods",
        ),
        (base(mirror(on("n2"))), "node \"n1\" can only create pods with spec.nodeName set to itself"),
        (base(unowned), "node \"n1\" can only create pods with an owner reference set to itself"),
        (base(volume(json!({"hostPath": {"path": "/etc"}}))), ""),
        (base(volume(json!({"projected": {"sources": [{"downwardAPI": {}}]}}))), ""),
        (
            base(with("serviceAccountName", json!("default"))),
            "a mirror pod may not reference service accounts",
        ),
        (base(with("imagePullSecrets", json!([{"name": "s"}]))), "a mirror pod may not reference secrets"),
        (
            base(volume(json!({"csi": {"driver": "d", "nodePublishSecretRef": {"name": "s"}}}))),
            "a mirror pod may not reference secrets",
        ),
        (
            base(volume(json!({"iscsi": {"secretRef": {"name": "s"}}}))),
            "a mirror pod may not reference secrets",
        ),
        (
            base(volume(json!({"csi": {"driver": "d"}}))),
            "node \"n1\" can not create pods that reference csidrivers (via CSI volumes)",
        ),
        (
            base(volume(json!({"persistentVolumeClaim": {"claimName": "c"}}))),
            "node \"n1\" can not create pods that reference persistentvolumeclaims",
        ),
        (
            base(volume(json!({"ephemeral": {"volumeClaimTemplate": {"spec": {}}}}))),
            "node \"n1\" can not create pods that reference persistentvolumeclaims (via ephemeral volumes)",
        ),
        (
            base(volume(json!({"projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}))),
            "a mirror pod may not use ServiceAccountToken volume projections",
        ),
        (
            base(with("resourceClaims", json!([{"name": "c", "resourceClaimName": "c"}]))),
            "node \"n1\" can not create pods that reference resourceclaims",
        ),
        (update(claims(&["a"]), claims(&["a"]), "status"), ""),
        (update(claims(&[]), claims(&["a"]), "status"), "node \"n1\" cannot update resource claim statues"),
        (
            update(
                claim(json!({"phase": "Bound"})),
                claim(json!({"phase": "Bound", "capacity": {"storage": "2Gi"}})),
                "status",
            ),
            "",
        ),
        (
            update(claim(json!({"phase": "Bound"})), claim(json!({"phase": "Lost"})), "status"),
            "node \"n1\" is not allowed to update fields other than status.quantity and status.conditions",
        ),
        (delete(on("n1")), ""),
        (delete(on("n2")), "node \"n1\" can only delete pods with spec.nodeName set to itself"),
        (update(on("n1"), on("n1"), "status"), ""),
        (
            update(on("n2"), on("n2"), "status"),
            "node \"n1\" can only update pod status for pods with spec.nodeName set to itself",
        ),
        (update(on("n1"), labelled, "status"), "node \"n1\" cannot update labels through pod status"),
        (
            update(on("n1"), on("n1"), "resize"),
            "unexpected pod subresource \"resize\", only 'status' and 'eviction' are allowed",
        ),
        (base(plain("n1")), ""),
        (base(plain("n2")), "node \"n1\" is not allowed to modify node \"n2\""),
        (
            base(node("n1", json!({"node-restriction.kubernetes.io/x": "y"}), json!([]))),
            "node \"n1\" is not allowed to set the following labels: node-restriction.kubernetes.io/x",
        ),
        (
            base(node(
                "n1",
                json!({"kubernetes.io/hostname": "n1", "node.kubernetes.io/x": "y", "example.com/x": "y"}),
                json!([]),
            )),
            "",
        ),
        (
            update(plain("n1"), node("n1", json!({"k8s.io/x": "y"}), json!([])), ""),
            "is not allowed to modify labels: k8s.io/x",
        ),
        (
            update(
                plain("n1"),
                json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}, "spec": {"configSource": {"configMap": {"name": "c"}}}}),
                "",
            ),
            "node \"n1\" is not allowed to update configSource to a new non-nil configSource",
        ),
        (update(claim(json!({})), claim(json!({})), ""), "may only update PVC status"),
        (
            Case { user: "system:node:|system:nodes", ..base(plain("n1")) },
            "could not determine node from user \"system:node:\"",
        ),
        (
            update(plain("n1"), node("n1", json!({}), json!([{"key": "a"}])), ""),
            "node \"n1\" is not allowed to modify taints",
        ),
    ] {
        let message = case.refusal();
        let message = message.split_once(" is forbidden: ").map_or(message.as_str(), |(_, why)| why);
        assert_eq!(message, expected, "{}", case.object);
    }
    for (name, uid, audiences, expected) in [
        ("web", "uid-web", json!([]), ""),
        ("web", "uid-web", json!(["vault"]), ""),
        ("web", "uid-web", json!(["driver"]), ""),
        (
            "web",
            "uid-web",
            json!(["other"]),
            "audience \"other\" not found in pod spec volume, system:node:n1 is not authorized to request tokens for this audience",
        ),
        ("none", "uid-none", json!([]), "pods \"none\" not found"),
        ("web", "uid-web", json!(["vault", "driver"]), "node may only request 0 or 1 audiences"),
        ("web", "", json!([]), "node requested token with a pod binding without a uid"),
        ("", "", json!([]), "node requested token not bound to a pod"),
        ("far", "uid-far", json!([]), "node requested token bound to a pod scheduled on a different node"),
    ] {
        let mut object = token(name, uid);
        object["metadata"] = account["metadata"].clone();
        object["spec"]["audiences"] = audiences;
        let case = Case { subresource: "token", old: Some(account.clone()), ..base(object) };
        let message = case.refusal();
        let message = message.split_once(" is forbidden: ").map_or(message.as_str(), |(_, why)| why);
        assert_eq!(message, expected);
    }
}

#[test]
fn a_service_account_may_limit_the_secrets_of_its_pods() {
    let account = |annotations: Value| {
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"namespace": "a", "name": "default", "annotations": annotations},
            "secrets": [{"name": "own"}], "imagePullSecrets": [{"name": "pull"}]})
    };
    let limited = [namespace("a"), account(json!({"kubernetes.io/enforce-mountable-secrets": "true"}))];
    let free = [namespace("a"), account(json!({}))];
    let from = |secret: &str| json!({"name": "c", "image": "i", "env": [{"name": "e", "valueFrom": {"secretKeyRef": {"name": secret, "key": "k"}}}]});
    let that = "is not allowed because service account default does not reference that";
    for (spec, expected) in [
        (json!({"volumes": [{"name": "v", "secret": {"secretName": "own"}}]}), String::new()),
        (
            json!({"volumes": [{"name": "v", "secret": {"secretName": "s"}}]}),
            format!("volume with secret.secretName=\"s\" {that} secret"),
        ),
        (
            json!({"containers": [from("s")]}),
            format!("container c with envVar e referencing secret.secretName=\"s\" {that} secret"),
        ),
        (json!({"containers": [from("own")]}), String::new()),
        (
            json!({"initContainers": [{"name": "i", "image": "i", "envFrom": [{"secretRef": {"name": "s"}}]}]}),
            format!("init container i with envFrom referencing secret.secretName=\"s\" {that} secret"),
        ),
        (
            json!({"imagePullSecrets": [{"name": "pull"}, {"name": "s"}]}),
            format!("imagePullSecrets[1].name=\"s\" {that} imagePullSecret"),
        ),
    ] {
        let refusal = Case::create(&limited, pod(spec.clone())).refusal();
        let why = refusal.split_once(" is forbidden: ").map_or("", |(_, why)| why);
        assert_eq!(why, expected, "{spec}");
        assert_eq!(Case::create(&free, pod(spec)).refusal(), "");
    }
    let old = pod(json!({"serviceAccountName": "default"}));
    let joined = pod(json!({"serviceAccountName": "default", "ephemeralContainers": [from("s")]}));
    let case = Case { subresource: "ephemeralcontainers", ..Case::update(&limited, old, joined) };
    let why =
        format!("ephemeral container c with envVar e referencing secret.secretName=\"s\" {that} secret");
    assert!(case.refusal().ends_with(&why), "{}", case.refusal());
}

#[test]
fn the_plugins_are_upstreams() {
    let names: std::collections::BTreeSet<&str> = steps().flatten().map(|plugin| plugin.name).collect();
    assert_eq!(names.len(), steps().flatten().count(), "each once");
    assert!(steps().flatten().all(|plugin| plugin.mutate.is_some() || plugin.validate.is_some()));
    let last = admission::CHAIN.last().expect("a step");
    assert!(matches!(last, Step::Charge("ResourceQuota", _)), "charged when all else is allowed");
}
