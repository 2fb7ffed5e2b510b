//! The loop of one node: fills a snapshot from watches, asks kubelet and network, hands their ops to runtime and datapath, reports status.

mod api;
mod certificate;
mod clock;
mod disk;
mod facts;
mod grpc_health;
mod handlers;
mod image_gc;
mod join;
mod logs;
mod mirror;
mod network;
mod ops;
mod patience;
mod pods;
mod probes;
mod references;
mod registration;
mod reports;
mod server;
mod service_network;
mod subpath;
mod task;
mod volumes;
mod worker;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use kubelet::Heartbeat;
use object::Resource;
use plan::net::Cidr;
use runtime::Runtime;
use runtime::image::{Puller, Registries, Store};
use tokio::sync::{mpsc, watch};
use tracing::info;

pub use facts::own_address;
pub use join::JoinError;
pub use server::websocket;

use api::Api;
use handlers::Handlers;
use mirror::{Listeners, Mirror, Source};
use network::PodNetwork;
use ops::Tools;
use pods::{Inputs, Kubelet, Outputs};
use reports::Reports;
use service_network::ServiceNetwork;
use task::Task;

/// A node, as it was asked for.
#[derive(Clone, Debug)]
pub struct Config {
    pub name: String,
    /// `https://172.31.0.2:6443`
    pub server: String,
    pub token: Option<String>,
    pub ip: IpAddr,
    pub external_ip: Option<IpAddr>,
    /// What the node shows; the host's own without.
    pub cpu_milli: Option<u64>,
    pub memory_bytes: Option<u64>,
    pub max_pods: u32,
    /// The UID of the only pod that may run here; any may without.
    pub only_pod: Option<String>,
    /// What stays: containers, volumes, the node's keys.
    pub root_dir: PathBuf,
    /// What lives no longer than the machine runs.
    pub run_dir: PathBuf,
    pub image_dir: PathBuf,
    pub logs_dir: PathBuf,
    /// Below which all groups of pods are.
    pub cgroup_root: String,
    pub cluster_dns: IpAddr,
    pub cluster_domain: String,
    /// Of the node's pods, if the machine brings them along; otherwise the cluster gives the node a block.
    pub pod_cidr: Option<Cidr>,
    /// Which pods reach under their own addresses: those of all pods.
    pub cluster_cidrs: Vec<Cidr>,
    pub kubelet_port: u16,
    pub labels: BTreeMap<String, String>,
    pub provider_id: String,
    /// As a Node's `spec.taints` has them; what it registers with.
    pub taints: Vec<serde_json::Value>,
    /// `v1.36.0-ekso.0.1.0`
    pub version: String,
    pub registries: Registries,
}

