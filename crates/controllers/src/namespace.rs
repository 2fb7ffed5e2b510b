//! Empties a namespace that is being deleted, and lets go of it when nothing is left.
//!
//! Pods go first and alone, so that what they depend on outlives them (KEP-5080). What is left, and whose finalizers hold it, stands in
//! the conditions.
//!
//! <https://kubernetes.io/docs/concepts/overview/working-with-objects/namespaces/>

use std::collections::BTreeMap;
use std::sync::Arc;

use kinds::{CUSTOM_RESOURCE_DEFINITIONS, NAMESPACES, PODS};
use object::{Event, Key, Object, Resource, Snapshot, Time};
use plan::{Expect, Plan, Propagation, Write};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::views::{Condition, condition, set_condition, status_of};
use crate::writes::write_status;
use crate::{Controller, EVERY, Settings, Watch};

pub static CONTROLLER: Controller = Controller {
    name: "namespace-controller",
    user: "namespace-controller",
    watches: &[Watch { resource: EVERY, keys }],
    reconcile,
    refused: None,
    resync_secs: None,
};

/// The entry of `spec.finalizers` that this controller stands for.
const FINALIZER: &str = "kubernetes";
/// Deletions of one plan.
const BATCH: usize = 500;

/// A namespace itself, or whatever happens inside one that is being deleted.
fn keys(snapshot: &Snapshot, event: &Event) -> Vec<Key> {
    let key = event.key();
    if key.resource == NAMESPACES {
        return vec![key.clone()];
    }
    let namespace = Key::cluster(NAMESPACES, key.namespace.clone());
    let deleting = snapshot.get(&namespace).is_some_and(|found| found.meta.is_deleting());
    if deleting { vec![namespace] } else { Vec::new() }
}

#[derive(Deserialize)]
struct View {
    #[serde(default)]
    spec: Spec,
}

#[derive(Default, Deserialize)]
struct Spec {
    #[serde(default)]
    finalizers: Vec<String>,
}

fn reconcile(snapshot: &Snapshot, key: &Key, now: Time, _: &Settings) -> Plan {
    let mut plan = Plan::default();
    let Some(namespace) = snapshot.get(key).filter(|found| found.meta.is_deleting()) else { return plan };
    let Ok(View { spec }) = namespace.decode() else { return plan };
    if !spec.finalizers.iter().any(|held| held == FINALIZER) {
        return plan;
    }
    let content = content(snapshot, &key.name);
    if content.is_empty() {
        finalize(namespace, &spec, &mut plan);
        return plan;
    }
    let turn: Vec<&Arc<Object>> = match content.get(&PODS) {
        Some(pods) => pods.clone(),
        None => content.values().flatten().copied().collect(),
    };
    for object in turn.into_iter().filter(|object| !object.meta.is_deleting()).take(BATCH) {
        plan.write(Write::Delete {
            key: object.key.clone(),
            expect: Expect::same(object),
            grace_seconds: None,
            propagation: Some(Propagation::Background),
        });
    }
    tell(namespace, &content, now, &mut plan);
    plan
}

/// Everything that lives in the namespace. What nobody serves any more (a definition that was torn out) holds nothing.
fn content<'a>(snapshot: &'a Snapshot, namespace: &'a str) -> BTreeMap<Resource, Vec<&'a Arc<Object>>> {
    let mut content = BTreeMap::new();
    let is_served = |resource: Resource| {
        kinds::of(resource).is_some()
            || snapshot.find(CUSTOM_RESOURCE_DEFINITIONS, "", resource.as_str()).is_some()
    };
    for (resource, table) in snapshot.tables().filter(|(resource, _)| is_served(*resource)) {
        let objects: Vec<_> = table.range(namespace, None).collect();
        if !objects.is_empty() {
            content.insert(resource, objects);
        }
    }
    content
}

fn finalize(namespace: &Object, spec: &Spec, plan: &mut Plan) {
    let rest: Vec<&String> = spec.finalizers.iter().filter(|held| *held != FINALIZER).collect();
    plan.write(Write::Merge {
        key: namespace.key.clone(),
        expect: Expect::unchanged(namespace),
        subresource: "finalize",
        patch: json!({"spec": {"finalizers": rest}}),
    });
}

/// The five conditions of a namespace on its way out. Objects count as remaining once their deletion has begun and not ended.
fn tell(namespace: &Object, content: &BTreeMap<Resource, Vec<&Arc<Object>>>, now: Time, plan: &mut Plan) {
    let old = status_of(namespace);
    let held = old.get("conditions").cloned().unwrap_or_default();
    let mut conditions: Vec<Condition> = serde_json::from_value(held).unwrap_or_default();
    let resources = remaining(content);
    let finalizers = finalizers(content);
    for (kind, fine, bad, trouble) in [
        (
            "NamespaceDeletionDiscoveryFailure",
            ("ResourcesDiscovered", "All resources successfully discovered"),
            "",
            None,
        ),
        (
            "NamespaceDeletionGroupVersionParsingFailure",
            ("ParsedGroupVersions", "All legacy kube types successfully parsed"),
            "",
            None,
        ),
        (
            "NamespaceDeletionContentFailure",
            ("ContentDeleted", "All content successfully deleted, may be waiting on finalization"),
            "",
            None,
        ),
        (
            "NamespaceContentRemaining",
            ("ContentRemoved", "All content successfully removed"),
            "SomeResourcesRemain",
            resources,
        ),
        (
            "NamespaceFinalizersRemaining",
            ("ContentHasNoFinalizers", "All content-preserving finalizers finished"),
            "SomeFinalizersRemain",
            finalizers,
        ),
    ] {
        let new = match trouble {
            Some(message) => Condition::new(kind, "True", bad, message, now),
            None => Condition::new(kind, "False", fine.0, fine.1, now),
        };
        let same = |old: &Condition| {
            (&old.status, &old.reason, &old.message) == (&new.status, &new.reason, &new.message)
        };
        if !condition(&conditions, kind).is_some_and(same) {
            set_condition(&mut conditions, new);
        }
    }
    let mut new = if old.is_object() { old.clone() } else { json!({}) };
    new["phase"] = "Terminating".into();
    new["conditions"] = json!(conditions);
    write_status(plan, namespace, &old, new);
}

/// `Some resources are remaining: pods. has 1 resource instances`
fn remaining(content: &BTreeMap<Resource, Vec<&Arc<Object>>>) -> Option<String> {
    let parts: Vec<String> = content
        .iter()
        .map(|(resource, objects)| {
            (resource, objects.iter().filter(|object| object.meta.is_deleting()).count())
        })
        .filter(|(_, count)| *count > 0)
        .map(|(resource, count)| {
            format!("{}.{} has {count} resource instances", resource.plural(), resource.group())
        })
        .collect();
    (!parts.is_empty()).then(|| format!("Some resources are remaining: {}", parts.join(", ")))
}

fn finalizers(content: &BTreeMap<Resource, Vec<&Arc<Object>>>) -> Option<String> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for finalizer in content.values().flatten().flat_map(|object| &object.meta.finalizers) {
        *counts.entry(finalizer).or_default() += 1;
    }
    let parts: Vec<String> =
        counts.iter().map(|(name, count)| format!("{name} in {count} resource instances")).collect();
    (!parts.is_empty())
        .then(|| format!("Some content in the namespace has finalizers remaining: {}", parts.join(", ")))
}

/// Is this a namespace that new things may be made in?
pub fn is_active(namespace: &Object) -> bool {
    let phase = status_of(namespace);
    !namespace.meta.is_deleting() && phase.get("phase").and_then(Value::as_str) != Some("Terminating")
}
