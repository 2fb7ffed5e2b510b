use std::fmt::Debug;
use std::net::IpAddr;
use std::sync::Arc;

use object::Object;

/// What controllers must know about the cluster as a whole.
#[derive(Clone, Debug)]
pub struct Settings {
    pub cluster_name: String,
    /// `cluster.local`
    pub cluster_domain: String,
    /// Pods get their addresses from here, a block per node: `10.244.0.0/16`.
    pub pod_cidr: String,
    /// How many bits of a node's block are fixed: 24.
    pub node_cidr_mask: u8,
    /// `10.100.0.0/16`
    pub service_cidr: String,
    pub cluster_dns_ip: IpAddr,
    /// PEM of the authority behind the API server's certificate; goes into every namespace as `kube-root-ca.crt`.
    pub ca_pem: String,
    /// The ClusterIP of the Service `kubernetes`: the first address of the service CIDR.
    pub kubernetes_service_ip: IpAddr,
    /// Where pods reach the API servers, sorted; empty until known.
    pub api_server_addresses: Vec<IpAddr>,
    pub api_server_port: u16,
    /// A node is Unknown when it was not heard of for so long; upstream's `--node-monitor-grace-period`.
    pub node_monitor_grace_secs: i64,
    /// The same for a node that never reported; `--node-startup-grace-period`.
    pub node_startup_grace_secs: i64,
    /// Failed and succeeded pods beyond this number are deleted, oldest first; `--terminated-pod-gc-threshold`.
    pub terminated_pod_threshold: usize,
    /// Events are deleted after so long; `--event-ttl`.
    pub event_ttl_secs: i64,
    /// None: Secrets for tokens get none.
    pub tokens: Option<Arc<dyn Tokens>>,
}

/// Who signs what stands in a Secret for the token of an account.
pub trait Tokens: Debug + Send + Sync {
    /// None: it cannot be signed.
    fn of_secret(&self, account: &Object, secret: &Object) -> Option<String>;
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            cluster_name: "kubernetes".into(),
            cluster_domain: "cluster.local".into(),
            pod_cidr: "10.244.0.0/16".into(),
            node_cidr_mask: 24,
            service_cidr: "10.100.0.0/16".into(),
            cluster_dns_ip: IpAddr::from([10, 100, 0, 10]),
            ca_pem: String::new(),
            kubernetes_service_ip: IpAddr::from([10, 100, 0, 1]),
            api_server_addresses: Vec::new(),
            api_server_port: 443,
            node_monitor_grace_secs: 50,
            node_startup_grace_secs: 60,
            terminated_pod_threshold: 12_500,
            event_ttl_secs: 3_600,
            tokens: None,
        }
    }
}
