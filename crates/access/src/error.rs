use object::{Reason, Status};

use crate::service_account::SecretUse;

/// Why a credential was not accepted. The client only ever sees "Unauthorized"; the text is for the log, and never holds
/// the credential.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccessError {
    /// The credential is of no kind that is known here. Another authenticator may know it.
    #[error("not a credential of this kind")]
    Unrecognized,
    #[error("client certificate: {0}")]
    Certificate(String),
    #[error("service account token: {0}")]
    ServiceAccountToken(String),
    /// The token of a Secret that was marked because nobody used it for long.
    #[error("{0}")]
    InvalidatedToken(Box<SecretUse>),
    #[error("{0}")]
    Oidc(String),
    /// What a webhook said of a token, or why it could not be asked.
    #[error("{0}")]
    Webhook(String),
    /// Of a principal of the account.
    #[error("{0}")]
    Login(String),
    #[error("bootstrap token {id}: {why}")]
    BootstrapToken { id: String, why: &'static str },
    #[error("signing key: {0}")]
    Key(&'static str),
}

impl AccessError {
    /// The 401 as upstream answers it.
    pub fn status(&self) -> Status {
        Status::new(Reason::Unauthorized, "Unauthorized")
    }
}
