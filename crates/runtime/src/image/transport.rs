//! HTTP/1.1 to registries: connections, TLS, timeouts. Knows nothing of images.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::proxy::{self, Proxies, Proxy};

/// Where distributions keep their bundle of authorities.
const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
const USER_AGENT: &str = concat!("ekso/", env!("CARGO_PKG_VERSION"));
/// Connections kept open to one host.
const MAX_IDLE: usize = 4;

#[derive(Clone, Debug)]
pub struct HttpOptions {
    /// PEM files of authorities beyond the machine's.
    pub authorities: Vec<PathBuf>,
    pub proxies: Proxies,
    pub connect_timeout: Duration,
    /// Until the head of a response.
    pub response_timeout: Duration,
    /// Between two pieces of a body.
    pub stall_timeout: Duration,
}

impl Default for HttpOptions {
    fn default() -> Self {
        HttpOptions {
            authorities: Vec::new(),
            proxies: Proxies::default(),
            connect_timeout: Duration::from_secs(30),
            response_timeout: Duration::from_secs(60),
            stall_timeout: Duration::from_secs(60),
        }
    }
}

/// A request that got no response. The query of an URL may hold a signature and is not shown.
#[derive(Debug, thiserror::Error)]
#[error("failed to do request: {method} \"{url}\": {fault}")]
pub struct HttpError {
    pub method: &'static str,
    pub url: String,
    pub fault: Fault,
}

#[derive(Debug, thiserror::Error)]
pub enum Fault {
    #[error("not an http or https URL with a host")]
    BadUrl,
    #[error("dial tcp: lookup {host}: {source}")]
    Lookup { host: String, source: io::Error },
    #[error("dial tcp: lookup {0}: no such host")]
    NoSuchHost(String),
    #[error("dial tcp {address}: {}", connect_text(source))]
    Connect { address: SocketAddr, source: io::Error },
    #[error("dial tcp {0}: i/o timeout")]
    ConnectTimeout(SocketAddr),
    #[error("dial tcp {0}: a registry elsewhere may not send us to an address of this machine")]
    Local(IpAddr),
    #[error("{}", tls_text(.0))]
    Tls(io::Error),
    #[error("the proxy's address is not http://[user:password@]host[:port]")]
    BadProxy,
    #[error("proxyconnect tcp: {0}")]
    Proxy(io::Error),
    #[error("proxyconnect tcp: the proxy answered {0:?}")]
    ProxyRefused(String),
    #[error("tls handshake timeout")]
    TlsTimeout,
    #[error("{0}")]
    Protocol(#[from] hyper::Error),
    #[error("timeout awaiting response headers")]
    ResponseTimeout,
    #[error("no data for {0:?}")]
    Stalled(Duration),
    #[error("unexpected EOF after {done} of {total} bytes")]
    Short { done: u64, total: u64 },
    #[error("the response is larger than {0} bytes")]
    TooLarge(u64),
    #[error("stopped after {0} redirects")]
    Redirects(usize),
    #[error("redirected from https to http")]
    Downgrade,
    #[error("redirected without a usable Location")]
    BadRedirect,
}

/// In the words of Go's system calls, which users search for.
fn connect_text(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connect: connection refused".to_string(),
        io::ErrorKind::HostUnreachable => "connect: no route to host".to_string(),
        io::ErrorKind::NetworkUnreachable => "connect: network is unreachable".to_string(),
        io::ErrorKind::TimedOut => "i/o timeout".to_string(),
        _ => error.to_string(),
    }
}

/// The three mistakes that users make, in the words they find answers by, with the mend.
fn tls_text(error: &io::Error) -> String {
    use rustls::CertificateError::{Expired, NotValidForName, NotValidForNameContext, UnknownIssuer};
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let verify = "tls: failed to verify certificate: x509: certificate";
    match tls {
        Some(rustls::Error::InvalidCertificate(UnknownIssuer)) => {
            format!("{verify} signed by unknown authority (add the registry's authority)")
        }
        Some(rustls::Error::InvalidCertificate(Expired)) => {
            format!("{verify} has expired or is not yet valid")
        }
        Some(rustls::Error::InvalidCertificate(NotValidForName | NotValidForNameContext { .. })) => {
            format!("{verify} is not valid for this host name")
        }
        Some(rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType)) => {
            "http: server gave HTTP response to HTTPS client (list the registry as insecure if that is meant)"
                .to_string()
        }
        _ => format!("tls: {error}"),
    }
}

/// Reading the machine's authorities failed.
#[derive(Debug, thiserror::Error)]
#[error("reading authorities from {path}: {why}")]
pub struct BadAuthorities {
    pub path: PathBuf,
    pub why: String,
}

/// Which addresses a request may reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// The user named the host.
    Any,
    /// A server named it: not this machine, and not link-local, where cloud credentials are.
    Remote,
}

type Sender = SendRequest<Empty<Bytes>>;

