use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use object::Resource;
use schema::{At, Kind, Strategy, Subresource, Violation, names, path};
use serde_json::{Value, json};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use crate::column::{AGE, NAME, column, human_duration, text, text_or};
use crate::spec::check::{self, Found, Seen};
use crate::{pem, pkcs10, row, strategy, subresource};

pub const CERTIFICATE_SIGNING_REQUESTS: Resource =
    Resource::new("certificatesigningrequests.certificates.k8s.io");

pub static KIND: Kind = Kind {
    resource: CERTIFICATE_SIGNING_REQUESTS,
    group: "certificates.k8s.io",
    version: "v1",
    kind: "CertificateSigningRequest",
    singular: "certificatesigningrequest",
    short_names: &["csr"],
    namespaced: false,
    subresources: &[
        Subresource { name: "approval", gvk: None, verbs: &["get", "patch", "update"] },
        subresource::STATUS,
    ],
    type_name: "certificates.v1.CertificateSigningRequest",
    columns: &[
        NAME,
        AGE,
        column("SignerName", "string", "Who is asked to sign.", |object, _| {
            text_or(object, "spec.signerName", "<none>")
        }),
        column("Requestor", "string", "Who asks.", |object, _| text(object, "spec.username")),
        column("RequestedDuration", "string", "How long the certificate shall hold.", |object, _| {
            match path::int(object, "spec.expirationSeconds") {
                None => "<none>".into(),
                Some(seconds) => human_duration(seconds).into(),
            }
        }),
        column("Condition", "string", "What has become of it.", |object, _| condition(object).into()),
    ],
    selectable: &["spec.signerName"],
    strategy: Strategy { main_keeps: &["status"], prepare, ..strategy::PLAIN },
    name: names::path_segment,
    validate,
    ..row::BASE
};

