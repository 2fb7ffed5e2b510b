//! Admission: the plugins of `admission`, run over an object on its way in, and the check that nobody grants what they do not hold.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Instant;

use admission::extension::{self, Asked, Extensions, InvocationKey, Served};
use admission::{CHAIN, Operation, Plugin, PolicyCheck, Step, Verdict};
use object::{Key, Snapshot, Status, Time};
use plan::{Attributes, Decision, User};
use schema::{Kind, path};
use serde_json::Value;

use crate::measures::{Phase, Stopwatch};
use crate::request::Request;
use crate::rounds::{Rounds, Turn};
use crate::webhooks::Passing;
use crate::{Catalog, Gate, charge, decode, ownership, scale, webhooks};

/// Who may do what, asked in the middle of a write: plugins ask whether the user may do something else besides.
pub trait Authority: Send + Sync + 'static {
    fn authorize(&self, snapshot: &Snapshot, user: &User, attributes: &Attributes<'_>) -> Decision;

    /// Whether a user may write this role or binding: nobody grants what they do not hold.
    fn may_grant(
        &self,
        snapshot: &Snapshot,
        user: &User,
        key: &Key,
        new: &Value,
        old: Option<&Value>,
    ) -> Result<(), Status>;
}

/// An object that a conversion webhook made of another one.
struct Made {
    version: &'static str,
    from: Value,
    to: Value,
}

/// What the plugins are told of a request.
#[derive(Clone, Copy)]
pub(crate) struct Review<'a> {
    pub(crate) gate: &'a Gate,
    pub(crate) request: &'a Request<'a>,
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) operation: Operation,
    pub(crate) now: Time,
}