pub(super) struct Client {
    tls: tokio_rustls::TlsConnector,
    options: HttpOptions,
    /// Open connections by scheme, host and port.
    idle: Mutex<HashMap<String, Vec<Sender>>>,
}

impl Client {
    pub(super) fn new(options: HttpOptions) -> Result<Client, BadAuthorities> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| BadAuthorities { path: PathBuf::new(), why: error.to_string() })?
            .with_root_certificates(authorities(&options.authorities)?)
            .with_no_client_auth();
        Ok(Client { tls: Arc::new(config).into(), options, idle: Mutex::default() })
    }

    /// One request and the head of its response; follows no redirect.
    pub(super) async fn send(
        &self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        reach: Reach,
    ) -> Result<Response<Body>, HttpError> {
        let fail = |fault| HttpError { method: title(method), url: shown(uri), fault };
        let origin = Origin::of(uri).ok_or_else(|| fail(Fault::BadUrl))?;
        let proxy = self.options.proxies.of(origin.tls, &origin.host, origin.port).map_err(fail)?;
        let request = || request(method, uri, headers, &origin, proxy.as_ref());
        // A kept connection may have been closed by the other side, which only shows when it is used.
        if let Some(mut sender) = self.take_idle(&origin.key)
            && let Ok(Ok(response)) =
                timeout(self.options.response_timeout, sender.send_request(request())).await
        {
            return Ok(self.body(method, uri, &origin.key, sender, response));
        }
        let mut sender = self.connect(&origin, proxy.as_ref(), reach).await.map_err(fail)?;
        let response = timeout(self.options.response_timeout, sender.send_request(request()))
            .await
            .map_err(|_| fail(Fault::ResponseTimeout))?
            .map_err(|error| fail(error.into()))?;
        Ok(self.body(method, uri, &origin.key, sender, response))
    }

    fn take_idle(&self, key: &str) -> Option<Sender> {
        let mut idle = self.idle.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let senders = idle.get_mut(key)?;
        senders.retain(|sender| !sender.is_closed());
        let ready = senders.iter().position(Sender::is_ready)?;
        Some(senders.swap_remove(ready))
    }

    /// The connection goes back among the idle ones, where it is not ready until the body was read.
    fn body(
        &self,
        method: &Method,
        uri: &Uri,
        key: &str,
        sender: Sender,
        response: Response<Incoming>,
    ) -> Response<Body> {
        let mut idle = self.idle.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let senders = idle.entry(key.to_string()).or_default();
        if senders.len() < MAX_IDLE {
            senders.push(sender);
        }
        let (method, url, stall_timeout) = (title(method), shown(uri), self.options.stall_timeout);
        response.map(|incoming| Body { incoming, method, url, stall_timeout })
    }

    async fn connect(&self, origin: &Origin, proxy: Option<&Proxy>, reach: Reach) -> Result<Sender, Fault> {
        let stream = match proxy {
            // The user named the proxy; what it may reach is its own affair.
            Some(proxy) => self.dial(&proxy.host, proxy.port, Reach::Any).await?,
            None => self.dial(&origin.host, origin.port, reach).await?,
        };
        if !origin.tls {
            return handshake(TokioIo::new(stream)).await;
        }
        let secure = async {
            let stream = match proxy {
                Some(proxy) => proxy::tunnel(stream, proxy, &origin.host, origin.port).await?,
                None => stream,
            };
            let name = ServerName::try_from(origin.host.clone()).map_err(|_| Fault::BadUrl)?;
            self.tls.connect(name, stream).await.map_err(Fault::Tls)
        };
        let stream = timeout(self.options.connect_timeout, secure).await.map_err(|_| Fault::TlsTimeout)??;
        handshake(TokioIo::new(stream)).await
    }

    async fn dial(&self, host: &str, port: u16, reach: Reach) -> Result<TcpStream, Fault> {
        let addresses: Vec<SocketAddr> = tokio::net::lookup_host((host, port))
            .await
            .map_err(|source| match source.to_string() {
                text if text.contains("not known") || text.contains("No address") => {
                    Fault::NoSuchHost(host.to_string())
                }
                _ => Fault::Lookup { host: host.to_string(), source },
            })?
            .collect();
        let mut last = Fault::NoSuchHost(host.to_string());
        for address in addresses {
            if reach == Reach::Remote && is_local(address.ip()) {
                last = Fault::Local(address.ip());
                continue;
            }
            match timeout(self.options.connect_timeout, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    // Requests are single small writes; waiting to join them only costs time.
                    let _ = stream.set_nodelay(true);
                    return Ok(stream);
                }
                Ok(Err(source)) => last = Fault::Connect { address, source },
                Err(_) => last = Fault::ConnectTimeout(address),
            }
        }
        Err(last)
    }
}

