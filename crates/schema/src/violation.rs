use std::collections::HashSet;

use object::{Cause, Reason, Status};
use serde::Serialize;

use crate::{At, go};

/// One thing that is wrong with one field, as `field.Error` upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub kind: ViolationKind,
    /// `spec.containers[0].name`
    pub field: String,
    /// The rejected value as upstream prints it: strings in quotes, numbers bare, objects as JSON. Empty if the kind has none.
    pub value: String,
    pub detail: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ViolationKind {
    Required,
    Invalid,
    NotSupported,
    Duplicate,
    NotFound,
    Forbidden,
    TooLong,
    TooMany,
    TypeInvalid,
    Internal,
}

impl ViolationKind {
    /// (the words of the message, the reason of the cause)
    pub const fn row(self) -> (&'static str, &'static str) {
        match self {
            Self::Required => ("Required value", "FieldValueRequired"),
            Self::Invalid => ("Invalid value", "FieldValueInvalid"),
            Self::NotSupported => ("Unsupported value", "FieldValueNotSupported"),
            Self::Duplicate => ("Duplicate value", "FieldValueDuplicate"),
            Self::NotFound => ("Not found", "FieldValueNotFound"),
            Self::Forbidden => ("Forbidden", "FieldValueForbidden"),
            Self::TooLong => ("Too long", "FieldValueTooLong"),
            Self::TooMany => ("Too many", "FieldValueTooMany"),
            Self::TypeInvalid => ("Invalid value", "FieldValueTypeInvalid"),
            Self::Internal => ("Internal error", "InternalError"),
        }
    }
}

impl Violation {
    fn new(kind: ViolationKind, at: At<'_>, value: String, detail: impl Into<String>) -> Self {
        // The whole object has this name upstream.
        let field = Some(at.to_string()).filter(|field| !field.is_empty()).unwrap_or_else(|| "[]".into());
        Self { kind, field, value, detail: detail.into() }
    }

    pub fn required(at: At<'_>, detail: impl Into<String>) -> Self {
        Self::new(ViolationKind::Required, at, String::new(), detail)
    }

    pub fn invalid(at: At<'_>, value: impl Serialize, detail: impl Into<String>) -> Self {
        Self::new(ViolationKind::Invalid, at, shown(value), detail)
    }

    /// As invalid, of what is too much to show.
    pub fn wrong(at: At<'_>, detail: impl Into<String>) -> Self {
        Self::new(ViolationKind::Invalid, at, String::new(), detail)
    }

    pub fn internal(at: At<'_>, detail: impl Into<String>) -> Self {
        Self::new(ViolationKind::Internal, at, String::new(), detail)
    }

    pub fn forbidden(at: At<'_>, detail: impl Into<String>) -> Self {
        Self::new(ViolationKind::Forbidden, at, String::new(), detail)
    }

    pub fn duplicate(at: At<'_>, value: impl Serialize) -> Self {
        Self::new(ViolationKind::Duplicate, at, shown(value), "")
    }

    pub fn not_found(at: At<'_>, value: impl Serialize) -> Self {
        Self::new(ViolationKind::NotFound, at, shown(value), "")
    }

    /// `supported values: "A", "B"`, in the order given.
    pub fn not_supported(at: At<'_>, value: impl Serialize, supported: &[&str]) -> Self {
        let quoted: Vec<String> = supported.iter().map(shown).collect();
        Self::new(
            ViolationKind::NotSupported,
            at,
            shown(value),
            format!("supported values: {}", quoted.join(", ")),
        )
    }

    pub fn too_long(at: At<'_>, most_bytes: usize) -> Self {
        let unit = if most_bytes == 1 { "byte" } else { "bytes" };
        Self::new(
            ViolationKind::TooLong,
            at,
            String::new(),
            format!("may not be more than {most_bytes} {unit}"),
        )
    }

    pub fn too_many(at: At<'_>, count: usize, most: usize) -> Self {
        let unit = if most == 1 { "item" } else { "items" };
        Self::new(ViolationKind::TooMany, at, shown(count), format!("must have at most {most} {unit}"))
    }

    /// A field that may not change, with its new value.
    pub fn immutable(at: At<'_>, value: impl Serialize) -> Self {
        Self::invalid(at, value, "field is immutable")
    }

    /// One violation for each thing that a check of a text found.
    pub fn all_invalid(
        at: At<'_>,
        value: impl Serialize + Copy,
        found: Vec<String>,
    ) -> impl Iterator<Item = Self> {
        found.into_iter().map(move |detail| Self::invalid(at, value, detail))
    }

    /// `Invalid value: "x": must be …`
    pub fn body(&self) -> String {
        let (words, _) = self.kind.row();
        let value = match self.kind {
            ViolationKind::Required | ViolationKind::Forbidden | ViolationKind::Internal => String::new(),
            ViolationKind::TooLong => String::new(),
            _ => as_go_prints(&self.value),
        };
        match (value.is_empty(), self.detail.is_empty()) {
            (true, true) => words.to_owned(),
            (true, false) => format!("{words}: {}", self.detail),
            (false, true) => format!("{words}: {value}"),
            (false, false) => format!("{words}: {value}: {}", self.detail),
        }
    }

    /// The 422 that carries them: `Deployment.apps "x" is invalid: spec.selector: Required value`.
    pub fn to_status(violations: &[Self], group: &str, kind: &str, name: &str) -> Status {
        let mut told = HashSet::new();
        let texts = violations.iter().map(|one| format!("{}: {}", one.field, one.body()));
        let texts: Vec<String> = texts.filter(|text| told.insert(text.clone())).collect();
        let subject = if group.is_empty() { kind.to_owned() } else { format!("{kind}.{group}") };
        let list = match &texts[..] {
            [] => String::new(),
            [one] => format!(": {one}"),
            many => format!(": [{}]", many.join(", ")),
        };
        let mut status = Status::new(Reason::Invalid, format!("{subject} \"{name}\" is invalid{list}"));
        status.group = group.to_owned();
        status.kind = kind.to_owned();
        status.name = name.to_owned();
        status.causes = violations
            .iter()
            .map(|one| Cause { reason: one.kind.row().1, message: one.body(), field: one.field.clone() })
            .collect();
        status
    }
}

/// A value's JSON as upstream's messages have it: a text by `%q`, all else with what Go's encoder escapes.
fn as_go_prints(value: &str) -> String {
    if let Some(text) = value.strip_prefix('"').and_then(|_| serde_json::from_str::<String>(value).ok()) {
        return go::quoted(&text);
    }
    let mut printed = String::with_capacity(value.len());
    for character in value.chars() {
        match character {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                printed.push_str(&format!("\\u{:04x}", u32::from(character)));
            }
            _ => printed.push(character),
        }
    }
    printed
}

/// A value as upstream prints it: strings in quotes, numbers bare, everything else as JSON.
fn shown(value: impl Serialize) -> String {
    serde_json::to_string(&value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_shown_as_go_shows_them() {
        let told = |value: serde_json::Value| Violation::invalid(At::root("a"), value, "b").body();
        assert_eq!(told("x\u{7}<".into()), "Invalid value: \"x\\a<\": b");
        assert_eq!(told(serde_json::json!(["<"])), "Invalid value: [\"\\u003c\"]: b");
    }
}
