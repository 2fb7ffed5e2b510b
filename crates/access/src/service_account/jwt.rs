//! RFC 7515 with one algorithm: ES256, ECDSA over P-256 with SHA-256.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ring::digest::{SHA256, digest};
use ring::rand::SecureRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey,
};
use serde::{Deserialize, Serialize};

use crate::AccessError;

/// A longer token is refused before it is decoded.
const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// An uncompressed point of P-256: 4, x, y.
const POINT_BYTES: usize = 65;

/// The key that new tokens are signed with.
pub struct SigningKey {
    pair: EcdsaKeyPair,
    public: VerifyingKey,
}

/// A key that tokens are checked with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyingKey {
    /// The digest of the key: the `kid` of its tokens.
    pub id: String,
    /// 4, x, y: 65 bytes.
    point: Vec<u8>,
}

/// Never prints the private part.
impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningKey").field("id", &self.public.id).finish_non_exhaustive()
    }
}

impl SigningKey {
    /// A new key as PKCS #8, for the caller to keep (0600) and to read with [`SigningKey::from_pkcs8`].
    pub fn generate(random: &dyn SecureRandom) -> Result<Vec<u8>, AccessError> {
        EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, random)
            .map(|document| document.as_ref().to_vec())
            .map_err(|_| AccessError::Key("no key could be made"))
    }

    /// `random` blinds the computation.
    pub fn from_pkcs8(pkcs8: &[u8], random: &dyn SecureRandom) -> Result<Self, AccessError> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8, random)
            .map_err(|_| AccessError::Key("not a P-256 key in PKCS #8"))?;
        let public = VerifyingKey::from_point(pair.public_key().as_ref())?;
        Ok(Self { pair, public })
    }

    pub fn public(&self) -> &VerifyingKey {
        &self.public
    }

    pub(super) fn sign(&self, payload: &[u8], random: &dyn SecureRandom) -> Result<String, AccessError> {
        let header = Header { alg: "ES256".to_owned(), kid: self.public.id.clone() };
        let header =
            serde_json::to_vec(&header).map_err(|_| AccessError::Key("the header does not encode"))?;
        let signed = format!("{}.{}", BASE64.encode(header), BASE64.encode(payload));
        let signature = self
            .pair
            .sign(random, signed.as_bytes())
            .map_err(|_| AccessError::Key("the key does not sign"))?;
        Ok(format!("{signed}.{}", BASE64.encode(signature)))
    }
}

impl VerifyingKey {
    /// An uncompressed point: 4, x, y.
    pub fn from_point(point: &[u8]) -> Result<Self, AccessError> {
        if point.len() != POINT_BYTES || point.first() != Some(&4) {
            return Err(AccessError::Key("not an uncompressed point of P-256"));
        }
        let id = BASE64.encode(digest(&SHA256, point));
        Ok(Self { id, point: point.to_vec() })
    }

    /// The public key of a PKIX `SubjectPublicKeyInfo`, whose bit string ends with the point.
    pub fn from_spki(der: &[u8]) -> Result<Self, AccessError> {
        let start =
            der.len().checked_sub(POINT_BYTES).ok_or(AccessError::Key("too short for a public key"))?;
        Self::from_point(&der[start..])
    }

    /// (x, y) in base64 as a JSON Web Key has them.
    pub(super) fn coordinates(&self) -> (String, String) {
        (BASE64.encode(&self.point[1..33]), BASE64.encode(&self.point[33..]))
    }

    fn verifies(&self, signed: &str, signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &self.point)
            .verify(signed.as_bytes(), signature)
            .is_ok()
    }
}

#[derive(Serialize, Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: String,
}

/// A token's parts, decoded but not yet believed.
pub(super) struct Token<'a> {
    header: Header,
    pub payload: Vec<u8>,
    signed: &'a str,
    signature: Vec<u8>,
}

/// None: this is no JWT.
pub(super) fn parse(token: &str) -> Option<Token<'_>> {
    if token.len() > MAX_TOKEN_BYTES {
        return None;
    }
    let (signed, signature) = token.rsplit_once('.')?;
    let (header, payload) = signed.split_once('.')?;
    let header = serde_json::from_slice(&BASE64.decode(header).ok()?).ok()?;
    let payload = BASE64.decode(payload).ok()?;
    let signature = BASE64.decode(signature).ok()?;
    Some(Token { header, payload, signed, signature })
}

impl Token<'_> {
    /// Is it signed by one of these keys? A token that names its key is only tried with that one.
    pub fn is_signed<'a>(&self, keys: impl Iterator<Item = &'a VerifyingKey>) -> bool {
        self.header.alg == "ES256"
            && keys
                .filter(|key| self.header.kid.is_empty() || self.header.kid == key.id)
                .any(|key| key.verifies(self.signed, &self.signature))
    }
}
