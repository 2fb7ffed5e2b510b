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

use std::collections::BTreeMap;
use std::sync::Arc;

use object::{Resource, Revision, Snapshot, Status};
use plan::{Attributes, Decision, User};
use serde_json::{Value, json};

use crate::{Operation, PolicyCheck, Request, Verdict};

pub use mutating::{Invocation, InvocationKey, Ran, Refusal, refuse};
pub use webhook::{Answered, Webhook, ca_bundle, target};

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

/// A group and version that a resource is served in. Mostly the group is the resource's own; events have two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Served<'a> {
    pub group: &'a str,
    pub version: &'a str,
}

/// A request as policies and webhooks see it.
pub struct Asked<'a> {
    pub request: &'a Request<'a>,
    /// Those of the request's path.
    pub served: Served<'a>,
    /// All that the resource is served in.
    pub all: &'a [Served<'a>],
    /// Group, version and kind of the request's body.
    pub gvk: (&'a str, &'a str, &'a str),
    /// Names this review: a UUID.
    pub uid: &'a str,
    /// May somebody else do this?
    pub authorize_as: &'a dyn Fn(&User, &Attributes) -> Decision,
    /// The resource of an apiVersion and kind, and whether it is namespaced.
    pub resource_of: &'a ResourceOf<'a>,
    /// The request's objects as they are written, in the form in which a client of a served version knows them. None: that takes a
    /// conversion that is not made yet; whoever asks makes it and asks again.
    pub seen: &'a dyn Fn(Served<'_>, &Value) -> Option<Value>,
    /// Merges a configuration into an object of a served version as server-side apply does, or says why it may not be.
    pub merge: &'a dyn Fn(Served<'_>, &mut Value, &Value) -> Result<(), String>,
}

/// All extensions of a cluster, ready to decide.
#[derive(Debug, Default)]
pub struct Extensions {
    seen: [Revision; SOURCES.len()],
    compiled: Compiled,
    mutating_policies: Vec<policy::Bound<mutating::Policy>>,
    validating_policies: Vec<policy::Bound<validating::Policy>>,
    mutating_webhooks: Vec<Arc<Webhook>>,
    validating_webhooks: Vec<Arc<Webhook>>,
}

/// What was made of each object, so that a change of one compiles that one.
#[derive(Debug, Default)]
struct Compiled {
    mutating_policies: Kept<mutating::Policy>,
    validating_policies: Kept<validating::Policy>,
    mutating_webhooks: Kept<Vec<Arc<Webhook>>>,
    validating_webhooks: Kept<Vec<Arc<Webhook>>>,
}

/// By name, in the order of names.
type Kept<T> = BTreeMap<Box<str>, (Revision, Arc<T>)>;

impl Extensions {
    /// Whether these are the extensions of a snapshot; cheap enough for every request.
    pub fn is_current(&self, snapshot: &Snapshot) -> bool {
        self.seen == revisions(snapshot)
    }

    /// Compiles what a snapshot holds, as far as it is not known from before.
    pub fn read(snapshot: &Snapshot, before: &Self) -> Self {
        let known = &before.compiled;
        let compiled = Compiled {
            mutating_policies: keep(
                snapshot,
                kinds::MUTATING_ADMISSION_POLICIES,
                &known.mutating_policies,
                mutating::Policy::read,
            ),
            validating_policies: keep(
                snapshot,
                kinds::VALIDATING_ADMISSION_POLICIES,
                &known.validating_policies,
                validating::Policy::read,
            ),
            mutating_webhooks: keep(
                snapshot,
                kinds::MUTATING_WEBHOOK_CONFIGURATIONS,
                &known.mutating_webhooks,
                webhook::read,
            ),
            validating_webhooks: keep(
                snapshot,
                kinds::VALIDATING_WEBHOOK_CONFIGURATIONS,
                &known.validating_webhooks,
                webhook::read,
            ),
        };
        let webhooks = |kept: &Kept<Vec<Arc<Webhook>>>| {
            kept.values().flat_map(|(_, webhooks)| webhooks.iter().cloned()).collect()
        };
        let mutating = kinds::MUTATING_ADMISSION_POLICY_BINDINGS;
        let validating = kinds::VALIDATING_ADMISSION_POLICY_BINDINGS;
        Self {
            seen: revisions(snapshot),
            mutating_policies: policy::bound(snapshot, &compiled.mutating_policies, mutating),
            validating_policies: policy::bound(snapshot, &compiled.validating_policies, validating),
            mutating_webhooks: webhooks(&compiled.mutating_webhooks),
            validating_webhooks: webhooks(&compiled.validating_webhooks),
            compiled,
        }
    }

