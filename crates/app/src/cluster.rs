//! One cluster's control plane: a store, a gate, an API server, the controllers and the scheduler. A value, without globals.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener as StdListener};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use access::ClientCa;
use access::service_account::{Authority, SigningKey};
use account::Account;
use apiserver::{Authorizers, Believed, ComponentMetrics, Deps, FrontProxies, Limits, Server, Version};
use controllers::{Settings, Tokens};
use engine::Measures;
use gate::{Gate, ServiceRange, ServiceRanges};
use kinds::{CONFIG_MAPS, NODES};
use object::{Key, Object, Reason, Snapshot, Status};
use plan::{Expect, Write};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::Deserialize;
use store::{Embedded, Measured, Sealing, Store};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinHandle};
use tracing::{error, info, warn};

use crate::bootstrap;
use crate::clock::now;
use crate::deciders::{self, Deciders, Identity, IdentityError, event_user};
use crate::dial::{self, Inside};
use crate::doors::Doors;
use crate::etcd::{EtcdError, Place};
use crate::login;
use crate::on_fargate::OnFargate;
use crate::pki::{self, Pair, Pki, PkiError, Subject};
use crate::server_files::{AccessFileError, GuardFileError, Reloads, ServerFiles, followed};
use crate::shape::{CLUSTER_DOMAIN, Shape, git_version};

/// Where the API listens in a VPC, as on EKS.
pub const API_PORT: u16 = 443;

/// Who tells extension servers who asks, and may tell this server too.
const FRONT_PROXY: &str = "front-proxy-client";

