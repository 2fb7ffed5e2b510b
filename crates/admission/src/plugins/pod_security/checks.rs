//! Every check of the Pod Security Standards, with the versions of the policy in which it holds:
//! <https://kubernetes.io/docs/concepts/security/pod-security-standards/>
//!
//! Those of baseline first, then those of restricted, either in the order of upstream's ids: so they are reported.

use std::collections::BTreeSet;

use schema::path;
use serde_json::Value;

use super::Level;
use crate::pod::all_containers;

pub(super) struct Check {
    pub level: Level,
    /// The first minor version of the policy that has it.
    pub since: u32,
    /// From this minor version on, the restricted level has a stricter check in its place.
    pub replaced_since: u32,
    /// What is wrong with a pod (or a template) by that minor version of the policy, if something is.
    pub find: fn(&Value, u32) -> Option<Finding>,
}

/// `reason` alone where many pods are told about, `reason (detail)` for one.
pub(super) struct Finding {
    pub reason: &'static str,
    pub detail: String,
}

const NEVER: u32 = u32::MAX;

const fn baseline(since: u32, find: fn(&Value, u32) -> Option<Finding>) -> Check {
    Check { level: Level::Baseline, since, replaced_since: NEVER, find }
}

const fn restricted(since: u32, find: fn(&Value, u32) -> Option<Finding>) -> Check {
    Check { level: Level::Restricted, ..baseline(since, find) }
}

/// The newest version that changes something: `latest`, and whatever is newer, mean this.
pub(super) const NEWEST: u32 = 35;

pub(super) static CHECKS: &[Check] = &[
    baseline(0, app_armor),
    Check { replaced_since: 22, ..baseline(0, baseline_capabilities) },
    baseline(0, host_namespaces),
    Check { replaced_since: 0, ..baseline(0, host_path) },
    baseline(0, host_port),
    baseline(34, probe_host),
    baseline(0, privileged),
    Check { replaced_since: 35, ..baseline(0, baseline_proc_mount) },
    baseline(0, selinux),
    Check { replaced_since: 19, ..baseline(0, baseline_seccomp) },
    baseline(0, sysctls),
    baseline(0, host_process),
    restricted(8, privilege_escalation),
    restricted(22, restricted_capabilities),
    restricted(35, proc_mount),
    restricted(0, volume_types),
    restricted(0, run_as_non_root),
    restricted(23, run_as_user),
    restricted(19, restricted_seccomp),
];

fn name(container: &Value) -> &str {
    path::text(container, "name")
}

fn quoted<'a>(items: impl IntoIterator<Item = &'a str>) -> String {
    items.into_iter().map(|item| format!("\"{item}\"")).collect::<Vec<_>>().join(", ")
}

/// `container "a"`, `containers "a", "b"`
fn told(what: &str, names: &[&str]) -> String {
    format!("{what}{} {}", if names.len() == 1 { "" } else { "s" }, quoted(names.iter().copied()))
}

/// The containers that are wrong, and the end of the sentence about them.
fn containers(pod: &Value, end: &str, is_wrong: impl Fn(&Value) -> bool) -> Option<String> {
    let names: Vec<&str> = all_containers(pod).filter(|container| is_wrong(container)).map(name).collect();
    (!names.is_empty()).then(|| format!("{} {end}", told("container", &names)))
}

/// Who is wrong: `pod and containers "a", "b"`, each asked by its `securityContext`.
fn setters(pod: &Value, mut is_wrong: impl FnMut(&Value) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    if is_wrong(&pod["spec"]["securityContext"]) {
        found.push("pod".to_owned());
    }
    let names: Vec<&str> =
        all_containers(pod).filter(|container| is_wrong(&container["securityContext"])).map(name).collect();
    if !names.is_empty() {
        found.push(told("container", &names));
    }
    found
}

fn finding(reason: &'static str, detail: Option<String>) -> Option<Finding> {
    detail.map(|detail| Finding { reason, detail })
}

/// What the pod and its containers set, as a sentence: `pod and container "a" must not …`.
fn set_by(reason: &'static str, setters: &[String], end: &str) -> Option<Finding> {
    (!setters.is_empty()).then(|| Finding { reason, detail: format!("{} {end}", setters.join(" and ")) })
}

/// On Windows these fields cannot be set; policies before 1.25 asked for them all the same.
fn is_exempt_windows(pod: &Value, minor: u32) -> bool {
    minor >= 25 && path::text(pod, "spec.os.name") == "windows"
}

/// KEP-127: root of a user namespace of its own is nobody on the node.
fn has_own_users(pod: &Value, minor: u32) -> bool {
    minor >= 35 && pod["spec"]["hostUsers"] == false
}

