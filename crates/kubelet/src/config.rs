//! What the runtime is told: a sandbox's and a container's configuration.

use std::collections::BTreeMap;
use std::path::PathBuf;

use plan::node::{
    ContainerConfig, DnsConfig, HostAlias, ImageVolume, Mount, MountPropagation, NamespaceOptions, ProcMount,
    SandboxConfig, Seccomp, SecurityContext, SupplementalGroupsPolicy,
};
use plan::pod::Start;
use serde_json::Value;

use crate::claims;
use crate::env::{self, Facts};
use crate::lifecycle::handler;
use crate::pod::{Container, Pod, SeccompProfile, Volume};
use crate::resources::{cgroup_parent, container_resources, pod_resources};

/// Annotations of a container that the kubelet reads back after a restart.
pub const BACKOFF_SECONDS: &str = "ekso.dev/restart-backoff-seconds";
pub const SPEC_HASH: &str = "ekso.dev/container-hash";
pub const TERMINATION_POLICY: &str = "ekso.dev/termination-message-policy";

pub fn sandbox(facts: &Facts, attempt: u32) -> SandboxConfig {
    let Pod { metadata, spec, .. } = facts.pod;
    SandboxConfig {
        pod_uid: metadata.uid.clone(),
        namespace: metadata.namespace.clone(),
        name: metadata.name.clone(),
        attempt,
        hostname: hostname(facts),
        host_names: domain_name(facts).into_iter().chain([short_name(facts)]).collect(),
        dns: dns(facts),
        host_aliases: spec
            .host_aliases
            .iter()
            .map(|alias| HostAlias { ip: alias.ip.clone(), hostnames: alias.hostnames.clone() })
            .collect(),
        namespaces: NamespaceOptions {
            host_network: spec.host_network,
            host_pid: spec.host_pid,
            host_ipc: spec.host_ipc,
            share_process_namespace: spec.share_process_namespace,
        },
        netns_path: None,
        sysctls: spec
            .security_context
            .sysctls
            .iter()
            .map(|one| (one.name.clone(), one.value.clone()))
            .collect(),
        log_directory: facts
            .node
            .logs_dir
            .join(format!("{}_{}_{}", metadata.namespace, metadata.name, metadata.uid)),
        cgroup_parent: cgroup_parent(facts.pod),
        resources: pod_resources(facts.pod),
        labels: metadata.labels.clone(),
        annotations: BTreeMap::new(),
    }
}

/// The pod's hostname: its own, else its name, cut to 63 bytes.
fn hostname(facts: &Facts) -> String {
    let spec = &facts.pod.spec;
    if spec.host_network {
        return facts.node.name.clone();
    }
    let full = if spec.set_hostname_as_fqdn { domain_name(facts) } else { None };
    full.unwrap_or_else(|| short_name(facts))
}

fn short_name(facts: &Facts) -> String {
    let Pod { metadata, spec, .. } = facts.pod;
    let name = if spec.hostname.is_empty() { &metadata.name } else { &spec.hostname };
    name.chars().take(63).collect::<String>().trim_end_matches(['-', '.']).to_owned()
}

/// Of a pod with a subdomain: <https://kubernetes.io/docs/concepts/services-networking/dns-pod-service/#pod-hostname-and-subdomain-field>
fn domain_name(facts: &Facts) -> Option<String> {
    let Pod { metadata, spec, .. } = facts.pod;
    let (subdomain, domain) = (&spec.subdomain, &facts.node.cluster_domain);
    (!subdomain.is_empty())
        .then(|| format!("{}.{subdomain}.{}.svc.{domain}", short_name(facts), metadata.namespace))
}

