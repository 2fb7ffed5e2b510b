//! The node's one connection to the API server: HTTP/2 over TLS, every request and every watch a stream of it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio_rustls::TlsConnector;

/// A body that the node reads whole: a list of a node's pods is the largest.
const BODY_LIMIT: usize = 256 << 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// A connection that has gone silent is found out in time for the node's lease.
const PING_INTERVAL: Duration = Duration::from_secs(15);

#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    #[error("{0} is not the URL of an API server: it should look like https://10.0.0.1:6443")]
    Url(String),
    #[error("connect to {server}: {source}")]
    Connect { server: String, source: std::io::Error },
    #[error("{method} {path}: {message}")]
    Transport { method: Method, path: String, message: String },
    /// The server answered with a Status.
    #[error("{method} {path}: {message}")]
    Status { method: Method, path: String, code: StatusCode, reason: String, message: String },
}

impl ApiError {
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Status { code: StatusCode::NOT_FOUND, .. })
    }

    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Status { code: StatusCode::CONFLICT, .. })
    }

    pub fn is_unauthorized(&self) -> bool {
        matches!(self, Self::Status { code: StatusCode::UNAUTHORIZED, .. })
    }

    pub fn is_expired(&self) -> bool {
        matches!(self, Self::Status { code: StatusCode::GONE, .. })
    }
}

/// How a patch's body is meant.
#[derive(Clone, Copy, Debug)]
pub enum PatchKind {
    Merge,
    Strategic,
}

pub struct Api {
    host: String,
    port: u16,
    tls: Arc<ClientConfig>,
    /// `Authorization: Bearer …` before the node has a certificate.
    bearer: Option<String>,
    connection: Mutex<Option<SendRequest<Full<Bytes>>>>,
}

impl Api {
    pub fn new(server: &str, tls: Arc<ClientConfig>, bearer: Option<String>) -> Result<Self, ApiError> {
        let wrong = || ApiError::Url(server.to_owned());
        let uri: http::Uri = server.parse().map_err(|_| wrong())?;
        if uri.scheme_str() != Some("https") {
            return Err(wrong());
        }
        let host = uri.host().ok_or_else(wrong)?.trim_matches(['[', ']']).to_owned();
        Ok(Self { host, port: uri.port_u16().unwrap_or(443), tls, bearer, connection: Mutex::new(None) })
    }

    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ApiError> {
        self.get_as(None, path).await
    }

    /// As somebody whose part the node takes, if one is named (`Impersonate-User`).
    pub async fn get_as<T: DeserializeOwned>(&self, user: Option<&str>, path: &str) -> Result<T, ApiError> {
        self.json(user, Method::GET, path, "", Bytes::new()).await
    }

    pub async fn create<T: DeserializeOwned>(&self, path: &str, object: &Value) -> Result<T, ApiError> {
        self.json(None, Method::POST, path, "application/json", body(object)).await
    }

    pub async fn patch<T: DeserializeOwned>(
        &self,
        path: &str,
        kind: PatchKind,
        patch: &Value,
    ) -> Result<T, ApiError> {
        let content_type = match kind {
            PatchKind::Merge => "application/merge-patch+json",
            PatchKind::Strategic => "application/strategic-merge-patch+json",
        };
        self.json(None, Method::PATCH, path, content_type, body(patch)).await
    }

    pub async fn delete(&self, path: &str, options: &Value) -> Result<(), ApiError> {
        self.json::<Value>(None, Method::DELETE, path, "application/json", body(options)).await.map(drop)
    }

    /// The body of a long answer, as it comes; asked for as [`Self::get_as`] does.
    pub async fn stream(&self, user: Option<&str>, path: &str) -> Result<Incoming, ApiError> {
        let response = self.send(user, Method::GET, path, "", Bytes::new()).await?;
        if response.status().is_success() {
            return Ok(response.into_body());
        }
        Err(self.failure(Method::GET, path, response).await)
    }

