//! Whether extension servers answer: the `Available` condition of their APIServices, and what they serve.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use kinds::{API_SERVICES, ENDPOINT_SLICES, SERVICES};
use object::{Event, Object, Snapshot};
use plan::{Expect, User, Write};
use schema::path;
use serde_json::{Value, json};
use tokio::time::Instant;
use tracing::warn;

use super::Extension;
use super::remote::Remote;
use crate::shared::Shared;

/// Those that answer are asked again after so long, those that do not after less.
const EVERY: Duration = Duration::from_secs(30);
const AGAIN: Duration = Duration::from_secs(3);
/// Whatever changes, it is not asked again before this: their own events may come as fast as they like.
const PAUSE: Duration = Duration::from_secs(1);
/// How long an answer may take: upstream's.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of an answer that are read.
const ANSWER_LIMIT: usize = 16 << 20;

/// Why an extension is served or not: reason and message of its condition.
type Finding = (&'static str, String);

const PASSED: &str = "Passed";

/// The label of a slice that says whose endpoints they are.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Keeps the conditions true until the server stops.
pub(crate) async fn run(shared: Arc<Shared>) {
    loop {
        let earliest = Instant::now() + PAUSE;
        let snapshot = shared.store().snapshot();
        let extensions = extensions(&snapshot);
        let all_answer = look(&shared, &snapshot, &extensions).await;
        let changed = changed(&shared, &snapshot, &extensions);
        let pause = if all_answer { EVERY } else { AGAIN };
        tokio::select! {
            () = shared.stopping() => return,
            () = changed => {}
            () = tokio::time::sleep(pause), if !extensions.is_empty() => {}
        }
        tokio::select! {
            () = shared.stopping() => return,
            () = tokio::time::sleep_until(earliest) => {}
        }
    }
}

fn extensions(snapshot: &Snapshot) -> Vec<(Arc<Object>, Extension)> {
    let table = snapshot.table(API_SERVICES).into_iter();
    let all = table.flat_map(|table| table.iter());
    all.filter_map(|object| Some((object.clone(), Extension::read(object)?))).collect()
}

/// Returns when something changed that the conditions follow from: APIServices, and the Services that they name with their endpoints.
async fn changed(shared: &Shared, snapshot: &Snapshot, extensions: &[(Arc<Object>, Extension)]) {
    let only = if extensions.is_empty() { Some(API_SERVICES) } else { None };
    let Ok(mut watch) = shared.store().watch(only, snapshot.revision()) else { return };
    while let Ok(events) = watch.next().await {
        // Our own writes are of a status; they are seen again, found unchanged, and end there.
        if events.iter().any(|event| concerns(extensions, event)) {
            return;
        }
    }
}

/// Whether any of the extensions may be available now that was not before, or the other way round.
fn concerns(extensions: &[(Arc<Object>, Extension)], event: &Event) -> bool {
    let key = event.key();
    let named = |service: &str| {
        extensions.iter().any(|(_, one)| one.namespace == *key.namespace && one.service == service)
    };
    match key.resource {
        API_SERVICES => true,
        SERVICES => named(&key.name),
        ENDPOINT_SLICES => {
            // A slice may also have left the service that it was of.
            let states = [Some(&event.object), event.previous.as_ref()];
            states.into_iter().flatten().any(|slice| slice.meta.label(SERVICE_NAME).is_some_and(named))
        }
        _ => false,
    }
}

/// Looks at all of them; whether every one answers.
async fn look(shared: &Arc<Shared>, snapshot: &Snapshot, extensions: &[(Arc<Object>, Extension)]) -> bool {
    let looks = extensions.iter().map(|(_, extension)| find_out(shared, snapshot, extension));
    let found = futures_util::future::join_all(looks).await;
    let mut remotes = BTreeMap::new();
    let mut all_answer = true;
    for ((object, extension), (finding, remote)) in extensions.iter().zip(found) {
        all_answer &= finding.0 == PASSED;
        remotes.extend(remote.map(|remote| (extension.name.clone(), Arc::new(remote))));
        tell(shared, object, &finding).await;
    }
    shared.remotes.set(remotes);
    all_answer
}

async fn find_out(shared: &Shared, snapshot: &Snapshot, extension: &Extension) -> (Finding, Option<Remote>) {
    if let Err(finding) = backed(snapshot, extension) {
        return (finding, None);
    }
    let root = extension.root();
    match tokio::time::timeout(PATIENCE, get(shared, extension, &root)).await {
        Ok(Ok(list)) => {
            let path = format!("/openapi/v3{root}");
            let openapi = get(shared, extension, &path);
            let openapi = tokio::time::timeout(PATIENCE, openapi).await.ok().and_then(Result::ok);
            let remote = Remote {
                group: extension.group.clone(),
                version: extension.version.clone(),
                resources: path::list(&list, "resources").to_vec(),
                openapi,
            };
            ((PASSED, "all checks passed".into()), Some(remote))
        }
        Ok(Err(why)) => (missing(extension, &why), None),
        Err(_) => (missing(extension, "context deadline exceeded"), None),
    }
}

fn missing(extension: &Extension, why: &str) -> Finding {
    let Extension { service, namespace, port, .. } = extension;
    let url = format!("https://{service}.{namespace}.svc:{port}{}", extension.root());
    ("FailedDiscoveryCheck", format!("failing or missing response from {url}: {why}"))
}

/// Whether there is a Service with ready endpoints behind it.
fn backed(snapshot: &Snapshot, extension: &Extension) -> Result<(), Finding> {
    let Extension { service: name, namespace, port, .. } = extension;
    let service = snapshot.find(SERVICES, namespace, name).and_then(|service| service.to_value().ok());
    let Some(service) = service else {
        return Err(("ServiceNotFound", format!("service/{name} in {namespace:?} is not present")));
    };
    if path::text(&service, "spec.type") == "ExternalName" {
        // Whom a name stands for, the cluster does not know.
        return Ok(());
    }
    let mut ports = path::list(&service, "spec.ports").iter();
    let Some(named) = ports.find(|one| path::int(one, "port") == Some(i64::from(*port))) else {
        let why = format!("service/{name} in {namespace:?} is not listening on port {port}");
        return Err(("ServicePortError", why));
    };
    let port_name = path::text(named, "name");
    let is_ready = |slice: &Value| {
        let has_port = path::list(slice, "ports").iter().any(|one| path::text(one, "name") == port_name);
        let mut endpoints = path::list(slice, "endpoints").iter();
        has_port && endpoints.any(|one| path::get(one, "conditions.ready") != Some(&Value::Bool(false)))
    };
    let slices = snapshot.list(ENDPOINT_SLICES, namespace);
    let mut own = slices.filter(|slice| slice.meta.label(SERVICE_NAME) == Some(name));
    if own.any(|slice| slice.to_value().is_ok_and(|slice| is_ready(&slice))) {
        return Ok(());
    }
    let why = format!(
        "endpoints for service/{name} in {namespace:?} have no addresses with port name {port_name:?}"
    );
    Err(("MissingEndpoints", why))
}

/// A document of the extension's, asked for as this server itself.
async fn get(shared: &Shared, extension: &Extension, path: &str) -> Result<Value, String> {
    let (socket, goal) = extension.connect(shared).await?;
    let told = |error: hyper::Error| error.to_string();
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(socket)).await.map_err(told)?;
    let connection = tokio::spawn(connection);
    let request = Request::get(path)
        .header(header::HOST, format!("{}:{}", goal.address, goal.port))
        .header(header::ACCEPT, "application/json")
        .header("x-remote-user", "system:kube-aggregator")
        .header("x-remote-group", "system:masters")
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let answer = sender.send_request(request).await.map_err(told)?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), ANSWER_LIMIT).collect().await;
    connection.abort();
    if !status.is_success() {
        return Err(format!("bad status from {path}: {}", status.as_u16()));
    }
    let body = body.map_err(|error| error.to_string())?.to_bytes();
    serde_json::from_slice(&body).map_err(|error| error.to_string())
}

