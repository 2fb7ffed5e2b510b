//! Who is believed and who may do what, when others are asked over TLS: an issuer of OpenID Connect, a webhook for tokens, a webhook for
//! authorization.

mod common;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use access::authentication::Configuration;
use apiserver::{Authorization, Authorizers, Believed, Connection, Dial, TokenWebhook};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use common::client::Client;
use common::{Believing, Cluster};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use store::Memory;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// A server over TLS on loopback that answers paths, and remembers what it was asked.
struct Elsewhere {
    address: SocketAddr,
    ca_pem: String,
    pages: Arc<Mutex<BTreeMap<String, Value>>>,
    asked: Arc<Mutex<Vec<(String, Value)>>>,
}

impl Elsewhere {
    async fn start() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.distinguished_name.push(DnType::CommonName, "elsewhere-ca");
        let key = KeyPair::generate().expect("a key");
        let ca_pem = params.self_signed(&key).expect("a certificate").pem();
        let ca = Issuer::new(params, key);
        let key = KeyPair::generate().expect("a key");
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let serving =
            CertificateParams::new(names).expect("parameters").signed_by(&key, &ca).expect("signed");
        let chain = vec![CertificateDer::from(serving.der().to_vec())];
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        let mut tls = apiserver::server_config(chain, key).expect("TLS");
        tls.alpn_protocols.clear();
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (pages, asked) = (Arc::<Mutex<BTreeMap<_, _>>>::default(), Arc::<Mutex<Vec<_>>>::default());
        let seen = (pages.clone(), asked.clone());
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (acceptor, seen) = (acceptor.clone(), seen.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(socket).await else { return };
                    let service = hyper::service::service_fn(move |request| answer(seen.clone(), request));
                    let served = hyper::server::conn::http1::Builder::new();
                    // A client that hangs up ends its own connection only.
                    let _ = served.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { address, ca_pem, pages, asked }
    }

    /// A path answers with these codes first.
    fn fails(&self, path: &str, codes: &[u16]) {
        self.page(&format!("{path}!"), json!(codes));
    }

    fn page(&self, path: &str, value: Value) {
        self.pages.lock().expect("pages").insert(path.to_owned(), value);
    }

    /// How often a path was asked for so far.
    fn count(&self, path: &str) -> usize {
        self.asked.lock().expect("asked").iter().filter(|(asked, _)| asked == path).count()
    }

    fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// A kubeconfig for webhooks.
    fn kubeconfig(&self, folder: &Path, path: &str) -> std::path::PathBuf {
        let authority = folder.join("elsewhere.crt");
        std::fs::write(&authority, &self.ca_pem).expect("written");
        let config = json!({
            "apiVersion": "v1", "kind": "Config",
            "clusters": [{"name": "hook", "cluster": {
                "server": format!("{}{path}", self.url()), "certificate-authority": "elsewhere.crt",
            }}],
            "users": [{"name": "api", "user": {"token": "opensesame"}}],
            "contexts": [{"name": "hook", "context": {"cluster": "hook", "user": "api"}}],
            "current-context": "hook",
        });
        let file = folder.join(format!("{}.kubeconfig", path.trim_matches('/')));
        std::fs::write(&file, config.to_string()).expect("written");
        file
    }
}

type Seen = (Arc<Mutex<BTreeMap<String, Value>>>, Arc<Mutex<Vec<(String, Value)>>>);