impl Review<'_> {
    pub(crate) fn ask<T>(
        &self,
        key: &Key,
        old: Option<&Value>,
        ask: impl FnOnce(&admission::Request<'_>) -> T,
    ) -> T {
        let Request { user, kind, subresource, options, .. } = *self.request;
        let authorize =
            |attributes: &Attributes<'_>| self.gate.authority.authorize(self.snapshot, user, attributes);
        let pod_identity = self.gate.pod_identity.as_ref().map(|source| source());
        ask(&admission::Request {
            user,
            operation: self.operation,
            kind: self.body().2,
            key,
            namespaced: kind.namespaced,
            subresource,
            old,
            options: &Value::Null,
            dry_run: options.dry_run,
            now: self.now,
            suffix: &self.gate.suffix(),
            configuration: &self.gate.admission,
            pod_identity: pod_identity.as_deref(),
            fargate: self.gate.fargate.as_ref().map(|fargate| &**fargate as &dyn admission::Fargate),
            authorize: &authorize,
        })
    }

    /// Group, version and kind of the request's body.
    fn body(&self) -> (&'static str, &'static str, &'static str) {
        let kind = self.request.kind;
        let own = kind.subresource(self.request.subresource).and_then(|one| one.gvk);
        own.unwrap_or((kind.group, kind.version, kind.kind))
    }

    /// As [`Review::ask`], for extensions: what the cluster serves, and how objects of it are converted and merged. Conversions that only a
    /// webhook makes are made when they are missed, and the question is asked again.
    pub(crate) async fn asked<T>(
        &self,
        key: &Key,
        old: Option<&Value>,
        uid: &str,
        mut ask: impl FnMut(&Asked<'_>) -> T,
    ) -> Result<T, Status> {
        let catalog = self.gate.catalog();
        let of_resource = |row: &&Arc<Kind>| row.resource == self.request.kind.resource;
        let rows: Vec<Arc<Kind>> = catalog.all().iter().filter(of_resource).cloned().collect();
        let mut made = Vec::new();
        loop {
            let (answer, missed) = self.asked_once(key, old, uid, &catalog, &rows, &made, &mut ask);
            if missed.is_empty() {
                return Ok(answer);
            }
            for (row, value) in missed {
                let converted = self.gate.converted(&row, value.clone()).await?;
                made.push(Made { version: row.version, from: value, to: converted });
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "one question, taken apart for its loop")]
    fn asked_once<T>(
        &self,
        key: &Key,
        old: Option<&Value>,
        uid: &str,
        catalog: &Catalog,
        rows: &[Arc<Kind>],
        made: &[Made],
        ask: &mut impl FnMut(&Asked<'_>) -> T,
    ) -> (T, Vec<(Arc<Kind>, Value)>) {
        let (gate, kind) = (self.gate, self.request.kind);
        let all: Vec<Served<'_>> =
            rows.iter().map(|row| Served { group: row.group, version: row.version }).collect();
        let missed = RefCell::new(Vec::new());
        let seen = |served: Served<'_>, object: &Value| {
            if self.request.subresource == "scale" {
                return Some(scale::scale_of(kind, object));
            }
            if !self.is_whole(object) {
                return Some(object.clone());
            }
            let row = rows.iter().find(|row| row.group == served.group && row.version == served.version)?;
            if row.custom.is_none() {
                return Some(row.read_stored(object.clone()));
            }
            if row.version == kind.version {
                return Some(object.clone());
            }
            if let Some(known) = made.iter().find(|one| one.version == row.version && one.from == *object) {
                return Some(known.to.clone());
            }
            missed.borrow_mut().push((row.clone(), object.clone()));
            None
        };
        let resource_of = |api_version: &str, name: &str| {
            let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
            let fits = |row: &&Arc<Kind>| {
                row.group == group && row.version == version && row.kind == name && row.is_stored()
            };
            catalog.all().iter().find(fits).map(|row| (row.resource, row.namespaced))
        };
        let authorize_as = |user: &User, attributes: &Attributes<'_>| {
            gate.authority.authorize(self.snapshot, user, attributes)
        };
        let merge = |served: Served<'_>, object: &mut Value, configuration: &Value| {
            let row = rows.iter().find(|row| row.group == served.group && row.version == served.version);
            ownership::merge(row.map_or(kind, |row| row), object, configuration)
        };
        let answer = self.ask(key, old, |request| {
            ask(&Asked {
                request,
                served: Served { group: kind.group, version: kind.version },
                all: &all,
                gvk: self.body(),
                uid,
                authorize_as: &authorize_as,
                resource_of: &resource_of,
                seen: &seen,
                merge: &merge,
            })
        });
        (answer, missed.into_inner())
    }

    /// Whether an object is one of the request's resource, not the body of a connect or of a subresource.
    fn is_whole(&self, object: &Value) -> bool {
        object.get("kind").and_then(Value::as_str) == Some(self.request.kind.kind)
    }

    /// What a webhook that sees the objects in some version made of one of them, in the form that is written.
    pub(crate) async fn restored(
        &self,
        version: (&str, &str),
        changed: Value,
        object: &Value,
    ) -> Result<Value, Status> {
        let kind = self.request.kind;
        if self.request.subresource == "scale" {
            return scale::blend(kind, changed, object, self.now);
        }
        if !self.is_whole(object) {
            return Ok(changed);
        }
        if kind.custom.is_some() {
            return self.gate.converted(kind, changed).await;
        }
        let catalog = self.gate.catalog();
        let row = catalog.served(version.0, version.1, kind.resource.plural());
        Ok(row.map_or(changed.clone(), |row| row.to_stored(changed)))
    }

    pub(crate) fn has_extensions(&self, key: &Key) -> bool {
        self.extensions(key, None).is_some()
    }

    /// The extensions of the cluster, if any of them may have a say.
    fn extensions(&self, key: &Key, old: Option<&Value>) -> Option<Arc<Extensions>> {
        let extensions = self.gate.extensions(self.snapshot);
        self.ask(key, old, |request| extensions.concern(request)).then_some(extensions)
    }

    fn complete(
        &self,
        plugins: &[Plugin],
        watch: &mut Stopwatch<'_>,
        key: &Key,
        new: &mut Value,
        old: Option<&Value>,
        warnings: &mut Vec<String>,
    ) -> Result<(), Status> {
        if plugins.iter().all(|plugin| plugin.mutate.is_none()) {
            return Ok(());
        }
        let mut told = watch.of(plugins);
        let mutate = |request: &admission::Request<'_>| {
            admission::mutate(plugins, self.snapshot, request, new.take(), |index, is_refused| {
                told.had_its_say(index, is_refused);
            })
        };
        let admitted = self.ask(key, old, mutate)?;
        *new = admitted.object;
        warnings.extend(admitted.warnings);
        Ok(())
    }
}

/// What admission made of a request that nothing is stored of.
#[derive(Debug)]
pub struct Passed {
    pub object: Value,
    /// Texts of `Warning: 299` headers.
    pub warnings: Vec<String>,
}

