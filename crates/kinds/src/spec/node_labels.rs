//! Labels of nodes that have gone out of use, and where selectors still ask for them.

use schema::{names, path};
use serde_json::Value;

/// What is said of a label that should no longer be asked for.
pub fn deprecation(label: &str) -> Option<&'static str> {
    Some(match label {
        "beta.kubernetes.io/arch" => "deprecated since v1.14; use \"kubernetes.io/arch\" instead",
        "beta.kubernetes.io/os" => "deprecated since v1.14; use \"kubernetes.io/os\" instead",
        "failure-domain.beta.kubernetes.io/region" => {
            "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead"
        }
        "failure-domain.beta.kubernetes.io/zone" => {
            "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead"
        }
        "beta.kubernetes.io/instance-type" => {
            "deprecated since v1.17; use \"node.kubernetes.io/instance-type\" instead"
        }
        "app.kubernetes.io/created-by" => "deprecated since v1.9",
        "scheduler.alpha.kubernetes.io/preferAvoidPods" => {
            "deprecated since v1.22; use Taints and Tolerations instead"
        }
        "node-role.kubernetes.io/master" => "use \"node-role.kubernetes.io/control-plane\" instead",
        _ => return None,
    })
}

/// Of one `nodeSelectorTerm` at a path.
pub fn warn_of_term(term: &Value, at: &str, found: &mut Vec<String>) {
    for (index, expression) in path::list(term, "matchExpressions").iter().enumerate() {
        let at = format!("{at}.matchExpressions[{index}]");
        let key = path::text(expression, "key");
        found.extend(deprecation(key).map(|told| format!("{at}.key: {key} is {told}")));
        for (index, value) in path::list(expression, "values").iter().enumerate() {
            let value = value.as_str().unwrap_or_default();
            let wrong = names::label_value(value);
            let told = wrong.iter().map(|why| format!("{at}.values[{index}]: {value} is invalid, {why}"));
            found.extend(told);
        }
    }
}