#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    #[error(transparent)]
    Pki(#[from] PkiError),
    #[error("open the store: {0}")]
    Store(#[from] store::OpenError),
    #[error(transparent)]
    Etcd(#[from] EtcdError),
    #[error(transparent)]
    Guard(#[from] GuardFileError),
    #[error(transparent)]
    Access(#[from] AccessFileError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(
        "the state in etcd is of a cluster with another authority than {}: copy ca.crt, ca.key and sa.key of a server \
         of that cluster there, or choose an empty etcd",
        .pki.display()
    )]
    OtherAuthority { pki: PathBuf },
    #[error("the keys of the cluster: {0}")]
    Keys(String),
    #[error("remove the node {node}: {status}")]
    RemoveNode { node: String, status: Box<Status> },
    #[error("write the first objects of the cluster: {0}")]
    Bootstrap(Box<Status>),
}

/// How a control plane is made.
pub struct Setup<'a> {
    pub name: &'a str,
    /// Its folder: `pki`, `store`.
    pub dir: &'a Path,
    /// Where its state is, if not in the folder.
    pub place: &'a Place,
    pub files: &'a ServerFiles,
    /// Names and addresses that the API's certificate is for, besides the usual ones.
    pub names: Vec<String>,
    /// Where pods and nodes reach the API; never none.
    pub inside: Vec<SocketAddr>,
    pub dial_from: Inside,
    pub shape: Shape,
    /// CBOR is read and written at the API.
    pub cbor: bool,
    /// What pods trust beside the cluster's own authority, PEM: that of the issuer of their tokens, if it answers elsewhere.
    pub more_roots: String,
    /// The account that it is in: its principals log in, and its access policies hold.
    pub account: Option<Arc<Account>>,
}

/// A control plane that runs.
pub struct Cluster {
    pub gate: Arc<Gate>,
    pub pki: Arc<Pki>,
    /// Where pods and nodes reach the API; never none.
    pub inside: Vec<SocketAddr>,
    pub shape: Shape,
    /// What it was started with.
    pub files: ServerFiles,
    /// The keys of its store, if it has any.
    sealing: Option<Arc<Sealing>>,
    /// The public keys of its tokens, and who signs them.
    pub jwks: serde_json::Value,
    pub issuer: String,
    server: Server,
    tls: Arc<rustls::ServerConfig>,
    stop: watch::Sender<bool>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    /// What answers at the public endpoint, while there is one.
    public: Mutex<Option<(AbortHandle, SocketAddr)>>,
    doors: Mutex<Doors>,
    /// Held as long as the cluster runs here.
    _identity: Option<Identity>,
}

impl Cluster {
    /// Has its store ready for a start with other files: those of its keys may be taken off.
    pub async fn make_ready_for(&self, files: &ServerFiles) -> Result<(), ClusterError> {
        if files.guard.encryption_provider_config.is_none() {
            self.files.guard.give_up_keys(self.sealing.as_deref(), &**self.gate.store()).await?;
        }
        Ok(())
    }

    /// Who has asked the API server for versions of kinds that clients should leave.
    pub fn deprecated_uses(&self) -> Vec<apiserver::DeprecatedUse> {
        self.server.deprecated_uses()
    }

    /// Opens the state, completes what every cluster has, and starts the deciders. `serve` then opens the door.
    pub async fn start(setup: Setup<'_>) -> Result<Self, ClusterError> {
        let pki = Arc::new(Pki::open(&setup.dir.join("pki"))?);
        let sealing = setup.files.guard.sealing().await?;
        let store = open_store(setup.place, setup.dir.join("store"), sealing.clone()).await?;
        let started = Self::start_on(setup, pki, store.clone(), sealing).await;
        if started.is_err() {
            // So that it can be opened again.
            store.close().await;
        }
        started
    }

    async fn start_on(
        setup: Setup<'_>,
        pki: Arc<Pki>,
        store: Arc<dyn Store>,
        sealing: Option<Arc<Sealing>>,
    ) -> Result<Self, ClusterError> {
        if setup.place.store.is_some() && is_of_another_authority(&store.snapshot(), &pki.ca_pem) {
            return Err(ClusterError::OtherAuthority { pki: setup.dir.join("pki") });
        }
        let (stop, stopped) = watch::channel(false);
        let mut tasks = Vec::new();
        let reloads = Arc::new(Reloads::default());
        let authorizers = Arc::new(authorizers(&setup, &reloads, &stopped, &mut tasks)?);
        let clock: gate::Clock = Arc::new(now);
        let services = setup.shape.services;
        let addresses = ServiceRange { network: services.address(), prefix: services.prefix() };
        let ranges = ServiceRanges { addresses, ..ServiceRanges::default() };
        let dial = dial::dialer(setup.dial_from.clone());
        let random = Arc::new(pki::fill_random_ahead);
        let admission = Arc::new(setup.files.guard.admission()?);
        let gate = Gate::new(store.clone(), authorizers.clone(), clock.clone(), random, ranges)
            .with_admission(admission)
            .of_version(setup.shape.minor);
        let gate = match &setup.account {
            Some(account) => gate
                .with_pod_identity(login::pod_identity(account.clone(), setup.name))
                .with_fargate(Arc::new(OnFargate::new(account.clone(), setup.name))),
            None => gate,
        };
        let gate = Arc::new(gate.with_webhooks(Arc::new(apiserver::Caller::new(dial.clone()))));
        bootstrap::reconcile(&gate, &pki, setup.shape.dns_ip())
            .await
            .map_err(|status| ClusterError::Bootstrap(Box::new(status)))?;

        let measures = Arc::new(Measures::new(measured_host(&setup)));
        // The embedded store has one server; an etcd may have any number.
        let identity = setup.place.store.as_ref().map(|_| Identity::take(setup.dir)).transpose()?;
        let server_id = deciders::own_id(identity.as_ref().map(|identity| &*identity.name));
        let counted = Counted { measures: measures.clone(), reloads: reloads.clone(), server_id };
        let tokens = Arc::new(token_authority(&pki, &setup.shape)?);
        let jwks = tokens.jwks();
        let server = Server::new(
            server_config(&pki, &setup, sealing.as_ref(), clock.clone(), counted)?,
            Deps {
                gate: gate.clone(),
                authorizers,
                login: setup.account.clone().map(|account| login::door(account, setup.name)),
                believed: believed(&setup, &reloads, &stopped, &mut tasks)?,
                token_webhook: setup.files.access.token_webhook()?,
                tokens: tokens.clone(),
                dial,
                kubelet_tls: Arc::new(kubelet_client(&pki)?),
                front_proxy: front_proxy(&pki)?,
            },
        )
        .map_err(|error| ClusterError::Keys(error.to_string()))?;
        let tls = Arc::new(serving_tls(&pki, &setup)?);
        let deciders = Deciders {
            gate: gate.clone(),
            pki: pki.clone(),
            clock,
            settings: Arc::new(settings(&setup, &pki, tokens)),
            measures,
        };
        tasks.extend(deciders.start(identity.as_ref().map(|identity| identity.name.clone()), &stopped));
        info!(cluster = setup.name, revision = store.snapshot().revision(), "the control plane runs");
        let (issuer, inside, shape) = (setup.shape.issuer.clone(), setup.inside, setup.shape);
        tasks.extend(setup.files.guard.follow_keys(
            sealing.as_ref(),
            store.clone(),
            reloads.encryption.clone(),
            stopped.clone(),
        ));
        let (tasks, public) = (Mutex::new(tasks), Mutex::default());
        Ok(Self {
            gate,
            pki,
            inside,
            shape,
            files: setup.files.clone(),
            sealing,
            jwks,
            issuer,
            server,
            tls,
            stop,
            tasks,
            public,
            doors: Mutex::default(),
            _identity: identity,
        })
    }

    /// Serves the API on a listener until `stop`.
    pub fn serve(&self, listener: StdListener) -> std::io::Result<AbortHandle> {
        listener.set_nonblocking(true)?;
        self.doors().keep(&listener)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let (server, tls) = (self.server.clone(), self.tls.clone());
        let task = tokio::spawn(async move {
            if let Err(failure) = server.serve(listener, Some(tls)).await {
                error!(%failure, "the API is no longer served");
            }
        });
        let handle = task.abort_handle();
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).push(task);
        Ok(handle)
    }

    /// Opens the public endpoint with what `listen` gives, or shuts it, unless it is so.
    pub fn set_public(
        &self,
        is_wanted: bool,
        listen: impl FnOnce() -> std::io::Result<StdListener>,
    ) -> std::io::Result<()> {
        let mut public = self.public.lock().unwrap_or_else(PoisonError::into_inner);
        if is_wanted && public.is_none() {
            let listener = listen()?;
            let address = listener.local_addr()?;
            *public = Some((self.serve(listener)?, address));
        } else if !is_wanted && let Some((open, address)) = public.take() {
            open.abort();
            self.doors().take(address);
        }
        Ok(())
    }

    fn doors(&self) -> MutexGuard<'_, Doors> {
        self.doors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A client certificate with every right.
    pub fn admin(&self) -> Result<Pair, PkiError> {
        self.pki.client(&Subject { common_name: "kubernetes-admin", organizations: &["system:masters"] })
    }

    /// Takes out a node whose machine is gone; its pods are collected as those of any node that was deleted.
    pub async fn remove_node(&self, name: &str) -> Result<(), ClusterError> {
        let key = Key::cluster(NODES, name);
        let write = Write::Delete { key, expect: Expect::default(), grace_seconds: None, propagation: None };
        match self.gate.execute(&event_user(), write).await {
            Err(status) if status.reason != Reason::NotFound => {
                Err(ClusterError::RemoveNode { node: name.to_owned(), status: Box::new(status) })
            }
            _ => Ok(()),
        }
    }

    /// Deletes the node of that name if it is this instance: another may have come to the name.
    pub async fn remove_node_of(&self, name: &str, instance: &str) -> Result<(), ClusterError> {
        let snapshot = self.gate.store().snapshot();
        match snapshot.find(NODES, "", name) {
            Some(node) if is_of_instance(node, instance) => self.remove_node(name).await,
            _ => Ok(()),
        }
    }

    /// A token with which a node joins within `seconds`: any, or the one of that name.
    pub async fn join_token(&self, seconds: i64, node: Option<&str>) -> Result<String, ClusterError> {
        let token = bootstrap::join_token(&self.gate, now().plus_secs(seconds), node).await;
        let token = token.map_err(|status| ClusterError::Bootstrap(Box::new(status)))?;
        let ca = ca_der(&self.pki)?;
        let digest = ring::digest::digest(&ring::digest::SHA256, &ca);
        let pin: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(format!("{token}.{pin}"))
    }

    /// Ends requests in order, then the deciders, then the store.
    pub async fn stop(&self) {
        drop(std::mem::take(&mut *self.doors()));
        self.end().await;
    }

    /// As [`stop`](Self::stop), with its doors left open for who serves the cluster next.
    pub async fn leave_open(&self) -> Doors {
        let doors = std::mem::take(&mut *self.doors());
        self.end().await;
        doors
    }

    async fn end(&self) {
        self.server.stop();
        self.stop.send_replace(true);
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        for task in tasks {
            if let Err(failure) = task.await
                && !failure.is_cancelled()
            {
                error!(%failure, "a part of the control plane ended badly");
            }
        }
        self.gate.store().close().await;
    }
}

