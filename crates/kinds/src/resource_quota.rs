use object::Resource;
use schema::{At, Kind, Violation, path};
use serde_json::Value;

use crate::column::{AGE, NAME, column};
use crate::spec::{
    check::{self, Found},
    resources,
};
use crate::{row, strategy, subresource};

pub const RESOURCE_QUOTAS: Resource = Resource::new("resourcequotas");

pub static KIND: Kind = Kind {
    resource: RESOURCE_QUOTAS,
    group: "",
    version: "v1",
    kind: "ResourceQuota",
    singular: "resourcequota",
    short_names: &["quota"],
    namespaced: true,
    subresources: &[subresource::STATUS],
    type_name: "core.v1.ResourceQuota",
    columns: &[
        NAME,
        column("Request", "string", "What is used of what may be asked for.", |object, _| {
            used(object, false).into()
        }),
        column("Limit", "string", "What is used of what may be limited to.", |object, _| {
            used(object, true).into()
        }),
        AGE,
    ],
    strategy: strategy::STATUS,
    validate,
    ..row::BASE
};

const SCOPES: [&str; 7] = [
    "BestEffort",
    "CrossNamespacePodAffinity",
    "NotBestEffort",
    "NotTerminating",
    "PriorityClass",
    "Terminating",
    "VolumeAttributesClass",
];
const CONFLICTS: [(&str, &str); 2] = [("BestEffort", "NotBestEffort"), ("Terminating", "NotTerminating")];
/// What else may stand without a prefix.
const STANDARD: [&str; 17] = [
    "configmaps",
    "cpu",
    "ephemeral-storage",
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "memory",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
    "requests.storage",
    "resourcequotas",
    "secrets",
    "services",
];

fn used(quota: &Value, limits: bool) -> String {
    let hard = path::members(quota, "status.hard").filter(|(name, _)| name.starts_with("limits.") == limits);
    let used = path::get(quota, "status.used").unwrap_or(&Value::Null);
    let one = |(name, most): (&String, &Value)| {
        let held = used.get(name).and_then(Value::as_str).unwrap_or("0");
        format!("{name}: {held}/{}", most.as_str().unwrap_or_default())
    };
    hard.map(one).collect::<Vec<_>>().join(", ")
}

fn validate(quota: &Value, old: Option<&Value>) -> Vec<Violation> {
    let mut found = Vec::new();
    for list in ["spec.hard", "status.hard", "status.used"] {
        let amounts = path::get(quota, list).unwrap_or(&Value::Null);
        for (resource, _) in amounts.as_object().into_iter().flatten() {
            let at = At::root(list);
            let at = at.key(resource);
            resource_name(resource, at, &mut found);
            if let Some(amount) = resources::amount(amounts, resource) {
                resources::validate_amount(resource, amount, at, &mut found);
            }
        }
    }
    scopes(quota, &mut found);
    if let Some(old) = old {
        check::immutable(&quota["spec"], &old["spec"], "scopes", At::root("spec"), &mut found);
    }
    found
}

fn is_standard(resource: &str) -> bool {
    let plain = resource.strip_prefix("requests.").or(resource.strip_prefix("limits.")).unwrap_or(resource);
    STANDARD.contains(&resource)
        || matches!(resource, "services.loadbalancers" | "services.nodeports")
        || resources::is_hugepages(plain)
}

fn resource_name(resource: &str, at: At<'_>, found: &mut Found) {
    resources::validate_name(resource, at, found);
    if !resource.contains('/') && !is_standard(resource) {
        found.push(Violation::invalid(at, resource, "must be a standard resource for quota"));
    }
}

/// What each scope can count, of standard resources: those of pods, those of claims, or everything.
fn counts(scope: &str, resource: &str) -> bool {
    let plain = resource.strip_prefix("requests.").or(resource.strip_prefix("limits.")).unwrap_or(resource);
    let is_compute = matches!(plain, "cpu" | "memory");
    match scope {
        "BestEffort" => resource == "pods",
        "NotBestEffort"
        | "Terminating"
        | "NotTerminating"
        | "PriorityClass"
        | "CrossNamespacePodAffinity" => resource == "pods" || is_compute,
        "VolumeAttributesClass" => matches!(resource, "persistentvolumeclaims" | "requests.storage"),
        _ => true,
    }
}

fn scopes(quota: &Value, found: &mut Found) {
    let hard: Vec<&str> = path::members(quota, "spec.hard").map(|(resource, _)| resource.as_str()).collect();
    let scopes = path::list(quota, "spec.scopes");
    let at = At::root("spec.scopes");
    let misses = |scope: &str| hard.iter().filter(|one| is_standard(one) && !counts(scope, one)).count();
    const APPLIED: &str = "unsupported scope applied to resource";
    for scope in scopes {
        let scope = scope.as_str().unwrap_or_default();
        if !SCOPES.contains(&scope) {
            found.push(Violation::invalid(at, scopes, "unsupported scope"));
        }
        found.extend((0..misses(scope)).map(|_| Violation::invalid(at, scopes, APPLIED)));
    }
    let conflicts = |names: &[&str], at: At<'_>| {
        let has = |scope: &str| names.contains(&scope);
        let count = CONFLICTS.iter().filter(|(one, other)| has(one) && has(other)).count();
        vec![Violation::invalid(at, path::get(quota, "spec.scopes"), "conflicting scopes"); count]
    };
    let names: Vec<&str> = scopes.iter().filter_map(Value::as_str).collect();
    found.extend(conflicts(&names, at));
    let selector = path::get(quota, "spec.scopeSelector");
    let at = At::root("spec.scopeSelector.matchExpressions");
    let expressions = path::list(quota, "spec.scopeSelector.matchExpressions");
    for expression in expressions {
        let scope = path::text(expression, "scopeName");
        if !SCOPES.contains(&scope) {
            found.push(Violation::invalid(at.field("scopeName"), scope, "unsupported scope"));
        }
        found.extend((0..misses(scope)).map(|_| Violation::invalid(at, selector, APPLIED)));
        selects(expression, scope, at, found);
    }
    let names: Vec<&str> = expressions.iter().map(|one| path::text(one, "scopeName")).collect();
    found.extend(conflicts(&names, at));
}

/// What one expression asks of its scope.
fn selects(expression: &Value, scope: &str, at: At<'_>, found: &mut Found) {
    let operator = path::text(expression, "operator");
    let is_by_presence =
        SCOPES.contains(&scope) && !matches!(scope, "PriorityClass" | "VolumeAttributesClass");
    if is_by_presence && operator != "Exists" {
        let detail = "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity";
        found.push(Violation::invalid(at.field("operator"), operator, detail));
    }
    let values = path::list(expression, "values");
    match operator {
        "In" | "NotIn" if values.is_empty() => {
            let detail = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector";
            found.push(Violation::required(at.field("values"), detail));
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            let detail = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector";
            found.push(Violation::invalid(at.field("values"), values, detail));
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
        other => {
            found.push(Violation::invalid(at.field("operator"), other, "not a valid selector operator"));
        }
    }
}
