use object::{Key, Snapshot, Status, Time};
use plan::{Attributes, Decision, User, Write};
use serde_json::Value;

use crate::{Configuration, Fargate, PodIdentity};

/// `admission.k8s.io/v1` `Operation`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    Delete,
    /// `exec`, `attach`, `portforward`, `proxy`
    Connect,
}

/// What is asked for.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    pub user: &'a User,
    pub operation: Operation,
    /// Of the request's object: `Pod`, but `Binding` for `pods/binding` and `TokenRequest` for `serviceaccounts/token`.
    pub kind: &'a str,
    /// Of the stored object. A create with `generateName` may come before the name is known: then it is empty.
    pub key: &'a Key,
    /// Cluster-scoped resources have no namespace to check, `namespaces` themselves included.
    pub namespaced: bool,
    /// `status`, `exec`; empty for the object itself.
    pub subresource: &'a str,
    /// The stored object, of updates and deletes.
    pub old: Option<&'a Value>,
    /// `CreateOptions`, `DeleteOptions`, …; null if there are none.
    pub options: &'a Value,
    pub dry_run: bool,
    pub now: Time,
    /// Five random characters of the alphabet of generated names: ends the name of a volume that is added.
    pub suffix: &'a str,
    /// What the plugins were told at the start.
    pub configuration: &'a Configuration,
    /// Of a cluster of EKS: how its pods come to the keys of their roles.
    pub pod_identity: Option<&'a PodIdentity>,
    /// Of a cluster of EKS: what runs on Fargate.
    pub fargate: Option<&'a dyn Fargate>,
    /// May the request's user do this besides?
    pub authorize: &'a dyn Fn(&Attributes) -> Decision,
}

/// The object as completed, and warnings for the client.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Admitted {
    pub object: Value,
    pub warnings: Vec<String>,
}

/// A request that may go on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Verdict {
    pub warnings: Vec<String>,
    /// Entries for the audit log: (annotation, value).
    pub audit: Vec<(String, String)>,
    /// What the Pod Security Standards had to do with it, for metrics.
    pub pod_security: Vec<PodSecurityNote>,
}

/// What became of a pod, or of something that makes pods, by the Pod Security Standards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodSecurityNote {
    Evaluated {
        is_denied: bool,
        /// `enforce`, `audit`, `warn`
        mode: &'static str,
        /// `baseline`
        level: &'static str,
        version: PodSecurityVersion,
    },
    /// By its namespace, user or runtime class.
    Exempt,
    /// The namespace's labels cannot be read.
    Unreadable,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PodSecurityVersion {
    Latest,
    /// `v1.x`
    Minor(u32),
    /// One that is not known yet.
    Future,
}

/// A validation of a policy that did not hold, or could not be worked out.
#[derive(Clone, Debug, PartialEq)]
pub struct PolicyCheck {
    pub policy: String,
    pub binding: String,
    /// What followed: `allow`, `audit`, `deny` or `warn`.
    pub action: &'static str,
    /// Upstream's words: `invalid_error` for one that does not hold too, or `out_of_budget`.
    pub error: &'static str,
}

pub type Mutate = fn(&Snapshot, &Request, &mut Value, &mut Vec<String>) -> Result<(), Status>;
pub type Validate = fn(&Snapshot, &Request, Option<&Value>, &mut Verdict) -> Result<(), Status>;

/// What a create or update uses up. The writes belong into the same commit as the request's own, each with the revision that it was decided
/// on. If one of them conflicts, only this is decided anew: nobody is asked twice because others used something up, too.
pub type Charge = fn(&Snapshot, &Request, &Value) -> Result<Vec<Write>, Status>;

/// A part of admission.
pub enum Step {
    /// Decide by themselves.
    Plugins(&'static [Plugin]),
    /// [`extension::Extensions`](crate::extension::Extensions), of which the caller asks each sort in its turn.
    MutatingPolicies,
    MutatingWebhooks,
    ValidatingPolicies,
    ValidatingWebhooks,
    /// By upstream's name of the plugin.
    Charge(&'static str, Charge),
}

/// One row: a plugin by upstream's name, and what it does in either phase.
pub struct Plugin {
    pub name: &'static str,
    pub mutate: Option<Mutate>,
    pub validate: Option<Validate>,
}

impl Request<'_> {
    /// Is this about objects of the resource themselves, not a subresource?
    pub(crate) fn is(&self, resource: object::Resource, operations: &[Operation]) -> bool {
        self.key.resource == resource && self.subresource.is_empty() && operations.contains(&self.operation)
    }

    /// The 403 of admission: names the object by its name, its generateName, or as unknown.
    pub(crate) fn forbidden(&self, object: Option<&Value>, why: impl std::fmt::Display) -> Status {
        let generated = object.and_then(|object| object["metadata"]["generateName"].as_str());
        let named = object.and_then(|object| object["metadata"]["name"].as_str()).unwrap_or(&self.key.name);
        let name = if named.is_empty() { generated.unwrap_or("Unknown") } else { named };
        let key = Key::new(self.key.resource, self.key.namespace.clone(), name);
        Status::forbidden(&key, &why.to_string())
    }
}
