//! Volumes of drivers of old, of which upstream knows the fields still though nothing mounts most of them any more.

use schema::{At, Violation, path};
use serde_json::Value;

use super::check::{Found, between, one_of, relative_path, required};

const PARTITION: &str = "must be between 1 and 255, inclusive";
const ISCSI_NAME_MAX_BYTES: usize = 64;
const TENANT_MAX_BYTES: usize = 64;

pub fn git_repo(source: &Value, at: At<'_>, found: &mut Found) {
    required(source, "repository", at, found);
    relative_path(path::text(source, "directory"), at.field("directory"), found);
}

/// A disk of a cloud: what it is called, and one of its partitions.
pub fn disk(source: &Value, name: &str, at: At<'_>, found: &mut Found) {
    required(source, name, at, found);
    if let Some(partition) = path::int(source, "partition").filter(|one| !(0..=255).contains(one)) {
        found.push(Violation::invalid(at.field("partition"), partition, PARTITION));
    }
}

pub fn iscsi(source: &Value, volume: &str, at: At<'_>, found: &mut Found) {
    required(source, "targetPortal", at, found);
    let name = path::text(source, "iqn");
    if required(source, "iqn", at, found) {
        iscsi_name(name, at.field("iqn"), found);
    }
    between(source, "lun", 0, 255, at, found);
    let is_secret = path::bool(source, "chapAuthDiscovery") || path::bool(source, "chapAuthSession");
    if is_secret && source.get("secretRef").is_none() {
        found.push(Violation::required(at.field("secretRef"), ""));
    }
    let Some(initiator) = source.get("initiatorName").and_then(Value::as_str) else { return };
    iscsi_name(initiator, at.field("initiatorname"), found);
    let portal = path::text(source, "targetPortal");
    if volume.len() + 1 + portal.len() > ISCSI_NAME_MAX_BYTES {
        let detail = "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified.";
        found.push(Violation::invalid(at.field("name"), volume, detail));
    }
}

/// RFC 3720, 3.2.6.
fn iscsi_name(name: &str, at: At<'_>, found: &mut Found) {
    let is_formed = match name.get(..3) {
        Some("iqn") => is_qualified(name),
        Some("eui") => is_identifier(name, 16),
        Some("naa") => is_identifier(name, 32),
        _ => {
            let detail = "must be valid format starting with iqn, eui, or naa";
            found.push(Violation::invalid(at, name, detail));
            return;
        }
    };
    if !is_formed {
        found.push(Violation::invalid(at, name, "must be valid format"));
    }
}

/// `iqn.2001-04.com.example:storage`: a month, a domain backwards, and what its owner likes.
fn is_qualified(name: &str) -> bool {
    let Some((month, rest)) = name.strip_prefix("iqn.").and_then(|rest| rest.split_once('.')) else {
        return false;
    };
    let Some((domain, own)) = rest.split_once(':') else { return false };
    let digits = |text: &str, count: usize| text.len() == count && text.bytes().all(|b| b.is_ascii_digit());
    let is_month = month.split_once('-').is_some_and(|(year, month)| digits(year, 4) && digits(month, 2));
    let is_domain = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.');
    let is_own = |text: &str| !text.contains([',', ';', '*', '&', '$', '|', ' ', '\t', '\n', '\r']);
    is_month && !domain.is_empty() && is_domain(domain) && !own.is_empty() && is_own(own)
}

