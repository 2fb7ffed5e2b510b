//! How a node comes to its identity: by a join token it asks for a client certificate, as the node that it then is for
//! a serving certificate. Both are kept, and renewed in time.
//!
//! A token reads `<id>.<secret>.<pin>`: the first two parts are a bootstrap token
//! (<https://kubernetes.io/docs/reference/access-authn-authz/bootstrap-tokens/>), the pin is the SHA-256 of the cluster's authority in
//! hex, so that the first connection already knows whom it talks to.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use files::FileError;
use rcgen::{CertificateParams, DnType, KeyPair, SanType};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};
use serde_json::{Value, json};

use crate::api::{Api, ApiError};
use crate::certificate::{Certificate, CertificateError, Rotating};
use crate::clock;

/// How long a request for a certificate may stay undecided.
const PATIENCE: Duration = Duration::from_secs(120);
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// How often certificates are looked at for renewal at least: by the wall's clock, since a machine may have slept.
const RENEWAL_PERIOD: Duration = Duration::from_secs(600);
/// How soon they are looked at again at most, also after one could not be renewed.
const RENEWAL_PAUSE: Duration = Duration::from_secs(5);

/// Certificates with their keys, in the node's folder.
const CLIENT: &str = "client.pem";
const SERVER: &str = "server.pem";

#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    #[error("the join token is malformed: copy it whole, as `ekso server` printed it")]
    Token,
    #[error(
        "the cluster does not know the join token, or it has expired: start `ekso server` anew, and use the one that it prints then"
    )]
    TokenRefused,
    #[error("this node has no identity yet: give a join token with --token or --token-file")]
    NoToken,
    #[error(transparent)]
    Api(#[from] ApiError),
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error("the keys of this node: {0}")]
    Keys(String),
    #[error("the request for a certificate was denied: {0}")]
    Denied(String),
    #[error(
        "nobody decided on the request {0} for a certificate within {PATIENCE:?}: approve it with `kubectl certificate approve`"
    )]
    Undecided(String),
}

/// What a node is known by.
pub struct Identity {
    /// To the API server, as `system:node:<name>`.
    pub client: Arc<ClientConfig>,
    dir: PathBuf,
    name: String,
    certificate: Arc<Rotating>,
    /// The cluster's authority.
    roots: Arc<RootCertStore>,
}

/// What the node's own server is known by.
pub struct Serving {
    pub tls: Arc<ServerConfig>,
    certificate: Arc<Rotating>,
}

/// A token in its parts.
struct Token {
    bearer: String,
    pin: [u8; 32],
}

impl Token {
    fn parse(text: &str) -> Result<Self, JoinError> {
        let mut parts = text.trim().split('.');
        let (Some(id), Some(secret), Some(pin), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(JoinError::Token);
        };
        let digit = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
        let bytes: Option<Vec<u8>> = pin.as_bytes().chunks(2).map(digit).collect();
        let pin = bytes.and_then(|bytes| bytes.try_into().ok()).ok_or(JoinError::Token)?;
        Ok(Self { bearer: format!("{id}.{secret}"), pin })
    }
}

/// The identity kept in `dir`, or a new one by the token.
pub async fn identity(
    dir: &Path,
    server: &str,
    token: Option<&str>,
    name: &str,
) -> Result<Identity, JoinError> {
    let (ca, client) = (dir.join("ca.crt"), dir.join(CLIENT));
    let kept = Certificate::load(&client)?.filter(|kept| kept.is_valid(clock::now()) && ca.exists());
    let certificate = match kept {
        Some(kept) => kept,
        None => {
            let token = Token::parse(token.ok_or(JoinError::NoToken)?)?;
            let (api, pinned) = first_contact(server, &token)?;
            files::make_dir(dir)?;
            let text = match request(&api, name, &[], Purpose::Client).await {
                Err(JoinError::Api(error)) if error.is_unauthorized() => return Err(JoinError::TokenRefused),
                other => other?,
            };
            let authority = pinned.authority().ok_or(JoinError::Token)?;
            files::write(&ca, 0o600, pem("CERTIFICATE", &authority).as_bytes())?;
            keep(&client, &text)?
        }
    };
    let keys = |error: rustls::Error| JoinError::Keys(error.to_string());
    let text = files::read(&ca)?.ok_or_else(|| gone(&ca))?;
    let ca = CertificateDer::from_pem_slice(&text).map_err(|error| JoinError::Keys(error.to_string()))?;
    let mut roots = RootCertStore::empty();
    roots.add(ca).map_err(keys)?;
    let roots = Arc::new(roots);
    let certificate = Rotating::new(certificate);
    let mut config = ClientConfig::builder()
        .with_root_certificates(roots.clone())
        .with_client_cert_resolver(certificate.clone());
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Identity { client: Arc::new(config), dir: dir.to_owned(), name: name.to_owned(), certificate, roots })
}

