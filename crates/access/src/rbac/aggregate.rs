use object::{LabelSelector, Snapshot};
use serde::Deserialize;

use super::rule::{Rule, list};
use kinds::CLUSTER_ROLES;

#[derive(Deserialize)]
struct AggregatedView {
    #[serde(rename = "aggregationRule")]
    aggregation_rule: Option<AggregationRule>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct AggregationRule {
    #[serde(deserialize_with = "list")]
    cluster_role_selectors: Vec<LabelSelector>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RulesView {
    #[serde(deserialize_with = "list")]
    rules: Vec<Rule>,
}

/// The rules that a cluster role with an aggregation rule must have: those of every other cluster role that one of its
/// selectors picks, by name, each once. None: it has no aggregation rule, or it does not decode.
pub fn aggregated_rules(snapshot: &Snapshot, role: &object::Object) -> Option<Vec<Rule>> {
    let view: AggregatedView = role.decode().ok()?;
    let selectors = view.aggregation_rule?.cluster_role_selectors;
    let mut rules: Vec<Rule> = Vec::new();
    for selector in &selectors {
        for other in snapshot.list(CLUSTER_ROLES, "") {
            if other.key == role.key || !selector.matches(&other.meta.labels) {
                continue;
            }
            let held: RulesView = other.decode().unwrap_or_default();
            for rule in held.rules {
                if !rules.contains(&rule) {
                    rules.push(rule);
                }
            }
        }
    }
    Some(rules)
}
