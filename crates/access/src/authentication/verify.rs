use object::Time;
use plan::User;
use serde_json::{Map, Value};

use super::mapping::{About, ClaimRule};
use super::{Issuer, KeySet, jwk};
use crate::review::user_info;
use crate::{AccessError, groups, jws};

/// How far an issuer's clock may be ahead of ours: a token is believed so much before its `nbf`.
const NOT_BEFORE_LEEWAY_SECONDS: i64 = 5 * 60;

/// Why a token is not believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// None of the keys signed it: the issuer may have newer ones.
    Signature,
    Because(AccessError),
}

fn refused(why: impl Into<String>) -> Refused {
    Refused::Because(AccessError::Oidc(why.into()))
}

impl Issuer {
    /// The user of a token of this issuer. `keys` are the issuer's as far as they are known.
    ///
    /// Verified as OpenID Connect Core 1.0, 3.1.3.7 says, and then by the rules of the configuration.
    pub fn user(&self, keys: &KeySet, token: &str, now: Time) -> Result<User, Refused> {
        let parsed = jws::parse(token).ok_or_else(|| refused("oidc: malformed jwt"))?;
        if !jwk::is_known(&parsed.header.alg) {
            let algorithm = &parsed.header.alg;
            return Err(refused(format!(
                "oidc: verify token: oidc: id token signed with unsupported algorithm {algorithm:?}"
            )));
        }
        if !keys.verifies(&parsed) {
            return Err(Refused::Signature);
        }
        let claims: Map<String, Value> = serde_json::from_slice(&parsed.payload)
            .map_err(|error| refused(format!("oidc: parse claims: {error}")))?;
        self.valid(&claims, now).map_err(|why| refused(format!("oidc: verify token: {why}")))?;
        self.mapped(claims).map_err(|why| refused(format!("oidc: {why}")))
    }

    fn valid(&self, claims: &Map<String, Value>, now: Time) -> Result<(), String> {
        let issuer = claims.get("iss").and_then(Value::as_str).unwrap_or_default();
        if issuer != self.url {
            return Err(format!(
                "oidc: id token issued by a different provider, expected {:?} got {issuer:?}",
                self.url
            ));
        }
        let held: Vec<&str> = match claims.get("aud") {
            Some(Value::String(one)) => vec![one],
            Some(Value::Array(all)) => all.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        if !self.audiences.iter().any(|wanted| held.contains(&wanted.as_str())) {
            return Err(format!("oidc: expected audience in {:?} got {held:?}", self.audiences));
        }
        match seconds(claims, "exp")? {
            Some(expires) if now.as_secs() < expires => {}
            Some(expires) => {
                let expires = Time::from_secs(expires);
                return Err(format!("oidc: token is expired (Token Expiry: {expires})"));
            }
            None => return Err("oidc: token is expired: it has no exp".to_owned()),
        }
        match seconds(claims, "nbf")? {
            Some(begins) if now.as_secs().saturating_add(NOT_BEFORE_LEEWAY_SECONDS) < begins => {
                let begins = Time::from_secs(begins);
                Err(format!("oidc: current time {now} before the nbf (not before) time: {begins}"))
            }
            _ => Ok(()),
        }
    }

    fn mapped(&self, claims: Map<String, Value>) -> Result<User, String> {
        if self.username.is_unverified_email(&claims) {
            return Err("email not verified".to_owned());
        }
        let claims = Value::Object(claims);
        let about =
            |part: &'static str| move |why: String| format!("error evaluating {part} claim mapping: {why}");
        let name = self.username.text(&claims).map_err(about("username"))?;
        if name.is_empty() {
            return Err("username claim mapping: the name must not be empty".to_owned());
        }
        let mut user = User::new(name, &[]);
        if let Some(groups) = &self.groups {
            let all = groups.texts(&claims).map_err(about("groups"))?;
            user.groups = all.into_iter().filter(|group| !group.is_empty()).map(Into::into).collect();
        }
        if let Some(uid) = &self.uid {
            user.uid = uid.text(&claims).map_err(about("uid"))?.into();
        }
        for extra in &self.extra {
            let values = extra.value.texts(&claims).map_err(about("extra"))?;
            if !values.is_empty() {
                user.extra.insert(extra.key.as_str().into(), values.into_iter().map(Into::into).collect());
            }
        }
        for rule in &self.claim_rules {
            rule.check(&claims)?;
        }
        let seen = user_info(&user);
        for rule in &self.user_rules {
            if !rule.expression.holds(About::User, &seen)? {
                let text = &rule.expression.text;
                return Err(format!(
                    "error evaluating user info validation rule: {}",
                    said(text, &rule.message)
                ));
            }
        }
        if !user.is_in(groups::AUTHENTICATED) {
            user.groups.push(groups::AUTHENTICATED.into());
        }
        Ok(user)
    }
}

impl ClaimRule {
    fn check(&self, claims: &Value) -> Result<(), String> {
        match self {
            Self::Value { claim, required } => match claims.get(claim) {
                None => Err(format!("required claim {claim} not present in ID token")),
                Some(Value::String(held)) if held == required => Ok(()),
                Some(Value::String(held)) => Err(format!(
                    "required claim {claim} value does not match. Got = {held}, want = {required}"
                )),
                Some(_) => Err(format!("parse claim {claim}: it is no string")),
            },
            Self::Expression { expression, message } => {
                if expression.holds(About::Claims, claims)? {
                    return Ok(());
                }
                Err(format!(
                    "error evaluating claim validation expression: {}",
                    said(&expression.text, message)
                ))
            }
        }
    }
}

fn said(expression: &str, message: &str) -> String {
    format!("validation expression '{expression}' failed: {message}")
}

/// A `NumericDate`, which may have a fraction: RFC 7519, 2.
fn seconds(claims: &Map<String, Value>, name: &str) -> Result<Option<i64>, String> {
    match claims.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Number(number)) => {
            Ok(number.as_i64().or_else(|| number.as_f64().map(|seconds| seconds as i64)))
        }
        Some(_) => Err(format!("oidc: {name} is no number")),
    }
}
