//! A container's environment: services, envFrom, env, and `$(NAME)` in them.
//!
//! Rules: <https://kubernetes.io/docs/tasks/inject-data-application/define-interdependent-environment-variables/>.

use std::collections::BTreeMap;

use base64::Engine as _;
use kinds::{CONFIG_MAPS, SECRETS, SERVICES};
use object::Snapshot;
use plan::pod::Claimed;
use schema::quantity::Quantity;
use serde::Deserialize;

use crate::node_status::NodeFacts;
use crate::pod::{Container, EnvSource, EnvVar, KeyRef, Pod, ResourceFieldRef};
use crate::resources::amount;

/// What pods are told of themselves besides their object.
pub struct Facts<'a> {
    pub pod: &'a Pod,
    pub node: &'a NodeFacts,
    pub pod_ips: &'a [String],
    pub snapshot: &'a Snapshot,
    /// By name, as they were last read.
    pub claims: &'a BTreeMap<String, Claimed>,
}

/// The whole environment in order, or the message of a CreateContainerConfigError.
pub fn environment(facts: &Facts, container: &Container) -> Result<Vec<(String, String)>, String> {
    let mut known: BTreeMap<String, String> = BTreeMap::new();
    let mut order: Vec<String> = Vec::new();
    let mut set = |known: &mut BTreeMap<String, String>, name: String, value: String| {
        if known.insert(name.clone(), value).is_none() {
            order.push(name);
        }
    };
    let services = service_variables(facts);
    for source in &container.env_from {
        for (key, value) in env_from(facts, source)? {
            set(&mut known, format!("{}{key}", source.prefix), value);
        }
    }
    for EnvVar { name, value, value_from } in &container.env {
        let value = match value_from {
            None => {
                let look_up = |name: &str| known.get(name).or_else(|| services.get(name)).cloned();
                Some(expand(value, look_up))
            }
            Some(source) => variable(facts, container, source)?,
        };
        if let Some(value) = value {
            set(&mut known, name.clone(), value);
        }
    }
    let mut result: Vec<(String, String)> =
        services.into_iter().filter(|(name, _)| !known.contains_key(name)).collect();
    for name in order {
        if let Some(value) = known.remove(&name) {
            result.push((name, value));
        }
    }
    Ok(result)
}

/// Replaces `$(NAME)` by its value; `$$` is a dollar, and a name that is not known stays as it is.
pub fn expand(text: &str, look_up: impl Fn(&str) -> Option<String>) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        result.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(after) = after.strip_prefix('$') {
            result.push('$');
            rest = after;
        } else if let Some((name, after)) = after.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            match look_up(name) {
                Some(value) => result.push_str(&value),
                None => result.push_str(&format!("$({name})")),
            }
            rest = after;
        } else {
            result.push('$');
            rest = after;
        }
    }
    result.push_str(rest);
    result
}

fn env_from(facts: &Facts, source: &crate::pod::EnvFrom) -> Result<BTreeMap<String, String>, String> {
    let namespace = &facts.pod.metadata.namespace;
    if let Some(reference) = &source.config_map_ref {
        return match config_map(facts.snapshot, namespace, &reference.name) {
            Some(map) => Ok(map.data),
            None if reference.optional => Ok(BTreeMap::new()),
            None => Err(format!("configmap \"{}\" not found", reference.name)),
        };
    }
    if let Some(reference) = &source.secret_ref {
        return match secret(facts.snapshot, namespace, &reference.name) {
            Some(data) => Ok(data.into_iter().map(|(key, value)| (key, lossy(value))).collect()),
            None if reference.optional => Ok(BTreeMap::new()),
            None => Err(format!("secret \"{}\" not found", reference.name)),
        };
    }
    Ok(BTreeMap::new())
}

