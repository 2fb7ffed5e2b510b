//! The account's state: calls are answered on the newest of it, and what they change is one transaction on it.

use std::sync::Arc;

use aws::state::{Change, Changes, Expect};
use aws::{Caller, Context, Fault, Ids, World};
use bytes::Bytes;
use http::{Request, Response};
use object::{Snapshot, Time};
use serde_json::Value;
use store::{CommitError, Op, Store, StoreError, Transaction};
use tracing::{debug, error};

/// Gives the time. Tests give their own.
pub type Clock = Arc<dyn Fn() -> Time + Send + Sync>;
/// Fills a buffer with what nobody can guess.
pub type Random = Arc<dyn Fn(&mut [u8]) + Send + Sync>;

/// Operations that one transaction on an account's store may carry. A call's are together whatever their number: a hundred instances
/// with their interfaces, a cluster with all that is of it. The store is never etcd, which takes fewer.
pub const MOST_OPS: usize = 10_000;

/// How often a call is decided anew because others changed what it had read.
const ATTEMPTS: usize = 32;

/// Which account it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Twelve digits.
    pub account: String,
    /// `us-east-1`
    pub region: String,
}

/// An account that answers calls.
pub struct Account {
    pub identity: Identity,
    store: Arc<dyn Store>,
    clock: Clock,
    random: Random,
}

