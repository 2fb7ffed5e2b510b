//! Clusters of the account as control planes of this site.

use account::{Account, OpenError};
use aws::eks::{self, ClusterRecord};
use aws::state::{self, Kept};
use tracing::info;

use super::record;
use crate::control_planes::Turn;
use crate::daemon::{Daemon, DaemonError, free_port, open_public_door};
use crate::doors::Doors;
use crate::ec2::Ec2Error;
use crate::etcd::Place;
use crate::registries::Registries;
use crate::server_files::ServerFiles;
use crate::site::ClusterSpec;

/// Why a control plane could not be brought to where its record wants it.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("write it down: {0}")]
    Account(#[from] OpenError),
    #[error(transparent)]
    Daemon(#[from] DaemonError),
    #[error(transparent)]
    File(#[from] files::FileError),
    #[error(transparent)]
    Ec2(#[from] Ec2Error),
}

/// Brings the control plane of one cluster to where its record wants it. Why one cannot be created is told in its health.
pub async fn keep(account: &Account, issuers: &str, daemon: &Daemon, name: &str) -> Result<(), Failure> {
    let kept = bring(account, issuers, daemon, name).await;
    if let Err(failure) = &kept {
        let why = failure.to_string();
        account.change(|context| eks::failed(context.state, context.now, name, &why)).await?;
    }
    kept
}

async fn bring(account: &Account, issuers: &str, daemon: &Daemon, name: &str) -> Result<(), Failure> {
    let turn = daemon.clusters.turn(name).await.map_err(DaemonError::from)?;
    // Read now that nobody else works on it: what was true before the turn may be past.
    let state = account.snapshot();
    let Some(record) = state::get::<ClusterRecord>(&state, "", name) else { return Ok(()) };
    if record.record.shown.status == record::DELETING {
        remove(account, daemon, &turn).await?;
        return Ok(());
    }
    let wanted = record::version_wanted(&state, &record);
    let known = daemon.site.cluster(name)?;
    let mut spec = match &known {
        Some(spec) => spec.clone(),
        None => new_spec(issuers, &record, wanted)?,
    };
    let mut doors = Doors::default();
    if spec.minor != wanted {
        info!(
            cluster = name,
            from = spec.minor,
            to = wanted,
            "the control plane starts anew with another version"
        );
        doors = turn.leave_open().await;
        spec.minor = wanted;
    }
    if known.as_ref() != Some(&spec) {
        daemon.site.save(&spec)?;
    }
    if !spec.up {
        return Ok(());
    }
    let shown = &record.record.shown;
    let cluster = match turn.running() {
        Some(cluster) => cluster,
        None => match daemon.start_control_plane(&spec, doors).await {
            // Somebody was faster, and no client has heard of this one yet.
            Err(DaemonError::Port { .. }) if shown.endpoint.is_none() => {
                change_port(daemon, &mut spec)?;
                turn.started(daemon.start_control_plane(&spec, Doors::default()).await?)
            }
            started => turn.started(started?),
        },
    };
    if let Err(DaemonError::Port { .. }) = open_public_door(&spec, &cluster, &shown.resources_vpc_config) {
        // It was shut, and somebody else has its port now.
        change_port(daemon, &mut spec)?;
        open_public_door(&spec, &cluster, &shown.resources_vpc_config)?;
    }
    record::told(account, &spec, &cluster).await?;
    daemon.ec2().await?.look();
    Ok(())
}

fn change_port(daemon: &Daemon, spec: &mut ClusterSpec) -> Result<(), DaemonError> {
    spec.api_port = free_port(0)?;
    Ok(daemon.site.save(spec)?)
}

fn new_spec(issuers: &str, record: &Kept<ClusterRecord>, minor: u8) -> Result<ClusterSpec, DaemonError> {
    let network = &record.record.shown.kubernetes_network_config;
    Ok(ClusterSpec {
        name: record.name().to_owned(),
        nodes: 0,
        api_port: free_port(0)?,
        up: true,
        registries: Registries::default(),
        place: Place::default(),
        files: ServerFiles::default(),
        minor,
        services: network["serviceIpv4Cidr"].as_str().map(str::to_owned),
        pods: None,
        issuer: Some(record::issuer(issuers, &record.record)),
    })
}

/// A crash in the middle leaves the record, which says how it goes on: it is the last to go.
async fn remove(account: &Account, daemon: &Daemon, turn: &Turn<'_>) -> Result<(), Failure> {
    turn.stop().await;
    let name = turn.name();
    account.change(|context| eks::end_nodes(context, name)).await?;
    daemon.ec2().await?.end(name).await?;
    daemon.site.remove_cluster(name)?;
    account.change(|context| eks::forget(context, name)).await?;
    info!(cluster = name, "the cluster is gone");
    Ok(())
}
