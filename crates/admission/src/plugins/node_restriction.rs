//! A kubelet changes its own node and its own pods, nothing else:
//! <https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/#noderestriction>.

use std::collections::BTreeSet;

use kinds::pkcs10;
use object::{Key, Snapshot, Status};
use plan::Attributes;
use schema::path;
use serde_json::Value;

use crate::{Operation, Plugin, Request, Verdict, pod};

pub const PLUGIN: Plugin = Plugin { name: "NodeRestriction", mutate: Some(mutate), validate: Some(validate) };

/// Labels of the system that a kubelet may set on its own node.
const OWN_LABELS: [&str; 13] = [
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/instance-type",
    "beta.kubernetes.io/os",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "kubernetes.io/arch",
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "node.kubernetes.io/exclude-from-external-load-balancers",
    "node.kubernetes.io/instance-type",
    "node.kubernetes.io/windows-build",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
];

/// The signers whose certificates make a node.
const NODE_SIGNERS: [&str; 2] =
    ["kubernetes.io/kube-apiserver-client-kubelet", "kubernetes.io/kubelet-serving"];

/// Sources of a volume that lead to no object of the API.
const SELF_CONTAINED: [&str; 22] = [
    "awsElasticBlockStore",
    "azureDisk",
    "cephfs",
    "cinder",
    "downwardAPI",
    "emptyDir",
    "fc",
    "flexVolume",
    "flocker",
    "gcePersistentDisk",
    "gitRepo",
    "hostPath",
    "image",
    "iscsi",
    "nfs",
    "photonPersistentDisk",
    "portworxVolume",
    "quobyte",
    "rbd",
    "scaleIO",
    "storageos",
    "vsphereVolume",
];

fn mutate(
    snapshot: &Snapshot,
    request: &Request,
    object: &mut Value,
    _: &mut Vec<String>,
) -> Result<(), Status> {
    check(snapshot, request, Some(object))
}

fn validate(
    snapshot: &Snapshot,
    request: &Request,
    object: Option<&Value>,
    _: &mut Verdict,
) -> Result<(), Status> {
    check(snapshot, request, object)
}

fn check(snapshot: &Snapshot, request: &Request, object: Option<&Value>) -> Result<(), Status> {
    let Some(node) = request.user.name.strip_prefix("system:node:") else { return Ok(()) };
    if !request.user.is_in("system:nodes") {
        return Ok(());
    }
    if node.is_empty() {
        let why = format!("could not determine node from user {:?}", &*request.user.name);
        return Err(request.forbidden(object.or(request.old), why));
    }
    let asked = Asked { snapshot, request, object, node };
    let found = match request.key.resource {
        kinds::PODS => asked.pod(),
        kinds::CERTIFICATE_SIGNING_REQUESTS => asked.certificate(),
        kinds::NODES => asked.node(),
        kinds::PERSISTENT_VOLUME_CLAIMS => asked.claim(),
        kinds::SERVICE_ACCOUNTS => asked.account(),
        kinds::LEASES => asked.lease(),
        kinds::CSI_NODES => asked.named("can only access CSINode with the same name as the requesting node"),
        kinds::RESOURCE_SLICES => asked.slice(),
        _ => Ok(()),
    };
    found.map_err(|refusal| match refusal {
        Refusal::Forbidden(why) => request.forbidden(object.or(request.old), why),
        Refusal::Missing(key) => Status::not_found(&key),
    })
}

struct Asked<'a> {
    snapshot: &'a Snapshot,
    request: &'a Request<'a>,
    object: Option<&'a Value>,
    node: &'a str,
}

/// Of a claim's status, what a kubelet that has resized the volume says.
const CLAIM_FIELDS: [&str; 4] =
    ["status.allocatedResourceStatuses", "status.allocatedResources", "status.capacity", "status.conditions"];

/// Why not.
enum Refusal {
    Forbidden(String),
    /// What the decision hangs on is not there.
    Missing(Key),
}

impl From<String> for Refusal {
    fn from(why: String) -> Self {
        Self::Forbidden(why)
    }
}

type Found = Result<(), Refusal>;

fn allow_if(holds: bool, why: impl FnOnce() -> String) -> Found {
    if holds { Ok(()) } else { Err(why().into()) }
}

