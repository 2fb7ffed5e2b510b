//! Volumes that are made of several sources, and what each of them puts where.

use schema::{At, Violation, names, path};
use serde_json::Value;

use super::check::{Found, Seen, relative_item_path, required};
use super::{label_selector, volume};
use crate::certificate_signing_request::signer;

const TOKEN_SECONDS_MIN: i64 = 600;
const TOKEN_SECONDS_MAX: i64 = 1 << 32;
const KEY_TYPES: [&str; 6] = ["RSA3072", "RSA4096", "ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519"];
const CERTIFICATE_SECONDS_MIN: i64 = 3600;
const CERTIFICATE_SECONDS_MAX: i64 = 91 * 24 * 3600;
/// Of a signer of Kubernetes itself.
const KUBERNETES_CERTIFICATE_SECONDS_MAX: i64 = 24 * 3600;

pub fn validate(volume: &Value, at: At<'_>, found: &mut Found) {
    volume::mode(volume, "defaultMode", at, found);
    let mut taken = Seen::default();
    for (index, source) in path::list(volume, "sources").iter().enumerate() {
        let sources = at.field("sources");
        let source_at = sources.index(index);
        let mut count = 0;
        for kind in ["secret", "configMap"] {
            if let Some(part) = source.get(kind) {
                count += 1;
                let name = path::text(part, "name");
                required(part, "name", source_at.field(kind), found);
                volume::items(part, source_at.field(kind), found);
                for item in path::list(part, "items") {
                    claim(path::text(item, "path"), name, at, &mut taken, found);
                }
            }
        }
        if let Some(part) = source.get("downwardAPI") {
            count += 1;
            for item in path::list(part, "items") {
                volume::downward_file(item, source_at.field("downwardAPI"), found);
                let file = path::text(item, "path");
                claim(file, file, at, &mut taken, found);
            }
        }
        if let Some(part) = source.get("serviceAccountToken") {
            count += 1;
            token(part, source_at.field("serviceAccountToken"), at, found);
        }
        if let Some(part) = source.get("clusterTrustBundle") {
            count += 1;
            trust_bundle(part, source_at.field("clusterTrustBundle"), found);
            let file = path::text(part, "path");
            claim(file, file, at, &mut taken, found);
        }
        if let Some(part) = source.get("podCertificate") {
            count += 1;
            certificate(part, source_at.field("podCertificate"), at, &mut taken, found);
        }
        if count > 1 {
            let detail = "may not specify more than 1 volume type per source";
            found.push(Violation::forbidden(source_at, detail));
        }
    }
}

/// No two files may have one place. `shown` is what upstream tells of the second.
fn claim<'a>(file: &'a str, shown: &str, volume: At<'_>, taken: &mut Seen<'a>, found: &mut Found) {
    if !file.is_empty() && taken.repeats(file) {
        found.push(Violation::invalid(volume, shown, "conflicting duplicate paths"));
    }
}

fn token(part: &Value, at: At<'_>, volume: At<'_>, found: &mut Found) {
    let seconds = path::int(part, "expirationSeconds").unwrap_or_default();
    let at = at.field("expirationSeconds");
    if seconds < TOKEN_SECONDS_MIN {
        found.push(Violation::invalid(at, seconds, "may not specify a duration less than 10 minutes"));
    }
    if seconds > TOKEN_SECONDS_MAX {
        found.push(Violation::invalid(at, seconds, "may not specify a duration larger than 2^32 seconds"));
    }
    if required(part, "path", volume, found) {
        relative_item_path(path::text(part, "path"), volume.field("path"), found);
    }
}

fn trust_bundle(part: &Value, at: At<'_>, found: &mut Found) {
    let text = |field: &str| part.get(field).and_then(Value::as_str);
    match (text("name"), text("signerName")) {
        (Some(_), Some(_)) => {
            found.push(Violation::invalid(at, part, "only one of name and signerName may be used"));
        }
        (Some(name), None) => {
            bundle_name(name, at.field("name"), found);
            if let Some(selector) = part.get("labelSelector") {
                let detail = "labelSelector must be unset if name is specified";
                found.push(Violation::invalid(at.field("labelSelector"), selector, detail));
            }
        }
        (None, Some(name)) => {
            let at_name = at.field("signerName");
            if name.is_empty() {
                found.push(Violation::required(at_name, "must be a valid signer name"));
            }
            signer(name, at_name, found);
            if let Some(selector) = part.get("labelSelector") {
                label_selector::validate(selector, at.field("labelSelector"), found);
            }
        }
        (None, None) => {
            found.push(Violation::required(at, "either name or signerName must be specified"));
        }
    }
    required(part, "path", at, found);
    relative_item_path(path::text(part, "path"), at.field("path"), found);
}

/// A bundle that is a signer's begins with the signer's name, with colons for its slash.
fn bundle_name(name: &str, at: At<'_>, found: &mut Found) {
    if name.is_empty() {
        found.push(Violation::required(at, "must be a valid object name"));
    }
    let own = name.rsplit_once(':').map_or(name, |(_, own)| own);
    for wrong in names::dns_subdomain(own) {
        let detail = format!("not a valid clustertrustbundlename: {wrong}");
        found.push(Violation::invalid(at, name, detail));
    }
}

fn certificate<'a>(part: &'a Value, at: At<'_>, volume: At<'_>, taken: &mut Seen<'a>, found: &mut Found) {
    let name = path::text(part, "signerName");
    signer(name, at.field("signerName"), found);
    let key = path::text(part, "keyType");
    if !KEY_TYPES.contains(&key) {
        found.push(Violation::not_supported(at.field("keyType"), key, &KEY_TYPES));
    }
    if let Some(seconds) = path::int(part, "maxExpirationSeconds") {
        let at = at.field("maxExpirationSeconds");
        if seconds < CERTIFICATE_SECONDS_MIN {
            let detail = format!("if provided, maxExpirationSeconds must be >= {CERTIFICATE_SECONDS_MIN}");
            found.push(Violation::invalid(at, seconds, detail));
        }
        let is_own = name.split('/').next() == Some("kubernetes.io");
        let most = if is_own { KUBERNETES_CERTIFICATE_SECONDS_MAX } else { CERTIFICATE_SECONDS_MAX };
        if seconds > most {
            let detail = format!("if provided, maxExpirationSeconds must be <= {most}");
            found.push(Violation::invalid(at, seconds, detail));
        }
    }
    let mut has_path = false;
    for field in ["credentialBundlePath", "keyPath", "certificateChainPath"] {
        let file = path::text(part, field);
        if !file.is_empty() {
            has_path = true;
            relative_item_path(file, at.field(field), found);
            claim(file, file, volume, taken, found);
        }
    }
    if !has_path {
        let detail = "specify at least one of credentialBundlePath, keyPath, and certificateChainPath";
        found.push(Violation::required(at, detail));
    }
}
