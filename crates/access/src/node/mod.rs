//! The Node authorizer: a kubelet reads only what its own pods need.
//! <https://kubernetes.io/docs/reference/access-authn-authz/node/>
//!
//! Upstream keeps a graph of nodes, pods and what they mention. Here the snapshot finds the pods of a node by its index,
//! and each is asked what it mentions: a node has some hundred pods at most.

mod views;

use std::sync::OnceLock;

use object::{Key, Object, Snapshot};
use plan::{Attributes, Decision, User};

use views::{AtNode, ClaimObject, PodSpec, PodView, VolumeObject};

use crate::rbac::Rule;
use crate::{bootstrap, groups};
use kinds::{PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, PODS, RESOURCE_SLICES, VOLUME_ATTACHMENTS};

/// The node that this user is, if it is one.
pub(crate) fn node_of(user: &User) -> Option<&str> {
    let name = user.name.strip_prefix("system:node:")?;
    user.is_in(groups::NODES).then_some(name)
}

/// Whether a pod mentions a Secret of its namespace.
pub fn is_secret_of_pod(pod: &Object, secret: &str) -> bool {
    pod.decode::<PodView>().is_ok_and(|pod| pod.spec.secrets().any(|name| name == secret))
}

pub(crate) fn authorize(snapshot: &Snapshot, user: &User, request: &Attributes) -> Decision {
    let Some(node) = node_of(user) else { return Decision::default() };
    if node.is_empty() {
        return no(format!("unknown node for user {:?}", &*user.name));
    }
    let asked = Asked { snapshot, node, request };
    match (request.group, request.resource) {
        ("", "configmaps" | "secrets") => asked.read_of_namespace(),
        ("", "nodes") => asked.nodes(),
        ("", "persistentvolumeclaims") if request.subresource == "status" => asked.claim_status(),
        ("", "persistentvolumeclaims" | "persistentvolumes") => asked.get(),
        ("", "pods") => asked.pods(),
        ("", "serviceaccounts") if request.subresource == "token" => asked.token(),
        ("", "serviceaccounts") => asked.get(),
        ("coordination.k8s.io", "leases") => asked.lease(),
        ("resource.k8s.io", "resourceclaims") => asked.get(),
        ("resource.k8s.io", "resourceslices") => asked.resource_slice(),
        ("storage.k8s.io", "csinodes") => asked.csi_node(),
        ("storage.k8s.io", "volumeattachments") => asked.get(),
        _ => asked.by_role(),
    }
}

struct Asked<'a> {
    snapshot: &'a Snapshot,
    node: &'a str,
    request: &'a Attributes<'a>,
}

fn yes() -> Decision {
    Decision { allowed: true, ..Decision::default() }
}

/// No opinion, and why. (Another authorizer may still allow it.)
fn no(reason: impl Into<String>) -> Decision {
    Decision { reason: reason.into(), ..Decision::default() }
}

