//! The objects that a cluster has from its first start, and how a later start brings them back.
//!
//! [`rbac_objects`] is made from `data/rbac.tsv`; [`system_objects`] is everything else that belongs to no controller,
//! from `data/system.json`.

use object::{Key, Resource, Snapshot};
use plan::{Expect, Write};
use serde_json::{Map, Value, json};

use crate::rbac::Rule;
use kinds::{CLUSTER_ROLE_BINDINGS, CLUSTER_ROLES, ROLE_BINDINGS, ROLES};

const RBAC: &str = include_str!("../data/rbac.tsv");
const SYSTEM: &str = include_str!("../data/system.json");

const GROUP: &str = "rbac.authorization.k8s.io";

/// "false" keeps an object of RBAC as its owner left it.
const RBAC_AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";

/// The same for flow control.
const FLOW_AUTOUPDATE: &str = "apf.kubernetes.io/autoupdate-spec";

/// The default roles and bindings, whole.
pub fn rbac_objects() -> Vec<Value> {
    let mut objects: Vec<Value> = Vec::new();
    for line in RBAC.lines().filter(|line| !line.starts_with('#')) {
        let mut columns = line.splitn(4, '\t');
        let mut next = || columns.next().unwrap_or_default();
        let (kind, namespace, name, fact) = (next(), next(), next(), next());
        let same = |object: &Value| {
            object["kind"] == kind
                && object["metadata"]["name"] == name
                && text(object, "namespace") == namespace
        };
        if !objects.last().is_some_and(same) {
            objects.push(blank(kind, namespace, name));
        }
        if let Some(object) = objects.last_mut() {
            learn(object, fact);
        }
    }
    objects
}

fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object["metadata"][field].as_str().unwrap_or_default()
}

fn blank(kind: &str, namespace: &str, name: &str) -> Value {
    let mut object = json!({
        "apiVersion": format!("{GROUP}/v1"),
        "kind": kind,
        "metadata": {
            "name": name,
            "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
            "annotations": {RBAC_AUTOUPDATE: "true"},
        },
    });
    if !namespace.is_empty() {
        object["metadata"]["namespace"] = namespace.into();
    }
    object
}

fn learn(object: &mut Value, fact: &str) {
    let (word, rest) = fact.split_once(' ').unwrap_or((fact, ""));
    match word {
        "rule" => push(object, "rules", json!(rule(rest))),
        "label" => {
            let (name, value) = rest.split_once('=').unwrap_or((rest, ""));
            object["metadata"]["labels"][name] = value.into();
        }
        "aggregate" => {
            let (name, value) = rest.split_once('=').unwrap_or((rest, ""));
            object["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": {name: value}}]});
        }
        "ref" => {
            let (kind, name) = rest.split_once('/').unwrap_or((rest, ""));
            object["roleRef"] = json!({"apiGroup": GROUP, "kind": kind, "name": name});
        }
        "subject" => push(object, "subjects", subject(rest)),
        _ => {}
    }
}

fn push(object: &mut Value, field: &str, item: Value) {
    match object.get_mut(field).and_then(Value::as_array_mut) {
        Some(list) => list.push(item),
        None => object[field] = json!([item]),
    }
}

fn subject(text: &str) -> Value {
    let (kind, name) = text.split_once(' ').unwrap_or((text, ""));
    match name.split_once('/') {
        Some((namespace, name)) if kind == "ServiceAccount" => {
            json!({"kind": kind, "name": name, "namespace": namespace})
        }
        _ => json!({"kind": kind, "apiGroup": GROUP, "name": name}),
    }
}

fn rule(text: &str) -> Rule {
    let mut lists = text.split('|').map(|list| -> Vec<Box<str>> {
        let items = list.split(',').filter(|item| !item.is_empty());
        items.map(|item| if item == "\"\"" { "".into() } else { item.into() }).collect()
    });
    let mut next = || lists.next().unwrap_or_default();
    Rule {
        api_groups: next(),
        resources: next(),
        verbs: next(),
        resource_names: next(),
        non_resource_urls: next(),
    }
}

