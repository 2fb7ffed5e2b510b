//! `nodes/{name}/proxy`, `pods/{name}/proxy`, `services/{name}/proxy`: HTTP to what is behind a name.

use std::sync::Arc;

use http::{HeaderValue, Request, StatusCode, header};
use hyper::body::Incoming;
use kinds::ENDPOINT_SLICES;
use object::{Key, Reason, Snapshot, Status};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::kubelet;
use crate::links::{self, Way};
use crate::proxy::{self, Goal, Secure};
use crate::respond::{self, Answer};
use crate::route::Target;
use crate::shared::Shared;

/// `https:web:443` and its shorter forms.
#[derive(Debug, PartialEq, Eq)]
struct Name<'a> {
    scheme: &'a str,
    name: &'a str,
    port: &'a str,
}

impl<'a> Name<'a> {
    /// `what` is asked for so: `pod`
    fn parse(what: &str, text: &'a str) -> Result<Self, Status> {
        let parts: Vec<&str> = text.split(':').collect();
        match parts[..] {
            [name] => Ok(Self { scheme: "", name, port: "" }),
            [name, port] => Ok(Self { scheme: "", name, port }),
            [scheme @ ("" | "http" | "https"), name, port] => Ok(Self { scheme, name, port }),
            _ => Err(Status::bad_request(format!("invalid {what} request {text:?}"))),
        }
    }

    fn secure(&self) -> Secure {
        if self.scheme == "https" { Secure::Unverified } else { Secure::Plain }
    }
}

/// `PodProxyOptions` and its like, for admission.
pub(crate) fn options(target: &Target) -> Value {
    if target.rest.is_empty() { json!({}) } else { json!({"path": target.rest}) }
}

/// Passes a request on to the path that admission left in its options.
pub(crate) async fn answer(
    shared: &Arc<Shared>,
    target: &Target,
    options: &Value,
    mut request: Request<Incoming>,
) -> Result<Answer, Status> {
    let upgrades = request.headers().contains_key(header::UPGRADE);
    let rest = schema::path::text(options, "path");
    let is_read = matches!(*request.method(), http::Method::GET | http::Method::HEAD);
    let path = format!("{}{}", if rest.is_empty() { "/" } else { rest }, query_of(&request));
    let snapshot = shared.newest().await?;
    let goal = match target.kind.resource.as_str() {
        "nodes" => kubelet::at_node(&snapshot, Name::parse("node", &target.name)?.name, &path, &[])?,
        "pods" => at_pod(&snapshot, target, path)?,
        _ => at_service(shared, &snapshot, target, path)?,
    };
    if rest.is_empty() && is_read && !upgrades {
        // Relative links work only below a slash. Upstream looks first for what is behind it.
        let mut answer = respond::bytes(StatusCode::MOVED_PERMANENTLY, "text/plain", "");
        let place = format!("{}/{}", request.uri().path(), query_of(&request));
        if let Ok(place) = HeaderValue::from_str(&place) {
            answer.headers_mut().insert(header::LOCATION, place);
        }
        return Ok(answer);
    }
    let way = Way {
        prefix: request.uri().path().strip_suffix(rest).unwrap_or_default().to_owned(),
        host: host_of(&request),
        backend: format!("{}:{}", goal.address, goal.port),
    };
    if accepts_pages(&request) {
        // Links are not found in what is compressed.
        request.headers_mut().remove(header::ACCEPT_ENCODING);
    }
    let answer = proxy::pass(shared, goal, request).await?;
    Ok(if way.prefix.is_empty() { answer } else { links::rewritten(answer, way) })
}

fn host_of(request: &Request<Incoming>) -> String {
    let told = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    told.or(request.uri().authority().map(http::uri::Authority::as_str)).unwrap_or_default().to_owned()
}

/// Whether it is a browser that asks for something to show.
fn accepts_pages(request: &Request<Incoming>) -> bool {
    let accepted = request.headers().get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted.flat_map(|text| text.split(',')).any(|kind| kind.trim().starts_with("text/html"))
}

