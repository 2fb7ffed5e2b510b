//! What a request is charged (ResourceQuota), decided with its commit.
//!
//! Everybody else has let the request pass by then, and is not asked again because others are charged meanwhile: webhooks cost time, and may
//! do something each time they are asked. Upstream decides this step alone again, too.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use admission::{CHAIN, Step};
use object::{Event, Key, Object, Status};
use plan::Write;
use schema::path;
use serde_json::Value;
use store::{Op, Precondition};
use tokio::sync::Mutex;

use crate::admit::Review;
use crate::commit::{self, Failed};
use crate::measures::Phase;
use crate::ownership::{self, Elsewhere};
use crate::{Gate, Options, Request};

/// How often somebody else (a quota's controller, another server) may write a quota while it is a request's turn.
const ATTEMPTS: u32 = 64;
/// Namespaces that share a turn only wait for each other.
const TURNS: usize = 64;

/// Whose turn it is to be charged in a namespace. Without them, each commit would make all others decide anew.
pub(crate) struct Turns([Mutex<()>; TURNS]);

impl Default for Turns {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Mutex::default()))
    }
}

impl Turns {
    fn of(&self, namespace: &str) -> &Mutex<()> {
        let mut hasher = DefaultHasher::new();
        namespace.hash(&mut hasher);
        &self.0[(hasher.finish() % TURNS as u64) as usize]
    }
}

impl Gate {
    /// Commits what was decided of a create or update, and with it what the quotas charge for it: as they are now, not as they were when the
    /// others were asked. The first operation is the object that the request is about.
    pub(crate) async fn commit_charged(
        &self,
        review: &Review<'_>,
        key: &Key,
        new: &Value,
        old: Option<&Value>,
        all: Vec<Op>,
    ) -> Result<Vec<Arc<Event>>, Failed> {
        let (mut turn, mut raced) = (None, 0);
        for _ in 0..ATTEMPTS {
            let snapshot = self.snapshot_after(key, raced).await.map_err(Failed::Status)?;
            let newest = Review { snapshot: &snapshot, ..*review };
            let charges = ops(&newest, key, new, old).map_err(Failed::Status)?;
            if charges.is_empty() {
                return self.commit(key, all).await;
            }
            if turn.is_none() {
                turn = Some(self.turns.of(&key.namespace).lock().await);
                // Those who came before are charged now.
                continue;
            }
            match self.commit(key, all.iter().cloned().chain(charges).collect()).await {
                Err(Failed::Raced { op, revision }) if op >= all.len() => raced = raced.max(revision).max(1),
                done => return done,
            }
        }
        Err(Failed::Status(Status::conflict(key, "its quotas are changing too fast to decide; try again")))
    }
}

/// What a create or update is charged, as operations of its own transaction; none if it is dry.
///
/// # Errors
/// The 403 of a quota that has not so much left.
pub(crate) fn ops(
    review: &Review<'_>,
    key: &Key,
    new: &Value,
    old: Option<&Value>,
) -> Result<Vec<Op>, Status> {
    let mut ops = Vec::new();
    for step in CHAIN {
        let Step::Charge(name, charge) = step else { continue };
        let mut measured = review.gate.measures.stopwatch(review.operation, Phase::Validate).beginning(name);
        let charged = review.ask(key, old, |request| charge(review.snapshot, request, new));
        measured.had_its_say(0, charged.is_err());
        for write in charged? {
            ops.extend(beside(review, write)?);
        }
    }
    Ok(ops)
}

/// A charge as an operation. None if its object is gone: nothing is left to count.
fn beside(review: &Review<'_>, write: Write) -> Result<Option<Op>, Status> {
    let (key, patch) = match write {
        Write::Merge { key, patch, .. } => (key, patch),
        other => {
            return Err(Status::internal(format!("admission asked for a write that is no merge: {other:?}")));
        }
    };
    let Some(stored) = review.snapshot.get(&key) else { return Ok(None) };
    merged(review, stored, &patch).map(Some)
}

/// The API server itself writes the status, whoever's request it is for.
fn merged(review: &Review<'_>, stored: &Object, patch: &Value) -> Result<Op, Status> {
    let kind = review.gate.kind(stored.key.resource)?;
    let old = stored.to_value().map_err(Status::internal)?;
    let mut value = old.clone();
    schema::merge_patch(&mut value, patch);
    path::remove(&mut value, "metadata.resourceVersion");
    let request = Request {
        user: review.request.user,
        kind: &kind,
        namespace: &stored.key.namespace,
        name: &stored.key.name,
        subresource: "status",
        options: &Options { field_manager: "kube-apiserver".into(), ..Options::default() },
    };
    ownership::updated(&request, &kind, &mut value, &old, review.now, &Elsewhere::default());
    Ok(commit::put(commit::draft(&kind, &stored.key, &value)?, Precondition::At(stored.revision)))
}