impl Identity {
    /// The serving certificate that is kept, or a new one. The Node must be there and have these addresses: it may
    /// serve under no others.
    pub async fn serving(&self, api: &Api, addresses: &[IpAddr]) -> Result<Serving, JoinError> {
        let path = self.dir.join(SERVER);
        let is_good = |kept: &Certificate| kept.is_valid(clock::now()) && kept.names(&self.name, addresses);
        let certificate = match Certificate::load(&path)?.filter(is_good) {
            Some(kept) => kept,
            None => keep(&path, &request(api, &self.name, addresses, Purpose::Server).await?)?,
        };
        let certificate = Rotating::new(certificate);
        // Who shows no certificate is let in this far, to be told so by the server.
        let verifier = rustls::server::WebPkiClientVerifier::builder(self.roots.clone())
            .allow_unauthenticated()
            .build()
            .map_err(|error| JoinError::Keys(error.to_string()))?;
        let mut tls = ServerConfig::builder()
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(certificate.clone());
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Serving { tls: Arc::new(tls), certificate })
    }

    /// Renews both certificates in time, for ever.
    pub async fn renew(&self, api: &Api, serving: &Serving, addresses: &[IpAddr]) {
        loop {
            let kinds = [
                (&self.certificate, CLIENT, Purpose::Client, &[][..]),
                (&serving.certificate, SERVER, Purpose::Server, addresses),
            ];
            for (held, file, purpose, addresses) in kinds {
                if held.current().renew_at() > clock::now() {
                    continue;
                }
                let renewed = request(api, &self.name, addresses, purpose).await;
                match renewed.and_then(|text| keep(&self.dir.join(file), &text)) {
                    Ok(certificate) => {
                        held.replace(certificate);
                        api.reconnect().await;
                        tracing::info!(file, "a certificate of this node was renewed");
                    }
                    Err(error) => {
                        tracing::warn!(file, %error, "a certificate of this node could not be renewed")
                    }
                }
            }
            let due = self.certificate.current().renew_at().min(serving.certificate.current().renew_at());
            let micros = due.as_micros().saturating_sub(clock::now().as_micros()).max(0);
            let wait = Duration::from_micros(micros.unsigned_abs());
            tokio::time::sleep(wait.clamp(RENEWAL_PAUSE, RENEWAL_PERIOD)).await;
        }
    }
}

/// Writes down a certificate with its key, and takes it up.
fn keep(path: &Path, text: &str) -> Result<Certificate, JoinError> {
    files::write(path, 0o600, text.as_bytes())?;
    Certificate::load(path)?.ok_or_else(|| gone(path))
}

fn gone(path: &Path) -> JoinError {
    JoinError::Keys(format!("{} has gone", path.display()))
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> =
        text.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

fn first_contact(server: &str, token: &Token) -> Result<(Api, Arc<Pinned>), JoinError> {
    let pinned = Arc::new(Pinned { pin: token.pin, authority: std::sync::Mutex::default() });
    let mut config = ClientConfig::builder()
        .dangerous()
        .with_custom_certificate_verifier(pinned.clone())
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok((Api::new(server, Arc::new(config), Some(token.bearer.clone()))?, pinned))
}

#[derive(Clone, Copy)]
enum Purpose {
    Client,
    Server,
}

/// Asks for a certificate and waits for it. The certificate and its key in one PEM.
async fn request(api: &Api, name: &str, addresses: &[IpAddr], purpose: Purpose) -> Result<String, JoinError> {
    let keys = |error: rcgen::Error| JoinError::Keys(error.to_string());
    let key = KeyPair::generate().map_err(keys)?;
    let mut params = CertificateParams::default();
    params.distinguished_name.remove(DnType::CommonName);
    params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
    params.distinguished_name.push(DnType::CommonName, format!("system:node:{name}"));
    let (signer, usage, suffix) = match purpose {
        Purpose::Client => ("kubernetes.io/kube-apiserver-client-kubelet", "client auth", "client"),
        Purpose::Server => {
            let text = name.try_into().map_err(keys)?;
            params.subject_alt_names.push(SanType::DnsName(text));
            params.subject_alt_names.extend(addresses.iter().map(|&address| SanType::IpAddress(address)));
            ("kubernetes.io/kubelet-serving", "server auth", "server")
        }
    };
    let csr = params.serialize_request(&key).map_err(keys)?.pem().map_err(keys)?;
    let object = json!({
        "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
        "metadata": {"generateName": format!("node-{suffix}-{name}-")},
        "spec": {
            "request": STANDARD.encode(csr), "signerName": signer,
            "usages": ["digital signature", usage],
        },
    });
    const PATH: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
    let created: Value = api.create(PATH, &object).await?;
    let request_name = created["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let since = Instant::now();
    while since.elapsed() < PATIENCE {
        let now: Value = api.get(&format!("{PATH}/{request_name}")).await?;
        let conditions = now["status"]["conditions"].as_array().cloned().unwrap_or_default();
        if let Some(denied) = conditions.iter().find(|one| one["type"] == "Denied" || one["type"] == "Failed")
        {
            return Err(JoinError::Denied(denied["message"].as_str().unwrap_or_default().to_owned()));
        }
        let certificate = now["status"]["certificate"].as_str().and_then(|text| STANDARD.decode(text).ok());
        if let Some(certificate) = certificate.and_then(|bytes| String::from_utf8(bytes).ok()) {
            return Ok(format!("{certificate}{}", key.serialize_pem()));
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    Err(JoinError::Undecided(request_name))
}

/// Trusts the server whose chain ends in the authority of this digest.
#[derive(Debug)]
struct Pinned {
    pin: [u8; 32],
    authority: std::sync::Mutex<Option<Vec<u8>>>,
}

impl Pinned {
    fn authority(&self) -> Option<Vec<u8>> {
        self.authority.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let digest = |der: &CertificateDer<'_>| ring::digest::digest(&ring::digest::SHA256, der);
        let authority =
            intermediates.iter().find(|der| digest(der).as_ref() == self.pin).ok_or_else(|| {
                rustls::Error::General("the server is not of the cluster that the token is for".into())
            })?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        let verifier = WebPkiServerVerifier::builder(Arc::new(roots))
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        let verified = verifier.verify_server_cert(end_entity, &[], server_name, ocsp_response, now)?;
        *self.authority.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(authority.to_vec());
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let provider = rustls::crypto::ring::default_provider();
        rustls::crypto::verify_tls12_signature(
            message,
            certificate,
            signature,
            &provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let provider = rustls::crypto::ring::default_provider();
        rustls::crypto::verify_tls13_signature(
            message,
            certificate,
            signature,
            &provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
