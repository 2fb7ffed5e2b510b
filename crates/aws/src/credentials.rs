//! What a signature is checked against: the keys of users, and the keys that the token service hands out.
//!
//! A user's key is a record of the account. A temporary key is none: everything about it, its secret included, travels sealed in its
//! session token, so that handing one out writes nothing, and nothing has to be cleaned up when it expires.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use object::{Resource, Snapshot, Time};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::state::{self, Record};
use crate::{Caller, Context, Fault, Ids};

/// A key of a user, or of the account's root. Its name is the key's id (`AKIA…`), its owner is empty.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AccessKey {
    /// Empty for the root's.
    pub user_name: String,
    /// Of the user, as [`Caller`] has it. Whoever renames or moves a user writes it here too.
    pub arn: String,
    /// `AIDA…`, or the account's number for its root.
    pub user_id: String,
    pub secret: String,
    pub is_active: bool,
    pub created: Time,
}

impl Record for AccessKey {
    const RESOURCE: Resource = Resource::new("accesskeys.iam");
}

/// The key under which session tokens are sealed: one record, [`SEAL`], made with the account.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealingKey {
    /// 32 bytes, base64.
    pub key: String,
}

/// The name of the one sealing key.
pub const SEAL: &str = "sessions";

impl Record for SealingKey {
    const RESOURCE: Resource = Resource::new("sealingkeys.sts");
}

/// What a session token says: who holds a temporary key, and what was set when it was given.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Session {
    /// `ASIA…`
    pub access_key_id: String,
    pub secret: String,
    /// `arn:aws:sts::000000000000:assumed-role/Name/Session`; of `GetSessionToken` the user's own.
    pub arn: String,
    /// `AROA…:Session`, or the user's own.
    pub user_id: String,
    pub issued: Time,
    pub expires: Time,
    /// The role's ARN with its path, of a session of a role.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role_arn: Option<String>,
    /// The policies that narrow this session: documents, and the text of managed ones as they were when it began.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<String>,
    /// Key and value, in the order of the keys.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<(String, String)>,
    /// Keys of `tags` that the next role's session takes over.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub transitive_tag_keys: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_identity: Option<String>,
    /// Further condition keys that hold for the whole session: `("oidc.eks…:sub", "system:serviceaccount:default:web")`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<(String, String)>,
}

/// What is known of an access key, whichever kind it is.
#[derive(Clone)]
pub struct Credential {
    pub secret: String,
    pub caller: Caller,
}

/// Why a key opens nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// No such key, one that was made inactive, or a token that is not ours or not this key's.
    Invalid,
    Expired,
}

/// Looks a key up. `token` is the session token that came with the call, if one did.
pub fn find(state: &Snapshot, id: &str, token: Option<&str>, now: Time) -> Result<Credential, Unknown> {
    if let Some(token) = token {
        let session =
            open(state, token).filter(|session| session.access_key_id == id).ok_or(Unknown::Invalid)?;
        if session.expires <= now {
            return Err(Unknown::Expired);
        }
        let caller = Caller {
            arn: session.arn.clone(),
            user_id: session.user_id.clone(),
            access_key_id: id.to_owned(),
            session: Some(Box::new(session.clone())),
            ..Caller::default()
        };
        return Ok(Credential { secret: session.secret, caller });
    }
    let key =
        state::get::<AccessKey>(state, "", id).filter(|key| key.record.is_active).ok_or(Unknown::Invalid)?;
    let AccessKey { arn, user_id, secret, .. } = key.record;
    Ok(Credential {
        secret,
        caller: Caller { arn, user_id, access_key_id: id.to_owned(), ..Caller::default() },
    })
}

/// The session token of a session. None if the account has no sealing key, which it has from its first moment.
pub fn seal(state: &Snapshot, session: &Session, ids: &mut Ids) -> Option<String> {
    let key = sealing_key(state)?;
    let mut nonce = [0; NONCE_LEN];
    nonce.copy_from_slice(&ids.bytes()[..NONCE_LEN]);
    let mut text = serde_json::to_vec(session).ok()?;
    key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut text).ok()?;
    Some(STANDARD.encode([&nonce[..], &text].concat()))
}

