//! A pod is told the zone and region of its node when it is bound, or made for it: KEP-4742.

use object::{Key, Snapshot, Status};
use schema::path;
use serde_json::Value;

use crate::{Operation, Plugin, Request};

pub const PLUGIN: Plugin = Plugin { name: "PodTopologyLabels", mutate: Some(mutate), validate: None };

const LABELS: [&str; 2] = ["topology.kubernetes.io/region", "topology.kubernetes.io/zone"];

/// The labels go into the pod, or into the Binding: storing it copies them to the pod.
fn mutate(
    snapshot: &Snapshot,
    request: &Request,
    object: &mut Value,
    _: &mut Vec<String>,
) -> Result<(), Status> {
    let node = match request.kind {
        "Pod" if request.is(kinds::PODS, &[Operation::Create]) => path::text(object, "spec.nodeName"),
        "Binding" if path::text(object, "target.kind") == "Node" => path::text(object, "target.name"),
        _ => return Ok(()),
    };
    let Some(node) = snapshot.get(&Key::cluster(kinds::NODES, node)) else { return Ok(()) };
    for name in LABELS {
        if let Some(value) = node.meta.label(name) {
            object["metadata"]["labels"][name] = value.into();
        }
    }
    Ok(())
}
