//! The Node authorizer, requests for certificates, and access reviews.

mod world;

use access::rbac::Index;
use access::{View, authorize, bootstrap, csr, review};
use base64::Engine;
use object::{FieldSelector, Snapshot};
use plan::Attributes;
use rcgen::{CertificateParams, DnType, KeyPair, SanType};
use serde_json::{Value, json};
use world::{NOW, attributes, snapshot, user};

fn cluster() -> Snapshot {
    let mut objects = bootstrap::rbac_objects();
    objects.extend([
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}, "status": {"addresses": [
            {"type": "InternalIP", "address": "172.31.0.5"}, {"type": "Hostname", "address": "ip-172-31-0-5"}]}}),
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "a", "name": "web"}, "spec": {
            "nodeName": "n1", "serviceAccountName": "build",
            "imagePullSecrets": [{"name": "pull"}],
            "volumes": [
                {"name": "v", "persistentVolumeClaim": {"claimName": "data"}},
                {"name": "g", "persistentVolumeClaim": {"claimName": "greedy"}},
                {"name": "s", "secret": {"secretName": "mounted"}},
                {"name": "scratch", "ephemeral": {"volumeClaimTemplate": {}}},
                {"name": "p", "projected": {"sources": [{"configMap": {"name": "kube-root-ca.crt"}}]}}],
            "containers": [{"name": "c", "env": [
                {"name": "A", "valueFrom": {"secretKeyRef": {"name": "in-env", "key": "k"}}}],
                "envFrom": [{"configMapRef": {"name": "all"}}]}]}}),
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "a", "name": "far"}, "spec": {
            "nodeName": "n2", "volumes": [{"name": "s", "secret": {"secretName": "far"}}]}}),
        json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"namespace": "a", "name": "data"},
            "spec": {"volumeName": "pv1"}}),
        json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "pv1"}, "spec": {
            "claimRef": {"namespace": "a", "name": "data"},
            "csi": {"nodeStageSecretRef": {"namespace": "a", "name": "stage"}}}}),
        json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "pv2"}, "spec": {}}),
        // A claim that names somebody else's volume does not make it its own.
        json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"namespace": "a", "name": "greedy"},
            "spec": {"volumeName": "pv3"}}),
        json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "pv3"}, "spec": {
            "claimRef": {"namespace": "b", "name": "theirs"},
            "csi": {"nodeStageSecretRef": {"namespace": "a", "name": "theirs"}}}}),
        // What a kubelet says of its own files gives it nothing.
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "a", "name": "db", "annotations": {
            "kubernetes.io/config.mirror": "x"}}, "spec": {"nodeName": "n1", "serviceAccountName": "mirrored", "volumes": [
                {"name": "data", "ephemeral": {"volumeClaimTemplate": {}}},
                {"name": "s", "csi": {"nodePublishSecretRef": {"name": "mirrored"}}}]}}),
        json!({"apiVersion": "storage.k8s.io/v1", "kind": "VolumeAttachment", "metadata": {"name": "va1"}, "spec": {"nodeName": "n1"}}),
    ]);
    snapshot(&objects)
}

