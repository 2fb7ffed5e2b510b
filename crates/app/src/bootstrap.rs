//! What every cluster has from its first start, and what lets nodes join it.

use std::net::Ipv4Addr;

use access::{bootstrap, groups};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::try_join_all;
use gate::Gate;
use kinds::{
    CLUSTER_ROLE_BINDINGS, CLUSTER_ROLES, NAMESPACES, ROLE_BINDINGS, ROLES, SECRETS, SERVICE_ACCOUNTS,
    SERVICES,
};
use object::{Object, Reason, Resource, Snapshot, Status, Time};
use plan::{Expect, User, Write};
use serde_json::{Value, json};
use tracing::info;

use crate::pki::{self, Pki};

/// How often another server may be faster with one of the objects. Each time something has come to be what it should.
const ATTEMPTS: u32 = 16;

/// The binding that clusters of older builds have besides: by it each node could read the others. One that somebody else made, or changed,
/// is theirs and stays.
const FORMER: &str = "ekso:node-proxier";

/// Writes what is missing of a cluster's own objects, and mends what was changed of the default roles. Servers that start at once on
/// one store do the same work; who comes second looks again.
pub async fn reconcile(gate: &Gate, pki: &Pki, dns: Ipv4Addr) -> Result<(), Status> {
    let mut attempts = 1;
    loop {
        match reconcile_once(gate, pki, dns).await {
            Err(status)
                if attempts < ATTEMPTS
                    && matches!(
                        status.reason,
                        Reason::AlreadyExists | Reason::Conflict | Reason::NotFound
                    ) =>
            {
                attempts += 1;
            }
            done => return done,
        }
    }
}

async fn reconcile_once(gate: &Gate, pki: &Pki, dns: Ipv4Addr) -> Result<(), Status> {
    // What another server has written is seen.
    let before = gate.store().read().await.map_err(Status::internal)?;
    let user = loopback();
    let mut writes = bootstrap::reconcile(&before, &pki.ca_pem, &pki.front_proxy.ca_pem);
    let own = own_objects(dns).into_iter().map(|(resource, object)| Write::Create { resource, object });
    writes.extend(own.filter(|write| is_of_new_object(&before, write)));
    if let Some(held) = before.find(CLUSTER_ROLE_BINDINGS, "", FORMER).filter(|held| is_former(held)) {
        info!(binding = FORMER, "what an older build let nodes do is taken away");
        writes.push(Write::Delete {
            key: held.key.clone(),
            expect: Expect::same(held),
            grace_seconds: None,
            propagation: None,
        });
    }
    let (new, mended): (Vec<_>, Vec<_>) =
        writes.into_iter().partition(|write| is_of_new_object(&before, write));
    let is_namespace =
        |write: &Write| matches!(write, Write::Create { resource, .. } if *resource == NAMESPACES);
    let (namespaces, rest): (Vec<_>, Vec<_>) = new.into_iter().partition(is_namespace);
    // New objects need nothing of each other but their namespaces. Written at once they share a few flushes of the disk; one by one
    // each would wait for its own, and a first start for all of them.
    for at_once in [namespaces, rest] {
        try_join_all(at_once.into_iter().map(|write| gate.execute(&user, write))).await?;
    }
    for write in mended {
        gate.execute(&user, write).await?;
    }
    gate.adopt_services().await
}

/// Whether it is what older builds wrote, and nothing else.
fn is_former(held: &Object) -> bool {
    let Ok(value) = held.to_value() else { return false };
    let (_, wanted) = binding(FORMER, "system:node-proxier", "system:nodes");
    let mut managers = value["metadata"]["managedFields"].as_array().into_iter().flatten();
    value["roleRef"] == wanted["roleRef"]
        && value["subjects"] == wanted["subjects"]
        && held.meta.labels.is_empty()
        && managers.all(|entry| entry["manager"] == "apiserver")
}

/// Whether a write creates what is not there; one may also create anew what the write before it deletes.
fn is_of_new_object(snapshot: &Snapshot, write: &Write) -> bool {
    let Write::Create { resource, object } = write else { return false };
    let text = |name: &str| object["metadata"][name].as_str().unwrap_or_default();
    snapshot.find(*resource, text("namespace"), text("name")).is_none()
}

/// Makes a bootstrap token, `<id>.<secret>`, that joins nodes until `expires`: any, or the one of that name.
pub async fn join_token(gate: &Gate, expires: Time, node: Option<&str>) -> Result<String, Status> {
    let (id, secret) = (pki::random_word(6), pki::random_word(16));
    let data = |text: &str| STANDARD.encode(text);
    let mut object = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "bootstrap.kubernetes.io/token",
        "metadata": {"name": format!("bootstrap-token-{id}"), "namespace": "kube-system"},
        "data": {
            "token-id": data(&id), "token-secret": data(&secret), "expiration": data(&expires.to_string()),
            "usage-bootstrap-authentication": data("true"), "description": data("made by ekso for a node to join"),
        },
    });
    if let Some(node) = node {
        let group = format!("{}{}", groups::BOOTSTRAPPER_OF, node.replace('.', ":"));
        object["data"]["auth-extra-groups"] = data(&group).into();
    }
    gate.execute(&loopback(), Write::Create { resource: SECRETS, object }).await?;
    Ok(format!("{id}.{secret}"))
}