async fn open_store(
    place: &Place,
    folder: PathBuf,
    sealing: Option<Arc<Sealing>>,
) -> Result<Arc<dyn Store>, ClusterError> {
    if let Some(etcd) = place.open(sealing.clone()).await? {
        return Ok(Arc::new(Measured::new(Arc::new(etcd))));
    }
    let opened = tokio::task::spawn_blocking(move || {
        Embedded::open(&folder, store::Options { sealing, ..store::Options::default() })
    })
    .await;
    let opened = opened.map_err(|panic| ClusterError::Keys(panic.to_string()))?;
    Ok(Arc::new(Measured::new(Arc::new(opened?))))
}

/// By its provider's id, `aws:///us-east-1a/i-0123456789abcdef0`.
fn is_of_instance(node: &Object, instance: &str) -> bool {
    #[derive(Deserialize)]
    struct View {
        spec: Spec,
    }
    #[derive(Deserialize)]
    struct Spec {
        #[serde(rename = "providerID")]
        provider_id: String,
    }
    let view: Option<View> = node.decode().ok();
    view.is_some_and(|node| node.spec.provider_id.split('/').any(|part| part == instance))
}

/// Whether the state says that clients are known by another authority than ours. Two that differ would each undo what the other writes.
fn is_of_another_authority(state: &Snapshot, ca_pem: &str) -> bool {
    #[derive(Deserialize)]
    struct View {
        #[serde(default)]
        data: BTreeMap<String, String>,
    }
    let known = state.find(CONFIG_MAPS, "kube-system", "extension-apiserver-authentication");
    let known = known.and_then(|known| known.decode::<View>().ok()?.data.remove("client-ca-file"));
    known.is_some_and(|known| known.trim() != ca_pem.trim())
}

