//! The instance metadata service, version 2, in every VPC's router: who asks is known by the address, which nobody in a machine can forge.
//!
//! A token is bound to its instance and its end by a key of this process; after a restart clients get a 401 and ask for another, as they
//! do when one expires. <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instance-metadata-v2-how-it-works.html>

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use account::Account;
use aws::ec2::metadata::{CREDENTIALS, Holder, credentials, holder, look_up, tree};
use aws::ec2::record::{Instance, NetworkInterface};
use aws::state::{self, Changes};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use object::{Snapshot, Time};
use ring::hmac;
use tokio::net::{TcpListener, TcpStream};

use super::connections::{self, BoxError, PATIENCE};
use crate::pki;

/// A token lives this long at most, in seconds.
const LONGEST: i64 = 21_600;
const TTL: &str = "x-aws-ec2-metadata-token-ttl-seconds";
const TOKEN: &str = "x-aws-ec2-metadata-token";
/// For how long the same credentials are given, in seconds: on EC2 there are new ones about every half hour, long before the old ones end.
const SAME: i64 = 1_800;

/// The service of one VPC.
#[derive(Clone)]
pub struct Service {
    inner: Arc<Inner>,
}

struct Inner {
    account: Arc<Account>,
    vpc: String,
    key: hmac::Key,
    issued: Mutex<BTreeMap<String, Issued>>,
}

/// What an instance was given last.
#[derive(Clone)]
struct Issued {
    /// Of whom: of another role of the same name, or by another profile, they are not the instance's any more.
    of: Holder,
    at: Time,
    document: String,
}

impl Service {
    pub fn new(account: Arc<Account>, vpc: &str) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &pki::random::<32>());
        Self { inner: Arc::new(Inner { account, vpc: vpc.to_owned(), key, issued: Mutex::default() }) }
    }

    /// Serves until dropped.
    pub async fn serve(self, listener: TcpListener) {
        let vpc = self.inner.vpc.clone();
        let converse = move |socket, peer| converse(self.inner.clone(), socket, peer);
        connections::each(listener, "instance metadata", vpc, converse).await;
    }
}

async fn converse(inner: Arc<Inner>, socket: TcpStream, peer: SocketAddr) -> Result<(), BoxError> {
    let state = inner.account.snapshot();
    let Some(instance) = asker(&state, &inner.vpc, peer.ip()) else { return Ok(()) };
    // What says more than that somebody listens goes no further than this many hops: pods are one behind their node.
    socket.set_ttl(u32::from(instance.metadata.hop_limit))?;
    let service = service_fn(move |request| {
        let (inner, id) = (inner.clone(), instance.instance_id.clone());
        async move { Ok::<_, Infallible>(inner.answer(&id, &request).await) }
    });
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(PATIENCE);
    Ok(http.serve_connection(TokioIo::new(socket), service).await?)
}

/// The instance whose address it is: one of its own, or of a pod on it.
pub fn asker(state: &Snapshot, vpc: &str, address: IpAddr) -> Option<Instance> {
    let IpAddr::V4(address) = address else { return None };
    let has_it = |one: &NetworkInterface| {
        one.private_ip == address
            || one.secondary.contains(&address)
            || one.prefix.is_some_and(|prefix| prefix.contains(address))
    };
    let mut interfaces = state::list::<NetworkInterface>(state, "").into_iter().map(|kept| kept.record);
    let interface = interfaces.find(|one| one.vpc_id == vpc && has_it(one))?;
    Some(state::get::<Instance>(state, "", &interface.attachment?.instance_id?)?.record)
}

fn say(status: StatusCode, text: impl Into<String>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text.into())));
    *response.status_mut() = status;
    let kind = http::HeaderValue::from_static("text/plain");
    response.headers_mut().insert(http::header::CONTENT_TYPE, kind);
    response
}

impl Inner {
    async fn answer(&self, id: &str, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
        let path = request.uri().path();
        let now = self.account.now();
        if request.method() == Method::PUT && path.trim_end_matches('/') == "/latest/api/token" {
            // A proxy that passes on what strangers ask would say for whom.
            if header("x-forwarded-for").is_some() {
                return say(StatusCode::FORBIDDEN, "");
            }
            let seconds = header(TTL).and_then(|seconds| seconds.parse::<i64>().ok());
            return match seconds.filter(|seconds| (1..=LONGEST).contains(seconds)) {
                Some(seconds) => {
                    let mut response = say(StatusCode::OK, self.token(id, now.plus_secs(seconds)));
                    response.headers_mut().insert(TTL, seconds.into());
                    response
                }
                None => say(StatusCode::BAD_REQUEST, ""),
            };
        }
        if request.method() != Method::GET && request.method() != Method::HEAD {
            return say(StatusCode::METHOD_NOT_ALLOWED, "");
        }
        if !header(TOKEN).is_some_and(|token| self.is_valid(token, id, now)) {
            return say(StatusCode::UNAUTHORIZED, "");
        }
        match below_version(path) {
            Some(path) => self.look_up(id, path).await,
            None => say(StatusCode::NOT_FOUND, ""),
        }
    }

