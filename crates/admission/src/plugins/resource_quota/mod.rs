//! A namespace takes no more than its quotas say: <https://kubernetes.io/docs/concepts/policy/resource-quotas/>.
//!
//! Last of all plugins: what it charges is charged for a request that everybody else has let pass. The new usage goes
//! into the same commit as the request, with the revision of the quota it was computed from, so that two requests never
//! share the last of it.

mod constraints;
pub(crate) mod limited;

use std::sync::Arc;

use kinds::amounts::Amounts;
use kinds::quota::{self, Scopes};
use object::{Object, Resource, Snapshot, Status};
use plan::{Expect, Write};
use schema::Quantity;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{Operation, Request};
use limited::Covered;

pub const NAME: &str = "ResourceQuota";

#[derive(Default, Deserialize)]
#[serde(default)]
struct Quota {
    spec: Scopes,
    status: QuotaStatus,
}

impl Quota {
    /// The names under which it limits a resource.
    fn restricted(&self, resource: Resource) -> Vec<&String> {
        self.status.hard.keys().filter(|name| quota::concerns(resource, name)).collect()
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct QuotaStatus {
    hard: Amounts,
    used: Amounts,
}

pub fn charge(snapshot: &Snapshot, request: &Request, object: &Value) -> Result<Vec<Write>, Status> {
    if !is_charged(request) {
        return Ok(Vec::new());
    }
    let resource = request.key.resource;
    let held: Vec<(&Arc<Object>, Quota)> = snapshot
        .list(kinds::RESOURCE_QUOTAS, &request.key.namespace)
        .map(|held| Ok((held, held.decode()?)))
        .collect::<Result<_, serde_json::Error>>()
        .map_err(Status::internal)?;
    if held.is_empty() && request.configuration.limited.is_empty() {
        return Ok(Vec::new());
    }
    let mut covered = Covered::default();
    let mut charges = Vec::new();
    for (held, quota) in &held {
        covered.scopes.extend(quota.spec.held(resource, object));
        if !quota.spec.match_object(resource, object) {
            continue;
        }
        let restricted = quota.restricted(resource);
        if resource == kinds::PODS {
            constraints::check(object, &restricted).map_err(|why| {
                request.forbidden(Some(object), format!("failed quota: {}: {why}", held.key.name))
            })?;
        }
        if restricted.iter().any(|name| !quota.status.used.contains_key(*name)) {
            let names: Vec<&str> = restricted.iter().map(|name| name.as_str()).collect();
            let why = format!("status unknown for quota: {}, resources: {}", held.key.name, names.join(","));
            return Err(request.forbidden(Some(object), why));
        }
        covered.names.extend(restricted.into_iter().map(String::as_str));
        charges.push((held, quota));
    }
    let wanted = quota::usage(resource, object, request.now);
    let negative: Vec<&str> =
        wanted.iter().filter(|(_, amount)| amount.is_negative()).map(|(name, _)| name.as_str()).collect();
    if !negative.is_empty() {
        let why = format!("quota usage is negative for resource(s): {}", negative.join(","));
        return Err(request.forbidden(Some(object), why));
    }
    let deltas: Vec<Amounts> = charges
        .iter()
        .map(|(_, quota)| delta(request, &wanted, |old| quota.spec.match_object(resource, old)))
        .collect();
    let grows = |delta: &Amounts| delta.values().any(|amount| !amount.is_negative());
    let is_more = match deltas[..] {
        [] => grows(&delta(request, &wanted, |_| true)),
        _ => deltas.iter().any(grows),
    };
    // Who only gives back needs no quota for it.
    if is_more {
        limited::check(request, object, &wanted, &covered)?;
    }
    let mut writes = Vec::new();
    for ((held, quota), delta) in charges.into_iter().zip(&deltas) {
        writes.extend(charge_one(request, object, held, quota, delta)?.filter(|_| !request.dry_run));
    }
    Ok(writes)
}

/// New objects, and updates that can change how much is used.
fn is_charged(request: &Request) -> bool {
    const CHANGE: [object::Resource; 3] =
        [kinds::PERSISTENT_VOLUME_CLAIMS, kinds::RESOURCE_CLAIMS, kinds::SERVICES];
    let resource = request.key.resource;
    match (request.operation, request.subresource) {
        (Operation::Create, "") => request.namespaced,
        (Operation::Update, "") => CHANGE.contains(&resource),
        (Operation::Update, "status") => resource == kinds::PERSISTENT_VOLUME_CLAIMS,
        (Operation::Update, "resize") => resource == kinds::PODS,
        _ => false,
    }
}

/// What the request adds to the usage, without what stays as it is; negative where an update gives something back. An object that is only
/// counted from this update on is charged whole.
fn delta(request: &Request, wanted: &Amounts, is_counted: impl Fn(&Value) -> bool) -> Amounts {
    let mut delta = wanted.clone();
    let old = request.old.filter(|_| request.operation == Operation::Update);
    if let Some(old) = old.filter(|old| is_counted(old)) {
        for (name, amount) in quota::usage(request.key.resource, old, request.now) {
            *delta.entry(name).or_insert(Quantity::ZERO) -= amount;
        }
    }
    delta.retain(|_, amount| !amount.is_zero());
    delta
}

fn charge_one(
    request: &Request,
    object: &Value,
    held: &Object,
    quota: &Quota,
    delta: &Amounts,
) -> Result<Option<Write>, Status> {
    let zero = Quantity::ZERO;
    let QuotaStatus { hard, used } = &quota.status;
    let asked: Vec<(&String, Quantity)> = delta
        .iter()
        .filter(|(name, _)| hard.contains_key(*name))
        .map(|(name, amount)| (name, *amount))
        .collect();
    if asked.is_empty() {
        return Ok(None);
    }
    let used_of = |name: &String| used.get(name).copied().unwrap_or(zero);
    let exceeded: Vec<&(&String, Quantity)> = asked
        .iter()
        .filter(|(name, amount)| !amount.is_negative() && used_of(name) + *amount > hard[*name])
        .collect();
    // What a controller found to be used is used, whatever the quota says.
    if !exceeded.is_empty() && request.subresource != "status" {
        let print = |amount: &dyn Fn(&(&String, Quantity)) -> Quantity| {
            let items: Vec<String> =
                exceeded.iter().map(|item| format!("{}={}", item.0, amount(item))).collect();
            items.join(",")
        };
        let why = format!(
            "exceeded quota: {}, requested: {}, used: {}, limited: {}",
            held.key.name,
            print(&|item| item.1),
            print(&|item| used_of(item.0)),
            print(&|item| hard[item.0]),
        );
        return Err(request.forbidden(Some(object), why));
    }
    let after: serde_json::Map<String, Value> =
        asked.into_iter().map(|(name, amount)| (name.clone(), json!(used_of(name) + amount))).collect();
    Ok(Some(Write::Merge {
        key: held.key.clone(),
        expect: Expect::unchanged(held),
        subresource: "status",
        patch: json!({"status": {"used": after}}),
    }))
}
