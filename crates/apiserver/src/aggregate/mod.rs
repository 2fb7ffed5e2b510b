//! API groups that somebody else serves: an APIService names a Service of the cluster, and requests for its group and version go there,
//! with the user in headers that only this server's certificate makes believable.
//! <https://kubernetes.io/docs/tasks/extend-kubernetes/configure-aggregation-layer/>

mod availability;
mod remote;

use std::net::IpAddr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderName, HeaderValue, Method, Request, StatusCode};
use hyper::body::Incoming;
use object::{Object, Reason, Status};
use plan::{Attributes, User};
use rustls::ClientConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use schema::path;
use serde::Deserialize;
use serde_json::Value;

use crate::dial::Socket;
use crate::proxy::{self, Goal, Secure};
use crate::query::{Query, percent_decode};
use crate::respond::{self, Answer};
use crate::shared::Shared;
use crate::tls;

pub(crate) use availability::run;
pub(crate) use remote::{Known, Remote, Remotes};

/// The certificate that this server shows to extension servers: its authority is the `requestheader-client-ca-file` of the cluster.
pub struct FrontProxy {
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
}

/// An extension server, as its APIService describes it.
#[derive(Clone, Debug)]
pub(crate) struct Extension {
    /// `v1beta1.metrics.k8s.io`
    pub(crate) name: String,
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) namespace: String,
    pub(crate) service: String,
    pub(crate) port: u16,
    authorities: Vec<u8>,
    insecure: bool,
    pub(crate) available: bool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct View {
    spec: Spec,
    status: Value,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    group: String,
    version: String,
    service: Option<Service>,
    ca_bundle: String,
    #[serde(rename = "insecureSkipTLSVerify")]
    insecure_skip_tls_verify: bool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Service {
    namespace: String,
    name: String,
    port: Option<u16>,
}

impl Extension {
    /// None: the group is served here.
    pub(crate) fn read(object: &Object) -> Option<Self> {
        let View { spec, status } = object.decode().ok()?;
        let service = spec.service?;
        let conditions = path::list(&status, "conditions").iter();
        let mut available = conditions.filter(|one| path::text(one, "type") == "Available");
        Some(Self {
            name: object.key.name.to_string(),
            group: spec.group,
            version: spec.version,
            namespace: service.namespace,
            service: service.name,
            port: service.port.unwrap_or(443),
            authorities: STANDARD.decode(&spec.ca_bundle).unwrap_or_default(),
            insecure: spec.insecure_skip_tls_verify,
            available: available.any(|one| path::text(one, "status") == "True"),
        })
    }

    /// The path below which everything is its.
    pub(crate) fn root(&self) -> String {
        format!("/apis/{}/{}", self.group, self.version)
    }

    fn tls(&self, shared: &Shared) -> Result<ClientConfig, String> {
        let FrontProxy { chain, key } = &shared.front_proxy;
        let (chain, key) = (chain.clone(), key.clone_key());
        if self.insecure {
            return tls::unverified_client(chain, key).map_err(|error| error.to_string());
        }
        let authorities: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&self.authorities).collect();
        let authorities = authorities.map_err(|error| format!("the caBundle of {}: {error}", self.name))?;
        tls::client_config(authorities, chain, key).map_err(|error| error.to_string())
    }

    /// A connection to it, and where that goes.
    async fn connect(&self, shared: &Shared) -> Result<(Box<dyn Socket>, Goal), String> {
        let snapshot = shared.store().snapshot();
        let service = snapshot.find(kinds::SERVICES, &self.namespace, &self.service);
        let service = service.ok_or_else(|| format!("service {:?} not found", self.service))?;
        let service = service.to_value().map_err(|error| error.to_string())?;
        let address = match (path::text(&service, "spec.type"), path::text(&service, "spec.clusterIP")) {
            ("ExternalName", _) => path::text(&service, "spec.externalName").to_owned(),
            (_, address) if address.parse::<IpAddr>().is_ok() => address.to_owned(),
            _ => return Err(format!("service {:?} has no cluster IP", self.service)),
        };
        let host = format!("{}.{}.svc", self.service, self.namespace);
        let goal = Goal { address, port: self.port, secure: Secure::Plain, path: String::new() };
        let config = Arc::new(self.tls(shared)?);
        let socket = proxy::connect_as(shared, &goal, &host, config, &shared.distrust).await;
        let socket = socket.map_err(|status| status.message)?;
        Ok((socket, goal))
    }
}

