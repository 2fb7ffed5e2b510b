//! Calls webhooks of admission and conversion: HTTPS from inside the cluster's network, with the certificate that the configuration asks for.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use gate::{Asking, Webhooks};
use http::{Request, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use object::Snapshot;
use plan::{Call, Target};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use schema::path;
use serde_json::Value;
use tokio_rustls::TlsConnector;

use crate::proxy::Dial;

/// Bytes of an answer that are read, or so many times what was asked.
const ANSWER_LIMIT: usize = 3 << 20;
const ANSWER_GROWTH: usize = 8;

/// Calls webhooks through a dialer.
pub struct Caller {
    dial: Dial,
}

/// Where a call goes: what to dial, whose certificate to expect, what to ask for.
#[derive(Debug, PartialEq)]
struct Place {
    address: String,
    port: u16,
    /// In the certificate and in the `Host` header.
    host: String,
    path: String,
}

impl Caller {
    pub fn new(dial: Dial) -> Self {
        Self { dial }
    }

    async fn post(&self, place: &Place, call: &Call) -> Result<Value, String> {
        let told = |error: &dyn std::error::Error| root_cause(error);
        let socket =
            (self.dial)(place.address.clone(), place.port).await.map_err(|error| match told(&error) {
                lookup if lookup.starts_with("lookup ") => format!("dial tcp: {lookup}"),
                why => format!("dial tcp {}:{}: {why}", place.address, place.port),
            })?;
        let name = ServerName::try_from(place.host.clone()).map_err(|error| told(&error))?;
        let tls = tls(call.ca_bundle.as_deref())?;
        let secured = TlsConnector::from(tls).connect(name, socket).await.map_err(|error| told(&error))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(secured))
            .await
            .map_err(|error| told(&error))?;
        let connection = tokio::spawn(connection);
        let body = serde_json::to_vec(&call.body).map_err(|error| told(&error))?;
        let asked_bytes = body.len();
        let separator = if place.path.contains('?') { '&' } else { '?' };
        let request = Request::post(format!("{}{separator}timeout={}s", place.path, call.timeout_ms / 1000))
            .header(header::HOST, format!("{}:{}", place.host, place.port))
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json, */*")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| told(&error))?;
        let answer = sender.send_request(request).await.map_err(|error| told(&error))?;
        let status = answer.status();
        // What converts many objects answers with as many.
        let limit = ANSWER_LIMIT.max(asked_bytes.saturating_mul(ANSWER_GROWTH));
        let body = Limited::new(answer.into_body(), limit).collect().await;
        connection.abort();
        let body = body.map_err(|error| format!("read the answer: {error}"))?.to_bytes();
        if !status.is_success() {
            return Err(format!("the server answered {status}"));
        }
        serde_json::from_slice(&body).map_err(|error| format!("the answer is no JSON: {error}"))
    }
}

impl Webhooks for Caller {
    fn call<'a>(&'a self, snapshot: &'a Snapshot, call: &'a Call) -> Asking<'a> {
        Box::pin(async move {
            let place = place(snapshot, &call.target)?;
            let limit = Duration::from_millis(call.timeout_ms);
            match tokio::time::timeout(limit, self.post(&place, call)).await {
                Ok(answered) => answered,
                Err(_) => Err("context deadline exceeded".to_owned()),
            }
        })
    }
}

/// Errors of libraries wrap the one that says what happened.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

fn place(snapshot: &Snapshot, target: &Target) -> Result<Place, String> {
    match target {
        Target::Service { namespace, name, port, path } => {
            let service = snapshot.find(kinds::SERVICES, namespace, name);
            let service = service.ok_or_else(|| format!("service {name:?} not found"))?;
            let service = service.to_value().map_err(|error| error.to_string())?;
            let host = format!("{name}.{namespace}.svc");
            let address = match (path::text(&service, "spec.type"), path::text(&service, "spec.clusterIP")) {
                ("ExternalName", _) => path::text(&service, "spec.externalName").to_owned(),
                (_, "" | "None") => return Err(format!("service {name:?} has no cluster IP")),
                (_, address) => address.to_owned(),
            };
            let path = if path.starts_with('/') { path.to_string() } else { format!("/{path}") };
            Ok(Place { address, port: *port, host, path })
        }
        Target::Url(url) => {
            let uri: Uri = url.parse().map_err(|error| format!("{url} is no URL: {error}"))?;
            if uri.scheme_str() != Some("https") {
                return Err(format!("{url} is not https"));
            }
            let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
            let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
            Ok(Place { address: host.clone(), port: uri.port_u16().unwrap_or(443), host, path })
        }
    }
}

/// Trusts the bundle if there is one; without it nobody is trusted, since this server has no system roots of its own.
fn tls(bundle: Option<&[u8]>) -> Result<Arc<ClientConfig>, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(bundle.unwrap_or_default()) {
        let certificate =
            certificate.map_err(|error| format!("unable to load root certificates: {error}"))?;
        roots.add(certificate).map_err(|error| format!("unable to load root certificates: {error}"))?;
    }
    if roots.is_empty() {
        return Err("x509: certificate signed by unknown authority: the configuration has no caBundle".into());
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| io::Error::other(error).to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use object::{Draft, Key, body};
    use serde_json::json;

    use super::*;

    #[test]
    fn where_a_call_goes() {
        let snapshot = Snapshot::default();
        for (url, wanted) in [
            ("https://10.0.0.1:8443/check?x=1", Ok(("10.0.0.1", 8443, "/check?x=1"))),
            ("https://10.0.0.1", Ok(("10.0.0.1", 443, "/"))),
            ("http://10.0.0.1/", Err("http://10.0.0.1/ is not https")),
            ("https://example.com/", Ok(("example.com", 443, "/"))),
            ("https://[fd00::1]/x", Ok(("fd00::1", 443, "/x"))),
        ] {
            let found = place(&snapshot, &Target::Url(url.into()));
            let found = found.as_ref().map(|place| (place.address.as_str(), place.port, place.path.as_str()));
            assert_eq!(found.map_err(String::as_str), wanted, "{url}");
        }
        let service = |name: &str| Target::Service {
            namespace: "a".into(),
            name: name.into(),
            port: 8443,
            path: "x".into(),
        };
        let mut snapshot = Snapshot::default();
        for (name, spec) in [
            ("inside", json!({"type": "ClusterIP", "clusterIP": "10.0.0.7"})),
            ("headless", json!({"type": "ClusterIP", "clusterIP": "None"})),
            ("outside", json!({"type": "ExternalName", "externalName": "hooks.example.com"})),
        ] {
            let object = json!({"metadata": {"name": name, "namespace": "a"}, "spec": spec});
            let key = Key::new(kinds::SERVICES, "a", name);
            snapshot.put(Draft::read(key, [].into(), body::encode(&object)).expect("a draft").at(1));
        }
        for (name, wanted) in [
            ("inside", Ok(("10.0.0.7", "inside.a.svc"))),
            ("outside", Ok(("hooks.example.com", "outside.a.svc"))),
            ("headless", Err("service \"headless\" has no cluster IP")),
            ("none", Err("service \"none\" not found")),
        ] {
            let found = place(&snapshot, &service(name));
            let found = found.as_ref().map(|place| (place.address.as_str(), place.host.as_str()));
            assert_eq!(found.map_err(String::as_str), wanted, "{name}");
        }
    }
}
