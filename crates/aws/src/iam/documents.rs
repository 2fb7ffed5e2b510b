//! Policies as they are taken in: their limits, their language, and whom they name.

use object::Snapshot;

use super::record::{self, Role};
use crate::policy::{Document, Malformed, Use};
use crate::state::{self, Changes};
use crate::{Context, Fault};

/// How long a role's trust policy may be, spaces aside. <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html>
const TRUST_LIMIT: usize = 2048;

/// What IAM counts of a policy: spaces outside of strings are free.
pub(super) fn size(document: &str) -> usize {
    let mut in_string = false;
    let mut escaped = false;
    let mut size = 0;
    for character in document.chars() {
        if !in_string && character.is_whitespace() {
            continue;
        }
        size += 1;
        match character {
            '"' if !escaped => in_string = !in_string,
            _ => {}
        }
        escaped = character == '\\' && !escaped;
    }
    size
}

pub(super) fn malformed(bad: Malformed) -> Fault {
    Fault::new("MalformedPolicyDocument", bad.0)
}

/// A policy of an identity, or of a boundary.
pub(super) fn check(document: &str) -> Result<(), Fault> {
    Document::parse(document, Use::Identity).map(drop).map_err(malformed)
}

/// A role's trust policy. `before` is the one that it replaces: what that one named may stay.
pub(super) fn check_trust(context: &Context, document: &str, before: &str) -> Result<(), Fault> {
    if size(document) > TRUST_LIMIT {
        let message = format!("Cannot exceed quota for ACLSizePerRole: {TRUST_LIMIT}");
        return Err(Fault::new("LimitExceeded", message));
    }
    let parsed = Document::parse(document, Use::Trust).map_err(malformed)?;
    for arn in parsed.named_arns() {
        let is_known = before.contains(&format!("\"{arn}\"")) || is_principal(context, arn);
        if !is_known {
            return Err(malformed(Malformed(format!("Invalid principal in policy: \"AWS\":\"{arn}\""))));
        }
    }
    Ok(())
}

/// Is there such a user, role or session's role? Of other accounts nothing is known, and they are taken at their word.
fn is_principal(context: &Context, arn: &str) -> bool {
    let state = context.state;
    let Some(resource) = arn.strip_prefix("arn:aws:").and_then(|rest| rest.splitn(4, ':').nth(3)) else {
        return false;
    };
    if !arn.contains(&format!("::{}:", context.account)) {
        return true;
    }
    match resource.split_once('/') {
        Some(("user", _)) => record::user_of_arn(state, arn).is_some(),
        Some(("role", _)) => record::role_of_arn(state, arn).is_some(),
        Some(("assumed-role", session)) => {
            let role = session.split('/').next().unwrap_or_default();
            record::named::<Role>(state, role).is_some_and(|role_| role_.record.common.name == role)
        }
        _ => false,
    }
}

/// Puts its id in the place of a user or role that goes, in every trust policy that names it: one that is made later under the same name is
/// somebody else. Records that `changes` removes are left alone.
pub(super) fn forget_principal(state: &Snapshot, changes: &mut Changes, arn: &str, id: &str) {
    let (named, unnamed) = (format!("\"{arn}\""), format!("\"{id}\""));
    for mut role in state::list::<Role>(state, "") {
        let is_going = changes.0.iter().any(|change| change.key == role.key);
        if !is_going && role.record.trust.contains(&named) {
            role.record.trust = role.record.trust.replace(&named, &unnamed);
            changes.update(&role);
        }
    }
}
