//! Policies: what they say, compiled, and what follows for a request.
//!
//! ```text
//! JSON ─► Document ─► Set (all policies of one kind, by action) ─┐
//! Principal, action, resource, Keys ─► Request ──────────────────┴─► decide ─► Verdict (and the statement that made it)
//! ```
//!
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies.html>

mod condition;
mod decide;
mod document;
mod keys;
mod pattern;
mod principal;
mod set;

pub use decide::{Kind, Policies, Request, Verdict, decide};
pub use document::{Document, Malformed, Use};
pub use keys::Keys;
pub(crate) use pattern::like;
pub use principal::{Principal, PrincipalKind};
pub use set::{Origin, Set};

#[cfg(test)]
mod tests;
