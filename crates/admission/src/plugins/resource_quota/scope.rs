//! Which objects a quota is about: its scopes, all of which must hold.

use object::Resource;
use schema::path;
use serde::Deserialize;
use serde_json::Value;

use crate::pod;

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Scopes {
    scopes: Vec<String>,
    scope_selector: Selector,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Selector {
    match_expressions: Vec<Expression>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Expression {
    scope_name: String,
    operator: String,
    values: Vec<String>,
}

impl Scopes {
    pub(super) fn match_object(&self, resource: Resource, object: &Value) -> bool {
        if self.scopes.is_empty() && self.scope_selector.match_expressions.is_empty() {
            return true;
        }
        self.scopes.iter().all(|scope| holds(resource, object, scope, "Exists", &[]))
            && self
                .scope_selector
                .match_expressions
                .iter()
                .all(|term| holds(resource, object, &term.scope_name, &term.operator, &term.values))
    }
}

fn holds(resource: Resource, object: &Value, scope: &str, operator: &str, values: &[String]) -> bool {
    match (resource, scope) {
        (kinds::PODS, "Terminating") => path::int(object, "spec.activeDeadlineSeconds").is_some(),
        (kinds::PODS, "NotTerminating") => path::int(object, "spec.activeDeadlineSeconds").is_none(),
        (kinds::PODS, "BestEffort") => pod::is_best_effort(object),
        (kinds::PODS, "NotBestEffort") => !pod::is_best_effort(object),
        (kinds::PODS, "PriorityClass") => {
            selects(path::text(object, "spec.priorityClassName"), operator, values)
        }
        (kinds::PODS, "CrossNamespacePodAffinity") => crosses_namespaces(object),
        (kinds::PERSISTENT_VOLUME_CLAIMS, "VolumeAttributesClass") => {
            selects(path::text(object, "spec.volumeAttributesClassName"), operator, values)
        }
        _ => false,
    }
}

fn selects(held: &str, operator: &str, values: &[String]) -> bool {
    let listed = values.iter().any(|value| value == held);
    match operator {
        "In" => !held.is_empty() && listed,
        "NotIn" => !listed,
        "DoesNotExist" => held.is_empty(),
        _ => !held.is_empty(),
    }
}

fn crosses_namespaces(object: &Value) -> bool {
    ["podAffinity", "podAntiAffinity"].into_iter().any(|kind| {
        let affinity = &object["spec"]["affinity"][kind];
        let required = path::list(affinity, "requiredDuringSchedulingIgnoredDuringExecution").iter();
        let preferred = path::list(affinity, "preferredDuringSchedulingIgnoredDuringExecution");
        required
            .chain(preferred.iter().map(|held| &held["podAffinityTerm"]))
            .any(|term| !path::list(term, "namespaces").is_empty() || term["namespaceSelector"].is_object())
    })
}
