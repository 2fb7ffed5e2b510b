//! What a caller asks of the gate, and what it answers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use object::Object;
use plan::{Propagation, User};
use schema::{FieldValidation, Kind};
use serde_json::Value;

/// One write, already routed and authorized.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    pub user: &'a User,
    pub kind: &'a Kind,
    /// Empty at cluster scope.
    pub namespace: &'a str,
    /// Empty for a create and for a whole collection.
    pub name: &'a str,
    /// Empty for the object itself.
    pub subresource: &'a str,
    pub options: &'a Options,
}

/// What the query of a write says.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Everything but the commit.
    pub dry_run: bool,
    pub field_validation: FieldValidation,
    /// Who owns what is written: `metadata.managedFields[].manager`.
    pub field_manager: Box<str>,
    /// Apply: take over fields that others own.
    pub force: bool,
    pub problems: Problems,
    /// Where admission writes what the audit log should hold; none if nobody writes this request down.
    pub annotations: Option<Annotations>,
}

/// What the reader of a body found wrong that can be lived with.
#[derive(Clone, Debug, Default)]
pub struct Problems {
    /// `duplicate field "spec.replicas"`
    pub told: Vec<String>,
    /// The body, if upstream reads its fields from the text itself, JSON of a built-in kind: it tells what is wrong with them, and these, in
    /// the order of the text. Else these come first.
    pub text: Option<Bytes>,
}

/// Annotations of an audit event, by their names.
pub type Annotations = Arc<Mutex<BTreeMap<String, String>>>;

impl Options {
    /// The first word about a name stands.
    pub(crate) fn annotate(&self, found: impl IntoIterator<Item = (String, String)>) {
        let Some(annotations) = &self.annotations else { return };
        let mut annotations = annotations.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, value) in found {
            annotations.entry(name).or_insert(value);
        }
    }
}

/// How an update says what should change.
#[derive(Clone, Debug)]
pub enum Change {
    /// The whole object.
    Replace(Value),
    Patch(PatchKind, Value),
}

/// The content types of PATCH.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchKind {
    /// RFC 6902
    Json,
    /// RFC 7396
    Merge,
    Strategic,
    /// Server-side apply.
    Apply,
}

/// `metav1.DeleteOptions`.
#[derive(Clone, Debug, Default)]
pub struct DeleteOptions {
    pub grace_seconds: Option<i64>,
    pub propagation: Option<Propagation>,
    /// The field that `propagationPolicy` replaced.
    pub orphan_dependents: Option<bool>,
    pub preconditions: Preconditions,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Preconditions {
    pub uid: Option<Box<str>>,
    pub revision: Option<Box<str>>,
}

/// A write that succeeded.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub answer: Answer,
    /// The answer is a new object: 201.
    pub created: bool,
    /// Texts of `Warning: 299` headers.
    pub warnings: Vec<String>,
}

#[derive(Clone, Debug)]
pub enum Answer {
    /// The object as it is stored now.
    Object(Arc<Object>),
    /// Something that is not stored in this form: a dry run's object, a `Scale`, a `Status`.
    Made(Value),
    /// The object is gone; this was its last state.
    Removed(Arc<Object>),
}

impl Outcome {
    pub(crate) fn object(object: Arc<Object>) -> Self {
        Self { answer: Answer::Object(object), created: false, warnings: Vec::new() }
    }

    pub(crate) fn made(value: Value) -> Self {
        Self { answer: Answer::Made(value), created: false, warnings: Vec::new() }
    }

    pub(crate) fn removed(object: Arc<Object>) -> Self {
        Self { answer: Answer::Removed(object), created: false, warnings: Vec::new() }
    }
}
