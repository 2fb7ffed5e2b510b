//! Gives every pod a service account and its token:
//! <https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/#serviceaccount-admission-controller>.

use std::sync::Arc;

use object::{Object, Snapshot, Status};
use schema::path;
use serde::Deserialize;
use serde_json::{Value, json};

use super::mountable_secrets;
use super::node_restriction::{SECRETS, mentions};
use crate::{Operation, Plugin, Request, Verdict, pod};

pub const PLUGIN: Plugin = Plugin { name: "ServiceAccount", mutate: Some(mutate), validate: Some(validate) };

const VOLUME_PREFIX: &str = "kube-api-access-";
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// An hour and seven seconds: by the odd seven the issuer knows a token that it may extend.
const EXPIRATION_SECONDS: i64 = 3607;

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Account {
    automount_service_account_token: Option<bool>,
    image_pull_secrets: Vec<Value>,
}

fn mutate(
    snapshot: &Snapshot,
    request: &Request,
    object: &mut Value,
    _: &mut Vec<String>,
) -> Result<(), Status> {
    if !request.is(kinds::PODS, &[Operation::Create]) {
        return Ok(());
    }
    if pod::is_mirror(object) {
        return check_mirror(request, object);
    }
    let name = match object["spec"]["serviceAccountName"].as_str() {
        Some(name) if !name.is_empty() => name.to_owned(),
        _ => "default".to_owned(),
    };
    let account = account(snapshot, request, object, &name)?;
    // The second is the first's old name; the API serves both.
    object["spec"]["serviceAccountName"] = name.as_str().into();
    object["spec"]["serviceAccount"] = name.as_str().into();
    let own = object["spec"]["automountServiceAccountToken"].as_bool();
    if own.or(account.automount_service_account_token).unwrap_or(true) {
        mount(object, request.suffix);
    }
    let unset = object["spec"]["imagePullSecrets"].as_array().is_none_or(Vec::is_empty);
    if unset && !account.image_pull_secrets.is_empty() {
        object["spec"]["imagePullSecrets"] = account.image_pull_secrets.into();
    }
    Ok(())
}

fn validate(
    snapshot: &Snapshot,
    request: &Request,
    object: Option<&Value>,
    _: &mut Verdict,
) -> Result<(), Status> {
    let Some(object) = object else { return Ok(()) };
    let joins = request.key.resource == kinds::PODS
        && request.subresource == "ephemeralcontainers"
        && request.operation == Operation::Update;
    if joins {
        let name = path::text(object, "spec.serviceAccountName");
        // An account that is gone limits nobody any more.
        let Some(account) = find(snapshot, request, name) else { return Ok(()) };
        let account = account.to_value().map_err(Status::internal)?;
        return mountable_secrets::check_ephemeral(&account, object)
            .map_err(|why| request.forbidden(Some(object), why));
    }
    if !request.is(kinds::PODS, &[Operation::Create]) {
        return Ok(());
    }
    if pod::is_mirror(object) {
        return check_mirror(request, object);
    }
    let name = object["spec"]["serviceAccountName"].as_str().unwrap_or_default();
    if name.is_empty() {
        let why =
            format!("no service account specified for pod {}/{}", request.key.namespace, request.key.name);
        return Err(request.forbidden(Some(object), why));
    }
    account(snapshot, request, object, name)?;
    let Some(account) = find(snapshot, request, name) else { return Ok(()) };
    let account = account.to_value().map_err(Status::internal)?;
    mountable_secrets::check(&account, object).map_err(|why| request.forbidden(Some(object), why))
}

fn find<'a>(snapshot: &'a Snapshot, request: &Request, name: &str) -> Option<&'a Arc<Object>> {
    snapshot.find(kinds::SERVICE_ACCOUNTS, &request.key.namespace, name)
}

fn account(snapshot: &Snapshot, request: &Request, pod: &Value, name: &str) -> Result<Account, Status> {
    let namespace = &request.key.namespace;
    let Some(found) = find(snapshot, request, name) else {
        let why =
            format!("error looking up service account {namespace}/{name}: serviceaccount {name:?} not found");
        return Err(request.forbidden(Some(pod), why));
    };
    found.decode().map_err(Status::internal)
}

fn check_mirror(request: &Request, pod: &Value) -> Result<(), Status> {
    let refuse = |why: &str| Err(request.forbidden(Some(pod), why));
    if pod["spec"]["serviceAccountName"].as_str().is_some_and(|name| !name.is_empty()) {
        return refuse("a mirror pod may not reference service accounts");
    }
    if mentions(pod, &SECRETS) {
        return refuse("a mirror pod may not reference secrets");
    }
    let volumes = pod["spec"]["volumes"].as_array().into_iter().flatten();
    if volumes
        .flat_map(|volume| volume["projected"]["sources"].as_array().into_iter().flatten())
        .any(|source| source.get("serviceAccountToken").is_some())
    {
        return refuse("a mirror pod may not use ServiceAccountToken volume projections");
    }
    Ok(())
}

/// Mounts the token into every container that has nothing at its place yet.
fn mount(pod: &mut Value, suffix: &str) {
    let volumes = pod["spec"]["volumes"].as_array();
    let existing = volumes.into_iter().flatten().find_map(|volume| {
        volume["name"].as_str().filter(|name| name.starts_with(VOLUME_PREFIX)).map(str::to_owned)
    });
    let name = existing.clone().unwrap_or_else(|| format!("{VOLUME_PREFIX}{suffix}"));
    let mut needed = false;
    pod::each_container(pod, |container, _| {
        let mounts = container["volumeMounts"].as_array();
        if mounts.into_iter().flatten().any(|mount| mount["mountPath"] == MOUNT_PATH) {
            return;
        }
        push(container, "volumeMounts", json!({"name": name, "readOnly": true, "mountPath": MOUNT_PATH}));
        needed = true;
    });
    if needed && existing.is_none() {
        push(&mut pod["spec"], "volumes", volume(&name));
    }
}

fn volume(name: &str) -> Value {
    json!({"name": name, "projected": {"defaultMode": 0o644, "sources": [
        {"serviceAccountToken": {"expirationSeconds": EXPIRATION_SECONDS, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [
            {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}},
        ]}},
    ]}})
}

fn push(object: &mut Value, field: &str, item: Value) {
    match object.get_mut(field).and_then(Value::as_array_mut) {
        Some(list) => list.push(item),
        None => object[field] = json!([item]),
    }
}
