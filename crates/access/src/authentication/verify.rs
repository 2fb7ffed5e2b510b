use std::collections::BTreeMap;

use object::Time;
use plan::User;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::mapping::{About, ClaimRule, Mapping};
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

/// What a token says whose signature holds, and that is for this API server and in force.
#[derive(Clone, Debug, PartialEq)]
pub struct Claims(Map<String, Value>);

/// A claim that a token does not hold itself: OpenID Connect Core 1.0, 5.6.2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Elsewhere {
    claim: String,
    /// Where to ask for a token that holds it, and with which bearer token.
    pub endpoint: String,
    pub access_token: Option<String>,
}

#[derive(Deserialize)]
struct Source {
    #[serde(default)]
    endpoint: String,
    #[serde(default)]
    access_token: String,
}

impl Issuer {
    /// The claims of a token of this issuer. `keys` are the issuer's as far as they are known.
    ///
    /// Verified as OpenID Connect Core 1.0, 3.1.3.7 says.
    pub fn claims(&self, keys: &KeySet, token: &str, now: Time) -> Result<Claims, Refused> {
        self.claims_of(&self.url, keys, token, now).map(Claims)
    }

    /// Where the groups are kept, if the token only says where. Of other claims nobody is asked, as upstream has it.
    pub fn elsewhere(&self, Claims(claims): &Claims) -> Result<Option<Elsewhere>, AccessError> {
        let wrong =
            |why: String| AccessError::Oidc(format!("oidc: could not expand distributed claims: {why}"));
        let Some(Mapping::Claim { name: claim, .. }) = &self.groups else { return Ok(None) };
        let Some(names) = claims.get("_claim_names").filter(|_| !claims.contains_key(claim)) else {
            return Ok(None);
        };
        let names: BTreeMap<String, String> = BTreeMap::deserialize(names)
            .map_err(|error| wrong(format!("oidc: error parsing distributed claim names: {error}")))?;
        let sources =
            claims.get("_claim_sources").ok_or_else(|| wrong("oidc: no claim sources".to_owned()))?;
        let sources: BTreeMap<String, Source> = BTreeMap::deserialize(sources)
            .map_err(|error| wrong(format!("oidc: could not parse claim sources: {error}")))?;
        let Some(name) = names.get(claim) else { return Ok(None) };
        let Some(Source { endpoint, access_token }) = sources.get(name) else {
            let why = format!("id token _claim_names contained a source {name} missing in _claims_sources");
            return Err(wrong(why));
        };
        let access_token = Some(access_token).filter(|token| !token.is_empty()).cloned();
        let found = Elsewhere { claim: claim.clone(), endpoint: endpoint.clone(), access_token };
        Ok(Some(found).filter(|found| !found.endpoint.is_empty()))
    }

    /// Puts in the claim that an endpoint answered with, in a token of its own: signed by `issuer`, whose `keys` these are, and for the same
    /// audiences.
    pub fn resolve(
        &self,
        claims: &mut Claims,
        elsewhere: &Elsewhere,
        (issuer, keys): (&str, &KeySet),
        token: &str,
        now: Time,
    ) -> Result<(), Refused> {
        let Elsewhere { claim, endpoint, .. } = elsewhere;
        let mut told = self.claims_of(issuer, keys, token, now)?;
        let value = told.remove(claim).ok_or_else(|| {
            refused(format!(
                "oidc: could not expand distributed claims: jwt returned by distributed claim endpoint {endpoint:?} did not contain claim: {claim}"
            ))
        })?;
        claims.0.insert(claim.clone(), value);
        Ok(())
    }

    fn claims_of(
        &self,
        issuer: &str,
        keys: &KeySet,
        token: &str,
        now: Time,
    ) -> Result<Map<String, Value>, Refused> {
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
        self.valid(issuer, &claims, now).map_err(|why| refused(format!("oidc: verify token: {why}")))?;
        Ok(claims)
    }

    /// The user that the configuration makes of claims.
    pub fn user(&self, Claims(claims): Claims) -> Result<User, AccessError> {
        self.mapped(claims).map_err(|why| AccessError::Oidc(format!("oidc: {why}")))
    }

    fn valid(&self, issuer: &str, claims: &Map<String, Value>, now: Time) -> Result<(), String> {
        let told = claims.get("iss").and_then(Value::as_str).unwrap_or_default();
        if told != issuer {
            return Err(format!(
                "oidc: id token issued by a different provider, expected {issuer:?} got {told:?}"
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
