use serde_json::{Value, json};

use crate::credentials::{self, Session};
use crate::iam::caller::{Holdings, Unknown};
use crate::{Answer, Context, Fault};

/// How long a session of a user lives unless told, and one of the root at most.
const USER_SECONDS: i64 = 43_200;
const ROOT_SECONDS: i64 = 3_600;

/// <https://docs.aws.amazon.com/STS/latest/APIReference/API_GetCallerIdentity.html>
pub fn get_caller_identity(context: &mut Context, _: &Value) -> Result<Answer, Fault> {
    let caller = context.caller;
    // Temporary keys may outlive their principal, and then say nothing of whoever has its name now.
    if caller.session.is_some()
        && let Err(gone @ Unknown::Gone) = Holdings::of(context.state, context.account, caller)
    {
        return Err(gone.fault());
    }
    Ok(Answer::read(json!({"UserId": caller.user_id, "Account": context.account, "Arn": caller.arn})))
}

/// Temporary keys of the caller itself. Nobody needs a permission for it, and a temporary key cannot get another.
/// <https://docs.aws.amazon.com/STS/latest/APIReference/API_GetSessionToken.html>
pub fn get_session_token(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let caller = context.caller;
    if caller.session.is_some() {
        return Err(Fault::new("AccessDenied", "Cannot call GetSessionToken with session credentials"));
    }
    if input.get("SerialNumber").is_some() || input.get("TokenCode").is_some() {
        // No user has a device here.
        return Err(Fault::new(
            "AccessDenied",
            "MultiFactorAuthentication failed with invalid MFA one time pass code. ",
        ));
    }
    let is_root = caller.user_id == context.account;
    let seconds = input["DurationSeconds"].as_i64().unwrap_or(USER_SECONDS);
    let seconds = if is_root { seconds.min(ROOT_SECONDS) } else { seconds };
    let session = Session {
        access_key_id: context.ids.unique("ASIA"),
        secret: context.ids.secret(),
        arn: caller.arn.clone(),
        user_id: caller.user_id.clone(),
        issued: context.now,
        expires: context.now.plus_secs(seconds),
        ..Session::default()
    };
    let credentials = credentials::issue(context, &session)?;
    Ok(Answer::read(json!({"Credentials": credentials})))
}
