//! The machines of a cluster: made, started, waited for, stopped, removed.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use files::FileError;
use kinds::NODES;
use machines::{Bind, Limits, Machine, MachineSpec};
use object::{Object, Snapshot};
use runtime::image::Store;
use serde::Deserialize;

use crate::census;
use crate::cluster::{Cluster, ClusterError};
use crate::dial::{self, Inside};
use crate::join::KUBELET_PORT;
use crate::network::{self, Placed};
use crate::site::{ClusterSpec, Site};

/// A token outlives the start of its machine, and not much more.
pub const TOKEN_SECONDS: i64 = 3_600;
const READY_PATIENCE: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(10);

#[derive(Debug, thiserror::Error)]
pub enum NodesError {
    #[error(transparent)]
    Machines(#[from] machines::Error),
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Cluster(#[from] Box<ClusterError>),
    #[error("open the image store: {0}")]
    Images(#[from] runtime::image::StoreError),
    #[error("{nodes} not Ready after {READY_PATIENCE:?}; their logs: {logs}")]
    NotReady { nodes: String, logs: String },
    #[error("a worker ended: {0}")]
    Worker(#[from] tokio::task::JoinError),
}

/// The nodes that a cluster should have.
pub struct Wanted<'a> {
    pub site: &'a Site,
    pub machines: &'a machines::Site,
    pub spec: &'a ClusterSpec,
    /// The API, inside the VPC.
    pub server: SocketAddr,
}

/// The name of a cluster's machine, which is its node's as well.
fn machine_name(cluster: &str, number: u16) -> String {
    format!("{cluster}-{number}")
}

/// The machines of a cluster, by the numbers in their names.
fn machines_of(machines: &machines::Site, cluster: &str) -> Result<Vec<(u16, Machine)>, NodesError> {
    let number = |machine: &Machine| -> Option<u16> {
        machine.name().strip_prefix(cluster)?.strip_prefix('-')?.parse().ok()
    };
    let mut all: Vec<_> =
        machines.machines()?.into_iter().filter_map(|machine| Some((number(&machine)?, machine))).collect();
    all.sort_by_key(|(number, _)| *number);
    Ok(all)
}

/// Those, and the machines of its node groups' instances, each of which has a folder to join with.
fn all_machines_of(
    site: &Site,
    machines: &machines::Site,
    cluster: &str,
) -> Result<Vec<Machine>, NodesError> {
    let mut all: Vec<Machine> =
        machines_of(machines, cluster)?.into_iter().map(|(_, machine)| machine).collect();
    for machine in machines.machines()? {
        let is_listed = all.iter().any(|known| known.name() == machine.name());
        if !is_listed && join_dir(site, cluster, machine.name()).exists() {
            all.push(machine);
        }
    }
    Ok(all)
}

/// Starts the machines that should run, removes those that should not be, and waits until all nodes are Ready.
pub async fn bring(wanted: &Wanted<'_>, cluster: &Cluster) -> Result<(), NodesError> {
    for (number, machine) in machines_of(wanted.machines, &wanted.spec.name)? {
        if number > wanted.spec.nodes {
            let name = machine.name().to_owned();
            remove(wanted.site, wanted.machines, &wanted.spec.name, machine).await?;
            cluster.remove_node(&name).await.map_err(Box::new)?;
        }
    }
    let mut starts = Vec::new();
    for number in 1..=wanted.spec.nodes {
        let name = machine_name(&wanted.spec.name, number);
        let machine = wanted.machines.machine(&name)?;
        if machine.running().is_some() {
            machine.nudge()?;
            continue;
        }
        let node = Node { name: name.clone(), options: Vec::new() };
        let spec = machine_spec(wanted, cluster, &name, None, |_| node).await?;
        starts.push(tokio::task::spawn_blocking(move || machine.start(&spec)));
    }
    for start in starts {
        start.await??;
    }
    wait_until_ready(wanted, cluster).await
}

/// What a machine's node is called, and what else it is told.
pub struct Node {
    pub name: String,
    /// Options of `ekso node`.
    pub options: Vec<String>,
}

/// Starts the machine of a node group's instance, unless it runs. `node` says what its node is, once its addresses are known.
pub async fn start_instance(
    wanted: &Wanted<'_>,
    cluster: &Cluster,
    instance: &str,
    zone: Option<char>,
    node: impl FnOnce(&Placed) -> Node,
) -> Result<(), NodesError> {
    let machine = wanted.machines.machine(instance)?;
    if machine.running().is_some() {
        machine.nudge()?;
        return Ok(());
    }
    let spec = machine_spec(wanted, cluster, instance, zone, node).await?;
    tokio::task::spawn_blocking(move || machine.start(&spec)).await??;
    Ok(())
}

/// Removes the machine of an instance, with all that it kept.
pub async fn remove_instance(
    site: &Site,
    machines: &machines::Site,
    cluster: &str,
    instance: &str,
) -> Result<(), NodesError> {
    remove(site, machines, cluster, machines.machine(instance)?).await?;
    let dir = join_dir(site, cluster, instance);
    match std::fs::remove_dir_all(&dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(FileError::new("remove", &dir, error).into())
        }
        _ => Ok(()),
    }
}

async fn machine_spec(
    wanted: &Wanted<'_>,
    cluster: &Cluster,
    name: &str,
    zone: Option<char>,
    node: impl FnOnce(&Placed) -> Node,
) -> Result<MachineSpec, NodesError> {
    let (machines, owner, machine) = (wanted.machines.clone(), wanted.spec.name.clone(), name.to_owned());
    let placed =
        tokio::task::spawn_blocking(move || network::place_machine(&machines, &owner, &machine, zone))
            .await??;
    let join_dir = join_dir(wanted.site, &wanted.spec.name, name);
    files::make_dir(&join_dir)?;
    let token = cluster.join_token(TOKEN_SECONDS).await.map_err(Box::new)?;
    files::write(&join_dir.join("token"), 0o600, token.as_bytes())?;
    let images = images_of(wanted.site, &wanted.spec.name).await?;
    let node = node(&placed);
    let mut command: Vec<String> = [
        "/usr/bin/ekso",
        "node",
        "--server",
        &format!("https://{}", wanted.server),
        "--token-file",
        "/etc/ekso/token",
        "--name",
        &node.name,
        "--cluster-dns",
        &wanted.spec.shape().dns_ip().to_string(),
        "--node-ip",
        &placed.link.address.to_string(),
        "--external-ip",
        &placed.public.to_string(),
        "--pod-cidr",
        &placed.pods.to_string(),
        "--root-dir",
        "/var/lib/ekso/node",
        "--image-dir",
        "/var/lib/ekso/images",
    ]
    .map(str::to_owned)
    .to_vec();
    command.extend(node.options);
    for range in &placed.vpc {
        command.extend(["--cluster-cidr".into(), range.to_string()]);
    }
    for registry in &wanted.spec.insecure_registries {
        command.extend(["--insecure-registry".into(), registry.clone()]);
    }
    Ok(MachineSpec {
        link: placed.link,
        hostname: None,
        command,
        env: Vec::new(),
        binds: vec![
            Bind { source: join_dir, target: "/etc/ekso".into(), read_only: true },
            Bind { source: images, target: "/var/lib/ekso/images".into(), read_only: false },
        ],
        limits: Limits::default(),
        nameservers: resolvers(),
        hosts: Vec::new(),
        stop_grace_ms: 10_000,
    })
}

/// The host's resolvers that a machine can reach: not those that listen on the host's own loopback.
pub fn resolvers() -> Vec<std::net::Ipv4Addr> {
    let known = machines::resolvers().into_iter().filter_map(|address| match address {
        IpAddr::V4(address) if !address.is_loopback() => Some(address),
        _ => None,
    });
    known.collect()
}

fn join_dir(site: &Site, cluster: &str, machine: &str) -> PathBuf {
    site.cluster_dir(cluster).join("join").join(machine)
}

async fn wait_until_ready(wanted: &Wanted<'_>, cluster: &Cluster) -> Result<(), NodesError> {
    let store = cluster.gate.store();
    let names: Vec<String> =
        (1..=wanted.spec.nodes).map(|number| machine_name(&wanted.spec.name, number)).collect();
    let deadline = Instant::now() + READY_PATIENCE;
    loop {
        let snapshot = store.snapshot();
        let mut missing: Vec<&String> = names.iter().filter(|name| !is_ready_in(&snapshot, name)).collect();
        let are_told_ready = missing.is_empty();
        if are_told_ready {
            for name in &names {
                let (machine, node) = (wanted.machines.machine(name)?, snapshot.find(NODES, "", name));
                let Some(node) = node else { continue };
                if !serves(&machine, node).await {
                    missing.push(name);
                }
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        let changed = async {
            if are_told_ready {
                return tokio::time::sleep(LOOK_AGAIN).await;
            }
            match store.watch(Some(NODES), snapshot.revision()) {
                Ok(mut watch) => drop(watch.next().await),
                Err(_) => tokio::task::yield_now().await,
            }
        };
        let left = deadline.saturating_duration_since(Instant::now());
        if tokio::time::timeout(left, changed).await.is_err() {
            let logs = wanted.machines.machine(missing[0]).map(|machine| machine.log().display().to_string());
            return Err(NodesError::NotReady {
                nodes: missing.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(", "),
                logs: logs.unwrap_or_default(),
            });
        }
    }
}

/// Whether the node's process is there and has registered: the Node of one that has just ended says Ready for a while.
async fn serves(machine: &Machine, node: &Object) -> bool {
    let Ok(address) = census::node_status(node).internal_ip.parse::<IpAddr>() else { return false };
    dial::dial(Some(machine.netns_path()), (address, KUBELET_PORT).into()).await.is_ok()
}

fn is_ready_in(snapshot: &Snapshot, name: &str) -> bool {
    snapshot.find(NODES, "", name).is_some_and(|node| is_ready(node))
}

/// Whether a Node says that it is Ready.
pub fn is_ready(node: &Object) -> bool {
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct View {
        status: Status,
    }
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Status {
        conditions: Vec<Condition>,
    }
    #[derive(Deserialize)]
    struct Condition {
        r#type: String,
        status: String,
    }
    let view: View = node.decode().unwrap_or_default();
    view.status.conditions.iter().any(|one| one.r#type == "Ready" && one.status == "True")
}

/// Stops the machines of a cluster; what they keep stays.
pub async fn stop(site: &Site, machines: &machines::Site, cluster: &str) -> Result<(), NodesError> {
    let all = all_machines_of(site, machines, cluster)?;
    let stops: Vec<_> =
        all.into_iter().map(|machine| tokio::task::spawn_blocking(move || machine.stop())).collect();
    for stop in stops {
        stop.await??;
    }
    Ok(())
}

pub async fn delete(site: &Site, machines: &machines::Site, cluster: &str) -> Result<(), NodesError> {
    for machine in all_machines_of(site, machines, cluster)? {
        remove(site, machines, cluster, machine).await?;
    }
    let (machines, cluster) = (machines.clone(), cluster.to_owned());
    Ok(tokio::task::spawn_blocking(move || network::remove_cluster(&machines, &cluster)).await??)
}

async fn remove(
    site: &Site,
    machines: &machines::Site,
    cluster: &str,
    machine: Machine,
) -> Result<(), NodesError> {
    let (name, images) = (machine.name().to_owned(), site.cluster_images(cluster));
    let (machines, cluster) = (machines.clone(), cluster.to_owned());
    let removed = tokio::task::spawn_blocking(move || {
        machine.delete()?;
        network::remove_machine(&machines, &cluster, machine.name())
    });
    removed.await??;
    release_images(&images, &name)?;
    Ok(())
}

/// The folder of a cluster's images, with everything that was imported.
pub async fn images_of(site: &Site, cluster: &str) -> Result<PathBuf, NodesError> {
    let (imported, own) = (site.images(), site.cluster_images(cluster));
    let path = own.clone();
    let taken = tokio::task::spawn_blocking(move || {
        let store = Store::open(&own)?;
        if imported.exists() { store.take_over(&Store::open(&imported)?).map(drop) } else { Ok(()) }
    });
    taken.await??;
    Ok(path)
}

/// Layers that the node's containers held are nobody's now.
pub fn release_images(dir: &Path, node: &str) -> Result<(), NodesError> {
    if dir.exists() {
        Store::open(dir)?.release_all(&format!("{node}/"))?;
    }
    Ok(())
}

/// From where the control plane reaches the cluster's network: one of its machines that runs, else the router.
pub fn inside(site: &Site, machines: machines::Site, cluster: &str, router: &Path) -> Inside {
    let (site, cluster, router) = (site.clone(), cluster.to_owned(), router.to_owned());
    std::sync::Arc::new(move || {
        let all = all_machines_of(&site, &machines, &cluster).unwrap_or_default();
        let running = all.into_iter().find(|machine| machine.running().is_some());
        Some(running.map_or_else(|| router.clone(), |machine| machine.netns_path()))
    })
}
