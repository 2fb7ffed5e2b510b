//! Who is asking: whom a front proxy tells of, a client certificate, a bearer token, or nobody; and whom they want to be taken for.

mod legacy;
pub(crate) mod oidc;
pub(crate) mod verified;
pub(crate) mod webhook;

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use access::service_account::Identity;
use access::{AccessError, ImpersonationMode, View};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderValue, header};
use object::{Reason, Status, Time};
use plan::{Attributes, User};
use tracing::debug;

use crate::recent::Recent;
use crate::shared::{Known, Peer, Shared};
use crate::websocket::SUBPROTOCOL_TOKEN;

/// How long a connection's certificate is, before its validity is checked again.
const CERTIFICATE_TRUST: Duration = Duration::from_secs(60);
/// A longer one is no token of ours.
const LONGEST_TOKEN: usize = 16 * 1024;
/// Of so many it is known how they may be somebody else.
const MOST_IMPERSONATORS: usize = 5_000;

/// What is told of a token beside whose it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Remarks {
    /// For the one who asks.
    pub(crate) warning: Option<&'static str>,
    /// For who reads what was written down: names and values of annotations.
    pub(crate) annotations: Vec<(&'static str, String)>,
}

/// A user, and what the token said beside.
#[derive(Clone)]
pub(crate) struct Authenticated {
    pub(crate) user: User,
    pub(crate) remarks: Remarks,
}

impl From<User> for Authenticated {
    fn from(user: User) -> Self {
        Self { user, remarks: Remarks::default() }
    }
}

/// Nobody is believed.
pub(crate) struct Refused {
    pub(crate) status: Status,
    pub(crate) remarks: Remarks,
}

impl From<Status> for Refused {
    fn from(status: Status) -> Self {
        Self { status, remarks: Remarks::default() }
    }
}

/// The user of a request: whoever first believes one of its credentials. One that is there and believed by nobody is refused, never taken
/// for none.
pub(crate) async fn authenticate(
    shared: &Shared,
    peer: &Peer,
    path: &str,
    headers: &HeaderMap,
) -> Result<Authenticated, Refused> {
    let began = Instant::now();
    let found = believed(shared, peer, path, headers).await;
    shared.access.authenticated(found.as_ref().ok().map(|found| &*found.user.name), began.elapsed());
    found
}

async fn believed(
    shared: &Shared,
    peer: &Peer,
    path: &str,
    headers: &HeaderMap,
) -> Result<Authenticated, Refused> {
    let mut shown = false;
    if !peer.certificates.is_empty() {
        if let Some(user) = fronted(shared, peer, headers)? {
            return Ok(user.into());
        }
        match certificate_user(shared, peer) {
            Ok(user) => return Ok(user.into()),
            Err(error) => debug!(%error, "a client certificate was refused"),
        }
        shown = true;
    }
    if let Some(token) = bearer(headers)? {
        return token_user(shared, &token).await;
    }
    let anonymous = shared.providers.first().is_none_or(|first| first.configuration().anonymous.allows(path));
    if shown || !anonymous { Err(unauthorized().into()) } else { Ok(access::anonymous().into()) }
}

/// The user that a proxy in front of this server tells of, if it is one that may: by a certificate of the front proxies' own authority.
/// <https://kubernetes.io/docs/reference/access-authn-authz/authentication/#authenticating-proxy>
fn fronted(shared: &Shared, peer: &Peer, headers: &HeaderMap) -> Result<Option<User>, Status> {
    let (Some(front), Some(name)) = (&shared.config.front_proxies, headers.get("x-remote-user")) else {
        return Ok(None);
    };
    let Ok(proxy) = access::certificate(&peer.certificates, &front.authorities, shared.gate.now()) else {
        return Ok(None);
    };
    if !front.names.iter().any(|name| **name == *proxy.name) {
        return Ok(None);
    }
    // What cannot be read is refused: with half of it somebody else would be meant.
    let read = |value| text(value).ok_or_else(unauthorized);
    let name = read(name)?;
    if name.is_empty() {
        return Ok(None);
    }
    let mut user = User::new(name, &[]);
    for group in headers.get_all("x-remote-group") {
        user.groups.push(read(group)?.into());
    }
    if let Some(uid) = headers.get("x-remote-uid") {
        user.uid = read(uid)?.into();
    }
    for (name, value) in headers {
        if let Some(key) = name.as_str().strip_prefix("x-remote-extra-") {
            let key = crate::query::percent_decode(key).unwrap_or_else(|| key.to_owned());
            user.extra.entry(key.into()).or_default().push(read(value)?.into());
        }
    }
    if !user.is_in(access::groups::AUTHENTICATED) && !user.is_in(access::groups::UNAUTHENTICATED) {
        user.groups.push(access::groups::AUTHENTICATED.into());
    }
    Ok(Some(user))
}