fn variable(facts: &Facts, container: &Container, source: &EnvSource) -> Result<Option<String>, String> {
    if let Some(field) = &source.field_ref {
        return field_value(facts, &field.field_path).map(Some);
    }
    if let Some(field) = &source.resource_field_ref {
        return resource_value(facts, container, field).map(Some);
    }
    let namespace = &facts.pod.metadata.namespace;
    if let Some(KeyRef { name, key, optional }) = &source.config_map_key_ref {
        let Some(map) = config_map(facts.snapshot, namespace, name) else {
            return optionally(*optional, || format!("configmap \"{name}\" not found"));
        };
        return match map.data.get(key) {
            Some(value) => Ok(Some(value.clone())),
            None => {
                optionally(*optional, || format!("couldn't find key {key} in ConfigMap {namespace}/{name}"))
            }
        };
    }
    if let Some(KeyRef { name, key, optional }) = &source.secret_key_ref {
        let Some(data) = secret(facts.snapshot, namespace, name) else {
            return optionally(*optional, || format!("secret \"{name}\" not found"));
        };
        return match data.get(key) {
            Some(value) => Ok(Some(lossy(value.clone()))),
            None => optionally(*optional, || format!("couldn't find key {key} in Secret {namespace}/{name}")),
        };
    }
    Ok(Some(String::new()))
}

fn optionally(optional: bool, message: impl FnOnce() -> String) -> Result<Option<String>, String> {
    if optional { Ok(None) } else { Err(message()) }
}

