//! A running pod is not changed into one that its node does not know how to run: KEP-5328.

use object::{Key, Snapshot, Status};
use schema::path;
use serde_json::Value;

use crate::{Operation, Plugin, Request, Verdict};

pub const PLUGIN: Plugin =
    Plugin { name: "NodeDeclaredFeatureValidator", mutate: None, validate: Some(validate) };

/// A feature that nodes declare, and whether a change of a pod (old, new) needs it.
type Feature = (&'static str, fn(&Value, &Value) -> bool);

/// Those of upstream's that an update can bring, by name.
const FEATURES: [Feature; 2] = [
    ("InPlacePodLevelResourcesVerticalScaling", resizes_pod),
    ("InPlacePodVerticalScalingInitContainers", resizes_init_container),
];

fn validate(
    snapshot: &Snapshot,
    request: &Request,
    object: Option<&Value>,
    _: &mut Verdict,
) -> Result<(), Status> {
    let is_update = request.key.resource == kinds::PODS
        && request.operation == Operation::Update
        && matches!(request.subresource, "" | "resize");
    let (Some(new), Some(old)) = (object.filter(|_| is_update), request.old) else { return Ok(()) };
    let name = path::text(new, "spec.nodeName");
    if name.is_empty() || old["metadata"]["generation"] == new["metadata"]["generation"] {
        return Ok(());
    }
    let needed: Vec<&str> =
        FEATURES.iter().filter(|(_, needs)| needs(old, new)).map(|(feature, _)| *feature).collect();
    if needed.is_empty() {
        return Ok(());
    }
    let Some(node) = snapshot.get(&Key::cluster(kinds::NODES, name)) else {
        return Err(request.forbidden(Some(new), format!("node {name:?} not found")));
    };
    let node = node.to_value().map_err(Status::internal)?;
    let declared = path::list(&node, "status.declaredFeatures");
    let lacking: Vec<&str> =
        needed.into_iter().filter(|feature| !declared.iter().any(|held| held == feature)).collect();
    if lacking.is_empty() {
        return Ok(());
    }
    let why = format!(
        "pod update requires features {} which are not available on node {name:?}",
        lacking.join(", ")
    );
    Err(request.forbidden(Some(new), why))
}

fn resizes_pod(old: &Value, new: &Value) -> bool {
    old["spec"]["resources"] != new["spec"]["resources"]
}

/// Of those that end before the pod's containers start.
fn resizes_init_container(old: &Value, new: &Value) -> bool {
    let pairs = path::list(old, "spec.initContainers").iter().zip(path::list(new, "spec.initContainers"));
    pairs.into_iter().any(|(old, new)| {
        path::text(old, "restartPolicy") != "Always" && old["resources"] != new["resources"]
    })
}
