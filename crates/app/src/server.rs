//! `ekso server`: a site's daemon, or a control plane alone for nodes on other hosts.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use files::FileError;
use tokio::sync::watch;

use crate::admin::{Ask, Told, UpRequest};
use crate::cli;
use crate::cluster::{Cluster, ClusterError, Setup};
use crate::daemon::{Daemon, DaemonError};
use crate::kubeconfig::{self, Context, KubeconfigError};
use crate::output::Screen;
use crate::owner::Owner;
use crate::process::{StartError, block_on, log, stop_signal};
use crate::progress::Progress;
use crate::shape::Shape;
use crate::site::{self, Site};

/// A join token of a server lives this long.
const TOKEN_SECONDS: i64 = 24 * 3_600;
const PORT: u16 = 6443;

#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Daemon(#[from] DaemonError),
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error(transparent)]
    Kubeconfig(#[from] KubeconfigError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("listen on {address}: {source}; choose another with --listen")]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error("ekso up --foreground needs root: run it with sudo")]
    NotRoot,
}

pub fn run(args: &cli::Server, screen: &Screen) -> Result<(), ServerError> {
    log();
    block_on(async {
        let stop = stop_signal()?;
        let site = Site::open(&args.cluster.site.data_dir)?;
        if args.daemon {
            return Ok(Daemon::open(site)?.run(stop).await?);
        }
        alone(args, &site, screen, stop).await
    })
}

/// `ekso up --foreground`: the daemon here, and the cluster brought up by it.
pub fn foreground(args: &cli::Up, screen: &Screen) -> Result<(), ServerError> {
    if !rustix::process::geteuid().is_root() {
        return Err(ServerError::NotRoot);
    }
    log();
    block_on(async {
        let stop = stop_signal()?;
        let daemon = Daemon::open(Site::open(&args.cluster.site.data_dir)?)?;
        let request = UpRequest {
            name: args.cluster.name.clone(),
            nodes: args.nodes,
            api_port: args.api_port,
            registries: args.registries.clone(),
            place: args.place.clone().absolute().map_err(StartError)?,
            files: args.files.clone().absolute().map_err(StartError)?,
            without: args.without.clone(),
            aws: args.aws.wanted(),
        };
        let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
        let clusters = daemon.answer(Ask::Up(Box::new(request)), &Progress::to(tell)).await?;
        while let Ok(message) = told.try_recv() {
            screen.told(&message);
        }
        for cluster in clusters {
            screen.told(&Told::Step {
                what: format!("{} is up at {}", cluster.name, cluster.endpoint),
                millis: 0,
            });
        }
        Ok(daemon.run(stop).await?)
    })
}

/// An administrator's kubeconfig beside the cluster's keys, for whoever may read those.
fn write_kubeconfig(
    cluster: &Cluster,
    name: &str,
    dir: &Path,
    server: SocketAddr,
) -> Result<PathBuf, ServerError> {
    let path = dir.join("admin.kubeconfig");
    let admin = cluster.admin().map_err(ClusterError::from)?;
    let (name, server) = (site::context_name(name), format!("https://{server}"));
    let context = Context { name: &name, server: &server, ca_pem: &cluster.pki.ca_pem, admin: &admin };
    kubeconfig::merge(&path, &Owner::this_process(), &context, true)?;
    Ok(path)
}

/// A control plane without machines; nodes join it with the token that it prints.
async fn alone(
    args: &cli::Server,
    site: &Site,
    screen: &Screen,
    mut stop: watch::Receiver<bool>,
) -> Result<(), ServerError> {
    let address = args.listen.unwrap_or_else(|| SocketAddr::new(Ipv4Addr::LOCALHOST.into(), PORT));
    let listener = TcpListener::bind(address).map_err(|source| ServerError::Listen { address, source })?;
    let mut names = args.advertise.clone();
    names.push(address.ip().to_string());
    let dir = site.cluster_dir(&args.cluster.name);
    let inside = match args.advertise.iter().find_map(|name| name.parse().ok()) {
        Some(ip) => SocketAddr::new(ip, address.port()),
        None => address,
    };
    let setup = Setup {
        name: &args.cluster.name,
        dir: &dir,
        place: &args.place,
        files: &args.files,
        names,
        inside: vec![inside],
        dial_from: std::sync::Arc::new(|| None),
        shape: Shape::default(),
        cbor: args.feature_gates.last() == Some(&cli::Feature::Cbor(true)),
        more_roots: String::new(),
        account: None,
    };
    let cluster = Cluster::start(setup).await?;
    cluster.serve(listener).map_err(|source| ServerError::Listen { address, source })?;
    let kubeconfig = write_kubeconfig(&cluster, &args.cluster.name, &dir, inside)?;
    let token = cluster.join_token(TOKEN_SECONDS, None).await?;
    screen.next(
        &format!("The API is served at https://{address}. For root here:"),
        &format!("kubectl --kubeconfig {} get nodes", kubeconfig.display()),
    );
    screen.next(
        "On another host, within a day:",
        &format!("ekso node --server https://{inside} --token {token}"),
    );
    // A sender that is gone means the same as one that says stop.
    let _ = stop.wait_for(|stop| *stop).await;
    cluster.stop().await;
    Ok(())
}
