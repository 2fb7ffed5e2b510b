//! Who somebody says that they are.

use std::sync::LazyLock;

use access::ClientCa;
use access::service_account::{Authority, SigningKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use object::{Snapshot, Time};
use ring::rand::SystemRandom;

const NOW: Time = Time::from_secs(1_700_000_000);
const ISSUER: &str = "e";

/// Believes itself, if it is a certificate: so that all of it is looked at.
pub fn certificate(bytes: &[u8]) {
    let ca = ClientCa { certificates: vec![bytes.to_vec()] };
    let _ = access::certificate(&[bytes], &ca, NOW);
    let half = bytes.split_at(bytes.len() / 2);
    let _ = access::certificate(&[half.0, half.1], &ca, NOW);
}

pub fn certificate_request(bytes: &[u8]) {
    let _ = access::csr::subject(&STANDARD.encode(bytes));
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = access::csr::subject(text);
    }
}

static AUTHORITY: LazyLock<Option<Authority>> = LazyLock::new(|| {
    let random = SystemRandom::new();
    let key = SigningKey::generate(&random).ok()?;
    Some(Authority {
        issuer: ISSUER.into(),
        accepted_issuers: Vec::new(),
        audiences: vec![ISSUER.into()],
        signing: SigningKey::from_pkcs8(&key, &random).ok()?,
        verifying: Vec::new(),
    })
});

pub fn token(bytes: &[u8]) {
    let (Ok(text), Some(authority)) = (std::str::from_utf8(bytes), &*AUTHORITY) else { return };
    let known = authority.verify(&Snapshot::default(), text, &[ISSUER], NOW);
    assert!(known.is_err(), "nobody can sign for this key");
}