async fn answer(seen: Seen, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let path = request.uri().path().to_owned();
    let authorization =
        request.headers().get("authorization").and_then(|value| value.to_str().ok()).map(str::to_owned);
    let body = request.into_body().collect().await?.to_bytes();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    // A page whose path ends with a token is only for who shows it.
    let wanted = path.strip_prefix("/claims/").map(|token| format!("Bearer {token}"));
    let is_shown = wanted.is_none() || wanted == authorization;
    let page = seen.0.lock().expect("pages").get(&path).filter(|_| is_shown).cloned();
    // Webhooks answer by whom they are asked about: `{"jane": status}`.
    let told = page.map(|page| match body["kind"].as_str() {
        Some("TokenReview" | "SubjectAccessReview")
            if authorization.as_deref() != Some("Bearer opensesame") =>
        {
            json!({"status": {"error": "who are you?"}})
        }
        Some("TokenReview") => json!({"status": page[body["spec"]["token"].as_str().unwrap_or_default()]}),
        Some("SubjectAccessReview") => {
            json!({"status": page[body["spec"]["user"].as_str().unwrap_or_default()]})
        }
        _ => page,
    });
    let failures = seen.0.lock().expect("pages").get_mut(&format!("{path}!")).and_then(take_first);
    seen.1.lock().expect("asked").push((path, body));
    let status = failures.unwrap_or(if told.is_some() { 200 } else { 404 });
    let text = match told {
        Some(Value::String(text)) => text,
        Some(told) => told.to_string(),
        None => String::new(),
    };
    Ok(Response::builder().status(status).body(Full::new(Bytes::from(text))).expect("an answer"))
}

fn take_first(codes: &mut Value) -> Option<u16> {
    let codes = codes.as_array_mut().filter(|codes| !codes.is_empty())?;
    codes.remove(0).as_u64().and_then(|code| u16::try_from(code).ok())
}

fn from_host() -> Dial {
    Arc::new(|host, port| {
        Box::pin(async move {
            let socket = TcpStream::connect((host.as_str(), port)).await?;
            Ok(Box::new(socket) as Box<dyn apiserver::Socket>)
        })
    })
}

/// A key of an issuer.
struct Key {
    id: &'static str,
    pair: EcdsaKeyPair,
}

impl Key {
    fn new(id: &'static str) -> Self {
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).expect("a key");
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random);
        Self { id, pair: pair.expect("a key") }
    }

    fn jwk(&self) -> Value {
        let point = self.pair.public_key().as_ref();
        let (x, y) = (URL_SAFE_NO_PAD.encode(&point[1..33]), URL_SAFE_NO_PAD.encode(&point[33..]));
        json!({"kty": "EC", "crv": "P-256", "kid": self.id, "use": "sig", "alg": "ES256", "x": x, "y": y})
    }

    fn sign(&self, claims: &Value) -> String {
        let header = URL_SAFE_NO_PAD.encode(json!({"alg": "ES256", "kid": self.id}).to_string());
        let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims.to_string()));
        let signature = self.pair.sign(&SystemRandom::new(), signed.as_bytes()).expect("signed");
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs()
}

/// The name that a token is known by, or the code of the refusal.
async fn whoami(client: &Client, token: &str) -> Result<String, u16> {
    let body = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}).to_string();
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", &*bearer), ("content-type", "application/json")];
    let reply =
        client.send("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", &headers, &body).await;
    let told = |reply: &common::client::Reply| {
        let info = &reply.json()["status"]["userInfo"];
        format!("{} {}", info["username"].as_str().unwrap_or_default(), info["groups"])
    };
    if reply.code == 201 { Ok(told(&reply)) } else { Err(reply.code) }
}

fn configuration(issuer: &str, ca: &str, claim: &str) -> Arc<Configuration> {
    let file = json!({
        "apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthenticationConfiguration",
        "jwt": [{
            "issuer": {"url": issuer, "audiences": ["kubernetes"], "certificateAuthority": ca},
            "claimMappings": {"username": {"claim": claim, "prefix": "oidc:"}, "groups": {"expression": "claims.?groups.orValue([])"}},
        }],
        "anonymous": {"enabled": true, "conditions": [{"path": "/livez"}]},
    });
    Arc::new(access::authentication::read(&file, &[]).expect("a configuration"))
}

