use serde_json::{Value, json};

use super::Authority;

impl Authority {
    /// `/openid/v1/jwks`: RFC 7517.
    pub fn jwks(&self) -> Value {
        let mut seen = Vec::new();
        let mut keys = Vec::new();
        for key in self.verifying_keys() {
            if seen.contains(&&key.id) {
                continue;
            }
            seen.push(&key.id);
            let (x, y) = key.coordinates();
            keys.push(json!({"use": "sig", "kty": "EC", "kid": key.id, "crv": "P-256", "alg": "ES256", "x": x, "y": y}));
        }
        json!({ "keys": keys })
    }

    /// `/.well-known/openid-configuration`: OpenID Connect Discovery 1.0. `jwks_uri` is where clients find [`Self::jwks`].
    pub fn openid_configuration(&self, jwks_uri: &str) -> Value {
        json!({
            "issuer": self.issuer,
            "jwks_uri": jwks_uri,
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        })
    }
}
