//! The pull side of the OCI distribution specification: manifests, blobs, and the authorization that registries ask for
//! (RFC 6750 and 7617; distribution's "Token Authentication").

use std::collections::BTreeMap;
use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri, header};
use serde::Deserialize;
use tokio::sync::Mutex;

use super::auth::Credential;
use super::challenge::Challenge;
use super::digest::Digest;
use super::manifest::{self, DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST};
use super::reference::Reference;
use super::transport::{Body, Client, Fault, HttpError, HttpOptions, Reach, is_redirect, same_origin, shown};

const MAX_REDIRECTS: usize = 10;
const TOKEN_BYTES: u64 = 1 << 20;
const ERROR_BYTES: u64 = 16 << 10;

/// How registries are reached.
#[derive(Clone, Debug, Default)]
pub struct Registries {
    /// Domain (`docker.io`) to base URLs that are tried before it, in order.
    /// They are asked as containerd does: with `?ns=<domain>`.
    pub mirrors: BTreeMap<String, Vec<String>>,
    /// Domains, with a port where they have one, that speak plain HTTP. Loopback always does.
    pub insecure: Vec<String>,
    pub http: HttpOptions,
}

#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error("{0}: not found")]
    NotFound(String),
    #[error("unexpected status from {method} request to {url}: {status}{message}")]
    Status { method: Method, url: String, status: StatusCode, message: String },
    #[error("pull access denied, repository does not exist or may require authorization: {0}")]
    Denied(String),
    #[error("failed to authorize: failed to fetch {what} token: {source}")]
    Token { what: &'static str, source: Box<RegistryError> },
    #[error("{0}")]
    Invalid(String),
}

impl RegistryError {
    /// Whether the same request may succeed a moment later.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            RegistryError::Http(error) => !matches!(
                error.fault,
                Fault::BadUrl
                    | Fault::BadProxy
                    | Fault::Local(_)
                    | Fault::TooLarge(_)
                    | Fault::Redirects(_)
                    | Fault::Downgrade
                    | Fault::BadRedirect
            ),
            RegistryError::Status { status, .. } => is_busy(*status),
            RegistryError::Token { source, .. } => source.is_transient(),
            _ => false,
        }
    }
}

fn is_busy(status: StatusCode) -> bool {
    status.is_server_error() || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT)
}

/// One place that may have an image.
#[derive(Clone, Debug)]
pub(super) struct Endpoint {
    /// `https://host`, without a slash at the end.
    base: String,
    /// The domain that a mirror is asked for.
    namespace: Option<String>,
}

impl Endpoint {
    pub(super) fn is_mirror(&self) -> bool {
        self.namespace.is_some()
    }
}

impl Registries {
    /// Where to look for an image: mirrors, then its own registry.
    pub(super) fn endpoints(&self, reference: &Reference) -> Vec<Endpoint> {
        let domain = &reference.domain;
        let mirrors = self.mirrors.get(domain).into_iter().flatten();
        let mut endpoints: Vec<Endpoint> = mirrors
            .map(|base| Endpoint {
                base: base.trim_end_matches('/').to_string(),
                namespace: Some(domain.clone()),
            })
            .collect();
        let host = if domain == "docker.io" { "registry-1.docker.io" } else { domain };
        let scheme = if self.insecure.contains(domain) || is_loopback(domain) { "http" } else { "https" };
        endpoints.push(Endpoint { base: format!("{scheme}://{host}"), namespace: None });
        endpoints
    }
}

/// `localhost`, 127.0.0.0/8 and ::1, with any port.
fn is_loopback(domain: &str) -> bool {
    let host = match domain.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => host,
        _ => domain,
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.to_canonical().is_loopback())
}

/// A repository at an endpoint, with one credential (or none) and the authorization it led to.
pub(super) struct Session {
    client: Arc<Client>,
    endpoint: Endpoint,
    reference: Reference,
    credential: Option<Credential>,
    authorization: Mutex<Option<HeaderValue>>,
}

impl Session {
    pub(super) fn new(
        client: Arc<Client>,
        endpoint: Endpoint,
        reference: Reference,
        credential: Option<Credential>,
    ) -> Self {
        Session { client, endpoint, reference, credential, authorization: Mutex::new(None) }
    }