/// The extension that a path belongs to: none if the group and version are served here, or by nobody.
pub(crate) fn find(shared: &Shared, path: &str) -> Option<Extension> {
    let mut segments = path.strip_prefix("/apis/")?.splitn(3, '/');
    let (group, version) = (segments.next()?, segments.next()?);
    if shared.gate.catalog().has_version(group, version) {
        return None;
    }
    let snapshot = shared.store().snapshot();
    let object = snapshot.find(kinds::API_SERVICES, "", &format!("{version}.{group}"))?;
    Extension::read(object).filter(|extension| extension.group == group && extension.version == version)
}

/// Whether a path is one of a group and version, below their root.
pub(crate) fn is_below(path: &str, group: &str, version: &str) -> bool {
    let below = path.strip_prefix("/apis/").and_then(|rest| rest.strip_prefix(group));
    let below = below.and_then(|rest| rest.strip_prefix('/')?.strip_prefix(version));
    below.is_some_and(|rest| rest.starts_with('/'))
}

/// What a request for an extension asks for, as authorization sees it.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Asked {
    verb: &'static str,
    group: String,
    version: String,
    resource: String,
    subresource: String,
    namespace: String,
    name: String,
    path: String,
}

impl Asked {
    /// Reads a path below an extension's root.
    ///
    /// # Errors
    /// 404 for a path that the extension could read otherwise than it is authorized here, 405 for a method that is no verb.
    pub(crate) fn read(method: &Method, path: &str, query: &Query) -> Result<Self, Status> {
        let raw: Vec<&str> = path.strip_prefix('/').unwrap_or(path).split('/').collect();
        // Of a root, a slash at its end is part of the path that is authorized.
        let raw = match &raw[..] {
            [root @ .., ""] if root.len() == 3 => root,
            all => all,
        };
        let decoded: Option<Vec<String>> = raw.iter().map(|segment| plain(segment)).collect();
        let decoded = decoded.ok_or_else(|| {
            Status::new(Reason::NotFound, "the server could not find the requested resource")
        })?;
        let segments: Vec<&str> = decoded.iter().map(String::as_str).collect();
        let of_path = || Ok(Self { verb: verb_of_path(method)?, path: path.to_owned(), ..Self::default() });
        let [_, group, version, rest @ ..] = &segments[..] else { return of_path() };
        let (watches, rest) = match rest {
            ["watch", rest @ ..] if !rest.is_empty() => (true, rest),
            rest => (false, rest),
        };
        let (namespace, rest) = match rest {
            // `namespaces/{name}/status` and `/finalize` are parts of the namespace itself.
            ["namespaces", _] | ["namespaces", _, "status" | "finalize", ..] => ("", rest),
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (*namespace, rest),
            rest => ("", rest),
        };
        let [resource, rest @ ..] = rest else { return of_path() };
        let name = rest.first().copied().unwrap_or_default();
        let subresource = rest.get(1).copied().unwrap_or_default();
        let verb = match (method.as_str(), name.is_empty()) {
            ("GET" | "HEAD", _) if watches => "watch",
            // As upstream: of a name, `watch` is a parameter like any other.
            ("GET" | "HEAD", true) if query.flag("watch") => "watch",
            ("GET" | "HEAD", true) => "list",
            ("GET" | "HEAD", false) => "get",
            ("POST", _) => "create",
            ("PUT", _) => "update",
            ("PATCH", _) => "patch",
            ("DELETE", true) => "deletecollection",
            ("DELETE", false) => "delete",
            _ => return Err(not_allowed()),
        };
        Ok(Self {
            verb,
            group: (*group).to_owned(),
            version: (*version).to_owned(),
            resource: (*resource).to_owned(),
            subresource: subresource.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            path: String::new(),
        })
    }

