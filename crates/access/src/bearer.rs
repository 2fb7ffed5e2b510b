use object::{Snapshot, Time};
use plan::User;

use crate::service_account::{Authority, Identity};
use crate::{AccessError, bootstrap_token};

/// Who carries this bearer token: a service account's, or a bootstrap token.
///
/// `audiences` are those that the caller stands for (the authority's own for the API server itself, what a TokenReview
/// asks for otherwise); empty means the authority's own. The answer holds for the moment `now` and this snapshot; a
/// cache beside the caller may keep it for some seconds.
pub fn bearer(
    authority: &Authority,
    snapshot: &Snapshot,
    token: &str,
    audiences: &[&str],
    now: Time,
) -> Result<Identity, AccessError> {
    let asked: Vec<&str> = if audiences.is_empty() {
        authority.audiences.iter().map(|held| &**held).collect()
    } else {
        audiences.to_vec()
    };
    match authority.verify(snapshot, token, &asked, now) {
        Err(AccessError::Unrecognized) => {}
        answer => return answer,
    }
    let user: User = bootstrap_token::authenticate(snapshot, token, now)?;
    // A bootstrap token knows no audiences: it speaks to the API server only.
    let own: Vec<Box<str>> = asked
        .iter()
        .filter(|asked| authority.audiences.iter().any(|held| **held == ***asked))
        .map(|&asked| asked.into())
        .collect();
    if own.is_empty() {
        return Err(AccessError::Unrecognized);
    }
    Ok(Identity { user, audiences: own, renewed_late_secs: None, secret: None })
}
