//! Security contexts of pods and of containers.

use schema::{At, Violation, names, path};
use serde_json::Value;

use super::check::{Found, Seen, between, one_of, required};

const ID_MAX: i64 = i32::MAX as i64;
const APPARMOR_MAX_BYTES: usize = 4095;
const CREDENTIAL_MAX_KIB: usize = 64;
const DOMAIN_MAX_CHARACTERS: usize = 256;
const USER_MAX_CHARACTERS: usize = 104;
const IPC_SYSCTLS: [&str; 10] = [
    "kernel.msg",
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shm",
    "kernel.shm_rmid_forced",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
];
const SYSCTL_MAX_BYTES: usize = 253;
const SYSCTL_FORM: &str = "must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";

/// `spec.securityContext` of a pod, and what upstream counts to it.
pub fn pod(spec: &Value, at: At<'_>, found: &mut Found) {
    if path::bool(spec, "shareProcessNamespace") && path::bool(spec, "hostPID") {
        let detail = "ShareProcessNamespace and HostPID cannot both be enabled";
        found.push(Violation::invalid(at.field("shareProcessNamespace"), true, detail));
    }
    let Some(context) = spec.get("securityContext") else { return };
    for field in ["fsGroup", "runAsUser", "runAsGroup"] {
        between(context, field, 0, ID_MAX, at, found);
    }
    for (index, group) in path::list(context, "supplementalGroups").iter().enumerate() {
        let group = group.as_i64().unwrap_or_default();
        let at = at.field("supplementalGroups");
        found.extend(Violation::all_invalid(at.index(index), group, names::between(group, 0, ID_MAX)));
    }
    sysctls(context, spec, at, found);
    one_of(context, "fsGroupChangePolicy", &["Always", "OnRootMismatch"], at, found);
    seccomp(context, at, found);
    windows(context, at, found);
    if let Some(profile) = context.get("appArmorProfile") {
        apparmor(profile, at.field("appArmorProfile"), found);
    }
    one_of(context, "supplementalGroupsPolicy", &["Merge", "Strict"], at, found);
    // Upstream takes the other one, MountOption, only where a feature is on that is off.
    one_of(context, "seLinuxChangePolicy", &["Recursive"], at, found);
}

/// `securityContext` of a container.
pub fn container(container: &Value, host_users: bool, at: At<'_>, found: &mut Found) {
    let Some(context) = container.get("securityContext") else { return };
    for field in ["runAsUser", "runAsGroup"] {
        between(context, field, 0, ID_MAX, at, found);
    }
    one_of(context, "procMount", &["Default", "Unmasked"], at, found);
    if host_users && path::text(context, "procMount") == "Unmasked" {
        let detail = "`hostUsers` must be false to use `Unmasked`";
        found.push(Violation::invalid(at.field("procMount"), "Unmasked", detail));
    }
    seccomp(context, at, found);
    if context.get("allowPrivilegeEscalation").and_then(Value::as_bool) == Some(false) {
        if path::bool(context, "privileged") {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            found.push(Violation::invalid(at, context, detail));
        }
        let added = path::list(context, "capabilities.add");
        for _ in added.iter().filter(|one| **one == "CAP_SYS_ADMIN") {
            let detail =
                "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            found.push(Violation::invalid(at, context, detail));
        }
    }
    windows(context, at, found);
    if let Some(profile) = context.get("appArmorProfile") {
        apparmor(profile, at.field("appArmorProfile"), found);
    }
}

fn seccomp(context: &Value, at: At<'_>, found: &mut Found) {
    let Some(profile) = context.get("seccompProfile") else { return };
    let at = at.field("seccompProfile");
    let (kind, local) = (path::text(profile, "type"), profile.get("localhostProfile"));
    if kind.is_empty() {
        found.push(Violation::required(at.field("type"), "type is required when seccompProfile is set"));
    } else {
        one_of(profile, "type", &["Localhost", "RuntimeDefault", "Unconfined"], at, found);
    }
    match (kind == "Localhost", local.and_then(Value::as_str)) {
        (true, None) => {
            let detail = "must be set when seccomp type is Localhost";
            found.push(Violation::required(at.field("localhostProfile"), detail));
        }
        (true, Some(text)) => super::check::relative_path(text, at.field("localhostProfile"), found),
        (false, Some(_)) => {
            let detail = "can only be set when seccomp type is Localhost";
            found.push(Violation::invalid(at.field("localhostProfile"), profile, detail));
        }
        (false, None) => {}
    }
}

/// An AppArmor profile of a pod or a container.
pub fn apparmor(profile: &Value, at: At<'_>, found: &mut Found) {
    const MISSING: &str = "must be set when AppArmor type is Localhost";
    let local = profile.get("localhostProfile").and_then(Value::as_str);
    let at_local = at.field("localhostProfile");
    match path::text(profile, "type") {
        "" => {
            found.push(Violation::required(at.field("type"), "type is required when appArmorProfile is set"))
        }
        "Localhost" => match local {
            None => found.push(Violation::required(at_local, MISSING)),
            Some(text) => {
                if text.trim() != text {
                    let detail = "must not be padded with whitespace";
                    found.push(Violation::invalid(at_local, text, detail));
                } else if text.is_empty() {
                    found.push(Violation::required(at_local, MISSING));
                }
                if text.len() > APPARMOR_MAX_BYTES {
                    found.push(Violation::too_long(at_local, APPARMOR_MAX_BYTES));
                }
            }
        },
        "RuntimeDefault" | "Unconfined" => {
            if let Some(text) = local {
                let detail = "can only be set when AppArmor type is Localhost";
                found.push(Violation::invalid(at_local, text, detail));
            }
        }
        other => {
            let supported = ["Localhost", "RuntimeDefault", "Unconfined"];
            found.push(Violation::not_supported(at.field("type"), other, &supported));
        }
    }
}

