//! Whether a caller may make a call.

use crate::iam::caller::Holdings;
use crate::policy::Keys;
use crate::service::{Subject, Target};
use crate::{Context, Fault};

/// Decides a call by IAM. Whatever it is not sure of is refused.
///
/// `action` is `eks:CreateCluster`. The refusal's code is `AccessDenied`; each protocol tells it under its own name.
pub fn decide(context: &Context, action: &str, subject: &Subject) -> Result<(), Fault> {
    if subject.is_exempt {
        return Ok(());
    }
    let holdings = Holdings::of(context.state, context.account, context.caller)
        .map_err(crate::iam::caller::Unknown::fault)?;
    refuse_session_of_user(context, action)?;
    let any = [Target::from("*".to_owned())];
    let resources = if subject.resources.is_empty() { &any[..] } else { &subject.resources };
    for resource in resources {
        let of_resource = subject.keys.iter().chain(&resource.keys);
        allowed(&holdings, action, &resource.arn, &keys(context, of_resource))?;
    }
    for further in &subject.also {
        let keys = self::keys(context, &further.keys);
        allowed(&holdings, further.action, &further.resource, &keys)?;
    }
    Ok(())
}

fn allowed(holdings: &Holdings, action: &str, resource: &str, keys: &Keys) -> Result<(), Fault> {
    let (verdict, message) = holdings.decide(action, resource, keys);
    if verdict.is_allowed() { Ok(()) } else { Err(Fault::new("AccessDenied", message)) }
}

/// What GetSessionToken gives opens neither IAM nor, beyond assuming roles, the token service, unless a second factor was shown.
/// <https://docs.aws.amazon.com/STS/latest/APIReference/API_GetSessionToken.html>
fn refuse_session_of_user(context: &Context, action: &str) -> Result<(), Fault> {
    let is_of_user = context.caller.session.as_ref().is_some_and(|session| session.role_arn.is_none());
    let is_closed = action.starts_with("iam:") || (action.starts_with("sts:") && action != "sts:AssumeRole");
    if is_of_user && is_closed {
        return Err(Fault::new(
            "InvalidClientTokenId",
            "The security token included in the request is invalid",
        ));
    }
    Ok(())
}

/// The condition keys of a call that are not its principal's.
/// <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_condition-keys.html>
pub fn keys<'a>(context: &Context, of_call: impl IntoIterator<Item = &'a (String, Vec<String>)>) -> Keys {
    let mut keys = Keys::default();
    for (key, values) in of_call {
        keys.put(key, values.clone());
    }
    keys.set("aws:CurrentTime", context.now.to_string());
    keys.set("aws:EpochTime", context.now.as_secs().to_string());
    let origin = &context.caller.origin;
    if let Some(address) = origin.address {
        keys.set("aws:SourceIp", address.to_string());
        keys.set("aws:SecureTransport", origin.is_encrypted.to_string());
    }
    if !origin.user_agent.is_empty() {
        keys.set("aws:UserAgent", &*origin.user_agent);
    }
    keys.set("aws:RequestedRegion", context.region);
    keys.set("aws:ResourceAccount", context.account);
    keys.set("aws:ViaAWSService", "false");
    keys
}