/// The rules of one default cluster role.
pub(crate) fn rules_of(name: &str) -> Vec<Rule> {
    let prefix = format!("ClusterRole\t\t{name}\trule ");
    RBAC.lines().filter_map(|line| line.strip_prefix(&prefix)).map(rule).collect()
}

/// What a fresh cluster holds besides RBAC and what controllers write: the system namespaces, priority classes, flow
/// schemas and priority levels, and the ConfigMap that tells extension API servers whom to believe.
///
/// `client_ca_pem` is the authority of client certificates, `front_proxy_ca_pem` that of the certificate with which the API server tells
/// extension servers who asks.
pub fn system_objects(client_ca_pem: &str, front_proxy_ca_pem: &str) -> Vec<Value> {
    let mut objects: Vec<Value> = serde_json::from_str(SYSTEM).unwrap_or_default();
    objects.push(json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "extension-apiserver-authentication", "namespace": "kube-system"},
        "data": {
            "client-ca-file": client_ca_pem,
            "requestheader-allowed-names": "[\"front-proxy-client\"]",
            "requestheader-client-ca-file": front_proxy_ca_pem,
            "requestheader-extra-headers-prefix": "[\"X-Remote-Extra-\"]",
            "requestheader-group-headers": "[\"X-Remote-Group\"]",
            "requestheader-uid-headers": "[\"X-Remote-Uid\"]",
            "requestheader-username-headers": "[\"X-Remote-User\"]",
        },
    }));
    objects
}

/// The schemas and priority levels of flow control among them.
pub fn flow_control() -> Vec<Value> {
    let objects: Vec<Value> = serde_json::from_str(SYSTEM).unwrap_or_default();
    let is_meant =
        |object: &Value| matches!(object["kind"].as_str(), Some("FlowSchema" | "PriorityLevelConfiguration"));
    objects.into_iter().filter(is_meant).collect()
}

/// The writes that bring the default objects back: what is missing is created; rules, subjects, labels and annotations
/// that are missing from a default role or binding are added, further ones stay; a binding to another role is replaced.
/// Objects whose autoupdate annotation is `false` stay as they are.
pub fn reconcile(snapshot: &Snapshot, client_ca_pem: &str, front_proxy_ca_pem: &str) -> Vec<Write> {
    let system = system_objects(client_ca_pem, front_proxy_ca_pem);
    system.iter().chain(&rbac_objects()).flat_map(|wanted| bring_back(snapshot, wanted)).collect()
}

/// The same for one schema or priority level of flow control; nothing for those that are no default.
pub fn bring_back_flow_control(snapshot: &Snapshot, key: &Key) -> Vec<Write> {
    let is_it =
        |wanted: &Value| resource_of(wanted) == Some(key.resource) && text(wanted, "name") == &*key.name;
    flow_control()
        .iter()
        .filter(|wanted| is_it(wanted))
        .flat_map(|wanted| bring_back(snapshot, wanted))
        .collect()
}

fn bring_back(snapshot: &Snapshot, wanted: &Value) -> Vec<Write> {
    let Some(resource) = resource_of(wanted) else { return Vec::new() };
    let key = Key::new(resource, text(wanted, "namespace"), text(wanted, "name"));
    let Some(held) = snapshot.get(&key) else {
        return vec![Write::Create { resource, object: wanted.clone() }];
    };
    let Ok(value) = held.to_value() else { return Vec::new() };
    if is_kept(&value) {
        return Vec::new();
    }
    let role = resource == ROLES || resource == CLUSTER_ROLES;
    let binding = resource == ROLE_BINDINGS || resource == CLUSTER_ROLE_BINDINGS;
    if binding && value["roleRef"] != wanted["roleRef"] {
        // A binding's role is immutable.
        return vec![
            Write::Delete { key, expect: Expect::same(held), grace_seconds: None, propagation: None },
            Write::Create { resource, object: wanted.clone() },
        ];
    }
    let mut patch = Map::new();
    if role || binding {
        metadata_patch(&value, wanted, &mut patch);
    }
    if role && wanted.get("aggregationRule").is_none() {
        rules_patch(&value, wanted, &mut patch);
    }
    if let Some(rule) =
        wanted.get("aggregationRule").filter(|rule| value.get("aggregationRule") != Some(rule))
    {
        patch.insert("aggregationRule".into(), rule.clone());
    }
    if binding {
        subjects_patch(&value, wanted, &mut patch);
    }
    if key.resource.group() == "flowcontrol.apiserver.k8s.io" && !contains(&value["spec"], &wanted["spec"]) {
        patch.insert("spec".into(), wanted["spec"].clone());
    }
    if &*key.name == "extension-apiserver-authentication" && !contains(&value["data"], &wanted["data"]) {
        patch.insert("data".into(), wanted["data"].clone());
    }
    if patch.is_empty() {
        return Vec::new();
    }
    vec![Write::Merge { key, expect: Expect::unchanged(held), subresource: "", patch: patch.into() }]
}

