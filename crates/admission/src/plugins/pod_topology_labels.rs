//! A pod is told the zone and region of its node when it is bound: KEP-4742.

use object::{Key, Snapshot, Status};
use schema::path;
use serde_json::Value;

use crate::{Operation, Plugin, Request};

pub const PLUGIN: Plugin = Plugin { name: "PodTopologyLabels", mutate: Some(mutate), validate: None };

const LABELS: [&str; 2] = ["topology.kubernetes.io/region", "topology.kubernetes.io/zone"];

/// The labels go into the Binding; storing it copies them to the pod.
fn mutate(
    snapshot: &Snapshot,
    request: &Request,
    object: &mut Value,
    _: &mut Vec<String>,
) -> Result<(), Status> {
    if request.kind != "Binding" || request.operation != Operation::Create {
        return Ok(());
    }
    let node = Key::cluster(kinds::NODES, path::text(object, "target.name"));
    let Some(node) = snapshot.get(&node) else { return Ok(()) };
    for name in LABELS {
        if let Some(value) = node.meta.label(name) {
            object["metadata"]["labels"][name] = value.into();
        }
    }
    Ok(())
}
