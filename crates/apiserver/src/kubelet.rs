//! Logs, exec, attach and port-forward: authorized here, answered by the kubelet of the pod's node.

use std::sync::Arc;

use http::{Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use object::{Key, Object, Snapshot, Status};
use schema::path;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::proxy::{self, Goal, Secure};
use crate::query::Query;
use crate::respond::{self, Answer};
use crate::route::Target;
use crate::shared::Shared;
use crate::{negotiate, websocket};

const KUBELET_PORT: u16 = 10250;
/// So much of a kubelet's error is passed on.
const ERROR_BYTES: usize = 50_000;

#[derive(Default, Deserialize)]
#[serde(default)]
struct Pod {
    spec: PodSpec,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PodSpec {
    node_name: String,
    containers: Vec<Container>,
    init_containers: Vec<Container>,
    ephemeral_containers: Vec<Container>,
}

#[derive(Default, Deserialize)]
struct Container {
    name: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Node {
    status: NodeStatus,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct NodeStatus {
    addresses: Vec<Address>,
    daemon_endpoints: DaemonEndpoints,
}

#[derive(Default, Deserialize)]
struct Address {
    r#type: String,
    address: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct DaemonEndpoints {
    kubelet_endpoint: KubeletEndpoint,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct KubeletEndpoint {
    #[serde(rename = "Port")]
    port: u16,
}

/// `GET pods/{name}/log`
pub(crate) async fn log(
    shared: &Arc<Shared>,
    target: &Target,
    query: &Query,
    mut request: Request<Incoming>,
) -> Result<Answer, Status> {
    negotiate::check_route(request.headers(), &["text/plain"], false, shared.config.cbor)?;
    check_log(&target.name, query)?;
    let snapshot = shared.newest().await?;
    let (stored, pod) = pod(&snapshot, target)?;
    let container = container(&stored.key.name, &pod.spec, query.get("container"))?;
    if pod.spec.node_name.is_empty() {
        let mut answer = Answer::new(respond::full(""));
        *answer.status_mut() = StatusCode::NO_CONTENT;
        return Ok(answer);
    }
    let passed = [
        "follow",
        "limitBytes",
        "previous",
        "sinceSeconds",
        "sinceTime",
        "stream",
        "tailLines",
        "timestamps",
    ];
    let mut arguments = Vec::new();
    for name in passed {
        if query.has(name) && !query.get(name).is_empty() {
            arguments.push((name, query.get(name)));
        }
    }
    let path = format!("/containerLogs/{}/{}/{container}", target.namespace, target.name);
    let goal = at_node_of_pod(&snapshot, target, &pod.spec.node_name, &path, &arguments)?;
    let opening = websocket::of_log(&mut request)?;
    let answer = checked(proxy::pass(shared, goal, request).await?).await?;
    Ok(match opening {
        Some(opening) => opening.answer(answer.into_body()),
        None => answer,
    })
}

fn check_log(name: &str, query: &Query) -> Result<(), Status> {
    let has_both = !query.get("sinceSeconds").is_empty() && !query.get("sinceTime").is_empty();
    let bounds: &[(&str, i64)] = match has_both {
        true => &[("tailLines", 0), ("limitBytes", 1)],
        false => &[("tailLines", 0), ("limitBytes", 1), ("sinceSeconds", 1)],
    };
    let mut violations = Vec::new();
    for &(name, least) in bounds {
        let text = query.get(name);
        if text.is_empty() {
            continue;
        }
        let number: i64 = text.parse().map_err(|_| {
            Status::bad_request(format!("strconv.ParseInt: parsing {text:?}: invalid syntax"))
        })?;
        if number < least {
            let detail =
                if least == 0 { "must be greater than or equal to 0" } else { "must be greater than 0" };
            violations.push(schema::Violation {
                kind: schema::ViolationKind::Invalid,
                field: name.to_owned(),
                value: number.to_string(),
                detail: detail.to_owned(),
            });
        }
    }
    if has_both {
        violations.push(schema::Violation {
            kind: schema::ViolationKind::Forbidden,
            // So Go writes a path of no parts.
            field: "[]".into(),
            value: String::new(),
            detail: "at most one of `sinceTime` or `sinceSeconds` may be specified".into(),
        });
    }
    if violations.is_empty() {
        return Ok(());
    }
    Err(schema::Violation::to_status(&violations, "", "PodLogOptions", name))
}

/// A kubelet's refusal as a Status; anything else as it is.
async fn checked(answer: Answer) -> Result<Answer, Status> {
    if answer.status().is_success() || answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Ok(answer);
    }
    let code = answer.status();
    let text = match Limited::new(answer.into_body(), ERROR_BYTES).collect().await {
        Ok(body) => String::from_utf8_lossy(&body.to_bytes()).trim().to_owned(),
        Err(error) => error.to_string(),
    };
    Err(match code {
        StatusCode::BAD_REQUEST => Status::bad_request(text),
        StatusCode::NOT_FOUND => Status::new(object::Reason::NotFound, text),
        _ => Status::internal(text),
    })
}

/// `PodExecOptions` or `PodAttachOptions` of a query, for admission.
pub(crate) fn stream_options(target: &Target, query: &Query) -> Value {
    let mut options = json!({});
    for name in STREAMS.map(|(name, _)| name).into_iter().filter(|name| query.flag(name)) {
        options[name] = true.into();
    }
    if !query.get("container").is_empty() {
        options["container"] = query.get("container").into();
    }
    if target.subresource == "exec" {
        options["command"] = query.all("command").collect();
    }
    options
}

/// What is streamed, as clients and as kubelets name it.
const STREAMS: [(&str, &str); 4] =
    [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")];

/// `exec` and `attach`, with their options as admission left them.
pub(crate) async fn stream(
    shared: &Arc<Shared>,
    target: &Target,
    options: &Value,
    request: Request<Incoming>,
) -> Result<Answer, Status> {
    let snapshot = shared.newest().await?;
    let (stored, pod) = pod(&snapshot, target)?;
    let container = container(&stored.key.name, &pod.spec, path::text(options, "container"))?;
    let node = assigned(&stored.key, &pod.spec)?;
    let mut arguments: Vec<(&str, &str)> = Vec::new();
    for (asked, passed) in STREAMS {
        if options[asked] == true {
            arguments.push((passed, "1"));
        }
    }
    if target.subresource == "exec" {
        let command: Vec<&str> = path::list(options, "command").iter().filter_map(Value::as_str).collect();
        if command.first().is_none_or(|word| word.is_empty()) {
            return Err(Status::bad_request("you must specify at least 1 command for the container"));
        }
        arguments.extend(command.into_iter().map(|word| ("command", word)));
    }
    let path = format!("/{}/{}/{}/{container}", target.subresource, target.namespace, target.name);
    let goal = at_node_of_pod(&snapshot, target, node, &path, &arguments)?;
    shared.requests.streamed(target);
    proxy::pass(shared, goal, request).await
}

/// `PodPortForwardOptions` of a query, for admission.
pub(crate) fn port_forward_options(query: &Query) -> Result<Value, Status> {
    let ports = query.all("ports").flat_map(|ports| ports.split(','));
    let ports: Result<Vec<u16>, Status> = ports
        .map(|port| {
            port.parse().map_err(|_| {
                let why = format!("strconv.ParseUint: parsing {port:?}: invalid syntax");
                Status::bad_request(format!("cannot convert to []int32: {why}"))
            })
        })
        .collect();
    let ports = ports?;
    Ok(if ports.is_empty() { json!({}) } else { json!({"ports": ports}) })
}

/// `portforward`, with its options as admission left them.
pub(crate) async fn port_forward(
    shared: &Arc<Shared>,
    target: &Target,
    options: &Value,
    request: Request<Incoming>,
) -> Result<Answer, Status> {
    let snapshot = shared.newest().await?;
    let (stored, pod) = pod(&snapshot, target)?;
    let node = assigned(&stored.key, &pod.spec)?;
    let ports: Vec<String> = path::list(options, "ports").iter().map(Value::to_string).collect();
    let arguments: Vec<(&str, &str)> = ports.iter().map(|port| ("port", port.as_str())).collect();
    let path = format!("/portForward/{}/{}", target.namespace, target.name);
    let goal = at_node_of_pod(&snapshot, target, node, &path, &arguments)?;
    shared.requests.streamed(target);
    proxy::pass(shared, goal, request).await
}

fn pod<'a>(snapshot: &'a Snapshot, target: &Target) -> Result<(&'a Arc<Object>, Pod), Status> {
    let key = Key::new(target.kind.resource, &*target.namespace, &*target.name);
    let stored = snapshot.get(&key).ok_or_else(|| Status::not_found(&key))?;
    Ok((stored, stored.decode().map_err(Status::internal)?))
}

fn assigned<'a>(key: &Key, pod: &'a PodSpec) -> Result<&'a str, Status> {
    if pod.node_name.is_empty() {
        return Err(Status::bad_request(format!("pod {} does not have a host assigned", key.name)));
    }
    Ok(&pod.node_name)
}

/// The container that is meant: the one that is named, or the only one there is.
fn container<'a>(pod: &str, spec: &'a PodSpec, asked: &str) -> Result<&'a str, Status> {
    let lists = [&spec.containers, &spec.init_containers, &spec.ephemeral_containers];
    if !asked.is_empty() {
        let found = lists.into_iter().flatten().find(|container| container.name == asked);
        return found
            .map(|container| &*container.name)
            .ok_or_else(|| Status::bad_request(format!("container {asked} is not valid for pod {pod}")));
    }
    match &spec.containers[..] {
        [only] => Ok(&only.name),
        [] => Err(Status::bad_request(format!("a container name must be specified for pod {pod}"))),
        _ => {
            let names = |list: &[Container]| {
                list.iter().map(|container| &*container.name).collect::<Vec<_>>().join(" ")
            };
            let mut why = format!(
                "a container name must be specified for pod {pod}, choose one of: [{}]",
                names(&spec.containers)
            );
            for (list, what) in [(&spec.init_containers, "init"), (&spec.ephemeral_containers, "ephemeral")] {
                if !list.is_empty() {
                    why.push_str(&format!(" or one of the {what} containers: [{}]", names(list)));
                }
            }
            Err(Status::bad_request(why))
        }
    }
}

/// The kubelet of a pod's node. If the node is not there, upstream says so of a pod.
fn at_node_of_pod(
    snapshot: &Snapshot,
    target: &Target,
    name: &str,
    path: &str,
    query: &[(&str, &str)],
) -> Result<Goal, Status> {
    at_node(snapshot, name, path, query).map_err(|status| match status.reason {
        object::Reason::NotFound => {
            Status::not_found(&Key::new(target.kind.resource, &*target.namespace, name))
        }
        _ => status,
    })
}

/// The kubelet of a node.
pub(crate) fn at_node(
    snapshot: &Snapshot,
    name: &str,
    path: &str,
    query: &[(&str, &str)],
) -> Result<Goal, Status> {
    let key = Key::cluster(kinds::NODES, name);
    let stored = snapshot.get(&key).ok_or_else(|| Status::not_found(&key))?;
    let node: Node = stored.decode().map_err(Status::internal)?;
    let address = ["InternalIP", "ExternalIP", "Hostname"]
        .iter()
        .find_map(|wanted| node.status.addresses.iter().find(|address| address.r#type == *wanted));
    let Some(address) = address else {
        return Err(Status::internal(format!(
            "no preferred addresses found; known addresses of node {name}: []"
        )));
    };
    let port = match node.status.daemon_endpoints.kubelet_endpoint.port {
        0 => KUBELET_PORT,
        port => port,
    };
    let path = with_query(path, query);
    Ok(Goal { address: address.address.clone(), port, secure: Secure::Kubelet, path })
}

fn with_query(path: &str, query: &[(&str, &str)]) -> String {
    let mut text = path.to_owned();
    for (index, (name, value)) in query.iter().enumerate() {
        text.push(if index == 0 { '?' } else { '&' });
        text.push_str(name);
        text.push('=');
        text.push_str(&percent_encode(value));
    }
    text
}

fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(spec: &str, asked: &str, expected: Result<&str, &str>) {
        let spec: PodSpec = serde_json::from_str(spec).expect("a pod");
        let found = container("p", &spec, asked);
        assert_eq!(found.as_ref().map_err(|status| &*status.message).copied(), expected);
    }

    #[test]
    fn the_container_is_named_or_the_only_one() {
        let one = r#"{"containers":[{"name":"a"}],"initContainers":[{"name":"i"}]}"#;
        let two = r#"{"containers":[{"name":"a"},{"name":"b"}],"initContainers":[{"name":"i"}]}"#;
        check(one, "", Ok("a"));
        check(one, "i", Ok("i"));
        check(one, "x", Err("container x is not valid for pod p"));
        check(
            two,
            "",
            Err(
                "a container name must be specified for pod p, choose one of: [a b] or one of the init containers: [i]",
            ),
        );
    }

    #[test]
    fn arguments_are_escaped() {
        assert_eq!(
            with_query("/exec/a", &[("command", "sh"), ("command", "echo a&b")]),
            "/exec/a?command=sh&command=echo%20a%26b"
        );
    }
}