    /// Asks for a manifest without its body, which registries do not count as a pull. Some do not say the digest.
    pub(super) async fn resolve(&self) -> Result<Option<Digest>, RegistryError> {
        let target = self.reference.target();
        let response =
            self.request(&Method::HEAD, &format!("manifests/{target}"), accept_manifests()).await?;
        let digest = response
            .headers()
            .get("docker-content-digest")
            .and_then(|value| value.to_str().ok()?.parse().ok());
        Ok(self.reference.digest.or(digest))
    }

    /// A manifest or index with the media type it came as; verified when asked for by digest.
    pub(super) async fn manifest(&self, target: &str) -> Result<(Vec<u8>, String), RegistryError> {
        let response = self.request(&Method::GET, &format!("manifests/{target}"), accept_manifests()).await?;
        let media_type = response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let media_type = media_type.unwrap_or_default().to_string();
        let bytes = response.into_body().read(manifest::DOCUMENT_BYTES).await?;
        if let Ok(wanted) = target.parse::<Digest>() {
            let found = Digest::of(&bytes);
            if wanted != found {
                return Err(RegistryError::Invalid(format!(
                    "manifest {wanted}: its content has the digest {found}"
                )));
            }
        }
        Ok((bytes, media_type))
    }

    /// The content of a blob from `offset` on; the status says whether the registry went along with that.
    pub(super) async fn blob(&self, digest: &Digest, offset: u64) -> Result<Response<Body>, RegistryError> {
        let mut headers = HeaderMap::new();
        // Proxies that compress on the way would change the bytes.
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if offset > 0
            && let Ok(range) = HeaderValue::from_str(&format!("bytes={offset}-"))
        {
            headers.insert(header::RANGE, range);
        }
        self.request(&Method::GET, &format!("blobs/{digest}"), headers).await
    }

