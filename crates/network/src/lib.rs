//! What the network should be: service rulesets and DNS answers. Pure.
//!
//! An [`Index`] holds what both need of Services and EndpointSlices, decoded once and kept up to date by events, so
//! that a DNS answer costs a few lookups and a ruleset no decoding.

pub mod dns;
mod index;
mod routes;
mod ruleset;

pub use index::Index;
pub use routes::{NodeNetwork, routes};
pub use ruleset::ruleset;
