//! Deletes what nobody owns any more, and holds or frees owners that wait for their dependents.
//!
//! A key is any object, looked at from both sides. As a dependent: without a living owner it goes. As an owner on its way out: the
//! finalizer `orphan` first cuts its dependents loose; `foregroundDeletion` first waits until those that block are gone.
//!
//! <https://kubernetes.io/docs/concepts/architecture/garbage-collection/>

use std::sync::Arc;

use kinds::CUSTOM_RESOURCE_DEFINITIONS;
use object::{Change, Event, Key, Object, OwnerReference, Resource, Snapshot, Time};
use plan::{Expect, Plan, Propagation, Write};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::writes::drop_finalizer;
use crate::{Controller, EVERY, Settings, Watch};

pub static CONTROLLER: Controller = Controller {
    name: "garbage-collector-controller",
    user: "generic-garbage-collector",
    watches: &[Watch { resource: EVERY, keys }],
    reconcile,
    refused: None,
    resync_secs: None,
};

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";
/// Dependents that one plan cuts loose.
const BATCH: usize = 500;

fn keys(snapshot: &Snapshot, event: &Event) -> Vec<Key> {
    let object = &event.object;
    if event.change == Change::Deleted {
        let dependents = snapshot.owned_by(&object.meta.uid).map(|owned| owned.key.clone());
        return dependents.chain(waiting_owners(snapshot, object)).collect();
    }
    let Some(previous) = &event.previous else {
        let relevant = !object.meta.owner_references.is_empty() || is_waiting(object);
        return relevant.then(|| object.key.clone()).into_iter().collect();
    };
    let mut keys = Vec::new();
    let (old, new) = (&previous.meta, &object.meta);
    let ownership_changed = old.owner_references != new.owner_references;
    if ownership_changed || old.finalizers != new.finalizers || old.is_deleting() != new.is_deleting() {
        keys.push(object.key.clone());
        keys.extend(waiting_owners(snapshot, object));
        if ownership_changed {
            keys.extend(waiting_owners(snapshot, previous));
        }
        if is_waiting(object) {
            keys.extend(snapshot.owned_by(&new.uid).map(|owned| owned.key.clone()));
        }
    }
    keys
}

/// On its way out, and with a finalizer that this controller stands for.
fn is_waiting(object: &Object) -> bool {
    object.meta.is_deleting() && (object.meta.has_finalizer(FOREGROUND) || object.meta.has_finalizer(ORPHAN))
}

fn waiting_owners(snapshot: &Snapshot, object: &Object) -> Vec<Key> {
    let owners = object.meta.owner_references.iter();
    owners
        .filter_map(|owner| find(snapshot, object, owner).ok().flatten())
        .filter(|owner| is_waiting(owner))
        .map(|owner| owner.key.clone())
        .collect()
}

fn reconcile(snapshot: &Snapshot, key: &Key, _: Time, _: &Settings) -> Plan {
    let mut plan = Plan::default();
    let Some(object) = snapshot.get(key) else { return plan };
    if object.meta.is_deleting() {
        if object.meta.has_finalizer(ORPHAN) {
            orphan_dependents(snapshot, object, &mut plan);
        } else if object.meta.has_finalizer(FOREGROUND) {
            await_dependents(snapshot, object, &mut plan);
        }
        return plan;
    }
    look_for_owners(snapshot, object, &mut plan);
    plan
}

fn orphan_dependents(snapshot: &Snapshot, owner: &Object, plan: &mut Plan) {
    let mut dependents = snapshot.owned_by(&owner.meta.uid);
    for dependent in dependents.by_ref().take(BATCH) {
        plan.write(keep_owners(dependent, |reference| reference.uid != owner.meta.uid));
    }
    if dependents.next().is_none() {
        plan.write(drop_finalizer(owner, ORPHAN));
    }
}

fn await_dependents(snapshot: &Snapshot, owner: &Object, plan: &mut Plan) {
    let blocks = |dependent: &&Arc<Object>| {
        let mut references = dependent.meta.owner_references.iter();
        references
            .any(|reference| reference.uid == owner.meta.uid && reference.block_owner_deletion == Some(true))
    };
    if !snapshot.owned_by(&owner.meta.uid).any(|dependent| blocks(&dependent)) {
        plan.write(drop_finalizer(owner, FOREGROUND));
    }
}

/// What became of an owner.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Lives,
    /// Waits for its dependents to go.
    Waits,
    Gone,
}

