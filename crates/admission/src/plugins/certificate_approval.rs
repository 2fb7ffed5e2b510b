//! Who approves a certificate must be allowed to approve for its signer.

use object::{Snapshot, Status};
use plan::Attributes;
use schema::path;
use serde_json::Value;

use crate::{Operation, Plugin, Request, Verdict};

pub const PLUGIN: Plugin = Plugin { name: "CertificateApproval", mutate: None, validate: Some(validate) };

fn validate(_: &Snapshot, request: &Request, object: Option<&Value>, _: &mut Verdict) -> Result<(), Status> {
    let asks = request.key.resource == kinds::CERTIFICATE_SIGNING_REQUESTS
        && request.subresource == "approval"
        && request.operation == Operation::Update;
    let Some(old) = request.old.filter(|_| asks) else { return Ok(()) };
    let signer = path::text(old, "spec.signerName");
    if is_allowed(request, "approve", signer) {
        return Ok(());
    }
    Err(request
        .forbidden(object, format!("user not permitted to approve requests with signerName {signer:?}")))
}

/// May the user do this with the signer, or with all signers of its domain (`example.com/*`)?
pub(super) fn is_allowed(request: &Request, verb: &str, signer: &str) -> bool {
    let may = |name: &str| {
        let group = "certificates.k8s.io";
        (request.authorize)(&Attributes {
            verb,
            group,
            version: "*",
            resource: "signers",
            name,
            ..Attributes::default()
        })
        .allowed
    };
    let domain = signer.split_once('/').map_or(signer, |(domain, _)| domain);
    may(signer) || may(&format!("{domain}/*"))
}
