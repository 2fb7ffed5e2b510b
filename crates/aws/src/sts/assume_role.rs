//! <https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html>

use serde_json::Value;

use super::session::{self, Wanted};
use crate::iam::caller::{Holdings, Unknown};
use crate::iam::record::{Role, role_of_arn};
use crate::policy::{Keys, Set};
use crate::{Answer, Context, Fault, authorize};

/// Decides itself who may call it: the role's trust policy has its word.
pub fn assume_role(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let caller = context.caller;
    if caller.user_id == context.account {
        return Err(Fault::new("AccessDenied", "Roles may not be assumed by root accounts."));
    }
    if input.get("SerialNumber").is_some() || input.get("TokenCode").is_some() {
        // No user has a device here.
        let message = "MultiFactorAuthentication failed with invalid MFA one time pass code. ";
        return Err(Fault::new("AccessDenied", message));
    }
    let holdings = Holdings::of(context.state, context.account, caller).map_err(Unknown::fault)?;
    let arn = text(input, "RoleArn");
    let role = role_of_arn(context.state, arn).map(|kept| kept.record);
    let Some(role) = role else {
        let message =
            format!("User: {} is not authorized to perform: sts:AssumeRole on resource: {arn}", caller.arn);
        return Err(Fault::new("AccessDenied", message));
    };
    let (tags, transitive_tag_keys) = tags(context, input)?;
    let source_identity = source_identity(context, input)?;
    let asked = Asked { arn, trust: session::trust(&role)?, keys: keys(context, input, &role) };
    asked.allows(&holdings, "sts:AssumeRole")?;
    if input.get("Tags").is_some() {
        asked.allows(&holdings, "sts:TagSession")?;
    }
    if source_identity.is_some() {
        asked.allows(&holdings, "sts:SetSourceIdentity")?;
    }
    let is_chained = caller.session.as_ref().is_some_and(|session| session.role_arn.is_some());
    let wanted = Wanted {
        name: text(input, "RoleSessionName").to_owned(),
        seconds: session::seconds(input, &role, is_chained)?,
        policies: session::policies(context, input)?,
        tags,
        transitive_tag_keys,
        source_identity,
        keys: Vec::new(),
    };
    Ok(Answer::read(session::begin(context, &role, wanted)?))
}

/// A role and its trust policy, and the condition keys of the call.
struct Asked<'a> {
    arn: &'a str,
    trust: Set,
    keys: Keys,
}

impl Asked<'_> {
    fn allows(&self, holdings: &Holdings, action: &str) -> Result<(), Fault> {
        let (verdict, message) = holdings.decide_with(action, self.arn, &self.keys, Some(&self.trust));
        if verdict.is_allowed() { Ok(()) } else { Err(Fault::new("AccessDenied", message)) }
    }
}

/// <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_iam-condition-keys.html>
fn keys(context: &Context, input: &Value, role: &Role) -> Keys {
    let mut of_call = crate::iam::given_tags(input);
    for (member, key) in [
        ("ExternalId", "sts:ExternalId"),
        ("RoleSessionName", "sts:RoleSessionName"),
        ("SourceIdentity", "sts:SourceIdentity"),
    ] {
        if let Some(value) = input[member].as_str() {
            of_call.push((key.to_owned(), vec![value.to_owned()]));
        }
    }
    let transitive: Vec<String> = strings(&input["TransitiveTagKeys"]);
    of_call.push(("sts:TransitiveTagKeys".to_owned(), transitive));
    for (key, value) in &role.common.tags {
        of_call.push((format!("aws:ResourceTag/{key}"), vec![value.clone()]));
        of_call.push((format!("iam:ResourceTag/{key}"), vec![value.clone()]));
    }
    authorize::keys(context, &of_call)
}

type SessionTags = (Vec<(String, String)>, Vec<String>);

/// The tags of the new session, and the keys of those that go on to the next. What the caller's session must hand on cannot be overwritten.
fn tags(context: &Context, input: &Value) -> Result<SessionTags, Fault> {
    let mut tags: Vec<(String, String)> = Vec::new();
    for tag in input["Tags"].as_array().into_iter().flatten() {
        let (key, value) = (text(tag, "Key"), text(tag, "Value"));
        if tags.iter().any(|(known, _)| known.eq_ignore_ascii_case(key)) {
            let message = "Duplicate tag keys found. Please note that Tag keys are case insensitive.";
            return Err(Fault::new("InvalidParameterValue", message));
        }
        tags.push((key.to_owned(), value.to_owned()));
    }
    let mut transitive = strings(&input["TransitiveTagKeys"]);
    if let Some(session) = &context.caller.session {
        for inherited in &session.transitive_tag_keys {
            if tags.iter().any(|(key, _)| key.eq_ignore_ascii_case(inherited)) {
                let message = "One of the specified transitive tag keys can't be set because it conflicts with a transitive tag key from the calling session";
                return Err(Fault::new("InvalidParameterValue", message));
            }
            let held = session.tags.iter().find(|(key, _)| key == inherited);
            tags.extend(held.cloned());
            transitive.push(inherited.clone());
        }
    }
    tags.sort();
    Ok((tags, transitive))
}

/// Once it is set it stays, from session to session.
fn source_identity(context: &Context, input: &Value) -> Result<Option<String>, Fault> {
    let given = input["SourceIdentity"].as_str();
    let held = context.caller.session.as_ref().and_then(|session| session.source_identity.as_deref());
    match (given, held) {
        (Some(given), Some(held)) if given != held => {
            let message = "The source identity of a session cannot be changed by assuming another role";
            Err(Fault::new("AccessDenied", message))
        }
        (given, held) => Ok(given.or(held).map(str::to_owned)),
    }
}

fn text<'a>(input: &'a Value, member: &str) -> &'a str {
    input[member].as_str().unwrap_or_default()
}

fn strings(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(|one| one.as_str().map(str::to_owned)).collect()
}