const EXPIRATION_MIN_SECONDS: i64 = 600;
const DOMAIN_MAX_BYTES: usize = 253;
const SIGNER_MAX_BYTES: usize = 571;
const LEGACY_SIGNER: &str = "kubernetes.io/legacy-unknown";
const USAGES: [&str; 23] = [
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

/// What was asked stays as it was asked.
fn prepare(request: &mut Value, old: Option<&Value>) {
    match old {
        None => request["status"] = json!({}),
        Some(old) => request["spec"] = old["spec"].clone(),
    }
}

fn condition(request: &Value) -> String {
    let conditions = path::list(request, "status.conditions");
    let has = |kind: &str| conditions.iter().any(|one| path::text(one, "type") == kind);
    let mut text = match () {
        () if has("Denied") => "Denied",
        () if has("Approved") => "Approved",
        () => "Pending",
    }
    .to_owned();
    if has("Failed") {
        text.push_str(",Failed");
    }
    if !path::text(request, "status.certificate").is_empty() {
        text.push_str(",Issued");
    }
    text
}

fn validate(request: &Value, old: Option<&Value>) -> Vec<Violation> {
    let mut found = Vec::new();
    let (spec, at) = (&request["spec"], At::root("spec"));
    if let Err(why) = pkcs10::read(path::text(spec, "request")) {
        found.push(Violation::invalid(at.field("request"), &spec["request"], why));
    }
    let usages = path::list(spec, "usages");
    let list = at.field("usages");
    if usages.is_empty() {
        found.push(Violation::required(list, ""));
    }
    for (index, usage) in usages.iter().enumerate() {
        if !USAGES.contains(&usage.as_str().unwrap_or_default()) {
            found.push(Violation::not_supported(list.index(index), usage, &USAGES));
        }
    }
    let mut seen = Seen::default();
    for (index, usage) in usages.iter().enumerate() {
        if seen.repeats(usage.to_string()) {
            found.push(Violation::duplicate(list.index(index), usage));
        }
    }
    match path::text(spec, "signerName") {
        LEGACY_SIGNER => {
            let detail = "the legacy signerName is not allowed via this API version";
            found.push(Violation::invalid(at.field("signerName"), LEGACY_SIGNER, detail));
        }
        name => signer(name, at.field("signerName"), &mut found),
    }
    if let Some(seconds) =
        path::int(spec, "expirationSeconds").filter(|&seconds| seconds < EXPIRATION_MIN_SECONDS)
    {
        let detail = "may not specify a duration less than 600 seconds (10 minutes)";
        found.push(Violation::invalid(at.field("expirationSeconds"), seconds, detail));
    }
    conditions(path::list(request, "status.conditions"), &mut found);
    kept(request, old, &mut found);
    certificate(request, old, &mut found);
    found
}

/// What is issued is issued once, and is a chain of certificates.
fn certificate(request: &Value, old: Option<&Value>, found: &mut Found) {
    let at = At::root("status.certificate");
    let new = path::text(request, "status.certificate");
    let before = old.map_or("", |old| path::text(old, "status.certificate"));
    if new == before {
        return;
    }
    if (before.is_empty() || chain(before).is_ok())
        && let Err(why) = chain(new)
    {
        found.push(Violation::invalid(at, "<certificate data>", why));
    }
    if !before.is_empty() {
        found.push(Violation::forbidden(at, "updates may not modify existing certificate content"));
    }
}

fn chain(certificate: &str) -> Result<(), String> {
    let text = STANDARD.decode(certificate).unwrap_or_default();
    if text.is_empty() {
        return Ok(());
    }
    let blocks = pem::blocks(&text);
    for block in &blocks {
        if block.label != "CERTIFICATE" {
            return Err(format!("only CERTIFICATE PEM blocks are allowed, found {:?}", block.label));
        }
        if block.has_headers {
            return Err("no PEM block headers are permitted".to_owned());
        }
        X509Certificate::from_der(&block.content)
            .map_err(|error| format!("x509: malformed certificate: {error}"))?;
    }
    if blocks.is_empty() {
        return Err("must contain at least one CERTIFICATE PEM block".to_owned());
    }
    Ok(())
}

/// `example.com/signer-name`: who signs.
pub(crate) fn signer(name: &str, at: At<'_>, found: &mut Found) {
    if name.is_empty() {
        found.push(Violation::required(at, ""));
        return;
    }
    let Some((domain, path)) = name.split_once('/').filter(|(_, path)| !path.contains('/')) else {
        let detail = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        found.push(Violation::invalid(at, name, detail));
        return;
    };
    if domain.len() > DOMAIN_MAX_BYTES {
        found.push(Violation::too_long(at, DOMAIN_MAX_BYTES));
    }
    labels(domain, names::dns_label, at, found);
    if !domain.contains('.') {
        let detail = "should be a domain with at least two segments separated by dots";
        found.push(Violation::invalid(at, domain, detail));
    }
    labels(path, names::dns_subdomain, at, found);
    if name.len() > SIGNER_MAX_BYTES {
        found.push(Violation::too_long(at, SIGNER_MAX_BYTES));
    }
}

/// Of the parts between dots, the first that is wrong.
fn labels(text: &str, rule: names::Check, at: At<'_>, found: &mut Found) {
    let wrong = text.split('.').map(|label| (label, rule(label))).find(|(_, wrong)| !wrong.is_empty());
    let Some((label, wrong)) = wrong else { return };
    let told = wrong.into_iter().map(|wrong| format!("validating label \"{label}\": {wrong}"));
    found.extend(told.map(|detail| Violation::invalid(at, text, detail)));
}

/// A decision is not taken back.
fn kept(request: &Value, old: Option<&Value>, found: &mut Found) {
    let has = |request: &Value, kind: &str| {
        path::list(request, "status.conditions").iter().any(|one| path::text(one, "type") == kind)
    };
    for kind in ["Approved", "Denied", "Failed"] {
        if old.is_some_and(|old| has(old, kind)) && !has(request, kind) {
            let detail = format!("updates may not remove a condition of type \"{kind}\"");
            found.push(Violation::forbidden(At::root("status.conditions"), detail));
        }
    }
}

/// Of whichever of the two comes second it is said that it may not.
fn conditions(conditions: &[Value], found: &mut Found) {
    const STATUSES: [&str; 3] = ["False", "True", "Unknown"];
    let list = At::root("status.conditions");
    let mut seen = Seen::default();
    let (mut approved, mut denied) = (false, false);
    for (index, condition) in conditions.iter().enumerate() {
        let at = list.index(index);
        let kind = path::text(condition, "type");
        if kind.is_empty() {
            found.push(Violation::required(at.field("type"), ""));
        }
        let is_final = matches!(kind, "Approved" | "Denied" | "Failed");
        let allowed = if is_final { &["True"][..] } else { &STATUSES };
        if check::required(condition, "status", at, found) {
            check::one_of(condition, "status", allowed, at, found);
        }
        approved |= kind == "Approved";
        denied |= kind == "Denied";
        if approved && denied && matches!(kind, "Approved" | "Denied") {
            let detail = "Approved and Denied conditions are mutually exclusive";
            found.push(Violation::invalid(list, kind, detail));
        }
        if seen.repeats(kind) {
            found.push(Violation::duplicate(at.field("type"), kind));
        }
    }
}
