//! Fills ClusterRoles that are made of others with the rules of those.
//!
//! <https://kubernetes.io/docs/reference/access-authn-authz/rbac/#aggregated-clusterroles>

use std::collections::BTreeSet;

use kinds::CLUSTER_ROLES;
use object::{Event, Key, LabelSelector, Object, Snapshot, Time};
use plan::Plan;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::writes::merge;
use crate::{Controller, Settings, Watch};

pub static CONTROLLER: Controller = Controller {
    name: "clusterrole-aggregation-controller",
    user: "clusterrole-aggregation-controller",
    watches: &[Watch { resource: CLUSTER_ROLES, keys }],
    reconcile,
    refused: None,
    resync_secs: None,
};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct View {
    #[serde(default)]
    rules: Option<Vec<Value>>,
}

/// The rules of such a role can be long, and are not looked at.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Aggregating {
    #[serde(default)]
    aggregation_rule: Option<AggregationRule>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AggregationRule {
    #[serde(default)]
    cluster_role_selectors: Vec<LabelSelector>,
}

/// A role may be part of any aggregate.
fn keys(snapshot: &Snapshot, _: &Event) -> Vec<Key> {
    let aggregates = |role: &&std::sync::Arc<Object>| selectors(role).is_some();
    snapshot.list(CLUSTER_ROLES, "").filter(aggregates).map(|role| role.key.clone()).collect()
}

/// Few roles have any, and all are looked at for each that changes: those that do not speak of it are not decoded.
fn selectors(role: &Object) -> Option<Vec<LabelSelector>> {
    let text = std::str::from_utf8(&role.body).ok()?;
    if !text.contains("\"aggregationRule\"") {
        return None;
    }
    Some(role.decode::<Aggregating>().ok()?.aggregation_rule?.cluster_role_selectors)
}

fn reconcile(snapshot: &Snapshot, key: &Key, _: Time, _: &Settings) -> Plan {
    let mut plan = Plan::default();
    let Some(role) = snapshot.get(key) else { return plan };
    let Some(selectors) = selectors(role) else { return plan };
    let mut seen = BTreeSet::new();
    let mut rules = Vec::new();
    for part in snapshot.list(CLUSTER_ROLES, "").filter(|part| part.key != *key) {
        if !selectors.iter().any(|selector| selector.matches(&part.meta.labels)) {
            continue;
        }
        let of_part = part.decode::<View>().ok().and_then(|view| view.rules).unwrap_or_default();
        rules.extend(of_part.into_iter().filter(|rule| seen.insert(rule.to_string())));
    }
    let held = role.decode::<View>().ok().and_then(|view| view.rules).unwrap_or_default();
    if held != rules {
        plan.write(merge(role, json!({"rules": rules})));
    }
    plan
}
