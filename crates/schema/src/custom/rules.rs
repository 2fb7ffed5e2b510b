//! The door through which `x-kubernetes-validations` come in.
//!
//! This crate knows where rules stand, when they are asked and of what; what a rule *means* is said by whoever compiles it. The one place
//! that names a compiler is `kinds::definition_rules`.

use serde_json::Value;

use super::node::Node;
use super::validate::ruled;
use crate::{At, Violation};

/// The compiled rules of one schema.
pub trait Rules: std::fmt::Debug + Send + Sync {
    /// What the rules have against a value. `budget` is what evaluations of all rules of an object may still cost; what these cost is taken
    /// off.
    fn violations(&self, asked: Asked<'_>, which: Which, budget: &mut u64) -> Answer;
}

/// A value that rules are asked of.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    pub new: &'a Value,
    /// What it was, on updates where the two can be told to be the same one.
    pub old: Option<&'a Value>,
    pub at: At<'a>,
    /// An update leaves it, or what it is in, as it was. Rules that do not compare then only warn (ratcheting, KEP-4008).
    pub is_unchanged: bool,
}

/// Which rules are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// Those that can refuse an object.
    Violations,
    /// Those whose words are only told.
    Warnings,
}

#[derive(Debug, Default)]
pub struct Answer {
    pub found: Vec<Violation>,
    /// The budget was spent: no further rule may be asked.
    pub is_over: bool,
}

/// What the rules in a default's schema have against it, be it there from the beginning or brought by an update.
pub fn of_default(schema: &Node, default: &Value, at: At<'_>) -> Vec<Violation> {
    let kept = ruled(schema, default, Some(default), at, Which::Violations);
    if kept.is_empty() { ruled(schema, default, None, at, Which::Violations) } else { kept }
}