#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    #[error(transparent)]
    Join(#[from] JoinError),
    #[error(transparent)]
    Api(#[from] api::ApiError),
    #[error(transparent)]
    Runtime(#[from] runtime::RuntimeError),
    #[error("open the image store: {0}")]
    Images(#[from] runtime::image::StoreError),
    #[error("registries: {0}")]
    Registries(String),
    #[error("prepare the node's network: {0}")]
    Network(#[from] datapath::Error),
    #[error(transparent)]
    File(#[from] files::FileError),
}

/// Joins the cluster and runs the node until the future is dropped. Pods go on running.
pub async fn run(config: Config) -> Result<(), NodeError> {
    make_folders(&config)?;
    datapath::node::prepare(&local_ips(&config))?;
    let pki = config.root_dir.join("pki");
    let identity = join::identity(&pki, &config.server, config.token.as_deref(), &config.name).await?;
    let api = Arc::new(Api::new(&config.server, identity.client.clone(), None)?);
    let runtime = containers(&config)?;
    // Heard from before the first look at what runs.
    let runtime_events = runtime.events();
    runtime.recover().await?;

    let (pod_changes, changes) = mpsc::unbounded_channel();
    let (network_changes, network_changed) = mpsc::unbounded_channel();
    let (probe_outcomes, probed) = mpsc::unbounded_channel();
    let (done, finished) = mpsc::unbounded_channel();
    let mirror = Mirror::new(api.clone(), Listeners { pods: pod_changes, network: network_changes });
    let (reports, reports_task) = Reports::start(api.clone(), &config.name);
    let tools = Arc::new(tools(&config, api, mirror.clone(), runtime, reports)?);
    let pods = Source {
        resource: kinds::PODS,
        path: "/api/v1/pods".into(),
        field_selector: format!("spec.nodeName={}", config.name),
        user: None,
    };
    let network_sources = network_sources();
    // Dropped with this future, and ends with it.
    let mut tasks: Vec<Task> = network_sources.iter().map(|source| mirror.follow(source.clone())).collect();
    tasks.extend([mirror.follow(pods.clone()), reports_task]);
    let health = keep_registered(&config, &tools, identity, &mut tasks);
    tasks.push(Task::spawn(image_gc::run(tools.clone())));
    let service_network = ServiceNetwork {
        tools: tools.clone(),
        mirror,
        changes: network_changed,
        sources: network_sources,
        health,
        node: config.name.clone(),
        cluster_dns: config.cluster_dns,
        cluster_domain: config.cluster_domain.clone(),
        cluster_cidrs: config.cluster_cidrs.clone(),
        resolvers: resolvers(&tools.facts),
    };
    tasks.push(Task::spawn(service_network.run()));
    info!(node = config.name, server = config.server, "the node runs");
    let kubelet = Kubelet::new(tools, Outputs { probe_outcomes, done }, pods);
    kubelet.run(Inputs { changes, runtime_events, probe_outcomes: probed, done: finished }).await;
    Ok(())
}

fn make_folders(config: &Config) -> Result<(), files::FileError> {
    for dir in [&config.root_dir, &config.run_dir, &config.logs_dir, &config.root_dir.join("kubelet")] {
        std::fs::create_dir_all(dir).map_err(|error| files::FileError::new("make the folder", dir, error))?;
    }
    Ok(())
}

fn local_ips(config: &Config) -> Vec<std::net::Ipv4Addr> {
    match config.cluster_dns {
        IpAddr::V4(ip) => vec![ip],
        IpAddr::V6(_) => Vec::new(),
    }
}

fn containers(config: &Config) -> Result<Runtime, runtime::RuntimeError> {
    Runtime::new(runtime::Options::new(
        config.root_dir.join("runtime"),
        config.run_dir.join("runtime"),
        config.cgroup_root.clone(),
    ))
}

/// What the node's parts work with; of the runtime's containers everything is known.
fn tools(
    config: &Config,
    api: Arc<Api>,
    mirror: Arc<Mirror>,
    runtime: Runtime,
    reports: Reports,
) -> Result<Tools, NodeError> {
    let images = Store::open(&config.image_dir)?;
    let puller = Puller::new(images.clone(), config.registries.clone());
    let puller = puller.map_err(|error| NodeError::Registries(error.to_string()))?;
    let network = PodNetwork::default();
    network.adopt(&runtime.list().sandboxes);
    Ok(Tools {
        api,
        mirror,
        handlers: Handlers::new(runtime.clone()),
        runtime,
        images,
        puller,
        platform: runtime::image::Platform::host(),
        network,
        facts: Arc::new(facts::gather(config)),
        reports,
        services: services(),
    })
}

/// Keeps the Node's objects up, and once it is there the node's server. What is told of the node's health goes where this returns.
fn keep_registered(
    config: &Config,
    tools: &Arc<Tools>,
    identity: join::Identity,
    tasks: &mut Vec<Task>,
) -> watch::Sender<Heartbeat> {
    let (health, is_healthy) = watch::channel(Heartbeat { runtime_is_up: true, ..Heartbeat::default() });
    let (registered, is_registered) = watch::channel(false);
    let (api, facts, mirror) = (tools.api.clone(), tools.facts.clone(), tools.mirror.clone());
    tasks.push(Task::spawn(registration::keep(api, facts, mirror, is_healthy, registered)));
    let addresses = [Some(config.ip), config.external_ip].into_iter().flatten().collect();
    let place = server::Place { listen: (config.ip, config.kubelet_port).into(), addresses };
    tasks.push(Task::spawn(server::run(tools.clone(), identity, place, is_registered)));
    health
}

/// Whom the cluster's name server asks for names that are not the cluster's.
fn resolvers(facts: &kubelet::NodeFacts) -> Vec<std::net::SocketAddr> {
    let servers = facts.resolver.servers.iter();
    servers.filter_map(|server| Some((server.parse::<IpAddr>().ok()?, 53).into())).collect()
}

/// The service accounts of what lives in a node's process beside the kubelet: the service proxy and the name server. Elsewhere these are
/// pods, and it is they who may know of all nodes and endpoints; a kubelet may not. The node asks for their part as them.
const KUBE_PROXY: &str = "system:serviceaccount:kube-system:kube-proxy";
const COREDNS: &str = "system:serviceaccount:kube-system:coredns";

fn services() -> Source {
    all("services", "/api/v1/services", None)
}

/// What the service proxy and the name server follow.
fn network_sources() -> BTreeSet<Source> {
    [
        services(),
        all("endpointslices.discovery.k8s.io", "/apis/discovery.k8s.io/v1/endpointslices", Some(KUBE_PROXY)),
        all("namespaces", "/api/v1/namespaces", Some(COREDNS)),
        all("nodes", "/api/v1/nodes", Some(KUBE_PROXY)),
    ]
    .into()
}

fn all(resource: &'static str, path: &str, user: Option<&'static str>) -> Source {
    Source { resource: Resource::new(resource), path: path.into(), field_selector: String::new(), user }
}