impl Asked<'_> {
    fn object(&self) -> &Value {
        self.object.or(self.request.old).unwrap_or(&Value::Null)
    }

    fn pod(&self) -> Found {
        let node = self.node;
        // Where the stored pod is.
        let place = || {
            let key = self.request.key;
            if let Some(old) = self.request.old {
                return Ok(path::text(old, "spec.nodeName").to_owned());
            }
            let held = self.snapshot.get(key).ok_or_else(|| Refusal::Missing(key.clone()))?;
            Ok::<_, Refusal>(held.fields.first().map(|node| node.to_string()).unwrap_or_default())
        };
        match (self.request.operation, self.request.subresource) {
            (Operation::Create, "") => self.new_pod(),
            (Operation::Delete, "") => allow_if(place()? == node, || {
                format!("node {node:?} can only delete pods with spec.nodeName set to itself")
            }),
            (Operation::Update, "status") => {
                allow_if(place()? == node, || {
                    format!(
                        "node {node:?} can only update pod status for pods with spec.nodeName set to itself"
                    )
                })?;
                let labels = |pod: &Value| pod["metadata"].get("labels").cloned();
                let same = self.request.old.is_none_or(|old| labels(old) == labels(self.object()));
                allow_if(same, || format!("node {node:?} cannot update labels through pod status"))?;
                // What they name, a node may read.
                for (field, what) in [
                    ("status.resourceClaimStatuses", "resource claim statues"),
                    ("status.extendedResourceClaimStatus", "extended resource claim status"),
                ] {
                    let new = path::get(self.object(), field);
                    let same = self.request.old.is_none_or(|old| path::get(old, field) == new);
                    allow_if(same, || format!("node {node:?} cannot update {what}"))?;
                }
                Ok(())
            }
            (Operation::Create, "eviction") => allow_if(place()? == node, || {
                format!("node {node} can only evict pods with spec.nodeName set to itself")
            }),
            (operation, "") => Err(format!(
                "unexpected operation {:?}, node {node:?} can only create and delete mirror pods",
                verb(operation)
            )
            .into()),
            (operation, "status") => Err(format!("unexpected operation {:?}", verb(operation)).into()),
            (operation, "eviction") => Err(format!("unexpected operation {}", verb(operation)).into()),
            (_, subresource) => Err(format!(
                "unexpected pod subresource {subresource:?}, only 'status' and 'eviction' are allowed"
            )
            .into()),
        }
    }

    fn new_pod(&self) -> Found {
        let (node, pod) = (self.node, self.object());
        allow_if(pod::is_mirror(pod), || {
            format!(
                "pod does not have {:?} annotation, node {node:?} can only create mirror pods",
                pod::MIRROR
            )
        })?;
        allow_if(path::text(pod, "spec.nodeName") == node, || {
            format!("node {node:?} can only create pods with spec.nodeName set to itself")
        })?;
        self.owned_by_node(pod)?;
        match api_reference(pod) {
            Some(what) => Err(format!("node {node:?} can not create pods that reference {what}").into()),
            None => Ok(()),
        }
    }

    /// A node asks for certificates in its own name.
    fn certificate(&self) -> Found {
        let signer = path::text(self.object(), "spec.signerName");
        if self.request.operation != Operation::Create || !NODE_SIGNERS.contains(&signer) {
            return Ok(());
        }
        let asked = pkcs10::read(path::text(self.object(), "spec.request"))
            .map_err(|why| format!("unable to parse csr: {why}"))?;
        let own = format!("system:node:{}", self.node);
        allow_if(asked.common_names == [own.as_str()], || format!("can only create a node CSR with CN={own}"))
    }

    fn owned_by_node(&self, pod: &Value) -> Found {
        let (node, owners) = (self.node, path::list(pod, "metadata.ownerReferences"));
        let [owner] = owners else {
            let number = if owners.is_empty() { "an" } else { "a single" };
            let why =
                format!("node {node:?} can only create pods with {number} owner reference set to itself");
            return Err(why.into());
        };
        allow_if(owner["kind"] == "Node" && owner["name"] == node && owner["apiVersion"] == "v1", || {
            format!("node {node:?} can only create pods with an owner reference set to itself")
        })?;
        allow_if(owner["controller"] == true, || {
            format!("node {node:?} can only create pods with a controller owner reference set to itself")
        })?;
        allow_if(owner["blockOwnerDeletion"] != true, || {
            format!("node {node:?} must not set blockOwnerDeletion on an owner reference")
        })?;
        let key = Key::cluster(kinds::NODES, node);
        let held = self.snapshot.get(&key).ok_or(Refusal::Missing(key))?;
        allow_if(owner["uid"] == *held.meta.uid, || {
            let said = owner["uid"].as_str().unwrap_or_default();
            format!("node {node} UID mismatch: expected {said} got {}", held.meta.uid)
        })
    }

    fn node(&self) -> Found {
        let (node, object) = (self.node, self.object());
        let named = match &*self.request.key.name {
            "" => path::text(object, "metadata.name"),
            name => name,
        };
        allow_if(named == node, || format!("node {node:?} is not allowed to modify node {named:?}"))?;
        match (self.request.operation, self.request.old) {
            (Operation::Create, _) => {
                // What it may read would follow from it.
                allow_if(path::get(object, "spec.configSource").is_none(), || {
                    format!("node {node:?} is not allowed to create pods with a non-nil configSource")
                })?;
                let labels = forbidden_labels(&Value::Null, object);
                allow_if(labels.is_empty(), || {
                    format!("node {node:?} is not allowed to set the following labels: {}", labels.join(", "))
                })
            }
            (Operation::Update, Some(old)) => self.changed_node(old, object),
            _ => Ok(()),
        }
    }

    fn changed_node(&self, old: &Value, new: &Value) -> Found {
        let node = self.node;
        let same = |field: &str| path::get(old, field) == path::get(new, field);
        let source = "spec.configSource";
        allow_if(path::get(new, source).is_none() || same(source), || {
            format!("node {node:?} is not allowed to update configSource to a new non-nil configSource")
        })?;
        allow_if(same("spec.taints"), || format!("node {node:?} is not allowed to modify taints"))?;
        allow_if(same("metadata.ownerReferences"), || {
            format!("node {node:?} is not allowed to modify ownerReferences")
        })?;
        let labels = forbidden_labels(old, new);
        allow_if(labels.is_empty(), || format!("is not allowed to modify labels: {}", labels.join(", ")))
    }

    fn claim(&self) -> Found {
        let node = self.node;
        match (self.request.operation, self.request.subresource, self.request.old) {
            (Operation::Update, "status", Some(old)) => {
                let bare = |claim: &Value| {
                    let mut claim = claim.clone();
                    for field in
                        CLAIM_FIELDS.iter().chain(&["metadata.managedFields", "metadata.resourceVersion"])
                    {
                        path::remove(&mut claim, field);
                    }
                    if claim["status"].as_object().is_none_or(|status| status.is_empty()) {
                        path::remove(&mut claim, "status");
                    }
                    claim
                };
                allow_if(bare(old) == bare(self.object()), || {
                    format!(
                        "node {node:?} is not allowed to update fields other than status.quantity and status.conditions"
                    )
                })
            }
            (Operation::Update, "status", None) => Ok(()),
            (operation, "status", _) => Err(format!("unexpected operation {:?}", verb(operation)).into()),
            _ => Err("may only update PVC status".to_owned().into()),
        }
    }

    fn account(&self) -> Found {
        if self.request.operation != Operation::Create || self.request.subresource != "token" {
            return Ok(());
        }
        let bound = &self.object()["spec"]["boundObjectRef"];
        let name = bound["name"].as_str().unwrap_or_default();
        let is_pod = bound["apiVersion"] == "v1" && bound["kind"] == "Pod" && !name.is_empty();
        allow_if(is_pod, || "node requested token not bound to a pod".to_owned())?;
        let uid = bound["uid"].as_str().unwrap_or_default();
        allow_if(!uid.is_empty(), || "node requested token with a pod binding without a uid".to_owned())?;
        let key = Key::new(kinds::PODS, self.request.key.namespace.clone(), name);
        let pod = self.snapshot.get(&key).ok_or(Refusal::Missing(key))?;
        allow_if(*pod.meta.uid == *uid, || {
            format!(
                "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
            )
        })?;
        allow_if(pod.fields.first().is_some_and(|node| **node == *self.node), || {
            "node requested token bound to a pod scheduled on a different node".to_owned()
        })?;
        let pod = pod.to_value().map_err(|error| error.to_string())?;
        self.audience(&pod)
    }

    /// A kubelet gets tokens for the audiences that its pod's volumes want, and for those that it is allowed to ask for besides (KEP-4412).
    fn audience(&self, pod: &Value) -> Found {
        let asked = match path::list(self.object(), "spec.audiences") {
            [] => "",
            [one] => one.as_str().unwrap_or_default(),
            _ => return Err("node may only request 0 or 1 audiences".to_owned().into()),
        };
        let namespace = &*self.request.key.namespace;
        let pod_name = path::text(pod, "metadata.name");
        let mut volumes = path::list(pod, "spec.volumes").iter();
        let wanted = volumes.any(|volume| self.wants(namespace, pod_name, volume, asked));
        let may = || {
            let verb = "request-serviceaccounts-token-audience";
            let name = &*self.request.key.name;
            let asked = Attributes { verb, resource: asked, namespace, name, ..Attributes::default() };
            (self.request.authorize)(&asked).allowed
        };
        let who = &*self.request.user.name;
        allow_if(wanted || may(), || {
            format!(
                "audience {asked:?} not found in pod spec volume, {who} is not authorized to request tokens for this audience"
            )
        })
    }

    /// Does a volume want tokens for this audience: itself, or the CSI driver behind it?
    fn wants(&self, namespace: &str, pod: &str, volume: &Value, audience: &str) -> bool {
        let mut sources = path::list(volume, "projected.sources").iter();
        if sources.any(|source| {
            source.get("serviceAccountToken").is_some_and(|token| path::text(token, "audience") == audience)
        }) {
            return true;
        }
        let find = |resource, namespace: &str, name: &str| {
            self.snapshot.find(resource, namespace, name).and_then(|found| found.to_value().ok())
        };
        let inline = path::text(volume, "csi.driver").to_owned();
        let driver = if inline.is_empty() {
            let claim = match path::get(volume, "ephemeral.volumeClaimTemplate") {
                Some(_) => format!("{pod}-{}", path::text(volume, "name")),
                None => path::text(volume, "persistentVolumeClaim.claimName").to_owned(),
            };
            let claim = find(kinds::PERSISTENT_VOLUME_CLAIMS, namespace, &claim).unwrap_or_default();
            let bound = find(kinds::PERSISTENT_VOLUMES, "", path::text(&claim, "spec.volumeName"));
            path::text(&bound.unwrap_or_default(), "spec.csi.driver").to_owned()
        } else {
            inline
        };
        let driver = find(kinds::CSI_DRIVERS, "", &driver).unwrap_or_default();
        path::list(&driver, "spec.tokenRequests")
            .iter()
            .any(|request| path::text(request, "audience") == audience)
    }

    fn lease(&self) -> Found {
        allow_if(&*self.request.key.namespace == "kube-node-lease", || {
            "can only access leases in the \"kube-node-lease\" system namespace".to_owned()
        })?;
        self.named("can only access node lease with the same name as the requesting node")
    }

    /// Leases and CSINodes: named as the node.
    fn named(&self, why: &str) -> Found {
        let name = match &*self.request.key.name {
            "" => path::text(self.object(), "metadata.name"),
            name => name,
        };
        allow_if(name == self.node, || why.to_owned())
    }

    fn slice(&self) -> Found {
        let (what, slice) = match self.request.operation {
            Operation::Create => ("create", self.object()),
            Operation::Delete => ("delete", self.request.old.unwrap_or(&Value::Null)),
            Operation::Connect | Operation::Update => return Ok(()),
        };
        allow_if(path::text(slice, "spec.nodeName") == self.node, || {
            format!("can only {what} ResourceSlice with the same NodeName as the requesting node")
        })
    }
}

