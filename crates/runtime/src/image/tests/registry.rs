//! Pulls: from Debian's docker-registry, and from a server of our own that misbehaves.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::{BodyExt, StreamBody, combinators::BoxBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::image::manifest::{OCI_INDEX, OCI_MANIFEST};
use crate::image::transport::{Client, Reach};
use crate::image::{
    Credential, HttpOptions, Image, Keyring, Platform, Policy, Proxies, PullError, PullErrorKind, Puller,
    Registries,
};

const USER: &str = "testuser";
const PASSWORD: &str = "testpassword";
/// Of the two above, as `htpasswd -B` writes it.
const HTPASSWD: &str = "testuser:$2b$04$fHvdpeJEpTMLuk6SUaILmepdbEKzYUt5FSTberaSfNfnicTUKAvEa\n";

fn puller(dir: &Path, registries: Registries) -> Puller {
    Puller::new(Store::open(dir).unwrap(), registries).unwrap()
}

async fn pull(
    puller: &Puller,
    name: &str,
    credentials: &[Credential],
    policy: Policy,
) -> Result<Image, PullError> {
    puller.pull(&name.parse().unwrap(), credentials, &Platform::host(), policy, |_| {}).await
}

/// docker-registry on a port that the kernel chose.
struct Registry {
    child: Child,
    address: String,
    _dir: tempfile::TempDir,
}