    async fn request(
        &self,
        method: &Method,
        path: &str,
        headers: HeaderMap,
    ) -> Result<Response<Body>, RegistryError> {
        let uri = self.uri(path)?;
        let before = self.authorization.lock().await.clone();
        let response = self.follow(method, &uri, &headers, before.as_ref()).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return self.judge(method, &uri, response).await;
        }
        let fresh = self.authorize(&uri, response, before.as_ref()).await?;
        let response = self.follow(method, &uri, &headers, Some(&fresh)).await?;
        self.judge(method, &uri, response).await
    }

    fn uri(&self, path: &str) -> Result<Uri, RegistryError> {
        let query =
            self.endpoint.namespace.as_ref().map(|ns| format!("?ns={}", percent(ns))).unwrap_or_default();
        let text = format!("{}/v2/{}/{path}{query}", self.endpoint.base, self.reference.path);
        text.parse()
            .map_err(|_| RegistryError::Invalid(format!("{text:?} is not an URL: mend the mirror's address")))
    }

    /// Follows redirects; our authorization goes to no other origin.
    async fn follow(
        &self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        authorization: Option<&HeaderValue>,
    ) -> Result<Response<Body>, RegistryError> {
        let mut at = uri.clone();
        for _ in 0..=MAX_REDIRECTS {
            let mut headers = headers.clone();
            let home = same_origin(&at, uri);
            if let Some(value) = authorization
                && home
            {
                headers.insert(header::AUTHORIZATION, value.clone());
            }
            let response = self.client.send(method, &at, &headers, self.reach(home)).await?;
            if !is_redirect(response.status()) {
                return Ok(response);
            }
            let fail = |fault| response.body().fail(fault);
            let location = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
            let next =
                location.and_then(|location| join(&at, location)).ok_or_else(|| fail(Fault::BadRedirect))?;
            if at.scheme_str() == Some("https") && next.scheme_str() != Some("https") {
                return Err(fail(Fault::Downgrade).into());
            }
            at = next;
        }
        let url = shown(uri);
        Err(HttpError { method: "Get", url, fault: Fault::Redirects(MAX_REDIRECTS) }.into())
    }

    /// A registry of this machine may send us to this machine; no other may.
    fn reach(&self, home: bool) -> Reach {
        let ours = self
            .endpoint
            .base
            .parse::<Uri>()
            .ok()
            .and_then(|uri| uri.host().map(is_loopback))
            .unwrap_or(false);
        if home || ours { Reach::Any } else { Reach::Remote }
    }

    async fn judge(
        &self,
        method: &Method,
        uri: &Uri,
        response: Response<Body>,
    ) -> Result<Response<Body>, RegistryError> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        if status == StatusCode::NOT_FOUND {
            return Err(RegistryError::NotFound(self.reference.to_string()));
        }
        let message = server_message(response).await;
        if status == StatusCode::UNAUTHORIZED {
            let message = message.map(|message| format!("server message: {message}: ")).unwrap_or_default();
            return Err(RegistryError::Denied(format!("{message}authorization failed")));
        }
        let message = message.map(|message| format!(": {message}")).unwrap_or_default();
        Err(RegistryError::Status { method: method.clone(), url: shown(uri), status, message })
    }

    /// Answers a challenge. Several layers may be challenged at once; the first gets the token for all.
    async fn authorize(
        &self,
        uri: &Uri,
        response: Response<Body>,
        used: Option<&HeaderValue>,
    ) -> Result<HeaderValue, RegistryError> {
        let mut authorization = self.authorization.lock().await;
        if let Some(fresh) = authorization.as_ref().filter(|fresh| Some(*fresh) != used) {
            return Ok(fresh.clone());
        }
        let challenges = response.headers().get_all(header::WWW_AUTHENTICATE);
        let challenges: Vec<Challenge> =
            challenges.iter().filter_map(|value| Challenge::parse(value.to_str().ok()?)).collect();
        let of = |scheme: &str| challenges.iter().find(|challenge| challenge.scheme == scheme);
        let value = if let Some(challenge) = of("bearer") {
            format!("Bearer {}", self.token(uri, challenge).await?)
        } else if of("basic").is_some() {
            match &self.credential {
                Some(credential) => credential.basic(),
                None => {
                    return Err(RegistryError::Denied(
                        "authorization failed: no basic auth credentials".to_string(),
                    ));
                }
            }
        } else {
            return Err(RegistryError::Denied(
                "authorization failed: the registry names no way to authorize".to_string(),
            ));
        };
        let mut value = HeaderValue::from_str(&value).map_err(|_| {
            RegistryError::Invalid("the token or password does not fit in a header".to_string())
        })?;
        value.set_sensitive(true);
        *authorization = Some(value.clone());
        Ok(value)
    }

    async fn token(&self, registry: &Uri, challenge: &Challenge) -> Result<String, RegistryError> {
        let what = if self.credential.is_some() { "oauth" } else { "anonymous" };
        let fail = |source: RegistryError| RegistryError::Token { what, source: Box::new(source) };
        let uri = self.token_uri(registry, challenge).map_err(fail)?;
        let basic =
            self.credential.as_ref().and_then(|credential| HeaderValue::from_str(&credential.basic()).ok());
        let response = self.follow_token(&uri, basic.as_ref(), registry).await.map_err(fail)?;
        let status = response.status();
        if !status.is_success() {
            let message =
                server_message(response).await.map(|message| format!(": {message}")).unwrap_or_default();
            return Err(fail(RegistryError::Status {
                method: Method::GET,
                url: shown(&uri),
                status,
                message,
            }));
        }
        let bytes = response.into_body().read(TOKEN_BYTES).await.map_err(|error| fail(error.into()))?;
        #[derive(Deserialize)]
        struct Answer {
            token: Option<String>,
            access_token: Option<String>,
        }
        // Serde's message could quote the token.
        let answer: Answer = serde_json::from_slice(&bytes)
            .map_err(|_| fail(RegistryError::Invalid(format!("{}: not a token response", shown(&uri)))))?;
        let token =
            answer.token.filter(|token| !token.is_empty()).or(answer.access_token).unwrap_or_default();
        if token.is_empty() {
            return Err(fail(RegistryError::Invalid(format!("{}: no token in the response", shown(&uri)))));
        }
        Ok(token)
    }

    fn token_uri(&self, registry: &Uri, challenge: &Challenge) -> Result<Uri, RegistryError> {
        let realm = challenge.get("realm").unwrap_or_default();
        let invalid =
            || RegistryError::Invalid(format!("the registry's token realm {realm:?} is not an URL"));
        let base: Uri = realm.parse().map_err(|_| invalid())?;
        if base.host().is_none() {
            return Err(invalid());
        }
        if registry.scheme_str() == Some("https") && base.scheme_str() != Some("https") {
            return Err(RegistryError::Invalid(format!("the registry's token realm {realm:?} is not https")));
        }
        let own_scope = format!("repository:{}:pull", self.reference.path);
        let scope = challenge.get("scope").unwrap_or(&own_scope);
        let mut query = format!("scope={}", percent(scope));
        if let Some(service) = challenge.get("service") {
            query = format!("service={}&{query}", percent(service));
        }
        let joint = if base.query().is_some() { '&' } else { '?' };
        format!("{}{joint}{query}", realm.split('#').next().unwrap_or(realm)).parse().map_err(|_| invalid())
    }

    async fn follow_token(
        &self,
        uri: &Uri,
        basic: Option<&HeaderValue>,
        registry: &Uri,
    ) -> Result<Response<Body>, RegistryError> {
        let mut headers = HeaderMap::new();
        if let Some(basic) = basic {
            headers.insert(header::AUTHORIZATION, basic.clone());
        }
        Ok(self.client.send(&Method::GET, uri, &headers, self.reach(same_origin(uri, registry))).await?)
    }
}