    async fn json<T: DeserializeOwned>(
        &self,
        user: Option<&str>,
        method: Method,
        path: &str,
        content_type: &str,
        body: Bytes,
    ) -> Result<T, ApiError> {
        let work = async {
            let response = self.send(user, method.clone(), path, content_type, body).await?;
            if !response.status().is_success() {
                return Err(self.failure(method.clone(), path, response).await);
            }
            let text = read(response).await.map_err(|message| transport(&method, path, message))?;
            serde_json::from_slice(&text).map_err(|error| transport(&method, path, error.to_string()))
        };
        match tokio::time::timeout(REQUEST_TIMEOUT, work).await {
            Ok(result) => result,
            Err(_) => Err(transport(&method, path, format!("no answer within {REQUEST_TIMEOUT:?}"))),
        }
    }

    async fn send(
        &self,
        user: Option<&str>,
        method: Method,
        path: &str,
        content_type: &str,
        body: Bytes,
    ) -> Result<Response<Incoming>, ApiError> {
        let mut sender = self.connection().await?;
        let authority = if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        };
        let mut request = Request::builder()
            .method(method.clone())
            .uri(format!("https://{authority}{path}"))
            .header("accept", "application/json")
            .header("user-agent", concat!("ekso-node/", env!("CARGO_PKG_VERSION")));
        if !content_type.is_empty() {
            request = request.header("content-type", content_type);
        }
        if let Some(bearer) = &self.bearer {
            request = request.header("authorization", format!("Bearer {bearer}"));
        }
        if let Some(user) = user {
            request = request.header("impersonate-user", user);
        }
        let request =
            request.body(Full::new(body)).map_err(|error| transport(&method, path, error.to_string()))?;
        let sent = sender.send_request(request).await;
        sent.map_err(|error| transport(&method, path, error.to_string()))
    }

    /// Makes the next request dial anew, and show the certificate that the node has by then. What is under way goes on.
    pub async fn reconnect(&self) {
        *self.connection.lock().await = None;
    }

    async fn connection(&self) -> Result<SendRequest<Full<Bytes>>, ApiError> {
        let mut held = self.connection.lock().await;
        if let Some(sender) = held.as_ref().filter(|sender| !sender.is_closed()) {
            return Ok(sender.clone());
        }
        let sender = self.connect().await?;
        *held = Some(sender.clone());
        Ok(sender)
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, ApiError> {
        let server = format!("{}:{}", self.host, self.port);
        let failed = |source| ApiError::Connect { server: server.clone(), source };
        let name = ServerName::try_from(self.host.clone()).map_err(|_| ApiError::Url(self.host.clone()))?;
        let tls = TlsConnector::from(self.tls.clone());
        let dial = async {
            let tcp = TcpStream::connect((self.host.as_str(), self.port)).await?;
            tcp.set_nodelay(true)?;
            tls.connect(name, tcp).await
        };
        let stream = match tokio::time::timeout(CONNECT_TIMEOUT, dial).await {
            Ok(stream) => stream.map_err(failed)?,
            Err(_) => return Err(failed(std::io::ErrorKind::TimedOut.into())),
        };
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(hyper_util::rt::TokioTimer::new())
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_while_idle(true)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| failed(std::io::Error::other(error)))?;
        // It ends by itself when the last sender is gone or the server closes; requests on it then fail and dial anew.
        tokio::spawn(connection);
        Ok(sender)
    }

    async fn failure(&self, method: Method, path: &str, response: Response<Incoming>) -> ApiError {
        let code = response.status();
        let text = read(response).await.unwrap_or_default();
        let status: Value = serde_json::from_slice(&text).unwrap_or(Value::Null);
        let word = |name: &str| status[name].as_str().unwrap_or_default().to_owned();
        let mut message = word("message");
        if message.is_empty() {
            message = code.to_string();
        }
        ApiError::Status { method, path: path.to_owned(), code, reason: word("reason"), message }
    }
}

fn transport(method: &Method, path: &str, message: String) -> ApiError {
    ApiError::Transport { method: method.clone(), path: path.to_owned(), message }
}

fn body(object: &Value) -> Bytes {
    // A JSON tree always has a text.
    serde_json::to_vec(object).unwrap_or_default().into()
}

async fn read(response: Response<Incoming>) -> Result<Bytes, String> {
    let collected = Limited::new(response.into_body(), BODY_LIMIT).collect().await;
    collected.map(|body| body.to_bytes()).map_err(|error| error.to_string())
}
