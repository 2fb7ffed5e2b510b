use schema::{Quantity, path};
use serde_json::Value;

use super::resources::amount;

const COMPUTE: [&str; 2] = ["cpu", "memory"];

/// `status.qosClass` of a pod: <https://kubernetes.io/docs/concepts/workloads/pods/pod-qos/>.
pub fn class(spec: &Value) -> &'static str {
    let own = spec.get("resources").filter(|resources| has_compute(resources));
    let all: Vec<&Value> = match own {
        Some(resources) => vec![resources],
        None => {
            let containers = path::list(spec, "containers").iter().chain(path::list(spec, "initContainers"));
            containers.map(|container| &container["resources"]).collect()
        }
    };
    if !all.iter().any(|resources| has_compute(resources)) {
        return "BestEffort";
    }
    if all.iter().all(|resources| is_guaranteed(resources)) { "Guaranteed" } else { "Burstable" }
}

fn positive(list: &Value, resource: &str) -> Option<Quantity> {
    amount(list, resource).filter(|held| *held > Quantity::ZERO)
}

fn has_compute(resources: &Value) -> bool {
    let held = |list: &str| COMPUTE.iter().any(|one| positive(&resources[list], one).is_some());
    held("requests") || held("limits")
}

fn is_guaranteed(resources: &Value) -> bool {
    COMPUTE.iter().all(|one| {
        let limit = positive(&resources["limits"], one);
        limit.is_some() && amount(&resources["requests"], one).is_none_or(|request| Some(request) == limit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn classes() {
        let spec = |resources: Value| json!({"containers": [{"resources": resources}]});
        for (resources, wanted) in [
            (json!({}), "BestEffort"),
            (json!({"requests": {"example.com/x": "1"}}), "BestEffort"),
            (json!({"requests": {"cpu": "1"}}), "Burstable"),
            (
                json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1", "memory": "1Gi"}}),
                "Guaranteed",
            ),
            (
                json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m", "memory": "1Gi"}}),
                "Burstable",
            ),
        ] {
            assert_eq!(class(&spec(resources.clone())), wanted, "{resources}");
        }
    }
}