/// Checking a chain costs signatures; a connection shows the same one with every request.
fn certificate_user(shared: &Shared, peer: &Peer) -> Result<User, AccessError> {
    let mut known = peer.known.lock().unwrap_or_else(PoisonError::into_inner);
    let now = shared.gate.now();
    let observe = |expires: Option<Time>| {
        let left = expires.map(|expires| expires.as_secs() - now.as_secs());
        left.into_iter().for_each(|seconds| shared.access.certificates.observe(seconds as f64));
    };
    if let Some(Known { since, user, expires }) = &*known
        && since.elapsed() < CERTIFICATE_TRUST
    {
        observe(*expires);
        return Ok(user.clone());
    }
    let user = access::certificate(&peer.certificates, &shared.config.client_ca, now)?;
    let expires = peer.certificates.first().and_then(|leaf| access::expiry(leaf));
    observe(expires);
    *known = Some(Known { since: Instant::now(), user: user.clone(), expires });
    Ok(user)
}

fn unauthorized() -> Status {
    Status::new(Reason::Unauthorized, "Unauthorized")
}

/// The token of the `Authorization` header, or of a WebSocket's subprotocols, where browsers have no other place for one.
fn bearer(headers: &HeaderMap) -> Result<Option<Cow<'_, str>>, Status> {
    let Some(value) = headers.get(header::AUTHORIZATION) else { return Ok(subprotocol_token(headers)) };
    let text = text(value).ok_or_else(unauthorized)?;
    let Some((scheme, token)) = text.split_once(' ') else { return Ok(None) };
    let is_bearer = scheme.eq_ignore_ascii_case("bearer");
    Ok(is_bearer.then(|| token.trim()).filter(|token| !token.is_empty()).map(Cow::Borrowed))
}

fn subprotocol_token(headers: &HeaderMap) -> Option<Cow<'_, str>> {
    headers.get(header::UPGRADE)?;
    let offered = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().filter_map(text);
    let mut offered = offered.flat_map(|text| text.split(',')).map(str::trim);
    let encoded = offered.find_map(|one| one.strip_prefix(SUBPROTOCOL_TOKEN))?;
    let token = URL_SAFE_NO_PAD.decode(encoded.trim_end_matches('=')).ok()?;
    String::from_utf8(token).ok().filter(|token| !token.is_empty()).map(Cow::Owned)
}

/// A header's text, which may be any of Unicode's (a user's name is). None: it is no text.
fn text(value: &HeaderValue) -> Option<&str> {
    std::str::from_utf8(value.as_bytes()).ok()
}

async fn token_user(shared: &Shared, token: &str) -> Result<Authenticated, Refused> {
    let (began, tokens) = (Instant::now(), &shared.access.tokens);
    let digest = digest(token);
    if let Some(believed) = shared.verified.get(&digest) {
        tokens.known(began.elapsed());
        return Ok(believed);
    }
    let looking = tokens.look();
    let identity = token_identity(shared, token, &[]).await;
    drop(looking);
    tokens.looked(identity.is_ok(), began.elapsed());
    match identity {
        Ok(identity) => {
            let remarks = legacy::remarks(&identity);
            let believed = Authenticated { user: identity.user, remarks };
            shared.verified.put(digest, &believed);
            Ok(believed)
        }
        Err(error) => {
            debug!(%error, "a bearer token was refused");
            Err(Refused { status: error.status(), remarks: legacy::remarks_of_refused(&error) })
        }
    }
}

/// Who carries a bearer token: a principal of the account, a service account, a new node, a user of an issuer, or whom a webhook knows.
/// `audiences` are those that the asker stands for; empty means this API server's own.
///
/// # Errors
/// Why nobody believes it; `Unrecognized` if nobody knows what it is.
pub(crate) async fn token_identity(
    shared: &Shared,
    token: &str,
    audiences: &[&str],
) -> Result<Identity, AccessError> {
    if token.len() > LONGEST_TOKEN {
        return Err(AccessError::Unrecognized);
    }
    let own = &shared.tokens.audiences;
    let asked: Vec<&str> =
        if audiences.is_empty() { own.iter().map(|one| &**one).collect() } else { audiences.to_vec() };
    // Who knows no audiences speaks of this API server only.
    let ours: Vec<Box<str>> =
        asked.iter().filter(|asked| own.iter().any(|own| own == *asked)).map(|&asked| asked.into()).collect();
    let here = |user| Identity { user, audiences: ours.clone(), renewed_late_secs: None, secret: None };
    let (snapshot, now) = (shared.store().snapshot(), shared.gate.now());
    if !ours.is_empty()
        && let Some(answer) = shared.login.as_ref().and_then(|login| login(&snapshot, token))
    {
        return answer.map(here).map_err(AccessError::Login);
    }
    let mut refusals = Vec::new();
    match access::bearer(&shared.tokens, &snapshot, token, audiences, now) {
        Err(error) => {
            legacy::note_refused(shared, &error).await;
            refusals.push(error);
        }
        Ok(found) => {
            legacy::note(shared, &found).await;
            return Ok(found);
        }
    }
    for provider in shared.providers.iter().filter(|_| !ours.is_empty()) {
        match provider.user(token, now).await {
            Err(error) => refusals.push(error),
            Ok(user) => return Ok(here(user)),
        }
    }
    if let Some(webhook) = &shared.token_webhook {
        match webhook.ask(token, &asked, own).await {
            Err(error) => refusals.push(error),
            found => return found,
        }
    }
    let why = refusals.into_iter().find(|error| *error != AccessError::Unrecognized);
    Err(why.unwrap_or(AccessError::Unrecognized))
}

