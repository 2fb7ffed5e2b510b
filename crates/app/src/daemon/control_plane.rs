//! A cluster's control plane on this site: started, started anew with other files, stopped, removed.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Instant;

use ::account::Account;
use aws::eks::VpcConfig;
use machines::netns;
use tracing::error;

use super::{Daemon, DaemonError};
use crate::cluster::{API_PORT, Cluster, ClusterError, Setup};
use crate::control_planes::Turn;
use crate::doors::Doors;
use crate::progress::Progress;
use crate::site::ClusterSpec;
use crate::{ec2, eks, nodes};

impl Daemon {
    /// Brings a cluster to what it should be, from wherever it is.
    pub(super) async fn start(self: &Arc<Self>, name: &str, progress: &Progress) -> Result<(), DaemonError> {
        let _turn = self.starting.take(name).await;
        let (spec, cluster) = self.start_cluster(name, progress).await?;
        let admin = cluster.admin().map_err(ClusterError::from)?;
        let pki = self.site.cluster_dir(&spec.name).join("pki");
        files::write(&pki.join("admin.crt"), 0o600, admin.certificate.as_bytes())?;
        files::write(&pki.join("admin.key"), 0o600, admin.key.as_bytes())?;
        if spec.nodes > 0 {
            progress.doing(if spec.nodes == 1 { "starting the node" } else { "starting the nodes" });
        }
        let since = Instant::now();
        let (account, _) = self.account().await.ok_or(DaemonError::NoAccount)?;
        let doer = self.ec2().await?;
        doer.look();
        let plan = nodes::Wanted { machines: &self.machines, spec: &spec, account: &account, doer: &doer };
        nodes::bring(&plan, &cluster).await?;
        if spec.nodes > 0 {
            progress.step(if spec.nodes == 1 { "node is Ready" } else { "nodes are Ready" }, since);
        }
        Ok(())
    }

    /// The control plane, running.
    async fn start_cluster(
        &self,
        name: &str,
        progress: &Progress,
    ) -> Result<(ClusterSpec, Arc<Cluster>), DaemonError> {
        let turn = self.clusters.turn(name).await?;
        // Somebody may have stopped or deleted it since it was asked for.
        let spec = self.site.cluster(name)?.ok_or_else(|| DaemonError::NoCluster(name.to_owned()))?;
        if !spec.up {
            return Err(DaemonError::Stopped(name.to_owned()));
        }
        let (account, issuers) = self.account().await.ok_or(DaemonError::NoAccount)?;
        refuse_going(&account, name)?;
        let spec = eks::enter(&account, &issuers, &self.site, &spec).await?;
        match turn.running() {
            Some(cluster) if cluster.files != spec.files => {
                progress.doing("stopping the control plane, to start it with its new files");
                let since = Instant::now();
                let cluster = self.exchange_files(&account, &turn, &spec, cluster).await?;
                progress.step("API server answers", since);
                return Ok((spec, cluster));
            }
            Some(cluster) => return Ok((spec, cluster)),
            None => {}
        }
        progress.doing("starting the control plane");
        let since = Instant::now();
        let cluster = turn.started(self.start_control_plane(&spec, Doors::default()).await?);
        eks::tell_running(&account, &spec, &cluster).await;
        progress.step("API server answers", since);
        Ok((spec, cluster))
    }

    /// Starts a running control plane anew with other files; if it cannot be, with those that it had.
    async fn exchange_files(
        &self,
        account: &Account,
        turn: &Turn<'_>,
        spec: &ClusterSpec,
        running: Arc<Cluster>,
    ) -> Result<Arc<Cluster>, DaemonError> {
        let former = ClusterSpec { files: running.files.clone(), ..spec.clone() };
        let prefers_former = |failure| DaemonError::Files { name: spec.name.clone(), failure };
        if let Err(failure) = running.make_ready_for(&spec.files).await {
            self.site.save(&former)?;
            return Err(prefers_former(Box::new(failure.into())));
        }
        // Its store is held as long as it is.
        drop(running);
        turn.stop().await;
        let failure = match self.start_control_plane(spec, Doors::default()).await {
            Ok(cluster) => {
                let cluster = turn.started(cluster);
                eks::tell_running(account, spec, &cluster).await;
                return Ok(cluster);
            }
            Err(failure) => failure,
        };
        self.site.save(&former)?;
        match self.start_control_plane(&former, Doors::default()).await {
            Ok(cluster) => eks::tell_running(account, &former, &turn.started(cluster)).await,
            Err(again) => {
                error!(cluster = spec.name, failure = %again, "it does not start with its former files either");
                return Err(failure);
            }
        }
        Err(prefers_former(Box::new(failure)))
    }

