//! Tokens of service accounts: signed claims (JWT, ES256) that hold as long as the objects they are bound to.
//! <https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/#bound-service-account-tokens>

mod claims;
mod discovery;
mod jwt;
mod legacy;
mod request;
mod verify;

pub use claims::{Claims, KubernetesClaims, ObjectClaim};
pub use jwt::{SigningKey, VerifyingKey};
pub use legacy::{INVALID_SINCE, LAST_USED, SecretUse, names_secret};
pub use request::TokenRequest;
pub use verify::Identity;

/// Who issues tokens and whose tokens are believed.
#[derive(Debug)]
pub struct Authority {
    /// `https://kubernetes.default.svc.cluster.local`: the `iss` of new tokens.
    pub issuer: String,
    /// Further issuers whose tokens (signed with one of the keys) are still believed.
    pub accepted_issuers: Vec<String>,
    /// What this API server answers to; tokens that ask for no audience get these.
    pub audiences: Vec<String>,
    pub signing: SigningKey,
    /// Besides the signing key's own: keys that were used before, or will be.
    pub verifying: Vec<VerifyingKey>,
}

impl Authority {
    fn verifying_keys(&self) -> impl Iterator<Item = &VerifyingKey> {
        std::iter::once(self.signing.public()).chain(&self.verifying)
    }
}
