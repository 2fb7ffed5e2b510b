//! Signing, for what Ekso itself asks of an endpoint.

use bytes::Bytes;
use http::{HeaderValue, Request};
use object::Time;

use super::{ALGORITHM, Message, Signature, TERMINATOR, basic, signature};

/// An access key.
pub struct Key<'a> {
    pub id: &'a str,
    pub secret: &'a str,
    /// Of a temporary key.
    pub token: Option<&'a str>,
}

/// Signs a request in its headers: all that it has, and the date. It must name its host.
///
/// # Errors
/// When the key, the scope or the query cannot stand in a header.
pub fn sign(
    request: &mut Request<Bytes>,
    key: &Key,
    region: &str,
    service: &str,
    now: Time,
) -> Result<(), http::header::InvalidHeaderValue> {
    let time_text = basic(now);
    let headers = request.headers_mut();
    headers.insert("x-amz-date", HeaderValue::from_str(&time_text)?);
    if let Some(token) = key.token {
        headers.insert("x-amz-security-token", HeaderValue::from_str(token)?);
    }
    let message = Message::of(request);
    let mut signed_headers: Vec<String> = message.headers.iter().map(|(name, _)| name.clone()).collect();
    signed_headers.sort();
    signed_headers.dedup();
    let claim = Signature {
        access_key_id: key.id.to_owned(),
        date: time_text[..8].to_owned(),
        region: region.to_owned(),
        service: service.to_owned(),
        terminator: TERMINATOR.to_owned(),
        signed_headers,
        signature: String::new(),
        time_text,
        time: now,
        expires: None,
        token: None,
    };
    // A query that is no text has no signature, and is refused with an empty one.
    let signature = signature(key.secret, &message, &claim).map(|tag| hex(tag.as_ref())).unwrap_or_default();
    let header = format!(
        "{ALGORITHM} Credential={}/{}/{region}/{service}/{TERMINATOR}, SignedHeaders={}, Signature={signature}",
        key.id,
        claim.date,
        claim.signed_headers.join(";"),
    );
    request.headers_mut().insert(http::header::AUTHORIZATION, HeaderValue::from_str(&header)?);
    Ok(())
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
