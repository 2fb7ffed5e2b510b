//! What several plugins read out of a pod.

use schema::path;
use serde_json::Value;

/// Mirror pods stand for pods that a kubelet runs from files.
pub const MIRROR: &str = "kubernetes.io/config.mirror";

pub fn is_mirror(pod: &Value) -> bool {
    pod["metadata"]["annotations"].get(MIRROR).is_some()
}

/// Init containers, then containers.
pub fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    path::list(pod, "spec.initContainers").iter().chain(path::list(pod, "spec.containers"))
}

/// Init containers, containers and ephemeral containers.
pub fn all_containers(pod: &Value) -> impl Iterator<Item = &Value> {
    containers(pod).chain(path::list(pod, "spec.ephemeralContainers"))
}

/// Runs `each` on every container (`false`), then on every init container (`true`).
pub fn each_container(pod: &mut Value, mut each: impl FnMut(&mut Value, bool)) {
    for (field, is_init) in [("containers", false), ("initContainers", true)] {
        let list = pod["spec"].get_mut(field).and_then(Value::as_array_mut);
        list.into_iter().flatten().for_each(|container| each(container, is_init));
    }
}

/// `[a, b]` of several, `a` of one, and each text once: how upstream joins errors.
pub fn joined(errors: &[String]) -> String {
    let mut texts: Vec<&str> = Vec::new();
    for error in errors {
        if !texts.contains(&error.as_str()) {
            texts.push(error);
        }
    }
    match texts[..] {
        [one] => one.to_owned(),
        _ => format!("[{}]", texts.join(", ")),
    }
}
