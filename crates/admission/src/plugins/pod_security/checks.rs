//! Every check of the Pod Security Standards, in the order in which upstream reports them.
//! <https://kubernetes.io/docs/concepts/security/pod-security-standards/>

use schema::path;
use serde_json::Value;

use super::Level;
use crate::pod::all_containers;

pub(super) struct Check {
    pub level: Level,
    /// A stricter check of the restricted level stands in for it there.
    pub is_replaced: bool,
    pub reason: &'static str,
    /// What is wrong with the pod, if something is.
    pub find: fn(&Value) -> Option<String>,
}

const fn baseline(reason: &'static str, find: fn(&Value) -> Option<String>) -> Check {
    Check { level: Level::Baseline, is_replaced: false, reason, find }
}

const fn restricted(reason: &'static str, find: fn(&Value) -> Option<String>) -> Check {
    Check { level: Level::Restricted, is_replaced: false, reason, find }
}

pub(super) static CHECKS: &[Check] = &[
    restricted("allowPrivilegeEscalation != false", privilege_escalation),
    baseline("forbidden AppArmor profile", app_armor),
    Check { is_replaced: true, ..baseline("non-default capabilities", baseline_capabilities) },
    restricted("unrestricted capabilities", restricted_capabilities),
    baseline("host namespaces", host_namespaces),
    Check { is_replaced: true, ..baseline("hostPath volumes", host_path) },
    baseline("hostPort", host_port),
    baseline("probe or lifecycle host", probe_host),
    baseline("privileged", privileged),
    baseline("procMount", proc_mount),
    restricted("restricted volume types", volume_types),
    restricted("runAsNonRoot != true", run_as_non_root),
    restricted("runAsUser=0", run_as_user),
    baseline("seLinuxOptions", selinux),
    Check { is_replaced: true, ..baseline("seccompProfile", baseline_seccomp) },
    restricted("seccompProfile", restricted_seccomp),
    baseline("forbidden sysctls", sysctls),
    baseline("hostProcess", host_process),
];

fn name(container: &Value) -> &str {
    path::text(container, "name")
}

/// `container "a"`, `containers "a", "b"`
fn told(what: &str, names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
    format!("{what}{} {}", if names.len() == 1 { "" } else { "s" }, quoted.join(", "))
}

/// The containers that are wrong, and the end of the sentence about them.
fn containers(pod: &Value, end: &str, is_wrong: impl Fn(&Value) -> bool) -> Option<String> {
    let names: Vec<&str> = all_containers(pod).filter(|container| is_wrong(container)).map(name).collect();
    (!names.is_empty()).then(|| format!("{} {end}", told("container", &names)))
}

fn is_windows(pod: &Value) -> bool {
    path::text(pod, "spec.os.name") == "windows"
}

fn joined(parts: Vec<Option<String>>) -> Option<String> {
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}

fn privilege_escalation(pod: &Value) -> Option<String> {
    if is_windows(pod) {
        return None;
    }
    containers(pod, "must set securityContext.allowPrivilegeEscalation=false", |container| {
        container["securityContext"]["allowPrivilegeEscalation"] != false
    })
}

fn app_armor(pod: &Value) -> Option<String> {
    let wrong = |holder: &Value| path::text(holder, "securityContext.appArmorProfile.type") == "Unconfined";
    let end = "must not set securityContext.appArmorProfile.type to \"Unconfined\"";
    joined(vec![wrong(&pod["spec"]).then(|| format!("pod {end}")), containers(pod, end, wrong)])
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
    let names: Vec<&str> =
        all_containers(pod).filter(|container| added(container).any(is_wrong)).map(name).collect();
    let mut wrong: Vec<&str> = all_containers(pod).flat_map(added).filter(|held| is_wrong(held)).collect();
    wrong.sort_unstable();
    wrong.dedup();
    let wrong: Vec<String> = wrong.iter().map(|held| format!("{held:?}")).collect();
    (!names.is_empty()).then(|| {
        format!(
            "{} must not include {} in securityContext.capabilities.add",
            told("container", &names),
            wrong.join(", ")
        )
    })
}