fn lossy(value: Vec<u8>) -> String {
    String::from_utf8(value).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

/// The downward API's fields: <https://kubernetes.io/docs/concepts/workloads/pods/downward-api/>.
pub fn field_value(facts: &Facts, path: &str) -> Result<String, String> {
    let Pod { metadata, spec, .. } = facts.pod;
    if let Some(key) = path.strip_prefix("metadata.labels['").and_then(|rest| rest.strip_suffix("']")) {
        return Ok(metadata.labels.get(key).cloned().unwrap_or_default());
    }
    if let Some(key) = path.strip_prefix("metadata.annotations['").and_then(|rest| rest.strip_suffix("']")) {
        return Ok(metadata.annotations.get(key).cloned().unwrap_or_default());
    }
    Ok(match path {
        "metadata.name" => metadata.name.clone(),
        "metadata.namespace" => metadata.namespace.clone(),
        "metadata.uid" => metadata.uid.clone(),
        "metadata.labels" => quoted_lines(&metadata.labels),
        "metadata.annotations" => quoted_lines(&metadata.annotations),
        "spec.nodeName" => spec.node_name.clone(),
        "spec.serviceAccountName" => spec.service_account_name.clone(),
        "status.hostIP" => facts.node.ips.first().map(ToString::to_string).unwrap_or_default(),
        "status.hostIPs" => join(facts.node.ips.iter().map(ToString::to_string)),
        "status.podIP" => facts.pod_ips.first().cloned().unwrap_or_default(),
        "status.podIPs" => join(facts.pod_ips.iter().cloned()),
        _ => return Err(format!("unsupported fieldPath: {path}")),
    })
}

fn join(values: impl Iterator<Item = String>) -> String {
    values.collect::<Vec<_>>().join(",")
}

/// `key="value"` lines, as the downward API writes labels to a file.
fn quoted_lines(map: &BTreeMap<String, String>) -> String {
    map.iter().map(|(key, value)| format!("{key}={value:?}")).collect::<Vec<_>>().join("\n")
}

/// `limits.cpu` and its like, divided and rounded up. A limit that is not set is the node's allocatable.
pub fn resource_value(
    facts: &Facts,
    container: &Container,
    field: &ResourceFieldRef,
) -> Result<String, String> {
    let ResourceFieldRef { container_name, resource, divisor } = field;
    let target = if container_name.is_empty() {
        container
    } else {
        facts
            .pod
            .spec
            .all_containers()
            .find(|one| one.name == *container_name)
            .ok_or_else(|| format!("container {container_name} not found"))?
    };
    let unsupported = || format!("unsupported container resource : {resource}");
    let (list, name) = resource.split_once('.').ok_or_else(unsupported)?;
    let milli = match list {
        "limits" => {
            let set = amount(&target.resources.limits, name);
            if set > 0 { set } else { facts.node.allocatable_milli(name) }
        }
        "requests" => amount(&target.resources.requests, name),
        _ => return Err(unsupported()),
    };
    let divisor = divisor
        .as_deref()
        .and_then(|text| text.parse::<Quantity>().ok())
        .map_or(0, |quantity| quantity.millis());
    let divisor = if divisor > 0 { divisor } else { 1_000 };
    Ok(milli.div_euclid(divisor).saturating_add(i64::from(milli.rem_euclid(divisor) > 0)).to_string())
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct ConfigMap {
    pub data: BTreeMap<String, String>,
    pub binary_data: BTreeMap<String, String>,
}

pub fn config_map(snapshot: &Snapshot, namespace: &str, name: &str) -> Option<ConfigMap> {
    snapshot.find(CONFIG_MAPS, namespace, name)?.decode().ok()
}

/// The decoded data of a Secret.
pub fn secret(snapshot: &Snapshot, namespace: &str, name: &str) -> Option<BTreeMap<String, Vec<u8>>> {
    #[derive(Deserialize)]
    struct Secret {
        #[serde(default)]
        data: BTreeMap<String, String>,
    }
    let Secret { data } = snapshot.find(SECRETS, namespace, name)?.decode().ok()?;
    Some(data.into_iter().map(|(key, text)| (key, bytes(&text))).collect())
}

/// The bytes behind base64; the API server has checked them, so a text that is none is empty.
pub fn bytes(text: &str) -> Vec<u8> {
    base64::engine::general_purpose::STANDARD.decode(text).unwrap_or_default()
}

/// `WEB_SERVICE_HOST`, `WEB_PORT_80_TCP_ADDR`, … of the services in the pod's namespace, and of the API server's.
fn service_variables(facts: &Facts) -> BTreeMap<String, String> {
    #[derive(Deserialize, Default)]
    #[serde(rename_all = "camelCase", default)]
    struct Service {
        spec: ServiceSpec,
    }
    #[derive(Deserialize, Default)]
    #[serde(rename_all = "camelCase", default)]
    struct ServiceSpec {
        #[serde(rename = "clusterIP")]
        cluster_ip: String,
        ports: Vec<ServicePort>,
    }
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct ServicePort {
        name: String,
        port: u16,
        protocol: String,
    }
    let mut variables = BTreeMap::new();
    let namespace = facts.pod.metadata.namespace.as_str();
    let links = facts.pod.spec.enable_service_links.unwrap_or(true);
    let own = facts.snapshot.list(SERVICES, namespace).filter(|_| links && !namespace.is_empty());
    let master = facts.snapshot.find(SERVICES, "default", "kubernetes");
    for object in master.into_iter().chain(own) {
        let Ok(Service { spec }) = object.decode::<Service>() else { continue };
        if spec.cluster_ip.is_empty() || spec.cluster_ip == "None" {
            continue;
        }
        let prefix = object.key.name.to_uppercase().replace(['-', '.'], "_");
        let ip = &spec.cluster_ip;
        let mut put = |name: String, value: String| variables.insert(format!("{prefix}_{name}"), value);
        put("SERVICE_HOST".into(), ip.clone());
        for (index, ServicePort { name, port, protocol }) in spec.ports.iter().enumerate() {
            let lower = protocol.to_lowercase();
            if index == 0 {
                put("SERVICE_PORT".into(), port.to_string());
                put("PORT".into(), format!("{lower}://{}", host_port(ip, *port)));
            }
            if !name.is_empty() {
                put(format!("SERVICE_PORT_{}", name.to_uppercase().replace('-', "_")), port.to_string());
            }
            let stem = format!("PORT_{port}_{protocol}");
            put(stem.clone(), format!("{lower}://{}", host_port(ip, *port)));
            put(format!("{stem}_PROTO"), lower);
            put(format!("{stem}_PORT"), port.to_string());
            put(format!("{stem}_ADDR"), ip.clone());
        }
    }
    variables
}

fn host_port(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_expanded_once() {
        let known = |name: &str| (name == "A").then(|| "$(B)".to_owned());
        for (text, expanded) in [
            ("x$(A)y", "x$(B)y"),
            ("$$(A)", "$(A)"),
            ("$(C)", "$(C)"),
            ("$A$", "$A$"),
            ("$(A", "$(A"),
            ("$$$(A)", "$$(B)"),
        ] {
            assert_eq!(expand(text, known), expanded, "{text}");
        }
    }
}