#[tokio::test]
async fn tokens_of_an_issuer_are_believed_as_long_as_it_and_the_configuration_say_so() {
    let provider = Elsewhere::start().await;
    let (old, new) = (Key::new("old"), Key::new("new"));
    let current = Arc::new(Mutex::new(configuration(&provider.url(), &provider.ca_pem, "sub")));
    let source = current.clone();
    let believed = Believed {
        source: Arc::new(move || source.lock().expect("a configuration").clone()),
        dial: from_host(),
    };
    let believing = Believing { believed: vec![believed], ..Believing::default() };
    let cluster = Cluster::start_for(Arc::new(Memory::new()), believing, |_| {}).await;
    let client = Client::of(&cluster, None);
    let claims = |serial: u64| {
        json!({"iss": provider.url(), "aud": "kubernetes", "sub": "jane", "name": "Jane", "groups": ["devs"],
            "exp": seconds() + 600, "jti": serial})
    };
    let jane = Ok(r#"oidc:jane ["devs","system:authenticated"]"#.to_owned());

    assert_eq!(whoami(&client, &old.sign(&claims(0))).await, Err(401), "it does not answer yet");
    provider.page(
        "/.well-known/openid-configuration",
        json!({"issuer": provider.url(), "jwks_uri": format!("{}/keys", provider.url())}),
    );
    provider.page("/keys", json!({"keys": [old.jwk()]}));
    assert_eq!(whoami(&client, &old.sign(&claims(1))).await, jane);
    assert_eq!(whoami(&client, &old.sign(&claims(2))).await, jane);
    assert_eq!(provider.count("/keys"), 1, "keys are kept");

    assert_eq!(whoami(&client, &new.sign(&claims(3))).await, Err(401));
    provider.page("/keys", json!({"keys": [new.jwk()]}));
    assert_eq!(whoami(&client, &new.sign(&claims(4))).await, jane, "a new key is asked for");
    assert_eq!(whoami(&client, &old.sign(&claims(5))).await, Err(401), "the old one is gone");

    let mut other = claims(6);
    other["aud"] = "mail".into();
    assert_eq!(whoami(&client, &new.sign(&other)).await, Err(401));
    let admin = Client::admin(&cluster);
    let metrics = admin.get("/metrics").await.text;
    let counted =
        "apiserver_authentication_jwt_authenticator_latency_seconds_count{jwt_issuer_hash=\"sha256:";
    for ending in [",result=\"failure\"} 4", ",result=\"success\"} 3"] {
        let mut lines = metrics.lines();
        assert!(
            lines.any(|line| line.starts_with(counted) && line.ends_with(ending)),
            "{ending} in {metrics}"
        );
    }
    let review = json!({"spec": {"token": new.sign(&other)}});
    let reviewed = admin.post("/apis/authentication.k8s.io/v1/tokenreviews", &review).await.json();
    assert_eq!(
        reviewed["status"],
        json!({"user": {}, "error": r#"[invalid bearer token, oidc: verify token: oidc: expected audience in ["kubernetes"] got ["mail"]]"#})
    );
    let review = json!({"spec": {"token": new.sign(&claims(7)), "audiences": ["elsewhere"]}});
    let reviewed = admin.post("/apis/authentication.k8s.io/v1/tokenreviews", &review).await.json();
    let unknown = json!({"user": {}, "error": "invalid bearer token"});
    assert_eq!(reviewed["status"], unknown, "an issuer's tokens are for this server only");

    *current.lock().expect("a configuration") = configuration(&provider.url(), &provider.ca_pem, "name");
    let renamed = Ok(r#"oidc:Jane ["devs","system:authenticated"]"#.to_owned());
    let fetched = provider.count("/keys");
    assert_eq!(whoami(&client, &new.sign(&claims(8))).await, renamed);
    assert_eq!(provider.count("/keys"), fetched, "the keys of an issuer that stays, stay");

    // What anybody can send makes nobody be asked without end.
    let forger = Key::new("forged");
    for serial in 10..40 {
        assert_eq!(whoami(&client, &forger.sign(&claims(serial))).await, Err(401));
    }
    assert!(provider.count("/keys") <= 11, "{}", provider.count("/keys"));
    assert_eq!(whoami(&client, &new.sign(&claims(50))).await, renamed);

    assert_eq!(client.get("/livez").await.code, 200);
    assert_eq!(client.get("/version").await.code, 401, "nobody comes here without credentials");
}

/// What is asked at `/claims` needs the token that the ID token holds for it.
#[tokio::test]
async fn groups_are_asked_for_where_a_token_says_that_they_are() {
    let (provider, other) = (Elsewhere::start().await, Elsewhere::start().await);
    let key = Key::new("key");
    let mut authorities = provider.ca_pem.clone();
    authorities.push_str(&other.ca_pem);
    let file = json!({
        "apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthenticationConfiguration",
        "jwt": [{
            "issuer": {"url": provider.url(), "audiences": ["kubernetes"], "certificateAuthority": authorities},
            "claimMappings": {"username": {"claim": "sub", "prefix": ""}, "groups": {"claim": "groups", "prefix": "g:"}},
        }],
    });
    let configuration = Arc::new(access::authentication::read(&file, &[]).expect("a configuration"));
    let believed = Believed { source: Arc::new(move || configuration.clone()), dial: from_host() };
    let believing = Believing { believed: vec![believed], ..Believing::default() };
    let cluster = Cluster::start_for(Arc::new(Memory::new()), believing, |_| {}).await;
    let client = Client::of(&cluster, None);
    for place in [&provider, &other] {
        let keys = format!("{}/keys", place.url());
        place.page("/.well-known/openid-configuration", json!({"issuer": place.url(), "jwks_uri": keys}));
        place.page("/keys", json!({"keys": [key.jwk()]}));
    }
    let told = |issuer: &Elsewhere, audience: &str, rest: Value| {
        let mut claims = json!({"iss": issuer.url(), "aud": audience, "exp": seconds() + 600});
        claims.as_object_mut().expect("claims").extend(rest.as_object().expect("more").clone());
        key.sign(&claims)
    };
    let claims = |serial: u64| {
        let sources = json!({"src": {"endpoint": format!("{}/claims/opensesame", other.url()), "access_token": "opensesame"}});
        told(
            &provider,
            "kubernetes",
            json!({"sub": "jane", "jti": serial, "_claim_names": {"groups": "src"}, "_claim_sources": sources}),
        )
    };
    assert_eq!(whoami(&client, &claims(0)).await, Err(401), "nobody answers");
    for (serial, answered, expected) in [
        (
            1,
            told(&other, "kubernetes", json!({"groups": ["devs"]})),
            Ok(r#"jane ["g:devs","system:authenticated"]"#),
        ),
        (
            2,
            told(&provider, "kubernetes", json!({"groups": "ops"})),
            Ok(r#"jane ["g:ops","system:authenticated"]"#),
        ),
        (3, told(&other, "mail", json!({"groups": ["devs"]})), Err(401)),
        (4, told(&other, "kubernetes", json!({"others": []})), Err(401)),
        (
            5,
            Key::new("key").sign(
                &json!({"iss": other.url(), "aud": "kubernetes", "groups": ["devs"], "exp": seconds() + 600}),
            ),
            Err(401),
        ),
        (6, "nonsense".to_owned(), Err(401)),
    ] {
        other.page("/claims/opensesame", answered.into());
        assert_eq!(whoami(&client, &claims(serial)).await, expected.map(str::to_owned), "{serial}");
    }
    // What the token holds itself is not asked for.
    let own = told(
        &provider,
        "kubernetes",
        json!({"sub": "jane", "groups": ["own"], "_claim_names": {"groups": "src"}, "_claim_sources": {}}),
    );
    assert_eq!(whoami(&client, &own).await, Ok(r#"jane ["g:own","system:authenticated"]"#.to_owned()));
}

#[tokio::test]
async fn a_webhook_knows_tokens_that_nobody_here_does() {
    let hook = Elsewhere::start().await;
    hook.page(
        "/tokens",
        json!({
            "jane's": {"authenticated": true, "user": {"username": "jane", "uid": "7", "groups": ["devs"], "extra": {"a": ["b"]}}},
            "expired": {"authenticated": false, "error": "it is expired"},
        }),
    );
    let folder = tempfile::tempdir().expect("a folder");
    let connection = Connection::read(&hook.kubeconfig(folder.path(), "/tokens")).expect("a connection");
    let token_webhook = Some(TokenWebhook { connection, dial: from_host() });
    let believing = Believing { token_webhook, ..Believing::default() };
    let cluster = Cluster::start_for(Arc::new(Memory::new()), believing, |_| {}).await;
    let client = Client::of(&cluster, None);
    let jane = Ok(r#"jane ["devs","system:authenticated"]"#.to_owned());
    assert_eq!(whoami(&client, "jane's").await, jane);
    assert_eq!(whoami(&client, "expired").await, Err(401));
    assert_eq!(whoami(&client, "expired").await, Err(401));
    assert_eq!(hook.count("/tokens"), 2, "answers are kept");
    let asked = hook.asked.lock().expect("asked")[0].1.clone();
    assert_eq!(
        asked["spec"],
        json!({"token": "jane's", "audiences": ["https://kubernetes.default.svc.cluster.local"]})
    );
    let admin = Client::admin(&cluster);
    let review = json!({"spec": {"token": "expired"}});
    let reviewed = admin.post("/apis/authentication.k8s.io/v1/tokenreviews", &review).await.json();
    assert_eq!(reviewed["status"]["error"], "[invalid bearer token, it is expired]");
}

#[tokio::test(flavor = "multi_thread")]
async fn webhooks_are_asked_where_the_configuration_puts_them() {
    let hook = Elsewhere::start().await;
    hook.page(
        "/access",
        json!({
            "friend": {"allowed": true, "reason": "a friend"}, "foe": {"allowed": false, "denied": true, "reason": "a foe"},
            "other": {"allowed": false},
        }),
    );
    let folder = tempfile::tempdir().expect("a folder");
    let kubeconfig = hook.kubeconfig(folder.path(), "/access");
    let webhook = |name: &str, kubeconfig: &Path, policy: &str| {
        json!({"type": "Webhook", "name": name, "webhook": {
            "timeout": "3s", "subjectAccessReviewVersion": "v1", "failurePolicy": policy,
            "matchConditionSubjectAccessReviewVersion": "v1",
            "matchConditions": [{"expression": "request.user != 'quiet'"}],
            "connectionInfo": {"type": "KubeConfigFile", "kubeConfigFile": kubeconfig},
        }})
    };
    let nowhere = Elsewhere::start().await;
    let other = tempfile::tempdir().expect("a folder");
    let broken = nowhere.kubeconfig(other.path(), "/nothing");
    let file = json!({
        "apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthorizationConfiguration",
        "authorizers": [
            webhook("first", &kubeconfig, "Deny"),
            {"type": "Node", "name": "node"},
            {"type": "RBAC", "name": "rbac"},
            webhook("last", &broken, "NoOpinion"),
        ],
    });
    let current = Arc::new(Authorization::read(file.to_string().as_bytes()).expect("a configuration"));
    let authorizers = Authorizers::new().with_configuration(Arc::new(move || current.clone()), from_host());
    let believing = Believing { authorizers, ..Believing::default() };
    let cluster = Cluster::start_for(Arc::new(Memory::new()), believing, |_| {}).await;
    let client = |name: &str| Client::of(&cluster, Some(cluster.identity(name, &["devs"])));
    let pods = "/api/v1/namespaces/default/pods?labelSelector=app%3Dweb";

    let friend = client("friend");
    assert_eq!(friend.get(pods).await.code, 200);
    assert_eq!(friend.get(pods).await.code, 200);
    assert_eq!(hook.count("/access"), 1, "answers are kept");
    let asked = hook.asked.lock().expect("asked")[0].1["spec"]["resourceAttributes"].clone();
    assert_eq!(
        asked["labelSelector"],
        json!({"requirements": [{"key": "app", "operator": "In", "values": ["web"]}]})
    );
    let refused = client("foe").get(pods).await;
    assert_eq!(refused.code, 403);
    assert!(
        refused.json()["message"].as_str().is_some_and(|text| text.ends_with(": a foe")),
        "{}",
        refused.text
    );
    let failed = client("other").get(pods).await;
    assert_eq!(failed.code, 500, "whoever might have allowed it cannot be asked: {}", failed.text);
    assert_eq!(Client::admin(&cluster).get(pods).await.code, 200, "system:masters needs nobody");

    let admin = Client::admin(&cluster);
    let review = |name: &str| json!({"spec": {"user": name, "resourceAttributes": {"verb": "list", "resource": "pods", "namespace": "a"}}});
    let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
    let status = |reply: common::client::Reply| reply.json()["status"].clone();
    assert_eq!(
        status(admin.post(path, &review("friend")).await),
        json!({"allowed": true, "reason": "a friend"})
    );
    assert_eq!(
        status(admin.post(path, &review("foe")).await),
        json!({"allowed": false, "denied": true, "reason": "a foe"})
    );

    // In the middle of a write: who is allowed by a webhook alone may bind by it.
    let role = json!({"metadata": {"name": "all"}, "rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]});
    let roles = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles";
    assert_eq!(friend.post(roles, &role).await.code, 201);

    // What may pass is asked again; what will not is an answer.
    let before = hook.count("/access");
    hook.fails("/access", &[500, 429]);
    hook.page("/access", json!({"late": {"allowed": true}}));
    assert_eq!((client("late").get(pods).await.code, hook.count("/access")), (200, before + 3));
    hook.fails("/access", &[403]);
    assert_eq!((client("later").get(pods).await.code, hook.count("/access")), (500, before + 4));

    let before = hook.count("/access");
    let quiet = client("quiet").get(pods).await;
    assert_eq!((quiet.code, hook.count("/access")), (403, before), "conditions keep it from being asked");
}

#[tokio::test]
async fn reviews_pass_validation_and_admission() {
    let cluster = Cluster::start().await;
    let admin = Client::admin(&cluster);
    let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
    let pods = json!({"verb": "list", "resource": "pods"});
    let refused = admin.post(path, &json!({"spec": {"resourceAttributes": pods}})).await;
    assert_eq!(refused.code, 422);
    assert_eq!(
        refused.json()["message"],
        r#".authorization.k8s.io "" is invalid: spec.user: Invalid value: "": at least one of user or group must be specified"#
    );
    let mut both = pods.clone();
    both["fieldSelector"] = json!({"rawSelector": "a=b", "requirements": [{"key": "", "operator": "In"}]});
    let refused = admin.post(path, &json!({"spec": {"user": "x", "resourceAttributes": both}})).await.json();
    let causes: Vec<&str> = refused["details"]["causes"]
        .as_array()
        .expect("causes")
        .iter()
        .filter_map(|one| one["field"].as_str())
        .collect();
    assert_eq!(
        causes,
        [
            "spec.resourceAttributes.fieldSelector.rawSelector",
            "spec.resourceAttributes.fieldSelector.requirements[0].key",
            "spec.resourceAttributes.fieldSelector.requirements[0].values",
        ]
    );
    let named = json!({"metadata": {"name": "x"}, "spec": {"user": "x", "resourceAttributes": pods}});
    let refused = admin.post(path, &named).await.json();
    assert_eq!(refused["details"]["causes"][0]["message"], r#"Invalid value: {"name":"x"}: must be empty"#);
    let policy = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": {"name": "no-reviews"},
        "spec": {
            "matchConstraints": {"resourceRules": [{"apiGroups": ["authorization.k8s.io"], "apiVersions": ["v1"],
                "operations": ["CREATE"], "resources": ["subjectaccessreviews"]}]},
            "validations": [{"expression": "object.spec.user != 'secret'", "message": "not about them"}],
        },
    });
    let policies = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies";
    assert_eq!(admin.post(policies, &policy).await.code, 201);
    let binding = json!({"metadata": {"name": "no-reviews"}, "spec": {"policyName": "no-reviews", "validationActions": ["Deny"]}});
    let bindings = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings";
    assert_eq!(admin.post(bindings, &binding).await.code, 201);
    let about = |name: &str| json!({"spec": {"user": name, "resourceAttributes": pods}});
    assert_eq!(admin.post(path, &about("anybody")).await.code, 201);
    let refused = admin.post(path, &about("secret")).await;
    assert!(refused.text.contains("not about them"), "{} {}", refused.code, refused.text);
}
