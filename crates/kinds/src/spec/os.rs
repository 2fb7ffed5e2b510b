//! What depends on the system that a pod is for.

use schema::{At, Violation, path};
use serde_json::Value;

use super::check::{Found, required};
use super::pod_spec::each;

const NOT_WINDOWS: &str = "cannot be set for a windows pod";
/// What a pod for Windows may not say of itself, in upstream's order.
const OF_PODS: [&str; 15] = [
    "securityContext.appArmorProfile",
    "securityContext.seLinuxOptions",
    "hostUsers",
    "hostPID",
    "hostIPC",
    "securityContext.seccompProfile",
    "securityContext.fsGroup",
    "securityContext.fsGroupChangePolicy",
    "securityContext.sysctls",
    "shareProcessNamespace",
    "securityContext.runAsUser",
    "securityContext.runAsGroup",
    "securityContext.supplementalGroups",
    "securityContext.supplementalGroupsPolicy",
    "securityContext.seLinuxChangePolicy",
];
/// And of a container.
const OF_CONTAINERS: [&str; 10] = [
    "appArmorProfile",
    "seLinuxOptions",
    "seccompProfile",
    "capabilities",
    "readOnlyRootFilesystem",
    "privileged",
    "allowPrivilegeEscalation",
    "procMount",
    "runAsUser",
    "runAsGroup",
];

/// `spec.os`, and what may not be said beside it.
pub fn validate(spec: &Value, at: At<'_>, found: &mut Found) {
    let Some(os) = spec.get("os") else { return };
    match path::text(os, "name") {
        "" => {
            required(os, "name", at.field("os"), found);
        }
        "linux" => linux(spec, at, found),
        "windows" => windows(spec, at, found),
        other => found.push(Violation::not_supported(at.field("os"), other, &["linux", "windows"])),
    }
}

fn linux(spec: &Value, at: At<'_>, found: &mut Found) {
    let detail = "windows options cannot be set for a linux pod";
    if path::get(spec, "securityContext.windowsOptions").is_some() {
        found.push(Violation::forbidden(at.field("securityContext.windowsOptions"), detail));
    }
    for (list, index, container) in each(spec) {
        if path::get(container, "securityContext.windowsOptions").is_some() {
            let at = at.field(list);
            let at = at.index(index);
            found.push(Violation::forbidden(at.field("securityContext.windowsOptions"), detail));
        }
    }
}

fn windows(spec: &Value, at: At<'_>, found: &mut Found) {
    // What is false or empty has not been said.
    let is_said = |field: &str, value: &Value| match field {
        "hostPID" | "hostIPC" => value == true,
        "securityContext.sysctls" => value.as_array().is_some_and(|all| !all.is_empty()),
        _ => true,
    };
    for field in OF_PODS {
        if path::get(spec, field).is_some_and(|value| is_said(field, value)) {
            found.push(Violation::forbidden(at.field(field), NOT_WINDOWS));
        }
    }
    for (list, index, container) in each(spec) {
        let at = at.field(list);
        let at = at.index(index);
        let at = at.field("securityContext");
        for field in OF_CONTAINERS {
            if container.get("securityContext").is_some_and(|context| context.get(field).is_some()) {
                found.push(Violation::forbidden(at.field(field), NOT_WINDOWS));
            }
        }
    }
}

/// Containers that are processes of a Windows host: all of a pod's or none, and on the host's network.
pub fn host_process(spec: &Value, at: At<'_>, found: &mut Found) {
    let wanted = |holder: &Value| path::get(holder, "securityContext.windowsOptions.hostProcess")?.as_bool();
    let of_pod = wanted(spec);
    let (mut all, mut of_host) = (0, 0);
    for (list, index, container) in each(spec) {
        all += 1;
        let own = wanted(container);
        if let (Some(pod), Some(own)) = (of_pod, own)
            && pod != own
        {
            let at = at.field(list);
            let at = at.index(index);
            let detail = format!("pod hostProcess value must be identical if both are specified, was {pod}");
            let at = at.field("securityContext.windowsOptions.hostProcess");
            found.push(Violation::invalid(at, own, detail));
        }
        if own.or(of_pod) == Some(true) {
            of_host += 1;
        }
    }
    if of_host == 0 {
        return;
    }
    if of_host != all {
        let detail =
            "If pod contains any hostProcess containers then all containers must be HostProcess containers";
        found.push(Violation::invalid(at, "", detail));
    }
    if !path::bool(spec, "hostNetwork") {
        let detail = "hostNetwork must be true if pod contains any hostProcess containers";
        found.push(Violation::invalid(at.field("hostNetwork"), false, detail));
    }
}
