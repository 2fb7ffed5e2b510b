//! What is accepted and most likely not meant: upstream's `Warning` headers of pods and of what has their templates.
//!
//! Paths are told as texts: `base` is empty for a pod and `spec.template.` for a template.

use std::collections::{BTreeMap, BTreeSet};

use schema::{names, path};
use serde_json::Value;

use super::{annotations, node_labels};
use crate::amounts::quantity;
use crate::spec::addresses;

/// The beginning of every name of a Pod that this object makes.
pub fn of_name(object: &Value, used_in: &str) -> Option<String> {
    let wrong = names::dns_label(path::text(object, "metadata.name"));
    (!wrong.is_empty()).then(|| {
        format!(
            "metadata.name: this is used in {used_in}, which can result in surprising behavior; a DNS label is recommended: [{}]",
            wrong.join(" ")
        )
    })
}

/// Of a kind with a template: its name when it is new, and its template when that is new or the spec has changed.
pub fn of_controller(new: &Value, old: Option<&Value>, template: &str) -> Vec<String> {
    let generation = |object: &Value| path::int(object, "metadata.generation");
    if old.is_some_and(|old| generation(old) == generation(new)) {
        return Vec::new();
    }
    let name = of_name(new, "Pod names and hostnames").filter(|_| old.is_none());
    let of_template = path::get(new, template).map(|found| of_pod(found, &format!("{template}.")));
    name.into_iter().chain(of_template.into_iter().flatten()).collect()
}

/// Of a pod (`base` is empty) or a template.
pub fn of_pod(pod: &Value, base: &str) -> Vec<String> {
    let mut found = Vec::new();
    scheduling(pod, base, &mut found);
    deprecated_annotations(pod, base, &mut found);
    volumes(pod, base, &mut found);
    repeated(pod, base, &mut found);
    containers(pod, base, &mut found);
    ports(pod, base, &mut found);
    if path::int(pod, "spec.terminationGracePeriodSeconds").is_some_and(|seconds| seconds < 0) {
        found.push(format!("{base}spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1"));
    }
    for (index, server) in path::list(pod, "spec.dnsConfig.nameservers").iter().enumerate() {
        let at = format!("{base}spec.dnsConfig.nameservers[{index}]");
        found.extend(addresses::warn_of_ip(&at, server.as_str().unwrap_or_default()));
    }
    found
}

fn scheduling(pod: &Value, base: &str, found: &mut Vec<String>) {
    for (label, _) in path::members(pod, "spec.nodeSelector") {
        let told = node_labels::deprecation(label);
        found.extend(told.map(|told| format!("{base}spec.nodeSelector[{label}]: {told}")));
    }
    let affinity = format!("{base}spec.affinity.nodeAffinity");
    let required = "requiredDuringSchedulingIgnoredDuringExecution";
    let preferred = "preferredDuringSchedulingIgnoredDuringExecution";
    let terms = path::list(pod, &format!("spec.affinity.nodeAffinity.{required}.nodeSelectorTerms"));
    for (index, term) in terms.iter().enumerate() {
        node_labels::warn_of_term(term, &format!("{affinity}.{required}.nodeSelectorTerms[{index}]"), found);
    }
    let terms = path::list(pod, &format!("spec.affinity.nodeAffinity.{preferred}"));
    for (index, term) in terms.iter().enumerate() {
        let at = format!("{affinity}.{preferred}[{index}].preference");
        node_labels::warn_of_term(&term["preference"], &at, found);
    }
    for (index, constraint) in path::list(pod, "spec.topologySpreadConstraints").iter().enumerate() {
        let at = format!("{base}spec.topologySpreadConstraints[{index}]");
        let key = path::text(constraint, "topologyKey");
        found.extend(node_labels::deprecation(key).map(|told| format!("{at}.topologyKey: {key} is {told}")));
        no_selector(constraint, &at, found);
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        let at = format!("spec.affinity.{kind}.{required}");
        for (index, term) in path::list(pod, &at).iter().enumerate() {
            no_selector(term, &format!("{base}{at}[{index}]"), found);
        }
        let at = format!("spec.affinity.{kind}.{preferred}");
        for (index, term) in path::list(pod, &at).iter().enumerate() {
            no_selector(&term["podAffinityTerm"], &format!("{base}{at}[{index}].podAffinityTerm"), found);
        }
    }
}

