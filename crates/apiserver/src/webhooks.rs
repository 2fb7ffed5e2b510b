//! Calls webhooks of admission and conversion: HTTPS from inside the cluster's network, with the certificate that the configuration asks for.

use std::sync::Arc;
use std::time::Duration;

use gate::{Asking, Webhooks};
use http::{Request, header};
use http_body_util::Full;
use hyper::body::Bytes;
use object::Snapshot;
use plan::{Call, Target};
use rustls::ClientConfig;
use schema::path;
use serde_json::Value;

use crate::dial::Dial;
use crate::https::{self, Place};

/// Calls webhooks through a dialer.
pub struct Caller {
    dial: Dial,
}

impl Caller {
    pub fn new(dial: Dial) -> Self {
        Self { dial }
    }

    async fn post(&self, place: Place, call: &Call) -> Result<Value, String> {
        let body = serde_json::to_vec(&call.body).map_err(|error| error.to_string())?;
        let separator = if place.path.contains('?') { '&' } else { '?' };
        let path = format!("{}{separator}timeout={}s", place.path, call.timeout_ms / 1000);
        let request = Request::post("/")
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json, */*")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| error.to_string())?;
        let tls = tls(call.ca_bundle.as_deref())?;
        let answered = https::exchange(&self.dial, tls, &Place { path, ..place }, request).await?;
        if !answered.status().is_success() {
            return Err(format!("the server answered {}", answered.status()));
        }
        serde_json::from_slice(answered.body()).map_err(|error| format!("the answer is no JSON: {error}"))
    }
}

impl Webhooks for Caller {
    fn call<'a>(&'a self, snapshot: &'a Snapshot, call: &'a Call) -> Asking<'a> {
        Box::pin(async move {
            let place = place(snapshot, &call.target)?;
            let limit = Duration::from_millis(call.timeout_ms);
            match tokio::time::timeout(limit, self.post(place, call)).await {
                Ok(answered) => answered,
                Err(_) => Err("context deadline exceeded".to_owned()),
            }
        })
    }
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
        Target::Url(url) => Place::of(url),
    }
}

/// Trusts the bundle if there is one; without it nobody is trusted, since this server has no system roots of its own.
fn tls(bundle: Option<&[u8]>) -> Result<Arc<ClientConfig>, String> {
    let bundle = bundle.ok_or_else(|| {
        "x509: certificate signed by unknown authority: the configuration has no caBundle".to_owned()
    })?;
    https::client_tls(https::authorities(bundle)?, None)
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

    /// [sig-api-machinery] AdmissionWebhook should honor timeout: a hook that takes five seconds, asked with one and with ten.
    #[tokio::test(start_paused = true)]
    async fn a_call_ends_with_its_timeout() {
        let caller = Caller::new(Arc::new(|_, _| {
            Box::pin(async {
                tokio::time::sleep(Duration::from_secs(5)).await;
                Err(std::io::ErrorKind::ConnectionRefused.into())
            })
        }));
        let authority = rcgen::generate_simple_self_signed(["hook".to_owned()]).expect("a certificate");
        for (timeout_ms, seconds, wanted) in [
            (1_000, 1, "context deadline exceeded"),
            (10_000, 5, "dial tcp 10.0.0.1:443: connection refused"),
        ] {
            let call = Call {
                target: Target::Url("https://10.0.0.1".into()),
                ca_bundle: Some(authority.cert.pem().into_bytes().into()),
                timeout_ms,
                body: json!({}),
            };
            let begun = tokio::time::Instant::now();
            let answer = caller.call(&Snapshot::default(), &call).await;
            assert_eq!((begun.elapsed().as_secs(), answer), (seconds, Err(wanted.to_owned())));
        }
    }
}