#[test]
fn a_node_reaches_what_its_pods_need() {
    let snapshot = cluster();
    let index = Index::of(&snapshot);
    let view = View::new(&snapshot, &index);
    let unrelated = "no relationship found between node 'n1' and this object";
    for (what, expected) in [
        ("get secrets a/mounted", "yes"),
        ("get secrets a/in-env", "yes"),
        ("get secrets a/pull", "yes"),
        ("watch secrets a/mounted", "yes"),
        ("get secrets a/stage", "yes"),
        ("get secrets a/far", unrelated),
        ("get secrets b/mounted", unrelated),
        ("get secrets a/theirs", unrelated),
        ("get secrets a/mirrored", unrelated),
        ("create serviceaccounts/token a/mirrored", unrelated),
        ("get persistentvolumeclaims a/db-data", unrelated),
        ("get persistentvolumes /pv3", unrelated),
        ("get pods a/db", "yes"),
        ("list secrets a/", "No Object name found"),
        ("list secrets /", "can only read namespaced object of this type"),
        ("delete secrets a/mounted", "can only read resources of this type"),
        ("get configmaps a/all", "yes"),
        ("get configmaps a/kube-root-ca.crt", "yes"),
        ("get configmaps a/other", unrelated),
        ("get persistentvolumeclaims a/data", "yes"),
        ("get persistentvolumeclaims a/web-scratch", "yes"),
        ("list persistentvolumeclaims a/", "can only get individual resources of this type"),
        ("get persistentvolumes /pv1", "yes"),
        ("get persistentvolumes /pv2", unrelated),
        ("get volumeattachments.storage.k8s.io /va1", "yes"),
        ("create serviceaccounts/token a/build", "yes"),
        ("create serviceaccounts/token a/default", unrelated),
        ("get pods a/web", "yes"),
        ("get pods a/far", unrelated),
        ("watch pods a/web", "yes"),
        ("watch pods a/far", unrelated),
        ("list pods /", "can only list/watch pods with spec.nodeName field selector"),
        ("patch pods/status a/web", "yes"),
        ("get nodes /n1", "yes"),
        ("get nodes /n2", "node 'n1' cannot read 'n2', only its own Node object"),
        ("list nodes /", "node 'n1' cannot read all nodes, only its own Node object"),
        ("patch nodes/status /n1", "yes"),
        ("update leases.coordination.k8s.io kube-node-lease/n1", "yes"),
        (
            "update leases.coordination.k8s.io kube-node-lease/n2",
            "can only access node lease with the same name as the requesting node",
        ),
        (
            "update leases.coordination.k8s.io a/n1",
            "can only access leases in the \"kube-node-lease\" system namespace",
        ),
        (
            "get csinodes.storage.k8s.io /n2",
            "can only access CSINode with the same name as the requesting node",
        ),
        ("list services /", "yes"),
        ("create services a/", ""),
    ] {
        let decision = authorize(&view, &user("system:node:n1|system:nodes"), &attributes(what));
        let answer = if decision.allowed { "yes" } else { &decision.reason };
        assert_eq!(answer, expected, "{what}");
    }
}

#[test]
fn a_node_lists_only_itself_and_its_pods() {
    let snapshot = cluster();
    let index = Index::of(&snapshot);
    let view = View::new(&snapshot, &index);
    for (what, fields, expected) in [
        ("watch pods /", "spec.nodeName=n1", true),
        ("watch pods /", "spec.nodeName=n2", false),
        ("watch pods /", "spec.nodeName!=n1", false),
        ("watch nodes /", "metadata.name=n1", true),
        ("list nodes /", "metadata.name=n2", false),
    ] {
        let fields = FieldSelector::parse(fields).expect("a selector");
        let asked = Attributes { fields: Some(&fields), ..attributes(what) };
        let decision = authorize(&view, &user("system:node:n1|system:nodes"), &asked);
        assert_eq!(decision.allowed, expected, "{what} {fields:?}");
    }
}

fn signing_request(
    name: &str,
    group: &str,
    names: &[SanType],
    signer: &str,
    usage: &str,
    from: &str,
) -> Value {
    let mut params = CertificateParams::new(Vec::new()).expect("params");
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, group);
    params.distinguished_name.push(DnType::CommonName, name);
    params.subject_alt_names = names.to_vec();
    let pem = params
        .serialize_request(&KeyPair::generate().expect("a key"))
        .expect("a request")
        .pem()
        .expect("PEM");
    let (from, groups) = from.split_once('|').unwrap_or((from, ""));
    json!({"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": {"name": "r"},
        "spec": {"request": base64::engine::general_purpose::STANDARD.encode(pem), "signerName": signer,
            "usages": ["digital signature", usage], "username": from, "groups": groups.split(',').collect::<Vec<_>>()}})
}

