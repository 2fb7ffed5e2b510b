//! <https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html>

use serde_json::{Value, json};

use super::jwt::{self, Token};
use super::session::{self, Wanted};
use crate::iam::record::{OidcProvider, role_of_arn};
use crate::policy::{Policies, Principal, Request, Set, Verdict, decide};
use crate::state;
use crate::{Answer, Context, Fault, authorize};

const ACTION: &str = "sts:AssumeRoleWithWebIdentity";

/// Nobody signs it: the token says who asks, and the role's trust policy whether they may.
pub fn assume_role(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    if input.get("ProviderId").is_some() {
        let message = "Ekso takes tokens of OpenID Connect; ProviderId is for OAuth 2.0";
        return Err(Fault::new("ValidationError", message));
    }
    let token = Token::read(text(input, "WebIdentityToken")).ok_or_else(|| {
        invalid(
            "The ID Token provided is not a valid JWT. (You may see this error if you sent an Access Token)",
        )
    })?;
    let provider = check(context, &token)?;
    let claims = &token.claims;
    let audience = claims.audiences().into_iter().find(|one| provider.client_ids.iter().any(|id| id == one));
    let audience = audience.ok_or_else(|| invalid("Incorrect token audience"))?;
    let arn = text(input, "RoleArn");
    let denied = || Fault::new("AccessDenied", format!("Not authorized to perform {ACTION}"));
    let role = role_of_arn(context.state, arn).ok_or_else(denied)?.record;
    let names = names(&provider, &claims.iss);
    let mut keys: Vec<(String, String)> = Vec::new();
    for name in &names {
        keys.push((format!("{name}:aud"), audience.to_owned()));
        keys.push((format!("{name}:sub"), claims.sub.clone()));
    }
    keys.push(("aws:FederatedProvider".to_owned(), provider.common.arn.clone()));
    let trust = session::trust(&role)?;
    let mut of_call = keys.clone();
    of_call.push(("sts:RoleSessionName".to_owned(), text(input, "RoleSessionName").to_owned()));
    if !is_trusted(context, &trust, &names, arn, &of_call) {
        return Err(denied());
    }
    let wanted = Wanted {
        name: text(input, "RoleSessionName").to_owned(),
        seconds: session::seconds(input, &role, false)?,
        policies: session::policies(context, input)?,
        keys,
        ..Wanted::default()
    };
    let mut output = session::begin(context, &role, wanted)?;
    output["SubjectFromWebIdentityToken"] = json!(claims.sub);
    output["Audience"] = json!(audience);
    output["Provider"] = json!(provider.common.arn);
    Ok(Answer::read(output))
}

/// The provider that vouches for a token, if the token is its own and in time.
fn check(context: &Context, token: &Token) -> Result<OidcProvider, Fault> {
    let issuer = &token.claims.iss;
    let provider = state::get::<OidcProvider>(context.state, "", &jwt::key_of(issuer));
    let provider = provider.filter(|_| issuer.starts_with("https://"));
    let provider = provider
        .ok_or_else(|| invalid(format!("No OpenIDConnect provider found in your account for {issuer}")))?;
    // The keys of this site's clusters are at hand; to others nothing is dialled.
    let keys = jwt::keys_of(context.state, issuer).ok_or_else(|| {
        let message = format!("Ekso knows the keys of its own clusters only, and {issuer} is none of them");
        Fault::new("IDPCommunicationError", message)
    })?;
    match token.is_signed(&keys) {
        Some(true) => {}
        Some(false) => return Err(invalid("The signature of the token is invalid")),
        None => {
            return Err(invalid(
                "Couldn't retrieve verification key from your identity provider,  please reference AssumeRoleWithWebIdentity documentation for requirements",
            ));
        }
    }
    let now = context.now.as_secs();
    if let Some(expired) = token.claims.expired(context.now) {
        let message = format!(
            "Token expired: current date/time {now} must be before the expiration date/time {expired}"
        );
        return Err(Fault::new("ExpiredTokenException", message));
    }
    if token.claims.is_early(context.now) {
        return Err(invalid("The token is not valid yet"));
    }
    Ok(provider.record)
}

/// How policies name a provider: by its URL without the scheme, with the port or without it.
fn names(provider: &OidcProvider, issuer: &str) -> Vec<String> {
    let with_port = issuer.strip_prefix("https://").unwrap_or(issuer).trim_end_matches('/').to_owned();
    let (_, bare) = provider.common.arn.split_once(":oidc-provider/").unwrap_or_default();
    let mut names = vec![bare.to_owned(), with_port];
    names.dedup();
    names
}

/// Whichever way the policy names the provider. A deny of either is one.
fn is_trusted(
    context: &Context,
    trust: &Set,
    names: &[String],
    role: &str,
    of_call: &[(String, String)],
) -> bool {
    let of_call: Vec<_> = of_call.iter().map(|(key, value)| (key.clone(), vec![value.clone()])).collect();
    let keys = authorize::keys(context, &of_call);
    let verdicts = names.iter().map(|name| {
        let provider = format!("arn:aws:iam::{}:oidc-provider/{name}", context.account);
        let principal = Principal::federated(&provider);
        let request = Request { principal: &principal, action: ACTION, resource: role, keys: &keys };
        decide(&Policies { trust: Some(trust), ..Policies::default() }, &request)
    });
    let verdicts: Vec<Verdict> = verdicts.collect();
    let is_denied = verdicts.iter().any(|verdict| matches!(verdict, Verdict::ExplicitDeny(..)));
    !is_denied && verdicts.iter().any(Verdict::is_allowed)
}

fn invalid(message: impl Into<String>) -> Fault {
    Fault::new("InvalidIdentityToken", message)
}

fn text<'a>(input: &'a Value, member: &str) -> &'a str {
    input[member].as_str().unwrap_or_default()
}
