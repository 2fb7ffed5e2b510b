//! Where CPU or memory is limited, every container must say how much it wants.

use std::collections::{BTreeMap, BTreeSet};

use kinds::amounts::amounts;
use kinds::quota::compute;
use schema::path;
use serde_json::Value;

const COMPUTE: [&str; 6] =
    ["cpu", "limits.cpu", "limits.memory", "memory", "requests.cpu", "requests.memory"];

pub(super) fn check(object: &Value, restricted: &[&String]) -> Result<(), String> {
    let required: Vec<&str> =
        restricted.iter().map(|name| name.as_str()).filter(|name| COMPUTE.contains(name)).collect();
    let of_pod = compute(&amounts(&object["spec"], "requests"), &amounts(&object["spec"], "limits"));
    let mut missing: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let all = path::list(object, "spec.containers").iter().chain(path::list(object, "spec.initContainers"));
    for container in all {
        let stated = compute(&amounts(container, "requests"), &amounts(container, "limits"));
        for name in &required {
            if !stated.contains_key(*name) && !of_pod.contains_key(*name) {
                missing.entry(name).or_default().insert(path::text(container, "name"));
            }
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let names = |containers: &BTreeSet<&str>| containers.iter().copied().collect::<Vec<_>>().join(",");
    let items: Vec<String> =
        missing.iter().map(|(name, containers)| format!("{name} for: {}", names(containers))).collect();
    Err(format!("must specify {}", items.join("; ")))
}
