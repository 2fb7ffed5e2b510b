//! Signatures, version 4: who signed a message, and whether they did.
//!
//! ```text
//! Signature::of(message)   what the message claims: a key, a scope, a time, the headers it covers
//! verify(…)                scope and time first, then the key, then the signature itself
//! ```
//!
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv.html>. The calculation is a few lines on digests that we have anyway; the
//! library for it (`aws-sigv4`) brings a second HTTP stack.

mod canonical;
mod claim;
mod sign;
mod token;

use object::{Snapshot, Time};
use ring::hmac::{self, HMAC_SHA256};

pub use canonical::Message;
pub use claim::Signature;
pub use sign::{Key, sign};
pub use token::{TokenError, cluster_token};

use crate::credentials::{self, Unknown};
use crate::{Caller, Fault};

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const TERMINATOR: &str = "aws4_request";
/// How far a clock may be off.
const SKEW_MINUTES: i64 = 5;
/// How long a presigned URL may live.
const EXPIRES_LIMIT: i64 = 604_800;
/// The token service gives its own presigned calls this long, whatever they say.
const TOKEN_SERVICE_MINUTES: i64 = 15;

/// What a signature is checked against.
pub struct Scope<'a> {
    pub service: &'a str,
    /// The account's region, and for global services also that of their one endpoint.
    pub regions: &'a [&'a str],
}

/// Whether a message was signed by the holder of the key that it names, for this service here, now.
pub fn verify(
    state: &Snapshot,
    now: Time,
    scope: &Scope,
    message: &Message,
    signature: &Signature,
) -> Result<Caller, Fault> {
    check_scope(scope, signature)?;
    check_time(now, scope, signature)?;
    check_headers(message, signature)?;
    let id = &signature.access_key_id;
    let known = credentials::find(state, id, signature.token.as_deref(), now).map_err(refused)?;
    if !is_signed_with(&known.secret, message, signature)? {
        return Err(mismatch(
            "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method. Consult the service documentation for details.",
        ));
    }
    Ok(known.caller)
}

fn mismatch(message: impl Into<String>) -> Fault {
    Fault::new("SignatureDoesNotMatch", message)
}

fn refused(unknown: Unknown) -> Fault {
    match unknown {
        Unknown::Invalid => {
            Fault::new("InvalidClientTokenId", "The security token included in the request is invalid.")
        }
        Unknown::Expired => {
            Fault::new("ExpiredToken", "The security token included in the request is expired")
        }
    }
}

fn check_scope(scope: &Scope, signature: &Signature) -> Result<(), Fault> {
    if signature.terminator != TERMINATOR {
        let text = format!(
            "Credential should be scoped with a valid terminator: '{TERMINATOR}', not '{}'.",
            signature.terminator
        );
        return Err(mismatch(text));
    }
    if signature.service != scope.service {
        return Err(mismatch(format!(
            "Credential should be scoped to correct service: '{}'. ",
            scope.service
        )));
    }
    if !scope.regions.contains(&signature.region.as_str()) {
        return Err(mismatch(format!(
            "Credential should be scoped to a valid region, not '{}'. This account is in {}.",
            signature.region,
            scope.regions.first().unwrap_or(&"no region")
        )));
    }
    if !signature.time_text.starts_with(&signature.date) {
        return Err(mismatch(format!(
            "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: '{}' != '{}', from '{}'.",
            signature.date,
            signature.time_text.get(..8).unwrap_or_default(),
            signature.time_text
        )));
    }
    Ok(())
}

fn check_time(now: Time, scope: &Scope, signature: &Signature) -> Result<(), Fault> {
    let given = &signature.time_text;
    let expired = |text: String| Fault::new("SignatureExpired", text);
    let (earliest, latest) = (now.plus_secs(-SKEW_MINUTES * 60), now.plus_secs(SKEW_MINUTES * 60));
    if signature.time > latest {
        let (latest, now) = (basic(latest), basic(now));
        return Err(expired(format!(
            "Signature not yet current: {given} is still later than {latest} ({now} + {SKEW_MINUTES} min.)"
        )));
    }
    let Some(seconds) = signature.expires else {
        if signature.time >= earliest {
            return Ok(());
        }
        let (earliest, now) = (basic(earliest), basic(now));
        return Err(expired(format!(
            "Signature expired: {given} is now earlier than {earliest} ({now} - {SKEW_MINUTES} min.)"
        )));
    };
    let seconds = if scope.service == "sts" { TOKEN_SERVICE_MINUTES * 60 } else { seconds };
    let end = signature.time.plus_secs(seconds);
    if now <= end {
        return Ok(());
    }
    Err(expired(format!("Signature expired: {} is now earlier than {}", basic(end), basic(now))))
}

/// `20261123T042243Z`
fn basic(time: Time) -> String {
    time.to_string().replace(['-', ':'], "")
}

/// What names the host or steers the call must be under the signature.
fn check_headers(message: &Message, signature: &Signature) -> Result<(), Fault> {
    let is_signed = |name: &str| signature.signed_headers.iter().any(|signed| signed == name);
    if !is_signed("host") && !is_signed(":authority") {
        return Err(mismatch("'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization."));
    }
    let steering =
        message.headers.iter().map(|(name, _)| name.as_str()).filter(|name| name.starts_with("x-amz-"));
    match steering.into_iter().find(|name| !is_signed(name)) {
        Some(name) => Err(mismatch(format!("'{name}' must be a 'SignedHeader' in the AWS Authorization."))),
        None => Ok(()),
    }
}

fn is_signed_with(secret: &str, message: &Message, claim: &Signature) -> Result<bool, Fault> {
    let Some(given) = unhex(&claim.signature) else { return Ok(false) };
    let (key, text) = to_sign(secret, message, claim)?;
    // Compares in constant time.
    Ok(hmac::verify(&key, text.as_bytes(), &given).is_ok())
}

/// The signature that a message should have.
fn signature(secret: &str, message: &Message, claim: &Signature) -> Result<hmac::Tag, Fault> {
    let (key, text) = to_sign(secret, message, claim)?;
    Ok(hmac::sign(&key, text.as_bytes()))
}

/// The key and the text that are signed.
fn to_sign(secret: &str, message: &Message, claim: &Signature) -> Result<(hmac::Key, String), Fault> {
    let Signature { date, region, service, time_text, .. } = claim;
    let request = canonical::request(message, claim)?;
    let digest = canonical::sha256(request.as_bytes());
    let text = format!("{ALGORITHM}\n{time_text}\n{date}/{region}/{service}/{TERMINATOR}\n{digest}");
    Ok((signing_key(secret, date, region, service), text))
}

fn signing_key(secret: &str, date: &str, region: &str, service: &str) -> hmac::Key {
    let first = hmac::Key::new(HMAC_SHA256, format!("AWS4{secret}").as_bytes());
    [date, region, service, TERMINATOR]
        .into_iter()
        .fold(first, |key, part| hmac::Key::new(HMAC_SHA256, hmac::sign(&key, part.as_bytes()).as_ref()))
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

#[cfg(test)]
pub(crate) mod tests;
