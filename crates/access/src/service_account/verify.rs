use object::{Key, Object, Resource, Snapshot, Time};
use plan::User;
use serde::Deserialize;

use super::claims::{Claims, ObjectClaim};
use super::legacy::{self, SecretUse};
use super::{Authority, jwt};
use crate::{AccessError, groups, jws};
use kinds::{NODES, PODS, SECRETS, SERVICE_ACCOUNTS};

/// A pod's token holds this long after its deletion was due, so that it can still clean up.
const DELETED_GRACE_SECONDS: i64 = 60;

/// Who a token stands for, and which of the audiences asked for it was made for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub user: User,
    pub audiences: Vec<Box<str>>,
    /// Of a token that lives longer than was asked for: for how many seconds it should have been renewed; not above zero: not yet.
    pub renewed_late_secs: Option<i64>,
    /// Of a token that stands in a Secret.
    pub secret: Option<SecretUse>,
}

#[derive(Deserialize)]
struct Issuer {
    iss: String,
}

impl Authority {
    /// Checks a token's signature, times, audiences, and that the account and what it is bound to still exist.
    ///
    /// [`AccessError::Unrecognized`]: not a JWT, or another issuer's.
    pub fn verify(
        &self,
        snapshot: &Snapshot,
        token: &str,
        audiences: &[&str],
        now: Time,
    ) -> Result<Identity, AccessError> {
        let parsed = jws::parse(token).ok_or(AccessError::Unrecognized)?;
        let issuer: Issuer =
            serde_json::from_slice(&parsed.payload).map_err(|_| AccessError::Unrecognized)?;
        let is_legacy = issuer.iss == legacy::ISSUER;
        if !is_legacy && issuer.iss != self.issuer && !self.accepted_issuers.contains(&issuer.iss) {
            return Err(AccessError::Unrecognized);
        }
        if !jwt::is_signed(&parsed, self.verifying_keys()) {
            return Err(refused("the signature is of none of the keys"));
        }
        if is_legacy {
            return self.verify_legacy(snapshot, (token, &parsed.payload), audiences, now);
        }
        let claims: Claims =
            serde_json::from_slice(&parsed.payload).map_err(|error| refused(format!("claims: {error}")))?;
        timely(&claims, now)?;
        let audiences = for_audiences(claims.aud.all(), audiences)?;
        bound(&claims, snapshot, now)?;
        let renewed_by = claims.kubernetes.warnafter.filter(|after| *after != 0);
        let renewed_late_secs = renewed_by.map(|after| now.as_secs() - after);
        Ok(Identity { user: bound_user(&claims), audiences, renewed_late_secs, secret: None })
    }
}

/// Those of the audiences asked for that a token was made for.
pub(super) fn for_audiences(held: &[String], asked: &[&str]) -> Result<Vec<Box<str>>, AccessError> {
    let common = asked.iter().filter(|asked| held.iter().any(|held| held == **asked));
    let common: Vec<Box<str>> = common.map(|&asked| asked.into()).collect();
    if common.is_empty() {
        return Err(refused(format!("token audiences {held:?} is invalid for the target audiences")));
    }
    Ok(common)
}

fn timely(claims: &Claims, now: Time) -> Result<(), AccessError> {
    if now.as_secs() >= claims.exp {
        return Err(refused("service account token has expired"));
    }
    if now.as_secs() < claims.nbf {
        return Err(refused("service account token is not valid yet"));
    }
    Ok(())
}

fn bound(claims: &Claims, snapshot: &Snapshot, now: Time) -> Result<(), AccessError> {
    let held = &claims.kubernetes;
    let expected = format!("system:serviceaccount:{}:{}", held.namespace, held.serviceaccount.name);
    if claims.sub != expected {
        return Err(refused("the subject is not the account"));
    }
    alive(snapshot, SERVICE_ACCOUNTS, &held.namespace, &held.serviceaccount, now)?;
    if let Some(secret) = &held.secret {
        alive(snapshot, SECRETS, &held.namespace, secret, now)?;
    }
    match (&held.pod, &held.node) {
        // The node of a pod's token is a fact about the pod when it was made; only the pod must live.
        (Some(pod), _) => alive(snapshot, PODS, &held.namespace, pod, now),
        (None, Some(node)) => alive(snapshot, NODES, "", node, now),
        (None, None) => Ok(()),
    }
}

fn alive(
    snapshot: &Snapshot,
    resource: Resource,
    namespace: &str,
    claim: &ObjectClaim,
    now: Time,
) -> Result<(), AccessError> {
    let key = Key::new(resource, namespace, claim.name.as_str());
    let Some(object) = snapshot.get(&key) else { return Err(refused(format!("{key} has been deleted"))) };
    if *object.meta.uid != *claim.uid {
        return Err(refused(format!(
            "{key}: UID ({}) does not match claim ({})",
            object.meta.uid, claim.uid
        )));
    }
    if is_gone(object, now) {
        return Err(refused(format!("{key} has been deleted")));
    }
    Ok(())
}

fn is_gone(object: &Object, now: Time) -> bool {
    object.meta.deletion_timestamp.is_some_and(|at| now > at.plus_secs(DELETED_GRACE_SECONDS))
}

/// The user that an account stands for.
pub(super) fn user(namespace: &str, account: &ObjectClaim) -> User {
    let name = format!("system:serviceaccount:{namespace}:{}", account.name);
    let namespace_group = format!("{}:{namespace}", groups::SERVICE_ACCOUNTS);
    let mut user = User::new(name, &[groups::SERVICE_ACCOUNTS, &namespace_group, groups::AUTHENTICATED]);
    user.uid = account.uid.as_str().into();
    user
}

fn bound_user(claims: &Claims) -> User {
    let held = &claims.kubernetes;
    let mut user = user(&held.namespace, &held.serviceaccount);
    let mut extra = |name: &str, value: &str| {
        user.extra.insert(format!("authentication.kubernetes.io/{name}").into(), vec![value.into()]);
    };
    if !claims.jti.is_empty() {
        extra("credential-id", &format!("JTI={}", claims.jti));
    }
    if let Some(pod) = &held.pod {
        extra("pod-name", &pod.name);
        extra("pod-uid", &pod.uid);
    }
    if let Some(node) = &held.node {
        extra("node-name", &node.name);
        extra("node-uid", &node.uid);
    }
    user
}

pub(super) fn refused(why: impl Into<String>) -> AccessError {
    AccessError::ServiceAccountToken(why.into())
}
