//! Accepts the names of a CustomResourceDefinition, says that it is established, and empties it before it goes.
//!
//! Two definitions of one group may not share a name; whoever was accepted first keeps it. What is wrong stands in the conditions.
//! <https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/>

use std::collections::HashSet;
use std::sync::Arc;

use kinds::custom::structural_violations;
use kinds::{Approval, CLEANUP, CUSTOM_RESOURCE_DEFINITIONS};
use object::{Event, Key, Object, Resource, Snapshot, Time};
use plan::{Expect, Plan, Propagation, Write};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::views::{Condition, condition, set_condition, status_of};
use crate::writes::{drop_finalizer, write_status};
use crate::{Controller, EVERY, Settings, Watch};

pub static CONTROLLER: Controller = Controller {
    name: "crd-controller",
    user: "crd-controller",
    watches: &[Watch { resource: EVERY, keys }],
    reconcile,
    refused: None,
    resync_secs: None,
};

/// Deletions of one plan.
const BATCH: usize = 500;

/// A definition and those that share its group; or the one of an object, if it is being emptied.
fn keys(snapshot: &Snapshot, event: &Event) -> Vec<Key> {
    let key = event.key();
    if key.resource != CUSTOM_RESOURCE_DEFINITIONS {
        let definition = Key::cluster(CUSTOM_RESOURCE_DEFINITIONS, key.resource.as_str());
        let is_emptied = snapshot.get(&definition).is_some_and(|found| found.meta.is_deleting());
        return if is_emptied { vec![definition] } else { Vec::new() };
    }
    let group = group_of(&key.name);
    let siblings = snapshot
        .list(CUSTOM_RESOURCE_DEFINITIONS, "")
        .map(|object| object.key.clone())
        .filter(|other| *other != *key && group_of(&other.name) == group);
    std::iter::once(key.clone()).chain(siblings).collect()
}

/// A definition is named `<plural>.<group>`.
fn group_of(name: &str) -> &str {
    name.split_once('.').map_or("", |(_, group)| group)
}

#[derive(Deserialize)]
struct View {
    metadata: Metadata,
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Deserialize)]
struct Metadata {
    #[serde(default)]
    annotations: Value,
}

#[derive(Deserialize)]
struct Spec {
    group: String,
    names: Names,
}

#[derive(Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
struct Names {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    categories: Vec<String>,
    kind: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    list_kind: String,
    plural: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    short_names: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    singular: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    accepted_names: Names,
    conditions: Vec<Condition>,
}

fn reconcile(snapshot: &Snapshot, key: &Key, now: Time, _: &Settings) -> Plan {
    let mut plan = Plan::default();
    let Some(definition) = snapshot.get(key) else { return plan };
    let Ok(view) = definition.decode::<View>() else { return plan };
    if definition.meta.is_deleting() {
        if definition.meta.has_finalizer(CLEANUP) {
            empty(snapshot, definition, view.status.conditions, now, &mut plan);
        }
        return plan;
    }
    let View { metadata, spec, status } = view;
    let others = others(snapshot, definition, &spec.group);
    let (accepted, clash) = accept(&spec.names, &status.accepted_names, &others);
    let mut conditions = status.conditions;
    let mut tell = |new: Condition| tell(&mut conditions, new);
    let is_accepted = clash.is_none();
    tell(match clash {
        None => Condition::new("NamesAccepted", "True", "NoConflicts", "no conflicts found", now),
        Some((reason, message)) => Condition::new("NamesAccepted", "False", reason, message, now),
    });
    if let Some(policy) = approval(&spec.group, &metadata.annotations, now) {
        tell(policy);
    }
    let violations = structural_violations(definition);
    if !violations.is_empty() {
        tell(Condition::new("NonStructuralSchema", "True", "Violations", violations.join(", "), now));
    }
    let words = "the initial names have been accepted";
    // Once established it stays so: objects may be there.
    if condition(&conditions, "Established").is_none_or(|held| held.status != "True") {
        let new = match is_accepted {
            true => Condition::new("Established", "True", "InitialNamesAccepted", words, now),
            false => Condition::new("Established", "False", "NotAccepted", "not all names are accepted", now),
        };
        self::tell(&mut conditions, new);
    }
    if violations.is_empty() {
        conditions.retain(|held| held.kind != "NonStructuralSchema");
    }
    let old = status_of(definition);
    let mut new = if old.is_object() { old.clone() } else { json!({}) };
    new["acceptedNames"] = json!(accepted);
    new["conditions"] = json!(conditions);
    write_status(&mut plan, definition, &old, new);
    plan
}