fn verb(operation: Operation) -> &'static str {
    match operation {
        Operation::Connect => "CONNECT",
        Operation::Create => "CREATE",
        Operation::Delete => "DELETE",
        Operation::Update => "UPDATE",
    }
}

/// The labels that differ and that no kubelet may set: those of the system but for the known ones.
fn forbidden_labels(old: &Value, new: &Value) -> Vec<String> {
    let labels = |node: &Value| node["metadata"]["labels"].as_object().cloned().unwrap_or_default();
    let (old, new) = (labels(old), labels(new));
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    names
        .into_iter()
        .filter(|name| old.get(*name) != new.get(*name) && !is_own_label(name))
        .cloned()
        .collect()
}

fn is_own_label(name: &str) -> bool {
    let Some((domain, _)) = name.split_once('/') else { return true };
    let within = |parent: &str| {
        domain == parent || domain.strip_suffix(parent).is_some_and(|head| head.ends_with('.'))
    };
    if !within("kubernetes.io") && !within("k8s.io") {
        return true;
    }
    OWN_LABELS.contains(&name)
        || (!within("node-restriction.kubernetes.io")
            && (within("kubelet.kubernetes.io") || within("node.kubernetes.io")))
}

/// What of the API a pod leads to; none if it leads nowhere.
fn api_reference(pod: &Value) -> Option<String> {
    for (is_used, what) in [
        (!path::text(pod, "spec.serviceAccountName").is_empty(), "serviceaccounts"),
        (mentions(pod, &SECRETS), "secrets"),
        (mentions(pod, &CONFIG_MAPS), "configmaps"),
        (!path::list(pod, "spec.resourceClaims").is_empty(), "resourceclaims"),
    ] {
        if is_used {
            return Some(what.to_owned());
        }
    }
    path::list(pod, "spec.volumes").iter().find_map(|volume| {
        let sources = volume.as_object().into_iter().flatten().filter(|(name, _)| *name != "name");
        sources.map(|(source, _)| &**source).find_map(|source| match source {
            "csi" => Some("csidrivers (via CSI volumes)".to_owned()),
            "glusterfs" => Some("endpoints (via glusterFS volumes)".to_owned()),
            "persistentVolumeClaim" => Some("persistentvolumeclaims".to_owned()),
            "ephemeral" => Some("persistentvolumeclaims (via ephemeral volumes)".to_owned()),
            "azureFile" => Some("secrets (via azureFile volumes)".to_owned()),
            "projected" => path::list(volume, "projected.sources").iter().find_map(projected_reference),
            known if SELF_CONTAINED.contains(&known) => None,
            other => Some(format!("what a volume of the type {other:?} leads to")),
        })
    })
}