/// Why an account could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("make the first objects of the account: {0}")]
    Genesis(#[from] CommitError),
    #[error("a change of the account is no object: {0}")]
    Object(#[from] serde_json::Error),
    #[error("the first objects of the account change faster than they can be made")]
    Contention,
}

impl Account {
    /// Takes a store, and makes what every account has from its first moment, if it is not there.
    pub async fn open(
        identity: Identity,
        store: Arc<dyn Store>,
        clock: Clock,
        random: Random,
    ) -> Result<Arc<Self>, OpenError> {
        let account = Self { identity, store, clock, random };
        for step in aws::genesis::STEPS {
            account.change(step).await?;
        }
        Ok(Arc::new(account))
    }

    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    pub fn snapshot(&self) -> Snapshot {
        self.store.snapshot()
    }

    pub fn now(&self) -> Time {
        (self.clock)()
    }

    /// The account's root: who Ekso itself acts as.
    pub fn root(&self) -> Caller {
        let Identity { account, .. } = &self.identity;
        Caller { arn: format!("arn:aws:iam::{account}:root"), user_id: account.clone(), ..Caller::default() }
    }

    fn world<'a>(&'a self, state: &'a Snapshot) -> World<'a> {
        let Identity { account, region } = &self.identity;
        World { account, region, now: self.now(), state }
    }

    fn ids(&self) -> Ids {
        let mut seed = [0; 32];
        (self.random)(&mut seed);
        Ids::new(seed)
    }

    /// Answers a request as it came over the wire. What it changes is on disk when this returns.
    pub async fn answer(&self, request: &Request<Bytes>) -> Response<Bytes> {
        for _ in 0..ATTEMPTS {
            let state = self.store.snapshot();
            let reply = aws::answer(&self.world(&state), &mut self.ids(), request);
            let aws::Line { action, caller, result } = &reply.line;
            match self.commit(reply.changes).await {
                Ok(Made::Yes) => {
                    debug!(action, caller, result, "answered");
                    return reply.response;
                }
                Ok(Made::ReadAnew) => {}
                Err(failure) => {
                    error!(action, %failure, "what a call changed could not be kept");
                    return self.refuse(request, &unkept(&failure));
                }
            }
        }
        self.refuse(request, &contention())
    }

    /// Says no to a request that is not looked at, as its client would read it.
    pub fn refuse(&self, request: &Request<Bytes>, fault: &Fault) -> Response<Bytes> {
        aws::refusal(request, fault, &mut self.ids())
    }

    /// Makes a call without a wire, in somebody's name: validated, decided and paged as any other.
    pub async fn call(
        &self,
        caller: &Caller,
        service: &str,
        operation: &str,
        input: &Value,
    ) -> Result<Value, Fault> {
        for _ in 0..ATTEMPTS {
            let state = self.store.snapshot();
            let answer = aws::call(&self.world(&state), &mut self.ids(), caller, service, operation, input)?;
            match self.commit(answer.changes).await.map_err(|failure| unkept(&failure))? {
                Made::Yes => return Ok(answer.output),
                Made::ReadAnew => {}
            }
        }
        Err(contention())
    }

    /// Changes the state as `decide` says, on the newest of it: for controllers, who need no permission. Whether it came to changes.
    ///
    /// # Errors
    /// When the store fails, or others are always faster.
    pub async fn change(&self, decide: impl Fn(&mut Context) -> Changes) -> Result<bool, OpenError> {
        let caller = self.root();
        for _ in 0..ATTEMPTS {
            let state = self.store.snapshot();
            let mut ids = self.ids();
            let Identity { account, region } = &self.identity;
            let mut context =
                Context { account, region, now: self.now(), caller: &caller, state: &state, ids: &mut ids };
            let changes = decide(&mut context);
            let is_some = !changes.is_empty();
            match self.commit(changes).await {
                Ok(Made::Yes) => return Ok(is_some),
                Ok(Made::ReadAnew) => {}
                Err(Unkept::Commit(failure)) => return Err(failure.into()),
                Err(Unkept::Object(failure)) => return Err(failure.into()),
            }
        }
        Err(OpenError::Contention)
    }

    async fn commit(&self, changes: Changes) -> Result<Made, Unkept> {
        if changes.is_empty() {
            return Ok(Made::Yes);
        }
        let ops = changes.0.into_iter().map(op).collect::<Result<Vec<_>, _>>()?;
        match self.store.commit(Transaction { ops }).await {
            Ok(_) => Ok(Made::Yes),
            Err(CommitError::Precondition { .. }) => Ok(Made::ReadAnew),
            Err(failure) => Err(failure.into()),
        }
    }

    /// Ends the store's work; what was answered is on disk already.
    pub async fn close(&self) {
        self.store.close().await;
    }
}

enum Made {
    Yes,
    /// Somebody has changed what was read.
    ReadAnew,
}

#[derive(Debug, thiserror::Error)]
enum Unkept {
    #[error(transparent)]
    Commit(#[from] CommitError),
    #[error(transparent)]
    Object(#[from] serde_json::Error),
}

fn op(change: Change) -> Result<Op, serde_json::Error> {
    let draft = change.draft().transpose()?;
    Ok(match (draft, change.expect) {
        (Some(draft), Expect::Absent) => Op::create(draft),
        (Some(draft), Expect::At(revision)) => Op::update(draft, revision),
        (None, Expect::At(revision)) => Op::delete(change.key, revision),
        // Nothing is there, and nothing shall be.
        (None, Expect::Absent) => {
            Op { key: change.key, precondition: store::Precondition::Absent, put: store::Put::Nothing }
        }
        (_, Expect::Unchanged(revision)) => {
            Op { key: change.key, precondition: store::Precondition::At(revision), put: store::Put::Nothing }
        }
    })
}

fn unkept(failure: &Unkept) -> Fault {
    match failure {
        Unkept::Commit(CommitError::Store(StoreError::Closed | StoreError::Unavailable(_))) => {
            Fault::new("ServiceUnavailable", "The account is being closed. Try again.")
        }
        Unkept::Commit(CommitError::Store(full @ StoreError::Full { .. })) => {
            Fault::new("ServiceUnavailable", full.to_string())
        }
        _ => Fault::new("InternalFailure", "The request processing has failed because of an unknown error."),
    }
}

fn contention() -> Fault {
    Fault::new("ServiceUnavailable", "Too many calls change the same resource at once. Try again.")
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use aws::iam::record::{Role, named};
    use aws::state;
    use futures_util::FutureExt;
    use store::Memory;

    use super::*;

    async fn account() -> Arc<Account> {
        let identity = Identity { account: "111122223333".into(), region: "us-east-1".into() };
        let store = Arc::new(Memory::new().with_most_ops(MOST_OPS));
        let fill = |bytes: &mut [u8]| bytes.fill(7);
        let account =
            Account::open(identity, store, Arc::new(|| Time::from_secs(1_790_000_000)), Arc::new(fill));
        account.await.expect("an account")
    }

    #[tokio::test]
    async fn what_others_change_meanwhile_is_read_anew_though_it_is_only_looked_at() {
        let account = account().await;
        let role = |state: &Snapshot| named::<Role>(state, "AmazonEKSNodeRole").expect("a role");
        let attempts = AtomicUsize::new(0);
        let decide = |context: &mut Context| {
            let seen = role(context.state);
            if attempts.fetch_add(1, Ordering::Relaxed) == 0 {
                let mut touched = Changes::default();
                touched.update(&seen);
                let ops = touched.0.into_iter().map(op).collect::<Result<Vec<_>, _>>().expect("an object");
                account
                    .store
                    .commit(Transaction { ops })
                    .now_or_never()
                    .expect("at once")
                    .expect("committed");
            }
            let mut changes = Changes::default();
            changes.create("", "another", &seen.record);
            changes.require(&seen);
            changes
        };
        assert!(account.change(decide).await.expect("changed"));
        assert_eq!(attempts.load(Ordering::Relaxed), 2, "the first was decided on what is past");
        let before = role(&account.snapshot()).revision;
        assert!(state::get::<Role>(&account.snapshot(), "", "another").expect("made").revision > before);
    }

    #[tokio::test]
    async fn a_hundred_things_with_all_that_is_theirs_are_one_change() {
        let account = account().await;
        let seen = named::<Role>(&account.snapshot(), "AmazonEKSNodeRole").expect("a role");
        let many = |_: &mut Context| {
            let mut changes = Changes::default();
            (0..400).for_each(|number| changes.create("", &format!("role-{number}"), &seen.record));
            changes
        };
        assert!(account.change(many).await.expect("changed"));
    }
}