fn digest(text: &str) -> [u8; 32] {
    let mut digest = [0; 32];
    digest.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, text.as_bytes()).as_ref());
    digest
}

/// The user that a request's impersonation headers ask for; the asking one if there are none.
pub(crate) async fn impersonate(
    shared: &Shared,
    user: User,
    headers: &HeaderMap,
    request: &Attributes<'_>,
) -> Result<User, Status> {
    let wanted = wanted(headers)?;
    let Some(wanted) = wanted else { return Ok(user) };
    let (snapshot, began) = (shared.store().snapshot(), Instant::now());
    let last = shared.impersonations.last(&user);
    let decide = |view: &View<'_>| {
        let (checks, last_check) = (RefCell::new(Vec::new()), Cell::new(Instant::now()));
        let told = |mode, is_allowed| {
            let now = Instant::now();
            checks.borrow_mut().push((mode, is_allowed, now - last_check.replace(now)));
        };
        let decided = access::impersonation(view, &user, wanted.clone(), request, last, &told);
        (decided, checks.into_inner())
    };
    let (decided, checks) = shared.authorizers.decide(&snapshot, decide).await;
    for (mode, is_allowed, took) in checks {
        shared.access.impersonation_checked(mode, is_allowed, took);
    }
    let mode = decided.as_ref().ok().map(|(_, mode)| *mode);
    shared.access.impersonated(mode, began.elapsed());
    if let Some(mode) = mode {
        shared.impersonations.note(&user, mode);
    }
    decided.map(|(impersonated, _)| impersonated)
}

/// How users were allowed to be somebody else the last time, by their names.
pub(crate) struct Impersonations(Mutex<Recent<Arc<str>, ImpersonationMode>>);

impl Default for Impersonations {
    fn default() -> Self {
        Self(Mutex::new(Recent::new(MOST_IMPERSONATORS)))
    }
}

impl Impersonations {
    fn last(&self, user: &User) -> Option<ImpersonationMode> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&user.name).copied()
    }

    fn note(&self, user: &User, mode: ImpersonationMode) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).put(user.name.clone(), mode);
    }
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
            let key = crate::query::percent_decode(key).unwrap_or_else(|| key.to_owned());
            extra.entry(key.into()).or_default().push(read(name.as_str(), value)?.into());
        }
    }
    let (name, uid) = (first("impersonate-user")?, first("impersonate-uid")?);
    if name.is_empty() {
        if groups.is_empty() && extra.is_empty() && uid.is_empty() {
            return Ok(None);
        }
        return Err(Status::bad_request(nobody(uid, &groups, &extra)));
    }
    let mut user = User::new(name, &groups);
    user.uid = uid.into();
    user.extra = extra;
    Ok(Some(user))
}

/// What was asked for without a name, as Go prints it.
fn nobody(uid: &str, groups: &[&str], extra: &BTreeMap<Box<str>, Vec<Box<str>>>) -> String {
    let texts = |values: &mut dyn Iterator<Item = &str>| {
        let quoted: Vec<String> = values.map(|value| format!("{value:?}")).collect();
        format!("[]string{{{}}}", quoted.join(", "))
    };
    let told_groups =
        if groups.is_empty() { "[]string(nil)".to_owned() } else { texts(&mut groups.iter().copied()) };
    let told_extra: Vec<String> = extra
        .iter()
        .map(|(key, values)| format!("{key:?}:{}", texts(&mut values.iter().map(|value| &**value))))
        .collect();
    let told_extra =
        if extra.is_empty() { "(nil)".to_owned() } else { format!("{{{}}}", told_extra.join(", ")) };
    format!(
        "requested &user.DefaultInfo{{Name:\"\", UID:{uid:?}, Groups:{told_groups}, Extra:map[string][]string{told_extra}}} without impersonating a user name"
    )
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
        let read =
            read.as_ref().map(|(token, name)| (token.as_deref(), name.as_deref())).map_err(|why| why.code);
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
