//! Where a component runs when several servers share one store: on the one that holds its Lease.
//!
//! The protocol is upstream's (client-go, `tools/leaderelection`). Whoever wants to lead watches the Lease; if that has not changed for as
//! long as it says it lasts, it may be taken. The wait is measured on this server's own clock from when it saw the Lease change, so the
//! clocks of servers need not agree.
//!
//! ```text
//!            released, or unchanged for 15 s                not renewed for 10 s, or another's
//! stand by ─────────────────────────────────► lead: work ──────────────────────────────────────► stand by
//!                                              │  renew every 2 s
//!                                              └─ told to stop: release
//! ```
//!
//! A leader that was deposed without noticing, because it was stopped for a while or cut off, writes nothing: each of its transactions
//! also compares the Lease, as it is in the term that the leader was elected for.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use gate::Gate;
use kinds::LEASES;
use object::{Key, Object, Reason, Revision, Snapshot, Status};
use plan::{Expect, User, Write};
use serde::Deserialize;
use serde_json::{Value, json};
use store::{
    Commit, CommitError, Op, Over, Pending, Precondition, Put, Store, StoreError, Transaction, WatchError,
};
use tokio::time::Instant;
use tracing::{info, warn};

use crate::run::Clock;

const NAMESPACE: &str = "kube-system";
/// Upstream's `--leader-elect-lease-duration`, `-renew-deadline` and `-retry-period`.
const LEASE_SECONDS: u32 = 15;
const RENEW_DEADLINE: Duration = Duration::from_secs(10);
const RETRY_PERIOD: Duration = Duration::from_secs(2);

/// Who may lead one component.
pub struct Election {
    /// The component, and its Lease in kube-system: `kube-controller-manager`.
    pub name: &'static str,
    /// This server. No two that run may have the same; one that comes back under its name goes on without a wait.
    pub identity: String,
    /// Not fenced: the way in for the Lease itself.
    pub gate: Arc<Gate>,
    pub clock: Clock,
}

/// What a Lease says of a leader.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Record {
    holder_identity: String,
    lease_duration_seconds: u32,
    /// Counts the terms.
    lease_transitions: i64,
}

impl Record {
    fn of(lease: &Object) -> Self {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Lease {
            spec: Record,
        }
        lease.decode::<Lease>().unwrap_or_default().spec
    }
}

/// One time of leading.
#[derive(Clone, Debug)]
struct Term {
    lease: Key,
    holder: String,
    number: i64,
}

impl Term {
    /// The Lease, if this term still lasts.
    fn lease_in<'a>(&self, snapshot: &'a Snapshot) -> Option<&'a Arc<Object>> {
        let lease = snapshot.get(&self.lease)?;
        let record = Record::of(lease);
        (record.holder_identity == self.holder && record.lease_transitions == self.number).then_some(lease)
    }
}

impl Election {
    /// Does `work` whenever this server leads, until `shutdown` resolves or the store is closed. `work` is given a store that takes
    /// writes as long as the term lasts, and is dropped when that is over.
    pub async fn run<W>(self, work: impl Fn(Arc<dyn Store>) -> W, shutdown: impl Future<Output = ()>)
    where
        W: Future<Output = ()>,
    {
        let mut shutdown = pin!(shutdown);
        loop {
            let won = tokio::select! {
                won = self.win() => won,
                () = &mut shutdown => return,
            };
            let Some(term) = won else { return };
            info!(component = self.name, holder = term.holder, term = term.number, "leads");
            let fenced = Arc::new(Fenced { store: self.gate.store().clone(), term: term.clone() });
            tokio::select! {
                () = work(fenced) => return,
                () = self.hold(&term) => warn!(component = self.name, "no longer leads"),
                () = &mut shutdown => return self.release(&term).await,
            }
        }
    }

    fn key(&self) -> Key {
        Key::new(LEASES, NAMESPACE, self.name)
    }

    /// Waits until the Lease can be taken, and takes it. `None`: the store is closed.
    async fn win(&self) -> Option<Term> {
        let mut seen: Option<(Revision, Instant)> = None;
        loop {
            let snapshot = self.gate.store().snapshot();
            let lease = snapshot.get(&self.key());
            if let Some(lease) = lease
                && seen.is_none_or(|(revision, _)| revision != lease.revision)
            {
                seen = Some((lease.revision, Instant::now()));
            }
            let since = seen.map_or_else(Instant::now, |(_, since)| since);
            let free_at = lease.map_or(since, |lease| self.free_at(&Record::of(lease), since));
            if free_at > Instant::now() {
                match self.gate.store().watch(Some(LEASES), snapshot.revision()) {
                    Ok(mut watch) => drop(tokio::time::timeout_at(free_at, watch.next()).await),
                    Err(WatchError::Compacted { .. }) => {}
                    Err(WatchError::Closed) => return None,
                }
                continue;
            }
            match self.take(lease.map(|lease| &**lease)).await {
                Ok(term) => return Some(term),
                Err(status) if status.reason == Reason::ServiceUnavailable => return None,
                // Another server was faster, and its Lease is on its way here.
                Err(status) if matches!(status.reason, Reason::AlreadyExists | Reason::Conflict) => {}
                Err(status) => warn!(component = self.name, %status, "the lease could not be taken"),
            }
            tokio::time::sleep(RETRY_PERIOD).await;
        }
    }

