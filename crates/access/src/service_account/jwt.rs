//! RFC 7515 with one algorithm: ES256, ECDSA over P-256 with SHA-256.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ring::digest::{SHA256, digest};
use ring::rand::SecureRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey,
};

use crate::AccessError;
use crate::jws::{Header, Token};

const ALGORITHM: &str = "ES256";

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
        let header = Header::new(ALGORITHM, &self.public.id);
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

/// Is the token signed by one of these keys? One that names its key is only tried with that one.
pub(super) fn is_signed<'a>(token: &Token, mut keys: impl Iterator<Item = &'a VerifyingKey>) -> bool {
    let named = |key: &VerifyingKey| token.header.kid.is_empty() || token.header.kid == key.id;
    token.header.alg == ALGORITHM
        && keys.any(|key| named(key) && key.verifies(token.signed, &token.signature))
}