impl Asked<'_> {
    /// What every node may do: the rules of the role `system:node`.
    fn by_role(&self) -> Decision {
        static RULES: OnceLock<Vec<Rule>> = OnceLock::new();
        let rules = RULES.get_or_init(|| bootstrap::rules_of("system:node"));
        if rules.iter().any(|rule| rule.allows(self.request)) { yes() } else { no("") }
    }

    fn get(&self) -> Decision {
        match (self.request.verb, self.request.subresource) {
            ("get", "") => self.related(),
            ("get", _) => no("cannot get subresource"),
            _ => no("can only get individual resources of this type"),
        }
    }

    fn read_of_namespace(&self) -> Decision {
        match self.request {
            Attributes { verb, .. } if !matches!(*verb, "get" | "list" | "watch") => {
                no("can only read resources of this type")
            }
            Attributes { subresource, .. } if !subresource.is_empty() => no("cannot read subresource"),
            Attributes { namespace: "", .. } => no("can only read namespaced object of this type"),
            _ => self.related(),
        }
    }

    fn claim_status(&self) -> Decision {
        match self.request.verb {
            "get" | "patch" | "update" => self.related(),
            _ => no("can only get/update/patch this type"),
        }
    }

    fn token(&self) -> Decision {
        if self.request.verb != "create" || self.request.name.is_empty() {
            return no("can only create tokens for individual service accounts");
        }
        self.related()
    }

    fn lease(&self) -> Decision {
        match self.request {
            Attributes { verb, .. } if !matches!(*verb, "create" | "delete" | "get" | "patch" | "update") => {
                no("can only get, create, update, patch, or delete a node lease")
            }
            Attributes { namespace, .. } if *namespace != "kube-node-lease" => {
                no("can only access leases in the \"kube-node-lease\" system namespace")
            }
            Attributes { verb, name, .. } if *verb != "create" && *name != self.node => {
                no("can only access node lease with the same name as the requesting node")
            }
            _ => yes(),
        }
    }

    fn csi_node(&self) -> Decision {
        match self.request {
            Attributes { subresource, .. } if !subresource.is_empty() => {
                no("cannot authorize CSINode subresources")
            }
            Attributes { verb, .. } if !matches!(*verb, "create" | "delete" | "get" | "patch" | "update") => {
                no("can only get, create, update, patch, or delete a CSINode")
            }
            Attributes { verb, name, .. } if *verb != "create" && *name != self.node => {
                no("can only access CSINode with the same name as the requesting node")
            }
            _ => yes(),
        }
    }

    fn resource_slice(&self) -> Decision {
        match self.request.verb {
            _ if !self.request.subresource.is_empty() => no("cannot authorize ResourceSlice subresources"),
            "create" => yes(),
            "delete" | "get" | "patch" | "update" => self.related(),
            _ if self.selects("spec.nodeName") => yes(),
            _ => no("can only list/watch/deletecollection resourceslices with nodeName field selector"),
        }
    }

    fn nodes(&self) -> Decision {
        let read = matches!(self.request.verb, "get" | "list" | "watch");
        if !read || !self.request.subresource.is_empty() {
            return self.by_role();
        }
        if self.request.name == self.node || (self.request.verb != "get" && self.selects("metadata.name")) {
            return yes();
        }
        match self.request.name {
            "" => no(format!("node '{}' cannot read all nodes, only its own Node object", self.node)),
            other => no(format!("node '{}' cannot read '{other}', only its own Node object", self.node)),
        }
    }

    fn pods(&self) -> Decision {
        match (self.request.verb, self.request.subresource) {
            ("get", "") => self.related(),
            ("list" | "watch", "") if self.selects("spec.nodeName") => yes(),
            ("list" | "watch", "") if !self.request.name.is_empty() => self.related(),
            ("list" | "watch", "") => no("can only list/watch pods with spec.nodeName field selector"),
            _ => self.by_role(),
        }
    }

    fn selects(&self, path: &str) -> bool {
        self.request.fields.and_then(|fields| fields.required(path)) == Some(self.node)
    }

    /// Does a pod of this node, or the node itself, need the object that is asked for?
    fn related(&self) -> Decision {
        if self.request.name.is_empty() {
            return no("No Object name found");
        }
        let found = match self.request.resource {
            "pods" => self.is_mine(),
            "persistentvolumes" => self.mounts_volume(),
            "resourceslices" => self.is_at(&Key::cluster(RESOURCE_SLICES, self.request.name)),
            "volumeattachments" => self.is_at(&Key::cluster(VOLUME_ATTACHMENTS, self.request.name)),
            _ => self.pods_of_node(self.request.namespace).any(|(pod, view)| self.mentions(pod, view)),
        };
        if found {
            return yes();
        }
        no(format!("no relationship found between node '{}' and this object", self.node))
    }

    /// Of a namespace, those that others have put there: a mirror pod is the kubelet's own word, and must not lead it anywhere.
    fn pods_of_node(&self, namespace: &str) -> impl Iterator<Item = (&Object, PodView)> {
        let all = self.snapshot.list_by_field(PODS, self.node);
        let there = all.filter(move |pod| *pod.key.namespace == *namespace);
        let decoded = there.filter_map(|pod| Some((&**pod, pod.decode::<PodView>().ok()?)));
        decoded.filter(|(_, view)| !view.is_mirror())
    }

    fn is_mine(&self) -> bool {
        let key = Key::new(PODS, self.request.namespace, self.request.name);
        self.snapshot.get(&key).is_some_and(|pod| pod.fields.first().is_some_and(|node| **node == *self.node))
    }

    /// Resource slices and volume attachments name their node.
    fn is_at(&self, key: &Key) -> bool {
        let view: Option<AtNode> = self.snapshot.get(key).and_then(|object| object.decode().ok());
        view.is_some_and(|view| view.spec.node_name == self.node)
    }

    fn mentions(&self, pod: &Object, PodView { spec, status, .. }: PodView) -> bool {
        let name = self.request.name;
        match self.request.resource {
            "serviceaccounts" => spec.service_account_name == name,
            "configmaps" => spec.config_maps().any(|held| held == name),
            "secrets" => spec.secrets().any(|held| held == name) || self.volume_secret(pod, &spec),
            "persistentvolumeclaims" => spec.claims(&pod.key.name).any(|held| held == name),
            "resourceclaims" => {
                let direct = spec.resource_claims.iter().any(|claim| claim.resource_claim_name == name);
                direct || status.resource_claim_statuses.iter().any(|claim| claim.resource_claim_name == name)
            }
            _ => false,
        }
    }

    /// The volume is bound to a claim of one of the node's pods.
    fn mounts_volume(&self) -> bool {
        let key = Key::cluster(PERSISTENT_VOLUMES, self.request.name);
        let view: Option<VolumeObject> = self.snapshot.get(&key).and_then(|object| object.decode().ok());
        let Some(claim) = view.and_then(|view| view.spec.claim_ref) else { return false };
        let mut there = self.pods_of_node(&claim.namespace);
        there.any(|(pod, view)| view.spec.claims(&pod.key.name).any(|held| held == claim.name))
    }

    /// The secrets that a CSI driver needs for a volume that the pod mounts.
    fn volume_secret(&self, pod: &Object, spec: &PodSpec) -> bool {
        spec.claims(&pod.key.name).any(|name| {
            let key = Key::new(PERSISTENT_VOLUME_CLAIMS, pod.key.namespace.clone(), name.as_str());
            let claim: Option<ClaimObject> = self.snapshot.get(&key).and_then(|object| object.decode().ok());
            let volume = claim.map(|claim| claim.spec.volume_name).unwrap_or_default();
            let volume = self.snapshot.get(&Key::cluster(PERSISTENT_VOLUMES, volume));
            let view: Option<VolumeObject> = volume.and_then(|object| object.decode().ok());
            // A claim may name any volume: it is the volume that says whose it is.
            let view = view.filter(|view| {
                let of = view.spec.claim_ref.as_ref();
                of.is_some_and(|of| of.namespace == *pod.key.namespace && of.name == name)
            });
            view.and_then(|view| view.spec.csi)
                .is_some_and(|csi| csi.has_secret(self.request.namespace, self.request.name))
        })
    }
}
