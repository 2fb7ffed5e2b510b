//! The patches that change an object by a document: JSON patch, merge patch, strategic merge patch.
//!
//! Each takes the object as a tree and gives the changed tree; what comes out is decoded and validated as any other write.

mod json;
mod merge;
mod read;
mod strategic;

use std::fmt;

use object::{Reason, Status};

pub use json::{is_too_deep, json};
pub use merge::merge;
pub use read::{PatchForm, read};

/// The most operations of one JSON patch.
pub const MOST_OPERATIONS: usize = 10_000;

/// Why a patch cannot be applied. The texts are upstream's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PatchError {
    /// The document is no patch of its form.
    Document(String),
    /// What upstream has no answer for but an error of the server: a directive that there is none of, an item without its key.
    Unforeseen(String),
    /// The patch is well formed but does not fit this object.
    Mismatch(String),
    /// An operation `test` of the patch does not hold.
    TestFailed(String),
    TooManyOperations(usize),
}

impl fmt::Display for PatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Document(why) | Self::Unforeseen(why) | Self::Mismatch(why) | Self::TestFailed(why) => {
                f.write_str(why)
            }
            Self::TooManyOperations(count) => {
                write!(f, "The allowed maximum operations in a JSON patch is {MOST_OPERATIONS}, got {count}")
            }
        }
    }
}

impl std::error::Error for PatchError {}

impl From<&PatchError> for Status {
    /// Upstream's answers: 400, 422, 413 or a 500 without a reason. A patch that does not fit is told without its reason, as upstream
    /// does.
    fn from(error: &PatchError) -> Self {
        match error {
            PatchError::Document(_) => Self::bad_request(error.to_string()),
            PatchError::Unforeseen(_) => Self::new(Reason::Unknown, error.to_string()),
            PatchError::Mismatch(_) | PatchError::TestFailed(_) => Self::of_no_resource(
                Reason::Invalid,
                "the server rejected our request due to an error in our request",
            ),
            PatchError::TooManyOperations(_) => {
                Self::new(Reason::RequestEntityTooLarge, format!("Request entity too large: {error}"))
            }
        }
    }
}