/// A condition that says nothing new keeps its time.
fn tell(conditions: &mut Vec<Condition>, new: Condition) {
    let same = |old: &Condition| {
        (&old.status, &old.reason, &old.message) == (&new.status, &new.reason, &new.message)
    };
    if !condition(conditions, &new.kind).is_some_and(same) {
        set_condition(conditions, new);
    }
}

/// The names that other definitions of the group hold.
#[derive(Default)]
struct Taken {
    /// Plural, singular and short names.
    resources: HashSet<String>,
    kinds: HashSet<String>,
}

fn others(snapshot: &Snapshot, definition: &Object, group: &str) -> Taken {
    let mut taken = Taken::default();
    for other in snapshot.list(CUSTOM_RESOURCE_DEFINITIONS, "") {
        if other.key == definition.key || group_of(&other.key.name) != group {
            continue;
        }
        let Ok(View { status, .. }) = other.decode::<View>() else { continue };
        let names = status.accepted_names;
        taken.resources.extend([names.plural, names.singular]);
        taken.resources.extend(names.short_names);
        taken.kinds.extend([names.kind, names.list_kind]);
    }
    taken.resources.remove("");
    taken.kinds.remove("");
    taken
}

/// The names that are accepted, and the last of the reasons why one is not. A name that was accepted before stays in its place.
fn accept(asked: &Names, held: &Names, taken: &Taken) -> (Names, Option<(&'static str, String)>) {
    let mut accepted = held.clone();
    let mut clash = None;
    let is_free = |name: &str, held: &str, taken: &HashSet<String>| name == held || !taken.contains(name);
    let words = |name: &str| format!("{name:?} is already in use");
    for (asked, held, accepted, taken, reason) in [
        (&asked.plural, &held.plural, &mut accepted.plural, &taken.resources, "PluralConflict"),
        (&asked.singular, &held.singular, &mut accepted.singular, &taken.resources, "SingularConflict"),
    ] {
        if is_free(asked, held, taken) {
            accepted.clone_from(asked);
        } else {
            clash = Some((reason, words(asked)));
        }
    }
    let clashing: Vec<String> = asked
        .short_names
        .iter()
        .filter(|name| !held.short_names.contains(name) && taken.resources.contains(*name))
        .map(|name| words(name))
        .collect();
    match &clashing[..] {
        [] => accepted.short_names.clone_from(&asked.short_names),
        [one] => clash = Some(("ShortNamesConflict", one.clone())),
        many => clash = Some(("ShortNamesConflict", format!("[{}]", many.join(", ")))),
    }
    for (asked, held, accepted, taken, reason) in [
        (&asked.kind, &held.kind, &mut accepted.kind, &taken.kinds, "KindConflict"),
        (&asked.list_kind, &held.list_kind, &mut accepted.list_kind, &taken.kinds, "ListKindConflict"),
    ] {
        if is_free(asked, held, taken) {
            accepted.clone_from(asked);
        } else {
            clash = Some((reason, words(asked)));
        }
    }
    accepted.categories.clone_from(&asked.categories);
    (accepted, clash)
}

/// Whether a definition in a group of the community's own may be there.
fn approval(group: &str, annotations: &Value, now: Time) -> Option<Condition> {
    let state = Approval::of(group, annotations)?;
    let (status, reason, words) = match state {
        Approval::Missing => ("False", "MissingAnnotation", state.refusal().unwrap_or_default()),
        Approval::Invalid(_) => ("False", "InvalidAnnotation", state.refusal().unwrap_or_default()),
        Approval::Bypassed(text) => ("False", "UnapprovedAnnotation", format!("not approved: {text:?}")),
        Approval::Approved(text) => ("True", "ApprovedAnnotation", format!("approved in {text}")),
    };
    Some(Condition::new("KubernetesAPIApprovalPolicyConformant", status, reason, words, now))
}

/// Deletes the objects of a definition; the last one lets it go.
fn empty(
    snapshot: &Snapshot,
    definition: &Arc<Object>,
    mut conditions: Vec<Condition>,
    now: Time,
    plan: &mut Plan,
) {
    let resource = Resource::intern(&definition.key.name);
    let mut left = snapshot.list(resource, "").peekable();
    if left.peek().is_none() {
        plan.write(drop_finalizer(definition, CLEANUP));
        return;
    }
    for object in left.filter(|object| !object.meta.is_deleting()).take(BATCH) {
        plan.write(Write::Delete {
            key: object.key.clone(),
            expect: Expect::same(object),
            grace_seconds: None,
            propagation: Some(Propagation::Background),
        });
    }
    let words = "CustomResource deletion is in progress";
    let new = Condition::new("Terminating", "True", "InstanceDeletionInProgress", words, now);
    tell(&mut conditions, new);
    let old = status_of(definition);
    let mut new = old.clone();
    new["conditions"] = json!(conditions);
    write_status(plan, definition, &old, new);
}
