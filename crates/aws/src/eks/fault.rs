//! EKS' errors by their codes. Clients match on the words of many of them, so those are AWS's own.

use crate::Fault;

pub fn invalid(message: impl Into<String>) -> Fault {
    Fault::new("InvalidParameterException", message)
}

pub fn invalid_request(message: impl Into<String>) -> Fault {
    Fault::new("InvalidRequestException", message)
}

pub fn in_use(message: impl Into<String>) -> Fault {
    Fault::new("ResourceInUseException", message)
}

pub fn not_found(message: impl Into<String>) -> Fault {
    Fault::new("ResourceNotFoundException", message)
}

pub fn limit(message: impl Into<String>) -> Fault {
    Fault::new("ResourceLimitExceededException", message)
}

/// An upgrade that an insight warns of as an error.
pub fn not_ready() -> Fault {
    let message = "Amazon EKS detected upgrade readiness issues. Call the ListInsights API to view detected upgrade blocking issues. Pass the force flag when updating to override upgrade readiness errors.";
    Fault::new("InvalidStateException", message)
}

/// What AWS has and Ekso has nothing behind: told as an input that this installation does not take.
pub fn unsupported(what: &str) -> Fault {
    invalid(format!("{what} is not supported by Ekso"))
}
