//! A controller's writes: the same way in as everybody's, without HTTP.

use std::sync::Arc;

use object::{Key, Object, Reason, Resource, Status};
use plan::{Expect, User, Write};
use schema::{FieldValidation, Kind};
use serde_json::{Value, json};

use crate::request::{Answer, Change, DeleteOptions, Options, PatchKind, Preconditions, Request};
use crate::{Gate, eviction, metadata};

impl Gate {
    /// Carries out one write of a plan. `None` means that the object it was about is gone or another one by now: the plan goes on.
    ///
    /// # Errors
    /// What the API would have answered; a stale `Expect::revision` is a Conflict.
    pub async fn execute(&self, user: &User, write: Write) -> Result<Option<Arc<Object>>, Status> {
        match write {
            Write::Create { resource, object } => self.execute_create(user, resource, object).await,
            Write::Merge { key, expect, subresource, patch } => {
                let change = Change::Patch(PatchKind::Merge, patch);
                self.execute_update(user, &key, subresource, &change, &expect).await
            }
            Write::Replace { key, expect, subresource, object } => {
                let change = Change::Replace(unversioned(object, &key, &expect));
                self.execute_update(user, &key, subresource, &change, &expect).await
            }
            Write::Delete { key, expect, grace_seconds, propagation } => {
                let (options, kind) = (self.options(user), self.kind(key.resource)?);
                let request = request(user, &kind, &key, "", &options);
                let preconditions = preconditions(&expect);
                let delete =
                    DeleteOptions { grace_seconds, propagation, orphan_dependents: None, preconditions };
                let done = self.delete(&request, &delete).await.map(|outcome| outcome.answer);
                quietly(&expect, done)
            }
            Write::Bind { pod, uid, node } => {
                let binding = json!({
                    "apiVersion": "v1", "kind": "Binding",
                    "metadata": {"name": &*pod.name, "namespace": &*pod.namespace, "uid": &*uid},
                    "target": {"kind": "Node", "name": &*node},
                });
                let (options, kind) = (self.options(user), self.kind(pod.resource)?);
                let request = request(user, &kind, &pod, "binding", &options);
                let done = self.bind(&request, binding).await;
                let expect = Expect { uid: Some(uid), revision: None };
                quietly(&expect, done.map(|outcome| outcome.answer))?;
                Ok(self.store.snapshot().get(&pod).cloned())
            }
        }
    }

    /// Evicts a pod as `kubectl drain` does: its disruption budgets are asked.
    ///
    /// # Errors
    /// What the API would have answered: TooManyRequests if a budget does not allow it now.
    pub async fn evict(&self, user: &User, pod: &Key) -> Result<(), Status> {
        let (options, kind) = (self.options(user), self.kind(pod.resource)?);
        let request = request(user, &kind, pod, "eviction", &options);
        let eviction = json!({
            "apiVersion": "policy/v1", "kind": "Eviction",
            "metadata": {"name": &*pod.name, "namespace": &*pod.namespace},
        });
        eviction::evict(self, &request, eviction).await.map(drop)
    }

    async fn execute_create(
        &self,
        user: &User,
        resource: Resource,
        object: Value,
    ) -> Result<Option<Arc<Object>>, Status> {
        let namespace = metadata::text(&object, "namespace").to_owned();
        let name = metadata::text(&object, "name").to_owned();
        let owner = controller_of(&object);
        let key = Key::new(resource, namespace, name);
        let (options, kind) = (self.options(user), self.kind(resource)?);
        let request = Request { name: "", ..request(user, &kind, &key, "", &options) };
        match self.create(&request, object).await.map(|outcome| outcome.answer) {
            Ok(Answer::Object(object)) => Ok(Some(object)),
            Ok(_) => Ok(None),
            Err(status) if status.reason == Reason::AlreadyExists && !key.name.is_empty() => {
                let snapshot = self.store.snapshot();
                let known = snapshot.get(&key).filter(|known| {
                    known.meta.controller().map(|owner| owner.uid.to_string()) == owner
                        && !known.meta.is_deleting()
                });
                known.cloned().map(Some).ok_or(status)
            }
            Err(status) => Err(status),
        }
    }

    async fn execute_update(
        &self,
        user: &User,
        key: &Key,
        subresource: &str,
        change: &Change,
        expect: &Expect,
    ) -> Result<Option<Arc<Object>>, Status> {
        let (options, kind) = (self.options(user), self.kind(key.resource)?);
        let request = request(user, &kind, key, subresource, &options);
        let done = self.update(&request, change, &preconditions(expect)).await;
        match quietly(expect, done.map(|outcome| outcome.answer))? {
            Some(object) => Ok(Some(object)),
            None => Ok(self.store.snapshot().get(key).filter(|_| !subresource.is_empty()).cloned()),
        }
    }

    /// What a component's own writes run under: it owns what it writes by the name that upstream's process has.
    fn options(&self, user: &User) -> Options {
        let field_manager = match user.name.strip_prefix("system:") {
            // Upstream's API server has this one inside.
            Some("serviceaccount:kube-system:crd-controller") => "kube-apiserver",
            Some(name) if name.starts_with("serviceaccount:kube-system:") => "kube-controller-manager",
            Some(name) if name.starts_with("node:") => "kubelet",
            Some(name) => name,
            None => &user.name,
        };
        Options {
            field_manager: field_manager.into(),
            field_validation: FieldValidation::Ignore,
            ..Options::default()
        }
    }
}

fn request<'a>(
    user: &'a User,
    kind: &'a Kind,
    key: &'a Key,
    subresource: &'a str,
    options: &'a Options,
) -> Request<'a> {
    Request { user, kind, namespace: &key.namespace, name: &key.name, subresource, options }
}

fn preconditions(expect: &Expect) -> Preconditions {
    Preconditions {
        uid: expect.uid.clone(),
        revision: expect.revision.map(|revision| revision.to_string().into()),
    }
}

/// A replacement speaks of the object it names at the revision it expects, whatever its metadata says.
fn unversioned(mut object: Value, key: &Key, expect: &Expect) -> Value {
    let metadata = metadata::metadata(&mut object);
    metadata.insert("name".into(), (*key.name).into());
    match expect.revision {
        Some(revision) => drop(metadata.insert("resourceVersion".into(), revision.to_string().into())),
        None => drop(metadata.remove("resourceVersion")),
    }
    object
}

/// The uid of the owner with `controller: true`.
fn controller_of(object: &Value) -> Option<String> {
    let owners = object["metadata"]["ownerReferences"].as_array()?;
    let controller = owners.iter().find(|owner| owner["controller"] == true)?;
    controller["uid"].as_str().map(str::to_owned)
}

/// An object that is gone, or another one of its name, ends the write without an error.
fn quietly(expect: &Expect, done: Result<Answer, Status>) -> Result<Option<Arc<Object>>, Status> {
    match done {
        Ok(Answer::Object(object) | Answer::Removed(object)) => Ok(Some(object)),
        Ok(Answer::Made(_)) => Ok(None),
        Err(status) if status.reason == Reason::NotFound => Ok(None),
        Err(status) if expect.uid.is_some() && is_other(&status) => Ok(None),
        Err(status) => Err(status),
    }
}

fn is_other(status: &Status) -> bool {
    status.reason == Reason::Conflict
        && (status.message.contains("UID in precondition")
            || status.message.contains("UID in the precondition"))
}