fn sysctls(context: &Value, spec: &Value, at: At<'_>, found: &mut Found) {
    let sysctls = path::list(context, "sysctls");
    let mut seen = Seen::default();
    for (index, sysctl) in sysctls.iter().enumerate() {
        let at = at.field("sysctls");
        let at = at.index(index);
        let name = path::text(sysctl, "name");
        if !required(sysctl, "name", at, found) {
            continue;
        }
        let at = at.field("name");
        let dotted = name.replace('/', ".");
        if name.len() > SYSCTL_MAX_BYTES || !dotted.split('.').all(is_sysctl_part) {
            found.push(Violation::invalid(at, name, SYSCTL_FORM));
        } else if seen.repeats(name) {
            found.push(Violation::duplicate(at, name));
        }
        if path::bool(spec, "hostNetwork") && dotted.starts_with("net.") {
            found.push(Violation::invalid(at, name, "may not be specified when 'hostNetwork' is true"));
        }
        let is_ipc = IPC_SYSCTLS.contains(&dotted.as_str()) || dotted.starts_with("fs.mqueue.");
        if path::bool(spec, "hostIPC") && is_ipc {
            found.push(Violation::invalid(at, name, "may not be specified when 'hostIPC' is true"));
        }
    }
}

fn is_sysctl_part(part: &str) -> bool {
    let is_edge = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = part.as_bytes();
    bytes.first().is_some_and(is_edge)
        && bytes.last().is_some_and(is_edge)
        && bytes.iter().all(|byte| is_edge(byte) || b"-_".contains(byte))
}

fn windows(context: &Value, at: At<'_>, found: &mut Found) {
    let Some(options) = context.get("windowsOptions") else { return };
    let at = at.field("windowsOptions");
    let text = |field: &str| options.get(field).and_then(Value::as_str);
    if let Some(name) = text("gmsaCredentialSpecName") {
        let at = at.field("gmsaCredentialSpecName");
        found.extend(Violation::all_invalid(at, name, names::dns_subdomain(name)));
    }
    if let Some(credential) = text("gmsaCredentialSpec") {
        let at = at.field("gmsaCredentialSpec");
        if credential.is_empty() {
            found.push(Violation::invalid(at, "", "gmsaCredentialSpec cannot be an empty string"));
        } else if credential.len() > CREDENTIAL_MAX_KIB * 1024 {
            let detail = format!("gmsaCredentialSpec size must be under {CREDENTIAL_MAX_KIB} KiB");
            found.push(Violation::invalid(at, credential, detail));
        }
    }
    if let Some(name) = text("runAsUserName") {
        let wrong = user_name(name).into_iter().map(|wrong| format!("runAsUserName{wrong}"));
        found.extend(Violation::all_invalid(at.field("runAsUserName"), name, wrong.collect()));
    }
}

/// What is wrong with `DOMAIN\\user` or `user`.
fn user_name(name: &str) -> Vec<String> {
    if name.is_empty() {
        return vec![" cannot be an empty string".into()];
    }
    if name.bytes().any(|byte| byte.is_ascii_control()) {
        return vec![" cannot contain control characters".into()];
    }
    let (domain, user) = match name.split_once('\\') {
        Some((_, user)) if user.contains('\\') => {
            return vec![" cannot contain more than one backslash".into()];
        }
        Some((domain, user)) => (Some(domain), user),
        None => (None, name),
    };
    let mut wrong = Vec::new();
    if domain.is_some_and(|domain| domain.len() >= DOMAIN_MAX_CHARACTERS) {
        wrong.push(format!("'s Domain length must be under {DOMAIN_MAX_CHARACTERS} characters"));
    }
    if domain.is_some_and(|domain| !is_net_bios(domain) && !is_dns(domain)) {
        wrong.push("'s Domain doesn't match the NetBios nor the DNS format".into());
    }
    if user.is_empty() {
        wrong.push("'s User cannot be empty".into());
    } else if user.len() > USER_MAX_CHARACTERS {
        wrong.push(format!("'s User length must not be longer than {USER_MAX_CHARACTERS} characters"));
    }
    if !user.is_empty() && user.chars().all(|c| c == '.' || c == ' ') {
        wrong.push("'s User cannot contain only periods or spaces".into());
    }
    if user.contains(['"', '/', '\\', ':', ';', '|', '=', ',', '+', '*', '?', '<', '>', '@', '[', ']']) {
        wrong.push(r#"'s User cannot contain the following characters: "/\:;|=,+*?<>@[]"#.into());
    }
    wrong
}

fn is_net_bios(domain: &str) -> bool {
    let is_odd = |c: char| matches!(c, '\\' | '/' | ':' | '*' | '?' | '"' | '<' | '>' | '|');
    (1..=15).contains(&domain.chars().count()) && !domain.contains(is_odd) && !domain.starts_with('.')
}

/// Labels of letters, digits and dashes between dots.
fn is_dns(domain: &str) -> bool {
    let is_edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    domain.split('.').all(|label| {
        let bytes = label.as_bytes();
        let is_inner = bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-');
        is_inner && is_edge(bytes.first()) && is_edge(bytes.last())
    })
}
