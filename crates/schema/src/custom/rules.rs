//! The door through which `x-kubernetes-validations` come in.
//!
//! This crate knows where rules stand, when they are asked and of what; what a rule *means* is said by whoever compiles it. The one place
//! that names a compiler is `kinds::definition_rules`.

use serde_json::Value;

use crate::{At, Violation};

/// The compiled rules of one schema.
pub trait Rules: std::fmt::Debug + Send + Sync {
    /// What the rules have against a value. `old` is there on updates where the two values can be told to be the same one.
    /// `budget` is what evaluations of all rules of an object may still cost; what these cost is taken off.
    fn violations(&self, new: &Value, old: Option<&Value>, at: At<'_>, budget: &mut u64) -> Vec<Violation>;
}
