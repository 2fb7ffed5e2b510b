//! Calls webhooks of admission and conversion: HTTPS from inside the cluster's network, with the certificate that the configuration asks for.

use std::sync::Arc;
use std::time::Duration;

use ::metrics::Page;
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
use crate::https::{self, Distrust, Place};

/// Calls webhooks through a dialer.
pub struct Caller {
    dial: Dial,
    distrust: Distrust,
}

impl Caller {
    pub fn new(dial: Dial) -> Self {
        Self { dial, distrust: Distrust::default() }
    }

    /// Who answers that it cannot just now, and when it can, is asked again then, as upstream's client does: nothing else is.
    async fn post(&self, place: Place, call: &Call) -> Result<Value, String> {
        let body = Bytes::from(serde_json::to_vec(&call.body).map_err(|error| error.to_string())?);
        let separator = if place.path.contains('?') { '&' } else { '?' };
        let path = format!("{}{separator}timeout={}s", place.path, call.timeout_ms / 1000);
        let place = Place { path, ..place };
        let tls = tls(call.ca_bundle.as_deref())?;
        let mut waits = 0;
        let answered = loop {
            let request = Request::post("/")
                .header(header::CONTENT_TYPE, "application/json")
                .header(header::ACCEPT, "application/json, */*")
                .body(Full::new(body.clone()))
                .map_err(|error| error.to_string())?;
            let answered =
                https::exchange_noting(&self.dial, tls.clone(), &place, request, &self.distrust).await?;
            match https::retry_after(&answered) {
                Some(wait) if waits < https::MOST_WAITS => {
                    waits += 1;
                    tokio::time::sleep(wait).await;
                }
                _ => break answered,
            }
        };
        if !answered.status().is_success() {
            return Err(format!("the server answered {}", answered.status()));
        }
        serde_json::from_slice(answered.body()).map_err(|error| format!("the answer is no JSON: {error}"))
    }
}

impl Webhooks for Caller {
    fn write_metrics(&self, page: &mut Page) {
        self.distrust.write("webhooks", page);
    }

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
    use std::sync::atomic::{AtomicUsize, Ordering};

    use object::{Draft, Key, body};
    use serde_json::json;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

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

    /// Over TLS, on streams that need no network: the answers come one after another.
    fn answering(names: &[&str], answers: &'static [&'static str]) -> (Caller, Arc<AtomicUsize>, Box<[u8]>) {
        let names = names.iter().map(|&name| name.to_owned());
        let made = rcgen::generate_simple_self_signed(names.collect::<Vec<_>>()).expect("a certificate");
        let key = rustls::pki_types::PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("protocols")
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key.into())
            .expect("a server");
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        let caller = Caller::new(Arc::new(move |_, _| {
            let (acceptor, number) = (acceptor.clone(), count.fetch_add(1, Ordering::Relaxed));
            Box::pin(async move {
                let (near, far) = tokio::io::duplex(1 << 16);
                tokio::spawn(async move {
                    // Not with who does not believe it.
                    let Ok(mut stream) = acceptor.accept(far).await else { return };
                    let mut asked = Vec::new();
                    while !asked.ends_with(b"{}") {
                        assert!(stream.read_buf(&mut asked).await.expect("a request") > 0);
                    }
                    stream.write_all(answers[number].as_bytes()).await.expect("answered");
                });
                Ok(Box::new(near) as Box<dyn crate::dial::Socket>)
            })
        }));
        (caller, asked, made.cert.pem().into_bytes().into())
    }

    #[tokio::test(start_paused = true)]
    async fn who_says_when_is_asked_again_then() {
        const GOOD: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
        const LATER: &str = "HTTP/1.1 503 Service Unavailable\r\nretry-after: 2\r\ncontent-length: 0\r\n\r\n";
        const BROKEN: &str = "HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n";
        for (answers, timeout_ms, times, seconds, wanted) in [
            (&[LATER, LATER, GOOD][..], 10_000, 3, 4, Ok(json!({}))),
            (&[LATER, BROKEN], 10_000, 2, 2, Err("the server answered 500 Internal Server Error")),
            (&[LATER, LATER, GOOD], 3_000, 2, 3, Err("context deadline exceeded")),
            (&[LATER; 11], 30_000, 11, 20, Err("the server answered 503 Service Unavailable")),
        ] {
            let (caller, asked, ca_bundle) = answering(&["10.0.0.1"], answers);
            let target = Target::Url("https://10.0.0.1".into());
            let call = Call { target, ca_bundle: Some(ca_bundle), timeout_ms, body: json!({}) };
            let begun = tokio::time::Instant::now();
            let answer = caller.call(&Snapshot::default(), &call).await;
            assert_eq!(answer, wanted.map_err(str::to_owned));
            assert_eq!((asked.load(Ordering::Relaxed), begun.elapsed().as_secs()), (times, seconds));
        }
    }

    #[tokio::test]
    async fn a_certificate_without_names_is_counted() {
        for (names, wanted) in [(&[][..], 1), (&["10.0.0.2"], 0)] {
            let (caller, _, ca_bundle) = answering(names, &[]);
            let target = Target::Url("https://10.0.0.1".into());
            let call = Call { target, ca_bundle: Some(ca_bundle), timeout_ms: 10_000, body: json!({}) };
            assert!(caller.call(&Snapshot::default(), &call).await.is_err());
            let mut page = Page::default();
            caller.write_metrics(&mut page);
            let text = page.into_text();
            let line = format!("apiserver_webhooks_x509_missing_san_total {wanted}");
            assert!(text.lines().any(|one| one == line), "{line} is not in {text}");
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