fn no_selector(holder: &Value, at: &str, found: &mut Vec<String>) {
    if !holder["labelSelector"].is_object() {
        found.push(format!("{at}.labelSelector: a null labelSelector results in matching no pod"));
    }
}

fn deprecated_annotations(pod: &Value, base: &str, found: &mut Vec<String>) {
    const GONE: [(&str, &str); 3] = [
        (
            "scheduler.alpha.kubernetes.io/critical-pod",
            "non-functional in v1.16+; use the \"priorityClassName\" field instead",
        ),
        (
            "security.alpha.kubernetes.io/sysctls",
            "non-functional in v1.11+; use the \"sysctls\" field instead",
        ),
        (
            "security.alpha.kubernetes.io/unsafe-sysctls",
            "non-functional in v1.11+; use the \"sysctls\" field instead",
        ),
    ];
    const SECCOMP: &str = "non-functional in v1.27+; use the \"seccompProfile\" field instead";
    let held = &pod["metadata"]["annotations"];
    let at = |key: &str| format!("{base}metadata.annotations[{key}]");
    for (key, told) in GONE {
        if held.get(key).is_some() {
            found.push(format!("{}: {told}", at(key)));
        }
    }
    let has = |holder: &Value, profile: &str| holder["securityContext"][profile].is_object();
    let key = "seccomp.security.alpha.kubernetes.io/pod";
    if held.get(key).is_some() && !has(&pod["spec"], "seccompProfile") {
        found.push(format!("{}: {SECCOMP}", at(key)));
    }
    for (container, _) in each(pod, base) {
        let name = path::text(container, "name");
        let key = format!("container.seccomp.security.alpha.kubernetes.io/{name}");
        if held.get(&key).is_some() && !has(container, "seccompProfile") {
            found.push(format!("{}: {SECCOMP}", at(&key)));
        }
        // Of a pod that was told before its fields were completed.
        let profile = annotations::apparmor_of(pod, container).filter(|_| !base.is_empty());
        if let Some(profile) = profile {
            let of_pod = path::get(pod, "spec.securityContext.appArmorProfile");
            if of_pod.is_none() || of_pod != profile.as_ref() {
                found.push(annotations::apparmor_warning(base, name));
            }
        }
    }
}