fn baseline_capabilities(pod: &Value) -> Option<String> {
    wrong_capabilities(pod, &DEFAULT_CAPABILITIES)
}

fn restricted_capabilities(pod: &Value) -> Option<String> {
    if is_windows(pod) {
        return None;
    }
    let keeps = containers(pod, "must set securityContext.capabilities.drop=[\"ALL\"]", |container| {
        !path::list(container, "securityContext.capabilities.drop").iter().any(|held| held == "ALL")
    });
    joined(vec![keeps, wrong_capabilities(pod, &["NET_BIND_SERVICE"])])
}

fn host_namespaces(pod: &Value) -> Option<String> {
    let held: Vec<String> = ["hostNetwork", "hostPID", "hostIPC"]
        .into_iter()
        .filter(|field| pod["spec"][field] == true)
        .map(|field| format!("{field}=true"))
        .collect();
    (!held.is_empty()).then(|| held.join(", "))
}

fn host_path(pod: &Value) -> Option<String> {
    let volumes = path::list(pod, "spec.volumes").iter();
    let names: Vec<&str> = volumes.filter(|volume| volume.get("hostPath").is_some()).map(name).collect();
    (!names.is_empty()).then(|| told("volume", &names))
}

fn host_port(pod: &Value) -> Option<String> {
    let ports = |container: &Value| -> Vec<i64> {
        let ports = path::list(container, "ports").iter();
        ports.filter_map(|port| port["hostPort"].as_i64()).filter(|port| *port != 0).collect()
    };
    let names: Vec<&str> =
        all_containers(pod).filter(|container| !ports(container).is_empty()).map(name).collect();
    let mut all: Vec<i64> = all_containers(pod).flat_map(ports).collect();
    all.sort_unstable();
    all.dedup();
    let word = if all.len() == 1 { "hostPort" } else { "hostPorts" };
    let verb = if names.len() == 1 { "uses" } else { "use" };
    let all: Vec<String> = all.iter().map(i64::to_string).collect();
    (!names.is_empty()).then(|| format!("{} {verb} {word} {}", told("container", &names), all.join(", ")))
}

fn probe_host(pod: &Value) -> Option<String> {
    const HANDLERS: [&str; 5] =
        ["livenessProbe", "readinessProbe", "startupProbe", "lifecycle.postStart", "lifecycle.preStop"];
    containers(pod, "must not set a host in probes or lifecycle handlers", |container| {
        HANDLERS.iter().any(|handler| {
            let handler = path::get(container, handler).unwrap_or(&Value::Null);
            ["httpGet", "tcpSocket"].into_iter().any(|action| {
                handler[action]["host"].as_str().is_some_and(|host| !matches!(host, "" | "127.0.0.1" | "::1"))
            })
        })
    })
}

fn privileged(pod: &Value) -> Option<String> {
    containers(pod, "must not set securityContext.privileged=true", |container| {
        container["securityContext"]["privileged"] == true
    })
}

fn proc_mount(pod: &Value) -> Option<String> {
    containers(pod, "must not set securityContext.procMount to \"Unmasked\"", |container| {
        container["securityContext"]["procMount"] == "Unmasked"
    })
}

const VOLUME_TYPES: [&str; 8] = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
];

fn volume_types(pod: &Value) -> Option<String> {
    let kind = |volume: &Value| -> Option<String> {
        let fields = volume.as_object()?;
        let kind = fields.keys().find(|field| *field != "name")?;
        (!VOLUME_TYPES.contains(&kind.as_str()) && kind != "image").then(|| kind.clone())
    };
    let wrong: Vec<(&str, String)> = path::list(pod, "spec.volumes")
        .iter()
        .filter_map(|volume| Some((name(volume), kind(volume)?)))
        .collect();
    let mut kinds: Vec<String> = wrong.iter().map(|(_, kind)| format!("{kind:?}")).collect();
    kinds.sort_unstable();
    kinds.dedup();
    let names: Vec<&str> = wrong.iter().map(|(name, _)| *name).collect();
    let verb = if names.len() == 1 { "uses" } else { "use" };
    let word = if kinds.len() == 1 { "type" } else { "types" };
    (!names.is_empty())
        .then(|| format!("{} {verb} restricted volume {word} {}", told("volume", &names), kinds.join(", ")))
}

