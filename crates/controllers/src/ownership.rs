//! Who controls what: the owner references between a workload and its pods (or revisions, or sets).
//!
//! <https://kubernetes.io/docs/concepts/architecture/garbage-collection/#owners-dependents> and the ControllerRef proposal:
//! an object has at most one controller; orphans that match the selector are adopted, and what no longer matches is released.

use std::sync::Arc;

use object::{Event, Key, LabelSelector, Object, Resource, Snapshot};
use plan::{Expect, Plan, Write};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::views::Labels;

/// How a workload's kind is named in owner references and events.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    pub api_version: &'static str,
    pub kind: &'static str,
    pub resource: Resource,
}

impl Kind {
    /// The reference that makes `owner` the controller of what carries it.
    pub fn controller_ref(&self, owner: &Object) -> Value {
        json!({
            "apiVersion": self.api_version, "kind": self.kind, "name": &*owner.key.name, "uid": owner.meta.uid,
            "controller": true, "blockOwnerDeletion": true,
        })
    }

    /// Does this reference name an object of the kind, in whatever version of its group?
    fn is_named_by(&self, reference: &object::OwnerReference) -> bool {
        let group =
            |version: &str| version.split_once('/').map_or(String::new(), |(group, _)| group.to_owned());
        *reference.kind == *self.kind && group(&reference.api_version) == group(self.api_version)
    }

    /// The key of the controller of an object, if it is of this kind. A watch of dependents wakes their owner by this.
    pub fn controller_key(&self, object: &Object) -> Option<Key> {
        let owner = object.meta.controller().filter(|owner| self.is_named_by(owner))?;
        Some(Key::new(self.resource, object.key.namespace.clone(), &*owner.name))
    }

    /// The controller of an object, if it is of this kind and is really the one meant.
    pub fn controller<'a>(&self, snapshot: &'a Snapshot, object: &Object) -> Option<&'a Arc<Object>> {
        let owner = object.meta.controller()?;
        snapshot.get(&self.controller_key(object)?).filter(|found| found.meta.uid == owner.uid)
    }

    /// The keys that a change of a dependent wakes: its controller before and after, or whoever might adopt it.
    pub fn keys_of_dependent(&self, snapshot: &Snapshot, event: &Event) -> Vec<Key> {
        let before = event.previous.as_ref().and_then(|previous| self.controller_key(previous));
        let after = self.controller_key(&event.object);
        let mut keys: Vec<Key> = before.into_iter().chain(after).collect();
        keys.dedup();
        if event.object.meta.controller().is_none() && event.change != object::Change::Deleted {
            keys.extend(self.keys_selecting(
                snapshot,
                &event.object.key.namespace,
                &event.object.meta.labels,
            ));
        }
        keys
    }

    /// The objects of the kind whose selector matches these labels.
    pub fn keys_selecting(&self, snapshot: &Snapshot, namespace: &str, labels: &Labels) -> Vec<Key> {
        let matching = |owner: &&Arc<Object>| {
            selector_of(owner).is_some_and(|selector| !selector.is_everything() && selector.matches(labels))
        };
        snapshot.list(self.resource, namespace).filter(matching).map(|owner| owner.key.clone()).collect()
    }

    /// The dependents of `owner` in one resource, after adoption and release; the writes for these go to the plan.
    ///
    /// `may_adopt` leaves out orphans that the caller does not count (finished pods).
    pub fn claim(
        &self,
        snapshot: &Snapshot,
        owner: &Object,
        selector: &LabelSelector,
        resource: Resource,
        may_adopt: impl Fn(&Arc<Object>) -> bool,
        plan: &mut Plan,
    ) -> Vec<Arc<Object>> {
        let mut claimed = Vec::new();
        for object in snapshot.list(resource, &owner.key.namespace) {
            let matches = || selector.matches(&object.meta.labels);
            match object.meta.controller() {
                Some(controller) if controller.uid != owner.meta.uid => {}
                Some(_) if matches() => claimed.push(object.clone()),
                Some(_) if owner.meta.is_deleting() => {}
                Some(_) => plan.write(release(object, owner)),
                None if owner.meta.is_deleting() || object.meta.is_deleting() => {}
                None if matches() && may_adopt(object) => {
                    plan.write(self.adopt(object, owner));
                    claimed.push(object.clone());
                }
                None => {}
            }
        }
        claimed
    }

    fn adopt(&self, object: &Object, owner: &Object) -> Write {
        let mut references: Vec<Value> = object
            .meta
            .owner_references
            .iter()
            .filter(|held| held.uid != owner.meta.uid)
            .map(|held| json!(held))
            .collect();
        references.push(self.controller_ref(owner));
        owner_references(object, references)
    }
}

fn release(object: &Object, owner: &Object) -> Write {
    let others = object.meta.owner_references.iter().filter(|held| held.uid != owner.meta.uid);
    owner_references(object, others.map(|held| json!(held)).collect())
}

fn owner_references(object: &Object, references: Vec<Value>) -> Write {
    let references = if references.is_empty() { Value::Null } else { references.into() };
    Write::Merge {
        key: object.key.clone(),
        expect: Expect::unchanged(object),
        subresource: "",
        patch: json!({"metadata": {"ownerReferences": references}}),
    }
}

/// `spec.selector`: a label selector, or the plain labels of a ReplicationController.
pub fn selector_of(owner: &Object) -> Option<LabelSelector> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Selector {
        Plain(std::collections::BTreeMap<String, String>),
        Full(LabelSelector),
    }
    #[derive(Deserialize)]
    struct Wire {
        spec: Spec,
    }
    #[derive(Deserialize)]
    struct Spec {
        selector: Selector,
    }
    match owner.decode::<Wire>().ok()?.spec.selector {
        Selector::Plain(labels) => {
            Some(LabelSelector::of_labels(labels.iter().map(|(key, value)| (key.as_str(), value.as_str()))))
        }
        Selector::Full(selector) => Some(selector),
    }
}

/// A watch of the controller's own resource.
pub fn own_key(_: &Snapshot, event: &Event) -> Vec<Key> {
    vec![event.key().clone()]
}
