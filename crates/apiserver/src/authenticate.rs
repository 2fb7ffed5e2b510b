//! Who is asking: a client certificate, a bearer token, or nobody; and whom they want to be taken for.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue, header};
use object::{Reason, Status};
use plan::User;
use tracing::debug;

use crate::server::{Peer, Shared};

/// How long a verified token is believed without looking again.
const TOKEN_TRUST: Duration = Duration::from_secs(10);
/// How long a connection's certificate is, before its validity is checked again.
const CERTIFICATE_TRUST: Duration = Duration::from_secs(60);
const MOST_TOKENS: usize = 4096;
/// A longer one is no token of ours.
const LONGEST_TOKEN: usize = 16 * 1024;

/// Tokens that were verified a moment ago, by their digest.
#[derive(Default)]
pub(crate) struct Verified(Mutex<HashMap<[u8; 32], (Instant, User)>>);

impl Verified {
    fn get(&self, digest: &[u8; 32]) -> Option<User> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, user) = known.get(digest)?;
        (since.elapsed() < TOKEN_TRUST).then(|| user.clone())
    }

    fn put(&self, digest: [u8; 32], user: &User) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST_TOKENS {
            known.retain(|_, (since, _)| since.elapsed() < TOKEN_TRUST);
        }
        if known.len() < MOST_TOKENS {
            known.insert(digest, (Instant::now(), user.clone()));
        }
    }
}

/// The user of a request. A credential that is there but not believed is refused, never taken for none.
pub(crate) fn authenticate(shared: &Shared, peer: &Peer, headers: &HeaderMap) -> Result<User, Status> {
    if let Some(token) = bearer(headers)? {
        return token_user(shared, token);
    }
    if !peer.certificates.is_empty() {
        return certificate_user(shared, peer);
    }
    if shared.config.anonymous {
        return Ok(access::anonymous());
    }
    Err(unauthorized())
}

/// Checking a chain costs signatures; a connection shows the same one with every request.
fn certificate_user(shared: &Shared, peer: &Peer) -> Result<User, Status> {
    let mut known = peer.known.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((since, user)) = &*known
        && since.elapsed() < CERTIFICATE_TRUST
    {
        return Ok(user.clone());
    }
    let checked = access::certificate(&peer.certificates, &shared.config.client_ca, shared.gate.now());
    let user = checked.map_err(|error| {
        debug!(%error, "a client certificate was refused");
        error.status()
    })?;
    *known = Some((Instant::now(), user.clone()));
    Ok(user)
}

fn unauthorized() -> Status {
    Status::new(Reason::Unauthorized, "Unauthorized")
}

fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Status> {
    let Some(value) = headers.get(header::AUTHORIZATION) else { return Ok(None) };
    let text = text(value).ok_or_else(unauthorized)?;
    let Some((scheme, token)) = text.split_once(' ') else { return Ok(None) };
    let is_bearer = scheme.eq_ignore_ascii_case("bearer");
    Ok(is_bearer.then(|| token.trim()).filter(|token| !token.is_empty()))
}

/// A header's text, which may be any of Unicode's (a user's name is). None: it is no text.
fn text(value: &HeaderValue) -> Option<&str> {
    std::str::from_utf8(value.as_bytes()).ok()
}

fn token_user(shared: &Shared, token: &str) -> Result<User, Status> {
    if token.len() > LONGEST_TOKEN {
        return Err(unauthorized());
    }
    let mut digest = [0; 32];
    digest.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, token.as_bytes()).as_ref());
    if let Some(user) = shared.verified.get(&digest) {
        return Ok(user);
    }
    let snapshot = shared.store().snapshot();
    if let Some(answer) = shared.login.as_ref().and_then(|login| login(&snapshot, token)) {
        let user = answer.map_err(|why| {
            debug!(%why, "a login was refused");
            unauthorized()
        })?;
        shared.verified.put(digest, &user);
        return Ok(user);
    }
    let identity =
        access::bearer(&shared.tokens, &snapshot, token, &[], shared.gate.now()).map_err(|error| {
            debug!(%error, "a bearer token was refused");
            error.status()
        })?;
    shared.verified.put(digest, &identity.user);
    Ok(identity.user)
}

/// The user that a request's impersonation headers ask for; the asking one if there are none.
pub(crate) fn impersonate(shared: &Shared, user: User, headers: &HeaderMap) -> Result<User, Status> {
    let wanted = wanted(headers)?;
    let Some(wanted) = wanted else { return Ok(user) };
    let snapshot = shared.store().snapshot();
    shared.rbac.view(&snapshot, |view| access::impersonation(view, &user, wanted))
}

fn wanted(headers: &HeaderMap) -> Result<Option<User>, Status> {
    // A header that cannot be read is refused: taken for absent, the request would run with another's rights.
    let read = |name: &str, value| {
        text(value).ok_or_else(|| Status::bad_request(format!("the header {name} is not valid UTF-8")))
    };
    let first = |name: &str| headers.get(name).map_or(Ok(""), |value| read(name, value));
    let mut groups = Vec::new();
    for value in headers.get_all("impersonate-group") {
        groups.push(read("impersonate-group", value)?);
    }
    let mut extra: BTreeMap<Box<str>, Vec<Box<str>>> = BTreeMap::new();
    for (name, value) in headers {
        if let Some(key) = name.as_str().strip_prefix("impersonate-extra-") {
            let key = crate::query::percent_decode(key, false).unwrap_or_else(|| key.to_owned());
            extra.entry(key.into()).or_default().push(read(name.as_str(), value)?.into());
        }
    }
    let (name, uid) = (first("impersonate-user")?, first("impersonate-uid")?);
    if name.is_empty() {
        if groups.is_empty() && extra.is_empty() && uid.is_empty() {
            return Ok(None);
        }
        return Err(Status::bad_request("requested [...] without impersonating a user"));
    }
    let mut user = User::new(name, &groups);
    user.uid = uid.into();
    user.extra = extra;
    Ok(Some(user))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(headers: &[(&'static str, &[u8])], expected: Result<(Option<&str>, Option<&str>), u16>) {
        let made: HeaderMap = headers
            .iter()
            .map(|(name, value)| {
                (http::HeaderName::from_static(name), HeaderValue::from_bytes(value).expect("a header"))
            })
            .collect();
        let read = bearer(&made).and_then(|token| Ok((token, wanted(&made)?.map(|user| user.name))));
        let read = read.as_ref().map(|(token, name)| (*token, name.as_deref())).map_err(|why| why.code);
        assert_eq!(read, expected, "{headers:?}");
    }

    #[test]
    fn a_header_that_cannot_be_read_is_refused_and_never_taken_for_absent() {
        check(&[], Ok((None, None)));
        check(&[("authorization", b"Bearer abc")], Ok((Some("abc"), None)));
        check(&[("authorization", b"Basic abc")], Ok((None, None)));
        check(&[("authorization", b"Bearer \xff")], Err(401));
        check(&[("impersonate-user", "Zoë".as_bytes())], Ok((None, Some("Zoë"))));
        check(&[("impersonate-user", b"Zo\xeb")], Err(400));
        check(&[("impersonate-user", b"a"), ("impersonate-group", b"\xff")], Err(400));
        check(&[("impersonate-user", b"a"), ("impersonate-uid", b"\xff")], Err(400));
        check(&[("impersonate-user", b"a"), ("impersonate-extra-scopes", b"\xff")], Err(400));
        check(&[("impersonate-group", b"a")], Err(400));
    }
}