#[test]
fn kubelets_get_their_certificates() {
    let mut objects = bootstrap::rbac_objects();
    for (name, role, group) in
        [("bootstrap", "nodeclient", "system:bootstrappers"), ("rotation", "selfnodeclient", "system:nodes")]
    {
        objects.push(json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
            "metadata": {"name": name}, "subjects": [{"kind": "Group", "name": group}],
            "roleRef": {"kind": "ClusterRole", "name": format!("system:certificates.k8s.io:certificatesigningrequests:{role}")}}));
    }
    objects.push(
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}, "status": {"addresses": [
        {"type": "InternalIP", "address": "172.31.0.5"}]}}),
    );
    let snapshot = snapshot(&objects);
    let index = Index::of(&snapshot);
    let view = View::new(&snapshot, &index);
    let (client, serving) = ("kubernetes.io/kube-apiserver-client-kubelet", "kubernetes.io/kubelet-serving");
    let (own, joins) = ("system:node:n1|system:nodes", "system:bootstrap:abcdef|system:bootstrappers");
    // The token of a machine.
    let bound = "system:bootstrap:abcdef|system:bootstrappers,system:bootstrappers:ekso:node:n1:ec2:internal";
    let dns = |name: &str| SanType::DnsName(name.try_into().expect("a name"));
    let ip = |text: &str| SanType::IpAddress(text.parse().expect("an address"));
    for (name, group, names, signer, usage, from, expected) in [
        ("system:node:n1", "system:nodes", vec![], client, "client auth", joins, true),
        ("system:node:n1", "system:nodes", vec![], client, "client auth", own, true),
        ("system:node:n1.ec2.internal", "system:nodes", vec![], client, "client auth", bound, true),
        ("system:node:n1", "system:nodes", vec![], client, "client auth", bound, false),
        ("system:node:n2", "system:nodes", vec![], client, "client auth", own, false),
        ("system:node:n1", "system:masters", vec![], client, "client auth", joins, false),
        ("admin", "system:nodes", vec![], client, "client auth", joins, false),
        ("system:node:n1", "system:nodes", vec![dns("x")], client, "client auth", joins, false),
        ("system:node:n1", "system:nodes", vec![], client, "server auth", joins, false),
        ("system:node:n1", "system:nodes", vec![], client, "client auth", "alice|devs", false),
        (
            "system:node:n1",
            "system:nodes",
            vec![dns("n1"), ip("172.31.0.5")],
            serving,
            "server auth",
            own,
            true,
        ),
        ("system:node:n1", "system:nodes", vec![ip("172.31.0.6")], serving, "server auth", own, false),
        ("system:node:n1", "system:nodes", vec![dns("example.com")], serving, "server auth", own, false),
        ("system:node:n1", "system:nodes", vec![], serving, "server auth", own, false),
        ("system:node:n1", "system:nodes", vec![dns("n1")], serving, "server auth", joins, false),
    ] {
        let request = signing_request(name, group, &names, signer, usage, from);
        assert_eq!(
            csr::decide(&view, &request).is_some(),
            expected,
            "{name} {group} {names:?} {usage} {from}"
        );
    }
}

#[test]
fn signers_sign_what_they_are_for() {
    let (client, kubelet, serving) = (
        "kubernetes.io/kube-apiserver-client",
        "kubernetes.io/kube-apiserver-client-kubelet",
        "kubernetes.io/kubelet-serving",
    );
    let dns = |name: &str| SanType::DnsName(name.try_into().expect("a name"));
    let mail = || SanType::Rfc822Name("a@b.c".try_into().expect("a name"));
    let usages = "usages did not match [client auth digital signature key encipherment]";
    let node = "system:node:n1";
    for (name, group, names, signer, usage, expected) in [
        ("jane", "devs", vec![], client, "client auth", Some(Ok(csr::Purpose::Client))),
        ("jane", "devs", vec![dns("x")], client, "client auth", Some(Ok(csr::Purpose::Client))),
        ("jane", "devs", vec![], client, "server auth", Some(Err(usages))),
        ("jane", "devs", vec![], "example.com/own", "client auth", None),
        (node, "system:nodes", vec![], kubelet, "client auth", Some(Ok(csr::Purpose::Client))),
        (node, "system:nodes", vec![], kubelet, "cert sign", Some(Err(usages))),
        (node, "devs", vec![], kubelet, "client auth", Some(Err("subject organization is not system:nodes"))),
        (
            "jane",
            "system:nodes",
            vec![],
            kubelet,
            "client auth",
            Some(Err("subject common name does not begin with system:node:")),
        ),
        (
            node,
            "system:nodes",
            vec![dns("n1")],
            kubelet,
            "client auth",
            Some(Err("DNS subjectAltNames are not allowed")),
        ),
        (
            node,
            "system:nodes",
            vec![mail()],
            kubelet,
            "client auth",
            Some(Err("Email subjectAltNames are not allowed")),
        ),
        (node, "system:nodes", vec![dns("n1")], serving, "server auth", Some(Ok(csr::Purpose::Server))),
        (
            node,
            "system:nodes",
            vec![],
            serving,
            "server auth",
            Some(Err("DNS or IP subjectAltName is required")),
        ),
        (
            node,
            "devs",
            vec![dns("n1")],
            serving,
            "server auth",
            Some(Err("subject organization is not system:nodes")),
        ),
    ] {
        let made = signing_request(name, group, &names, signer, usage, "jane");
        let request = made["spec"]["request"].as_str().expect("a request");
        let asked = ["digital signature".to_owned(), usage.to_owned()];
        let found = csr::signable(signer, request, &asked);
        let found =
            found.as_ref().map(|found| found.as_ref().map(|found| found.purpose).map_err(String::as_str));
        assert_eq!(found, expected, "{name} {group} {names:?} {signer} {usage}");
    }
    let broken = csr::signable(client, "bm9uc2Vuc2U=", &["client auth".to_owned()]);
    assert_eq!(
        broken,
        Some(Err("unable to parse csr: PEM block type must be CERTIFICATE REQUEST".to_owned()))
    );
}

