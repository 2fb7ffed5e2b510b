//! What deciders hand to doers: writes, node ops, rulesets, verdicts. Data only.

mod call;
pub mod net;
pub mod node;
pub mod pod;
mod request;
mod work;

pub use call::{Call, Target};
pub use request::{AccessGrant, Attributes, CANONICAL_ARN, Decision, User};
pub use work::{Expect, Occurrence, Plan, Propagation, Write};
