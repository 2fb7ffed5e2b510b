//! Clusters of the account as control planes of this site.

use std::net::Ipv4Addr;

use account::Account;
use aws::ec2;
use aws::eks::{
    self, CertificateAuthority, ClusterRecord, Identity, Oidc, UpdateRecord, VERSIONS, VpcConfig,
};
use aws::genesis::ADMIN;
use aws::state::{self, Changes, Kept};
use aws::sts::jwt::{Issuer, key_of};
use aws::{Caller, Context};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use object::Time;
use serde_json::json;
use tracing::{info, warn};

use super::keeper::{Failure, Keeper};
use crate::cluster::Cluster;
use crate::control_planes::Turn;
use crate::daemon::{Daemon, DaemonError, free_port, open_public_door};
use crate::doors::Doors;
use crate::etcd::Place;
use crate::server_files::ServerFiles;
use crate::shape::NEWEST;
use crate::site::ClusterSpec;

const DELETING: &str = "DELETING";

/// Brings the control plane of one cluster to where its record wants it. Why one cannot be created is told in its health.
pub async fn keep(keeper: &Keeper, daemon: &Daemon, name: &str) -> Result<Option<Time>, Failure> {
    let kept = bring(keeper, daemon, name).await;
    if let Err(failure) = &kept {
        let why = failure.to_string();
        keeper.account.change(|context| eks::failed(context.state, context.now, name, &why)).await?;
    }
    kept
}