/// <https://kubernetes.io/docs/concepts/services-networking/dns-pod-service/#pod-s-dns-policy>
fn dns(facts: &Facts) -> DnsConfig {
    let spec = &facts.pod.spec;
    let from_cluster = match spec.dns_policy.as_str() {
        "ClusterFirstWithHostNet" => true,
        "Default" | "None" => false,
        _ => !spec.host_network,
    };
    let mut config = DnsConfig::default();
    if from_cluster {
        let domain = &facts.node.cluster_domain;
        config.servers.push(facts.node.cluster_dns.to_string());
        config.searches = vec![
            format!("{}.svc.{domain}", facts.pod.metadata.namespace),
            format!("svc.{domain}"),
            domain.clone(),
        ];
        config.options.push("ndots:5".into());
    } else if spec.dns_policy != "None" {
        config.servers = facts.node.resolver.servers.clone();
        config.searches = facts.node.resolver.searches.clone();
        config.options = facts.node.resolver.options.clone();
    }
    config.servers.extend(spec.dns_config.nameservers.iter().cloned());
    config.searches.extend(spec.dns_config.searches.iter().cloned());
    for option in &spec.dns_config.options {
        let text =
            option.value.as_ref().map_or(option.name.clone(), |value| format!("{}:{value}", option.name));
        config.options.retain(|held| held.split(':').next() != Some(option.name.as_str()));
        config.options.push(text);
    }
    config
}

/// Everything about starting a container, or (reason, message) of why it cannot be.
pub fn start(
    facts: &Facts,
    container: &Container,
    sandbox_id: &str,
    attempt: u32,
    backoff_seconds: i64,
) -> Result<Start, (&'static str, String)> {
    let config_error = |message: String| ("CreateContainerConfigError", message);
    let env = env::environment(facts, container).map_err(config_error)?;
    let value_of =
        |name: &str| env.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.clone());
    let expand = |words: &[String]| words.iter().map(|word| env::expand(word, value_of)).collect::<Vec<_>>();
    let Mounts { mounts, subpaths, images } = mounts(facts, container, &value_of).map_err(config_error)?;
    let annotations = BTreeMap::from([
        (BACKOFF_SECONDS.to_owned(), backoff_seconds.to_string()),
        (SPEC_HASH.to_owned(), spec_hash(container)),
        (TERMINATION_POLICY.to_owned(), container.termination_message_policy.clone()),
    ]);
    let config = ContainerConfig {
        name: container.name.clone(),
        attempt,
        image: container.image.clone(),
        command: expand(&container.command),
        args: expand(&container.args),
        working_dir: container.working_dir.clone(),
        mounts,
        devices: Vec::new(),
        resources: container_resources(facts.pod, container, facts.node),
        security: security(facts, container),
        tty: container.tty,
        stdin: container.stdin,
        stdin_once: container.stdin_once,
        log_path: format!("{}/{attempt}.log", container.name),
        stop_signal: container.lifecycle.stop_signal.clone(),
        termination_message_path: container.termination_message_path.clone(),
        annotations,
        env,
        ..ContainerConfig::default()
    };
    let pod_ip = facts.pod_ips.first().map_or("", String::as_str);
    let post_start =
        container.lifecycle.post_start.as_ref().and_then(|spec| handler(spec, container, pod_ip));
    let pod_security = &facts.pod.spec.security_context;
    let must_not_be_root =
        container.security_context.run_as_non_root.or(pod_security.run_as_non_root).unwrap_or(false);
    Ok(Start { sandbox_id: sandbox_id.to_owned(), config, subpaths, images, must_not_be_root, post_start })
}

/// A change of it means that the container must be replaced: of what may change in place, only the image matters.
pub fn spec_hash(container: &Container) -> String {
    container.image.clone()
}

/// What of the pod's volumes a container sees.
#[derive(Default)]
struct Mounts {
    mounts: Vec<Mount>,
    /// Of `mounts`, by index.
    subpaths: BTreeMap<usize, String>,
    /// Images by their names; their layers are found when the container is made.
    images: Vec<(String, ImageVolume)>,
}

