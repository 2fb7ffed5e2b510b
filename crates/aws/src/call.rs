use std::net::IpAddr;

use object::{Snapshot, Time};
use serde_json::{Value, json};

use crate::Ids;
use crate::credentials::Session;
use crate::state::Changes;

/// What a handler may look at. Everything else it needs stands in its input.
pub struct Context<'a> {
    /// Twelve digits.
    pub account: &'a str,
    /// `us-east-1`
    pub region: &'a str,
    pub now: Time,
    pub caller: &'a Caller,
    /// The account store, at least as new as every call that was answered before.
    pub state: &'a Snapshot,
    pub ids: &'a mut Ids,
}

/// Who signed a call: an IAM principal as `GetCallerIdentity` tells it.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Caller {
    /// `arn:aws:iam::000000000000:user/admin`, `arn:aws:sts::000000000000:assumed-role/Name/Session`
    pub arn: String,
    /// `AIDA…` of a user, `AROA…:Session` of an assumed role, the account's number for its root.
    pub user_id: String,
    /// `AKIA…` or `ASIA…`; empty for unsigned calls.
    pub access_key_id: String,
    /// Of a temporary key: what its token says.
    pub session: Option<Box<Session>>,
    pub origin: Origin,
}

/// From where a call came: what policies may ask about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// None for calls that came over no wire.
    pub address: Option<IpAddr>,
    pub is_encrypted: bool,
    pub user_agent: String,
}

/// Without the session, which holds a secret.
impl std::fmt::Debug for Caller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Caller")
            .field("arn", &self.arn)
            .field("access_key_id", &self.access_key_id)
            .finish_non_exhaustive()
    }
}

/// What a call gives back, and what it changes. The changes are one transaction; if a precondition fails, the call is decided again.
#[derive(Debug, Default, PartialEq)]
pub struct Answer {
    /// The members of the operation's output shape, by the model's names. Timestamps are RFC 3339 strings, blobs base64. A list that the
    /// model pages is given whole: `wire::page` cuts it, and a handler looks at no token and no limit.
    pub output: Value,
    pub changes: Changes,
}

impl Answer {
    /// An answer that changes nothing.
    pub fn read(output: Value) -> Self {
        Self { output, changes: Changes::default() }
    }

    pub fn write(output: Value, changes: Changes) -> Self {
        Self { output, changes }
    }

    /// An answer without members.
    pub fn done(changes: Changes) -> Self {
        Self { output: json!({}), changes }
    }
}

/// An AWS error, as every protocol can tell it. Its HTTP status is the model's for the code; 400 if the model has none.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// `ResourceNotFoundException`, `NoSuchEntity`, `InvalidVpcID.NotFound`
    pub code: String,
    pub message: String,
    /// Members of the error's shape besides the message: `{"clusterName": "shop"}`.
    pub members: Value,
}

impl Fault {
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into(), members: json!({}) }
    }

    /// The same error with a member of its shape filled in.
    pub fn with(mut self, member: &str, value: impl Into<Value>) -> Self {
        self.members[member] = value.into();
        self
    }
}