/// Through a proxy that sees it (plain HTTP), a request names its whole target (RFC 9112, 3.2.2).
fn request(
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
    origin: &Origin,
    proxy: Option<&Proxy>,
) -> Request<Empty<Bytes>> {
    let proxy = proxy.filter(|_| !origin.tls);
    let mut request = Request::new(Empty::new());
    *request.method_mut() = method.clone();
    *request.uri_mut() = match (proxy, uri.path_and_query()) {
        (Some(_), _) => uri.clone(),
        (None, Some(path)) => path.clone().into(),
        (None, None) => Uri::from_static("/"),
    };
    *request.headers_mut() = headers.clone();
    let mut more = vec![(header::HOST, origin.authority.as_str()), (header::USER_AGENT, USER_AGENT)];
    if let Some(authorization) = proxy.and_then(|proxy| proxy.authorization.as_deref()) {
        more.push((header::PROXY_AUTHORIZATION, authorization));
    }
    for (name, value) in more {
        if let Ok(value) = HeaderValue::from_str(value) {
            request.headers_mut().insert(name, value);
        }
    }
    request
}

async fn handshake<T>(io: TokioIo<T>) -> Result<Sender, Fault>
where
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::handshake(io).await?;
    // Ends with the connection; its error reaches whoever waits for the response.
    tokio::spawn(connection);
    Ok(sender)
}

/// The body of a response, read with a limit on silence.
#[derive(Debug)]
pub(super) struct Body {
    incoming: Incoming,
    method: &'static str,
    url: String,
    stall_timeout: Duration,
}

impl Body {
    /// The next piece; `None` at the end.
    pub(super) async fn chunk(&mut self) -> Result<Option<Bytes>, HttpError> {
        loop {
            let frame = match timeout(self.stall_timeout, self.incoming.frame()).await {
                Ok(Some(Ok(frame))) => frame,
                Ok(Some(Err(error))) => return Err(self.fail(error.into())),
                Ok(None) => return Ok(None),
                Err(_) => return Err(self.fail(Fault::Stalled(self.stall_timeout))),
            };
            if let Ok(data) = frame.into_data() {
                return Ok(Some(data));
            }
        }
    }

    /// The whole of a small body.
    pub(super) async fn read(mut self, limit: u64) -> Result<Vec<u8>, HttpError> {
        let mut bytes = Vec::new();
        while let Some(chunk) = self.chunk().await? {
            if bytes.len() as u64 + chunk.len() as u64 > limit {
                return Err(self.fail(Fault::TooLarge(limit)));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }

    pub(super) fn fail(&self, fault: Fault) -> HttpError {
        HttpError { method: self.method, url: self.url.clone(), fault }
    }
}

struct Origin {
    tls: bool,
    host: String,
    port: u16,
    /// As a `Host` header says it.
    authority: String,
    key: String,
}

impl Origin {
    fn of(uri: &Uri) -> Option<Origin> {
        let tls = match uri.scheme_str()? {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let authority = uri.authority()?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_string();
        let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
        // Never a user name: `https://user@host/` would put it there.
        let shown = match authority.port_u16() {
            Some(port) => format!("{}:{port}", authority.host()),
            None => authority.host().to_string(),
        };
        Some(Origin { tls, key: format!("{tls} {host} {port}"), host, port, authority: shown })
    }
}

pub(super) fn same_origin(a: &Uri, b: &Uri) -> bool {
    match (Origin::of(a), Origin::of(b)) {
        (Some(a), Some(b)) => a.key == b.key,
        _ => false,
    }
}

/// Addresses of this machine and of its link.
pub(super) fn is_local(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_link_local() || v4.is_unspecified(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unspecified() || v6.is_unicast_link_local(),
    }
}

/// The machine's authorities, or Mozilla's where it has none (a machine of ours has no `/etc/ssl`), and those asked for.
fn authorities(extra: &[PathBuf]) -> Result<rustls::RootCertStore, BadAuthorities> {
    let mut roots = rustls::RootCertStore::empty();
    for bundle in BUNDLES {
        let Ok(pem) = fs::read(bundle) else { continue };
        // Bundles hold old certificates that webpki does not take.
        roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&pem).flatten());
        break;
    }
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    for path in extra {
        let fail = |why: String| BadAuthorities { path: path.clone(), why };
        let pem = fs::read(path).map_err(|error| fail(error.to_string()))?;
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let certificate = certificate.map_err(|error| fail(error.to_string()))?;
            roots.add(certificate).map_err(|error| fail(error.to_string()))?;
        }
    }
    Ok(roots)
}

/// As Go's errors write methods.
fn title(method: &Method) -> &'static str {
    if *method == Method::HEAD { "Head" } else { "Get" }
}

pub(super) fn shown(uri: &Uri) -> String {
    let scheme = uri.scheme_str().unwrap_or("?");
    let host = uri.host().unwrap_or("?");
    let port = uri.port_u16().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{scheme}://{host}{port}{}", uri.path())
}

pub(super) fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}