fn privilege_escalation(pod: &Value, minor: u32) -> Option<Finding> {
    if is_exempt_windows(pod, minor) {
        return None;
    }
    let end = "must set securityContext.allowPrivilegeEscalation=false";
    let wrong = |container: &Value| container["securityContext"]["allowPrivilegeEscalation"] != false;
    finding("allowPrivilegeEscalation != false", containers(pod, end, wrong))
}

fn app_armor(pod: &Value, _: u32) -> Option<Finding> {
    const ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";
    let mut values = BTreeSet::new();
    let mut setters = setters(pod, |context| {
        let kind = path::text(context, "appArmorProfile.type");
        let wrong = context["appArmorProfile"].is_object() && !matches!(kind, "RuntimeDefault" | "Localhost");
        if wrong {
            values.insert(kind.to_owned());
        }
        wrong
    });
    let mut annotations: Vec<String> = path::members(pod, "metadata.annotations")
        .filter(|(key, _)| key.starts_with(ANNOTATION))
        .filter_map(|(key, value)| Some((key, value.as_str()?)))
        .filter(|(_, value)| !matches!(*value, "" | "runtime/default") && !value.starts_with("localhost/"))
        .map(|(key, value)| format!("{key}={value:?}"))
        .collect();
    annotations.sort_unstable();
    if !annotations.is_empty() {
        setters.push(if annotations.len() == 1 { "annotation" } else { "annotations" }.to_owned());
    }
    let values: Vec<String> = values.into_iter().chain(annotations).collect();
    let reason = if values.len() == 1 { "forbidden AppArmor profile" } else { "forbidden AppArmor profiles" };
    let values = quoted(values.iter().map(String::as_str));
    set_by(reason, &setters, &format!("must not set AppArmor profile type to {values}"))
}

const DEFAULT_CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

fn added(container: &Value) -> impl Iterator<Item = &str> {
    path::list(container, "securityContext.capabilities.add").iter().filter_map(Value::as_str)
}

fn wrong_capabilities(pod: &Value, allowed: &[&str]) -> Option<String> {
    let is_wrong = |capability: &str| !allowed.contains(&capability);
    let wrong: BTreeSet<&str> = all_containers(pod).flat_map(added).filter(|held| is_wrong(held)).collect();
    let end = format!("must not include {} in securityContext.capabilities.add", quoted(wrong));
    containers(pod, &end, |container| added(container).any(is_wrong))
}

fn baseline_capabilities(pod: &Value, _: u32) -> Option<Finding> {
    finding("non-default capabilities", wrong_capabilities(pod, &DEFAULT_CAPABILITIES))
}

fn restricted_capabilities(pod: &Value, minor: u32) -> Option<Finding> {
    if is_exempt_windows(pod, minor) {
        return None;
    }
    let keeps = containers(pod, "must set securityContext.capabilities.drop=[\"ALL\"]", |container| {
        !path::list(container, "securityContext.capabilities.drop").iter().any(|held| held == "ALL")
    });
    let wrong = wrong_capabilities(pod, &["NET_BIND_SERVICE"]);
    let parts: Vec<String> = keeps.into_iter().chain(wrong).collect();
    finding("unrestricted capabilities", (!parts.is_empty()).then(|| parts.join("; ")))
}

fn host_namespaces(pod: &Value, _: u32) -> Option<Finding> {
    let held: Vec<String> = ["hostNetwork", "hostPID", "hostIPC"]
        .into_iter()
        .filter(|field| pod["spec"][field] == true)
        .map(|field| format!("{field}=true"))
        .collect();
    finding("host namespaces", (!held.is_empty()).then(|| held.join(", ")))
}

fn host_path(pod: &Value, _: u32) -> Option<Finding> {
    let volumes = path::list(pod, "spec.volumes").iter();
    let names: Vec<&str> = volumes.filter(|volume| volume.get("hostPath").is_some()).map(name).collect();
    finding("hostPath volumes", (!names.is_empty()).then(|| told("volume", &names)))
}

fn host_port(pod: &Value, _: u32) -> Option<Finding> {
    let ports = |container: &Value| -> Vec<String> {
        let ports = path::list(container, "ports").iter();
        let ports = ports.filter_map(|port| port["hostPort"].as_i64()).filter(|port| *port != 0);
        ports.map(|port| port.to_string()).collect()
    };
    let all: BTreeSet<String> = all_containers(pod).flat_map(ports).collect();
    let all: Vec<String> = all.into_iter().collect();
    let names: Vec<&str> =
        all_containers(pod).filter(|container| !ports(container).is_empty()).map(name).collect();
    let word = if all.len() == 1 { "hostPort" } else { "hostPorts" };
    let verb = if names.len() == 1 { "uses" } else { "use" };
    let detail = format!("{} {verb} {word} {}", told("container", &names), all.join(", "));
    finding("hostPort", (!names.is_empty()).then_some(detail))
}

