//! Admission that users bring: policies in CEL and webhooks. Compiled once for each change of their objects, kept by the caller.
//!
//! ```text
//! mutate    built-in plugins ─► mutating policies ─► mutating webhooks, one after another ─► all of it again, if asked to
//! validate  built-in plugins ─► validating policies ─► validating webhooks, all at once
//! ```
//!
//! A webhook is not called here: [`Webhook::call`] says what to ask, and [`Webhook::answer`] what its answer means.

mod expression;
mod matching;
mod mutating;
mod policy;
mod validating;
mod webhook;

use object::{Resource, Revision, Snapshot, Status};
use plan::{Attributes, Decision, User};
use serde_json::{Value, json};

use crate::{Operation, Request, Verdict};

pub use webhook::{Answered, Webhook};

/// The resources whose objects are extensions. They themselves are admitted without them: nobody can lock himself out.
const SOURCES: [Resource; 6] = [
    kinds::MUTATING_ADMISSION_POLICIES,
    kinds::MUTATING_ADMISSION_POLICY_BINDINGS,
    kinds::MUTATING_WEBHOOK_CONFIGURATIONS,
    kinds::VALIDATING_ADMISSION_POLICIES,
    kinds::VALIDATING_ADMISSION_POLICY_BINDINGS,
    kinds::VALIDATING_WEBHOOK_CONFIGURATIONS,
];

/// What an apiVersion and kind are served as.
pub type ResourceOf<'a> = dyn Fn(&str, &str) -> Option<(Resource, bool)> + 'a;

/// A request as policies and webhooks see it.
pub struct Asked<'a> {
    pub request: &'a Request<'a>,
    /// The version of the request's path: `v1`.
    pub version: &'a str,
    /// Every version that the resource is served in.
    pub versions: &'a [&'a str],
    /// Group, version and kind of the request's body.
    pub gvk: (&'a str, &'a str, &'a str),
    /// Names this review: a UUID.
    pub uid: &'a str,
    /// May somebody else do this?
    pub authorize_as: &'a dyn Fn(&User, &Attributes) -> Decision,
    /// The resource of an apiVersion and kind, and whether it is namespaced.
    pub resource_of: &'a ResourceOf<'a>,
    /// An object in another served version.
    pub convert: &'a dyn Fn(&str, &Value) -> Option<Value>,
    /// Merges a configuration into the object as server-side apply does.
    pub merge: &'a dyn Fn(&mut Value, &Value),
}

/// All extensions of a cluster, ready to decide.
#[derive(Debug, Default)]
pub struct Extensions {
    seen: [Revision; SOURCES.len()],
    mutating_policies: Vec<policy::Bound<mutating::Policy>>,
    validating_policies: Vec<policy::Bound<validating::Policy>>,
    mutating_webhooks: Vec<Webhook>,
    validating_webhooks: Vec<Webhook>,
}

impl Extensions {
    /// Whether these are the extensions of a snapshot; cheap enough for every request.
    pub fn is_current(&self, snapshot: &Snapshot) -> bool {
        self.seen == revisions(snapshot)
    }

    /// Compiles what a snapshot holds.
    pub fn read(snapshot: &Snapshot) -> Self {
        Self {
            seen: revisions(snapshot),
            mutating_policies: policy::bound(
                snapshot,
                kinds::MUTATING_ADMISSION_POLICIES,
                kinds::MUTATING_ADMISSION_POLICY_BINDINGS,
                mutating::Policy::read,
            ),
            validating_policies: policy::bound(
                snapshot,
                kinds::VALIDATING_ADMISSION_POLICIES,
                kinds::VALIDATING_ADMISSION_POLICY_BINDINGS,
                validating::Policy::read,
            ),
            mutating_webhooks: webhook::read_all(snapshot, kinds::MUTATING_WEBHOOK_CONFIGURATIONS),
            validating_webhooks: webhook::read_all(snapshot, kinds::VALIDATING_WEBHOOK_CONFIGURATIONS),
        }
    }

