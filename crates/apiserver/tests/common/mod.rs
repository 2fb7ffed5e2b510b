//! A whole API server on loopback over a memory store, with an administrator's certificate, and ways to talk to it.
#![allow(dead_code)] // each test program uses a part

pub mod client;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use access::ClientCa;
use access::service_account::{Authority, SigningKey};
use apiserver::{Authorizers, Believed, Config, Deps, Dial, Limits, Server, TokenWebhook, Version};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use gate::{Gate, ServiceRanges};
use object::Time;
use plan::{User, Write};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use ring::rand::{SecureRandom, SystemRandom};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use store::{Memory, Store};
use tokio::net::{TcpListener, TcpStream};

pub struct Cluster {
    pub server: Server,
    pub gate: Arc<Gate>,
    pub address: SocketAddr,
    pub ca_pem: String,
    pub folder: tempfile::TempDir,
    ca: Issuer<'static, KeyPair>,
}

/// Who is believed, and who may do what, besides what every cluster has.
#[derive(Default)]
pub struct Believing {
    pub authorizers: Authorizers,
    pub believed: Vec<Believed>,
    pub token_webhook: Option<TokenWebhook>,
}

/// The administrator: certificate and key as PEM.
pub struct Identity {
    pub certificate: String,
    pub key: String,
}

