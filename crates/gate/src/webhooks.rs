//! Admission webhooks, asked in the middle of a write. No lock is held meanwhile: if what the write stands on has moved when the answers
//! are there, the commit's preconditions fail and everything is decided anew.

use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use admission::extension::{Answered, Extensions, Webhook};
use futures_util::future::join_all;
use metrics::Page;
use object::{Key, Snapshot, Status};
use plan::Call;
use serde_json::Value;

use crate::Gate;
use crate::admit::{Review, complete};
use crate::measures::{self, Phase};
use crate::rounds::Turn;

/// A webhook's answer, or why there is none.
pub type Asking<'a> = Pin<Box<dyn Future<Output = Result<Value, String>> + Send + 'a>>;

/// Whoever can call webhooks.
pub trait Webhooks: Send + Sync + 'static {
    /// Posts the body and reads the answer, within the call's timeout. `snapshot` tells where services are.
    fn call<'a>(&'a self, snapshot: &'a Snapshot, call: &'a Call) -> Asking<'a>;

    /// Tells what was counted on the way.
    fn write_metrics(&self, _: &mut Page) {}
}

impl Gate {
    /// With somebody who can call webhooks; without, a webhook cannot be reached.
    pub fn with_webhooks(mut self, webhooks: Arc<dyn Webhooks>) -> Self {
        self.webhooks = Some(webhooks);
        self
    }

    /// The extensions of a snapshot. Compiled again only when one of their objects changed.
    pub(crate) fn extensions(&self, snapshot: &Snapshot) -> Arc<Extensions> {
        let held = || self.extensions.lock().unwrap_or_else(PoisonError::into_inner);
        let known = held().clone();
        if known.is_current(snapshot) {
            return known;
        }
        // Nobody waits for somebody else's compilation: those who need the new ones make what is new of them.
        let read = Arc::new(Extensions::read(snapshot, &known));
        let mut held = held();
        if held.is_older(&read) {
            *held = read.clone();
        }
        read
    }

    async fn ask(&self, snapshot: &Snapshot, call: &Call) -> Result<Value, String> {
        let answer = post(self.webhooks.as_deref(), snapshot, call).await;
        answer.map_err(|why| format!("failed to call webhook: {why}"))
    }
}

/// Makes a call.
///
/// # Errors
/// `Post "https://…?timeout=10s": ` and why.
pub(crate) async fn post(
    webhooks: Option<&dyn Webhooks>,
    snapshot: &Snapshot,
    call: &Call,
) -> Result<Value, String> {
    let answer = match webhooks {
        Some(webhooks) => webhooks.call(snapshot, call).await,
        None => Err("this server calls no webhooks".to_owned()),
    };
    answer.map_err(|why| format!("Post \"{}?timeout={}s\": {why}", call.target.url(), call.timeout_ms / 1000))
}

/// An object on its way through the mutating webhooks.
pub(crate) struct Passing<'a> {
    pub(crate) key: &'a Key,
    /// None for a delete.
    pub(crate) object: Option<&'a mut Value>,
    pub(crate) old: Option<&'a Value>,
    pub(crate) warnings: &'a mut Vec<String>,
}

/// Calls the mutating webhooks one after another; of the second round only those that are to be asked again.
pub(crate) async fn in_turn(
    review: &Review<'_>,
    extensions: &Extensions,
    passing: &mut Passing<'_>,
    turn: &mut Turn<usize>,
) -> Result<(), Status> {
    turn.begin(passing.object.as_deref());
    for (index, webhook) in extensions.mutating_webhooks().iter().enumerate() {
        if !turn.may_ask(&index) {
            continue;
        }
        let Some(told) = ask(review, webhook, passing).await? else { continue };
        let has_changed = match (&told.patch, passing.object.as_deref_mut()) {
            (Some(patch), Some(object)) => {
                patched(review, webhook, object, patch, told.seen, &told.version).await?
            }
            _ => false,
        };
        turn.asked(index, webhook.reinvoked, has_changed);
    }
    turn.end(passing.object.as_deref());
    Ok(())
}

