//! DELETE of one object and of a collection.
//!
//! What happens to an object that is deleted:
//!
//! ```text
//! grace left, or finalizers   deletionTimestamp is set, the object stays
//! already deleted, waiting    a shorter grace is taken, anything else changes nothing
//! nothing holds it            it is removed
//! ```

use std::sync::Arc;

use admission::Operation;
use object::{Key, Object, Reason, Snapshot, Status, Time};
use schema::{Kind, Violation, ViolationKind};
use serde_json::Value;
use store::{Op, Precondition};

use crate::admit::{self, Review};
use crate::commit::{self, Failed};
use crate::request::{Answer, DeleteOptions, Outcome, Preconditions, Request};
use crate::{Gate, create, finalizers, metadata, removal};

const ATTEMPTS: u32 = 64;

/// What a DELETE comes to on one snapshot.
pub(crate) enum Fate {
    /// Already on its way; this request changes nothing.
    Waiting,
    /// Stays for now, marked.
    Marked(Value),
    /// Gone; shown as it was marked, if its kind has a grace that was none.
    Removed(Option<Value>),
}

impl Gate {
    /// Deletes an object, or begins to.
    ///
    /// # Errors
    /// 403 admission, 404, 409 preconditions, 422 options that contradict each other.
    pub async fn delete(&self, request: &Request<'_>, options: &DeleteOptions) -> Result<Outcome, Status> {
        check_options(options)?;
        let key = commit::key_of(request, request.name);
        let mut raced = 0;
        for _ in 0..ATTEMPTS {
            let snapshot = self.newest_of(&key, raced).await?;
            let stored = snapshot.get(&key).ok_or_else(|| Status::not_found(&key))?.clone();
            hold(request.kind, &stored, &options.preconditions)?;
            let mut warnings = Vec::new();
            let review = Review {
                gate: self,
                request,
                snapshot: &snapshot,
                operation: Operation::Delete,
                now: self.now(),
            };
            let old = self.seen(&review, &stored).await?;
            let judged = admit::validate(&review, &key, None, Some(&old), &mut warnings).await;
            judged.map_err(|status| status.warning_of(&warnings))?;
            // What is marked is written, and so in the form that is stored now.
            let kept = self.kind(request.kind.resource)?;
            let kept = self.replaced(&kept)?.unwrap_or(kept);
            let own = if kept.custom.is_some() { self.held(&kept, &stored).await? } else { old };
            let fate = fate(&kept, &stored, own, options, review.now);
            let definition = create::definition(&snapshot, &kept).filter(|_| matches!(fate, Fate::Marked(_)));
            let also = definition.map(|definition| create::stands(definition));
            let outcome = self.meet(request, &kept, &snapshot, &stored, fate, also).await;
            match outcome {
                Ok(answer) => return Ok(Outcome { answer, created: false, warnings }),
                Err(Failed::Status(status)) => return Err(status.warning_of(&warnings)),
                Err(Failed::Raced { revision, .. }) => raced = raced.max(revision).max(1),
            }
        }
        Err(Status::stale(&key))
    }

    /// The object as admission sees it. Where nobody looks, no webhook has to convert it first.
    async fn seen(&self, review: &Review<'_>, stored: &Arc<Object>) -> Result<Value, Status> {
        let kind = review.request.kind;
        if kind.is_made_by_webhook() && !review.has_extensions(&stored.key) {
            return stored.to_value().map_err(Status::internal);
        }
        self.held(kind, stored).await
    }