fn look_for_owners(snapshot: &Snapshot, object: &Arc<Object>, plan: &mut Plan) {
    let references = &object.meta.owner_references;
    let mut fates = Vec::with_capacity(references.len());
    for reference in references {
        // An owner of a kind that is not served may live somewhere: nothing is decided without it.
        let Ok(owner) = find(snapshot, object, reference) else { return };
        fates.push(match owner {
            None => Fate::Gone,
            Some(owner) if owner.meta.is_deleting() && owner.meta.has_finalizer(FOREGROUND) => Fate::Waits,
            Some(_) => Fate::Lives,
        });
    }
    if fates.is_empty() {
        return;
    }
    if fates.contains(&Fate::Lives) {
        if fates.iter().any(|fate| *fate != Fate::Lives) {
            let lives = |reference: &OwnerReference| {
                references.iter().zip(&fates).any(|(held, fate)| held == reference && *fate == Fate::Lives)
            };
            plan.write(keep_owners(object, lives));
        }
        return;
    }
    let owner_waits = fates.contains(&Fate::Waits);
    if owner_waits
        && blocks(object)
        && snapshot.owned_by(&object.meta.uid).any(|dependent| is_waiting(dependent))
    {
        plan.write(unblock(object));
        return;
    }
    plan.write(Write::Delete {
        key: object.key.clone(),
        expect: Expect::unchanged(object),
        grace_seconds: None,
        propagation: Some(propagation(snapshot, object, owner_waits)),
    });
}

fn blocks(object: &Object) -> bool {
    object.meta.owner_references.iter().any(|reference| reference.block_owner_deletion == Some(true))
}

/// What stands between an owner and a dependent that both wait may close a circle, in which each would wait for the next for ever. As
/// upstream does, it then holds up nobody; that also happens where there is no circle.
fn unblock(object: &Object) -> Write {
    let free = |held: &OwnerReference| {
        let mut reference = json!(held);
        if held.block_owner_deletion == Some(true) {
            reference["blockOwnerDeletion"] = false.into();
        }
        reference
    };
    let references: Vec<Value> = object.meta.owner_references.iter().map(free).collect();
    crate::writes::merge(object, json!({"metadata": {"ownerReferences": references}}))
}

/// An owner that waits wants to outlast the whole tree below it.
fn propagation(snapshot: &Snapshot, object: &Object, owner_waits: bool) -> Propagation {
    let has_dependents = || snapshot.owned_by(&object.meta.uid).next().is_some();
    if object.meta.has_finalizer(ORPHAN) {
        Propagation::Orphan
    } else if object.meta.has_finalizer(FOREGROUND) || owner_waits && has_dependents() {
        Propagation::Foreground
    } else {
        Propagation::Background
    }
}

/// An owner's kind is not served, so nobody can tell whether it lives.
struct UnknownKind;

/// The owner that a reference means: same name, same uid, in the dependent's namespace or cluster-scoped.
fn find<'a>(
    snapshot: &'a Snapshot,
    dependent: &Object,
    reference: &OwnerReference,
) -> Result<Option<&'a Arc<Object>>, UnknownKind> {
    let (resource, namespaced) =
        served(snapshot, &reference.api_version, &reference.kind).ok_or(UnknownKind)?;
    let namespace = if namespaced { &*dependent.key.namespace } else { "" };
    if namespaced && namespace.is_empty() {
        // A cluster-scoped object cannot be owned by a namespaced one; upstream leaves it alone.
        return Err(UnknownKind);
    }
    Ok(snapshot.find(resource, namespace, &reference.name).filter(|owner| owner.meta.uid == reference.uid))
}

/// The resource of a kind, and whether it lives in namespaces. Any version of the group will do: there is one object behind all.
fn served(snapshot: &Snapshot, api_version: &str, kind: &str) -> Option<(Resource, bool)> {
    let group = api_version.split_once('/').map_or("", |(group, _)| group);
    if let Some(row) = kinds::all().iter().find(|row| row.kind == kind && row.group == group) {
        return Some((row.resource, row.namespaced));
    }
    // A definition is named <plural>.<group>, and can be long: only those of the group are read.
    let is_of_group = |definition: &&Arc<Object>| {
        definition.key.name.split_once('.').is_some_and(|(_, found)| found == group)
    };
    let mut definitions = snapshot.list(CUSTOM_RESOURCE_DEFINITIONS, "").filter(is_of_group);
    definitions.find_map(|definition| custom(definition, group, kind))
}

fn custom(definition: &Object, group: &str, kind: &str) -> Option<(Resource, bool)> {
    #[derive(Deserialize)]
    struct View {
        spec: Spec,
    }
    #[derive(Deserialize)]
    struct Spec {
        group: String,
        scope: String,
        names: Names,
    }
    #[derive(Deserialize)]
    struct Names {
        kind: String,
    }
    let spec = definition.decode::<View>().ok()?.spec;
    // A definition is named as its resource: <plural>.<group>.
    let is_it = spec.group == group && spec.names.kind == kind;
    is_it.then(|| (Resource::intern(&definition.key.name), spec.scope == "Namespaced"))
}

fn keep_owners(object: &Object, keep: impl Fn(&OwnerReference) -> bool) -> Write {
    let kept: Vec<Value> =
        object.meta.owner_references.iter().filter(|held| keep(held)).map(|held| json!(held)).collect();
    let kept = if kept.is_empty() { Value::Null } else { kept.into() };
    crate::writes::merge(object, json!({"metadata": {"ownerReferences": kept}}))
}