    /// Whether these are of an older state than others.
    pub fn is_older(&self, than: &Self) -> bool {
        self.seen.iter().max() < than.seen.iter().max()
    }

    /// Whether anything here could have a say about the request: mostly there is nothing.
    pub fn concern(&self, request: &Request) -> bool {
        let is_empty = self.mutating_policies.is_empty()
            && self.validating_policies.is_empty()
            && self.mutating_webhooks.is_empty()
            && self.validating_webhooks.is_empty();
        !is_empty && !SOURCES.contains(&request.key.resource)
    }

    /// Which mutating policies are asked about a request, and what refuses it already.
    pub fn invocations(
        &self,
        snapshot: &Snapshot,
        asked: &Asked,
        object: &Value,
    ) -> (Vec<Invocation>, Vec<Refusal>) {
        mutating::invocations(&self.mutating_policies, snapshot, asked, object)
    }

    /// Lets one of them change the object, if it `may_run` in this round.
    pub fn mutate(
        &self,
        invocation: &Invocation,
        snapshot: &Snapshot,
        asked: &Asked,
        object: &Value,
        may_run: bool,
    ) -> Ran {
        mutating::run(&self.mutating_policies, invocation, snapshot, asked, object, may_run)
    }

    /// Lets the validating policies judge. `object` is absent for a delete. `checked` hears of each policy what it found as soon as it is
    /// done.
    pub fn validate(
        &self,
        snapshot: &Snapshot,
        asked: &Asked,
        object: Option<&Value>,
        verdict: &mut Verdict,
        mut checked: impl FnMut(Vec<PolicyCheck>),
    ) -> Result<(), Status> {
        let mut denials = Vec::new();
        for bound in &self.validating_policies {
            checked(validating::run(bound, snapshot, asked, object, verdict, &mut denials));
        }
        validating::refuse(asked, object, denials)
    }

    /// In the order in which they are called.
    pub fn mutating_webhooks(&self) -> &[Arc<Webhook>] {
        &self.mutating_webhooks
    }

    pub fn validating_webhooks(&self) -> &[Arc<Webhook>] {
        &self.validating_webhooks
    }
}

fn revisions(snapshot: &Snapshot) -> [Revision; SOURCES.len()] {
    SOURCES.map(|resource| snapshot.table(resource).map_or(0, object::Table::revision))
}

/// What objects of a source are compiled to: taken over of those that are as they were.
fn keep<T>(snapshot: &Snapshot, resource: Resource, known: &Kept<T>, read: fn(&Value) -> T) -> Kept<T> {
    let table = snapshot.table(resource).into_iter();
    let objects = table.flat_map(|table| table.iter());
    objects
        .filter_map(|object| {
            let name = &*object.key.name;
            let kept = match known.get(name) {
                Some((revision, kept)) if *revision == object.revision => kept.clone(),
                _ => Arc::new(read(&object.to_value().ok()?)),
            };
            Some((name.into(), (object.revision, kept)))
        })
        .collect()
}

/// The objects of a source, in the order of their names.
fn objects(snapshot: &Snapshot, resource: Resource) -> Vec<Value> {
    let table = snapshot.table(resource).into_iter();
    table.flat_map(|table| table.iter()).filter_map(|object| object.to_value().ok()).collect()
}

impl Operation {
    /// `CREATE`
    pub fn word(self) -> &'static str {
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
fn request_value(asked: &Asked, object: Option<&Value>, served: Served<'_>) -> Value {
    let Request { user, key, subresource, dry_run, options, operation, .. } = *asked.request;
    let (group, version, kind) = asked.gvk;
    // The body of some subresources (a Scale, a Binding) has one version only.
    let is_own = asked.served == Served { group, version };
    let gvk = |served: Served<'_>| {
        let Served { group, version } = if is_own { served } else { Served { group, version } };
        json!({"group": group, "version": version, "kind": kind})
    };
    let resource = |Served { group, version }: Served<'_>| json!({"group": group, "version": version, "resource": key.resource.plural()});
    let mut request = json!({
        "uid": asked.uid,
        "kind": gvk(served),
        "resource": resource(served),
        "requestKind": gvk(asked.served),
        "requestResource": resource(asked.served),
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
