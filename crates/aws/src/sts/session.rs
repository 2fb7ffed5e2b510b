//! A role's session: what is asked of it, whether the role may be had like this, and the keys that come of it.

use serde_json::{Value, json};

use crate::credentials::{self, Session};
use crate::iam::managed;
use crate::iam::record::{Policy, Role, named};
use crate::policy::{Document, Malformed, Set, Use};
use crate::{Context, Fault};

const SHORTEST: i64 = 900;
const USUAL: i64 = 3_600;
/// How long the session of a role lives at most that was assumed out of another's.
const CHAINED: i64 = 3_600;

/// What makes a session, besides its role.
#[derive(Default)]
pub struct Wanted {
    pub name: String,
    pub seconds: i64,
    pub policies: Vec<String>,
    pub tags: Vec<(String, String)>,
    pub transitive_tag_keys: Vec<String>,
    pub source_identity: Option<String>,
    pub keys: Vec<(String, String)>,
}

/// The trust policy of a role, compiled.
pub fn trust(role: &Role) -> Result<Set, Fault> {
    let name = format!("trust policy of {}", role.common.name);
    let document = Document::parse(&role.trust, Use::Trust)
        .map_err(|_| Fault::new("InternalFailure", format!("The {name} cannot be read")))?;
    Ok(Set::of([(name.into(), document.into())]))
}

/// How long the session is to live. `is_chained`: is it asked for with the keys of another role's session?
pub fn seconds(input: &Value, role: &Role, is_chained: bool) -> Result<i64, Fault> {
    let invalid = |message: &str| Err(Fault::new("ValidationError", message));
    let seconds = input["DurationSeconds"].as_i64().unwrap_or(USUAL.min(role.max_session_seconds));
    if seconds > role.max_session_seconds {
        return invalid("The requested DurationSeconds exceeds the MaxSessionDuration set for this role.");
    }
    if is_chained && seconds > CHAINED {
        return invalid(
            "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining",
        );
    }
    Ok(seconds.max(SHORTEST))
}

/// The policies that narrow the session: the document of the input, and managed policies as they are now.
pub fn policies(context: &Context, input: &Value) -> Result<Vec<String>, Fault> {
    let mut policies = Vec::new();
    if let Some(document) = input["Policy"].as_str() {
        Document::parse(document, Use::Identity)
            .map_err(|Malformed(message)| Fault::new("MalformedPolicyDocument", message))?;
        policies.push(document.to_owned());
    }
    for policy in input["PolicyArns"].as_array().into_iter().flatten() {
        let arn = policy["arn"].as_str().unwrap_or_default();
        let own = || {
            let name = arn.rsplit('/').next().unwrap_or_default();
            let policy = named::<Policy>(context.state, name)?.record;
            (policy.common.arn == arn).then(|| policy.document().to_owned())
        };
        let document = managed::find(arn).map(|managed| managed.document().to_owned()).or_else(own);
        let message = || format!("Policy {arn} does not exist or is not attachable.");
        policies.push(document.ok_or_else(|| Fault::new("ValidationError", message()))?);
    }
    Ok(policies)
}

/// The members of an answer that every way to a role has: `Credentials` and `AssumedRoleUser`.
pub fn begin(context: &mut Context, role: &Role, wanted: Wanted) -> Result<Value, Fault> {
    let common = &role.common;
    let session = Session {
        access_key_id: context.ids.unique("ASIA"),
        secret: context.ids.secret(),
        arn: format!("arn:aws:sts::{}:assumed-role/{}/{}", context.account, common.name, wanted.name),
        user_id: format!("{}:{}", common.id, wanted.name),
        issued: context.now,
        expires: context.now.plus_secs(wanted.seconds),
        role_arn: Some(common.arn.clone()),
        policies: wanted.policies,
        tags: wanted.tags,
        transitive_tag_keys: wanted.transitive_tag_keys,
        source_identity: wanted.source_identity,
        keys: wanted.keys,
    };
    let credentials = credentials::issue(context, &session)?;
    let mut output = json!({
        "Credentials": credentials,
        "AssumedRoleUser": {"AssumedRoleId": session.user_id, "Arn": session.arn},
    });
    if let Some(identity) = &session.source_identity {
        output["SourceIdentity"] = json!(identity);
    }
    Ok(output)
}
