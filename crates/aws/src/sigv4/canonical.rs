//! The form of a message that both sides sign.

use bytes::Bytes;
use http::Request;
use ring::digest::{SHA256, digest};

use super::Signature;
use crate::Fault;
use crate::wire::percent;

/// What was sent, as far as signatures are concerned.
pub struct Message<'a> {
    pub method: &'a str,
    /// As it was sent, percent-encoded.
    pub path: &'a str,
    /// As it was sent, without the question mark.
    pub query: &'a str,
    /// Names in lower case, in the order they came.
    pub headers: Vec<(String, String)>,
    pub body: &'a [u8],
}

impl<'a> Message<'a> {
    pub fn of(request: &'a Request<Bytes>) -> Self {
        let mut headers: Vec<(String, String)> = request
            .headers()
            .iter()
            .map(|(name, value)| {
                (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
            })
            .collect();
        // HTTP/2 says it in its own way.
        if let (false, Some(authority)) = (request.headers().contains_key("host"), request.uri().authority())
        {
            headers.push(("host".to_owned(), authority.to_string()));
        }
        Self {
            method: request.method().as_str(),
            path: request.uri().path(),
            query: request.uri().query().unwrap_or_default(),
            headers,
            body: request.body(),
        }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

pub fn request(message: &Message, signature: &Signature) -> Result<String, Fault> {
    let query = query(message.query)
        .ok_or_else(|| Fault::new("IncompleteSignature", "The query is not percent-encoded UTF-8"))?;
    Ok(format!(
        "{}\n{}\n{query}\n{}\n{}\n{}",
        message.method,
        path(message.path),
        headers(message, &signature.signed_headers),
        signature.signed_headers.join(";"),
        // Always our own digest. That a body is not signed (UNSIGNED-PAYLOAD) only S3 takes, of which there is none.
        sha256(message.body),
    ))
}

/// The path without empty and dotted parts, encoded once more.
fn path(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            other => parts.push(other),
        }
    }
    let end = if path.ends_with('/') && !parts.is_empty() { "/" } else { "" };
    percent::encode(&format!("/{}{end}", parts.join("/")), b"/")
}

/// The pairs in the order of their encoded names, without the signature itself.
fn query(query: &str) -> Option<String> {
    let pairs = percent::pairs(query)?.into_iter().filter(|(name, _)| name != "X-Amz-Signature");
    let mut pairs: Vec<(String, String)> =
        pairs.map(|(name, value)| (percent::encode(&name, b""), percent::encode(&value, b""))).collect();
    pairs.sort();
    Some(pairs.into_iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&"))
}

/// A line for each signed header: all its values, their runs of spaces made one.
fn headers(message: &Message, signed: &[String]) -> String {
    let mut text = String::new();
    for name in signed {
        let values = message.headers.iter().filter(|(known, _)| known == name);
        let values: Vec<String> =
            values.map(|(_, value)| value.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        text += &format!("{name}:{}\n", values.join(","));
    }
    text
}

pub fn sha256(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