/// Node and RBAC, with the access policies of the account beside it, or what a configuration file says instead.
fn authorizers(
    setup: &Setup,
    reloads: &Reloads,
    stop: &watch::Receiver<bool>,
    tasks: &mut Vec<JoinHandle<()>>,
) -> Result<Authorizers, ClusterError> {
    let mut all = Authorizers::new();
    if let Some(account) = &setup.account {
        all = all.with_access_policies(login::policies(account.clone(), setup.name));
    }
    if let Some(source) = followed(setup.files.access.authorization()?, &reloads.authorization, stop, tasks) {
        all = all.with_configuration(source, dial::from_host());
    }
    Ok(all)
}

/// The issuers of a configuration file, and the provider that is associated with the cluster in its account. The second is whoever its users
/// name: it is reached from inside the cluster's network, as everything that they name.
fn believed(
    setup: &Setup,
    reloads: &Reloads,
    stop: &watch::Receiver<bool>,
    tasks: &mut Vec<JoinHandle<()>>,
) -> Result<Vec<Believed>, ClusterError> {
    let file = followed(
        setup.files.access.authentication(&setup.shape.issuer)?,
        &reloads.authentication,
        stop,
        tasks,
    );
    let file = file.map(|source| Believed { source, dial: dial::from_host() });
    let provider = setup.account.as_ref().map(|account| Believed {
        source: login::provider(account.clone(), setup.name, &setup.shape.issuer),
        dial: dial::dialer(setup.dial_from.clone()),
    });
    Ok(file.into_iter().chain(provider).collect())
}

fn ca_der(pki: &Pki) -> Result<CertificateDer<'static>, ClusterError> {
    der(&pki.ca_pem)
}

