//! The keys of an issuer: JSON Web Keys, RFC 7517, and the signatures that they verify, RFC 7518.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384,
    RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512,
    RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm,
};
use serde::Deserialize;

use crate::jws::Token;

/// More keys than any issuer has at once.
const MOST_KEYS: usize = 100;

/// By the `alg` of a token. Only asymmetric ones: an HMAC keyed with a public key would be anybody's.
const RSA: &[(&str, &RsaParameters)] = &[
    ("PS256", &RSA_PSS_2048_8192_SHA256),
    ("PS384", &RSA_PSS_2048_8192_SHA384),
    ("PS512", &RSA_PSS_2048_8192_SHA512),
    ("RS256", &RSA_PKCS1_2048_8192_SHA256),
    ("RS384", &RSA_PKCS1_2048_8192_SHA384),
    ("RS512", &RSA_PKCS1_2048_8192_SHA512),
];

/// (`alg`, `crv`, bytes of a coordinate). ES512 is missing: ring does not have its curve.
const EC: &[(&str, &str, usize, &dyn VerificationAlgorithm)] =
    &[("ES256", "P-256", 32, &ECDSA_P256_SHA256_FIXED), ("ES384", "P-384", 48, &ECDSA_P384_SHA384_FIXED)];

/// Is this an algorithm whose signatures can be checked?
pub(super) fn is_known(algorithm: &str) -> bool {
    RSA.iter().any(|(name, _)| *name == algorithm) || EC.iter().any(|(name, ..)| *name == algorithm)
}

/// The public keys of an issuer.
#[derive(Debug, Default)]
pub struct KeySet(Vec<Key>);

#[derive(Debug)]
struct Key {
    id: String,
    /// The only algorithm that the key is for, if it says one.
    algorithm: Option<String>,
    public: Public,
}

#[derive(Debug)]
enum Public {
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// An uncompressed point of the curve.
    Ec {
        curve: String,
        point: Vec<u8>,
    },
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    #[serde(default)]
    kid: String,
    alg: Option<String>,
    r#use: Option<String>,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
    n: Option<String>,
    e: Option<String>,
}

impl KeySet {
    /// Reads a document of keys. Those that are for something else, or of a kind that is not known here, are left out.
    ///
    /// # Errors
    /// It is no such document.
    pub fn read(document: &[u8]) -> Result<Self, String> {
        let document: Document =
            serde_json::from_slice(document).map_err(|error| format!("failed to decode keys: {error}"))?;
        let keys = document.keys.into_iter().take(MOST_KEYS);
        Ok(Self(keys.filter_map(|key| serde_json::from_value(key).ok().and_then(read)).collect()))
    }

    /// Is the token signed by one of the keys? One that names its key is only tried with that one.
    pub(super) fn verifies(&self, token: &Token) -> bool {
        let named = |key: &&Key| token.header.kid.is_empty() || token.header.kid == key.id;
        self.0.iter().filter(named).any(|key| key.verifies(token))
    }
}

fn read(jwk: Jwk) -> Option<Key> {
    if jwk.r#use.is_some_and(|purpose| purpose != "sig") {
        return None;
    }
    let bytes = |text: Option<String>| BASE64.decode(text?).ok();
    let public = match &*jwk.kty {
        "RSA" => Public::Rsa { n: bytes(jwk.n)?, e: bytes(jwk.e)? },
        "EC" => {
            let curve = jwk.crv?;
            let (_, _, size, _) = EC.iter().find(|(_, known, ..)| *known == curve)?;
            let (x, y) = (bytes(jwk.x)?, bytes(jwk.y)?);
            if x.len() != *size || y.len() != *size {
                return None;
            }
            Public::Ec { curve, point: [&[4][..], &x, &y].concat() }
        }
        _ => return None,
    };
    Some(Key { id: jwk.kid, algorithm: jwk.alg, public })
}

impl Key {
    fn verifies(&self, token: &Token) -> bool {
        let algorithm = &*token.header.alg;
        if self.algorithm.as_ref().is_some_and(|only| only != algorithm) {
            return false;
        }
        let (message, signature) = (token.signed.as_bytes(), &token.signature);
        match &self.public {
            Public::Rsa { n, e } => {
                RSA.iter().find(|(name, _)| *name == algorithm).is_some_and(|(_, how)| {
                    RsaPublicKeyComponents { n, e }.verify(how, message, signature).is_ok()
                })
            }
            Public::Ec { curve, point } => {
                let row = EC.iter().find(|(name, known, ..)| *name == algorithm && known == curve);
                row.is_some_and(|(.., how)| {
                    UnparsedPublicKey::new(*how, point).verify(message, signature).is_ok()
                })
            }
        }
    }
}