fn is_kept(held: &Value) -> bool {
    let mandatory = matches!(text(held, "name"), "exempt" | "catch-all");
    let annotations = &held["metadata"]["annotations"];
    annotations[RBAC_AUTOUPDATE] == "false" || (annotations[FLOW_AUTOUPDATE] == "false" && !mandatory)
}

fn metadata_patch(held: &Value, wanted: &Value, patch: &mut Map<String, Value>) {
    for field in ["labels", "annotations"] {
        if !contains(&held["metadata"][field], &wanted["metadata"][field]) {
            let metadata = patch.entry("metadata").or_insert_with(|| json!({}));
            metadata[field] = wanted["metadata"][field].clone();
        }
    }
}

fn rules_patch(held: &Value, wanted: &Value, patch: &mut Map<String, Value>) {
    let read =
        |object: &Value| -> Vec<Rule> { serde_json::from_value(object["rules"].clone()).unwrap_or_default() };
    let mut rules = read(held);
    let missing: Vec<Rule> = read(wanted)
        .into_iter()
        .filter(|rule| !rule.atoms().iter().all(|atom| rules.iter().any(|held| held.covers(atom))))
        .collect();
    if !missing.is_empty() {
        rules.extend(missing);
        patch.insert("rules".into(), json!(rules));
    }
}

fn subjects_patch(held: &Value, wanted: &Value, patch: &mut Map<String, Value>) {
    let list = |object: &Value| object["subjects"].as_array().cloned().unwrap_or_default();
    let mut subjects = list(held);
    let missing: Vec<Value> =
        list(wanted).into_iter().filter(|subject| !subjects.contains(subject)).collect();
    if !missing.is_empty() {
        subjects.extend(missing);
        patch.insert("subjects".into(), subjects.into());
    }
}

/// Does `held` say all that `wanted` says? It may have been given defaults besides.
fn contains(held: &Value, wanted: &Value) -> bool {
    match (held, wanted) {
        (Value::Object(held), Value::Object(wanted)) => {
            wanted.iter().all(|(name, value)| held.get(name).is_some_and(|held| contains(held, value)))
        }
        (Value::Array(held), Value::Array(wanted)) => {
            held.len() == wanted.len() && held.iter().zip(wanted).all(|(held, wanted)| contains(held, wanted))
        }
        _ => held == wanted,
    }
}

/// The resources of the kinds that stand in the data files.
fn resource_of(object: &Value) -> Option<Resource> {
    Some(match object["kind"].as_str()? {
        "ClusterRole" => CLUSTER_ROLES,
        "ClusterRoleBinding" => CLUSTER_ROLE_BINDINGS,
        "ConfigMap" => kinds::CONFIG_MAPS,
        "FlowSchema" => kinds::FLOW_SCHEMAS,
        "Namespace" => kinds::NAMESPACES,
        "PriorityClass" => kinds::PRIORITY_CLASSES,
        "PriorityLevelConfiguration" => kinds::PRIORITY_LEVEL_CONFIGURATIONS,
        "Role" => ROLES,
        "RoleBinding" => ROLE_BINDINGS,
        _ => return None,
    })
}
