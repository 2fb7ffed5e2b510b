//! A kubelet changes its own node and its own pods, nothing else:
//! <https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/#noderestriction>.

use std::collections::BTreeSet;

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
    let asked = Asked { snapshot, request, object, node };
    let found = match request.key.resource {
        kinds::PODS => asked.pod(),
        kinds::NODES => asked.node(),
        kinds::PERSISTENT_VOLUME_CLAIMS => asked.claim(),
        kinds::SERVICE_ACCOUNTS => asked.account(),
        kinds::LEASES => asked.named("can only access node lease with the same name as the requesting node"),
        kinds::CSI_NODES => asked.named("can only access CSINode with the same name as the requesting node"),
        kinds::RESOURCE_SLICES => asked.slice(),
        _ => Ok(()),
    };
    found.map_err(|why| request.forbidden(object.or(request.old), why))
}

struct Asked<'a> {
    snapshot: &'a Snapshot,
    request: &'a Request<'a>,
    object: Option<&'a Value>,
    node: &'a str,
}

/// Ok, or why not.
type Found = Result<(), String>;

fn allow_if(holds: bool, why: impl FnOnce() -> String) -> Found {
    if holds { Ok(()) } else { Err(why()) }
}

impl Asked<'_> {
    fn object(&self) -> &Value {
        self.object.or(self.request.old).unwrap_or(&Value::Null)
    }

    fn pod(&self) -> Found {
        let node = self.node;
        let stored = || {
            let key = self.request.key;
            let pod = self.request.old.map(|old| path::text(old, "spec.nodeName").to_owned());
            pod.or_else(|| {
                self.snapshot.get(key).and_then(|pod| pod.fields.first().map(|held| held.to_string()))
            })
        };
        match (self.request.operation, self.request.subresource) {
            (Operation::Create, "") => self.new_pod(),
            (Operation::Delete, "") => allow_if(stored().as_deref() == Some(node), || {
                format!("node {node:?} can only delete pods with spec.nodeName set to itself")
            }),
            (Operation::Update, "status") => {
                allow_if(stored().as_deref() == Some(node), || {
                    format!(
                        "node {node:?} can only update pod status for pods with spec.nodeName set to itself"
                    )
                })?;
                let labels = |pod: &Value| pod["metadata"].get("labels").cloned();
                let same = self.request.old.is_none_or(|old| labels(old) == labels(self.object()));
                allow_if(same, || format!("node {node:?} cannot update labels through pod status"))
            }
            (Operation::Create, "eviction") => allow_if(stored().as_deref() == Some(node), || {
                format!("node {node:?} can only evict pods with spec.nodeName set to itself")
            }),
            (_, "") => Err(format!(
                "unexpected operation {:?}, node {node:?} can only create and delete mirror pods",
                verb(self.request.operation)
            )),
            (_, subresource) => Err(format!(
                "unexpected pod subresource {subresource:?}, only 'status' and 'eviction' are allowed for nodes"
            )),
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
        for (is_used, what) in [
            (!path::text(pod, "spec.serviceAccountName").is_empty(), "a service account"),
            (mentions(pod, &["secret", "secretRef", "secretKeyRef"]), "secrets"),
            (mentions(pod, &["configMap", "configMapRef", "configMapKeyRef"]), "configmaps"),
            (mentions(pod, &["persistentVolumeClaim"]), "a persistentvolumeclaim"),
            (!path::list(pod, "spec.resourceClaims").is_empty(), "a resourceclaim"),
        ] {
            allow_if(!is_used, || format!("node {node:?} can not create pods that reference {what}"))?;
        }
        Ok(())
    }

    fn owned_by_node(&self, pod: &Value) -> Found {
        let (node, owners) = (self.node, path::list(pod, "metadata.ownerReferences"));
        if owners.is_empty() {
            return Ok(());
        }
        allow_if(owners.len() == 1, || {
            format!("node {node:?} can only create pods with a single owner reference set to itself")
        })?;
        let owner = &owners[0];
        allow_if(owner["kind"] == "Node" && owner["name"] == node && owner["apiVersion"] == "v1", || {
            format!("node {node:?} can only create pods with an owner reference set to itself")
        })?;
        allow_if(owner["controller"] == true, || {
            format!("node {node:?} can only create pods with a controller owner reference set to itself")
        })?;
        allow_if(owner["blockOwnerDeletion"] != true, || {
            format!("node {node:?} must not set blockOwnerDeletion on an owner reference")
        })?;
        let held = self.snapshot.get(&Key::cluster(kinds::NODES, node));
        allow_if(held.is_some_and(|held| owner["uid"] == *held.meta.uid), || {
            format!("node {node:?} UID mismatch: the owner reference is to another node of that name")
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
                let labels = forbidden_labels(&Value::Null, object);
                allow_if(labels.is_empty(), || {
                    format!("node {node:?} is not allowed to set the following labels: {}", labels.join(", "))
                })
            }
            (Operation::Update, Some(old)) => self.changed_node(old, object),
            (Operation::Delete, _) => Err(format!("node {node:?} cannot delete node {named:?}")),
            _ => Ok(()),
        }
    }

    fn changed_node(&self, old: &Value, new: &Value) -> Found {
        let node = self.node;
        let same = |field: &str| path::get(old, field) == path::get(new, field);
        allow_if(same("spec.taints"), || format!("node {node:?} is not allowed to modify taints"))?;
        allow_if(same("metadata.ownerReferences"), || {
            format!("node {node:?} is not allowed to modify ownerReferences")
        })?;
        let labels = forbidden_labels(old, new);
        allow_if(labels.is_empty(), || {
            format!("node {node:?} is not allowed to modify labels: {}", labels.join(", "))
        })
    }

    fn claim(&self) -> Found {
        let node = self.node;
        match (self.request.operation, self.request.subresource, self.request.old) {
            (Operation::Update, "status", Some(old)) => {
                let bare = |claim: &Value| {
                    let mut claim = claim.clone();
                    for field in ["status", "metadata.managedFields", "metadata.resourceVersion"] {
                        path::remove(&mut claim, field);
                    }
                    claim
                };
                allow_if(bare(old) == bare(self.object()), || {
                    format!("node {node:?} is not allowed to update fields other than status")
                })
            }
            (Operation::Update, "status", None) => Ok(()),
            (Operation::Update, subresource, _) => Err(format!(
                "unexpected subresource {subresource:?}, node {node:?} can only update the status of a persistentvolumeclaim"
            )),
            (operation, ..) => Err(format!("unexpected operation {:?}", verb(operation))),
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
        let pod = self.snapshot.get(&key).ok_or_else(|| format!("pod {name:?} not found"))?;
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
            _ => return Err("node may only request 0 or 1 audiences".to_owned()),
        };
        let namespace = &*self.request.key.namespace;
        let wanted =
            path::list(pod, "spec.volumes").iter().any(|volume| self.wants(namespace, volume, asked));
        let may = || {
            let verb = "request-serviceaccounts-token-audience";
            let name = &*self.request.key.name;
            let asked = Attributes { verb, resource: asked, namespace, name, ..Attributes::default() };
            (self.request.authorize)(&asked).allowed
        };
        allow_if(wanted || may(), || format!("audience {asked:?} not found in pod spec volume"))
    }

    /// Does a volume want tokens for this audience: itself, or the CSI driver behind it?
    fn wants(&self, namespace: &str, volume: &Value, audience: &str) -> bool {
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
            let claim = path::text(volume, "persistentVolumeClaim.claimName");
            let claim = find(kinds::PERSISTENT_VOLUME_CLAIMS, namespace, claim).unwrap_or_default();
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

    /// Leases and CSINodes: named as the node.
    fn named(&self, why: &str) -> Found {
        let name = match &*self.request.key.name {
            "" => path::text(self.object(), "metadata.name"),
            name => name,
        };
        allow_if(name == self.node, || why.to_owned())
    }

    fn slice(&self) -> Found {
        let own = path::text(self.object(), "spec.nodeName") == self.node;
        allow_if(own || self.request.operation == Operation::Update, || {
            "can only create/delete ResourceSlice with the same nodeName as the requesting node".to_owned()
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

/// Does the pod use one of these fields of volumes, projections or environments?
pub(super) fn mentions(pod: &Value, fields: &[&str]) -> bool {
    let has = |object: &Value| fields.iter().any(|field| object.get(field).is_some());
    let volume = path::list(pod, "spec.volumes")
        .iter()
        .any(|volume| has(volume) || path::list(volume, "projected.sources").iter().any(has));
    let pull = fields.contains(&"secret") && !path::list(pod, "spec.imagePullSecrets").is_empty();
    volume
        || pull
        || pod::all_containers(pod).any(|container| {
            path::list(container, "envFrom").iter().any(has)
                || path::list(container, "env").iter().any(|env| has(&env["valueFrom"]))
        })
}
