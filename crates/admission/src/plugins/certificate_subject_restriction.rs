//! Nobody becomes `system:masters` by a certificate from the API's own signer.

use base64::Engine;
use object::{Snapshot, Status};
use schema::path;
use serde_json::Value;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::pem::Pem;
use x509_parser::prelude::FromDer;

use crate::{Operation, Plugin, Request, Verdict};

pub const PLUGIN: Plugin =
    Plugin { name: "CertificateSubjectRestriction", mutate: None, validate: Some(validate) };

const SIGNER: &str = "kubernetes.io/kube-apiserver-client";

fn validate(_: &Snapshot, request: &Request, object: Option<&Value>, _: &mut Verdict) -> Result<(), Status> {
    let Some(object) = object else { return Ok(()) };
    let asks = request.is(kinds::CERTIFICATE_SIGNING_REQUESTS, &[Operation::Create]);
    if !asks || path::text(object, "spec.signerName") != SIGNER {
        return Ok(());
    }
    let Some(organizations) = organizations(path::text(object, "spec.request")) else {
        return Err(
            request.forbidden(Some(object), "unable to parse csr: not a PEM encoded PKCS #10 request")
        );
    };
    if organizations.iter().any(|group| group == "system:masters") {
        let why = format!("use of {SIGNER} signer with system:masters group is not allowed");
        return Err(request.forbidden(Some(object), why));
    }
    Ok(())
}

fn organizations(request: &str) -> Option<Vec<String>> {
    let pem = base64::engine::general_purpose::STANDARD.decode(request).ok()?;
    let pem = Pem::iter_from_buffer(&pem).next()?.ok()?;
    let (_, request) = X509CertificationRequest::from_der(&pem.contents).ok()?;
    let subject = &request.certification_request_info.subject;
    subject.iter_organization().map(|name| name.as_str().ok().map(str::to_owned)).collect()
}
