use object::Resource;
use schema::{At, Kind, Strategy, Subresource, Violation, names, path};
use serde_json::{Value, json};

use crate::column::{AGE, NAME, column, human_duration, text, text_or};
use crate::spec::check::{self, Found, Seen};
use crate::{row, strategy, subresource};

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
const SIGNER_MAX_BYTES: usize = 571;
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
    check::required(spec, "request", at, &mut found);
    let usages = path::list(spec, "usages");
    let list = at.field("usages");
    if usages.is_empty() {
        found.push(Violation::required(list, ""));
    }
    let mut seen = Seen::default();
    for (index, usage) in usages.iter().enumerate() {
        let usage_text = usage.as_str().unwrap_or_default();
        if !USAGES.contains(&usage_text) {
            found.push(Violation::not_supported(list.index(index), usage, &USAGES));
        }
        if seen.repeats(usage.to_string()) {
            found.push(Violation::duplicate(list.index(index), usage));
        }
    }
    signer(path::text(spec, "signerName"), at.field("signerName"), &mut found);
    if let Some(seconds) =
        path::int(spec, "expirationSeconds").filter(|&seconds| seconds < EXPIRATION_MIN_SECONDS)
    {
        let detail = "may not specify a duration less than 600 seconds (10 minutes)";
        found.push(Violation::invalid(at.field("expirationSeconds"), seconds, detail));
    }
    conditions(path::list(request, "status.conditions"), &mut found);
    kept(request, old, &mut found);
    let certificate = old.map_or("", |old| path::text(old, "status.certificate"));
    if !certificate.is_empty() && certificate != path::text(request, "status.certificate") {
        let detail = "updates may not modify existing certificate content";
        found.push(Violation::forbidden(At::root("status.certificate"), detail));
    }
    found
}

fn signer(name: &str, at: At<'_>, found: &mut Found) {
    if name.is_empty() {
        found.push(Violation::required(at, ""));
        return;
    }
    let Some((domain, path)) =
        name.split_once('/').filter(|(_, path)| !path.contains('/') && !path.is_empty())
    else {
        let detail = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        found.push(Violation::invalid(at, name, detail));
        return;
    };
    for label in domain.split('.').chain(path.split('.')) {
        for wrong in names::dns_label(label) {
            found.push(Violation::invalid(at, name, format!("validating label \"{label}\": {wrong}")));
        }
    }
    if !domain.contains('.') {
        let detail = "should be a domain with at least two segments separated by dots";
        found.push(Violation::invalid(at, name, detail));
    }
    if name.len() > SIGNER_MAX_BYTES {
        found.push(Violation::too_long(at, SIGNER_MAX_BYTES));
    }
    if name == "kubernetes.io/legacy-unknown" {
        let detail = "the legacy signerName is not allowed via this API version";
        found.push(Violation::invalid(at, name, detail));
    }
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

fn conditions(conditions: &[Value], found: &mut Found) {
    let list = At::root("status.conditions");
    let has = |kind: &str| conditions.iter().any(|one| path::text(one, "type") == kind);
    let mut seen = Seen::default();
    for (index, condition) in conditions.iter().enumerate() {
        let at = list.index(index);
        let kind = path::text(condition, "type");
        if kind.is_empty() {
            found.push(Violation::required(at.field("type"), ""));
        }
        if seen.repeats(kind) {
            found.push(Violation::duplicate(at.field("type"), kind));
        }
        if matches!(kind, "Approved" | "Denied" | "Failed") {
            check::one_of(condition, "status", &["True"], at, found);
        }
    }
    if has("Approved") && has("Denied") {
        let detail = "Approved and Denied conditions are mutually exclusive";
        found.push(Violation::invalid(list, conditions, detail));
    }
}
