//! The tokens with which `kubectl` logs in to a cluster: a presigned `GetCallerIdentity` that names the cluster.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use object::{Snapshot, Time};

use super::{Message, Scope, Signature, verify};
use crate::Caller;
use crate::wire::percent;

const PREFIX: &str = "k8s-aws-v1.";
const LENGTH_LIMIT: usize = 4_096;
/// Seconds that `X-Amz-Expires` may say.
const EXPIRES_LIMIT: i64 = 900;
/// The header that ties a token to one cluster.
const CLUSTER_HEADER: &str = "x-k8s-aws-id";

/// The parameters that a token's URL may have, and no others.
const PARAMETERS: &[&str] = &[
    "action",
    "version",
    "x-amz-algorithm",
    "x-amz-credential",
    "x-amz-date",
    "x-amz-expires",
    "x-amz-security-token",
    "x-amz-signature",
    "x-amz-signedheaders",
];

/// Why a token is not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenError {
    /// It is none of these tokens: another authenticator may know it.
    NotOurs,
    /// It is one, and it is refused.
    Refused(String),
}

/// Whose token it is, for the cluster of this name or id. The rules are those of aws-iam-authenticator (`pkg/token`), but the signature is
/// verified here, over whatever host was signed: nothing is called.
pub fn cluster_token(
    state: &Snapshot,
    now: Time,
    regions: &[&str],
    cluster: &str,
    token: &str,
) -> Result<Caller, TokenError> {
    let refused = |why: &str| TokenError::Refused(why.to_owned());
    let encoded = token.strip_prefix(PREFIX).ok_or(TokenError::NotOurs)?;
    if token.len() > LENGTH_LIMIT {
        return Err(refused("token is too large"));
    }
    let url = URL_SAFE_NO_PAD
        .decode(encoded.trim_end_matches('='))
        .ok()
        .and_then(|url| String::from_utf8(url).ok());
    let url = url.ok_or_else(|| refused("token is not base64 of a URL"))?;
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    let (place, query) = rest
        .and_then(|rest| rest.split_once('?'))
        .ok_or_else(|| refused("unexpected scheme in pre-signed URL"))?;
    let (host, path) = place.split_once('/').unwrap_or((place, ""));
    if !path.is_empty() {
        return Err(refused("unexpected path in pre-signed URL"));
    }
    check_parameters(query)?;
    let headers = vec![("host".to_owned(), host.to_owned()), (CLUSTER_HEADER.to_owned(), cluster.to_owned())];
    let message = Message { method: "GET", path: "/", query, headers, body: b"" };
    let signature = Signature::of(&message).map_err(|fault| TokenError::Refused(fault.message))?;
    let signature = signature.ok_or_else(|| refused("URL is not signed"))?;
    if !signature.signed_headers.iter().any(|name| name == CLUSTER_HEADER) {
        return Err(refused("client did not sign the x-k8s-aws-id header in the pre-signed URL"));
    }
    if signature.expires.is_none_or(|seconds| seconds > EXPIRES_LIMIT) {
        return Err(refused("invalid X-Amz-Expires parameter in pre-signed URL"));
    }
    let scope = Scope { service: "sts", regions };
    verify(state, now, &scope, &message, &signature).map_err(|fault| TokenError::Refused(fault.message))
}

fn check_parameters(query: &str) -> Result<(), TokenError> {
    let refused = |why: String| Err(TokenError::Refused(why));
    let Some(pairs) = percent::pairs(query) else { return refused("query parameters are malformed".into()) };
    let mut seen: Vec<String> = Vec::new();
    for (name, value) in pairs {
        let name = name.to_ascii_lowercase();
        if !PARAMETERS.contains(&name.as_str()) {
            return refused(format!("non-whitelisted query parameter {name:?}"));
        }
        if seen.contains(&name) {
            return refused(format!("query parameter with multiple values not supported: {name:?}"));
        }
        if name == "action" && value != "GetCallerIdentity" {
            return refused("unexpected action parameter in pre-signed URL".into());
        }
        seen.push(name);
    }
    if seen.iter().any(|name| name == "action") {
        Ok(())
    } else {
        refused("there is no action in the pre-signed URL".into())
    }
}