/// `eui.` or `naa.` and so many letters and digits.
fn is_identifier(name: &str, length: usize) -> bool {
    let rest = name.get(4..).unwrap_or_default();
    rest.len() == length && rest.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

pub fn flocker(source: &Value, at: At<'_>, found: &mut Found) {
    let (name, uuid) = (path::text(source, "datasetName"), path::text(source, "datasetUUID"));
    if name.is_empty() && uuid.is_empty() {
        found.push(Violation::required(at, "one of datasetName and datasetUUID is required"));
    }
    if !name.is_empty() && !uuid.is_empty() {
        let detail = "datasetName and datasetUUID can not be specified simultaneously";
        found.push(Violation::invalid(at, "resource", detail));
    }
    if name.contains('/') {
        found.push(Violation::invalid(at.field("datasetName"), name, "must not contain '/'"));
    }
}

/// The servers of a Ceph cluster.
pub fn monitors(source: &Value, at: At<'_>, found: &mut Found) {
    if path::list(source, "monitors").is_empty() {
        found.push(Violation::required(at.field("monitors"), ""));
    }
}

pub fn rbd(source: &Value, at: At<'_>, found: &mut Found) {
    monitors(source, at, found);
    required(source, "image", at, found);
}

pub fn quobyte(source: &Value, at: At<'_>, found: &mut Found) {
    const PAIRS: &str = "must be a host:port pair or multiple pairs separated by commas";
    let registry = path::text(source, "registry");
    if registry.is_empty() {
        found.push(Violation::required(at.field("registry"), PAIRS));
    } else if path::text(source, "tenant").len() > TENANT_MAX_BYTES {
        let detail = "must be a UUID and may not exceed a length of 64 characters";
        found.push(Violation::required(at.field("tenant"), detail));
    } else {
        for _ in registry.split(',').filter(|pair| !is_host_and_port(pair)) {
            found.push(Violation::invalid(at.field("registry"), registry, PAIRS));
        }
    }
    required(source, "volume", at, found);
}

fn is_host_and_port(pair: &str) -> bool {
    let Some((host, port)) = pair.rsplit_once(':') else { return false };
    let plain = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    !port.contains(['[', ']']) && (plain.is_some() || !host.contains([':', '[', ']']))
}

pub fn fibre_channel(source: &Value, at: At<'_>, found: &mut Found) {
    let (names, ids) = (path::list(source, "targetWWNs"), path::list(source, "wwids"));
    if names.is_empty() && ids.is_empty() {
        let detail = "must specify either targetWWNs or wwids, but not both";
        found.push(Violation::required(at.field("targetWWNs"), detail));
    }
    if names.is_empty() {
        return;
    }
    if !ids.is_empty() {
        let detail = "targetWWNs and wwids can not be specified simultaneously";
        found.push(Violation::invalid(at.field("targetWWNs"), names, detail));
    }
    if source.get("lun").is_none() {
        found.push(Violation::required(at.field("lun"), "lun is required if targetWWNs is specified"));
    }
    between(source, "lun", 0, 255, at, found);
}

/// Options are the driver's own: those of Kubernetes are kept for its use.
pub fn flex(source: &Value, at: At<'_>, found: &mut Found) {
    required(source, "driver", at, found);
    for (key, _) in path::members(source, "options") {
        let domain = key.split_once('/').map_or(key.as_str(), |(domain, _)| domain).to_lowercase();
        let dotted = format!(".{domain}");
        if dotted.ends_with(".kubernetes.io") || dotted.ends_with(".k8s.io") {
            let detail = "kubernetes.io and k8s.io namespaces are reserved";
            found.push(Violation::invalid(at.field("options").key(key), key, detail));
        }
    }
}

pub fn azure_disk(source: &Value, at: At<'_>, found: &mut Found) {
    const MANAGED: &str =
        "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}";
    const BLOB: &str = "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd";
    required(source, "diskName", at, found);
    required(source, "diskURI", at, found);
    one_of(source, "cachingMode", &["None", "ReadOnly", "ReadWrite"], at, found);
    one_of(source, "kind", &["Dedicated", "Managed", "Shared"], at, found);
    let uri = path::text(source, "diskURI");
    match source.get("kind").and_then(Value::as_str) {
        Some("Managed") if !uri.starts_with("/subscriptions/") => {
            found.push(Violation::not_supported(at.field("diskURI"), uri, &[MANAGED]));
        }
        Some(kind) if kind != "Managed" && !uri.starts_with("https://") => {
            found.push(Violation::not_supported(at.field("diskURI"), uri, &[BLOB]));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_initiators() {
        for (name, is_right) in [
            ("iqn.2001-04.com.example:storage.disk1", true),
            ("iqn.2001-04.com.example", false),
            ("iqn.2001-4.com.example:a", false),
            ("iqn.2001-04.com.example:", false),
            ("iqn.2001-04.com.example:a b", false),
            ("eui.02004567A425678D", true),
            ("eui.0200", false),
            ("naa.52004567BA64678D52004567BA64678D", true),
            ("naa.5200", false),
            ("x", false),
            ("", false),
        ] {
            let mut found = Vec::new();
            iscsi_name(name, At::root("iqn"), &mut found);
            assert_eq!(found.is_empty(), is_right, "{name}");
        }
    }

    #[test]
    fn pairs_of_host_and_port() {
        for (pair, is_right) in
            [("a:1", true), ("[::1]:1", true), ("a", false), ("::1:1", false), ("a:", true), ("[a:1", false)]
        {
            assert_eq!(is_host_and_port(pair), is_right, "{pair}");
        }
    }
}
