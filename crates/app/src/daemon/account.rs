//! The daemon's AWS account: opened with its first cluster, and followed as long as it is open.

use std::sync::{Arc, Weak};
use std::time::Instant;

use ::account::Account;
use object::Snapshot;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::{error, warn};

use super::{Daemon, DaemonError};
use crate::account::{AccountError, Running};
use crate::admin::AwsRequest;
use crate::eks::Keeper;
use crate::progress::Progress;
use crate::{ec2, nodes};

/// A task that follows the account until it is told to stop.
pub struct Following {
    doer: Arc<ec2::Doer>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

/// The daemon's clusters, for instances that join one. Weak, since the daemon holds whoever holds this.
struct Joining(Weak<Daemon>);

impl ec2::Clusters for Joining {
    fn join<'a>(&'a self, name: &'a str, node: &'a str) -> ec2::Answer<'a, Option<ec2::Join>> {
        Box::pin(async move {
            let daemon = self.0.upgrade()?;
            let cluster = daemon.clusters.get(name)?;
            let registries = daemon.site.cluster(name).ok()??.registries;
            let token = match cluster.join_token(nodes::TOKEN_SECONDS, Some(node)).await {
                Ok(token) => token,
                Err(failure) => {
                    warn!(cluster = name, %failure, "no token for a node that joins");
                    return None;
                }
            };
            let (server, shape) = (*cluster.inside.first()?, &cluster.shape);
            let (dns, minor) = (shape.dns_ip().into(), shape.minor);
            Some(ec2::Join { server, token, dns, minor, registries })
        })
    }

    fn objects<'a>(&'a self, name: &'a str) -> ec2::Answer<'a, Option<Snapshot>> {
        Box::pin(async move {
            let daemon = self.0.upgrade()?;
            Some(daemon.clusters.get(name)?.gate.store().snapshot())
        })
    }

    fn left<'a>(&'a self, name: &'a str, node: &'a str, instance: &'a str) -> ec2::Answer<'a, ()> {
        Box::pin(async move {
            let Some(daemon) = self.0.upgrade() else { return };
            let Some(cluster) = daemon.clusters.get(name) else { return };
            if let Err(failure) = cluster.remove_node_of(node, instance).await {
                warn!(cluster = name, node, %failure, "a node without a machine is left");
            }
        })
    }
}

impl Daemon {
    /// Opens the site's AWS account if it is not open.
    pub(super) async fn open_account(
        self: &Arc<Self>,
        wanted: &AwsRequest,
        progress: &Progress,
    ) -> Result<(), DaemonError> {
        let mut held = self.account.lock().await;
        if let Some(running) = &*held {
            return Ok(running.check(wanted)?);
        }
        // Nobody would stop it any more.
        self.clusters.check_open()?;
        let since = Instant::now();
        self.bring_network_up().await?;
        let running = Running::start(&self.site, &self.machines, wanted).await?;
        if let Err(failure) = self.follow_ec2(&running).await {
            running.stop().await;
            return Err(failure);
        }
        let keeper = Keeper::new(self, running.account.clone(), running.issuers());
        *self.keeper.lock().await = Some(tokio::spawn(keeper.run()));
        *held = Some(running);
        progress.step("AWS endpoint answers", since);
        Ok(())
    }

    /// The account, and below which URL the issuers of its clusters' tokens are.
    pub(crate) async fn account(&self) -> Option<(Arc<Account>, String)> {
        let held = self.account.lock().await;
        held.as_ref().map(|running| (running.account.clone(), running.issuers()))
    }

    pub(crate) async fn ec2(&self) -> Result<Arc<ec2::Doer>, DaemonError> {
        let held = self.ec2.lock().await;
        Ok(held.as_ref().ok_or(DaemonError::NoAccount)?.doer.clone())
    }

    async fn follow_ec2(self: &Arc<Self>, running: &Running) -> Result<(), DaemonError> {
        let clusters = Arc::new(Joining(Arc::downgrade(self)));
        let (account, machines) = (running.account.clone(), self.machines.clone());
        let doer = ec2::Doer::new(account, machines, self.site.clone(), clusters, running.server()).await?;
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(doer.clone().run(stopped));
        *self.ec2.lock().await = Some(Following { doer, stop, task });
        Ok(())
    }

    /// From here on what happens in the account has no effect.
    pub(super) async fn stop_following(&self) {
        if let Some(keeper) = self.keeper.lock().await.take() {
            keeper.abort();
        }
        if let Some(Following { stop, task, .. }) = self.ec2.lock().await.take() {
            stop.send_replace(true);
            if let Err(panic) = task.await {
                error!(%panic, "the account's instances and VPCs were followed to a bad end");
            }
        }
    }

    pub(super) async fn stop_account(&self) {
        // Whoever is just opening it has it followed, too.
        let mut held = self.account.lock().await;
        self.stop_following().await;
        if let Some(running) = held.take() {
            running.stop().await;
        }
    }

    /// Opens the account that there was. That somebody else has taken its port is no reason for clusters to stay down.
    pub(super) async fn reopen_account(self: &Arc<Self>) -> Result<(), DaemonError> {
        let opened = self.open_account(&AwsRequest::default(), &Progress::none()).await;
        let Err(DaemonError::Account(failure @ AccountError::Port { .. })) = opened else { return opened };
        warn!(%failure, "the AWS endpoint answers at another port: `ekso up` tells the profile");
        let anywhere = AwsRequest { port: Some(0), ..AwsRequest::default() };
        self.open_account(&anywhere, &Progress::none()).await
    }
}