    /// When a Lease that was seen to change at `since` may be taken.
    fn free_at(&self, record: &Record, since: Instant) -> Instant {
        if record.holder_identity.is_empty() || record.holder_identity == self.identity {
            return since;
        }
        since + Duration::from_secs(record.lease_duration_seconds.into())
    }

    async fn take(&self, lease: Option<&Object>) -> Result<Term, Status> {
        let now = (self.clock)().micro();
        let number = lease.map_or(0, |lease| Record::of(lease).lease_transitions + 1);
        let spec = json!({
            "holderIdentity": self.identity, "leaseDurationSeconds": LEASE_SECONDS,
            "acquireTime": now, "renewTime": now, "leaseTransitions": number,
        });
        let write = match lease {
            Some(lease) => self.change(lease, spec),
            None => Write::Create {
                resource: LEASES,
                object: json!({
                    "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                    "metadata": {"name": self.name, "namespace": NAMESPACE}, "spec": spec,
                }),
            },
        };
        let key = self.key();
        self.gate.execute(&self.user(), write).await?.ok_or_else(|| Status::not_found(&key))?;
        Ok(Term { lease: key, holder: self.identity.clone(), number })
    }

    /// Renews the Lease until that fails for too long, or another server has it.
    async fn hold(&self, term: &Term) {
        let (user, mut renewed) = (self.user(), Instant::now());
        loop {
            tokio::time::sleep(RETRY_PERIOD).await;
            let asked = Instant::now();
            if asked >= renewed + RENEW_DEADLINE {
                return;
            }
            let snapshot = self.gate.store().snapshot();
            let Some(lease) = term.lease_in(&snapshot) else { return };
            let write = self.change(lease, json!({"renewTime": (self.clock)().micro()}));
            let renewal = self.gate.execute(&user, write);
            match tokio::time::timeout_at(renewed + RENEW_DEADLINE, renewal).await {
                Ok(Ok(Some(_))) => renewed = asked,
                Ok(Ok(None)) | Err(_) => return,
                Ok(Err(status)) => warn!(component = self.name, %status, "the lease could not be renewed"),
            }
        }
    }

    /// Gives the Lease back, so that another server need not wait.
    async fn release(&self, term: &Term) {
        match tokio::time::timeout(RETRY_PERIOD, self.give_back(term)).await {
            Ok(Ok(())) => {}
            Ok(Err(status)) => warn!(component = self.name, %status, "the lease could not be given back"),
            Err(_) => warn!(component = self.name, "the lease could not be given back in time"),
        }
    }

    async fn give_back(&self, term: &Term) -> Result<(), Status> {
        let user = self.user();
        loop {
            let snapshot = self.gate.store().snapshot();
            let Some(lease) = term.lease_in(&snapshot) else { return Ok(()) };
            let spec =
                json!({"holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": (self.clock)().micro()});
            match self.gate.execute(&user, self.change(lease, spec)).await {
                // A renewal was under way when we were told to stop, and is on its way here.
                Err(status) if status.reason == Reason::Conflict => {
                    match self.gate.store().watch(Some(LEASES), snapshot.revision()) {
                        Ok(mut watch) => drop(watch.next().await),
                        Err(WatchError::Compacted { .. }) => {}
                        Err(WatchError::Closed) => return Err(status),
                    }
                }
                other => return other.map(drop),
            }
        }
    }

    fn change(&self, lease: &Object, spec: Value) -> Write {
        let patch = json!({"spec": spec});
        Write::Merge { key: lease.key.clone(), expect: Expect::unchanged(lease), subresource: "", patch }
    }

    fn user(&self) -> User {
        User::new(format!("system:{}", self.name), &["system:authenticated"])
    }
}

/// The store, for the writes of one term.
struct Fenced {
    store: Arc<dyn Store>,
    term: Term,
}

impl Fenced {
    async fn commit_in_term(&self, transaction: Transaction) -> Result<Commit, CommitError> {
        let deposed = || CommitError::from(StoreError::Deposed { lease: self.term.lease.clone() });
        loop {
            let snapshot = self.store.snapshot();
            let lease = self.term.lease_in(&snapshot).ok_or_else(deposed)?;
            let mut compared = transaction.clone();
            // A write of the Lease itself says already what it must be.
            if !transaction.ops.iter().any(|op| op.key == self.term.lease) {
                let precondition = Precondition::At(lease.revision);
                compared.ops.push(Op { key: self.term.lease.clone(), precondition, put: Put::Nothing });
            }
            match self.store.commit(compared).await {
                // Renewed meanwhile, or lost: the Lease as it is now says which.
                Err(CommitError::Precondition { op, revision, .. }) if op == transaction.ops.len() => {
                    if revision == 0 {
                        return Err(deposed());
                    }
                    self.store.read_at_least(revision).await?;
                }
                other => return other,
            }
        }
    }
}

impl Over for Fenced {
    fn below(&self) -> &dyn Store {
        &*self.store
    }

    fn pass(&self, transaction: Transaction) -> Pending<'_, Result<Commit, CommitError>> {
        Box::pin(self.commit_in_term(transaction))
    }
}

#[cfg(test)]
pub(crate) mod tests;