/// What a webhook that admits a request wants of it.
struct Told {
    /// Operations of a JSON patch.
    patch: Option<Value>,
    /// The object as the webhook saw it.
    seen: Value,
    /// Group and version of that.
    version: (String, String),
}

/// What to ask a webhook; none if it is not about the request.
async fn call(
    review: &Review<'_>,
    webhook: &Webhook,
    key: &Key,
    object: Option<&Value>,
    old: Option<&Value>,
    uid: &str,
) -> Result<Option<(Call, (String, String))>, Status> {
    let call = review.asked(key, old, uid, |asked| {
        let call = webhook.call(review.snapshot, asked, object)?;
        Ok(call.map(|(call, served)| (call, (served.group.to_owned(), served.version.to_owned()))))
    });
    call.await?
}

async fn ask(
    review: &Review<'_>,
    webhook: &Webhook,
    passing: &mut Passing<'_>,
) -> Result<Option<Told>, Status> {
    let uid = review.gate.uid();
    let (key, object, old) = (passing.key, passing.object.as_deref(), passing.old);
    let Some((mut call, version)) = call(review, webhook, key, object, old, &uid).await? else {
        return Ok(None);
    };
    let began = Instant::now();
    let answer = (review.gate.ask(review.snapshot, &call).await, began.elapsed());
    let patch = heard(review, webhook, Phase::Admit, &uid, answer, passing.warnings)?;
    Ok(Some(Told { patch, seen: call.body["request"]["object"].take(), version }))
}

/// Takes what a webhook said, and how long that took: the patch of one that admits the request. What it warns of and what it writes into
/// the audit log counts even if it refuses.
fn heard(
    review: &Review<'_>,
    webhook: &Webhook,
    phase: Phase,
    uid: &str,
    (answer, took): (Result<Value, String>, Duration),
    warnings: &mut Vec<String>,
) -> Result<Option<Value>, Status> {
    let is_answered = answer.is_ok();
    let answered = match answer {
        Err(why) => webhook.unreachable(&why).map(|()| Answered::default()),
        Ok(answer) => webhook.answer(uid, &answer),
    };
    let judged = answered.and_then(|answered| {
        warnings.extend(answered.warnings);
        review.request.options.annotate(answered.audit);
        answered.refusal.map_or(Ok(answered.patch), Err)
    });
    let measured =
        measures::Call { name: &webhook.name, phase, operation: review.operation, is_answered, took };
    review.gate.measures.called(&measured, &judged);
    judged
}

/// Applies a webhook's patch to what it saw; whether that changed anything of the object.
async fn patched(
    review: &Review<'_>,
    webhook: &Webhook,
    object: &mut Value,
    patch: &Value,
    mut seen: Value,
    (group, version): &(String, String),
) -> Result<bool, Status> {
    if let Err(error) = schema::json_patch(&mut seen, patch) {
        webhook.unreachable(&format!("its patch cannot be applied: {error}"))?;
        return Ok(false);
    }
    let mut changed = review.restored((group, version), seen, object).await?;
    complete(review, &mut changed)?;
    let differs = changed != *object;
    *object = changed;
    Ok(differs)
}

/// Calls all validating webhooks at once. The first refusal, in the order of their names, is the one that is told; all may warn.
pub(crate) async fn at_once(
    review: &Review<'_>,
    extensions: &Extensions,
    key: &Key,
    object: Option<&Value>,
    old: Option<&Value>,
    warnings: &mut Vec<String>,
) -> Result<(), Status> {
    let uid = review.gate.uid();
    let mut calls = Vec::new();
    for webhook in extensions.validating_webhooks() {
        let call = call(review, webhook, key, object, old, &uid).await?;
        calls.extend(call.map(|(call, _)| (webhook, call)));
    }
    let asked = calls.iter().map(async |(_, call)| {
        let began = Instant::now();
        (review.gate.ask(review.snapshot, call).await, began.elapsed())
    });
    let answers = join_all(asked).await;
    let mut refused = None;
    for ((webhook, _), answer) in calls.iter().zip(answers) {
        let judged = heard(review, webhook, Phase::Validate, &uid, answer, warnings);
        refused = refused.or(judged.err());
    }
    refused.map_or(Ok(()), Err)
}
