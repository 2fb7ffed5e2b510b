//! Counts what a namespace uses, for its ResourceQuotas. Admission charges what comes; this finds what went.
//!
//! <https://kubernetes.io/docs/concepts/policy/resource-quotas/>

use std::collections::BTreeMap;
use std::sync::Arc;

use kinds::quota::{self, Scopes};
use kinds::{PERSISTENT_VOLUME_CLAIMS, PODS, RESOURCE_QUOTAS, SERVICES};
use object::{Change, Event, Key, Object, Resource, Snapshot, Time};
use plan::{Expect, Plan, Write};
use schema::Quantity;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::views::status_of;
use crate::writes::difference;
use crate::{Controller, EVERY, Settings, Watch};

pub static CONTROLLER: Controller = Controller {
    name: "resourcequota-controller",
    user: "resourcequota-controller",
    watches: &[Watch { resource: EVERY, keys }],
    reconcile,
    refused: None,
    resync_secs: Some(300),
};

#[derive(Deserialize)]
struct View {
    spec: Spec,
}

#[derive(Deserialize)]
struct Spec {
    #[serde(default)]
    hard: BTreeMap<String, Value>,
    #[serde(flatten)]
    scopes: Scopes,
}

/// A quota itself; and all of a namespace when something in it goes or changes what it uses.
fn keys(snapshot: &Snapshot, event: &Event) -> Vec<Key> {
    let key = event.key();
    if key.resource == RESOURCE_QUOTAS && event.change != Change::Deleted {
        return vec![key.clone()];
    }
    if key.namespace.is_empty() || event.change == Change::Updated && !may_change(key.resource) {
        return Vec::new();
    }
    let concerned = |quota: &&Arc<Object>| {
        let view = quota.decode::<View>();
        view.is_ok_and(|view| view.spec.hard.keys().any(|name| quota::concerns(key.resource, name)))
    };
    snapshot.list(RESOURCE_QUOTAS, &key.namespace).filter(concerned).map(|quota| quota.key.clone()).collect()
}

fn reconcile(snapshot: &Snapshot, key: &Key, now: Time, _: &Settings) -> Plan {
    let mut plan = Plan::default();
    let Some(quota) = snapshot.get(key).filter(|quota| !quota.meta.is_deleting()) else { return plan };
    let Ok(View { spec }) = quota.decode() else { return plan };
    let used = used(snapshot, &key.namespace, &spec, now, &mut plan);
    let mut new = json!({});
    if !spec.hard.is_empty() {
        let used: BTreeMap<&String, String> =
            used.iter().map(|(name, amount)| (*name, amount.to_string())).collect();
        new = json!({"hard": spec.hard, "used": used});
    }
    let patch = difference(&status_of(quota), new);
    if !patch.is_empty() {
        // Admission charges here too.
        plan.write(Write::Merge {
            key: key.clone(),
            expect: Expect::unchanged(quota),
            subresource: "status",
            patch: json!({"status": patch}),
        });
    }
    plan
}

/// Looks again when a pod that is to go stops counting.
fn used<'s>(
    snapshot: &Snapshot,
    namespace: &str,
    spec: &'s Spec,
    now: Time,
    plan: &mut Plan,
) -> BTreeMap<&'s String, Quantity> {
    let mut used: BTreeMap<&String, Quantity> =
        spec.hard.keys().map(|name| (name, Quantity::default())).collect();
    let resources: Vec<Resource> = snapshot.tables().map(|(resource, _)| resource).collect();
    for resource in resources {
        let names: Vec<&String> = spec.hard.keys().filter(|name| quota::concerns(resource, name)).collect();
        if names.is_empty() {
            continue;
        }
        for object in snapshot.list(resource, namespace) {
            let Ok(value) = object.to_value() else { continue };
            if !spec.scopes.match_object(resource, &value) {
                continue;
            }
            let amounts = quota::usage(resource, &value, now);
            if let Some(end) = quota::freed_at(&value).filter(|end| resource == PODS && *end >= now) {
                plan.wake(end.plus_secs(1));
            }
            for &name in &names {
                if let (Some(amount), Some(total)) = (amounts.get(name), used.get_mut(name)) {
                    *total += *amount;
                }
            }
        }
    }
    used
}

/// Can an update change what an object uses? Pods end or are resized, Services change their type, claims grow.
fn may_change(resource: Resource) -> bool {
    matches!(resource, PODS | SERVICES | PERSISTENT_VOLUME_CLAIMS)
}
