//! JSON Web Signatures in their compact form: RFC 7515. Split here, verified by whoever knows the keys.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A longer token is refused before it is decoded.
const MAX_TOKEN_BYTES: usize = 16 * 1024;

#[derive(Serialize, Deserialize)]
pub struct Header {
    pub alg: String,
    #[serde(default)]
    pub kid: String,
    /// Extensions that a reader must know; none is known here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    crit: Option<Value>,
}

impl Header {
    pub fn new(alg: &str, kid: &str) -> Self {
        Self { alg: alg.to_owned(), kid: kid.to_owned(), crit: None }
    }
}

/// A token's parts, decoded but not yet believed.
pub struct Token<'a> {
    pub header: Header,
    pub payload: Vec<u8>,
    /// What is signed: header and payload as they came.
    pub signed: &'a str,
    pub signature: Vec<u8>,
}

/// None: this is no signed token that can be read.
pub fn parse(token: &str) -> Option<Token<'_>> {
    if token.len() > MAX_TOKEN_BYTES {
        return None;
    }
    let (signed, signature) = token.rsplit_once('.')?;
    let (header, payload) = signed.split_once('.')?;
    let header: Header = serde_json::from_slice(&BASE64.decode(header).ok()?).ok()?;
    let payload = BASE64.decode(payload).ok()?;
    let signature = BASE64.decode(signature).ok()?;
    header.crit.is_none().then_some(Token { header, payload, signed, signature })
}

/// Who says to have issued a token. Not believed: it only tells whose keys to look at.
pub fn issuer(token: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Issuer {
        iss: String,
    }
    let parsed = parse(token)?;
    serde_json::from_slice::<Issuer>(&parsed.payload).ok().map(|issuer| issuer.iss)
}