    /// Carries it out, with `also` in the same transaction.
    pub(crate) async fn meet(
        &self,
        request: &Request<'_>,
        kept: &Kind,
        snapshot: &Snapshot,
        stored: &Arc<Object>,
        fate: Fate,
        also: Option<Op>,
    ) -> Result<Answer, Failed> {
        let mut ops = match fate {
            Fate::Waiting => return Ok(Answer::Object(stored.clone())),
            Fate::Marked(value) => {
                let draft = commit::draft(kept, &stored.key, &value).map_err(Failed::Status)?;
                if request.options.dry_run && kept.is_made_by_webhook() {
                    // Conversions are remembered by the revision, and this one has none of its own.
                    let shown = self.converted(request.kind, value).await.map_err(Failed::Status)?;
                    return Ok(Answer::Made(shown));
                }
                if request.options.dry_run {
                    return Ok(Answer::Object(Arc::new(draft.at(stored.revision))));
                }
                vec![commit::put(draft, Precondition::At(stored.revision))]
            }
            Fate::Removed(shown) => {
                let draft = |shown| commit::draft(kept, &stored.key, &shown).map_err(Failed::Status);
                let shown = shown.map(draft).transpose()?;
                let (last, revision) = if request.options.dry_run {
                    (stored.clone(), stored.revision)
                } else {
                    let ops = removal::ops(snapshot, stored).into_iter().chain(also).collect();
                    let events = self.commit(&stored.key, ops).await?;
                    let gone = commit::committed(&stored.key, &events).map_err(Failed::Status)?;
                    let revision = gone.revision;
                    (gone, revision)
                };
                return Ok(Answer::Removed(shown.map_or(last, |shown| Arc::new(shown.at(revision)))));
            }
        };
        ops.extend(also);
        let events = self.commit(&stored.key, ops).await?;
        Ok(Answer::Object(commit::committed(&stored.key, &events).map_err(Failed::Status)?))
    }

    /// Deletes each of the given objects as [`delete`](Self::delete) would; the ones that are gone meanwhile do not matter.
    /// Returns their last states.
    pub async fn delete_collection(
        &self,
        request: &Request<'_>,
        options: &DeleteOptions,
        objects: &[Arc<Object>],
    ) -> Result<Vec<Arc<Object>>, Status> {
        let mut deleted = Vec::with_capacity(objects.len());
        for object in objects {
            let Key { namespace, name, .. } = &object.key;
            let one = Request { namespace, name, ..*request };
            match self.delete(&one, options).await {
                Ok(Outcome { answer: Answer::Object(object) | Answer::Removed(object), .. }) => {
                    deleted.push(object)
                }
                Ok(_) => {}
                Err(status) if status.reason == Reason::NotFound => {}
                Err(status) => return Err(status),
            }
        }
        Ok(deleted)
    }
}

pub(crate) fn fate(kind: &Kind, stored: &Object, old: Value, options: &DeleteOptions, now: Time) -> Fate {
    let mut new = old;
    let graceful = match kind.strategy.grace_seconds {
        None => false,
        Some(default) if !stored.meta.is_deleting() => {
            let grace = grace(default, &new, options);
            mark(&mut new, now.plus_secs(grace), grace);
            grace > 0
        }
        Some(_) => match shorter(stored, options, now) {
            Grace::Over => false,
            Grace::Waiting => return Fate::Waiting,
            Grace::Shorter(until, grace) => {
                set_deletion(&mut new, until, grace);
                grace > 0
            }
        },
    };
    // Such a kind is only marked, whatever the options say of its dependents.
    if let Some(begin) = kind.strategy.begin_deletion
        && !stored.meta.is_deleting()
    {
        metadata::metadata(&mut new).insert("deletionTimestamp".into(), now.to_string().into());
        begin(&mut new, now);
        return Fate::Marked(new);
    }
    let unsupported = kind.resource.plural() == "events";
    let wanted =
        finalizers::wanted(&stored.meta, options, kind.strategy.orphans_by_default).filter(|_| !unsupported);
    let finalizers = wanted.as_ref().unwrap_or(&stored.meta.finalizers);
    let held = !finalizers.is_empty();
    if let Some(wanted) = &wanted {
        let metadata = metadata::metadata(&mut new);
        match wanted.is_empty() {
            true => drop(metadata.remove("finalizers")),
            false => drop(
                metadata.insert("finalizers".into(), wanted.iter().map(|one| Value::from(&**one)).collect()),
            ),
        }
    }
    if kind.resource.as_str() == "namespaces" {
        return namespace_fate(kind, stored, new, now, wanted.is_some());
    }
    if graceful {
        return Fate::Marked(new);
    }
    if !held {
        return Fate::Removed(kind.strategy.grace_seconds.map(|_| new));
    }
    if !stored.meta.is_deleting() && kind.strategy.grace_seconds.is_none() {
        mark(&mut new, now, 0);
    } else if stored.meta.deletion_grace_period_seconds == Some(0) && wanted.is_none() {
        return Fate::Waiting;
    } else {
        metadata::metadata(&mut new).insert("deletionGracePeriodSeconds".into(), 0.into());
    }
    Fate::Marked(new)
}

