//! The HTTPS client of everything that this server asks elsewhere: admission and access webhooks, issuers of tokens.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ::metrics::{Counter, Page};
use http::{HeaderValue, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Body, Bytes};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{CertificateError, ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;

use crate::dial::Dial;

/// How often who asks for time is waited for: upstream's client does so ten times.
pub(crate) const MOST_WAITS: usize = 10;
/// Bytes of an answer that are read, or so many times what was asked: what converts many objects answers with as many.
const ANSWER_LIMIT: usize = 3 << 20;
const ANSWER_GROWTH: usize = 8;

/// Where distributions keep their bundle of authorities.
const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Where a request goes: what to dial, whose certificate to expect, what to ask for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Place {
    pub(crate) address: String,
    pub(crate) port: u16,
    /// In the certificate and in the `Host` header.
    pub(crate) host: String,
    /// With the query.
    pub(crate) path: String,
}

impl Place {
    /// # Errors
    /// It is no `https://` URL with a host.
    pub(crate) fn of(url: &str) -> Result<Self, String> {
        let uri: Uri = url.parse().map_err(|error| format!("{url} is no URL: {error}"))?;
        if uri.scheme_str() != Some("https") {
            return Err(format!("{url} is not https"));
        }
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        if host.is_empty() {
            return Err(format!("{url} has no host"));
        }
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        Ok(Self { address: host.clone(), port: uri.port_u16().unwrap_or(443), host, path })
    }
}

/// Sends a request over a connection of its own and reads the whole answer. Method, path, host and connection are set here.
///
/// # Errors
/// What kept it from being answered, in words that name the step.
pub(crate) async fn exchange(
    dial: &Dial,
    tls: Arc<ClientConfig>,
    place: &Place,
    request: Request<Full<Bytes>>,
) -> Result<Response<Bytes>, String> {
    exchange_noting(dial, tls, place, request, &Distrust::default()).await
}

/// As [`exchange`], counting why a certificate is refused.
///
/// # Errors
/// As there.
pub(crate) async fn exchange_noting(
    dial: &Dial,
    tls: Arc<ClientConfig>,
    place: &Place,
    mut request: Request<Full<Bytes>>,
    distrust: &Distrust,
) -> Result<Response<Bytes>, String> {
    let told = |error: &dyn std::error::Error| root_cause(error);
    let Place { address, port, host, path } = place;
    let socket = dial(address.clone(), *port).await.map_err(|error| match told(&error) {
        lookup if lookup.starts_with("lookup ") => format!("dial tcp: {lookup}"),
        why => format!("dial tcp {address}:{port}: {why}"),
    })?;
    let asked_bytes = request.body().size_hint().exact().and_then(|bytes| usize::try_from(bytes).ok());
    let limit = ANSWER_LIMIT.max(asked_bytes.unwrap_or_default().saturating_mul(ANSWER_GROWTH));
    let name = ServerName::try_from(host.clone()).map_err(|error| told(&error))?;
    let secured = TlsConnector::from(tls).connect(name, socket).await;
    let secured = secured.map_err(|error| told(distrust.noted(&error)))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(secured)).await.map_err(|error| told(&error))?;
    let connection = tokio::spawn(connection);
    *request.uri_mut() = path.parse().map_err(|error| format!("{path} is no path: {error}"))?;
    let bracketed =
        if host.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6()) { format!("[{host}]") } else { host.clone() };
    let named = HeaderValue::from_str(&format!("{bracketed}:{port}")).map_err(|error| told(&error))?;
    request.headers_mut().insert(header::HOST, named);
    let answer = sender.send_request(request).await.map_err(|error| told(&error))?;
    let (head, body) = answer.into_parts();
    let body = Limited::new(body, limit).collect().await;
    connection.abort();
    let body = body.map_err(|error| format!("read the answer: {error}"))?.to_bytes();
    Ok(Response::from_parts(head, body))
}

/// Certificates of servers that were refused for what clients of old let pass.
#[derive(Default)]
pub(crate) struct Distrust {
    /// The name stands in no `subjectAltName`, because there is none.
    without_names: Counter,
    /// Signed with SHA-1.
    weakly_signed: Counter,
}

/// What is behind the tag and length of an object identifier: `sha1WithRSAEncryption` and `ecdsa-with-SHA1`.
const SHA1_SIGNATURES: [&[u8]; 2] =
    [&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x05], &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x01]];