fn projected_reference(source: &Value) -> Option<String> {
    let kinds = source.as_object().into_iter().flatten().map(|(kind, _)| &**kind);
    kinds
        .filter(|kind| *kind != "downwardAPI")
        .map(|kind| match kind {
            "serviceAccountToken" => "serviceaccounts (via projected volumes)".to_owned(),
            "clusterTrustBundle" => "clustertrustbundles".to_owned(),
            "podCertificate" => "podcertificates".to_owned(),
            other => format!("what a projected source of the type {other:?} leads to"),
        })
        .next()
}

/// The fields of volumes, projections and environments that name Secrets, and those that name ConfigMaps.
pub(super) const SECRETS: [&str; 4] = ["secret", "secretRef", "secretKeyRef", "nodePublishSecretRef"];
pub(super) const CONFIG_MAPS: [&str; 3] = ["configMap", "configMapRef", "configMapKeyRef"];

/// Does the pod use one of these fields of volumes, projections or environments?
pub(super) fn mentions(pod: &Value, fields: &[&str]) -> bool {
    let has = |object: &Value| fields.iter().any(|field| object.get(field).is_some());
    let volume = path::list(pod, "spec.volumes").iter().any(|volume| {
        let mut sources = volume.as_object().into_iter().flatten().map(|(_, source)| source);
        has(volume) || sources.any(has) || path::list(volume, "projected.sources").iter().any(has)
    });
    let pull = fields.contains(&"secret") && !path::list(pod, "spec.imagePullSecrets").is_empty();
    volume
        || pull
        || pod::all_containers(pod).any(|container| {
            path::list(container, "envFrom").iter().any(has)
                || path::list(container, "env").iter().any(|env| has(&env["valueFrom"]))
        })
}
