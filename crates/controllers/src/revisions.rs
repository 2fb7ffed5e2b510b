//! ControllerRevisions: the history of a workload's template.
//!
//! A revision is never changed but for its number: going back to an old template gives the old revision the next number.

use std::sync::Arc;

use kinds::CONTROLLER_REVISIONS;
use object::{Key, LabelSelector, Object, Snapshot};
use plan::{Plan, Write};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::naming::template_hash;
use crate::ownership::Kind;
use crate::views::Template;
use crate::writes::{delete, merge};

/// A revision as it stands, or as it will stand when the plan is carried out.
#[derive(Clone)]
pub struct Revision {
    pub name: String,
    /// What a DaemonSet's pods carry; a StatefulSet's carry the name.
    pub hash: String,
    pub number: i64,
    pub template: Template,
    /// None while it is only planned.
    pub object: Option<Arc<Object>>,
}

/// What the revisions of a workload have in common.
pub struct History<'a> {
    pub kind: &'a Kind,
    pub owner: &'a Object,
    pub selector: &'a LabelSelector,
    /// The label of a revision that holds its hash.
    pub hash_label: &'static str,
    pub collisions: i64,
}

#[derive(Deserialize)]
struct View {
    #[serde(default)]
    revision: i64,
    #[serde(default)]
    data: Value,
}

impl History<'_> {
    /// The owner's revisions, oldest first.
    pub fn list(&self, snapshot: &Snapshot, plan: &mut Plan) -> Vec<Revision> {
        let claimed =
            self.kind.claim(snapshot, self.owner, self.selector, CONTROLLER_REVISIONS, |_| true, plan);
        let mut revisions: Vec<Revision> = claimed.iter().filter_map(|object| self.read(object)).collect();
        revisions.sort_by(|a, b| (a.number, &a.name).cmp(&(b.number, &b.name)));
        revisions
    }

    fn read(&self, object: &Arc<Object>) -> Option<Revision> {
        let View { revision, data } = object.decode().ok()?;
        let mut template = data.pointer("/spec/template").cloned().unwrap_or_default();
        if let Some(members) = template.as_object_mut() {
            members.remove("$patch");
        }
        Some(Revision {
            name: object.key.name.to_string(),
            hash: object.meta.label(self.hash_label).unwrap_or_default().to_owned(),
            number: revision,
            template: Template(template),
            object: Some(object.clone()),
        })
    }

    /// The revision of a template, made or made newest if need be. None: its name belongs to another one, so the collision count must
    /// go up first.
    pub fn current(
        &self,
        snapshot: &Snapshot,
        revisions: &[Revision],
        template: &Template,
        plan: &mut Plan,
    ) -> Option<Revision> {
        let newest = revisions.last().map_or(0, |revision| revision.number);
        let completed = template.completed();
        let is_equal = |held: &Template| held == template || held.completed() == completed;
        let equal = revisions.iter().rev().find(|revision| is_equal(&revision.template));
        if let Some(equal) = equal {
            if equal.number == newest {
                return Some(equal.clone());
            }
            let object = equal.object.as_ref()?;
            plan.write(merge(object, json!({"revision": newest + 1})));
            return Some(Revision { number: newest + 1, ..equal.clone() });
        }
        let hash = template_hash(&template.0, self.collisions);
        let name = format!("{}-{hash}", self.owner.key.name);
        let key = Key::new(CONTROLLER_REVISIONS, self.owner.key.namespace.clone(), name.as_str());
        if snapshot.get(&key).is_some() {
            return None;
        }
        plan.write(self.create(template, &name, &hash, newest + 1));
        Some(Revision { name, hash, number: newest + 1, template: template.clone(), object: None })
    }

    fn create(&self, template: &Template, name: &str, hash: &str, number: i64) -> Write {
        let mut labels = json!(template.labels());
        labels[self.hash_label] = hash.into();
        let mut patch = template.0.clone();
        patch["$patch"] = "replace".into();
        let mut metadata = json!({
            "namespace": &*self.owner.key.namespace, "name": name, "labels": labels,
            "ownerReferences": [self.kind.controller_ref(self.owner)],
        });
        let annotations = crate::views::annotations(self.owner);
        if !annotations.is_empty() {
            metadata["annotations"] = json!(annotations);
        }
        let object = json!({
            "apiVersion": "apps/v1", "kind": "ControllerRevision", "metadata": metadata,
            "data": {"spec": {"template": patch}}, "revision": number,
        });
        Write::Create { resource: CONTROLLER_REVISIONS, object }
    }

    /// Deletes the oldest revisions that nothing uses, beyond the limit.
    pub fn truncate(
        &self,
        revisions: &[Revision],
        is_live: impl Fn(&Revision) -> bool,
        limit: i64,
        plan: &mut Plan,
    ) {
        let idle: Vec<&Arc<Object>> = revisions
            .iter()
            .filter(|revision| !is_live(revision))
            .filter_map(|revision| revision.object.as_ref())
            .collect();
        // A limit below zero keeps all.
        let keep = usize::try_from(limit).unwrap_or(usize::MAX);
        for object in idle.iter().take(idle.len().saturating_sub(keep)) {
            plan.write(delete(object));
        }
    }
}