#[test]
fn reviews_are_answered() {
    let snapshot = cluster();
    let index = Index::of(&snapshot);
    let view = View::new(&snapshot, &index);
    let pods = json!({"namespace": "a", "verb": "list", "resource": "pods"});
    let asked = review::subject_access(
        &view,
        json!({"spec": {"user": "x", "groups": ["system:masters"], "resourceAttributes": pods}}),
    );
    assert_eq!(asked.map(|answer| answer["status"].clone()), Ok(json!({"allowed": true})));
    let asked =
        review::self_subject_access(&view, &user("alice"), json!({"spec": {"resourceAttributes": pods}}));
    assert_eq!(asked.map(|answer| answer["status"].clone()), Ok(json!({"allowed": false})));
    let path = json!({"spec": {"nonResourceAttributes": {"path": "/api", "verb": "get"}}});
    let asked =
        review::self_subject_access(&view, &user("alice|system:authenticated"), path).expect("answered");
    assert_eq!(
        asked["status"]["reason"],
        r#"RBAC: allowed by ClusterRoleBinding "system:discovery" of ClusterRole "system:discovery" to Group "system:authenticated""#
    );
    let elsewhere =
        review::local_subject_access(&view, "b", json!({"spec": {"user": "x", "resourceAttributes": pods}}));
    assert_eq!(
        elsewhere.expect_err("another namespace").message,
        "spec.resourceAttributes.namespace must match namespace: b"
    );
    let rules = review::self_subject_rules(
        &view,
        &user("x|system:authenticated"),
        json!({"spec": {"namespace": "a"}}),
    )
    .expect("answered");
    assert_eq!(rules["status"]["incomplete"], false);
    assert!(rules["status"]["nonResourceRules"].as_array().is_some_and(|rules| !rules.is_empty()));
    let me = review::self_subject(&user("alice|devs"), NOW, json!({}));
    assert_eq!(me["status"]["userInfo"], json!({"username": "alice", "groups": ["devs"]}));
}

/// What is signed is what was looked at: not a request that stands before it, where PEM has its comments.
#[test]
fn of_two_requests_the_one_that_was_checked_is_signed() {
    let of = |name: &str, group: &str| {
        let made =
            signing_request(name, group, &[], "kubernetes.io/kube-apiserver-client", "client auth", "x");
        let text = made["spec"]["request"].as_str().expect("a request").to_owned();
        let pem = base64::engine::general_purpose::STANDARD.decode(text).expect("base64");
        String::from_utf8(pem).expect("PEM")
    };
    let (mine, theirs) = (of("jane", "devs"), of("root", "system:masters"));
    let bare: String = theirs.lines().filter(|line| !line.starts_with("-----")).collect();
    for text in [format!("{bare}\n{mine}"), format!("{mine}{theirs}"), format!("{mine}{bare}\n")] {
        let request = base64::engine::general_purpose::STANDARD.encode(&text);
        let usages = ["client auth".to_owned()];
        let found = csr::signable("kubernetes.io/kube-apiserver-client", &request, &usages);
        let der = found.expect("the signer's").expect("signable").der;
        let holds = |word: &str| der.windows(word.len()).any(|window| window == word.as_bytes());
        assert!(holds("jane") && !holds("system:masters"), "{text}");
        assert_eq!(csr::subject(&request).expect("a subject").common_name, "jane");
    }
}

/// A name that only the reader of the certificate sees would be a way to become anybody.
#[test]
fn a_request_with_two_names_is_for_nobody() {
    let mut params = CertificateParams::new(Vec::new()).expect("params");
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "system:node:a");
    let request = |params: &CertificateParams| {
        let request = params.serialize_request(&KeyPair::generate().expect("a key")).expect("a request");
        base64::engine::general_purpose::STANDARD.encode(request.pem().expect("PEM"))
    };
    let one = access::csr::subject(&request(&params)).expect("a subject");
    assert_eq!(one.common_name, "system:node:a");
    // 2.5.4.3 is the common name once more.
    params.distinguished_name.push(DnType::CustomDnType(vec![2, 5, 4, 3]), "system:node:b");
    assert_eq!(access::csr::subject(&request(&params)), None);
}
