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

/// What AWS has and Ekso has nothing behind: told as an input that this installation does not take.
pub fn unsupported(what: &str) -> Fault {
    invalid(format!("{what} is not supported by Ekso"))
}