async fn bring(keeper: &Keeper, daemon: &Daemon, name: &str) -> Result<Option<Time>, Failure> {
    let turn = daemon.clusters.turn(name).await.map_err(DaemonError::from)?;
    // Read now that nobody else works on it: what was true before the turn may be past.
    let state = keeper.account.snapshot();
    let Some(record) = state::get::<ClusterRecord>(&state, "", name) else { return Ok(None) };
    if record.record.shown.status == DELETING {
        remove(keeper, daemon, &turn).await?;
        return Ok(None);
    }
    let wanted = version_wanted(&state, &record);
    let known = daemon.site.cluster(name)?;
    let mut spec = match &known {
        Some(spec) => spec.clone(),
        None => new_spec(keeper, &record, wanted)?,
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
        return Ok(None);
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
    told(&keeper.account, &spec, &cluster).await?;
    daemon.ec2().await?.look();
    Ok(None)
}

/// Where a cluster's control plane stands in the account.
#[derive(Clone, Debug, PartialEq)]
pub struct Standing {
    pub vpc: VpcConfig,
    /// Of its interfaces, in order; never none.
    pub addresses: Vec<Ipv4Addr>,
}

/// Where it stands; none if the account does not know of the cluster, or of its interfaces.
pub fn standing(account: &Account, name: &str) -> Option<Standing> {
    let state = account.snapshot();
    let vpc = state::get::<ClusterRecord>(&state, "", name)?.record.shown.resources_vpc_config;
    let interfaces = eks::control_plane_interfaces(&state, name);
    let addresses: Vec<Ipv4Addr> = interfaces.into_iter().map(|kept| kept.record.private_ip).collect();
    (!addresses.is_empty()).then_some(Standing { vpc, addresses })
}

/// The minor version that a cluster should have: what an update in progress leads to.
fn version_wanted(state: &object::Snapshot, record: &Kept<ClusterRecord>) -> u8 {
    let update = version_update(state, record.name());
    let version =
        update.as_ref().and_then(|update| target(&update.record)).unwrap_or(&record.record.shown.version);
    VERSIONS.iter().find(|row| row.name == version).map_or(NEWEST, |row| row.minor)
}

fn target(update: &UpdateRecord) -> Option<&String> {
    update.shown.params.iter().find(|param| param.r#type == "Version").map(|param| &param.value)
}

/// The update of the control plane's version that is in progress.
fn version_update(state: &object::Snapshot, cluster: &str) -> Option<Kept<UpdateRecord>> {
    let all = state::list::<UpdateRecord>(state, cluster).into_iter();
    all.filter(|update| update.record.nodegroup_name.is_empty() && update.record.addon_name.is_empty()).find(
        |update| update.record.shown.status == "InProgress" && update.record.shown.r#type == "VersionUpdate",
    )
}

fn change_port(daemon: &Daemon, spec: &mut ClusterSpec) -> Result<(), DaemonError> {
    spec.api_port = free_port(0)?;
    Ok(daemon.site.save(spec)?)
}

fn issuer(issuers: &str, record: &ClusterRecord) -> String {
    format!("{issuers}/id/{}", record.public_id)
}

fn new_spec(keeper: &Keeper, record: &Kept<ClusterRecord>, minor: u8) -> Result<ClusterSpec, DaemonError> {
    let network = &record.record.shown.kubernetes_network_config;
    Ok(ClusterSpec {
        name: record.name().to_owned(),
        nodes: 0,
        api_port: free_port(0)?,
        up: true,
        insecure_registries: Vec::new(),
        place: Place::default(),
        files: ServerFiles::default(),
        minor,
        services: network["serviceIpv4Cidr"].as_str().map(str::to_owned),
        pods: None,
        issuer: Some(issuer(&keeper.issuers, &record.record)),
    })
}

/// Writes down that a control plane answers, and where.
async fn told(account: &Account, spec: &ClusterSpec, cluster: &Cluster) -> Result<(), Failure> {
    let shown = |context: &mut Context| {
        let mut changes = Changes::default();
        let Some(mut record) = state::get::<ClusterRecord>(context.state, "", &spec.name) else {
            return changes;
        };
        let before = record.record.clone();
        let shown = &mut record.record.shown;
        shown.endpoint = Some(format!("https://127.0.0.1:{}", spec.api_port));
        shown.certificate_authority =
            Some(CertificateAuthority { data: STANDARD.encode(cluster.pki.ca_pem.as_bytes()) });
        shown.identity = Some(Identity { oidc: Oidc { issuer: cluster.issuer.clone() } });
        if matches!(shown.status.as_str(), "CREATING" | "FAILED" | "UPDATING") {
            shown.status = "ACTIVE".into();
            shown.health.issues.clear();
        }
        if let Some(mut update) = version_update(context.state, &spec.name) {
            let version = target(&update.record).cloned();
            let row =
                VERSIONS.iter().find(|row| Some(row.name) == version.as_deref() && row.minor == spec.minor);
            if let Some(row) = row {
                shown.version = row.name.into();
                shown.platform_version = row.platform.into();
                update.record.shown.status = "Successful".into();
                changes.update(&update);
            }
        }
        if record.record != before {
            changes.update(&record);
        }
        let keys = Issuer { url: cluster.issuer.clone(), jwks: cluster.jwks.clone() };
        match state::get::<Issuer>(context.state, "", &key_of(&cluster.issuer)) {
            Some(known) if known.record == keys => {}
            Some(mut known) => {
                known.record = keys;
                changes.update(&known);
            }
            None => changes.create("", &key_of(&cluster.issuer), &keys),
        }
        changes
    };
    account.change(shown).await?;
    Ok(())
}

/// A crash in the middle leaves the record, which says how it goes on: it is the last to go.
async fn remove(keeper: &Keeper, daemon: &Daemon, turn: &Turn<'_>) -> Result<(), Failure> {
    turn.stop().await;
    let name = turn.name();
    keeper.account.change(|context| eks::end_nodes(context, name)).await?;
    daemon.ec2().await?.end(name).await?;
    daemon.site.remove_cluster(name)?;
    keeper.account.change(|context| eks::forget(context, name)).await?;
    info!(cluster = name, "the cluster is gone");
    Ok(())
}

/// Whether the account was told that a cluster shall go.
pub fn is_going(account: &Account, name: &str) -> bool {
    let record = state::get::<ClusterRecord>(&account.snapshot(), "", name);
    record.is_some_and(|kept| kept.record.shown.status == DELETING)
}

/// Whether the account was asked for a cluster that is not there yet.
pub fn is_any_created(account: &Account) -> bool {
    let all = state::list::<ClusterRecord>(&account.snapshot(), "");
    all.iter().any(|kept| kept.record.shown.status == "CREATING")
}

/// A cluster that the command line has removed is gone from the account too.
pub async fn forget(daemon: &Daemon, name: &str) {
    let Some((account, _)) = daemon.account().await else { return };
    if let Err(failure) = account.change(|context| eks::forget(context, name)).await {
        warn!(cluster = name, %failure, "the account still knows of the cluster");
    }
}

/// Takes a cluster of the command line into the account, by the same call that anybody makes. What it learns there, its issuer, is in the
/// spec that comes back.
pub async fn enter(daemon: &Daemon, spec: &ClusterSpec) -> Result<ClusterSpec, DaemonError> {
    let (account, issuers) = daemon.account().await.ok_or(DaemonError::NoAccount)?;
    let known = |account: &Account| state::get::<ClusterRecord>(&account.snapshot(), "", &spec.name);
    if known(&account).is_none() {
        let id = &account.identity.account;
        let admin = Caller { arn: format!("arn:aws:iam::{id}:user/{ADMIN}"), ..account.root() };
        let subnets: Vec<String> = state::list::<ec2::record::Subnet>(&account.snapshot(), "")
            .into_iter()
            .filter(|subnet| subnet.record.default_for_az)
            .map(|subnet| subnet.record.subnet_id)
            .collect();
        let input = json!({
            "name": spec.name, "version": format!("1.{}", spec.minor),
            "roleArn": format!("arn:aws:iam::{id}:role/AmazonEKSClusterRole"),
            "resourcesVpcConfig": {"subnetIds": subnets},
            "accessConfig": {"authenticationMode": "API_AND_CONFIG_MAP"},
        });
        let made = account.call(&admin, "eks", "CreateCluster", &input).await;
        made.map_err(|fault| DaemonError::Refused { code: fault.code, message: fault.message })?;
    }
    let mut spec = spec.clone();
    let is_new = !daemon.site.cluster_dir(&spec.name).join("store").exists();
    if let Some(record) = known(&account).filter(|_| is_new && spec.issuer.is_none()) {
        spec.issuer = Some(issuer(&issuers, &record.record));
        daemon.site.save(&spec)?;
    }
    Ok(spec)
}

/// Tells the account that a cluster of the command line answers.
pub async fn tell_running(daemon: &Daemon, spec: &ClusterSpec, cluster: &Cluster) {
    let Some((account, _)) = daemon.account().await else { return };
    if let Err(failure) = told(&account, spec, cluster).await {
        warn!(cluster = spec.name, %failure, "the account does not know that the cluster runs");
    }
}
