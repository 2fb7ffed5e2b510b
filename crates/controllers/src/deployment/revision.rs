//! Which ReplicaSet is whose: templates, revisions, and the annotations that `kubectl rollout` reads.

use std::collections::BTreeMap;

use object::{Key, Snapshot};
use plan::{Expect, Write};
use serde_json::{Value, json};

use super::status;
use super::{Deployment, KIND, POD_TEMPLATE_HASH, Run, Set, scale};
use crate::naming::template_hash;
use crate::views::set_condition;
use crate::writes::{delete, merge, write_status};
use kinds::REPLICA_SETS;

const REVISION: &str = "deployment.kubernetes.io/revision";
const HISTORY: &str = "deployment.kubernetes.io/revision-history";
pub const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
pub const MAX: &str = "deployment.kubernetes.io/max-replicas";
/// Longest list of former revisions that a set keeps, in characters.
const HISTORY_CHARACTERS: usize = 2_000;
/// Annotations of the Deployment that its sets do not get.
const NOT_COPIED: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    HISTORY,
    DESIRED,
    MAX,
    "deprecated.deployment.rollback.to",
];

/// The oldest set whose template is the Deployment's. `sets` are oldest first.
pub fn find_new(deployment: &Deployment, sets: &[Set]) -> Option<usize> {
    let template = &deployment.spec.template;
    let wanted = (comparable(&template.0), comparable(&template.completed()));
    sets.iter().position(|set| {
        comparable(&set.template.0) == wanted.0 || comparable(&set.template.completed()) == wanted.1
    })
}

/// A template without what is added to it in a set, or says nothing.
fn comparable(template: &Value) -> Value {
    let mut value = template.clone();
    let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) else { return value };
    if let Some(labels) = metadata.get_mut("labels").and_then(Value::as_object_mut) {
        labels.remove(POD_TEMPLATE_HASH);
    }
    metadata.retain(|_, member| !member.is_null() && member.as_object().is_none_or(|map| !map.is_empty()));
    value
}

/// Brings the annotations of the current set, and of the Deployment, up to its revision. True if the set is to be written.
pub fn update_new(run: &mut Run) -> bool {
    let Some(new) = run.new.clone() else { return false };
    let revision = next_revision(run);
    let annotations = annotations(run.deployment, &new.annotations, revision);
    let min_ready = run.deployment.spec.min_ready_seconds;
    let changes = annotations != new.annotations || new.min_ready_seconds != min_ready;
    if changes {
        let added: BTreeMap<_, _> =
            annotations.iter().filter(|(name, value)| new.annotations.get(*name) != Some(value)).collect();
        let mut patch = json!({});
        if new.min_ready_seconds != min_ready {
            patch["spec"] = json!({"minReadySeconds": min_ready});
        }
        if !added.is_empty() {
            patch["metadata"] = json!({"annotations": added});
        }
        run.plan.write(merge(&new.object, patch));
    }
    if let Some(revision) = annotations.get(REVISION) {
        write_revision(run, revision);
    }
    changes
}

fn write_revision(run: &mut Run, revision: &str) {
    let object = &run.deployment.object;
    if run.deployment.annotations.get(REVISION).is_none_or(|held| held != revision) {
        run.plan.write(Write::Merge {
            key: object.key.clone(),
            expect: Expect::same(object),
            subresource: "",
            patch: json!({"metadata": {"annotations": {REVISION: revision}}}),
        });
    }
}

fn next_revision(run: &Run) -> i64 {
    run.old.iter().map(|set| set.number(REVISION)).max().unwrap_or(0) + 1
}

/// The annotations that the current set should have, given those it has.
fn annotations(
    deployment: &Deployment,
    held: &BTreeMap<String, String>,
    revision: i64,
) -> BTreeMap<String, String> {
    let mut new = held.clone();
    let copied = deployment.annotations.iter().filter(|(name, _)| !NOT_COPIED.contains(&name.as_str()));
    new.extend(copied.map(|(name, value)| (name.clone(), value.clone())));
    let old = held.get(REVISION);
    let old_number: i64 = old.and_then(|text| text.parse().ok()).unwrap_or(0);
    if old_number < revision {
        new.insert(REVISION.into(), revision.to_string());
        if let Some(old) = old {
            let history = append(held.get(HISTORY), old);
            new.insert(HISTORY.into(), history);
        }
    }
    new
}

/// `1,3` and `5` → `1,3,5`; the oldest go when it gets too long.
fn append(history: Option<&String>, revision: &str) -> String {
    let known = history.map(String::as_str).unwrap_or_default();
    let mut parts: Vec<&str> = known.split(',').filter(|part| !part.is_empty()).collect();
    parts.push(revision);
    let mut length = parts.iter().map(|part| part.len() + 1).sum::<usize>() - 1;
    let mut first = 0;
    while length > HISTORY_CHARACTERS && first + 1 < parts.len() {
        length -= parts[first].len() + 1;
        first += 1;
    }
    parts[first..].join(",")
}

