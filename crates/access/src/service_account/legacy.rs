//! Tokens that stand in Secrets of type `kubernetes.io/service-account-token`. They have no end: they hold as long as the Secret does.
//! <https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/#auto-generated-legacy-serviceaccount-token-clean-up>

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kinds::{SECRETS, SERVICE_ACCOUNTS};
use object::{Key, Object, Snapshot, Time};
use ring::rand::SecureRandom;
use serde::{Deserialize, Serialize};

use super::verify::{Identity, for_audiences, refused, user};
use super::{Authority, ObjectClaim};
use crate::{AccessError, bootstrap_token};

pub(super) const ISSUER: &str = "kubernetes/serviceaccount";

/// Labels of such Secrets; their values are days: `2026-11-23`.
pub const LAST_USED: &str = "kubernetes.io/legacy-token-last-used";
pub const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";

#[derive(Serialize, Deserialize)]
struct Claims {
    #[serde(default)]
    iss: String,
    #[serde(default, rename = "kubernetes.io/serviceaccount/namespace")]
    namespace: String,
    #[serde(default, rename = "kubernetes.io/serviceaccount/secret.name")]
    secret: String,
    #[serde(default, rename = "kubernetes.io/serviceaccount/service-account.name")]
    account: String,
    #[serde(default, rename = "kubernetes.io/serviceaccount/service-account.uid")]
    uid: String,
    #[serde(default)]
    sub: String,
}

/// A token of a Secret was shown, and is the one that stands there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretUse {
    pub secret: Key,
    pub uid: Box<str>,
    /// The name of its account, of the same namespace.
    pub account: Box<str>,
    /// The account names the Secret among its own, as clusters before 1.24 made them.
    pub is_generated: bool,
    /// The day to note as its last use, where that is not noted.
    pub note_day: Option<String>,
}

/// Why the token of a Secret that was marked is refused.
impl fmt::Display for SecretUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Key { namespace, name, .. } = &self.secret;
        write!(
            f,
            "the token in secret {namespace}/{name} for service account {namespace}/{} has been marked invalid. Use tokens from the TokenRequest API or manually created secret-based tokens, or remove the '{INVALID_SINCE}' label from the secret to temporarily allow use of this token",
            self.account
        )
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct SecretView {
    data: Option<SecretData>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct SecretData {
    token: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct AccountView {
    secrets: Option<Vec<Named>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Named {
    name: String,
}

/// Whether an account names a Secret among its own.
pub fn names_secret(account: &Object, secret: &str) -> bool {
    let named = account.decode::<AccountView>().ok().and_then(|view| view.secrets);
    named.is_some_and(|all| all.iter().any(|one| one.name == secret))
}

impl Authority {
    /// The token of an account for a Secret to hold.
    pub fn token_of_secret(
        &self,
        account: &Object,
        secret: &Object,
        random: &dyn SecureRandom,
    ) -> Result<String, AccessError> {
        let Key { namespace, name, .. } = &account.key;
        let claims = Claims {
            iss: ISSUER.to_owned(),
            namespace: namespace.to_string(),
            secret: secret.key.name.to_string(),
            account: name.to_string(),
            uid: account.meta.uid.to_string(),
            sub: format!("system:serviceaccount:{namespace}:{name}"),
        };
        let payload =
            serde_json::to_vec(&claims).map_err(|_| AccessError::Key("the claims do not encode"))?;
        self.signing.sign(&payload, random)
    }

    /// Checks what a signed payload of [`ISSUER`] claims: that the Secret holds this very token, and that its account is there.
    pub(super) fn verify_legacy(
        &self,
        snapshot: &Snapshot,
        (token, payload): (&str, &[u8]),
        asked: &[&str],
        now: Time,
    ) -> Result<Identity, AccessError> {
        // Such tokens name no audience: they are for the API server.
        let audiences = for_audiences(&self.audiences, asked)?;
        let claims: Claims =
            serde_json::from_slice(payload).map_err(|error| refused(format!("claims: {error}")))?;
        let Claims { namespace, secret, account, uid, sub, .. } = &claims;
        let claimed = [
            ("sub", sub),
            ("namespace", namespace),
            ("secretName", secret),
            ("serviceAccountName", account),
            ("serviceAccountUID", uid),
        ];
        if let Some((name, _)) = claimed.iter().find(|(_, value)| value.is_empty()) {
            return Err(refused(format!("{name} claim is missing")));
        }
        if *sub != format!("system:serviceaccount:{namespace}:{account}") {
            return Err(refused("sub claim is invalid"));
        }
        let key = Key::new(SECRETS, namespace.as_str(), secret.as_str());
        let held = snapshot.get(&key).filter(|held| !held.meta.is_deleting());
        let held = held.ok_or_else(|| refused("Token has been invalidated"))?;
        if !holds(held, token) {
            return Err(refused("Token does not match server's copy"));
        }
        let key = Key::new(SERVICE_ACCOUNTS, namespace.as_str(), account.as_str());
        let gone = || refused(format!("ServiceAccount {namespace}/{account} has been deleted"));
        let found = snapshot.get(&key).filter(|found| !found.meta.is_deleting()).ok_or_else(gone)?;
        if *found.meta.uid != **uid {
            let held = &found.meta.uid;
            return Err(refused(format!("ServiceAccount UID ({held}) does not match claim ({uid})")));
        }
        let used = SecretUse {
            secret: held.key.clone(),
            uid: held.meta.uid.clone(),
            account: account.as_str().into(),
            is_generated: names_secret(found, secret),
            note_day: unnoted(held, now),
        };
        if held.meta.label(INVALID_SINCE).is_some_and(|since| !since.is_empty()) {
            return Err(AccessError::InvalidatedToken(Box::new(used)));
        }
        let claim = ObjectClaim { name: account.clone(), uid: uid.clone() };
        Ok(Identity { user: user(namespace, &claim), audiences, renewed_late_secs: None, secret: Some(used) })
    }
}

fn holds(secret: &Object, token: &str) -> bool {
    let held = secret.decode::<SecretView>().ok().and_then(|view| view.data);
    let held = held.and_then(|data| STANDARD.decode(data.token).ok()).unwrap_or_default();
    bootstrap_token::same_secret(&held, token.as_bytes())
}

/// Another server's clock may be a little ahead: a note of tomorrow stands.
fn unnoted(secret: &Object, now: Time) -> Option<String> {
    const DAY: i64 = 24 * 60 * 60;
    let noted = secret.meta.label(LAST_USED).unwrap_or_default();
    let (today, tomorrow) = (now.day(), now.plus_secs(DAY).day());
    (noted != today && noted != tomorrow).then_some(today)
}
