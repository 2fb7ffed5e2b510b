//! Admission: the plugins of `admission`, run over an object on its way in, and the check that nobody grants what they do not hold.

use admission::Operation;
use object::{Key, Object, Snapshot, Status, Time};
use plan::{Attributes, Decision, User, Write};
use schema::path;
use serde_json::Value;
use store::{Op, Precondition};

use crate::request::Request;
use crate::{Gate, commit};

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

/// What the plugins are told of a request.
pub(crate) struct Review<'a> {
    pub(crate) gate: &'a Gate,
    pub(crate) request: &'a Request<'a>,
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) operation: Operation,
    pub(crate) now: Time,
}

impl Review<'_> {
    fn ask<T>(&self, key: &Key, old: Option<&Value>, ask: impl FnOnce(&admission::Request<'_>) -> T) -> T {
        let Request { user, kind, subresource, options, .. } = *self.request;
        let authorize =
            |attributes: &Attributes<'_>| self.gate.authority.authorize(self.snapshot, user, attributes);
        let body =
            kind.subresource(subresource).and_then(|one| one.gvk).map_or(kind.kind, |(_, _, kind)| kind);
        ask(&admission::Request {
            user,
            operation: self.operation,
            kind: body,
            key,
            namespaced: kind.namespaced,
            subresource,
            old,
            options: &Value::Null,
            dry_run: options.dry_run,
            now: self.now,
            suffix: &self.gate.suffix(),
            authorize: &authorize,
        })
    }
}

/// Lets every mutating plugin change the object.
pub(crate) fn mutate(
    review: &Review<'_>,
    key: &Key,
    new: &mut Value,
    old: Option<&Value>,
    warnings: &mut Vec<String>,
) -> Result<(), Status> {
    let admitted = review.ask(key, old, |request| admission::mutate(review.snapshot, request, new.take()))?;
    *new = admitted.object;
    warnings.extend(admitted.warnings);
    Ok(())
}

/// Lets every validating plugin refuse, and hands on what must be written in the same transaction (quota).
pub(crate) fn validate(
    review: &Review<'_>,
    key: &Key,
    new: Option<&Value>,
    old: Option<&Value>,
    warnings: &mut Vec<String>,
) -> Result<Vec<Op>, Status> {
    if let (Some(new), "") = (new, review.request.subresource) {
        review.gate.authority.may_grant(review.snapshot, review.request.user, key, new, old)?;
    }
    let verdict = review.ask(key, old, |request| admission::validate(review.snapshot, request, new))?;
    warnings.extend(verdict.warnings);
    verdict.writes.into_iter().filter_map(|write| beside(review, write).transpose()).collect()
}

/// A plugin's write as an operation of the request's own transaction. None if its object is gone: nothing is left to count.
fn beside(review: &Review<'_>, write: Write) -> Result<Option<Op>, Status> {
    let (key, patch) = match write {
        Write::Merge { key, patch, .. } => (key, patch),
        other => {
            return Err(Status::internal(format!("admission asked for a write that is no merge: {other:?}")));
        }
    };
    let Some(stored) = review.snapshot.get(&key) else { return Ok(None) };
    merged(review.gate, stored, &patch).map(Some)
}

fn merged(gate: &Gate, stored: &Object, patch: &Value) -> Result<Op, Status> {
    let kind = gate.kind(stored.key.resource)?;
    let mut value = stored.to_value().map_err(Status::internal)?;
    schema::merge_patch(&mut value, patch);
    path::remove(&mut value, "metadata.resourceVersion");
    Ok(commit::put(commit::draft(kind, &stored.key, &value)?, Precondition::At(stored.revision)))
}