    /// Whether anything here could have a say about the request: mostly there is nothing.
    pub fn concern(&self, request: &Request) -> bool {
        let is_empty = self.mutating_policies.is_empty()
            && self.validating_policies.is_empty()
            && self.mutating_webhooks.is_empty()
            && self.validating_webhooks.is_empty();
        !is_empty && !SOURCES.contains(&request.key.resource)
    }

    /// Lets the mutating policies change the object; `again` only those that want to see what came after them.
    pub fn mutate(
        &self,
        snapshot: &Snapshot,
        asked: &Asked,
        object: &mut Value,
        again: bool,
    ) -> Result<(), Status> {
        for bound in self.mutating_policies.iter().filter(|bound| !again || bound.is_reinvoked()) {
            mutating::run(bound, snapshot, asked, object)?;
        }
        Ok(())
    }

    /// Lets the validating policies judge. `object` is absent for a delete.
    pub fn validate(
        &self,
        snapshot: &Snapshot,
        asked: &Asked,
        object: Option<&Value>,
        verdict: &mut Verdict,
    ) -> Result<(), Status> {
        for bound in &self.validating_policies {
            validating::run(bound, snapshot, asked, object, verdict)?;
        }
        Ok(())
    }

    /// In the order in which they are called.
    pub fn mutating_webhooks(&self) -> &[Webhook] {
        &self.mutating_webhooks
    }

    pub fn validating_webhooks(&self) -> &[Webhook] {
        &self.validating_webhooks
    }
}

fn revisions(snapshot: &Snapshot) -> [Revision; SOURCES.len()] {
    SOURCES.map(|resource| snapshot.table(resource).map_or(0, object::Table::revision))
}

/// The objects of a source, in the order of their names.
fn objects(snapshot: &Snapshot, resource: Resource) -> Vec<Value> {
    let table = snapshot.table(resource).into_iter();
    table.flat_map(|table| table.iter()).filter_map(|object| object.to_value().ok()).collect()
}

impl Operation {
    /// `CREATE`
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
        }
    }
}

/// The object's name as a review tells it: of a create with `generateName` it may not be known.
fn name_of<'a>(request: &'a Request, object: Option<&'a Value>) -> &'a str {
    if !request.key.name.is_empty() {
        return &request.key.name;
    }
    object.and_then(|object| object["metadata"]["name"].as_str()).unwrap_or_default()
}

/// `AdmissionRequest` without its objects.
fn request_value(asked: &Asked, object: Option<&Value>, version: &str) -> Value {
    let Request { user, key, subresource, dry_run, options, operation, .. } = *asked.request;
    let gvk = |version: &str| {
        let (group, own, kind) = asked.gvk;
        // A subresource's body (a Scale, a Binding) has one version only.
        let version = if subresource.is_empty() { version } else { own };
        json!({"group": group, "version": version, "kind": kind})
    };
    let resource = |version: &str| json!({"group": key.resource.group(), "version": version, "resource": key.resource.plural()});
    let mut request = json!({
        "uid": asked.uid,
        "kind": gvk(version),
        "resource": resource(version),
        "requestKind": gvk(asked.version),
        "requestResource": resource(asked.version),
        "operation": operation.word(),
        "userInfo": user_info(user),
        "dryRun": dry_run,
        "options": options,
    });
    let name = name_of(asked.request, object);
    for (field, text) in [
        ("name", name),
        ("namespace", &*key.namespace),
        ("subResource", subresource),
        ("requestSubResource", subresource),
    ] {
        if !text.is_empty() {
            request[field] = text.into();
        }
    }
    request
}

fn user_info(user: &User) -> Value {
    let mut info = json!({"username": &*user.name});
    if !user.uid.is_empty() {
        info["uid"] = (*user.uid).into();
    }
    if !user.groups.is_empty() {
        info["groups"] = user.groups.iter().map(|group| &**group).collect();
    }
    if !user.extra.is_empty() {
        info["extra"] = user
            .extra
            .iter()
            .map(|(key, values)| {
                (key.to_string(), values.iter().map(|value| Value::from(&**value)).collect())
            })
            .collect::<serde_json::Map<String, Value>>()
            .into();
    }
    info
}