fn query_of(request: &Request<Incoming>) -> String {
    request.uri().query().map(|query| format!("?{query}")).unwrap_or_default()
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Pod {
    spec: Value,
    status: PodStatus,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PodStatus {
    #[serde(rename = "podIP")]
    pod_ip: String,
}

fn at_pod(snapshot: &Snapshot, target: &Target, path: String) -> Result<Goal, Status> {
    let name = Name::parse("pod", &target.name)?;
    let key = Key::new(target.kind.resource, &*target.namespace, name.name);
    let stored = snapshot.get(&key).ok_or_else(|| Status::not_found(&key))?;
    let pod: Pod = stored.decode().map_err(Status::internal)?;
    let first = schema::path::list(&pod.spec, "containers")
        .iter()
        .find_map(|container| schema::path::list(container, "ports").first()?["containerPort"].as_u64());
    let port = match name.port {
        "" => first.unwrap_or(80).to_string(),
        port => port.to_owned(),
    };
    if pod.status.pod_ip.is_empty() {
        return Err(Status::bad_request("address not allowed"));
    }
    let port = port
        .parse()
        .map_err(|_| Status::bad_request(format!("invalid port {port:?} of pod {}", name.name)))?;
    Ok(Goal { address: pod.status.pod_ip, port, secure: name.secure(), path })
}

#[derive(Deserialize)]
struct Slice {
    #[serde(default)]
    endpoints: Option<Vec<Endpoint>>,
    #[serde(default)]
    ports: Option<Vec<Port>>,
}

#[derive(Deserialize)]
struct Endpoint {
    #[serde(default)]
    addresses: Vec<String>,
    #[serde(default)]
    conditions: Conditions,
}

#[derive(Default, Deserialize)]
struct Conditions {
    ready: Option<bool>,
}

#[derive(Deserialize)]
struct Port {
    #[serde(default)]
    name: Option<String>,
    port: Option<u16>,
}

/// One of the ready endpoints, picked at random.
fn at_service(shared: &Shared, snapshot: &Snapshot, target: &Target, path: String) -> Result<Goal, Status> {
    let name = Name::parse("service", &target.name)?;
    let key = Key::new(target.kind.resource, &*target.namespace, name.name);
    let service =
        snapshot.get(&key).ok_or_else(|| Status::not_found(&key))?.to_value().map_err(Status::internal)?;
    let wanted = port_name(&service, name.port).ok_or_else(|| {
        Status::new(
            Reason::ServiceUnavailable,
            format!("no service port {} found for service {:?}", name.port, name.name),
        )
    })?;
    let mut found = Vec::new();
    for object in snapshot.list(ENDPOINT_SLICES, &target.namespace) {
        if object.meta.label("kubernetes.io/service-name") != Some(name.name) {
            continue;
        }
        let slice: Slice = object.decode().map_err(Status::internal)?;
        let ports = slice.ports.unwrap_or_default();
        let Some(port) = ports.iter().find(|port| port.name.as_deref().unwrap_or_default() == wanted) else {
            continue;
        };
        let Some(port) = port.port else { continue };
        let ready =
            slice.endpoints.unwrap_or_default().into_iter().filter(|one| one.conditions.ready != Some(false));
        found.extend(ready.filter_map(|one| Some((one.addresses.into_iter().next()?, port))));
    }
    if found.is_empty() {
        return Err(Status::new(
            Reason::ServiceUnavailable,
            format!("no endpoints available for service \"{}\"", target.name),
        ));
    }
    let pick = shared.serial() as usize % found.len();
    let (address, port) = found.swap_remove(pick);
    Ok(Goal { address, port, secure: name.secure(), path })
}

/// The name of the service port that is meant: by its name or number; without either the only one.
fn port_name(service: &Value, asked: &str) -> Option<String> {
    let ports = schema::path::list(service, "spec.ports");
    let named = |port: &Value| schema::path::text(port, "name").to_owned();
    match (asked, ports) {
        ("", [only]) => Some(named(only)),
        ("", _) => Some(String::new()),
        (asked, _) => ports
            .iter()
            .find(|port| {
                named(port) == asked
                    || port["port"].as_u64().is_some_and(|number| number.to_string() == asked)
            })
            .map(named),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_may_carry_a_scheme_and_a_port() {
        for (text, expected) in [
            ("web", Some(("", "web", ""))),
            ("web:80", Some(("", "web", "80"))),
            ("https:web:", Some(("https", "web", ""))),
            ("https:web:443", Some(("https", "web", "443"))),
            (":web:x", Some(("", "web", "x"))),
            ("ftp:web:1", None),
        ] {
            let found = Name::parse("pod", text).ok();
            assert_eq!(found.map(|found| (found.scheme, found.name, found.port)), expected, "{text}");
        }
    }
}
