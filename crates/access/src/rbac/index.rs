//! Rules by subject, folded out of the roles and bindings of a snapshot.
//!
//! ```text
//! RoleBinding a/devs ─► subjects  (Group devs) ─► a/devs       "which bindings name me?"
//!                    ─► roleRef   ClusterRole edit ─► rules     "what do they give?"
//! ```
//!
//! A role may come after its binding, and go before it: bindings are kept by what they say, and roles are looked up when
//! a request is decided.

use std::collections::BTreeSet;
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use object::{Change, Event, Object, Resource, Snapshot, Table};
use plan::{Attributes, Decision, User};
use serde::Deserialize;

use super::rule::{Rule, list};
use kinds::{CLUSTER_ROLE_BINDINGS, CLUSTER_ROLES, ROLE_BINDINGS, ROLES};

/// All roles and bindings by what a request needs. A clone is a few pointer copies.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Index {
    /// By (namespace, name); cluster roles have no namespace.
    roles: OrdMap<Path, Arc<[Rule]>>,
    bindings: OrdMap<Path, Arc<Binding>>,
    /// (subject, namespace of the binding, its name)
    subjects: OrdSet<(Subject, Arc<str>, Arc<str>)>,
}

type Path = (Arc<str>, Arc<str>);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    Group(Box<str>),
    /// By its user name.
    ServiceAccount(Box<str>),
    User(Box<str>),
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Binding {
    role_ref: RoleRef,
    #[serde(deserialize_with = "list")]
    subjects: Vec<SubjectView>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct RoleRef {
    pub kind: Box<str>,
    pub name: Box<str>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
struct SubjectView {
    kind: Box<str>,
    name: Box<str>,
    namespace: Box<str>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RoleView {
    #[serde(deserialize_with = "list")]
    rules: Vec<Rule>,
}

/// What [`Index::rules_for`] found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SubjectRules {
    pub rules: Vec<Rule>,
    /// Bindings whose role is missing, in upstream's words.
    pub errors: Vec<String>,
}

/// A binding that names the user, found for one request.
struct Grant<'a> {
    namespace: &'a str,
    binding: &'a str,
    role: &'a RoleRef,
    subject: &'a SubjectView,
    rules: Result<&'a [Rule], String>,
}

impl Index {
    /// The index of everything in the snapshot.
    pub fn of(snapshot: &Snapshot) -> Self {
        let mut index = Self::default();
        for resource in [ROLES, CLUSTER_ROLES, ROLE_BINDINGS, CLUSTER_ROLE_BINDINGS] {
            for object in snapshot.list(resource, "") {
                index.put(object);
            }
        }
        index
    }

    /// Takes one change in. Changes of other resources are no change here.
    pub fn apply(&mut self, event: &Event) {
        match event.change {
            Change::Deleted => self.remove(&event.object),
            Change::Created | Change::Updated => self.put(&event.object),
        }
    }

    /// Takes in what makes a table of roles or bindings differ from another version of it. Reads only what was changed.
    pub fn follow(&mut self, before: &Table, after: &Table) {
        for (was, is) in after.changes_since(before) {
            match (was, is) {
                (_, Some(is)) => self.put(is),
                (Some(was), None) => self.remove(was),
                (None, None) => {}
            }
        }
    }

    /// An object that does not decode grants nothing.
    fn put(&mut self, object: &Object) {
        let path = path(object);
        if is_role(object.key.resource) {
            let view: RoleView = object.decode().unwrap_or_default();
            self.roles.insert(path, view.rules.into());
        } else if is_binding(object.key.resource) {
            self.unbind(&path);
            let binding: Arc<Binding> = Arc::new(object.decode().unwrap_or_default());
            for subject in binding.subjects.iter().filter_map(|subject| subject.key(&path.0)) {
                self.subjects.insert((subject, path.0.clone(), path.1.clone()));
            }
            self.bindings.insert(path, binding);
        }
    }

    fn remove(&mut self, object: &Object) {
        let path = path(object);
        if is_role(object.key.resource) {
            self.roles.remove(&path);
        } else if is_binding(object.key.resource) {
            self.unbind(&path);
        }
    }

    fn unbind(&mut self, path: &Path) {
        let Some(binding) = self.bindings.remove(path) else { return };
        for subject in binding.subjects.iter().filter_map(|subject| subject.key(&path.0)) {
            self.subjects.remove(&(subject, path.0.clone(), path.1.clone()));
        }
    }

    /// RBAC's answer: allowed with the binding that allows it, or no opinion with the roles that were missing.
    pub fn authorize(&self, user: &User, request: &Attributes) -> Decision {
        let mut errors = Vec::new();
        for grant in self.grants(user, request.namespace) {
            match &grant.rules {
                Ok(rules) if rules.iter().any(|rule| rule.allows(request)) => {
                    return Decision { allowed: true, reason: grant.reason(), ..Decision::default() };
                }
                Ok(_) => {}
                Err(error) => errors.push(error.clone()),
            }
        }
        let reason = match aggregate(errors) {
            Some(errors) => format!("RBAC: {errors}"),
            None => String::new(),
        };
        Decision { reason, ..Decision::default() }
    }

    /// Every rule that holds for the user in this namespace (at cluster scope, if it is empty).
    pub fn rules_for(&self, user: &User, namespace: &str) -> SubjectRules {
        let mut found = SubjectRules::default();
        for grant in self.grants(user, namespace) {
            match grant.rules {
                Ok(rules) => found.rules.extend_from_slice(rules),
                Err(error) => found.errors.push(error),
            }
        }
        found
    }

    /// The rules that a role reference of a binding in this namespace stands for, or that there is no such role.
    pub(super) fn role(&self, role: &RoleRef, namespace: &str) -> Result<&[Rule], String> {
        let (space, kind) = if &*role.kind == "Role" { (namespace, "role") } else { ("", "clusterrole") };
        match self.roles.get(&(space.into(), (*role.name).into())) {
            Some(rules) => Ok(rules),
            None => Err(format!("{kind}.rbac.authorization.k8s.io {:?} not found", role.name)),
        }
    }

    /// Cluster role bindings by name, then the namespace's role bindings by name.
    fn grants<'a>(&'a self, user: &'a User, namespace: &'a str) -> impl Iterator<Item = Grant<'a>> {
        let mut found: BTreeSet<(&Arc<str>, &Arc<str>)> = BTreeSet::new();
        let mut collect = |subject: Subject| {
            self.bindings_of(&subject, "", &mut found);
            if !namespace.is_empty() {
                self.bindings_of(&subject, namespace, &mut found);
            }
        };
        collect(Subject::User((*user.name).into()));
        collect(Subject::ServiceAccount((*user.name).into()));
        for group in &user.groups {
            collect(Subject::Group((**group).into()));
        }
        found.into_iter().filter_map(move |(space, name)| {
            let binding = self.bindings.get(&(space.clone(), name.clone()))?;
            let subject = binding.subjects.iter().find(|subject| subject.is(user, space))?;
            let rules = self.role(&binding.role_ref, space);
            Some(Grant { namespace: space, binding: name, role: &binding.role_ref, subject, rules })
        })
    }

    fn bindings_of<'a>(
        &'a self,
        subject: &Subject,
        namespace: &str,
        found: &mut BTreeSet<(&'a Arc<str>, &'a Arc<str>)>,
    ) {
        let start = (subject.clone(), Arc::from(namespace), Arc::from(""));
        let all = self.subjects.range(start..);
        let held = all.take_while(|(held, space, _)| held == subject && **space == *namespace);
        found.extend(held.map(|(_, space, name)| (space, name)));
    }
}