    fn token(&self, id: &str, end: Time) -> String {
        let end = end.as_micros().to_be_bytes();
        let tag = hmac::sign(&self.key, &[&end, id.as_bytes()].concat());
        URL_SAFE_NO_PAD.encode([&end, tag.as_ref()].concat())
    }

    fn is_valid(&self, token: &str, id: &str, now: Time) -> bool {
        let Ok(bytes) = URL_SAFE_NO_PAD.decode(token) else { return false };
        let Some((end, tag)) = bytes.split_first_chunk::<8>() else { return false };
        let is_ours = hmac::verify(&self.key, &[end, id.as_bytes()].concat(), tag).is_ok();
        is_ours && now < Time::from_micros(i64::from_be_bytes(*end))
    }

    async fn look_up(&self, id: &str, path: &str) -> Response<Full<Bytes>> {
        let role = path.trim_start_matches('/').strip_prefix(CREDENTIALS).filter(|role| !role.is_empty());
        if let Some(role) = role {
            return self.credentials(id, role).await;
        }
        let found = Mutex::new(None);
        let read = |context: &mut aws::Context| {
            let instance = state::get::<Instance>(context.state, "", id);
            let value = instance.and_then(|kept| look_up(&tree(context, &kept.record), path));
            *found.lock().unwrap_or_else(PoisonError::into_inner) = value;
            Changes::default()
        };
        if let Err(failure) = self.account.change(read).await {
            return say(StatusCode::SERVICE_UNAVAILABLE, failure.to_string());
        }
        match found.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(value) => say(StatusCode::OK, value),
            None => say(StatusCode::NOT_FOUND, ""),
        }
    }

    /// The same credentials for a while.
    async fn credentials(&self, id: &str, role: &str) -> Response<Full<Bytes>> {
        let now = self.account.now();
        let state = self.account.snapshot();
        let instance = state::get::<Instance>(&state, "", id).map(|kept| kept.record);
        let Some(of) = instance.and_then(|instance| holder(&state, &instance, role)) else {
            return say(StatusCode::NOT_FOUND, "");
        };
        let known = self.issued.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned();
        if let Some(issued) = known.filter(|issued| issued.of == of && now.secs_since(issued.at) < SAME) {
            return say(StatusCode::OK, issued.document);
        }
        let made = Mutex::new(None);
        let issue = |context: &mut aws::Context| {
            let instance = state::get::<Instance>(context.state, "", id);
            let document = instance.map(|kept| credentials(context, &kept.record, role));
            *made.lock().unwrap_or_else(PoisonError::into_inner) = document;
            Changes::default()
        };
        if let Err(failure) = self.account.change(issue).await {
            return say(StatusCode::SERVICE_UNAVAILABLE, failure.to_string());
        }
        match made.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(Ok(document)) => {
                let document = format!("{document:#}");
                let issued = Issued { of, at: now, document: document.clone() };
                self.issued.lock().unwrap_or_else(PoisonError::into_inner).insert(id.to_owned(), issued);
                say(StatusCode::OK, document)
            }
            Some(Err(fault)) if fault.code == "NotFound" => say(StatusCode::NOT_FOUND, ""),
            // AWS tells such a failure in the document.
            Some(Err(fault)) => {
                let told =
                    serde_json::json!({"Code": fault.code, "Message": fault.message, "LastUpdated": now});
                say(StatusCode::OK, format!("{told:#}"))
            }
            None => say(StatusCode::NOT_FOUND, ""),
        }
    }
}

/// What is below the version of a path: `latest`, or a day.
fn below_version(path: &str) -> Option<&str> {
    let path = path.strip_prefix('/')?;
    let (version, rest) = path.split_once('/').unwrap_or((path, ""));
    let is_day = version.len() == 10 && version.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
    (version == "latest" || is_day || version == "1.0").then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_have_versions() {
        for (path, below) in [
            ("/latest/meta-data/", Some("meta-data/")),
            ("/latest", Some("")),
            ("/2021-07-15/user-data", Some("user-data")),
            ("/meta-data", None),
            ("/", None),
            ("", None),
        ] {
            assert_eq!(below_version(path), below, "{path}");
        }
    }
}