fn volumes(pod: &Value, base: &str, found: &mut Vec<String>) {
    const GONE: [(&str, &str); 9] = [
        ("photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
        ("gitRepo", "deprecated in v1.11"),
        ("scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
        ("flocker", "deprecated in v1.22, non-functional in v1.25+"),
        ("storageos", "deprecated in v1.22, non-functional in v1.25+"),
        ("quobyte", "deprecated in v1.22, non-functional in v1.25+"),
        ("glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
        ("cephfs", "deprecated in v1.28, non-functional in v1.31+"),
        ("rbd", "deprecated in v1.28, non-functional in v1.31+"),
    ];
    for (index, volume) in path::list(pod, "spec.volumes").iter().enumerate() {
        for (kind, told) in GONE.iter().filter(|(kind, _)| volume.get(kind).is_some()) {
            // Upstream's path has another spelling than its field.
            let kind = if *kind == "storageos" { "storageOS" } else { kind };
            found.push(format!("{base}spec.volumes[{index}].{kind}: {told}"));
        }
        if let Some(claim) = path::get(volume, "ephemeral.volumeClaimTemplate.spec") {
            let at = format!("{base}spec.volumes[{index}].ephemeral.volumeClaimTemplate.spec");
            found.extend(of_claim_spec(claim, &at));
        }
        overlaps(volume, found);
    }
}

/// Of a claim's spec.
pub fn of_claim_spec(spec: &Value, at: &str) -> Vec<String> {
    let size = quantity(&spec["resources"]["requests"]["storage"]).filter(|size| !size.is_whole());
    let told = |size| {
        format!(
            "{at}.resources.requests[storage]: fractional byte value \"{size}\" is invalid, must be an integer"
        )
    };
    size.map(told).into_iter().collect()
}

/// Files of one volume that would be, or lie in, each other.
fn overlaps(volume: &Value, found: &mut Vec<String>) {
    let name = path::text(volume, "name");
    let paths = |source: &Value| -> Vec<String> {
        path::list(source, "items").iter().map(|item| path::text(item, "path").to_owned()).collect()
    };
    let whole = [
        ("configMap", format!("ConfigMap \"{}\"", path::text(&volume["configMap"], "name"))),
        ("secret", format!("Secret \"{}\"", path::text(&volume["secret"], "secretName"))),
        ("downwardAPI", "DownwardAPI".to_owned()),
    ];
    for (kind, who) in whole {
        let about = format!("volume \"{name}\" ({who}): overlapping paths");
        collide(paths(&volume[kind]), &about, found);
    }
    let mut all: BTreeSet<String> = BTreeSet::new();
    for source in path::list(volume, "projected.sources") {
        let of = |kind: &str| path::text(&source[kind], "name");
        let (who, own) = if source["configMap"].is_object() {
            (format!("ConfigMap \"{}\"", of("configMap")), paths(&source["configMap"]))
        } else if source["secret"].is_object() {
            (format!("Secret \"{}\"", of("secret")), paths(&source["secret"]))
        } else if source["downwardAPI"].is_object() {
            ("DownwardAPI".to_owned(), paths(&source["downwardAPI"]))
        } else if source["serviceAccountToken"].is_object() {
            let token = path::text(source, "serviceAccountToken.path").to_owned();
            ("ServiceAccountToken".to_owned(), vec![token])
        } else if source["clusterTrustBundle"].is_object() {
            let bundle = &source["clusterTrustBundle"];
            let by = match path::text(bundle, "name") {
                "" => path::text(bundle, "signerName"),
                name => name,
            };
            (format!("ClusterTrustBundle \"{by}\""), vec![path::text(bundle, "path").to_owned()])
        } else if source.as_object().is_none_or(serde_json::Map::is_empty) {
            found.push(format!("volume \"{name}\" (Projected) has no sources provided"));
            continue;
        } else {
            continue;
        };
        let about = format!("volume \"{name}\" (Projected {who}): overlapping paths");
        collide(own.clone(), &about, found);
        let mut both: Vec<String> =
            own.iter().cloned().collect::<BTreeSet<_>>().into_iter().chain(all.iter().cloned()).collect();
        both.sort_unstable();
        collide(both, &about, found);
        all.extend(own);
    }
}

fn collide(paths: Vec<String>, about: &str, found: &mut Vec<String>) {
    let mut seen: BTreeSet<String> = BTreeSet::new();
    for path in paths {
        let path = path.trim_end_matches('/').to_owned();
        let meets = |other: &&String| {
            !other.is_empty()
                && !path.is_empty()
                && (format!("{other}/").starts_with(&path) || format!("{path}/").starts_with(other.as_str()))
        };
        let other = seen.iter().find(meets);
        found.extend(other.map(|other| format!("{about}: {path:?} with {other:?}")));
        seen.insert(path);
    }
}

fn repeated(pod: &Value, base: &str, found: &mut Vec<String>) {
    let mut seen = BTreeSet::new();
    for (index, alias) in path::list(pod, "spec.hostAliases").iter().enumerate() {
        let (ip, at) = (path::text(alias, "ip"), format!("{base}spec.hostAliases[{index}].ip"));
        found.extend(addresses::warn_of_ip(&at, ip));
        if !seen.insert(ip) {
            found.push(format!("{at}: duplicate ip \"{ip}\""));
        }
    }
    let names = || {
        let secrets = path::list(pod, "spec.imagePullSecrets").iter().enumerate();
        secrets.map(|(index, secret)| {
            (format!("{base}spec.imagePullSecrets[{index}].name"), path::text(secret, "name"))
        })
    };
    let mut seen = BTreeSet::new();
    let again = names().filter(|(_, name)| !seen.insert(*name));
    found.extend(again.map(|(at, name)| format!("{at}: duplicate name \"{name}\"")));
    let empty = names().filter(|(_, name)| name.is_empty());
    found.extend(empty.map(|(at, _)| format!("{at}: invalid empty name \"\"")));
}

/// Every container with its path: `spec.initContainers[0]`.
fn each<'a>(pod: &'a Value, base: &'a str) -> impl Iterator<Item = (&'a Value, String)> {
    ["initContainers", "containers", "ephemeralContainers"].into_iter().flat_map(move |list| {
        let all = pod["spec"][list].as_array().into_iter().flatten().enumerate();
        all.map(move |(index, container)| (container, format!("{base}spec.{list}[{index}]")))
    })
}

const BYTES: [&str; 2] = ["memory", "ephemeral-storage"];

fn containers(pod: &Value, base: &str, found: &mut Vec<String>) {
    let mut whole = |amount: &Value, at: String| {
        if let Some(amount) = quantity(amount).filter(|amount| !amount.is_whole()) {
            found.push(format!("{at}: fractional byte value \"{amount}\" is invalid, must be an integer"));
        }
    };
    for resource in BYTES {
        whole(&pod["spec"]["overhead"][resource], format!("{base}spec.overhead[{resource}]"));
    }
    for (container, at) in each(pod, base) {
        for resource in BYTES {
            for side in ["limits", "requests"] {
                let amount = &container["resources"][side][resource];
                whole(amount, format!("{at}.resources.{side}[{resource}]"));
            }
        }
    }
    for (container, at) in each(pod, base) {
        let mut seen = BTreeSet::new();
        for (index, variable) in path::list(container, "env").iter().enumerate() {
            let name = path::text(variable, "name");
            let (value, before) = (path::text(variable, "value"), format!("$({name})"));
            // `X=$(X)more` goes on with what was there.
            let goes_on = variable.get("valueFrom").is_none() && value != before && value.contains(&before);
            if !seen.insert(name) && !goes_on {
                found.push(format!(
                    "{at}.env[{index}]: hides previous definition of \"{name}\", which may be dropped when using apply"
                ));
            }
        }
    }
}

fn ports(pod: &Value, base: &str, found: &mut Vec<String>) {
    let mut all: BTreeMap<(i64, &str), Vec<(String, &Value)>> = BTreeMap::new();
    for (container, at) in each(pod, base) {
        for (index, port) in path::list(container, "ports").iter().enumerate() {
            let at = format!("{at}.ports[{index}]");
            let number = |port: &Value, field: &str| path::int(port, field).unwrap_or_default();
            let (host_ip, host_port) = (path::text(port, "hostIP"), number(port, "hostPort"));
            let (own, protocol) = (number(port, "containerPort"), path::text(port, "protocol"));
            if !host_ip.is_empty() && host_port == 0 {
                let name = path::text(port, "name");
                found.push(format!("{at}: hostIP set without hostPort: {{Name:{name} HostPort:0 ContainerPort:{own} Protocol:{protocol} HostIP:{host_ip}}}"));
            }
            let others = all.entry((own, protocol)).or_default();
            for (other_at, other) in others.iter() {
                let (other_ip, other_port) = (path::text(other, "hostIP"), number(other, "hostPort"));
                let what = if host_ip == other_ip && host_port == other_port {
                    "duplicate"
                } else if host_port == 0 || other_port == 0 {
                    "overlapping"
                } else if host_port == other_port && host_ip.is_empty() != other_ip.is_empty() {
                    "dangerously ambiguous"
                } else {
                    continue;
                };
                found.push(format!("{at}: {what} port definition with {other_at}"));
            }
            others.push((at, port));
        }
    }
}
