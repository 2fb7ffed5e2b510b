//! Volumes that are directories of a node: enough for databases on a machine of one's own, and they stay when the pod goes.

use std::sync::Arc;

use kinds::{NODES, PERSISTENT_VOLUMES};
use object::{Object, Snapshot};
use plan::Plan;
use serde_json::json;

use super::claim::{ClassView, reference};
use super::{Side, create};
use crate::nodes::Node;

/// `provisioner` of StorageClasses that want such volumes.
pub const PROVISIONER: &str = "ekso.dev/host-path";
pub const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
/// Where the directories are, unless the class's parameter `path` says otherwise.
const DIRECTORY: &str = "/var/lib/ekso/volumes";

/// Makes the volume of a claim on the node that the scheduler chose, or on the first ready one.
///
/// # Errors
/// Why it cannot be made, for the event.
pub fn provision(
    snapshot: &Snapshot,
    claim: &Side,
    class: &Arc<Object>,
    view: &ClassView,
    node: Option<&str>,
    plan: &mut Plan,
) -> Result<(), String> {
    let node = match node {
        Some(name) => snapshot.find(NODES, "", name).and_then(Node::read),
        None => snapshot.list(NODES, "").filter_map(Node::read).find(|node| node.readiness() == Some("True")),
    };
    let node = node.ok_or(
        "no node to make the volume on: wait for one, or set volumeBindingMode: WaitForFirstConsumer",
    )?;
    if claim.spec.selector.is_some() {
        return Err("claim.Spec.Selector is not supported for dynamic provisioning".into());
    }
    let size = claim.spec.resources.requests.get("storage").ok_or("the claim asks for no storage")?;
    let name = format!("pvc-{}", claim.object.meta.uid);
    let directory = view.parameters.get("path").map_or(DIRECTORY, String::as_str);
    let hostname = node.object.meta.label("kubernetes.io/hostname").unwrap_or(node.name());
    let policy = if view.reclaim_policy.is_empty() { "Delete" } else { &view.reclaim_policy };
    let on_node = json!({"key": "kubernetes.io/hostname", "operator": "In", "values": [hostname]});
    let object = json!({
        "apiVersion": "v1", "kind": "PersistentVolume",
        "metadata": {"name": name, "annotations": {PROVISIONED_BY: PROVISIONER}},
        "spec": {
            "accessModes": claim.spec.access_modes,
            "capacity": {"storage": size},
            "claimRef": reference(claim),
            "hostPath": {"path": format!("{directory}/{name}"), "type": "DirectoryOrCreate"},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [on_node]}]}},
            "persistentVolumeReclaimPolicy": policy,
            "storageClassName": &*class.key.name,
            "volumeMode": claim.mode(),
        },
    });
    plan.write(create(PERSISTENT_VOLUMES, object));
    Ok(())
}