fn run_as_non_root(pod: &Value) -> Option<String> {
    let of_pod = &pod["spec"]["securityContext"]["runAsNonRoot"];
    let of = |container: &Value| container["securityContext"]["runAsNonRoot"].as_bool();
    let end = "must not set securityContext.runAsNonRoot=false";
    let explicit = containers(pod, end, |container| of(container) == Some(false));
    if *of_pod == false {
        // Containers that all say true overrule the pod.
        let overruled = all_containers(pod).all(|container| of(container) == Some(true));
        return if overruled { None } else { joined(vec![Some(format!("pod {end}")), explicit]) };
    }
    if explicit.is_some() || *of_pod == true {
        return explicit;
    }
    let silent =
        containers(pod, "must set securityContext.runAsNonRoot=true", |container| of(container).is_none())?;
    Some(format!("pod or {silent}"))
}

fn run_as_user(pod: &Value) -> Option<String> {
    let is_root = |holder: &Value| holder["securityContext"]["runAsUser"] == 0;
    let of_pod = is_root(&pod["spec"]).then(|| "pod must not set runAsUser=0".to_owned());
    joined(vec![of_pod, containers(pod, "must not set runAsUser=0", is_root)])
}

fn selinux(pod: &Value) -> Option<String> {
    const TYPES: [&str; 5] = ["", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"];
    let wrong = |holder: &Value| {
        let options = &holder["securityContext"]["seLinuxOptions"];
        let text = |field| options[field].as_str().unwrap_or_default();
        !TYPES.contains(&text("type")) || !text("user").is_empty() || !text("role").is_empty()
    };
    let of_pod = wrong(&pod["spec"]).then(|| "pod set forbidden securityContext.seLinuxOptions".to_owned());
    joined(vec![of_pod, containers(pod, "set forbidden securityContext.seLinuxOptions", wrong)])
}

fn seccomp(holder: &Value) -> &str {
    path::text(holder, "securityContext.seccompProfile.type")
}

fn baseline_seccomp(pod: &Value) -> Option<String> {
    let end = "must not set securityContext.seccompProfile.type to \"Unconfined\"";
    let wrong = |holder: &Value| seccomp(holder) == "Unconfined";
    joined(vec![wrong(&pod["spec"]).then(|| format!("pod {end}")), containers(pod, end, wrong)])
}

fn restricted_seccomp(pod: &Value) -> Option<String> {
    if is_windows(pod) {
        return None;
    }
    let explicit = baseline_seccomp(pod);
    if explicit.is_some() || !seccomp(&pod["spec"]).is_empty() {
        return explicit;
    }
    let end = "must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"";
    let silent = containers(pod, end, |container| seccomp(container).is_empty())?;
    Some(format!("pod or {silent}"))
}

const SYSCTLS: [&str; 11] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
];

fn sysctls(pod: &Value) -> Option<String> {
    let all = path::list(pod, "spec.securityContext.sysctls").iter().map(name);
    let wrong: Vec<&str> =
        all.filter(|name| !SYSCTLS.contains(name) && *name != "net.ipv4.tcp_syncookies").collect();
    (!wrong.is_empty()).then(|| wrong.join(", "))
}

fn host_process(pod: &Value) -> Option<String> {
    let wrong = |holder: &Value| holder["securityContext"]["windowsOptions"]["hostProcess"] == true;
    let end = "must not set securityContext.windowsOptions.hostProcess=true";
    joined(vec![wrong(&pod["spec"]).then(|| format!("pod {end}")), containers(pod, end, wrong)])
}
