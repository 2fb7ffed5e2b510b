//! Who hands out a certificate must be allowed to sign for its signer.

use object::{Snapshot, Status};
use schema::path;
use serde_json::Value;

use super::certificate_approval::is_allowed;
use crate::{Operation, Plugin, Request, Verdict};

pub const PLUGIN: Plugin = Plugin { name: "CertificateSigning", mutate: None, validate: Some(validate) };

fn validate(_: &Snapshot, request: &Request, object: Option<&Value>, _: &mut Verdict) -> Result<(), Status> {
    let asks = request.key.resource == kinds::CERTIFICATE_SIGNING_REQUESTS
        && request.subresource == "status"
        && request.operation == Operation::Update;
    let (Some(old), Some(new)) = (request.old.filter(|_| asks), object) else { return Ok(()) };
    let same = |field: &str| path::get(old, field) == path::get(new, field);
    if same("status.certificate") && same("status.conditions") {
        return Ok(());
    }
    let signer = path::text(old, "spec.signerName");
    if is_allowed(request, "sign", signer) {
        return Ok(());
    }
    Err(request.forbidden(object, format!("user not permitted to sign requests with signerName {signer:?}")))
}