    /// Starts a control plane where the account has its interfaces, with its public endpoint on this host's loopback.
    /// `doors` are those that its predecessor left open.
    pub(crate) async fn start_control_plane(
        &self,
        spec: &ClusterSpec,
        mut doors: Doors,
    ) -> Result<Cluster, DaemonError> {
        let (account, _) = self.account().await.ok_or(DaemonError::NoAccount)?;
        let standing = eks::standing(&account, &spec.name);
        let standing = standing.ok_or_else(|| DaemonError::NoPlace(spec.name.clone()))?;
        self.ec2().await?.bring_vpc(&standing.vpc.vpc_id).await?;
        let vpc = self.machines.vpc(&standing.vpc.vpc_id)?;
        let inside: Vec<SocketAddr> =
            standing.addresses.iter().map(|address| (*address, API_PORT).into()).collect();
        let within = inside.iter().map(|address| match doors.take(*address) {
            Some(open) => Ok(open),
            None => netns::tcp_listener(vpc.ns(), *address)
                .map_err(|error| DaemonError::Inside(error.to_string())),
        });
        let within: Vec<TcpListener> = within.collect::<Result<_, _>>()?;
        // Whatever listens is there before anything runs that would have to be stopped again.
        let public = (Ipv4Addr::LOCALHOST, spec.api_port).into();
        let open = || doors.take(public).map_or_else(|| listen(spec.api_port), Ok);
        let public = standing.vpc.endpoint_public_access.then(open).transpose()?;
        let dir = self.site.cluster_dir(&spec.name);
        let setup = Setup {
            name: &spec.name,
            dir: &dir,
            place: &spec.place,
            files: &spec.files,
            names: Vec::new(),
            inside,
            dial_from: nodes::inside(self.machines.clone(), account.clone(), &spec.name, vpc.ns().path()),
            shape: spec.shape(),
            cbor: false,
            more_roots: self.site.issuers_authority()?,
            account: Some(account),
        };
        let cluster = Cluster::start(setup).await?;
        if let Err(failure) = serve(spec, &cluster, public, within) {
            cluster.stop().await;
            return Err(failure);
        }
        Ok(cluster)
    }

    pub(super) async fn down(&self, turn: &Turn<'_>, progress: &Progress) -> Result<(), DaemonError> {
        let name = turn.name();
        let spec = self.site.cluster(name)?.ok_or_else(|| DaemonError::NoCluster(name.to_owned()))?;
        self.site.save(&ClusterSpec { up: false, ..spec })?;
        let since = Instant::now();
        progress.doing("stopping the nodes");
        if let Ok(doer) = self.ec2().await {
            doer.sleep(name).await?;
        }
        progress.step("nodes are stopped", since);
        let since = Instant::now();
        if turn.stop().await {
            progress.step("control plane is stopped", since);
        }
        Ok(())
    }

    /// Removes a cluster, and with the last one the site.
    pub(super) async fn delete(&self, name: &str, progress: &Progress) -> Result<(), DaemonError> {
        self.remove(name, progress).await?;
        if self.is_empty().await? {
            self.close().await;
            // What was asked for until then is started by the next daemon.
            if self.is_empty().await? {
                self.end().await?;
            }
        }
        Ok(())
    }

    /// Removes a cluster, and nothing else.
    pub(super) async fn remove(&self, name: &str, progress: &Progress) -> Result<(), DaemonError> {
        let turn = self.clusters.turn(name).await?;
        // The keeper may have been faster: with one whose deletion a crash had stopped, or that went by Amazon's API.
        if self.site.cluster(name)?.is_some() {
            self.down(&turn, progress).await?;
        }
        let since = Instant::now();
        if let Some((account, _)) = self.account().await {
            for step in [aws::eks::begin_to_go, aws::eks::end_nodes] {
                account.change(|context| step(context, name)).await.map_err(ec2::Ec2Error::from)?;
            }
            self.ec2().await?.end(name).await?;
        }
        // Its record first: of one without a folder the keeper would make an empty cluster.
        if let Some((account, _)) = self.account().await {
            eks::forget(&account, name).await;
        }
        self.site.remove_cluster(name)?;
        progress.step(format!("everything of {name} is removed"), since);
        Ok(())
    }
}

/// One that was told to go, by whoever, is not brought back.
pub(super) fn refuse_going(account: &Account, name: &str) -> Result<(), DaemonError> {
    if eks::is_going(account, name) { Err(DaemonError::Going(name.to_owned())) } else { Ok(()) }
}

/// Where the API answers on this host.
fn listen(port: u16) -> Result<TcpListener, DaemonError> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map_err(|source| DaemonError::Port { port, source })
}

/// Opens a cluster's public endpoint, or shuts it, as its configuration says.
pub(crate) fn open_public_door(
    spec: &ClusterSpec,
    cluster: &Cluster,
    vpc: &VpcConfig,
) -> Result<(), DaemonError> {
    let port = |source| DaemonError::Port { port: spec.api_port, source };
    let listen = || TcpListener::bind((Ipv4Addr::LOCALHOST, spec.api_port));
    cluster.set_public(vpc.endpoint_public_access, listen).map_err(port)
}

fn serve(
    spec: &ClusterSpec,
    cluster: &Cluster,
    public: Option<TcpListener>,
    within: Vec<TcpListener>,
) -> Result<(), DaemonError> {
    if let Some(public) = public {
        let port = |source| DaemonError::Port { port: spec.api_port, source };
        cluster.set_public(true, || Ok(public)).map_err(port)?;
    }
    for listener in within {
        cluster.serve(listener).map_err(|error| DaemonError::Inside(error.to_string()))?;
    }
    Ok(())
}

/// A port of the loopback address that nobody listens on now; `wanted`, unless that is zero.
pub(crate) fn free_port(wanted: u16) -> Result<u16, DaemonError> {
    let listener = match wanted {
        0 => TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(DaemonError::NoPort)?,
        port => listen(port)?,
    };
    Ok(listener.local_addr().map_err(DaemonError::NoPort)?.port())
}