impl Gate {
    /// Admits a request that is answered by somebody else than the store: a token (CREATE), a stream or a proxied request (CONNECT).
    /// Plugins, policies and webhooks see the object (a `TokenRequest`, a `PodExecOptions`), and what they make of it is what counts.
    ///
    /// # Errors
    /// Whatever refuses it: 403 by plugins and policies, a webhook's own code.
    pub async fn admit(
        &self,
        request: &Request<'_>,
        operation: Operation,
        object: Value,
    ) -> Result<Passed, Status> {
        let snapshot = self.store.snapshot();
        let key = Key::new(request.kind.resource, request.namespace, request.name);
        let review = Review { gate: self, request, snapshot: &snapshot, operation, now: self.now() };
        let (mut object, mut warnings) = (object, Vec::new());
        let judged = async {
            mutate(&review, &key, &mut object, None, &mut warnings).await?;
            validate(&review, &key, Some(&object), None, &mut warnings).await
        };
        judged.await.map_err(|status| status.warning_of(&warnings))?;
        if !charge::ops(&review, &key, &object, None)?.is_empty() {
            return Err(Status::internal("admission counted a request that nothing is stored of"));
        }
        Ok(Passed { object, warnings })
    }
}

/// Lets every mutating plugin, policy and webhook change the object; once more if a webhook wants to see what came after it. Then it must not
/// grant what its user does not hold.
pub(crate) async fn mutate(
    review: &Review<'_>,
    key: &Key,
    new: &mut Value,
    old: Option<&Value>,
    warnings: &mut Vec<String>,
) -> Result<(), Status> {
    let mut watch = review.gate.measures.stopwatch(review.operation, Phase::Admit);
    let done = mutate_in_rounds(review, &mut watch, key, new, old, warnings).await;
    watch.ended(done.is_err());
    done
}

async fn mutate_in_rounds(
    review: &Review<'_>,
    watch: &mut Stopwatch<'_>,
    key: &Key,
    new: &mut Value,
    old: Option<&Value>,
    warnings: &mut Vec<String>,
) -> Result<(), Status> {
    let extensions = review.extensions(key, old);
    let before = extensions.is_some().then(|| identity(new));
    let mut rounds = Rounds::default();
    loop {
        for step in CHAIN {
            match (step, &extensions) {
                (Step::Plugins(plugins), _) => review.complete(plugins, watch, key, new, old, warnings)?,
                (Step::MutatingPolicies, Some(extensions)) => {
                    policies(review, extensions, key, new, old, &mut rounds.policies).await?;
                }
                (Step::MutatingWebhooks, Some(extensions)) => {
                    let mut passing = Passing { key, object: Some(&mut *new), old, warnings: &mut *warnings };
                    webhooks::in_turn(review, extensions, &mut passing, &mut rounds.webhooks).await?;
                }
                (Step::MutatingPolicies | Step::MutatingWebhooks, None)
                | (Step::ValidatingPolicies | Step::ValidatingWebhooks | Step::Charge(..), _) => {}
            }
        }
        if !rounds.again() {
            break;
        }
    }
    if let Some(before) = before {
        fit(review.request.kind, new);
        unchanged(key, &before, new)?;
    }
    if review.request.subresource.is_empty() {
        review.gate.authority.may_grant(review.snapshot, review.request.user, key, new, old)?;
    }
    Ok(())
}

/// Lets the mutating policies change the object, each in the version that it is about.
async fn policies(
    review: &Review<'_>,
    extensions: &Extensions,
    key: &Key,
    new: &mut Value,
    old: Option<&Value>,
    turn: &mut Turn<InvocationKey>,
) -> Result<(), Status> {
    let uid = review.gate.uid();
    let found =
        review.asked(key, old, &uid, |asked| extensions.invocations(review.snapshot, asked, new)).await?;
    let (invocations, mut refusals) = found;
    turn.begin(Some(new));
    for invocation in invocations {
        let (who, began) = (invocation.key(), Instant::now());
        let ran = review.asked(key, old, &uid, |asked| {
            extensions.mutate(&invocation, review.snapshot, asked, new, turn.may_ask(&who))
        });
        let mut ran = ran.await?;
        refusals.extend(ran.take_refusals());
        if let Some((policy, binding, error)) = ran.check.take() {
            review.gate.measures.mutated([policy, binding, error.to_owned()], began.elapsed());
        }
        let Some(made) = ran.object else { continue };
        let (group, version) = (&*invocation.version.0, &*invocation.version.1);
        let mut changed = review.restored((group, version), made, new).await?;
        complete(review, &mut changed)?;
        let differs = changed != *new;
        *new = changed;
        turn.asked(who, ran.is_reinvoked, differs);
    }
    turn.end(Some(new));
    review.ask(key, old, |request| extension::refuse(request, Some(new), refusals))
}

/// What an extension made of an object, without what its kind does not know and with defaults for what is left out.
pub(crate) fn complete(review: &Review<'_>, changed: &mut Value) -> Result<(), Status> {
    if !review.request.subresource.is_empty() {
        return Ok(());
    }
    let row = review.gate.row(review.request)?;
    // What a schema does not know stays in a custom resource until all have seen it.
    if row.custom.is_none() {
        decode::prune(&row, changed)?;
    }
    decode::default(&row, changed);
    Ok(())
}

