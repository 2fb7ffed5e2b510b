//! Nobody becomes `system:masters` by a certificate from the API's own signer.

use kinds::pkcs10;
use object::{Snapshot, Status};
use schema::path;
use serde_json::Value;

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
    let asked = pkcs10::read(path::text(object, "spec.request"))
        .map_err(|why| request.forbidden(Some(object), format!("failed to parse CSR: {why}")))?;
    if asked.organizations.iter().any(|group| group == "system:masters") {
        let why = format!("use of {SIGNER} signer with system:masters group is not allowed");
        return Err(request.forbidden(Some(object), why));
    }
    Ok(())
}
