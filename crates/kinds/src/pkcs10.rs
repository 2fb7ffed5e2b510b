//! Requests for certificates, PKCS #10 (RFC 2986), as `spec.request` of a CertificateSigningRequest holds them: base64 of PEM.
//!
//! Whoever validates, admits, approves or signs one reads it here, so that none of them sees another request in the same text.

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::error::X509Error;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::oid_registry::{OID_KEY_TYPE_EC_PUBLIC_KEY, OID_PKCS1_RSAENCRYPTION, OID_SIG_ED25519};
use x509_parser::prelude::FromDer;
use x509_parser::x509::AttributeTypeAndValue;

/// What is asked for. Names that are no text are refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertificateRequest {
    /// All that there are; one that knows names has one.
    pub common_names: Vec<String>,
    pub organizations: Vec<String>,
    pub dns_names: Vec<String>,
    pub addresses: Vec<IpAddr>,
    pub has_emails: bool,
    pub has_uris: bool,
    /// Names of no kind that is known here.
    pub has_other_names: bool,
    pub der: Vec<u8>,
}

/// Reads the first block of PEM and checks that whoever asks has the key.
///
/// # Errors
/// What is wrong, in upstream's words where it has any.
pub fn read(request: &str) -> Result<CertificateRequest, String> {
    let pem = STANDARD.decode(request).unwrap_or_default();
    let block = crate::pem::blocks(&pem).into_iter().next();
    let block = block.filter(|block| block.label == "CERTIFICATE REQUEST");
    let der = block.ok_or("PEM block type must be CERTIFICATE REQUEST")?.content;
    let (rest, parsed) = X509CertificationRequest::from_der(&der).map_err(|error| match error {
        x509_parser::nom::Err::Incomplete(_) => "asn1: syntax error: sequence truncated".to_owned(),
        error => format!("asn1: structure error: {error}"),
    })?;
    if !rest.is_empty() {
        return Err("asn1: syntax error: trailing data".to_owned());
    }
    parsed.verify_signature().map_err(|error| unverified(&parsed, &error))?;
    let subject = &parsed.certification_request_info.subject;
    let text = |name: &AttributeTypeAndValue| {
        name.as_str().map(str::to_owned).map_err(|error| format!("a name in the subject is no text: {error}"))
    };
    let mut asked = CertificateRequest {
        common_names: subject.iter_common_name().map(text).collect::<Result<_, _>>()?,
        organizations: subject.iter_organization().map(text).collect::<Result<_, _>>()?,
        ..CertificateRequest::default()
    };
    for extension in parsed.requested_extensions().into_iter().flatten() {
        if let ParsedExtension::SubjectAlternativeName(names) = extension {
            names.general_names.iter().for_each(|name| learn(&mut asked, name));
        }
    }
    asked.der = der;
    Ok(asked)
}

fn learn(asked: &mut CertificateRequest, name: &GeneralName) {
    match name {
        GeneralName::DNSName(name) => asked.dns_names.push((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match address(bytes) {
            Some(address) => asked.addresses.push(address),
            None => asked.has_other_names = true,
        },
        GeneralName::RFC822Name(_) => asked.has_emails = true,
        GeneralName::URI(_) => asked.has_uris = true,
        _ => asked.has_other_names = true,
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Some(four.into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(Into::into)
}

fn unverified(request: &X509CertificationRequest, error: &X509Error) -> String {
    let key = &request.certification_request_info.subject_pki.algorithm.algorithm;
    let why = match error {
        X509Error::SignatureVerificationError if *key == OID_KEY_TYPE_EC_PUBLIC_KEY => {
            "x509: ECDSA verification failure"
        }
        X509Error::SignatureVerificationError if *key == OID_SIG_ED25519 => {
            "x509: Ed25519 verification failure"
        }
        X509Error::SignatureVerificationError if *key == OID_PKCS1_RSAENCRYPTION => {
            "crypto/rsa: verification error"
        }
        _ => "x509: cannot verify signature: algorithm unimplemented",
    };
    why.to_owned()
}
