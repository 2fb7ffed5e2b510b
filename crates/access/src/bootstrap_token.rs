//! Tokens that a new node joins with: <https://kubernetes.io/docs/reference/access-authn-authz/bootstrap-tokens/>.

use std::collections::BTreeMap;

use base64::Engine;
use object::{Key, Object, Snapshot, Time};
use plan::User;
use serde::Deserialize;

use crate::{AccessError, groups};
use kinds::SECRETS;

const TYPE: &str = "bootstrap.kubernetes.io/token";
const ID_LENGTH: usize = 6;
const SECRET_LENGTH: usize = 16;

#[derive(Deserialize)]
struct SecretView {
    #[serde(default)]
    r#type: String,
    #[serde(default)]
    data: BTreeMap<String, String>,
}

impl SecretView {
    fn field(&self, name: &str) -> Option<String> {
        let bytes = base64::engine::general_purpose::STANDARD.decode(self.data.get(name)?).ok()?;
        String::from_utf8(bytes).ok()
    }
}

/// When the token that a Secret holds ends; none if it holds none, or one for ever.
pub fn expiration(secret: &Object) -> Option<Time> {
    let view = secret.decode::<SecretView>().ok().filter(|view| view.r#type == TYPE)?;
    view.field("expiration")?.parse().ok()
}

/// The user of `<id>.<secret>`, if the Secret `bootstrap-token-<id>` in `kube-system` holds it and may be used for this.
pub(crate) fn authenticate(snapshot: &Snapshot, token: &str, now: Time) -> Result<User, AccessError> {
    let (id, secret) = split(token).ok_or(AccessError::Unrecognized)?;
    let refused = |why| AccessError::BootstrapToken { id: id.to_owned(), why };
    let key = Key::new(SECRETS, "kube-system", format!("bootstrap-token-{id}"));
    let object = snapshot.get(&key).ok_or_else(|| refused("no such secret"))?;
    if object.meta.is_deleting() {
        return Err(refused("the secret is being deleted"));
    }
    let view: SecretView = object.decode().map_err(|_| refused("the secret does not decode"))?;
    if view.r#type != TYPE {
        return Err(refused("the secret is of another type"));
    }
    let field = |name: &str| view.field(name);
    let held = field("token-secret").unwrap_or_default();
    if held.is_empty() || !same_secret(held.as_bytes(), secret.as_bytes()) {
        return Err(refused("the secret part does not match"));
    }
    if field("token-id").as_deref() != Some(id) {
        return Err(refused("token-id does not match the secret's name"));
    }
    if let Some(expiration) = field("expiration").filter(|text| !text.is_empty()) {
        let expiration: Time = expiration.parse().map_err(|_| refused("the expiration does not parse"))?;
        if now >= expiration {
            return Err(refused("expired"));
        }
    }
    if field("usage-bootstrap-authentication").as_deref() != Some("true") {
        return Err(refused("not usable for authentication"));
    }
    let mut user = User::new(format!("system:bootstrap:{id}"), &[groups::BOOTSTRAPPERS]);
    for group in field("auth-extra-groups").unwrap_or_default().split(',').filter(|group| !group.is_empty()) {
        if !is_bootstrap_group(group) {
            return Err(refused("an extra group does not begin with system:bootstrappers:"));
        }
        if !user.is_in(group) {
            user.groups.push(group.into());
        }
    }
    user.groups.push(groups::AUTHENTICATED.into());
    Ok(user)
}

fn split(token: &str) -> Option<(&str, &str)> {
    let (id, secret) = token.split_once('.')?;
    let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    (id.len() == ID_LENGTH && secret.len() == SECRET_LENGTH && plain(id) && plain(secret))
        .then_some((id, secret))
}

/// `system:bootstrappers:[a-z0-9:-]{0,255}[a-z0-9]`
fn is_bootstrap_group(group: &str) -> bool {
    group.strip_prefix("system:bootstrappers:").is_some_and(|rest| {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        (1..=256).contains(&rest.len())
            && rest.bytes().all(|byte| plain(byte) || byte == b':' || byte == b'-')
            && rest.bytes().next_back().is_some_and(plain)
    })
}

/// Takes as long for a wrong secret as for the right one of the same length.
pub(crate) fn same_secret(held: &[u8], given: &[u8]) -> bool {
    held.len() == given.len() && held.iter().zip(given).fold(0, |seen, (a, b)| seen | (a ^ b)) == 0
}