/// The hosts that a container's probes and hooks would call instead of the pod.
fn hosts(container: &Value) -> impl Iterator<Item = &str> {
    const HANDLERS: [&str; 5] =
        ["livenessProbe", "readinessProbe", "startupProbe", "lifecycle.postStart", "lifecycle.preStop"];
    let handlers = HANDLERS.into_iter().filter_map(|handler| path::get(container, handler));
    let actions = handlers.flat_map(|handler| [&handler["httpGet"], &handler["tcpSocket"]]);
    actions.filter_map(|action| action["host"].as_str()).filter(|host| !host.is_empty())
}

fn probe_host(pod: &Value, _: u32) -> Option<Finding> {
    let names: BTreeSet<&str> =
        all_containers(pod).filter(|container| hosts(container).next().is_some()).map(name).collect();
    let names: Vec<&str> = names.into_iter().collect();
    let hosts: BTreeSet<&str> = all_containers(pod).flat_map(hosts).collect();
    let verb = if names.len() == 1 { "uses" } else { "use" };
    let word = if hosts.len() == 1 { "host" } else { "hosts" };
    let detail = format!("{} {verb} probe or lifecycle {word} {}", told("container", &names), quoted(hosts));
    finding("probe or lifecycle host", (!names.is_empty()).then_some(detail))
}

fn privileged(pod: &Value, _: u32) -> Option<Finding> {
    let end = "must not set securityContext.privileged=true";
    finding(
        "privileged",
        containers(pod, end, |container| container["securityContext"]["privileged"] == true),
    )
}

fn baseline_proc_mount(pod: &Value, minor: u32) -> Option<Finding> {
    if has_own_users(pod, minor) {
        return None;
    }
    proc_mount(pod, minor)
}

fn proc_mount(pod: &Value, _: u32) -> Option<Finding> {
    let kind = |container: &Value| -> Option<String> {
        let kind = container["securityContext"]["procMount"].as_str()?;
        (kind != "Default").then(|| kind.to_owned())
    };
    let kinds: BTreeSet<String> = all_containers(pod).filter_map(kind).collect();
    let kinds = quoted(kinds.iter().map(String::as_str));
    let end = format!("must not set securityContext.procMount to {kinds}");
    finding("procMount", containers(pod, &end, |container| kind(container).is_some()))
}

const VOLUME_TYPES: [&str; 9] = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
];

fn volume_types(pod: &Value, _: u32) -> Option<Finding> {
    let kind = |volume: &Value| -> Option<String> {
        let kind = volume.as_object()?.keys().find(|field| *field != "name")?;
        (!VOLUME_TYPES.contains(&kind.as_str())).then(|| kind.clone())
    };
    let wrong: Vec<(&str, String)> = path::list(pod, "spec.volumes")
        .iter()
        .filter_map(|volume| Some((name(volume), kind(volume)?)))
        .collect();
    let kinds: BTreeSet<&str> = wrong.iter().map(|(_, kind)| kind.as_str()).collect();
    let names: Vec<&str> = wrong.iter().map(|(name, _)| *name).collect();
    let verb = if names.len() == 1 { "uses" } else { "use" };
    let word = if kinds.len() == 1 { "type" } else { "types" };
    let detail = format!("{} {verb} restricted volume {word} {}", told("volume", &names), quoted(kinds));
    finding("restricted volume types", (!names.is_empty()).then_some(detail))
}

fn run_as_non_root(pod: &Value, minor: u32) -> Option<Finding> {
    const REASON: &str = "runAsNonRoot != true";
    if has_own_users(pod, minor) {
        return None;
    }
    let setters = setters(pod, |context| context["runAsNonRoot"] == false);
    if !setters.is_empty() {
        return set_by(REASON, &setters, "must not set securityContext.runAsNonRoot=false");
    }
    if pod["spec"]["securityContext"]["runAsNonRoot"] == true {
        return None;
    }
    let silent = containers(pod, "must set securityContext.runAsNonRoot=true", |container| {
        container["securityContext"]["runAsNonRoot"].as_bool().is_none()
    })?;
    finding(REASON, Some(format!("pod or {silent}")))
}

fn run_as_user(pod: &Value, minor: u32) -> Option<Finding> {
    if has_own_users(pod, minor) {
        return None;
    }
    set_by("runAsUser=0", &setters(pod, |context| context["runAsUser"] == 0), "must not set runAsUser=0")
}