/// The server's own user, as upstream's loopback client.
fn loopback() -> User {
    User::new("system:apiserver", &["system:masters", "system:authenticated"])
}

/// A role for everybody of a group.
fn binding(name: &str, role: &str, group: &str) -> (Resource, Value) {
    let object = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": group}],
    });
    (CLUSTER_ROLE_BINDINGS, object)
}

/// Nodes may ask for certificates and get them, as kubeadm sets it up; what lives in a node's process beside the kubelet has its accounts;
/// and the cluster's DNS has its Service.
fn own_objects(dns: Ipv4Addr) -> Vec<(Resource, Value)> {
    let port = |name: &str, protocol: &str| json!({"name": name, "port": 53, "protocol": protocol, "targetPort": 53});
    let mut objects = accounts_of_nodes();
    objects.extend([
        binding("ekso:node-bootstrapper", "system:node-bootstrapper", "system:bootstrappers"),
        binding(
            "ekso:node-client-approver",
            "system:certificates.k8s.io:certificatesigningrequests:nodeclient",
            "system:bootstrappers",
        ),
        binding(
            "ekso:node-client-renewal-approver",
            "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient",
            "system:nodes",
        ),
        (
            SERVICES,
            json!({
                "apiVersion": "v1", "kind": "Service",
                "metadata": {
                    "name": "kube-dns", "namespace": "kube-system",
                    "labels": {"k8s-app": "kube-dns", "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "CoreDNS"},
                },
                "spec": {"clusterIP": dns, "ports": [port("dns", "UDP"), port("dns-tcp", "TCP")]},
            }),
        ),
    ]);
    objects
}

/// The service accounts of the service proxy and the name server, and that nodes may take their part: a kubelet itself may not know of
/// other nodes. Clusters of older builds have roles for nodes instead (`ekso:node-network`, and a binding `ekso:node-dns`); these stay there,
/// for the nodes that run on.
fn accounts_of_nodes() -> Vec<(Resource, Value)> {
    const RBAC: &str = "rbac.authorization.k8s.io";
    const RBAC_V1: &str = "rbac.authorization.k8s.io/v1";
    let here = |name: &str| json!({"name": name, "namespace": "kube-system"});
    let account = |name: &str| {
        (SERVICE_ACCOUNTS, json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": here(name)}))
    };
    let bound = |name: &str, role: &str, account: &str| {
        let object = json!({
            "apiVersion": RBAC_V1, "kind": "ClusterRoleBinding", "metadata": {"name": name},
            "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": role},
            "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": "kube-system"}],
        });
        (CLUSTER_ROLE_BINDINGS, object)
    };
    // Whether there is a name depends on whether its namespace exists.
    let namespaces =
        json!([{"apiGroups": [""], "resources": ["namespaces"], "verbs": ["get", "list", "watch"]}]);
    let parts = json!([
        {"apiGroups": [""], "resources": ["serviceaccounts"], "resourceNames": ["coredns", "kube-proxy"], "verbs": ["impersonate"]},
    ]);
    vec![
        account("coredns"),
        account("kube-proxy"),
        (
            CLUSTER_ROLES,
            json!({
                "apiVersion": RBAC_V1, "kind": "ClusterRole", "metadata": {"name": "ekso:node-dns"}, "rules": namespaces,
            }),
        ),
        bound("ekso:coredns", "ekso:node-dns", "coredns"),
        bound("ekso:kube-proxy", "system:node-proxier", "kube-proxy"),
        (
            ROLES,
            json!({"apiVersion": RBAC_V1, "kind": "Role", "metadata": here("ekso:node-parts"), "rules": parts}),
        ),
        (
            ROLE_BINDINGS,
            json!({
                "apiVersion": RBAC_V1, "kind": "RoleBinding", "metadata": here("ekso:node-parts"),
                "roleRef": {"apiGroup": RBAC, "kind": "Role", "name": "ekso:node-parts"},
                "subjects": [{"apiGroup": RBAC, "kind": "Group", "name": "system:nodes"}],
            }),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use object::{Draft, Key, body};

    use super::*;

    #[test]
    fn only_what_an_older_build_wrote_is_taken_away() {
        let written = |change: &dyn Fn(&mut Value)| {
            let (resource, mut value) = binding(FORMER, "system:node-proxier", "system:nodes");
            value["metadata"]["managedFields"] = json!([{"manager": "apiserver", "operation": "Update"}]);
            change(&mut value);
            let mut metadata = value["metadata"].clone();
            metadata["uid"] = "u".into();
            let meta = serde_json::from_value(metadata).expect("metadata");
            let key = Key::cluster(resource, FORMER);
            Draft { key, meta, fields: Box::default(), stored: body::encode(&value) }.at(1)
        };
        assert!(is_former(&written(&|_| {})));
        let changes: [&dyn Fn(&mut Value); 4] = [
            &|value| value["roleRef"]["name"] = "cluster-admin".into(),
            &|value| value["subjects"][0]["name"] = "system:masters".into(),
            &|value| value["metadata"]["labels"] = json!({"team": "network"}),
            &|value| value["metadata"]["managedFields"][0]["manager"] = "kubectl".into(),
        ];
        for (nth, change) in changes.into_iter().enumerate() {
            assert!(!is_former(&written(change)), "change {nth}");
        }
    }
}
