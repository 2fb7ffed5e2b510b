//! What several plugins read out of a request for a certificate.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::pem::Pem;
use x509_parser::prelude::FromDer;
use x509_parser::x509::AttributeTypeAndValue;

/// What is upstream's answer to what [`subject`] cannot read.
pub const UNREADABLE: &str = "unable to parse csr: not a PEM encoded PKCS #10 request";

/// All of each kind that there are.
pub struct Subject {
    pub common_names: Vec<String>,
    pub organizations: Vec<String>,
}

/// The subject of `spec.request`: base64 of PEM of PKCS #10. None: it is none, or holds a name that is no text.
pub fn subject(request: &str) -> Option<Subject> {
    let pem = STANDARD.decode(request).ok()?;
    let pem = Pem::iter_from_buffer(&pem).next()?.ok()?;
    let (_, request) = X509CertificationRequest::from_der(&pem.contents).ok()?;
    let subject = &request.certification_request_info.subject;
    let text = |name: &AttributeTypeAndValue| name.as_str().ok().map(str::to_owned);
    Some(Subject {
        common_names: subject.iter_common_name().map(text).collect::<Option<_>>()?,
        organizations: subject.iter_organization().map(text).collect::<Option<_>>()?,
    })
}