/// A namespace is first marked and emptied by its controller; a later DELETE removes it once nothing holds it.
fn namespace_fate(kind: &Kind, stored: &Object, mut new: Value, now: Time, finalizers_changed: bool) -> Fate {
    if !stored.meta.is_deleting() {
        metadata::metadata(&mut new).insert("deletionTimestamp".into(), now.to_string().into());
        schema::path::set(&mut new, "status.phase", "Terminating".into());
        return Fate::Marked(new);
    }
    if !removal::is_held(kind, &new) && new["metadata"].get("finalizers").is_none() {
        return Fate::Removed(None);
    }
    if finalizers_changed { Fate::Marked(new) } else { Fate::Waiting }
}

/// The grace of a first DELETE: what was asked for, or the kind's own; negative means one second.
fn grace(default: fn(&Value) -> i64, object: &Value, options: &DeleteOptions) -> i64 {
    let grace = pod_needs_no_grace(object)
        .unwrap_or_else(|| options.grace_seconds.unwrap_or_else(|| default(object)));
    if grace < 0 { 1 } else { grace }
}

/// No kubelet has to stop a pod that was never assigned or has ended.
fn pod_needs_no_grace(object: &Value) -> Option<i64> {
    let unassigned = schema::path::text(object, "spec.nodeName").is_empty();
    let ended = matches!(schema::path::text(object, "status.phase"), "Succeeded" | "Failed");
    (unassigned || ended).then_some(0)
}

enum Grace {
    Over,
    Waiting,
    /// (until, seconds)
    Shorter(Time, i64),
}

/// What a further DELETE of a graceful object does: only a shorter grace counts.
fn shorter(stored: &Object, options: &DeleteOptions, now: Time) -> Grace {
    let held = stored.meta.deletion_grace_period_seconds.unwrap_or(0);
    let Some(until) = stored.meta.deletion_timestamp else { return Grace::Over };
    if held == 0 {
        return Grace::Over;
    }
    let Some(asked) = options.grace_seconds.map(|asked| if asked < 0 { 1 } else { asked }) else {
        return Grace::Waiting;
    };
    if asked >= held {
        return Grace::Waiting;
    }
    let moved = until.plus_secs(asked - held);
    if moved >= now {
        return Grace::Shorter(moved, asked);
    }
    Grace::Shorter(now, asked.min(1))
}

fn mark(object: &mut Value, until: Time, grace: i64) {
    set_deletion(object, until, grace);
    if object["metadata"]["generation"].as_i64().unwrap_or(0) > 0 {
        metadata::raise_generation(object);
    }
}

fn set_deletion(object: &mut Value, until: Time, grace: i64) {
    let metadata = metadata::metadata(object);
    metadata.insert("deletionTimestamp".into(), until.to_string().into());
    metadata.insert("deletionGracePeriodSeconds".into(), grace.into());
}

fn check_options(options: &DeleteOptions) -> Result<(), Status> {
    if options.propagation.is_none() || options.orphan_dependents.is_none() {
        return Ok(());
    }
    let violation = Violation {
        kind: ViolationKind::Invalid,
        field: "propagationPolicy".into(),
        value: format!("\"{:?}\"", options.propagation.unwrap_or(plan::Propagation::Background)),
        detail: "orphanDependents and deletionPropagation cannot be both set".into(),
    };
    Err(Violation::to_status(&[violation], "meta.k8s.io", "DeleteOptions", ""))
}

/// The preconditions of `DeleteOptions`, with the words that upstream has for them.
pub(crate) fn hold(kind: &Kind, stored: &Object, expect: &Preconditions) -> Result<(), Status> {
    let (asked, held, field, fate) = match (&expect.uid, &expect.revision) {
        (Some(uid), _) if *uid != stored.meta.uid => {
            (uid, stored.meta.uid.to_string(), "UID", "deleted and then recreated")
        }
        (_, Some(revision)) if revision.parse() != Ok(stored.revision) => {
            (revision, stored.revision.to_string(), "ResourceVersion", "modified")
        }
        _ => return Ok(()),
    };
    let subject =
        if kind.group.is_empty() { kind.kind.to_owned() } else { format!("{}.{}", kind.kind, kind.group) };
    let mut status = Status::conflict(
        &stored.key,
        &format!(
            "the {field} in the precondition ({asked}) does not match the {field} in record ({held}). \
             The object might have been {fate}"
        ),
    );
    status.message = status.message.replacen(&stored.key.resource.to_string(), &subject, 1);
    status.kind = kind.kind.to_owned();
    Err(status)
}