impl Registry {
    fn start(with_auth: bool) -> Registry {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).display().to_string();
        let auth = match with_auth {
            true => format!("auth: {{htpasswd: {{realm: test, path: {}}}}}\n", at("htpasswd")),
            false => String::new(),
        };
        fs::write(at("htpasswd"), HTPASSWD).unwrap();
        let config = format!(
            "version: 0.1\nlog: {{level: info}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '127.0.0.1:0'}}\n{auth}",
            at("data")
        );
        fs::write(at("config.yml"), config).unwrap();
        let mut child = Command::new("docker-registry")
            .args(["serve", &at("config.yml")])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("apt-get install docker-registry");
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let address = lines.by_ref().map(|line| line.unwrap()).find_map(|line| {
            let (_, rest) = line.split_once("listening on ")?;
            Some(rest.split(['"', ',', ' ']).next()?.to_string())
        });
        // It must not block on a full pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Registry { child, address: address.expect("the registry says where it listens"), _dir: dir }
    }

    fn push(&self, dir: &Path, name: &str, archive: &[u8], options: &[&str]) {
        let path = dir.join("pushed.tar");
        fs::write(&path, archive).unwrap();
        let (from, to) =
            (format!("docker-archive:{}", path.display()), format!("docker://{}/{name}", self.address));
        skopeo(&[&["copy", "--dest-tls-verify=false"], options, &[&from, &to]].concat());
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn layers() -> Vec<Vec<u8>> {
    (0..5).map(|i| tarball(&[file(&format!("f{i}"), &format!("content {i}").repeat(5000))])).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_pulled_from_docker_registry() {
    let registry = Registry::start(false);
    let dir = tempfile::tempdir().unwrap();
    registry.push(dir.path(), "team/app:1", &docker_archive(&["x:1"], &layers(), json!({"Cmd": ["a"]})), &[]);
    registry.push(
        dir.path(),
        "team/app:oci",
        &docker_archive(&["x:1"], &layers(), json!({"Cmd": ["a"]})),
        &["--format", "oci"],
    );
    let puller = puller(&dir.path().join("store"), Registries::default());
    let store = Store::open(dir.path().join("store")).unwrap();
    let name = format!("{}/team/app:1", registry.address);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let progress = {
        let seen = seen.clone();
        move |p| seen.lock().unwrap().push(p)
    };
    let image = puller
        .pull(&name.parse().unwrap(), &[], &Platform::host(), Policy::IfNotPresent, progress)
        .await
        .unwrap();
    assert_eq!(
        (image.name.as_str(), image.layers.len(), &image.config.cmd[..]),
        (name.as_str(), 5, &["a".to_string()][..])
    );
    assert_eq!(image.config.reference, format!("{}/team/app@{}", registry.address, image.digest));
    let prepared = store.prepare(&image, "c").unwrap();
    assert_eq!(fs::read_to_string(prepared.layers[4].join("f4")).unwrap(), "content 4".repeat(5000));
    let seen = seen.lock().unwrap().clone();
    assert_eq!(seen.iter().filter(|p| matches!(p, crate::image::Progress::Unpacking { .. })).count(), 5);
    // Again: nothing changes, by any policy and by digest.
    for policy in [Policy::Always, Policy::IfNotPresent, Policy::Never] {
        assert_eq!(pull(&puller, &name, &[], policy).await.unwrap(), image);
    }
    let by_digest = pull(&puller, &image.config.reference, &[], Policy::IfNotPresent).await.unwrap();
    assert_eq!(by_digest.id, image.id);
    let oci =
        pull(&puller, &format!("{}/team/app:oci", registry.address), &[], Policy::Always).await.unwrap();
    assert_eq!(oci.layers.last().unwrap().chain_id, image.layers.last().unwrap().chain_id);
    // A moved tag is followed by Always only.
    registry.push(dir.path(), "team/app:1", &docker_archive(&["x:1"], &layers()[..1], json!({})), &[]);
    assert_eq!(pull(&puller, &name, &[], Policy::IfNotPresent).await.unwrap(), image);
    assert_eq!(pull(&puller, &name, &[], Policy::Always).await.unwrap().layers.len(), 1);

    let missing = format!("{}/team/app:none", registry.address);
    let error = pull(&puller, &missing, &[], Policy::Always).await.unwrap_err();
    assert_eq!((error.kind(), error.grpc_code()), (PullErrorKind::NotFound, "NotFound"));
    assert_eq!(
        error.to_string(),
        format!(
            "failed to pull and unpack image \"{missing}\": failed to resolve reference \"{missing}\": {missing}: not found"
        )
    );
    let never = pull(&puller, &missing, &[], Policy::Never).await.unwrap_err();
    assert_eq!(never.kind(), PullErrorKind::NeverPull);
    let address = registry.address.clone();
    drop(registry);
    let error = pull(&puller, &missing, &[], Policy::Always).await.unwrap_err();
    assert_eq!(error.kind(), PullErrorKind::Unreachable);
    let want = format!(
        "failed to do request: Head \"http://{address}/v2/team/app/manifests/none\": dial tcp {address}: connect: connection refused"
    );
    assert!(error.to_string().ends_with(&want), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn basic_authorization_is_asked_for_and_given() {
    let registry = Registry::start(true);
    let dir = tempfile::tempdir().unwrap();
    let archive = docker_archive(&["x:1"], &layers(), json!({}));
    registry.push(dir.path(), "private/app:1", &archive, &["--dest-creds", &format!("{USER}:{PASSWORD}")]);
    let puller = puller(&dir.path().join("store"), Registries::default());
    let name = format!("{}/private/app:1", registry.address);
    let credential = |password: &str| Credential { username: USER.into(), password: password.into() };
    for credentials in [vec![], vec![credential("wrong")]] {
        let error = pull(&puller, &name, &credentials, Policy::Always).await.unwrap_err();
        assert_eq!(error.kind(), PullErrorKind::Unauthorized);
        let text = error.to_string();
        assert!(
            text.contains("pull access denied, repository does not exist or may require authorization: "),
            "{text}"
        );
        assert!(!format!("{text} {error:?}").contains("wrong"));
    }
    // A secret as Kubernetes stores it, with an older password beside the right one.
    let mut keyring = Keyring::default();
    let entry = |password: &str| json!({"username": USER, "password": password});
    let auths = json!({"auths": {format!("{}/private", registry.address): entry("old"), registry.address.clone(): entry(PASSWORD)}});
    keyring.add_config_json(auths.to_string().as_bytes()).unwrap();
    let credentials = keyring.lookup(&name.parse().unwrap());
    assert_eq!(credentials.len(), 2);
    assert_eq!(pull(&puller, &name, &credentials, Policy::Always).await.unwrap().layers.len(), 5);
}

type Reply = Response<BoxBody<Bytes, std::io::Error>>;
type Handler = dyn Fn(&Request<Incoming>, &str) -> Reply + Send + Sync;

/// A server of our own; the handler gets the request and the server's address.
struct Fake {
    address: String,
    /// `METHOD path?query` of every request, with its authorization if it had one.
    log: Arc<Mutex<Vec<String>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Fake {
    async fn start(handler: impl Fn(&Request<Incoming>, &str) -> Reply + Send + Sync + 'static) -> Fake {
        Fake::start_with(None, handler).await
    }

    async fn start_with(
        tls: Option<tokio_rustls::TlsAcceptor>,
        handler: impl Fn(&Request<Incoming>, &str) -> Reply + Send + Sync + 'static,
    ) -> Fake {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (handler, at): (Arc<Handler>, _) = (Arc::new(handler), address.clone());
        let seen = log.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (handler, at, seen) = (handler.clone(), at.clone(), seen.clone());
                let service = service_fn(move |request: Request<Incoming>| {
                    let authorization = request
                        .headers()
                        .get(header::AUTHORIZATION)
                        .map(|v| format!(" {}", v.to_str().unwrap()));
                    let line = format!(
                        "{} {}{}",
                        request.method(),
                        request.uri(),
                        authorization.unwrap_or_default()
                    );
                    seen.lock().unwrap().push(line);
                    let reply = handler(&request, &at);
                    async move { Ok::<_, std::convert::Infallible>(reply) }
                });
                let tls = tls.clone();
                tokio::spawn(async move {
                    let http = hyper::server::conn::http1::Builder::new();
                    // What goes wrong here is the client's to tell.
                    match tls {
                        Some(tls) => {
                            let Ok(stream) = tls.accept(stream).await else { return };
                            let _ = http.serve_connection(TokioIo::new(stream), service).await;
                        }
                        None => {
                            let _ = http.serve_connection(TokioIo::new(stream), service).await;
                        }
                    }
                });
            }
        });
        Fake { address, log, task }
    }

    fn requests(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn reply(status: u16, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Reply {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    response.body(http_body_util::Full::new(body.into()).map_err(|never| match never {}).boxed()).unwrap()
}

/// A body that breaks off.
fn broken(status: u16, headers: &[(&str, &str)], body: Bytes) -> Reply {
    let frames = vec![Ok(Frame::data(body)), Err(std::io::Error::other("broken on purpose"))];
    let mut response = reply(status, headers, "");
    *response.body_mut() = BodyExt::boxed(StreamBody::new(futures_util::stream::iter(frames)));
    response
}

/// Documents and blobs of one image, by the last parts of their paths.
#[derive(Clone, Default)]
struct Content {
    files: BTreeMap<String, (String, Bytes)>,
    layer: String,
}

fn content() -> Content {
    let layer = tarball(&[file("f", &"0123456789".repeat(20_000))]);
    let (config, _) = config_of(std::slice::from_ref(&layer), json!({}));
    let mut content = Content::default();
    let mut add = |kind: &str, media_type: &str, bytes: Vec<u8>| {
        let digest = Digest::of(&bytes).to_string();
        let size = bytes.len();
        content.files.insert(format!("{kind}/{digest}"), (media_type.to_string(), bytes.into()));
        json!({"mediaType": media_type, "digest": digest, "size": size})
    };
    let layer = add("blobs", "application/vnd.oci.image.layer.v1.tar", layer);
    let config = add("blobs", "application/vnd.oci.image.config.v1+json", config);
    let manifest =
        json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": [layer]});
    let mut manifest = add("manifests", OCI_MANIFEST, manifest.to_string().into_bytes());
    manifest["platform"] = json!({"os": "linux", "architecture": Platform::host().architecture});
    let attestation = json!({"mediaType": OCI_MANIFEST, "digest": Digest::of(b"").to_string(), "size": 1, "platform": {"os": "unknown", "architecture": "unknown"}});
    let index =
        json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [attestation, manifest]}).to_string();
    add("manifests", OCI_INDEX, index.clone().into_bytes());
    content.files.insert("manifests/v1".into(), (OCI_INDEX.into(), index.into()));
    content.layer = format!("blobs/{}", layer["digest"].as_str().unwrap());
    content
}

impl Content {
    /// What a good registry answers.
    fn serve(&self, request: &Request<Incoming>) -> Reply {
        let parts: Vec<&str> = request.uri().path().rsplitn(3, '/').collect();
        match self.files.get(&format!("{}/{}", parts[1], parts[0])) {
            Some((media_type, bytes)) => {
                let digest = Digest::of(bytes).to_string();
                let body = if *request.method() == http::Method::HEAD { Bytes::new() } else { bytes.clone() };
                reply(200, &[("content-type", media_type), ("docker-content-digest", &digest)], body)
            }
            None => {
                reply(404, &[], r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#)
            }
        }
    }

    fn is_layer(&self, request: &Request<Incoming>) -> bool {
        request.uri().path().ends_with(&self.layer)
    }

    fn layer(&self) -> Bytes {
        self.files[&self.layer].1.clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_fetched_and_stays_with_the_registry() {
    let content = content();
    let cdn = {
        let content = content.clone();
        Fake::start(move |_, _| reply(200, &[], content.layer())).await
    };
    let elsewhere = cdn.address.clone();
    let registry = Fake::start(move |request, address| {
        let authorization =
            request.headers().get(header::AUTHORIZATION).map(|v| v.to_str().unwrap().to_string());
        if request.uri().path() == "/token" {
            return match authorization {
                Some(basic) if basic == "Basic dTpw" => reply(200, &[], r#"{"access_token":"sesame"}"#),
                _ => reply(401, &[], r#"{"errors":[{"code":"UNAUTHORIZED","message":"bad password"}]}"#),
            };
        }
        if authorization.as_deref() != Some("Bearer sesame") {
            let challenge = format!(
                r#"Bearer realm="http://{address}/token",service="reg istry",scope="repository:a/b:pull""#
            );
            return reply(401, &[("www-authenticate", &challenge)], "");
        }
        if content.is_layer(request) {
            return reply(307, &[("location", &format!("http://{elsewhere}/blob?signature=secret"))], "");
        }
        content.serve(request)
    })
    .await;
    let dir = tempfile::tempdir().unwrap();
    let puller = puller(dir.path(), Registries::default());
    let name = format!("{}/a/b:v1", registry.address);
    let credential = Credential { username: "u".into(), password: "p".into() };
    let image = pull(&puller, &name, &[credential], Policy::Always).await.unwrap();
    assert_eq!(image.documents.len(), 2);
    let asked: Vec<String> = registry.requests().into_iter().filter(|line| line.contains("/token")).collect();
    assert_eq!(asked, ["GET /token?service=reg%20istry&scope=repository:a/b:pull Basic dTpw"]);
    assert_eq!(cdn.requests(), ["GET /blob?signature=secret"]);

    let error = pull(&puller, &name, &[], Policy::Always).await.unwrap_err();
    assert_eq!(error.kind(), PullErrorKind::Unauthorized);
    let want = format!(
        "failed to authorize: failed to fetch anonymous token: unexpected status from GET request to http://{}/token: 401 Unauthorized: unauthorized: bad password",
        registry.address
    );
    assert!(error.to_string().ends_with(&want), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_transfer_goes_on_where_it_stopped() {
    for ranges in [true, false] {
        let content = content();
        let served = content.clone();
        let breaks = Mutex::new(2);
        let registry = Fake::start(move |request, _| {
            if !served.is_layer(request) {
                return served.serve(request);
            }
            let all = served.layer();
            let range = request.headers().get(header::RANGE).and_then(|v| {
                v.to_str().ok()?.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok()
            });
            let from = if ranges { range.unwrap_or(0) } else { 0 };
            let content_range = format!("bytes {from}-{}/{}", all.len() - 1, all.len());
            let (status, headers) =
                if from > 0 { (206, vec![("content-range", content_range.as_str())]) } else { (200, vec![]) };
            let mut breaks = breaks.lock().unwrap();
            if *breaks > 0 {
                *breaks -= 1;
                return broken(status, &headers, all.slice(from..from + 50_000));
            }
            reply(status, &headers, all.slice(from..))
        })
        .await;
        let dir = tempfile::tempdir().unwrap();
        let puller = puller(dir.path(), Registries::default());
        pull(&puller, &format!("{}/a/b:v1", registry.address), &[], Policy::Always).await.unwrap();
        assert_eq!(
            registry.requests().iter().filter(|line| line.contains(&content.layer)).count(),
            3,
            "ranges: {ranges}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lies_and_troubles_are_told_apart() {
    type Answer = fn(&Content, &Request<Incoming>) -> Reply;
    let cases: &[(PullErrorKind, &str, Answer)] = &[
        (PullErrorKind::Invalid, "its content has the digest", |content, request| {
            if *request.method() == http::Method::GET && request.uri().path().contains("manifests") {
                return reply(200, &[("content-type", OCI_MANIFEST)], "{}");
            }
            content.serve(request)
        }),
        (PullErrorKind::Invalid, "larger than 4194304 bytes", |content, request| {
            if *request.method() == http::Method::GET && request.uri().path().contains("manifests") {
                return reply(200, &[], vec![b' '; (4 << 20) + 1]);
            }
            content.serve(request)
        }),
        (PullErrorKind::Invalid, "content has the digest", |content, request| {
            match content.is_layer(request) {
                true => reply(200, &[], vec![0; content.layer().len()]),
                false => content.serve(request),
            }
        }),
        (PullErrorKind::Invalid, "is longer than the", |content, request| match content.is_layer(request) {
            true => reply(200, &[], [&content.layer()[..], b"x"].concat()),
            false => content.serve(request),
        }),
        (PullErrorKind::Unreachable, "unexpected EOF after", |content, request| {
            match content.is_layer(request) {
                true => reply(200, &[], content.layer().slice(..100)),
                false => content.serve(request),
            }
        }),
        (PullErrorKind::NotFound, "not found", |content, request| match content.is_layer(request) {
            true => reply(404, &[], ""),
            false => content.serve(request),
        }),
        (PullErrorKind::Invalid, "stopped after 10 redirects", |_, _| {
            reply(302, &[("location", "/again")], "")
        }),
        (PullErrorKind::Invalid, "redirected without a usable Location", |_, _| reply(302, &[], "")),
        (PullErrorKind::Unauthorized, "403 Forbidden", |_, _| reply(403, &[], "")),
        (PullErrorKind::Unauthorized, "the registry names no way to authorize", |_, _| reply(401, &[], "")),
        (PullErrorKind::Unreachable, "503 Service Unavailable", |_, _| reply(503, &[], "")),
        (PullErrorKind::Invalid, "is no longer supported", |_, _| {
            reply(200, &[("content-type", "application/vnd.docker.distribution.manifest.v1+prettyjws")], "{}")
        }),
    ];
    for (kind, want, answer) in cases {
        let (content, answer) = (content(), *answer);
        let registry = Fake::start(move |request, _| answer(&content, request)).await;
        let dir = tempfile::tempdir().unwrap();
        let puller = puller(dir.path(), Registries::default());
        let error = pull(&puller, &format!("{}/a/b:v1", registry.address), &[], Policy::Always)
            .await
            .expect_err(want);
        assert!(error.to_string().contains(want), "wanted {want:?}, got {error}");
        assert_eq!(error.kind(), *kind, "{error}");
        let store = Store::open(dir.path()).unwrap();
        assert_eq!(store.list().unwrap(), []);
        store.collect(&[]).unwrap();
        assert_eq!(store.usage().unwrap(), Default::default(), "{want}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mirrors_come_first_and_are_not_given_secrets() {
    let content = content();
    let served = content.clone();
    let mirror = Fake::start(move |request, _| served.serve(request)).await;
    let empty = Fake::start(|_, _| reply(404, &[], "")).await;
    let mirrors = vec![format!("http://{}", empty.address), format!("http://{}/", mirror.address)];
    let registries =
        Registries { mirrors: [("registry.invalid".to_string(), mirrors)].into(), ..Registries::default() };
    let dir = tempfile::tempdir().unwrap();
    let puller = puller(dir.path(), registries);
    let credential = Credential { username: "u".into(), password: "p".into() };
    let image = pull(&puller, "registry.invalid/a/b:v1", &[credential], Policy::Always).await.unwrap();
    assert_eq!(image.name, "registry.invalid/a/b:v1");
    assert_eq!(empty.requests(), ["HEAD /v2/a/b/manifests/v1?ns=registry.invalid"]);
    assert!(
        mirror.requests().iter().all(|line| line.contains("?ns=registry.invalid") && !line.contains("Basic"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_ends() {
    let registry = Fake::start(|_, _| {
        let mut response = reply(200, &[("content-type", OCI_MANIFEST)], "");
        *response.body_mut() = BodyExt::boxed(StreamBody::new(futures_util::stream::pending()));
        response
    })
    .await;
    let dir = tempfile::tempdir().unwrap();
    let http = HttpOptions { stall_timeout: Duration::from_millis(50), ..HttpOptions::default() };
    let puller = puller(dir.path(), Registries { http, ..Registries::default() });
    let error =
        pull(&puller, &format!("{}/a/b:v1", registry.address), &[], Policy::Always).await.unwrap_err();
    assert_eq!(error.kind(), PullErrorKind::Unreachable);
    assert!(error.to_string().contains("no data for 50ms"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_checked() {
    let dir = tempfile::tempdir().unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate =
        rcgen::CertificateParams::new(vec!["localhost".to_string()]).unwrap().self_signed(&key).unwrap();
    let authority = dir.path().join("authority.pem");
    fs::write(&authority, certificate.pem()).unwrap();
    let private = rustls::pki_types::PrivatePkcs8KeyDer::from(key.serialize_der()).into();
    let config =
        rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], private)
            .unwrap();
    let content = content();
    let (good, plain) = (content.clone(), content);
    let secure = Fake::start_with(Some(Arc::new(config).into()), move |request, _| good.serve(request)).await;
    let plain = Fake::start(move |request, _| plain.serve(request)).await;
    let port = |fake: &Fake| fake.address.rsplit_once(':').unwrap().1.to_string();
    let cases = [
        (format!("https://localhost:{}", port(&secure)), true, None),
        (
            format!("https://localhost:{}", port(&secure)),
            false,
            Some("x509: certificate signed by unknown authority"),
        ),
        (
            format!("https://127.0.0.1:{}", port(&secure)),
            true,
            Some("x509: certificate is not valid for this host name"),
        ),
        (
            format!("https://localhost:{}", port(&plain)),
            true,
            Some("http: server gave HTTP response to HTTPS client"),
        ),
    ];
    for (base, trusted, want) in cases {
        let authorities = if trusted { vec![authority.clone()] } else { vec![] };
        let client = Client::new(HttpOptions { authorities, ..HttpOptions::default() }).unwrap();
        let uri = format!("{base}/v2/a/b/manifests/v1").parse().unwrap();
        let result = client.send(&http::Method::HEAD, &uri, &http::HeaderMap::new(), Reach::Any).await;
        match (result, want) {
            (Ok(response), None) => assert_eq!(response.status(), 200),
            (Err(error), Some(want)) => assert!(error.to_string().contains(want), "{base}: {error}"),
            (result, want) => panic!("{base}: {result:?}, wanted {want:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_may_not_send_us_to_this_machine() {
    let target = Fake::start(|_, _| reply(200, &[], "")).await;
    let client = Client::new(HttpOptions::default()).unwrap();
    let uri = format!("http://{}/", target.address).parse().unwrap();
    let error = client
        .send(&http::Method::GET, &uri, &http::HeaderMap::new(), Reach::Remote)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("may not send us to an address of this machine"), "{error}");
    assert_eq!(target.requests(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_registries_are_reached_through_a_proxy() {
    let content = content();
    let proxy = Fake::start(move |request, _| content.serve(request)).await;
    let proxies = Proxies { http: Some(format!("http://u:p@{}", proxy.address)), ..Proxies::default() };
    let http = HttpOptions { proxies, ..HttpOptions::default() };
    let registries = Registries { insecure: vec!["registry.invalid".into()], http, ..Registries::default() };
    let dir = tempfile::tempdir().unwrap();
    pull(&puller(dir.path(), registries), "registry.invalid/a/b:v1", &[], Policy::Always).await.unwrap();
    assert_eq!(proxy.requests()[0], "HEAD http://registry.invalid/v2/a/b/manifests/v1");
}

#[tokio::test(flavor = "multi_thread")]
async fn secure_registries_are_reached_through_a_tunnel() {
    // Enough of a proxy to see what it is asked for.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let asked = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        stream.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n").await.unwrap();
        String::from_utf8(head).unwrap()
    });
    let proxies = Proxies { https: Some(format!("http://u:p@{address}")), ..Proxies::default() };
    let client = Client::new(HttpOptions { proxies, ..HttpOptions::default() }).unwrap();
    let uri = "https://registry.invalid/v2/".parse().unwrap();
    let error = client
        .send(&http::Method::GET, &uri, &http::HeaderMap::new(), Reach::Any)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("the proxy answered \"HTTP/1.1 407 Proxy Authentication Required\""), "{error}");
    let asked = asked.await.unwrap();
    let want = "CONNECT registry.invalid:443 HTTP/1.1\r\nHost: registry.invalid:443\r\nProxy-Authorization: Basic dTpw\r\n\r\n";
    assert_eq!(asked, want);
}
