use serde_json::{Value, json};
use std::fmt;

/// Why a request failed: the reasons of `metav1.Status`, each with its HTTP code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    AlreadyExists,
    BadRequest,
    Conflict,
    Expired,
    Forbidden,
    Gone,
    InternalError,
    Invalid,
    MethodNotAllowed,
    NotAcceptable,
    NotFound,
    RequestEntityTooLarge,
    ServerTimeout,
    ServiceUnavailable,
    Timeout,
    TooManyRequests,
    Unauthorized,
    /// A plain error that upstream answers without a reason.
    Unknown,
    UnsupportedMediaType,
}

impl Reason {
    /// Every reason with a name.
    const NAMED: [Self; 18] = [
        Self::AlreadyExists,
        Self::BadRequest,
        Self::Conflict,
        Self::Expired,
        Self::Forbidden,
        Self::Gone,
        Self::InternalError,
        Self::Invalid,
        Self::MethodNotAllowed,
        Self::NotAcceptable,
        Self::NotFound,
        Self::RequestEntityTooLarge,
        Self::ServerTimeout,
        Self::ServiceUnavailable,
        Self::Timeout,
        Self::TooManyRequests,
        Self::Unauthorized,
        Self::UnsupportedMediaType,
    ];

    /// The reason of a word on the wire; [`Reason::Unknown`] if there is none.
    pub fn named(word: &str) -> Self {
        Self::NAMED.into_iter().find(|reason| reason.row().0 == word).unwrap_or(Self::Unknown)
    }

    /// The one table: the reason on the wire and its HTTP code.
    pub const fn row(self) -> (&'static str, u16) {
        match self {
            Self::AlreadyExists => ("AlreadyExists", 409),
            Self::BadRequest => ("BadRequest", 400),
            Self::Conflict => ("Conflict", 409),
            Self::Expired => ("Expired", 410),
            Self::Forbidden => ("Forbidden", 403),
            Self::Gone => ("Gone", 410),
            Self::InternalError => ("InternalError", 500),
            Self::Invalid => ("Invalid", 422),
            Self::MethodNotAllowed => ("MethodNotAllowed", 405),
            Self::NotAcceptable => ("NotAcceptable", 406),
            Self::NotFound => ("NotFound", 404),
            Self::RequestEntityTooLarge => ("RequestEntityTooLarge", 413),
            Self::ServerTimeout => ("ServerTimeout", 500),
            Self::ServiceUnavailable => ("ServiceUnavailable", 503),
            Self::Timeout => ("Timeout", 504),
            Self::TooManyRequests => ("TooManyRequests", 429),
            Self::Unauthorized => ("Unauthorized", 401),
            Self::Unknown => ("", 500),
            Self::UnsupportedMediaType => ("UnsupportedMediaType", 415),
        }
    }
}

/// One entry of `status.details.causes`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// `FieldValueInvalid`, `FieldValueRequired`, …
    pub reason: &'static str,
    pub message: String,
    /// `spec.containers[0].name`
    pub field: String,
}

/// A failure as Kubernetes tells it: `metav1.Status` with its details.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    pub reason: Reason,
    /// The HTTP code; the reason's own unless a webhook chose another.
    pub code: u16,
    pub message: String,
    pub group: String,
    /// The resource's plural for most reasons, the kind for `Invalid`: upstream's `details.kind`.
    pub kind: String,
    pub name: String,
    pub uid: String,
    pub causes: Vec<Cause>,
    pub retry_after_seconds: Option<u32>,
    /// What the client is warned of beside the failure: texts of `Warning` headers.
    pub warnings: Vec<String>,
    /// Details are told even if they are empty: so does upstream where it knows of no resource.
    pub has_details: bool,
}

impl Status {
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            code: reason.row().1,
            message: message.into(),
            group: String::new(),
            kind: String::new(),
            name: String::new(),
            uid: String::new(),
            causes: Vec::new(),
            retry_after_seconds: None,
            warnings: Vec::new(),
            has_details: false,
        }
    }

    /// With the object that the failure is about in its details.
    pub fn about(mut self, key: &crate::Key) -> Self {
        self.group = key.resource.group().to_owned();
        self.kind = key.resource.plural().to_owned();
        self.name = key.name.to_string();
        self
    }

    pub fn not_found(key: &crate::Key) -> Self {
        Self::new(Reason::NotFound, format!("{} \"{}\" not found", key.resource, key.name)).about(key)
    }

    pub fn already_exists(key: &crate::Key) -> Self {
        Self::new(Reason::AlreadyExists, format!("{} \"{}\" already exists", key.resource, key.name))
            .about(key)
    }

    /// The 409 of optimistic locking; `why` is the text behind the colon.
    pub fn conflict(key: &crate::Key, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {} \"{}\": {why}", key.resource, key.name);
        Self::new(Reason::Conflict, message).about(key)
    }

    /// The 409 of a stale resourceVersion.
    pub fn stale(key: &crate::Key) -> Self {
        Self::conflict(
            key,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    pub fn forbidden(key: &crate::Key, why: &str) -> Self {
        Self::new(Reason::Forbidden, format!("{} \"{}\" is forbidden: {why}", key.resource, key.name))
            .about(key)
    }

    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(Reason::BadRequest, message)
    }

    pub fn internal(error: impl fmt::Display) -> Self {
        let message = error.to_string();
        let mut status = Self::new(Reason::InternalError, format!("Internal error occurred: {message}"));
        status.causes.push(Cause { reason: "", message, field: String::new() });
        status
    }

    /// Of an object whose newest state the store holds in a form that cannot be read.
    pub fn unreadable(key: &crate::Key) -> Self {
        Self::internal(format!(
            "what is stored of {key} cannot be read; restore it, or delete its key from the store"
        ))
    }

    /// With what was found before it failed.
    pub fn warning_of(mut self, warnings: &[String]) -> Self {
        self.warnings.splice(0..0, warnings.iter().cloned());
        self
    }

    /// As [`new`](Self::new), of a request that leads to no resource.
    pub fn of_no_resource(reason: Reason, message: impl Into<String>) -> Self {
        Self { has_details: true, ..Self::new(reason, message) }
    }

    /// `v1` `Status` as it goes over the wire.
    pub fn to_json(&self) -> Value {
        let mut details = serde_json::Map::new();
        for (field, text) in
            [("name", &self.name), ("group", &self.group), ("kind", &self.kind), ("uid", &self.uid)]
        {
            if !text.is_empty() {
                details.insert(field.into(), text.as_str().into());
            }
        }
        if !self.causes.is_empty() {
            details.insert("causes".into(), self.causes.iter().map(Cause::to_json).collect());
        }
        if let Some(seconds) = self.retry_after_seconds {
            details.insert("retryAfterSeconds".into(), seconds.into());
        }
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message,
        });
        if !self.reason.row().0.is_empty() {
            status["reason"] = self.reason.row().0.into();
        }
        if self.has_details || !details.is_empty() {
            status["details"] = details.into();
        }
        status["code"] = self.code.into();
        status
    }
}

impl Cause {
    fn to_json(&self) -> Value {
        let members = [("reason", self.reason), ("message", &self.message), ("field", &self.field)];
        members
            .into_iter()
            .filter(|(_, text)| !text.is_empty())
            .map(|(name, text)| (name.to_owned(), Value::from(text)))
            .collect()
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Status {}