fn der(pem: &str) -> Result<CertificateDer<'static>, ClusterError> {
    CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|error| ClusterError::Keys(error.to_string()))
}

fn token_authority(pki: &Pki, shape: &Shape) -> Result<Authority, ClusterError> {
    let random = ring::rand::SystemRandom::new();
    let signing = SigningKey::from_pkcs8(&pki.service_account_key, &random)
        .map_err(|error| ClusterError::Keys(error.to_string()))?;
    Ok(Authority {
        issuer: shape.issuer.as_str().into(),
        accepted_issuers: Vec::new(),
        audiences: vec![shape.issuer.as_str().into()],
        signing,
        verifying: Vec::new(),
    })
}

/// What is counted beside the API server.
struct Counted {
    measures: Arc<Measures>,
    reloads: Arc<Reloads>,
    server_id: String,
}

fn server_config(
    pki: &Pki,
    setup: &Setup,
    sealing: Option<&Arc<Sealing>>,
    clock: gate::Clock,
    counted: Counted,
) -> Result<apiserver::Config, ClusterError> {
    Ok(apiserver::Config {
        version: Version {
            major: "1".into(),
            minor: setup.shape.minor.to_string(),
            git: git_version(setup.shape.minor),
            commit: option_env!("EKSO_COMMIT").unwrap_or("unknown").into(),
            built: option_env!("EKSO_BUILT").unwrap_or("1970-01-01T00:00:00Z").into(),
            platform: format!("linux/{}", if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" }),
        },
        limits: Limits::default(),
        client_ca: ClientCa { certificates: vec![ca_der(pki)?.to_vec()] },
        cbor: setup.cbor,
        front_proxies: Some(FrontProxies {
            authorities: ClientCa { certificates: vec![der(&pki.front_proxy.ca_pem)?.to_vec()] },
            names: vec![FRONT_PROXY.to_owned()],
        }),
        jwks_uri: setup.shape.jwks_uri(),
        flags: flags(setup),
        checks: sealing.map(health_of_keys).into_iter().collect(),
        audit: setup.files.guard.audit(clock)?,
        components: Some(components(sealing, counted)),
    })
}

/// The metrics of controllers and scheduler, of files that were followed, and of the store's keys where it has any.
fn components(sealing: Option<&Arc<Sealing>>, counted: Counted) -> ComponentMetrics {
    let Counted { measures, reloads, server_id } = counted;
    let mut components = deciders::metrics(&measures);
    let deciders = components.all;
    components.all = Arc::new(move |page| {
        deciders(page);
        reloads.write(&server_id, page);
    });
    if let Some(sealing) = sealing.cloned() {
        let deciders = components.all;
        components.all = Arc::new(move |page| {
            deciders(page);
            sealing.write_metrics(page);
        });
    }
    components
}

/// What the control plane was started with, by upstream's names.
fn flags(setup: &Setup) -> BTreeMap<String, String> {
    let mut flags = setup.files.flags();
    let Shape { services, pods, issuer, .. } = &setup.shape;
    flags.extend([
        ("cluster-cidr".to_owned(), pods.to_string()),
        ("feature-gates".to_owned(), format!("CBORServingAndStorage={}", setup.cbor)),
        ("service-account-issuer".to_owned(), issuer.clone()),
        ("service-cluster-ip-range".to_owned(), services.to_string()),
    ]);
    flags
}

/// Where the writes of controllers and scheduler go, as their metrics tell it.
fn measured_host(setup: &Setup) -> String {
    let service = SocketAddr::new(setup.shape.kubernetes_ip().into(), 443);
    setup.inside.first().copied().unwrap_or(service).to_string()
}

/// Upstream's name for it.
fn health_of_keys(sealing: &Arc<Sealing>) -> apiserver::HealthCheck {
    let sealing = sealing.clone();
    ("kms-providers", Arc::new(move || sealing.trouble().map_or(Ok(()), Err)))
}

/// How this server shows itself to kubelets.
fn kubelet_client(pki: &Pki) -> Result<rustls::ClientConfig, ClusterError> {
    let subject =
        Subject { common_name: "kube-apiserver-kubelet-client", organizations: &["system:masters"] };
    let (chain, key) = parsed(&pki.client(&subject)?)?;
    let config = apiserver::client_config(vec![ca_der(pki)?], chain, key);
    config.map_err(|error| ClusterError::Keys(error.to_string()))
}

/// How this server shows itself to extension servers.
fn front_proxy(pki: &Pki) -> Result<apiserver::FrontProxy, ClusterError> {
    let subject = Subject { common_name: FRONT_PROXY, organizations: &[] };
    let (chain, key) = parsed(&pki.front_proxy.client(&subject)?)?;
    Ok(apiserver::FrontProxy { chain, key })
}

fn parsed(pair: &Pair) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), ClusterError> {
    let keys = |error: rustls::pki_types::pem::Error| ClusterError::Keys(error.to_string());
    let leaf = CertificateDer::from_pem_slice(pair.certificate.as_bytes()).map_err(keys)?;
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).map_err(keys)?;
    Ok((vec![leaf], key))
}

