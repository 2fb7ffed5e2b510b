//! What deciders hand to doers: writes, node ops, rulesets, verdicts. Data only.

pub mod node;
mod work;

pub use work::{Expect, Occurrence, Plan, Propagation, Write};