fn accept_manifests() -> HeaderMap {
    let mut headers = HeaderMap::new();
    let types = [DOCKER_MANIFEST, DOCKER_LIST, OCI_MANIFEST, OCI_INDEX, "*/*"].join(", ");
    if let Ok(value) = HeaderValue::from_str(&types) {
        headers.insert(header::ACCEPT, value);
    }
    headers
}

/// The first error of a registry's JSON, as `code: message` for people: `insufficient_scope`, `toomanyrequests: …`.
async fn server_message(response: Response<Body>) -> Option<String> {
    #[derive(Deserialize)]
    struct Errors {
        errors: Vec<One>,
    }
    #[derive(Deserialize)]
    struct One {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let asked = response
        .headers()
        .get(header::WWW_AUTHENTICATE)
        .and_then(|value| Challenge::parse(value.to_str().ok()?));
    if let Some(error) = asked.as_ref().and_then(|challenge| challenge.get("error")) {
        return Some(error.chars().take(200).collect());
    }
    let bytes = response.into_body().read(ERROR_BYTES).await.ok()?;
    let error = serde_json::from_slice::<Errors>(&bytes).ok()?.errors.into_iter().next()?;
    let text = format!("{}: {}", error.code.to_lowercase(), error.message);
    Some(text.trim_end_matches(": ").chars().filter(|c| !c.is_control()).take(500).collect())
}

/// A `Location` may be whole or a path.
fn join(base: &Uri, location: &str) -> Option<Uri> {
    let location = location.split('#').next()?;
    if location.contains("://") {
        return location.parse().ok();
    }
    let (scheme, authority) = (base.scheme_str()?, base.authority()?);
    if let Some(rest) = location.strip_prefix("//") {
        return format!("{scheme}://{rest}").parse().ok();
    }
    if location.starts_with('/') {
        return format!("{scheme}://{authority}{location}").parse().ok();
    }
    let dir = base.path().rsplit_once('/').map_or("", |(dir, _)| dir);
    format!("{scheme}://{authority}{dir}/{location}").parse().ok()
}

fn percent(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b':' | b'/' | b',' => {
                out.push(byte.into())
            }
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_joined() {
        let base: Uri = "https://r.io:5000/v2/a/blobs/x?ns=q".parse().unwrap();
        let cases = [
            ("https://cdn.io/x?sig=1#f", "https://cdn.io/x?sig=1"),
            ("/y?z", "https://r.io:5000/y?z"),
            ("//cdn.io/y", "https://cdn.io/y"),
            ("y", "https://r.io:5000/v2/a/blobs/y"),
        ];
        for (location, want) in cases {
            assert_eq!(join(&base, location).unwrap().to_string(), want, "{location}");
        }
        assert_eq!(join(&base, "https://"), None);
    }

    #[test]
    fn endpoints_are_mirrors_and_then_the_registry() {
        let registries = Registries {
            mirrors: [("docker.io".to_string(), vec!["http://mirror:5000/".to_string()])].into(),
            insecure: vec!["plain.example:80".to_string()],
            ..Registries::default()
        };
        let bases = |name: &str| {
            let endpoints = registries.endpoints(&name.parse().unwrap());
            endpoints.into_iter().map(|endpoint| endpoint.base).collect::<Vec<_>>()
        };
        assert_eq!(bases("nginx"), ["http://mirror:5000", "https://registry-1.docker.io"]);
        assert_eq!(bases("quay.io/a"), ["https://quay.io"]);
        assert_eq!(bases("plain.example:80/a"), ["http://plain.example:80"]);
        for local in ["localhost:1/a", "127.0.0.1:1/a", "[::1]:1/a", "localhost/a"] {
            assert!(bases(local)[0].starts_with("http://"), "{local}");
        }
    }
}
