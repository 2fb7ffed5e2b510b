//! What a schema means: default, prune, validate, the patches, table columns.

mod at;
pub mod custom;
mod decode;
mod default;
mod duration;
pub mod expressions;
pub mod go;
mod go_time;
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
mod version;
mod violation;
mod words;

pub use at::At;
pub use decode::{DecodeError, Decoded, FieldValidation};
pub use duration::human_duration;
pub use json::{go_words, parse as parse_json, sort_findings};
pub use kind::{Cell, Column, Conversion, Deprecated, Kind, Strategy, Subresource, WHOLE, selected};
pub use patch::{PatchError, PatchForm, json as json_patch, merge as merge_patch, read as read_patch};
pub use quantity::Quantity;
pub use types::{Expr, Field, ListType, MapType, PatchStrategy, TableError, Type, Types};
pub use version::version_rank;
pub use violation::{Violation, ViolationKind};
pub use words::Words;