impl Distrust {
    /// Counts why a handshake failed, if it is one of these, and gives it back.
    pub(crate) fn noted<'e>(&self, failure: &'e std::io::Error) -> &'e std::io::Error {
        let inner = failure.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match inner {
            Some(rustls::Error::InvalidCertificate(CertificateError::NotValidForNameContext {
                presented,
                ..
            })) if presented.is_empty() => self.without_names.increase(),
            Some(rustls::Error::InvalidCertificate(
                CertificateError::UnsupportedSignatureAlgorithmContext { signature_algorithm_id: id, .. },
            )) if SHA1_SIGNATURES.iter().any(|known| id.ends_with(known)) => self.weakly_signed.increase(),
            _ => {}
        }
        failure
    }

    /// `of`: `webhooks` or `kube_aggregator`.
    pub(crate) fn write(&self, of: &str, page: &mut Page) {
        let words = "(either/or, based on the runtime environment)";
        let help = format!(
            "[ALPHA] Counts the number of requests to servers with insecure SHA1 signatures in their serving certificate OR the number of connection failures due to the insecure SHA1 signatures {words}"
        );
        page.counter(&format!("apiserver_{of}_x509_insecure_sha1_total"), &help, &self.weakly_signed);
        let help = format!(
            "[ALPHA] Counts the number of requests to servers missing SAN extension in their serving certificate OR the number of connection failures due to the lack of x509 certificate SAN extension missing {words}"
        );
        page.counter(&format!("apiserver_{of}_x509_missing_san_total"), &help, &self.without_names);
    }
}

/// When whoever is overloaded or broken wants to be asked again.
pub(crate) fn retry_after(answered: &Response<Bytes>) -> Option<Duration> {
    let status = answered.status();
    if status != StatusCode::TOO_MANY_REQUESTS && !status.is_server_error() {
        return None;
    }
    let seconds = answered.headers().get(header::RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// Errors of libraries wrap the one that says what happened.
pub(crate) fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// The authorities of a bundle in PEM.
///
/// # Errors
/// A part of it is no certificate, or there is none.
pub(crate) fn authorities(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate =
            certificate.map_err(|error| format!("unable to load root certificates: {error}"))?;
        roots.add(certificate).map_err(|error| format!("unable to load root certificates: {error}"))?;
    }
    if roots.is_empty() {
        return Err("unable to load root certificates: there is none in the bundle".to_owned());
    }
    Ok(roots)
}

/// The host's authorities (those of `SSL_CERT_FILE` if it is set, as Go's programs have it), or Mozilla's where it has none.
pub(crate) fn system_authorities() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let mut bundles = named.into_iter().chain(BUNDLES.iter().map(PathBuf::from));
    if let Some(pem) = bundles.find_map(|path| std::fs::read(path).ok()) {
        // Bundles hold old certificates that webpki does not take.
        roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&pem).flatten());
    }
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    roots
}

/// The TLS side of a client that believes these authorities and shows this certificate, if any.
///
/// # Errors
/// The certificate and the key do not fit.
pub(crate) fn client_tls(
    roots: RootCertStore,
    identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
) -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots);
    let config = match identity {
        None => config.with_no_client_auth(),
        Some((chain, key)) => config.with_client_auth_cert(chain, key).map_err(|error| error.to_string())?,
    };
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_a_certificate_is_refused_is_counted() {
        let expected = || ServerName::try_from("a.b.svc").expect("a name");
        let names = |presented: &[&str]| CertificateError::NotValidForNameContext {
            expected: expected(),
            presented: presented.iter().map(|&name| name.to_owned()).collect(),
        };
        let signed = |id: &[u8]| CertificateError::UnsupportedSignatureAlgorithmContext {
            signature_algorithm_id: id.to_vec(),
            supported_algorithms: Vec::new(),
        };
        // As they stand in a certificate: SHA-256 with RSA is another.
        let sha256 = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b];
        for (error, wanted) in [
            (names(&[]), (1, 0)),
            (names(&["c.d.svc"]), (0, 0)),
            (signed(SHA1_SIGNATURES[0]), (0, 1)),
            (signed(SHA1_SIGNATURES[1]), (0, 1)),
            (signed(&sha256), (0, 0)),
            (CertificateError::UnknownIssuer, (0, 0)),
        ] {
            let distrust = Distrust::default();
            let failure = std::io::Error::other(rustls::Error::InvalidCertificate(error.clone()));
            distrust.noted(&failure);
            let found = (distrust.without_names.get(), distrust.weakly_signed.get());
            assert_eq!(found, wanted, "{error:?}");
        }
    }
}
