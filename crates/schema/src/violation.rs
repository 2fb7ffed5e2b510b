use object::{Cause, Reason, Status};

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
    /// `Invalid value: "x": must be …`
    pub fn body(&self) -> String {
        let (words, _) = self.kind.row();
        let value = match self.kind {
            ViolationKind::Required | ViolationKind::Forbidden | ViolationKind::Internal => "",
            ViolationKind::TooLong | ViolationKind::TooMany => "",
            _ => &self.value,
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
        let mut texts: Vec<String> = Vec::new();
        for violation in violations {
            let text = format!("{}: {}", violation.field, violation.body());
            if !texts.contains(&text) {
                texts.push(text);
            }
        }
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
