//! What a server is made from.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use access::ClientCa;
use access::service_account::Authority;
use gate::Gate;
use object::Snapshot;
use plan::User;

use crate::{Authorizers, Believed, Dial, TokenWebhook};

/// `/version`, as `version.Info`.
#[derive(Clone, Debug)]
pub struct Version {
    pub major: String,
    pub minor: String,
    /// `v1.36.2+ekso`
    pub git: String,
    pub commit: String,
    pub built: String,
    pub platform: String,
}

impl Version {
    /// The minor version of the oldest clients and servers that it works with, as upstream has it.
    pub(crate) fn least_compatible(&self) -> String {
        self.minor
            .parse::<u32>()
            .map_or_else(|_| self.minor.clone(), |minor| minor.saturating_sub(1).to_string())
    }
}

/// How much a server takes on.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub body_bytes: usize,
    /// Seats for requests that only read, and that write, as upstream's two flags have it; fairness divides their sum.
    pub reads_in_flight: usize,
    pub writes_in_flight: usize,
    pub connections: usize,
    /// How long the head of a request and a TLS handshake may take.
    pub head_timeout: Duration,
    /// How long a request may take that is no watch and no stream.
    pub request_timeout: Duration,
    /// How long a client may leave what was sent to it unread before its connection is cut.
    pub unread_timeout: Duration,
    /// How long a continue token holds its snapshot.
    pub token_lifetime: Duration,
    /// How many snapshots continue tokens may hold.
    pub held_snapshots: usize,
    /// How often a watch is told how far it has come.
    pub bookmark_every: Duration,
    /// Answers above this size are compressed for those who can read it.
    pub compress_above_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 3 * 1024 * 1024,
            reads_in_flight: 400,
            writes_in_flight: 200,
            connections: 10_000,
            head_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(60),
            unread_timeout: Duration::from_secs(60),
            token_lifetime: Duration::from_secs(300),
            held_snapshots: 256,
            bookmark_every: Duration::from_secs(60),
            compress_above_bytes: 128 * 1024,
        }
    }
}

/// What is known before a server starts.
pub struct Config {
    pub version: Version,
    pub limits: Limits,
    /// Whose client certificates are believed.
    pub client_ca: ClientCa,
    /// CBOR is read and written too (KEP-4222): upstream's feature gate `CBORServingAndStorage`, which is off by default.
    pub cbor: bool,
    /// Who may tell of others in `X-Remote-User` and its like.
    pub front_proxies: Option<FrontProxies>,
    /// Where clients find `/openid/v1/jwks`: `https://…/openid/v1/jwks`.
    pub jwks_uri: String,
    /// What the server was started with, by upstream's names of the flags, for `/flagz`. Nothing in it may be secret.
    pub flags: BTreeMap<String, String>,
    /// Health checks besides the server's own.
    pub checks: Vec<crate::HealthCheck>,
    /// What is written down of requests; none: nothing.
    pub audit: Option<Arc<crate::Audit>>,
    /// The metrics of controllers and scheduler, where they run in this process.
    pub components: Option<crate::ComponentMetrics>,
}

/// The proxies in front of a server that are believed whom they tell of.
pub struct FrontProxies {
    pub authorities: ClientCa,
    /// The common names of their certificates.
    pub names: Vec<String>,
}

/// Looks at a bearer token with which somebody from outside of the cluster logs in (an IAM principal), beside a snapshot of the cluster.
/// None: it is no token of that kind, and the cluster's own authenticators are asked. A refusal says why, for the log.
pub type Login = Arc<dyn Fn(&Snapshot, &str) -> Option<Result<User, String>> + Send + Sync>;

/// What a server works with.
pub struct Deps {
    pub gate: Arc<Gate>,
    /// The same that the gate asks.
    pub authorizers: Arc<Authorizers>,
    /// Issues and verifies service account tokens.
    pub tokens: Arc<Authority>,
    /// Logins that are not the cluster's own; see [`Login`].
    pub login: Option<Login>,
    /// Who else is believed. The first says which requests may come without credentials.
    pub believed: Vec<Believed>,
    /// Where tokens are asked about that nobody here knows.
    pub token_webhook: Option<TokenWebhook>,
    /// Connects to nodes, pods and services from inside the cluster's network.
    pub dial: Dial,
    /// How kubelets are spoken to: see [`client_config`](crate::client_config).
    pub kubelet_tls: Arc<rustls::ClientConfig>,
    /// How this server shows itself to extension API servers.
    pub front_proxy: crate::FrontProxy,
}