/// Writes the condition if it says something new.
async fn tell(shared: &Shared, object: &Object, (reason, message): &Finding) {
    let status = if *reason == PASSED { "True" } else { "False" };
    let Ok(value) = object.to_value() else { return };
    let mut conditions = path::list(&value, "status.conditions").to_vec();
    let known =
        conditions.iter().find(|one| path::text(one, "type") == "Available").cloned().unwrap_or_default();
    let says = |member: &str, text: &str| path::text(&known, member) == text;
    if says("status", status) && says("reason", reason) && says("message", message) {
        return;
    }
    if status == "False" && !(says("status", status) && says("reason", reason)) {
        shared.unavailable.of(&[&*object.key.name, *reason]).increase();
    }
    let since = match known.get("lastTransitionTime") {
        Some(since) if says("status", status) => since.clone(),
        _ => shared.gate.now().to_string().into(),
    };
    conditions.retain(|one| path::text(one, "type") != "Available");
    conditions.push(json!({
        "type": "Available", "status": status, "reason": reason, "message": message, "lastTransitionTime": since,
    }));
    let write = Write::Merge {
        key: object.key.clone(),
        expect: Expect::unchanged(object),
        subresource: "status",
        patch: json!({"status": {"conditions": conditions}}),
    };
    // It lives in the API server, and owns what it writes by that name.
    let user = User::new("system:kube-apiserver", &["system:masters", "system:authenticated"]);
    if let Err(status) = shared.gate.execute(&user, write).await
        && status.reason != object::Reason::Conflict
    {
        warn!(api_service = %object.key.name, %status.message, "its condition could not be written");
    }
}

#[cfg(test)]
mod tests {
    use object::{Change, Draft, Key, body};

    use super::*;

    fn object(key: Key, value: Value) -> Arc<Object> {
        Arc::new(Draft::read(key, [].into(), body::encode(&value)).expect("an object").at(1))
    }

    #[test]
    fn only_what_conditions_follow_from_is_a_reason_to_look_again() {
        let spec = json!({"group": "g", "version": "v1", "service": {"namespace": "a", "name": "s"}});
        let service = object(Key::cluster(API_SERVICES, "v1.g"), json!({"spec": spec}));
        let extensions = [(service.clone(), Extension::read(&service).expect("an extension"))];
        let slice = |namespace: &str, of: &str| {
            let key = Key::new(ENDPOINT_SLICES, namespace, "x");
            object(key, json!({"metadata": {"labels": {SERVICE_NAME: of}}}))
        };
        let plain =
            |resource, namespace: &str, name: &str| object(Key::new(resource, namespace, name), json!({}));
        for (object, previous, expected) in [
            (service.clone(), None, true),
            (plain(SERVICES, "a", "s"), None, true),
            (plain(SERVICES, "b", "s"), None, false),
            (plain(SERVICES, "a", "t"), None, false),
            (slice("a", "s"), None, true),
            (slice("a", "t"), None, false),
            (slice("a", "t"), Some(slice("a", "s")), true),
            (slice("b", "s"), None, false),
            (plain(kinds::PODS, "a", "s"), None, false),
        ] {
            let told = format!("{:?}", object.key);
            let event = Event { revision: 1, change: Change::Updated, object, previous };
            assert_eq!(concerns(&extensions, &event), expected, "{told}");
        }
    }
}
