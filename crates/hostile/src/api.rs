//! A whole API server, spoken to in raw HTTP by somebody who may do everything.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use access::ClientCa;
use access::service_account::{Authority, SigningKey};
use apiserver::{Authorizers, Config, Deps, Limits, Server, Socket, Version};
use gate::{Gate, ServiceRanges};
use object::Time;
use plan::{User, Write as PlanWrite};
use rcgen::{CertificateParams, KeyPair};
use ring::rand::SystemRandom;
use rustls::pki_types::PrivateKeyDer;
use rustls::{ClientConfig, RootCertStore};
use serde_json::json;
use store::Memory;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

pub const EXAMPLES: &[&[u8]] = &[
    b"GET /api/v1/pods?limit=1&labelSelector=a%3Db&continue=x HTTP/1.1\r\nHost: a\r\nAccept: application/json;as=Table;v=v1;g=meta.k8s.io\r\n\r\n",
    b"POST /api/v1/namespaces/default/configmaps?dryRun=All HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 25\r\n\r\n{\"metadata\":{\"name\":\"a\"}}",
    b"GET /api/v1/namespaces/default/pods/a/exec?command=x&stdin=1 HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: v5.channel.k8s.io\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
    b"DELETE /apis/apps/v1/namespaces/default/deployments HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    b"GET /openapi/v3/api/v1?hash=0 HTTP/1.1\r\nHost: a\r\nAccept: application/com.github.proto-openapi.spec.v3@v1.0+protobuf\r\n\r\n",
];

/// An answer that takes longer is a hang: a watch ends with the client's half of the connection.
const PATIENCE: Duration = Duration::from_secs(30);

struct Ground {
    address: SocketAddr,
    _runtime: Runtime,
}

static GROUND: LazyLock<Option<Ground>> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().ok()?;
    let address = runtime.block_on(start())?;
    Some(Ground { address, _runtime: runtime })
});

async fn start() -> Option<SocketAddr> {
    let random = SystemRandom::new();
    let key = SigningKey::generate(&random).ok()?;
    let tokens = Authority {
        issuer: "https://e".into(),
        accepted_issuers: Vec::new(),
        audiences: vec!["https://e".into()],
        signing: SigningKey::from_pkcs8(&key, &random).ok()?,
        verifying: Vec::new(),
    };
    let authorizers = Arc::new(Authorizers::new());
    let clock = Arc::new(|| Time::from_secs(1_700_000_000));
    let gate = Gate::new(
        Arc::new(Memory::new()),
        authorizers.clone(),
        clock,
        Arc::new(|bytes| bytes.fill(7)),
        ServiceRanges::default(),
    );
    let gate = Arc::new(gate);
    let system = User::new("system:apiserver", &["system:masters"]);
    let everyone = json!({
        "metadata": {"name": "everyone"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "everything"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "system:unauthenticated"}],
    });
    let everything = json!({
        "metadata": {"name": "everything"},
        "rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}, {"nonResourceURLs": ["*"], "verbs": ["*"]}],
    });
    for (resource, object) in [
        (kinds::NAMESPACES, json!({"metadata": {"name": "default"}})),
        (kinds::CLUSTER_ROLES, everything),
        (kinds::CLUSTER_ROLE_BINDINGS, everyone),
    ] {
        gate.execute(&system, PlanWrite::Create { resource, object }).await.ok()?;
    }
    let word = || "0".to_owned();
    let version = Version {
        major: word(),
        minor: word(),
        git: word(),
        commit: word(),
        built: word(),
        platform: word(),
    };
    let config = Config {
        version,
        limits: Limits::default(),
        client_ca: ClientCa::default(),
        cbor: true,
        front_proxies: None,
        jwks_uri: "https://e".into(),
        flags: std::collections::BTreeMap::new(),
        checks: Vec::new(),
        audit: None,
        components: None,
    };
    let nowhere: apiserver::Dial = Arc::new(|_, _| {
        Box::pin(async { Err::<Box<dyn Socket>, _>(std::io::ErrorKind::ConnectionRefused.into()) })
    });
    let own_key = KeyPair::generate().ok()?;
    let own = CertificateParams::default().self_signed(&own_key).ok()?;
    let front_proxy = apiserver::FrontProxy {
        chain: vec![own.der().clone()],
        key: PrivateKeyDer::try_from(own_key.serialize_der()).ok()?,
    };
    let deps = Deps {
        gate,
        authorizers,
        tokens: Arc::new(tokens),
        login: None,
        believed: Vec::new(),
        token_webhook: None,
        dial: nowhere,
        kubelet_tls: Arc::new(no_kubelets()),
        front_proxy,
    };
    let server = Server::new(config, deps).ok()?;
    let listener = TcpListener::bind("127.0.0.1:0").await.ok()?;
    let address = listener.local_addr().ok()?;
    tokio::spawn(async move { drop(server.serve(listener, None).await) });
    Some(address)
}

fn no_kubelets() -> ClientConfig {
    ClientConfig::builder().with_root_certificates(RootCertStore::empty()).with_no_client_auth()
}

pub fn request(bytes: &[u8]) {
    assert!(GROUND.is_some(), "the server starts");
    let Some(ground) = &*GROUND else { return };
    let Ok(mut client) = TcpStream::connect(ground.address) else { return };
    let _ = client.set_read_timeout(Some(PATIENCE));
    let _ = client.write_all(bytes).and_then(|()| client.shutdown(Shutdown::Write));
    let mut answer = Vec::new();
    let end = client.read_to_end(&mut answer);
    let timed_out = end.is_err_and(|error| {
        matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut)
    });
    assert!(!timed_out, "no end of the answer: {}", String::from_utf8_lossy(&answer));
    // The server must be there after it.
    assert!(TcpStream::connect(ground.address).is_ok(), "the server has gone");
}
