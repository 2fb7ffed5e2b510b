//! What every request sees.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use access::service_account::Authority;
use gate::Gate;
use object::{Object, Reason, Snapshot, Status, Time};
use plan::User;
use schema::Kind;
use store::Store;
use tokio::sync::watch;

use crate::authenticate::Impersonations;
use crate::authenticate::oidc::Providers;
use crate::authenticate::verified::Verified;
use crate::authenticate::webhook::Reviewer;
use crate::fairness::Seats;
use crate::health::Outcomes;
use crate::held::Held;
use crate::https::Distrust;
use crate::metrics::deprecated::DeprecatedUses;
use crate::metrics::{Access, Reads, Requests};
use crate::past::Past;
use crate::published::Published;
use crate::shared_events::SharedEvents;
use crate::{Authorizers, Config, Deps, Dial, Login, aggregate, tls};

/// One of a server, for all its connections.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) gate: Arc<Gate>,
    pub(crate) authorizers: Arc<Authorizers>,
    pub(crate) tokens: Arc<Authority>,
    pub(crate) login: Option<Login>,
    pub(crate) providers: Vec<Providers>,
    pub(crate) token_webhook: Option<Reviewer>,
    pub(crate) dial: Dial,
    pub(crate) kubelet_tls: Arc<rustls::ClientConfig>,
    pub(crate) unverified_tls: Arc<rustls::ClientConfig>,
    pub(crate) front_proxy: aggregate::FrontProxy,
    /// What extension servers serve.
    pub(crate) remotes: aggregate::Remotes,
    pub(crate) verified: Verified,
    pub(crate) held: Held,
    pub(crate) past: Past,
    pub(crate) requests: Requests,
    pub(crate) reads: Reads,
    pub(crate) access: Access,
    pub(crate) impersonations: Impersonations,
    /// Why certificates of extension servers were refused.
    pub(crate) distrust: Distrust,
    /// How often extension servers were found to be out of reach, by the APIService and why.
    pub(crate) unavailable: ::metrics::Family<[Box<str>; 2], ::metrics::Counter>,
    pub(crate) deprecated: DeprecatedUses,
    pub(crate) outcomes: Outcomes,
    pub(crate) documents: Published,
    /// Events of watches.
    pub(crate) events: SharedEvents,
    pub(crate) seats: Seats,
    /// Counts requests, for audit ids and for spreading the ends of watches.
    serial: AtomicU64,
    stop: watch::Sender<bool>,
}

/// The other end of a connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct Peer {
    /// As TLS gave them, DER, leaf first.
    pub(crate) certificates: Arc<[Vec<u8>]>,
    /// Where it is.
    pub(crate) address: Option<IpAddr>,
    /// Whose they are: found out once and looked at again after a while.
    pub(crate) known: Arc<Mutex<Option<Known>>>,
}

/// Whose certificate a connection shows.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) since: Instant,
    pub(crate) user: User,
    /// When the certificate is no longer good.
    pub(crate) expires: Option<Time>,
}

impl Shared {
    /// # Errors
    /// When TLS cannot be set up.
    pub(crate) fn new(config: Config, deps: Deps) -> Result<Self, rustls::Error> {
        let limits = config.limits;
        let in_flight = limits.reads_in_flight + limits.writes_in_flight;
        let seats = Seats::new(in_flight, &deps.gate.store().snapshot());
        Ok(Self {
            config,
            gate: deps.gate,
            authorizers: deps.authorizers,
            tokens: deps.tokens,
            login: deps.login,
            providers: deps.believed.into_iter().map(Providers::new).collect(),
            token_webhook: deps.token_webhook.map(Reviewer::new),
            dial: deps.dial,
            kubelet_tls: deps.kubelet_tls,
            unverified_tls: Arc::new(tls::unverified_config()?),
            front_proxy: deps.front_proxy,
            remotes: aggregate::Remotes::default(),
            verified: Verified::default(),
            held: Held::default(),
            past: Past::default(),
            requests: Requests::default(),
            reads: Reads::default(),
            access: Access::default(),
            impersonations: Impersonations::default(),
            distrust: Distrust::default(),
            unavailable: ::metrics::Family::default(),
            deprecated: DeprecatedUses::default(),
            outcomes: Outcomes::default(),
            documents: Published::default(),
            events: SharedEvents::default(),
            seats,
            serial: AtomicU64::new(1),
            stop: watch::Sender::new(false),
        })
    }

    pub(crate) fn store(&self) -> &Arc<dyn Store> {
        self.gate.store()
    }

    /// A state at least as new as everything acknowledged so far.
    pub(crate) async fn newest(&self) -> Result<Snapshot, Status> {
        self.store().read().await.map_err(|error| Status::new(Reason::ServiceUnavailable, error.to_string()))
    }

    /// One stored object as a reader of the row's version gets it.
    pub(crate) async fn in_version(&self, kind: &Kind, object: &Arc<Object>) -> Result<Arc<Object>, Status> {
        let converted = self.gate.in_version(kind, vec![object.clone()]).await?;
        Ok(converted.into_iter().next().unwrap_or_else(|| object.clone()))
    }

    pub(crate) fn serial(&self) -> u64 {
        self.serial.fetch_add(1, Ordering::Relaxed)
    }

    /// Some part of a duration, another one each time: so that what began together does not end together.
    pub(crate) fn fraction(&self, of: Duration) -> Duration {
        let step = self.serial().wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 44;
        of.mul_f64(step as f64 / f64::from(1 << 20))
    }

    /// Ends every watch, and whatever else waits for [`stopping`](Self::stopping).
    pub(crate) fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Returns when the server is told to stop.
    pub(crate) async fn stopping(&self) {
        let mut stop = self.stop.subscribe();
        // The sender lives as long as self.
        let _ = stop.wait_for(|stop| *stop).await;
    }

    pub(crate) fn is_stopping(&self) -> bool {
        *self.stop.borrow()
    }
}