fn serving_tls(pki: &Pki, setup: &Setup) -> Result<rustls::ServerConfig, ClusterError> {
    let service = format!("kubernetes.default.svc.{CLUSTER_DOMAIN}");
    let mut names =
        vec!["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", service.as_str()];
    let mut addresses: Vec<IpAddr> = vec![Ipv4Addr::LOCALHOST.into(), setup.shape.kubernetes_ip().into()];
    addresses.extend(setup.inside.iter().map(SocketAddr::ip));
    for name in &setup.names {
        match name.parse() {
            Ok(address) => addresses.push(address),
            Err(_) => names.push(name),
        }
    }
    let pair =
        pki.server(&Subject { common_name: "kube-apiserver", organizations: &[] }, &names, &addresses)?;
    let (mut chain, key) = parsed(&pair)?;
    // The authority goes along: a joining node knows its digest only.
    chain.push(ca_der(pki)?);
    apiserver::server_config(chain, key).map_err(|error| ClusterError::Keys(error.to_string()))
}

/// Signs with a cluster's key.
#[derive(Debug)]
struct Signer(Arc<Authority>);

impl Tokens for Signer {
    fn of_secret(&self, account: &Object, secret: &Object) -> Option<String> {
        let signed = self.0.token_of_secret(account, secret, &ring::rand::SystemRandom::new());
        signed.inspect_err(|error| warn!(secret = %secret.key, %error, "a token cannot be signed")).ok()
    }
}

fn settings(setup: &Setup, pki: &Pki, tokens: Arc<Authority>) -> Settings {
    Settings {
        cluster_name: setup.name.to_owned(),
        cluster_domain: CLUSTER_DOMAIN.into(),
        pod_cidr: setup.shape.pods.to_string(),
        service_cidr: setup.shape.services.to_string(),
        cluster_dns_ip: setup.shape.dns_ip().into(),
        ca_pem: format!("{}{}", pki.ca_pem, setup.more_roots),
        kubernetes_service_ip: setup.shape.kubernetes_ip().into(),
        // An address that only this host has is of no use to pods.
        api_server_addresses: setup
            .inside
            .iter()
            .map(SocketAddr::ip)
            .filter(|ip| !ip.is_loopback())
            .collect(),
        api_server_port: setup.inside.first().map_or(API_PORT, SocketAddr::port),
        tokens: Some(Arc::new(Signer(tokens))),
        ..Settings::default()
    }
}

#[cfg(test)]
mod tests {
    use object::{Draft, body};
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_node_is_the_instances_that_its_provider_names() {
        for (spec, is_its) in [
            (json!({"providerID": "aws:///us-east-1a/i-1"}), true),
            (json!({"providerID": "aws:///us-east-1a/i-2"}), false),
            (json!({"providerID": "aws:///us-east-1a/xi-1"}), false),
            (json!({"providerID": ""}), false),
            (json!({}), false),
            (Value::Null, false),
        ] {
            let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}, "spec": spec});
            let draft = Draft::read(Key::cluster(NODES, "n"), Box::default(), body::encode(&node));
            assert_eq!(is_of_instance(&draft.expect("a node").at(1), "i-1"), is_its, "{spec}");
        }
    }
}
