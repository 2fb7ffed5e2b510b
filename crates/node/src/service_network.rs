//! Services, routes and names on this node: keeps rules and routes as the cluster's objects say, and answers DNS.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, PoisonError, RwLock};

use datapath::Proxy;
use datapath::dns::{Server, Upstreams};
use kinds::PODS;
use kubelet::Heartbeat;
use network::dns::{Zone, answer};
use network::{Index, NodeNetwork};
use plan::net::Cidr;
use tokio::sync::{mpsc, watch};
use tracing::warn;

use crate::mirror::{Change, Mirror, Source};
use crate::ops::{Tools, blocking};
use crate::task::Task;

const DNS_PORT: u16 = 53;
/// The node's own table; it lives in the node's network namespace, or beside others on a host that is a node itself.
const TABLE: &str = "ekso-proxy";

pub struct ServiceNetwork {
    pub tools: Arc<Tools>,
    pub mirror: Arc<Mirror>,
    pub changes: mpsc::UnboundedReceiver<Change>,
    /// What must be known before rules are made of it.
    pub sources: BTreeSet<Source>,
    pub health: watch::Sender<Heartbeat>,
    pub node: String,
    pub cluster_dns: IpAddr,
    pub cluster_domain: String,
    pub cluster_cidrs: Vec<Cidr>,
    pub resolvers: Vec<SocketAddr>,
}

impl ServiceNetwork {
    /// Runs until the mirror ends.
    pub async fn run(mut self) {
        let index = Arc::new(RwLock::new(Index::default()));
        let _dns = self.serve_dns(index.clone()).await;
        let mut proxy = Proxy::new(TABLE);
        let mut applied: Option<NodeNetwork> = None;
        while let Some(change) = self.changes.recv().await {
            let mut is_new = self.take(&index, change);
            while let Ok(change) = self.changes.try_recv() {
                is_new |= self.take(&index, change);
            }
            if !self.sources.is_empty() {
                continue;
            }
            let place =
                NodeNetwork::of(&self.mirror.snapshot(), &self.node, &self.cluster_cidrs, &self.local_ips());
            if is_new || applied.as_ref() != Some(&place) {
                proxy = self.apply(&index, &place, proxy).await;
                applied = Some(place);
            }
        }
    }

    /// Whether rules or routes may differ now. Of pods only the host ports matter, which stand in the node's place.
    fn take(&mut self, index: &RwLock<Index>, change: Change) -> bool {
        match change {
            Change::Synced(source) => self.sources.remove(&source),
            Change::Object(event) => {
                index.write().unwrap_or_else(PoisonError::into_inner).apply(&event);
                event.key().resource != PODS
            }
        }
    }

    async fn apply(&self, index: &RwLock<Index>, place: &NodeNetwork, mut proxy: Proxy) -> Proxy {
        if let Some(cidr) = place.pod_cidrs.first() {
            self.tools.network.set_cidr(*cidr);
            self.health.send_if_modified(|health| !std::mem::replace(&mut health.network_is_up, true));
        }
        let ruleset = network::ruleset(&index.read().unwrap_or_else(PoisonError::into_inner), place);
        let routes = network::routes(&self.mirror.snapshot(), &self.node);
        let applied = blocking(move || -> Result<_, String> {
            let rules = proxy.apply(&ruleset).map_err(|error| error.to_string());
            let routes = datapath::node::set_routes(&routes).map_err(|error| error.to_string());
            Ok((proxy, rules.and(routes)))
        });
        match applied.await {
            Ok((proxy, result)) => {
                if let Err(error) = result {
                    warn!(error, "the node's rules or routes could not be set; the next change tries again");
                }
                proxy
            }
            Err(error) => {
                warn!(error, "the node's rules could not be set");
                Proxy::new(TABLE)
            }
        }
    }

    fn local_ips(&self) -> Vec<Ipv4Addr> {
        match self.cluster_dns {
            IpAddr::V4(ip) => vec![ip],
            IpAddr::V6(_) => Vec::new(),
        }
    }

    async fn serve_dns(&self, index: Arc<RwLock<Index>>) -> Option<Task> {
        let server = match Server::bind(&[SocketAddr::new(self.cluster_dns, DNS_PORT)]).await {
            Ok(server) => server,
            Err(error) => {
                warn!(%error, "the cluster's names are not served on this node");
                return None;
            }
        };
        let (domain, own, mirror) =
            (self.cluster_domain.clone(), self.local_ips().first().copied()?, self.mirror.clone());
        let answers = Arc::new(move |question: &network::dns::wire::Question| {
            let serial = u32::try_from(mirror.snapshot().revision() & 0x7fff_ffff).unwrap_or(0);
            let zone = Zone { domain: domain.clone(), server: own, serial };
            answer(&index.read().unwrap_or_else(PoisonError::into_inner), &zone, question)
        });
        let upstreams = Upstreams::new(self.resolvers.clone());
        Some(Task::spawn(server.run(answers, upstreams, std::future::pending())))
    }
}