    pub(crate) fn attributes(&self) -> Attributes<'_> {
        Attributes {
            verb: self.verb,
            group: &self.group,
            version: &self.version,
            resource: &self.resource,
            subresource: &self.subresource,
            namespace: &self.namespace,
            name: &self.name,
            path: &self.path,
            ..Attributes::default()
        }
    }
}

/// What a segment of a path says, if everybody reads it alike: another server may clean a path, or decode it once more.
fn plain(segment: &str) -> Option<String> {
    let text = percent_decode(segment)?;
    let is_plain = !matches!(&*text, "" | "." | "..")
        && !text.contains(|one: char| matches!(one, '/' | '\\' | '%') || one.is_control());
    is_plain.then_some(text)
}

fn verb_of_path(method: &Method) -> Result<&'static str, Status> {
    Ok(match method.as_str() {
        "GET" => "get",
        "POST" => "post",
        "PUT" => "put",
        "PATCH" => "patch",
        "DELETE" => "delete",
        "HEAD" => "head",
        _ => return Err(not_allowed()),
    })
}

fn not_allowed() -> Status {
    Status::new(Reason::MethodNotAllowed, "the server does not allow this method on the requested resource")
}

/// Passes a request on, as its user.
pub(crate) async fn pass(
    shared: &Arc<Shared>,
    extension: &Extension,
    user: &User,
    mut request: Request<Incoming>,
) -> Answer {
    if !extension.available {
        return respond::text(StatusCode::SERVICE_UNAVAILABLE, "service unavailable\n");
    }
    if let Err(status) = introduce(user, request.headers_mut()) {
        return respond::failure(&status);
    }
    let path = request.uri().path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string);
    let passed = match extension.connect(shared).await {
        Ok((socket, goal)) => proxy::pass_over(socket, Goal { path, ..goal }, request).await,
        Err(why) => {
            let message = format!("error trying to reach service: {why}");
            Err(Status::new(Reason::ServiceUnavailable, message))
        }
    };
    passed.unwrap_or_else(|status| respond::failure(&status))
}

/// Says who asks, in place of whatever the client says of itself.
///
/// # Errors
/// 400 if a part of it cannot be said: half of who asks is somebody else.
fn introduce(user: &User, headers: &mut http::HeaderMap) -> Result<(), Status> {
    proxy::forget_user(headers);
    let mut add = |name: &str, value: &str| match (
        HeaderName::try_from(name),
        HeaderValue::from_bytes(value.as_bytes()),
    ) {
        (Ok(name), Ok(value)) => {
            headers.append(name, value);
            Ok(())
        }
        _ => Err(Status::bad_request(format!("{value:?} cannot be sent to an extension server as {name}"))),
    };
    add("x-remote-user", &user.name)?;
    if !user.uid.is_empty() {
        add("x-remote-uid", &user.uid)?;
    }
    for group in &user.groups {
        add("x-remote-group", group)?;
    }
    for (key, values) in &user.extra {
        let name = format!("x-remote-extra-{}", escaped(key));
        for value in values {
            add(&name, value)?;
        }
    }
    Ok(())
}

