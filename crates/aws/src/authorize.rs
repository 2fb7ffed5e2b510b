//! Whether a caller may make a call.

use crate::service::Subject;
use crate::{Context, Fault};

/// Decides a call by IAM. Whatever it is not sure of is refused.
///
/// `action` is `eks:CreateCluster`. The refusal's code is `AccessDenied`; each protocol tells it under its own name.
pub fn decide(context: &Context, action: &str, subject: &Subject) -> Result<(), Fault> {
    if subject.is_exempt {
        return Ok(());
    }
    let account = context.account;
    let caller = &context.caller.arn;
    if *caller == format!("arn:aws:iam::{account}:root")
        || *caller == format!("arn:aws:iam::{account}:user/admin")
    {
        return Ok(());
    }
    let resource = subject.resources.first().map_or("*", String::as_str);
    let message = format!(
        "User: {caller} is not authorized to perform: {action} on resource: {resource} because no identity-based policy allows the {action} action"
    );
    Err(Fault::new("AccessDenied", message))
}