fn selinux(pod: &Value, minor: u32) -> Option<Finding> {
    let is_allowed = |kind: &str| match kind {
        "" | "container_t" | "container_init_t" | "container_kvm_t" => true,
        "container_engine_t" => minor >= 31,
        _ => false,
    };
    let (mut kinds, mut user, mut role) = (BTreeSet::new(), false, false);
    let setters = setters(pod, |context| {
        let text = |field| context["seLinuxOptions"][field].as_str().unwrap_or_default();
        let wrong = [!is_allowed(text("type")), !text("user").is_empty(), !text("role").is_empty()];
        if wrong[0] {
            kinds.insert(text("type").to_owned());
        }
        user |= wrong[1];
        role |= wrong[2];
        wrong.contains(&true)
    });
    let mut parts = Vec::new();
    if !kinds.is_empty() {
        let kinds: Vec<&str> = kinds.iter().map(String::as_str).collect();
        parts.push(told("type", &kinds));
    }
    parts.extend(user.then(|| "user may not be set".to_owned()));
    parts.extend(role.then(|| "role may not be set".to_owned()));
    let end = format!("set forbidden securityContext.seLinuxOptions: {}", parts.join("; "));
    set_by("seLinuxOptions", &setters, &end)
}

/// The pod and the containers whose profile is neither the runtime's nor one of the node's.
fn wrong_seccomp(pod: &Value) -> Option<Finding> {
    let mut kinds = BTreeSet::new();
    let setters = setters(pod, |context| {
        let kind = path::text(context, "seccompProfile.type");
        let wrong = context["seccompProfile"].is_object() && !matches!(kind, "RuntimeDefault" | "Localhost");
        if wrong {
            kinds.insert(kind.to_owned());
        }
        wrong
    });
    let kinds = quoted(kinds.iter().map(String::as_str));
    set_by(
        "seccompProfile",
        &setters,
        &format!("must not set securityContext.seccompProfile.type to {kinds}"),
    )
}

fn baseline_seccomp(pod: &Value, minor: u32) -> Option<Finding> {
    if minor < 19 { seccomp_annotations(pod) } else { wrong_seccomp(pod) }
}

/// Before 1.19 profiles were annotations.
fn seccomp_annotations(pod: &Value) -> Option<Finding> {
    const OF_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
    const OF_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
    let is_allowed = |value: &str| {
        matches!(value, "runtime/default" | "docker/default") || value.starts_with("localhost/")
    };
    let keys = all_containers(pod).map(|container| format!("{OF_CONTAINER}{}", name(container)));
    let wrong: BTreeSet<String> = std::iter::once(OF_POD.to_owned())
        .chain(keys)
        .filter_map(|key| {
            let value = pod["metadata"]["annotations"][&key].as_str()?;
            (!is_allowed(value)).then(|| format!("{key}={value:?}"))
        })
        .collect();
    let wrong: Vec<String> = wrong.into_iter().collect();
    let word = if wrong.len() == 1 { "annotation" } else { "annotations" };
    let detail = format!("forbidden {word} {}", wrong.join(", "));
    finding("seccompProfile", (!wrong.is_empty()).then_some(detail))
}

fn restricted_seccomp(pod: &Value, minor: u32) -> Option<Finding> {
    if is_exempt_windows(pod, minor) {
        return None;
    }
    let wrong = wrong_seccomp(pod);
    if wrong.is_some() || pod["spec"]["securityContext"]["seccompProfile"].is_object() {
        return wrong;
    }
    let end = "must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"";
    let silent =
        containers(pod, end, |container| !container["securityContext"]["seccompProfile"].is_object())?;
    finding("seccompProfile", Some(format!("pod or {silent}")))
}

/// What does not reach beyond the pod, and the minor version of the policy that knows it.
const SYSCTLS: [(&str, u32); 12] = [
    ("kernel.shm_rmid_forced", 0),
    ("net.ipv4.ip_local_port_range", 0),
    ("net.ipv4.ip_local_reserved_ports", 27),
    ("net.ipv4.ip_unprivileged_port_start", 0),
    ("net.ipv4.ping_group_range", 0),
    ("net.ipv4.tcp_fin_timeout", 29),
    ("net.ipv4.tcp_keepalive_intvl", 29),
    ("net.ipv4.tcp_keepalive_probes", 29),
    ("net.ipv4.tcp_keepalive_time", 29),
    ("net.ipv4.tcp_rmem", 32),
    ("net.ipv4.tcp_syncookies", 0),
    ("net.ipv4.tcp_wmem", 32),
];

fn sysctls(pod: &Value, minor: u32) -> Option<Finding> {
    let is_safe = |name: &str| SYSCTLS.iter().any(|(known, since)| *known == name && minor >= *since);
    let all = path::list(pod, "spec.securityContext.sysctls").iter().map(name);
    let wrong: Vec<&str> = all.filter(|name| !is_safe(name)).collect();
    finding("forbidden sysctls", (!wrong.is_empty()).then(|| wrong.join(", ")))
}

fn host_process(pod: &Value, _: u32) -> Option<Finding> {
    let setters = setters(pod, |context| context["windowsOptions"]["hostProcess"] == true);
    set_by("hostProcess", &setters, "must not set securityContext.windowsOptions.hostProcess=true")
}