fn mounts(
    facts: &Facts,
    container: &Container,
    value_of: &dyn Fn(&str) -> Option<String>,
) -> Result<Mounts, String> {
    let mut found = Mounts::default();
    for wanted in &container.volume_mounts {
        let volume = facts
            .pod
            .spec
            .volumes
            .iter()
            .find(|volume| volume.name == wanted.name)
            .ok_or_else(|| format!("volume {} not found", wanted.name))?;
        let subpath = if wanted.sub_path_expr.is_empty() {
            wanted.sub_path.clone()
        } else {
            env::expand(&wanted.sub_path_expr, value_of)
        };
        if let Some(image) = &volume.image {
            let (container_path, layers) = (wanted.mount_path.clone(), Vec::new());
            let mounted = ImageVolume { layers, container_path, sub_path: subpath };
            found.images.push((image.reference.clone(), mounted));
            continue;
        }
        if !subpath.is_empty() {
            found.subpaths.insert(found.mounts.len(), subpath);
        }
        found.mounts.push(Mount {
            host_path: volume_path(facts, volume)?,
            container_path: wanted.mount_path.clone(),
            read_only: wanted.read_only || is_always_read_only(volume),
            recursive_read_only: matches!(wanted.recursive_read_only.as_str(), "Enabled" | "IfPossible"),
            propagation: match wanted.mount_propagation.as_str() {
                "HostToContainer" => MountPropagation::HostToContainer,
                "Bidirectional" => MountPropagation::Bidirectional,
                _ => MountPropagation::None,
            },
        });
    }
    Ok(found)
}

/// Files that the kubelet replaces are not the container's to write, nor is a claim that the pod takes to read.
fn is_always_read_only(volume: &Volume) -> bool {
    volume.config_map.is_some()
        || volume.secret.is_some()
        || volume.downward_api.is_some()
        || volume.projected.is_some()
        || volume.persistent_volume_claim.as_ref().is_some_and(|claim| claim.read_only)
}

fn volume_path(facts: &Facts, volume: &Volume) -> Result<PathBuf, String> {
    if let Some(claim) = claims::claim_name(facts.pod, volume) {
        return claims::bound(facts, volume, &claim).map(|bound| bound.path);
    }
    Ok(match &volume.host_path {
        Some(host) => PathBuf::from(&host.path),
        None => facts.node.volumes_dir(&facts.pod.metadata.uid).join(&volume.name),
    })
}

fn security(facts: &Facts, container: &Container) -> SecurityContext {
    let pod = &facts.pod.spec.security_context;
    let own = &container.security_context;
    let mut supplemental_groups = pod.supplemental_groups.clone();
    supplemental_groups.extend(pod.fs_group);
    SecurityContext {
        privileged: own.privileged,
        run_as_user: own.run_as_user.or(pod.run_as_user),
        run_as_group: own.run_as_group.or(pod.run_as_group),
        supplemental_groups,
        supplemental_groups_policy: match pod.supplemental_groups_policy.as_str() {
            "Strict" => SupplementalGroupsPolicy::Strict,
            _ => SupplementalGroupsPolicy::Merge,
        },
        read_only_root_filesystem: own.read_only_root_filesystem,
        add_capabilities: own.capabilities.add.clone(),
        drop_capabilities: own.capabilities.drop.clone(),
        no_new_privileges: own.allow_privilege_escalation == Some(false) && !own.privileged,
        seccomp: seccomp(
            facts,
            own.seccomp_profile.as_ref().or(pod.seccomp_profile.as_ref()),
            own.privileged,
        ),
        proc_mount: match own.proc_mount.as_str() {
            "Unmasked" => ProcMount::Unmasked,
            _ => ProcMount::Default,
        },
    }
}

fn seccomp(facts: &Facts, profile: Option<&SeccompProfile>, privileged: bool) -> Seccomp {
    match profile {
        _ if privileged => Seccomp::Unconfined,
        Some(SeccompProfile { r#type, .. }) if r#type == "RuntimeDefault" => Seccomp::RuntimeDefault,
        Some(SeccompProfile { r#type, localhost_profile }) if r#type == "Localhost" => {
            Seccomp::Localhost(facts.node.seccomp_dir.join(localhost_profile))
        }
        _ => Seccomp::Unconfined,
    }
}

/// Pull secrets' contents, in the pod's order; those that do not exist are left out, as upstream does.
pub fn pull_credentials(facts: &Facts) -> Vec<Vec<u8>> {
    let namespace = &facts.pod.metadata.namespace;
    facts
        .pod
        .spec
        .image_pull_secrets
        .iter()
        .filter_map(|reference| env::secret(facts.snapshot, namespace, &reference.name))
        .filter_map(|mut data| data.remove(".dockerconfigjson").or_else(|| data.remove(".dockercfg")))
        .collect()
}

/// The value as JSON `null` if empty, for patches that clear a field.
pub fn text_or_null(text: &str) -> Value {
    if text.is_empty() { Value::Null } else { text.into() }
}
