//! What the account knows of a cluster, and is told of it.

use std::net::Ipv4Addr;

use account::{Account, OpenError};
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
use files::FileError;
use object::Snapshot;
use serde_json::json;
use tracing::warn;

use crate::cluster::Cluster;
use crate::shape::NEWEST;
use crate::site::{ClusterSpec, Site};

pub const DELETING: &str = "DELETING";

/// Why a cluster of the command line is not in the account.
#[derive(Debug, thiserror::Error)]
pub enum EnterError {
    #[error(transparent)]
    File(#[from] FileError),
    /// What the account says to it.
    #[error("the AWS account refuses the cluster: {code}: {message}")]
    Refused { code: String, message: String },
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
pub fn version_wanted(state: &Snapshot, record: &Kept<ClusterRecord>) -> u8 {
    let update = version_update(state, record.name());
    let version =
        update.as_ref().and_then(|update| target(&update.record)).unwrap_or(&record.record.shown.version);
    VERSIONS.iter().find(|row| row.name == version).map_or(NEWEST, |row| row.minor)
}

fn target(update: &UpdateRecord) -> Option<&String> {
    update.shown.params.iter().find(|param| param.r#type == "Version").map(|param| &param.value)
}

/// The update of the control plane's version that is in progress.
fn version_update(state: &Snapshot, cluster: &str) -> Option<Kept<UpdateRecord>> {
    let all = state::list::<UpdateRecord>(state, cluster).into_iter();
    all.filter(|update| update.record.nodegroup_name.is_empty() && update.record.addon_name.is_empty()).find(
        |update| update.record.shown.status == "InProgress" && update.record.shown.r#type == "VersionUpdate",
    )
}

/// Of the tokens of a cluster, among all `issuers` of the site.
pub fn issuer(issuers: &str, record: &ClusterRecord) -> String {
    format!("{issuers}/id/{}", record.public_id)
}

/// Writes down that a control plane answers, and where.
pub async fn told(account: &Account, spec: &ClusterSpec, cluster: &Cluster) -> Result<(), OpenError> {
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
pub async fn forget(account: &Account, name: &str) {
    if let Err(failure) = account.change(|context| eks::forget(context, name)).await {
        warn!(cluster = name, %failure, "the account still knows of the cluster");
    }
}

/// Takes a cluster of the command line into the account, by the same call that anybody makes. What it learns there, its issuer, is in the
/// spec that comes back.
pub async fn enter(
    account: &Account,
    issuers: &str,
    site: &Site,
    spec: &ClusterSpec,
) -> Result<ClusterSpec, EnterError> {
    let known = |account: &Account| state::get::<ClusterRecord>(&account.snapshot(), "", &spec.name);
    if known(account).is_none() {
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
        made.map_err(|fault| EnterError::Refused { code: fault.code, message: fault.message })?;
    }
    let mut spec = spec.clone();
    let is_new = !site.cluster_dir(&spec.name).join("store").exists();
    if let Some(record) = known(account).filter(|_| is_new && spec.issuer.is_none()) {
        spec.issuer = Some(issuer(issuers, &record.record));
        site.save(&spec)?;
    }
    Ok(spec)
}

/// Tells the account that a cluster of the command line answers.
pub async fn tell_running(account: &Account, spec: &ClusterSpec, cluster: &Cluster) {
    if let Err(failure) = told(account, spec, cluster).await {
        warn!(cluster = spec.name, %failure, "the account does not know that the cluster runs");
    }
}