/// A header's name has no room for every character: those that it has not are written as in URLs.
fn escaped(key: &str) -> String {
    key.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => char::from(byte).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_of_an_extension() {
        for (method, path, query, wanted) in [
            (Method::GET, "/apis/metrics.k8s.io/v1beta1", "", "get path /apis/metrics.k8s.io/v1beta1"),
            (Method::GET, "/apis/metrics.k8s.io/v1beta1/nodes", "", "list nodes//"),
            (Method::GET, "/apis/metrics.k8s.io/v1beta1/nodes", "watch=1", "watch nodes//"),
            (Method::GET, "/apis/metrics.k8s.io/v1beta1/namespaces/a/pods/b", "", "get pods/a/b"),
            (Method::POST, "/apis/g/v1/namespaces/a/things", "", "create things/a/"),
            (Method::DELETE, "/apis/g/v1/namespaces/a/things", "", "deletecollection things/a/"),
            (Method::PUT, "/apis/g/v1/things/x/status", "", "update things//x status"),
            (Method::GET, "/apis/g/v1/", "", "get path /apis/g/v1/"),
            (Method::GET, "/apis/g/v1/things", "watch", "watch things//"),
            (Method::GET, "/apis/g/v1/things", "watch=false", "list things//"),
            (Method::GET, "/apis/g/v1/things/x", "watch=1", "get things//x"),
            (Method::GET, "/apis/g/v1/watch/namespaces/a/things", "", "watch things/a/"),
            (Method::GET, "/apis/g/v1/%73ecrets/%2A", "", "get secrets//*"),
            (Method::PUT, "/apis/g/v1/namespaces/a/status", "", "update namespaces//a status"),
        ] {
            let query = Query::parse(query);
            let asked = Asked::read(&method, path, &query).expect("a request");
            let found = if asked.path.is_empty() {
                let Asked { verb, resource, namespace, name, subresource, .. } = &asked;
                format!("{verb} {resource}/{namespace}/{name} {subresource}")
            } else {
                format!("{} path {}", asked.verb, asked.path)
            };
            assert_eq!(found.trim(), wanted);
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        for (method, path, code) in [
            ("GET", "/apis/g/v1//things", 404),
            ("GET", "/apis/g/v1/things/", 404),
            ("GET", "/apis/g/v1/things/../secrets", 404),
            ("GET", "/apis/g/v1/./secrets", 404),
            ("GET", "/apis/g/v1/things/a%2fb", 404),
            ("GET", "/apis/g/v1/things/%2e%2e/secrets", 404),
            ("GET", "/apis/g/v1/things/a%252fb", 404),
            ("GET", "/apis//g/v1/secrets", 404),
            ("OPTIONS", "/apis/g/v1/things", 405),
            ("PROPFIND", "/apis/g/v1", 405),
        ] {
            let method = Method::from_bytes(method.as_bytes()).expect("a method");
            let query = Query::parse("");
            let refused = Asked::read(&method, path, &query).map_err(|status| status.code);
            assert_eq!(refused, Err(code), "{method} {path}");
        }
    }

    #[test]
    fn who_cannot_be_told_whole_is_refused() {
        let mut headers = http::HeaderMap::new();
        introduce(&User::new("Zoë", &[]), &mut headers).expect("told");
        assert_eq!(headers["x-remote-user"].as_bytes(), "Zoë".as_bytes());
        let refused = introduce(&User::new("zoe", &["a\nb"]), &mut headers);
        assert_eq!(refused.map_err(|status| status.code), Err(400));
    }

    #[test]
    fn a_client_does_not_say_who_it_is() {
        let mut headers = http::HeaderMap::new();
        headers.insert("x-remote-user", HeaderValue::from_static("root"));
        headers.insert("x-remote-extra-scopes", HeaderValue::from_static("all"));
        let mut user = User::new("alice", &["devs", "ops"]);
        user.extra.insert("example.com/team".into(), vec!["web".into()]);
        introduce(&user, &mut headers).expect("told");
        let told: Vec<_> =
            headers.iter().map(|(name, value)| format!("{name}={}", value.to_str().expect("text"))).collect();
        assert_eq!(
            told,
            [
                "x-remote-user=alice",
                "x-remote-group=devs",
                "x-remote-group=ops",
                "x-remote-extra-example.com%2fteam=web"
            ]
        );
    }
}
