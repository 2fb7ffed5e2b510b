//! Why somebody may do something, or may not.

use serde::{Deserialize, Serialize};

use super::caller::{Holdings, Unknown};
use super::record::role_of_arn;
use crate::sts::session;
use crate::{Caller, Context, Ids, World, authorize};

/// Who would do what, with what, under which conditions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Question {
    /// A user, a role or a session of one, or the root: an ARN, or the end of one (`user/alice`).
    pub principal: String,
    /// `eks:CreateCluster`
    pub action: String,
    /// An ARN; empty for an action without a resource.
    pub resource: String,
    /// Condition keys and their values, besides those of the principal and of the moment.
    pub keys: Vec<(String, Vec<String>)>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Explanation {
    pub principal: String,
    pub action: String,
    /// An ARN, or `*`.
    pub resource: String,
    pub allowed: bool,
    /// What decided: `allowed by an identity-based policy: arn:aws:iam::aws:policy/AdministratorAccess, statement 1`.
    pub why: String,
    /// What AWS would answer; empty if it is allowed.
    pub message: String,
}

/// Decides without doing. The error says why there is nothing to decide.
pub fn explain(world: &World, question: &Question) -> Result<Explanation, String> {
    let Question { action, keys, .. } = question;
    if action.split_once(':').is_none_or(|(service, name)| service.is_empty() || name.is_empty()) {
        return Err(format!("{action:?} is no action: name one as eks:CreateCluster"));
    }
    let principal = match question.principal.as_str() {
        arn if arn.starts_with("arn:") => arn.to_owned(),
        end => format!("arn:aws:iam::{}:{end}", world.account),
    };
    let resource = if question.resource.is_empty() { "*" } else { &question.resource };
    let holdings =
        Holdings::of_arn(world.state, world.account, &principal).map_err(|unknown| match unknown {
            Unknown::Gone => format!("there is no user, role or session {principal} in this account"),
            Unknown::Unreadable(policy) => format!("policy {policy} cannot be read"),
        })?;
    // Nothing is drawn: a question makes no names.
    let (caller, mut ids) = (Caller::default(), Ids::new([0; 32]));
    let World { account, region, now, state } = *world;
    let context = Context { account, region, now, caller: &caller, state, ids: &mut ids };
    let keys = authorize::keys(&context, keys);
    // Whether a role may be assumed, the role has its word in.
    let role = role_of_arn(state, resource).filter(|_| action.to_ascii_lowercase().starts_with("sts:"));
    let trust = role.map(|role| session::trust(&role.record)).transpose().map_err(|fault| fault.message)?;
    let (verdict, message) = holdings.decide_with(action, resource, &keys, trust.as_ref());
    Ok(Explanation {
        principal,
        action: action.clone(),
        resource: resource.to_owned(),
        allowed: verdict.is_allowed(),
        why: verdict.to_string(),
        message,
    })
}
