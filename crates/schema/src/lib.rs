//! What a schema means: default, prune, validate, the patches, table columns.

mod kind;
mod violation;

pub use kind::{Column, Kind, Strategy, Subresource};
pub use violation::{Violation, ViolationKind};
