//! Who may do what: tokens, certificates, RBAC, node authorizer. Pure.
//!
//! Authentication turns a credential into a [`plan::User`]: [`certificate`] for client certificates, [`bearer`] for
//! tokens. Authorization answers [`authorize`] from a [`View`]: the snapshot, and the index that [`rbac::Index`] folds
//! out of the roles and bindings in it.
//!
//! ```text
//! credential ──► User ─┐
//!                      ├─► authorize: system:masters, then Node, access policies, RBAC ──► Decision ──► forbidden()
//! request ─► Attributes┘
//! ```
//!
//! Architecture invariant: no clock and no key file here. `now` and random bytes are arguments, keys come as bytes, and
//! whoever wants a cache of verified tokens keeps it beside the caller.

mod access_policy;
pub mod audit;
pub mod authentication;
pub mod authorization;
mod authorize;
mod bearer;
pub mod bootstrap;
pub mod bootstrap_token;
mod certificate;
mod config_file;
pub mod csr;
mod error;
pub mod fairness;
mod impersonate;
mod jws;
mod node;
pub mod rbac;
pub mod review;
pub mod service_account;

pub use access_policy::AccessPolicies;
pub use authorize::{View, authorize, authorize_by, forbidden};
pub use bearer::bearer;
pub use certificate::{ClientCa, certificate, expiry};
pub use error::AccessError;
pub use impersonate::{Mode as ImpersonationMode, impersonation};
pub use jws::issuer as issuer_of;
pub use node::is_secret_of_pod;

/// The groups that the server itself gives out.
pub mod groups {
    pub const ANONYMOUS_USER: &str = "system:anonymous";
    pub const AUTHENTICATED: &str = "system:authenticated";
    pub const BOOTSTRAPPERS: &str = "system:bootstrappers";
    /// Before a node's name, with `:` for its dots: who has the token of a machine becomes the node that it was made for, and no other.
    pub const BOOTSTRAPPER_OF: &str = "system:bootstrappers:ekso:node:";
    pub const MASTERS: &str = "system:masters";
    pub const NODES: &str = "system:nodes";
    pub const SERVICE_ACCOUNTS: &str = "system:serviceaccounts";
    pub const UNAUTHENTICATED: &str = "system:unauthenticated";
}

/// The user of a request without credentials.
pub fn anonymous() -> plan::User {
    plan::User::new(groups::ANONYMOUS_USER, &[groups::UNAUTHENTICATED])
}