impl Cluster {
    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        Self::start_in(Arc::new(Memory::new()), change).await
    }

    pub async fn start_in(store: Arc<dyn Store>, change: impl FnOnce(&mut Config)) -> Self {
        Self::start_for(store, Believing::default(), change).await
    }

    pub async fn start_for(
        store: Arc<dyn Store>,
        believing: Believing,
        change: impl FnOnce(&mut Config),
    ) -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.distinguished_name.push(DnType::CommonName, "ekso-test-ca");
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        let (ca_pem, ca_der) = (certificate.pem(), certificate.der().to_vec());
        let ca = Issuer::new(params, key);

        let key = KeyPair::generate().expect("a key");
        let mut params =
            CertificateParams::new(vec!["localhost".into(), "127.0.0.1".into()]).expect("parameters");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let serving = params.signed_by(&key, &ca).expect("a certificate");
        let tls = apiserver::server_config(
            vec![CertificateDer::from(serving.der().to_vec())],
            PrivateKeyDer::try_from(key.serialize_der()).expect("a key"),
        );

        let random = SystemRandom::new();
        let pkcs8 = SigningKey::generate(&random).expect("a key");
        let tokens = Authority {
            issuer: "https://kubernetes.default.svc.cluster.local".into(),
            accepted_issuers: Vec::new(),
            audiences: vec!["https://kubernetes.default.svc.cluster.local".into()],
            signing: SigningKey::from_pkcs8(&pkcs8, &random).expect("a key"),
            verifying: Vec::new(),
        };
        let authorizers = Arc::new(believing.authorizers);
        let gate = Arc::new(Gate::new(
            store,
            authorizers.clone(),
            Arc::new(now),
            Arc::new(|bytes| SystemRandom::new().fill(bytes).expect("random bytes")),
            ServiceRanges::default(),
        ));
        let mut config = Config {
            version: Version {
                major: "1".into(),
                minor: "36".into(),
                git: "v1.36.2+ekso".into(),
                commit: String::new(),
                built: "1970-01-01T00:00:00Z".into(),
                platform: "linux/amd64".into(),
            },
            limits: Limits::default(),
            client_ca: ClientCa { certificates: vec![ca_der] },
            cbor: false,
            front_proxies: None,
            jwks_uri: "https://kubernetes.default.svc.cluster.local/openid/v1/jwks".into(),
            flags: std::collections::BTreeMap::new(),
            checks: Vec::new(),
            audit: None,
            components: None,
        };
        change(&mut config);
        let client = Self::signed(&ca, "kube-apiserver-kubelet-client", &["system:masters"]);
        let kubelet_tls = apiserver::client_config(
            vec![CertificateDer::from(certificate.der().to_vec())],
            vec![CertificateDer::from(client.0.der().to_vec())],
            PrivateKeyDer::try_from(client.1.serialize_der()).expect("a key"),
        );
        // Nodes have addresses of their own; here all of them are on loopback.
        let dial: Dial = Arc::new(|_, port| {
            Box::pin(async move {
                let socket = TcpStream::connect(("127.0.0.1", port)).await?;
                Ok(Box::new(socket) as Box<dyn apiserver::Socket>)
            })
        });
        let kubelet_tls = Arc::new(kubelet_tls.expect("TLS"));
        let proxy = Self::signed(&ca, "front-proxy-client", &[]);
        let front_proxy = apiserver::FrontProxy {
            chain: vec![CertificateDer::from(proxy.0.der().to_vec())],
            key: PrivateKeyDer::try_from(proxy.1.serialize_der()).expect("a key"),
        };
        let tokens = Arc::new(tokens);
        let deps = Deps {
            gate: gate.clone(),
            authorizers,
            tokens,
            login: None,
            believed: believing.believed,
            token_webhook: believing.token_webhook,
            dial,
            kubelet_tls,
            front_proxy,
        };
        let server = Server::new(config, deps).expect("a server");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let serving = server.clone();
        tokio::spawn(async move {
            serving.serve(listener, Some(Arc::new(tls.expect("TLS")))).await.expect("served");
        });
        let folder = tempfile::tempdir().expect("a folder");
        let cluster = Self { server, gate, address, ca_pem, folder, ca };
        cluster.bootstrap().await;
        cluster
    }

    /// The namespaces and roles that every cluster has.
    async fn bootstrap(&self) {
        let system = User::new("system:apiserver", &["system:masters"]);
        for name in ["default", "kube-node-lease", "kube-public", "kube-system"] {
            let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
            self.write(&system, Write::Create { resource: kinds::NAMESPACES, object }).await;
        }
        let account = json!({"apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": {"name": "default", "namespace": "default"}});
        self.write(&system, Write::Create { resource: kinds::SERVICE_ACCOUNTS, object: account }).await;
        for write in access::bootstrap::reconcile(&self.gate.store().snapshot(), &self.ca_pem, &self.ca_pem) {
            self.write(&system, write).await;
        }
    }

    pub async fn write(&self, user: &User, write: Write) {
        self.gate
            .execute(user, write.clone())
            .await
            .unwrap_or_else(|status| panic!("{write:?}: {}", status.to_json()));
    }

    fn signed(ca: &Issuer<'static, KeyPair>, name: &str, groups: &[&str]) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec!["10.9.8.7".into()]).expect("parameters");
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        params.distinguished_name.push(DnType::CommonName, name);
        for group in groups {
            params.distinguished_name.push(DnType::OrganizationName, *group);
        }
        (params.signed_by(&key, ca).expect("a certificate"), key)
    }

    /// A client certificate for this user.
    pub fn identity(&self, name: &str, groups: &[&str]) -> Identity {
        let (certificate, key) = Self::signed(&self.ca, name, groups);
        Identity { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    /// What a kubelet at 10.9.8.7 listens with.
    pub fn kubelet_tls(&self) -> rustls::ServerConfig {
        let (certificate, key) = Self::signed(&self.ca, "system:node:n1", &["system:nodes"]);
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        apiserver::server_config(vec![CertificateDer::from(certificate.der().to_vec())], key).expect("TLS")
    }

    /// A kubeconfig of this user.
    pub fn kubeconfig(&self, name: &str, groups: &[&str]) -> PathBuf {
        let identity = self.identity(name, groups);
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {
                "server": format!("https://{}", self.address),
                "certificate-authority-data": STANDARD.encode(&self.ca_pem),
            }}],
            "users": [{"name": "test", "user": {
                "client-certificate-data": STANDARD.encode(identity.certificate),
                "client-key-data": STANDARD.encode(identity.key),
            }}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        });
        let path = self.folder.path().join(format!("{name}.kubeconfig"));
        std::fs::write(&path, config.to_string()).expect("written");
        path
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.server.stop();
    }
}

fn now() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970");
    Time::from_micros(since.as_micros() as i64)
}

/// kubectl with a home of its own.
pub fn kubectl(kubeconfig: &Path, arguments: &[&str], input: &str) -> Output {
    use std::io::Write;
    let home = kubeconfig.parent().expect("a folder");
    let mut child = Command::new("kubectl")
        .args(arguments)
        .env("KUBECONFIG", kubeconfig)
        .env("HOME", home)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("kubectl starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(input.as_bytes()).expect("kubectl reads");
    drop(stdin);
    child.wait_with_output().expect("kubectl ends")
}

pub fn value(text: &[u8]) -> Value {
    serde_json::from_slice(text).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(text)))
}