/// Makes the ReplicaSet of the current template. A name that is taken by another template counts as a collision of hashes.
pub fn create_new(run: &mut Run, snapshot: &Snapshot) {
    let deployment = run.deployment;
    let hash = template_hash(
        &comparable(&deployment.spec.template.0),
        deployment.status.collision_count.unwrap_or(0),
    );
    let name = format!("{}-{hash}", deployment.name());
    if snapshot.get(&Key::new(REPLICA_SETS, deployment.object.key.namespace.clone(), name.as_str())).is_some()
    {
        let mut status = deployment.old_status.clone();
        status["collisionCount"] = (deployment.status.collision_count.unwrap_or(0) + 1).into();
        write_status(&mut run.plan, &deployment.object, &deployment.old_status, status);
        return;
    }
    let replicas = scale::size_of_new(run, 0);
    let revision = next_revision(run);
    let mut annotations = annotations(deployment, &BTreeMap::new(), revision);
    annotations.extend(scale::size_annotations(deployment));
    let object = replica_set(deployment, &name, &hash, replicas, &annotations);
    run.plan.write(Write::Create { resource: REPLICA_SETS, object });
    if replicas > 0 {
        let message = format!("Scaled up replica set {name} from 0 to {replicas}");
        run.event(false, "ScalingReplicaSet", message);
    }
    write_revision(run, &revision.to_string());
    if deployment.has_progress_deadline() {
        tell_created(run, &name);
    }
}

fn tell_created(run: &mut Run, name: &str) {
    let deployment = run.deployment;
    let mut conditions = deployment.status.conditions.clone();
    let message = format!("Created new replica set \"{name}\"");
    set_condition(
        &mut conditions,
        status::condition("Progressing", "True", "NewReplicaSetCreated", message, run.now),
    );
    run.plan.write(Write::Merge {
        key: deployment.object.key.clone(),
        expect: Expect::same(&deployment.object),
        subresource: "status",
        patch: json!({"status": {"conditions": conditions}}),
    });
}

fn replica_set(
    deployment: &Deployment,
    name: &str,
    hash: &str,
    replicas: i64,
    annotations: &BTreeMap<String, String>,
) -> Value {
    let mut template = deployment.spec.template.0.clone();
    template["metadata"]["labels"][POD_TEMPLATE_HASH] = hash.into();
    let mut selector = deployment.spec.selector.clone();
    selector["matchLabels"][POD_TEMPLATE_HASH] = hash.into();
    let mut spec = json!({"replicas": replicas, "selector": selector, "template": template});
    if deployment.spec.min_ready_seconds > 0 {
        spec["minReadySeconds"] = deployment.spec.min_ready_seconds.into();
    }
    json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet",
        "metadata": {
            "name": name, "namespace": &*deployment.object.key.namespace,
            "labels": spec["template"]["metadata"]["labels"],
            "annotations": annotations,
            "ownerReferences": [KIND.controller_ref(&deployment.object)],
        },
        "spec": spec,
    })
}

/// Deletes the sets that the history has no room for, oldest revision first.
pub fn clean_up(run: &mut Run) {
    let Some(limit) =
        run.deployment.spec.revision_history_limit.and_then(|limit| usize::try_from(limit).ok())
    else {
        return;
    };
    let mut kept: Vec<&Set> = run.old.iter().filter(|set| !set.object.meta.is_deleting()).collect();
    let Some(surplus) = kept.len().checked_sub(limit) else { return };
    kept.sort_by_key(|set| set.number(REVISION));
    let is_idle = |set: &&&Set| {
        set.status.replicas == 0
            && set.replicas == 0
            && set.object.meta.generation <= set.status.observed_generation
    };
    let idle: Vec<Write> = kept.iter().take(surplus).filter(is_idle).map(|set| delete(&set.object)).collect();
    run.plan.writes.extend(idle);
}

/// Scales a set, or only refreshes the sizes that proportional scaling reads.
pub fn write_size(run: &mut Run, set: &Set, replicas: i64) -> bool {
    let wanted = scale::size_annotations(run.deployment);
    let stale = wanted.iter().any(|(name, value)| set.annotations.get(name) != Some(value));
    if set.replicas == replicas && !stale {
        return false;
    }
    let mut patch = json!({"metadata": {"annotations": wanted}});
    if set.replicas != replicas {
        patch["spec"] = json!({"replicas": replicas});
        let direction = if replicas > set.replicas { "up" } else { "down" };
        let message =
            format!("Scaled {direction} replica set {} from {} to {replicas}", set.name(), set.replicas);
        run.event(false, "ScalingReplicaSet", message);
    }
    run.plan.write(merge(&set.object, patch));
    set.replicas != replicas
}