/// A session as the token service gives it: the members of `Credentials`.
pub fn issue(context: &mut Context, session: &Session) -> Result<Value, Fault> {
    let token = seal(context.state, session, context.ids)
        .ok_or_else(|| Fault::new("InternalFailure", "The account has no key to seal sessions with"))?;
    Ok(json!({
        "AccessKeyId": session.access_key_id, "SecretAccessKey": session.secret,
        "SessionToken": token, "Expiration": session.expires,
    }))
}

fn open(state: &Snapshot, token: &str) -> Option<Session> {
    let mut sealed = STANDARD.decode(token).ok()?;
    let (nonce, text) = sealed.split_at_mut_checked(NONCE_LEN)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
    let text = sealing_key(state)?.open_in_place(nonce, Aad::empty(), text).ok()?;
    serde_json::from_slice(text).ok()
}

fn sealing_key(state: &Snapshot) -> Option<LessSafeKey> {
    let kept = state::get::<SealingKey>(state, "", SEAL)?;
    let bytes = STANDARD.decode(kept.record.key).ok()?;
    Some(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &bytes).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Changes;

    fn account(changes: impl FnOnce(&mut Changes)) -> Snapshot {
        let mut all = Changes::default();
        all.create("", SEAL, &SealingKey { key: STANDARD.encode([9; 32]) });
        changes(&mut all);
        let mut state = Snapshot::default();
        all.apply(&mut state);
        state
    }

    fn session() -> Session {
        Session {
            access_key_id: "ASIAX".into(),
            secret: "s3".into(),
            arn: "arn:aws:sts::1:assumed-role/r/s".into(),
            expires: Time::from_secs(100),
            ..Session::default()
        }
    }

    #[test]
    fn a_session_is_what_its_token_says_until_it_expires() {
        let state = account(|_| ());
        let token = seal(&state, &session(), &mut Ids::new([1; 32])).expect("sealed");
        let find = |id: &str, token: &str, secs| {
            find(&state, id, Some(token), Time::from_secs(secs)).map(|one| one.caller.arn)
        };
        assert_eq!(find("ASIAX", &token, 99), Ok("arn:aws:sts::1:assumed-role/r/s".into()));
        assert_eq!(find("ASIAX", &token, 100), Err(Unknown::Expired));
        assert_eq!(find("ASIAY", &token, 1), Err(Unknown::Invalid));
        for (place, _) in token.char_indices().step_by(7) {
            let mut forged = token.clone().into_bytes();
            forged[place] = if forged[place] == b'A' { b'B' } else { b'A' };
            let forged = String::from_utf8(forged).expect("text");
            assert_eq!(find("ASIAX", &forged, 1), Err(Unknown::Invalid), "{place}");
        }
        for token in ["", "A", "!!", "QUFB"] {
            assert_eq!(find("ASIAX", token, 1), Err(Unknown::Invalid));
        }
    }

    #[test]
    fn a_users_key_needs_no_token_and_can_be_shut() {
        let key = |is_active| AccessKey {
            user_name: "admin".into(),
            arn: "arn:aws:iam::1:user/admin".into(),
            user_id: "AIDAX".into(),
            secret: "s".into(),
            is_active,
            created: Time::default(),
        };
        let state = account(|all| {
            all.create("", "AKIAX", &key(true));
            all.create("", "AKIAY", &key(false));
        });
        assert!(find(&state, "AKIAX", None, Time::default()).is_ok());
        assert_eq!(find(&state, "AKIAY", None, Time::default()).err(), Some(Unknown::Invalid));
        assert_eq!(find(&state, "AKIAZ", None, Time::default()).err(), Some(Unknown::Invalid));
    }
}
