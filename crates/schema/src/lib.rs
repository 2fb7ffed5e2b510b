//! What a schema means: default, prune, validate, the patches, table columns.

mod at;
mod decode;
mod default;
pub mod expressions;
pub mod int_or_string;
mod json;
mod kind;
pub mod metadata;
pub mod names;
pub mod openapi;
pub mod patch;
pub mod path;
pub mod quantity;
mod types;
mod violation;

pub use at::At;
pub use decode::{DecodeError, Decoded, FieldValidation};
pub use json::parse as parse_json;
pub use kind::{Column, Conversion, Kind, Strategy, Subresource};
pub use patch::{PatchError, json as json_patch, merge as merge_patch};
pub use quantity::Quantity;
pub use types::{Expr, Field, ListType, PatchStrategy, TableError, Type, Types};
pub use violation::{Violation, ViolationKind};
