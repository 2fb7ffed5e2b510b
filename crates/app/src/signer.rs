//! Approves and signs what nodes ask for: the doer beside `access::csr`, with the authority's key.

use access::View;
use access::csr::{Purpose, Signable};
use access::rbac::Index;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gate::Gate;
use kinds::CERTIFICATE_SIGNING_REQUESTS;
use object::{Key, Object};
use plan::{Expect, User, Write};
use serde::Deserialize;
use serde_json::{Value, json};
use store::WatchError;
use tracing::{info, warn};

use crate::clock::now;
use crate::pki::Pki;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    request: String,
    signer_name: String,
    #[serde(default)]
    usages: Vec<String>,
    #[serde(default)]
    expiration_seconds: Option<i64>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    certificate: String,
    conditions: Vec<Condition>,
}

#[derive(Deserialize)]
struct Condition {
    r#type: String,
}

/// Follows the requests until the store is closed.
pub async fn run(gate: &Gate, pki: &Pki) {
    loop {
        let snapshot = gate.store().snapshot();
        for request in snapshot.list(CERTIFICATE_SIGNING_REQUESTS, "") {
            handle(gate, pki, request).await;
        }
        let mut watch = match gate.store().watch(Some(CERTIFICATE_SIGNING_REQUESTS), snapshot.revision()) {
            Ok(watch) => watch,
            Err(WatchError::Compacted { .. }) => continue,
            Err(WatchError::Closed) => return,
        };
        let end = loop {
            match watch.next().await {
                Ok(events) => {
                    for event in events {
                        if let Some(request) = gate.store().snapshot().get(event.key()) {
                            handle(gate, pki, request).await;
                        }
                    }
                }
                Err(end) => break end,
            }
        };
        if end == WatchError::Closed {
            return;
        }
    }
}

async fn handle(gate: &Gate, pki: &Pki, object: &Object) {
    let Ok(Request { spec, status }) = object.decode::<Request>() else { return };
    let has = |name: &str| status.conditions.iter().any(|condition| condition.r#type == name);
    if !status.certificate.is_empty() || has("Denied") || has("Failed") {
        return;
    }
    let write = if has("Approved") { sign(pki, object, &spec) } else { approve(gate, object) };
    let Some(write) = write else { return };
    let user = User::new(
        "system:serviceaccount:kube-system:certificate-controller",
        &["system:masters", "system:authenticated"],
    );
    if let Err(status) = gate.execute(&user, write).await {
        warn!(request = %object.key.name, %status, "a certificate request could not be answered");
    }
}

fn approve(gate: &Gate, object: &Object) -> Option<Write> {
    let snapshot = gate.store().snapshot();
    let rbac = Index::of(&snapshot);
    let value = object.to_value().ok()?;
    let approval = access::csr::decide(&View::new(&snapshot, &rbac), &value)?;
    Some(patch(
        &object.key,
        Expect::unchanged(object),
        "approval",
        condition("Approved", "AutoApproved", approval.message),
    ))
}

fn sign(pki: &Pki, object: &Object, spec: &Spec) -> Option<Write> {
    let signable = access::csr::signable(&spec.signer_name, &spec.request, &spec.usages)?;
    let expect = Expect::unchanged(object);
    let signed = signable.and_then(|Signable { purpose, der }| {
        let server = purpose == Purpose::Server;
        pki.sign_request(&der, server, spec.expiration_seconds).map_err(|error| error.to_string())
    });
    match signed {
        Ok(certificate) => {
            info!(request = %object.key.name, signer = spec.signer_name, "signed");
            let status = json!({"status": {"certificate": STANDARD.encode(certificate)}});
            Some(patch(&object.key, expect, "status", status))
        }
        Err(why) => {
            Some(patch(&object.key, expect, "status", condition("Failed", "SignerValidationFailure", &why)))
        }
    }
}

fn condition(name: &str, reason: &str, message: &str) -> Value {
    let now = now();
    json!({"status": {"conditions": [{
        "type": name, "status": "True", "reason": reason, "message": message,
        "lastUpdateTime": now, "lastTransitionTime": now,
    }]}})
}

fn patch(key: &Key, expect: Expect, subresource: &'static str, patch: Value) -> Write {
    Write::Merge { key: key.clone(), expect, subresource, patch }
}