impl SubjectView {
    fn key(&self, binding_namespace: &str) -> Option<Subject> {
        match &*self.kind {
            "User" => Some(Subject::User(self.name.clone())),
            "Group" => Some(Subject::Group(self.name.clone())),
            "ServiceAccount" => {
                let namespace = if self.namespace.is_empty() { binding_namespace } else { &self.namespace };
                let name = format!("system:serviceaccount:{namespace}:{}", self.name);
                (!namespace.is_empty()).then(|| Subject::ServiceAccount(name.into()))
            }
            _ => None,
        }
    }

    fn is(&self, user: &User, binding_namespace: &str) -> bool {
        match self.key(binding_namespace) {
            Some(Subject::User(name)) | Some(Subject::ServiceAccount(name)) => *name == *user.name,
            Some(Subject::Group(name)) => user.is_in(&name),
            None => false,
        }
    }
}

impl Grant<'_> {
    fn reason(&self) -> String {
        let binding = match self.namespace {
            "" => format!("ClusterRoleBinding {:?}", self.binding),
            namespace => format!("RoleBinding \"{}/{namespace}\"", self.binding),
        };
        let subject = match &*self.subject.kind {
            "ServiceAccount" => {
                let namespace =
                    if self.subject.namespace.is_empty() { self.namespace } else { &self.subject.namespace };
                format!("ServiceAccount \"{}/{namespace}\"", self.subject.name)
            }
            kind => format!("{kind} {:?}", self.subject.name),
        };
        format!("RBAC: allowed by {binding} of {} {:?} to {subject}", self.role.kind, self.role.name)
    }
}

/// One error as it is, several in brackets, each once; nothing if there are none.
pub(crate) fn in_brackets(errors: Vec<String>) -> String {
    aggregate(errors).unwrap_or_default()
}

/// One error as it is, several in brackets, each once.
pub(super) fn aggregate(mut errors: Vec<String>) -> Option<String> {
    let mut seen = BTreeSet::new();
    errors.retain(|error| seen.insert(error.clone()));
    match errors.len() {
        0 => None,
        1 => errors.pop(),
        _ => Some(format!("[{}]", errors.join(", "))),
    }
}

fn is_role(resource: Resource) -> bool {
    resource == ROLES || resource == CLUSTER_ROLES
}

fn is_binding(resource: Resource) -> bool {
    resource == ROLE_BINDINGS || resource == CLUSTER_ROLE_BINDINGS
}

fn path(object: &Object) -> Path {
    (object.key.namespace.clone(), object.key.name.clone())
}
