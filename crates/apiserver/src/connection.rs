//! Where a webhook of access is and how to show oneself to it, as a kubeconfig says: upstream's form for webhooks that decide who one is
//! and what one may.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Bytes;
use ring::rand::{SecureRandom as _, SystemRandom};
use rustls::ClientConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::Deserialize;
use serde_json::Value;

use crate::dial::Dial;
use crate::https::{self, Place};

/// How often a webhook is asked in all, and how long the first pause between is; each is half as long again as the one before. Upstream's
/// `DefaultRetryBackoff`.
const TRIES: usize = 5;
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// For how long a webhook that asks for time itself is waited for in all: who asks a webhook is waited for as well.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

#[derive(Debug, thiserror::Error)]
#[error("the kubeconfig {}: {why}", .path.display())]
pub struct ConnectionError {
    pub path: PathBuf,
    pub why: String,
}

/// A place to post to, with everything that it asks for. Never prints its token.
pub struct Connection {
    place: Place,
    tls: Arc<ClientConfig>,
    authorization: Option<HeaderValue>,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("place", &self.place).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Kubeconfig {
    #[serde(default)]
    current_context: String,
    #[serde(default)]
    clusters: Vec<NamedCluster>,
    #[serde(default)]
    users: Vec<NamedUser>,
    #[serde(default)]
    contexts: Vec<NamedContext>,
}

#[derive(Deserialize)]
struct NamedCluster {
    name: String,
    cluster: Cluster,
}

#[derive(Deserialize)]
struct NamedUser {
    name: String,
    #[serde(default)]
    user: UserView,
}

#[derive(Deserialize)]
struct NamedContext {
    name: String,
    context: Context,
}

#[derive(Deserialize)]
struct Context {
    cluster: String,
    #[serde(default)]
    user: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Cluster {
    server: String,
    certificate_authority: String,
    certificate_authority_data: String,
    tls_server_name: String,
    insecure_skip_tls_verify: bool,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct UserView {
    client_certificate: String,
    client_certificate_data: String,
    client_key: String,
    client_key_data: String,
    token: String,
    #[serde(rename = "tokenFile")]
    token_file: String,
    username: String,
    password: String,
}

impl Connection {
    /// Reads a kubeconfig and the files that it names, which are relative to its folder. Without a current context its only cluster is meant.
    ///
    /// # Errors
    /// What is missing or cannot be read.
    pub fn read(path: &Path) -> Result<Self, ConnectionError> {
        read(path).map_err(|why| ConnectionError { path: path.to_owned(), why })
    }

    /// Posts a document and reads the one that answers it; `limit` is that of one try. Who cannot answer just now is asked again, after the
    /// time that it asks for itself, if it does.
    ///
    /// # Errors
    /// What kept it from being answered the last time.
    pub(crate) async fn post(&self, dial: &Dial, document: &Value, limit: Duration) -> Result<Value, String> {
        let body = Bytes::from(serde_json::to_vec(document).map_err(|error| error.to_string())?);
        let (mut pause, mut tries) = (FIRST_PAUSE, 1);
        let (mut waits, mut waited) = (0, Duration::ZERO);
        loop {
            let sent = self.send(dial, body.clone(), limit).await;
            let wait = match sent.as_ref().ok().and_then(https::retry_after) {
                Some(wait) if waits < https::MOST_WAITS => {
                    waits += 1;
                    wait
                }
                asked if tries < TRIES && (asked.is_some() || may_pass(&sent)) => {
                    tries += 1;
                    let wait = jittered(pause);
                    pause = pause * 3 / 2;
                    wait
                }
                _ => return self.understood(sent),
            };
            waited += wait;
            if waited > LONGEST_WAIT {
                return self.understood(sent);
            }
            tokio::time::sleep(wait).await;
        }
    }

    fn understood(&self, sent: Result<Response<Bytes>, String>) -> Result<Value, String> {
        let answered = sent?;
        if !answered.status().is_success() {
            return Err(self.failed(&format!("the server answered {}", answered.status())));
        }
        serde_json::from_slice(answered.body())
            .map_err(|error| self.failed(&format!("the answer is no JSON: {error}")))
    }

    /// Posts what needs no answer but its code.
    ///
    /// # Errors
    /// What kept it from being answered.
    pub(crate) async fn deliver(
        &self,
        dial: &Dial,
        body: Bytes,
        limit: Duration,
    ) -> Result<StatusCode, String> {
        self.send(dial, body, limit).await.map(|answered| answered.status())
    }

    fn failed(&self, why: &str) -> String {
        let Place { host, port, path, .. } = &self.place;
        format!("Post \"https://{host}:{port}{path}\": {why}")
    }

    async fn send(&self, dial: &Dial, body: Bytes, limit: Duration) -> Result<Response<Bytes>, String> {
        let mut request = Request::post("/")
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json, */*")
            .body(Full::new(body))
            .map_err(|error| error.to_string())?;
        if let Some(value) = &self.authorization {
            request.headers_mut().insert(header::AUTHORIZATION, value.clone());
        }
        let exchanged = https::exchange(dial, self.tls.clone(), &self.place, request);
        match tokio::time::timeout(limit, exchanged).await {
            Ok(answered) => answered.map_err(|why| self.failed(&why)),
            Err(_) => Err(self.failed("context deadline exceeded")),
        }
    }
}

/// Whether what went wrong may be gone the next time: upstream's `DefaultShouldRetry`.
fn may_pass(sent: &Result<Response<Bytes>, String>) -> bool {
    match sent {
        Ok(answered) => matches!(
            answered.status(),
            StatusCode::INTERNAL_SERVER_ERROR | StatusCode::GATEWAY_TIMEOUT | StatusCode::TOO_MANY_REQUESTS
        ),
        // The words of ECONNRESET, wherever on the way it happened.
        Err(why) => why.contains("Connection reset by peer"),
    }
}

/// Up to a fifth longer, so that all who failed together do not come again together.
fn jittered(pause: Duration) -> Duration {
    let mut random = [0; 4];
    // Without random numbers nothing is lost but that.
    let _ = SystemRandom::new().fill(&mut random);
    pause + pause.mul_f64(0.2 * f64::from(u32::from_le_bytes(random)) / f64::from(u32::MAX))
}

fn read(path: &Path) -> Result<Connection, String> {
    let text = std::fs::read(path).map_err(|error| error.to_string())?;
    let value = crate::body::yaml(&text)?;
    let config: Kubeconfig = serde_json::from_value(value).map_err(|error| error.to_string())?;
    let context = config.contexts.iter().find(|one| one.name == config.current_context);
    let (cluster, user) = match (context, &config.clusters[..]) {
        (Some(NamedContext { context, .. }), all) => {
            let cluster = all.iter().find(|one| one.name == context.cluster);
            let cluster = cluster.ok_or_else(|| format!("it has no cluster {:?}", context.cluster))?;
            (cluster, config.users.iter().find(|one| one.name == context.user))
        }
        (None, [only]) if config.current_context.is_empty() => (only, config.users.first()),
        (None, _) => return Err(format!("it has no context {:?}", config.current_context)),
    };
    let folder = path.parent().unwrap_or(Path::new("/"));
    let nobody = UserView::default();
    connect(folder, &cluster.cluster, user.map_or(&nobody, |one| &one.user))
}

fn connect(folder: &Path, cluster: &Cluster, user: &UserView) -> Result<Connection, String> {
    if cluster.insecure_skip_tls_verify {
        return Err(
            "insecure-skip-tls-verify is refused: name the authority of the webhook's certificate".into()
        );
    }
    let mut place = Place::of(&cluster.server)?;
    if !cluster.tls_server_name.is_empty() {
        place.host.clone_from(&cluster.tls_server_name);
    }
    let given = |data: &str, file: &str| content(folder, data, file);
    let roots = match given(&cluster.certificate_authority_data, &cluster.certificate_authority)? {
        Some(pem) => https::authorities(&pem)?,
        None => https::system_authorities(),
    };
    let chain = given(&user.client_certificate_data, &user.client_certificate)?;
    let key = given(&user.client_key_data, &user.client_key)?;
    let identity = match (chain, key) {
        (Some(chain), Some(key)) => {
            let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&chain).collect();
            let chain = chain.map_err(|error| format!("its client certificate: {error}"))?;
            let key = PrivateKeyDer::from_pem_slice(&key);
            Some((chain, key.map_err(|error| format!("its client key: {error}"))?))
        }
        (None, None) => None,
        _ => return Err("a client certificate needs its key, and a key its certificate".into()),
    };
    let token = match given("", &user.token_file)? {
        Some(text) => String::from_utf8(text).map_err(|_| "its token file is no text")?.trim().to_owned(),
        None => user.token.clone(),
    };
    let authorization = match (token.is_empty(), user.username.is_empty()) {
        (false, _) => Some(format!("Bearer {token}")),
        (true, false) => {
            Some(format!("Basic {}", STANDARD.encode(format!("{}:{}", user.username, user.password))))
        }
        (true, true) => None,
    };
    let authorization = authorization.map(|text| HeaderValue::from_str(&text)).transpose();
    let mut authorization = authorization.map_err(|_| "its token does not fit into a header")?;
    if let Some(value) = &mut authorization {
        value.set_sensitive(true);
    }
    Ok(Connection { place, tls: https::client_tls(roots, identity)?, authorization })
}

/// What stands in the kubeconfig itself, in base64, or in a file beside it.
fn content(folder: &Path, data: &str, file: &str) -> Result<Option<Vec<u8>>, String> {
    if !data.is_empty() {
        return STANDARD.decode(data).map(Some).map_err(|error| format!("its data is no base64: {error}"));
    }
    if file.is_empty() {
        return Ok(None);
    }
    let path = folder.join(file);
    std::fs::read(&path).map(Some).map_err(|error| format!("read {}: {error}", path.display()))
}
