//! Tokens of identity providers: RFC 7519 signed with ES256 or RS256, checked with keys as RFC 7517 writes them.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use object::{Resource, Snapshot, Time};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::state::{self, Record};

/// The public keys of an issuer of this site, written by whoever runs it: nothing is fetched to check a token. The record's name is
/// [`key_of`] the issuer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Issuer {
    /// As the tokens say it: `https://oidc.eks.us-east-1.amazonaws.com/id/0123…`
    pub url: String,
    /// A key set: `{"keys": […]}`
    pub jwks: Value,
}

impl Record for Issuer {
    const RESOURCE: Resource = Resource::new("issuers.sts");
}

/// How an issuer is found: its host and path, without scheme and port.
pub fn key_of(url: &str) -> String {
    let rest = url.strip_prefix("https://").unwrap_or(url).trim_end_matches('/');
    let (host, path) = rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash));
    let host = host.rsplit_once(':').map_or(host, |(host, _)| host);
    format!("{host}{path}").to_ascii_lowercase()
}

/// The keys of an issuer, if it is one of this site.
pub fn keys_of(state: &Snapshot, url: &str) -> Option<Value> {
    Some(state::get::<Issuer>(state, "", &key_of(url))?.record.jwks)
}

/// What a token claims; nothing is believed before [`Token::is_signed`].
#[derive(Clone, Debug, Deserialize)]
pub struct Claims {
    pub iss: String,
    #[serde(default)]
    pub sub: String,
    #[serde(default)]
    aud: Audience,
    exp: i64,
    #[serde(default)]
    nbf: i64,
    /// What a cluster's token says about its pod.
    #[serde(default, rename = "kubernetes.io")]
    pub kubernetes: Kubernetes,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
    #[default]
    None,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Kubernetes {
    pub namespace: String,
    pub serviceaccount: Named,
    pub pod: Named,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Named {
    pub name: String,
    pub uid: String,
}

/// A token that was read.
pub struct Token<'a> {
    pub claims: Claims,
    algorithm: String,
    key_id: String,
    /// Header and payload, as they are signed.
    signed: &'a str,
    signature: Vec<u8>,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: String,
}

impl<'a> Token<'a> {
    pub fn read(text: &'a str) -> Option<Self> {
        let (signed, signature) = text.rsplit_once('.')?;
        let (header, payload) = signed.split_once('.')?;
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).ok();
        let header: Header = serde_json::from_slice(&decode(header)?).ok()?;
        let claims = serde_json::from_slice(&decode(payload)?).ok()?;
        let signature = decode(signature)?;
        Some(Self { claims, algorithm: header.alg, key_id: header.kid, signed, signature })
    }

    /// Is it signed by one of these keys? `None` if none of them is the one it names.
    pub fn is_signed(&self, jwks: &Value) -> Option<bool> {
        let keys = jwks["keys"].as_array().into_iter().flatten();
        let mut named = keys.filter(|key| key["kid"] == self.key_id.as_str()).peekable();
        named.peek()?;
        Some(named.any(|key| self.is_signed_by(key).unwrap_or(false)))
    }

    fn is_signed_by(&self, key: &Value) -> Option<bool> {
        let part = |name: &str| URL_SAFE_NO_PAD.decode(key[name].as_str()?).ok();
        let message = self.signed.as_bytes();
        // The key says which algorithm is its own; the token may not choose another.
        match (key["kty"].as_str()?, self.algorithm.as_str()) {
            ("EC", "ES256") if key["crv"] == "P-256" => {
                let point = [&[4][..], &part("x")?, &part("y")?].concat();
                let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point);
                Some(key.verify(message, &self.signature).is_ok())
            }
            ("RSA", "RS256") => {
                let key = RsaPublicKeyComponents { n: part("n")?, e: part("e")? };
                Some(key.verify(&RSA_PKCS1_2048_8192_SHA256, message, &self.signature).is_ok())
            }
            _ => None,
        }
    }
}

impl Claims {
    pub fn audiences(&self) -> Vec<&str> {
        match &self.aud {
            Audience::One(one) => vec![one],
            Audience::Many(many) => many.iter().map(String::as_str).collect(),
            Audience::None => Vec::new(),
        }
    }

    /// When it expires, in seconds since the epoch, if that is not ahead.
    pub fn expired(&self, now: Time) -> Option<i64> {
        (self.exp <= now.as_secs()).then_some(self.exp)
    }

    pub fn is_early(&self, now: Time) -> bool {
        self.nbf > now.as_secs()
    }
}
