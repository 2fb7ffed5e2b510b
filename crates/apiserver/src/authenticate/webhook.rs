//! Tokens that somebody else knows: `authentication.k8s.io/v1` TokenReview, posted to a webhook.
//! <https://kubernetes.io/docs/reference/access-authn-authz/authentication/#webhook-token-authentication>

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use access::AccessError;
use access::service_account::Identity;
use plan::User;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::digest;
use super::verified::MOST_TOKENS;
use crate::connection::Connection;
use crate::dial::Dial;
use crate::recent::Recent;

/// How long the webhook may take: upstream's limit for one try.
const LIMIT: Duration = Duration::from_secs(30);
/// How long its answers hold: the default of `--authentication-token-webhook-cache-ttl`.
const TTL: Duration = Duration::from_secs(120);
/// A token that nobody knows may be made known any moment.
const REFUSED_TTL: Duration = Duration::from_secs(10);
/// Questions on their way at once: strangers may ask as much as they like.
const MOST_CALLS: usize = 64;

/// Where tokens are asked about that nobody here knows.
pub struct TokenWebhook {
    pub connection: Connection,
    pub dial: Dial,
}

type Answer = Result<Identity, AccessError>;

/// A webhook with what it answered lately, by the digests of tokens and audiences.
pub(crate) struct Reviewer {
    webhook: TokenWebhook,
    known: Mutex<Recent<[u8; 32], (Instant, Answer)>>,
    calls: Semaphore,
}

#[derive(Deserialize)]
struct Review {
    #[serde(default)]
    status: Status,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    authenticated: bool,
    user: UserInfo,
    audiences: Vec<String>,
    error: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct UserInfo {
    username: String,
    uid: String,
    groups: Vec<String>,
    extra: BTreeMap<Box<str>, Vec<Box<str>>>,
}

impl Reviewer {
    pub(crate) fn new(webhook: TokenWebhook) -> Self {
        let known = Mutex::new(Recent::new(MOST_TOKENS));
        Self { webhook, known, calls: Semaphore::new(MOST_CALLS) }
    }

    /// Who carries this token, for which of the audiences asked for. `own` are those of this API server: a webhook that says none means them.
    pub(crate) async fn ask(&self, token: &str, asked: &[&str], own: &[String]) -> Answer {
        let key = digest(&question(token, asked));
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if let Some((until, answer)) = known
            && Instant::now() < until
        {
            return answer;
        }
        let called = tokio::time::timeout(LIMIT, self.calls.acquire()).await;
        let Ok(Ok(_call)) = called else {
            return Err(AccessError::Webhook("too many tokens are being asked about".to_owned()));
        };
        let review = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "metadata": {},
            "spec": {"token": token, "audiences": asked},
        });
        let failed = |why: String| AccessError::Webhook(why);
        let answered =
            self.webhook.connection.post(&self.webhook.dial, &review, LIMIT).await.map_err(failed)?;
        let answer = read(answered, asked, own);
        let until = Instant::now() + if answer.is_ok() { TTL } else { REFUSED_TTL };
        self.known.lock().unwrap_or_else(PoisonError::into_inner).put(key, (until, answer.clone()));
        answer
    }
}

/// A token and audiences as one text that no others have: each part has its length before it.
fn question(token: &str, asked: &[&str]) -> String {
    [token].iter().chain(asked).map(|part| format!("{}:{part}", part.len())).collect()
}

fn read(answered: Value, asked: &[&str], own: &[String]) -> Answer {
    let Review { status } = serde_json::from_value(answered)
        .map_err(|error| AccessError::Webhook(format!("the answer is no TokenReview: {error}")))?;
    let held = if status.audiences.is_empty() { own } else { &status.audiences };
    let audiences: Vec<Box<str>> = asked
        .iter()
        .filter(|asked| held.iter().any(|held| held == **asked))
        .map(|&asked| asked.into())
        .collect();
    if audiences.is_empty() {
        return Err(AccessError::Unrecognized);
    }
    if !status.authenticated {
        let error = status.error;
        return Err(if error.is_empty() { AccessError::Unrecognized } else { AccessError::Webhook(error) });
    }
    let groups: Vec<&str> = status.user.groups.iter().map(String::as_str).collect();
    let mut user = User::new(status.user.username, &groups);
    user.uid = status.user.uid.into();
    user.extra = status.user.extra;
    if !user.is_in(access::groups::AUTHENTICATED) {
        user.groups.push(access::groups::AUTHENTICATED.into());
    }
    Ok(Identity { user, audiences, renewed_late_secs: None, secret: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_questions_are_one() {
        assert_eq!(question("a", &["b", "cd"]), "1:a1:b2:cd");
        assert_ne!(question("a\0b", &["c"]), question("a", &["b", "c"]));
        assert_ne!(question("a", &["b\0c"]), question("a", &["b", "c"]));
    }

    #[test]
    fn what_a_webhook_answers() {
        let own = ["api".to_owned()];
        let check = |status: Value, asked: &[&str], expected: Result<&str, &str>| {
            let found = read(json!({"status": status}), asked, &own);
            let found = found.map(|found| {
                let groups = found.user.groups.join(",");
                format!("{} [{groups}] for {}", found.user.name, found.audiences.join(","))
            });
            let found = found.as_deref().map_err(ToString::to_string);
            assert_eq!(found, expected.map_err(str::to_owned), "{status} for {asked:?}");
        };
        let jane = json!({"username": "jane", "groups": ["devs"]});
        let authenticated = json!({"authenticated": true, "user": jane});
        check(authenticated.clone(), &["api"], Ok("jane [devs,system:authenticated] for api"));
        check(authenticated.clone(), &["other"], Err("not a credential of this kind"));
        let narrowed = json!({"authenticated": true, "user": jane, "audiences": ["other"]});
        check(narrowed.clone(), &["other", "third"], Ok("jane [devs,system:authenticated] for other"));
        check(narrowed, &["api"], Err("not a credential of this kind"));
        check(json!({"authenticated": false}), &["api"], Err("not a credential of this kind"));
        check(json!({"error": "expired"}), &["api"], Err("expired"));
    }
}
