//! Security contexts of pods and of containers.

use schema::{At, Violation, names, path};
use serde_json::Value;

use super::check::{Found, Seen, between, follows, one_of, required};

const ID_MAX: i64 = i32::MAX as i64;
const APPARMOR_MAX_BYTES: usize = 4095;
const SYSCTL_MAX_BYTES: usize = 253;
const SYSCTL_FORM: &str = "must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";

/// `spec.securityContext` of a pod.
pub fn pod(spec: &Value, at: At<'_>, found: &mut Found) {
    let Some(context) = spec.get("securityContext") else { return };
    for field in ["runAsUser", "runAsGroup", "fsGroup"] {
        between(context, field, 0, ID_MAX, at, found);
    }
    for (index, group) in path::list(context, "supplementalGroups").iter().enumerate() {
        let group = group.as_i64().unwrap_or_default();
        let at = at.field("supplementalGroups");
        found.extend(Violation::all_invalid(at.index(index), group, names::between(group, 0, ID_MAX)));
    }
    sysctls(context, spec, at, found);
    one_of(context, "fsGroupChangePolicy", &["Always", "OnRootMismatch"], at, found);
    one_of(context, "supplementalGroupsPolicy", &["Merge", "Strict"], at, found);
    one_of(context, "seLinuxChangePolicy", &["MountOption", "Recursive"], at, found);
    seccomp(context, at, found);
    apparmor(context, at, found);
    windows(context, at, found);
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
    if context.get("allowPrivilegeEscalation").and_then(Value::as_bool) == Some(false) {
        if path::bool(context, "privileged") {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            found.push(Violation::invalid(at, context, detail));
        }
        if path::list(context, "capabilities.add").iter().any(|one| one == "CAP_SYS_ADMIN") {
            let detail =
                "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            found.push(Violation::invalid(at, context, detail));
        }
    }
    seccomp(context, at, found);
    apparmor(context, at, found);
    windows(context, at, found);
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
        (false, Some(text)) => {
            let detail = "can only be set when seccomp type is Localhost";
            found.push(Violation::invalid(at.field("localhostProfile"), text, detail));
        }
        (false, None) => {}
    }
}

fn apparmor(context: &Value, at: At<'_>, found: &mut Found) {
    let Some(profile) = context.get("appArmorProfile") else { return };
    let at = at.field("appArmorProfile");
    let kind = path::text(profile, "type");
    if kind.is_empty() {
        found.push(Violation::required(at.field("type"), "type is required when appArmorProfile is set"));
    } else {
        one_of(profile, "type", &["Localhost", "RuntimeDefault", "Unconfined"], at, found);
    }
    let local = profile.get("localhostProfile").and_then(Value::as_str);
    let at = at.field("localhostProfile");
    match (kind == "Localhost", local) {
        (true, None) => found.push(Violation::required(at, "must be set when AppArmor type is Localhost")),
        (true, Some(text)) if text.trim() != text => {
            found.push(Violation::invalid(at, text, "must not be padded with whitespace"));
        }
        (true, Some("")) => {
            found.push(Violation::required(at, "must be set when AppArmor type is Localhost"))
        }
        (true, Some(text)) if text.len() > APPARMOR_MAX_BYTES => {
            found.push(Violation::too_long(at, APPARMOR_MAX_BYTES));
        }
        (false, Some(text)) => {
            found.push(Violation::invalid(at, text, "can only be set when AppArmor type is Localhost"));
        }
        _ => {}
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
        let is_ipc = ["kernel.shm", "kernel.msg", "fs.mqueue."].iter().any(|one| dotted.starts_with(one));
        if path::bool(spec, "hostIPC") && (is_ipc || dotted == "kernel.sem") {
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
    follows(options, "gmsaCredentialSpecName", names::dns_subdomain, at, found);
    for field in ["gmsaCredentialSpec", "runAsUserName"] {
        if options.get(field).and_then(Value::as_str) == Some("") {
            found.push(Violation::invalid(at.field(field), "", format!("{field} cannot be an empty string")));
        }
    }
}
