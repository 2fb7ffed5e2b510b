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
use object::{Object, Status};
use plan::{Attributes, User};
use rustls::ClientConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use schema::path;
use serde::Deserialize;
use serde_json::Value;

use crate::proxy::{self, Goal, Secure};
use crate::query::Query;
use crate::respond::{self, Answer};
use crate::server::Shared;
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
    async fn connect(&self, shared: &Shared) -> Result<(Box<dyn proxy::Socket>, Goal), String> {
        let snapshot = shared.store().snapshot();
        let service = snapshot.find(kinds::SERVICES, &self.namespace, &self.service);
        let service = service.ok_or_else(|| format!("service {:?} not found", self.service))?;
        let service = service.to_value().map_err(|error| error.to_string())?;
        let address = path::text(&service, "spec.clusterIP").to_owned();
        if address.parse::<IpAddr>().is_err() {
            return Err(format!("service {:?} has no cluster IP", self.service));
        }
        let host = format!("{}.{}.svc", self.service, self.namespace);
        let goal = Goal { address, port: self.port, secure: Secure::Plain, path: String::new() };
        let config = Arc::new(self.tls(shared)?);
        let socket =
            proxy::connect_as(shared, &goal, &host, config).await.map_err(|status| status.message)?;
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
    pub(crate) fn read(method: &Method, path: &str, query: &Query) -> Self {
        let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
        let [_, group, version, rest @ ..] = &segments[..] else {
            return Self { verb: verb_of_path(method), path: path.to_owned(), ..Self::default() };
        };
        let (namespace, rest) = match rest {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (*namespace, rest),
            rest => ("", rest),
        };
        let [resource, rest @ ..] = rest else {
            return Self { verb: verb_of_path(method), path: path.to_owned(), ..Self::default() };
        };
        let name = rest.first().copied().unwrap_or_default();
        let watches = matches!(query.get("watch"), "true" | "1");
        let verb = match (method.as_str(), name.is_empty()) {
            ("GET" | "HEAD", _) if watches => "watch",
            ("GET" | "HEAD", true) => "list",
            ("GET" | "HEAD", false) => "get",
            ("POST", _) => "create",
            ("PUT", _) => "update",
            ("PATCH", _) => "patch",
            ("DELETE", true) => "deletecollection",
            ("DELETE", false) => "delete",
            _ => "",
        };
        Self {
            verb,
            group: (*group).to_owned(),
            version: (*version).to_owned(),
            resource: (*resource).to_owned(),
            subresource: rest.get(1).copied().unwrap_or_default().to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            path: String::new(),
        }
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
        }
    }
}

fn verb_of_path(method: &Method) -> &'static str {
    match method.as_str() {
        "POST" => "post",
        "PUT" => "put",
        "PATCH" => "patch",
        "DELETE" => "delete",
        "HEAD" => "head",
        _ => "get",
    }
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
    introduce(user, request.headers_mut());
    let path = request.uri().path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string);
    let passed = match extension.connect(shared).await {
        Ok((socket, goal)) => proxy::pass_over(socket, Goal { path, ..goal }, request).await,
        Err(why) => {
            let message = format!("error trying to reach service: {why}");
            Err(Status::new(object::Reason::ServiceUnavailable, message))
        }
    };
    passed.unwrap_or_else(|status| respond::failure(&status))
}

/// Says who asks, in place of whatever the client says of itself.
fn introduce(user: &User, headers: &mut http::HeaderMap) {
    let told: Vec<HeaderName> =
        headers.keys().filter(|name| name.as_str().starts_with("x-remote-")).cloned().collect();
    for name in told {
        headers.remove(name);
    }
    let mut add = |name: &str, value: &str| {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_str(value)) {
            headers.append(name, value);
        }
    };
    add("x-remote-user", &user.name);
    if !user.uid.is_empty() {
        add("x-remote-uid", &user.uid);
    }
    for group in &user.groups {
        add("x-remote-group", group);
    }
    for (key, values) in &user.extra {
        let name = format!("x-remote-extra-{}", escaped(key));
        values.iter().for_each(|value| add(&name, value));
    }
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
        ] {
            let query = Query::parse(query).expect("a query");
            let asked = Asked::read(&method, path, &query);
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
    fn a_client_does_not_say_who_it_is() {
        let mut headers = http::HeaderMap::new();
        headers.insert("x-remote-user", HeaderValue::from_static("root"));
        headers.insert("x-remote-extra-scopes", HeaderValue::from_static("all"));
        let mut user = User::new("alice", &["devs", "ops"]);
        user.extra.insert("example.com/team".into(), vec!["web".into()]);
        introduce(&user, &mut headers);
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
