//! What an issuer of this site says of itself, for whoever wants to check its tokens: OpenID Connect Discovery 1.0.

use object::Snapshot;
use serde_json::{Value, json};

use super::jwt::Issuer;
use crate::state;

/// The document at a path of the endpoint: `/id/0123…/.well-known/openid-configuration`, `/id/0123…/keys`.
pub fn document(state: &Snapshot, path: &str) -> Option<Value> {
    let (id, document) = path.strip_prefix("/id/")?.split_once('/')?;
    let tail = format!("/id/{id}");
    let issuer =
        state::list::<Issuer>(state, "").into_iter().find(|kept| kept.record.url.ends_with(&tail))?.record;
    match document {
        "keys" => Some(issuer.jwks),
        ".well-known/openid-configuration" => Some(json!({
            "issuer": issuer.url,
            "jwks_uri": format!("{}/keys", issuer.url),
            "authorization_endpoint": "urn:kubernetes:programmatic_authorization",
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
            "claims_supported": ["sub", "iss"],
        })),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Changes;
    use crate::sts::jwt::key_of;

    #[test]
    fn an_issuer_is_found_by_its_path() {
        let url = "https://127.0.0.1:4566/id/0AF1";
        let mut changes = Changes::default();
        changes.create("", &key_of(url), &Issuer { url: url.into(), jwks: json!({"keys": [1]}) });
        let mut state = Snapshot::default();
        changes.apply(&mut state);
        let at = |path: &str| document(&state, path);
        assert_eq!(at("/id/0AF1/keys"), Some(json!({"keys": [1]})));
        let told = at("/id/0AF1/.well-known/openid-configuration").expect("a document");
        assert_eq!((&told["issuer"], &told["jwks_uri"]), (&json!(url), &json!(format!("{url}/keys"))));
        for path in ["/id/0AF2/keys", "/id/AF1/keys", "/id/0AF1", "/id//keys", "/id/0AF1/other", "/keys"] {
            assert_eq!(at(path), None, "{path}");
        }
    }
}