/// What extensions put into a custom resource that its schema does not have goes, and what they left out is completed.
fn fit(kind: &Kind, object: &mut Value) {
    if let Some(custom) =
        kind.custom.as_ref().filter(|_| object.get("kind").is_some_and(|name| name == kind.kind))
    {
        custom.fit(&kind.api_version(), object);
    }
}

/// What says which object this is, and of what kind.
const IDENTITY: [&str; 6] =
    ["apiVersion", "kind", "metadata.name", "metadata.generateName", "metadata.namespace", "metadata.uid"];

fn identity(object: &Value) -> [Value; IDENTITY.len()] {
    IDENTITY.map(|field| path::get(object, field).cloned().unwrap_or_default())
}

/// Policies and webhooks complete an object; they make no other one of it.
fn unchanged(key: &Key, before: &[Value], object: &Value) -> Result<(), Status> {
    let after = identity(object);
    let changed = IDENTITY.iter().zip(before.iter().zip(&after)).find(|(_, (before, after))| before != after);
    match changed {
        Some((field, _)) => {
            Err(Status::forbidden(key, &format!("a mutating policy or webhook changed {field}")))
        }
        None if !object.is_object() => Err(Status::internal("a mutating policy or webhook left no object")),
        None => Ok(()),
    }
}

/// Lets every validating plugin, policy and webhook refuse; what the request is charged comes with its commit ([`charge`]).
pub(crate) async fn validate(
    review: &Review<'_>,
    key: &Key,
    new: Option<&Value>,
    old: Option<&Value>,
    warnings: &mut Vec<String>,
) -> Result<(), Status> {
    let mut verdict = Verdict::default();
    let mut watch = review.gate.measures.stopwatch(review.operation, Phase::Validate);
    let judged = judge(review, &mut watch, key, new, old, &mut verdict).await;
    watch.ended(judged.is_err());
    for note in &verdict.pod_security {
        let operation = if old.is_some() { "update" } else { "create" };
        review.gate.measures.pod_security(*note, operation, key.resource, review.request.subresource);
    }
    // What is written down and told of a request that is refused matters most.
    review.request.options.annotate(verdict.audit);
    warnings.extend(verdict.warnings);
    judged
}

async fn judge(
    review: &Review<'_>,
    watch: &mut Stopwatch<'_>,
    key: &Key,
    new: Option<&Value>,
    old: Option<&Value>,
    verdict: &mut Verdict,
) -> Result<(), Status> {
    let extensions = review.extensions(key, old);
    for step in CHAIN {
        match (step, &extensions) {
            (Step::Plugins(plugins), _) => {
                if plugins.iter().any(|plugin| plugin.validate.is_some()) {
                    let mut told = watch.of(plugins);
                    let judge = |request: &admission::Request<'_>| {
                        admission::validate(
                            plugins,
                            review.snapshot,
                            request,
                            new,
                            verdict,
                            |index, is_refused| {
                                told.had_its_say(index, is_refused);
                            },
                        )
                    };
                    review.ask(key, old, judge)?;
                }
            }
            // A delete has nothing to change, and mutating webhooks may refuse it all the same.
            (Step::MutatingWebhooks, Some(extensions)) if new.is_none() => {
                let mut passing = Passing { key, object: None, old, warnings: &mut verdict.warnings };
                webhooks::in_turn(review, extensions, &mut passing, &mut Turn::default()).await?;
            }
            (Step::ValidatingPolicies, Some(extensions)) => {
                let uid = review.gate.uid();
                let told = review.asked(key, old, &uid, |asked| {
                    let (mut told, mut began) = (Verdict::default(), Instant::now());
                    let checked = |checks: Vec<PolicyCheck>| {
                        review.gate.measures.judged(checks, began.elapsed());
                        began = Instant::now();
                    };
                    let judged = extensions.validate(review.snapshot, asked, new, &mut told, checked);
                    (judged, told)
                });
                let (judged, told) = told.await?;
                verdict.warnings.extend(told.warnings);
                verdict.audit.extend(told.audit);
                judged?;
            }
            (Step::ValidatingWebhooks, Some(extensions)) => {
                webhooks::at_once(review, extensions, key, new, old, &mut verdict.warnings).await?;
            }
            (Step::MutatingPolicies | Step::MutatingWebhooks | Step::Charge(..), _)
            | (Step::ValidatingPolicies | Step::ValidatingWebhooks, None) => {}
        }
    }
    Ok(())
}
