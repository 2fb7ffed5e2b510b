//! Makes true what the account says of EC2: VPCs become routers, instances become machines, and what became of them is written back.
//!
//! ```text
//! account store ─► Doer::pass ─► vpcs::wanted  ─► machines::Site::apply_vpc     (one at a time, all at once in each)
//!      ▲                      └► instances::step ─► a task for each instance     (start, stop, restart, remove)
//!      └──────── aws::ec2::instance::observe ◄──────┘
//! ```
//!
//! Nothing is remembered that a crash could take: what should be stands in the account, what is in the machines.

mod agent;
mod connections;
mod images;
mod instances;
mod metadata;
mod vpcs;

pub use instances::{machine_name, nodes_of};

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use account::{Account, Server};
use aws::ec2::genesis;
use aws::ec2::record::PublicPool;
use machines::{Pool, VpcConfig, netns};
use object::{Snapshot, Time};
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::registries::Registries;
use crate::site::Site;

/// How long to wait after something failed, from the first time on.
const FIRST_RETRY: Duration = Duration::from_millis(500);
const LAST_RETRY: Duration = Duration::from_secs(30);
/// How long a machine that is being started or stopped is waited for when the daemon ends: a stop takes its grace.
const END_PATIENCE: Duration = Duration::from_secs(15);

#[derive(Debug, thiserror::Error)]
pub enum Ec2Error {
    #[error(transparent)]
    Machines(#[from] machines::Error),
    #[error(transparent)]
    File(#[from] files::FileError),
    #[error("open the image store: {0}")]
    Images(#[from] runtime::image::StoreError),
    #[error(transparent)]
    Account(#[from] account::OpenError),
    #[error("a worker ended: {0}")]
    Worker(#[from] tokio::task::JoinError),
    #[error("listen at {address} in {vpc}: {why}")]
    Listen { address: SocketAddr, vpc: String, why: String },
    #[error("the cluster {0} does not run")]
    NoCluster(String),
    #[error("the instance does not become a node: {0}")]
    Refused(String),
    #[error("instance {0} has no interface")]
    NoInterface(String),
    #[error("watch the machine {machine}: {source}")]
    Watch { machine: String, source: io::Error },
}

/// How a node joins a cluster.
#[derive(Clone, Debug)]
pub struct Join {
    /// The API, in the cluster's VPC.
    pub server: SocketAddr,
    pub token: String,
    /// Of the cluster's DNS.
    pub dns: IpAddr,
    /// 36 of 1.36
    pub minor: u8,
    pub registries: Registries,
}

pub type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What instances need of the clusters.
pub trait Clusters: Send + Sync {
    /// How a node joins a cluster; none if none of that name runs.
    fn join<'a>(&'a self, cluster: &'a str, node: &'a str) -> Answer<'a, Option<Join>>;
    /// What a cluster's store holds; none if none of that name runs.
    fn objects<'a>(&'a self, cluster: &'a str) -> Answer<'a, Option<Snapshot>>;
    /// The instance that was this node of a cluster is no more.
    fn left<'a>(&'a self, cluster: &'a str, node: &'a str, instance: &'a str) -> Answer<'a, ()>;
}

/// The public addresses that the account gives out.
pub fn pool_of(pool: Pool) -> PublicPool {
    let host = pool.host();
    let (first, last) = (pool.assignable().next(), pool.assignable().last());
    PublicPool { first: first.unwrap_or(host), last: last.unwrap_or(host) }
}

/// Follows the account.
pub struct Doer {
    account: Arc<Account>,
    machines: machines::Site,
    site: Site,
    clusters: Arc<dyn Clusters>,
    /// Answers signed calls at the door of each VPC.
    door: Server,
    state: Mutex<State>,
    /// One at a time makes VPCs what the account says, so that what is newer comes last.
    applying: tokio::sync::Mutex<()>,
    /// There is reason for another look.
    look: Notify,
    /// Something failed that is to be tried again.
    failed: Notify,
    /// Nobody works on some instance any more.
    released: Notify,
}

#[derive(Default)]
struct State {
    /// VPCs as they were applied in this life.
    applied: BTreeMap<String, VpcConfig>,
    /// What listens in each VPC.
    listening: BTreeMap<String, Vec<AbortHandle>>,
    /// Instances that a task works on.
    busy: BTreeSet<String>,
    /// Those that were seen running in this life, and how many of their reboots were done.
    seen: BTreeMap<String, u32>,
    /// Machines whose end is watched.
    watched: BTreeSet<String>,
}

/// When what failed is tried again: later each time, and soon again after a long while without failures.
#[derive(Debug)]
struct Retries {
    wait: Duration,
    last: Option<Instant>,
}

impl Retries {
    fn next(&mut self, now: Instant) -> Instant {
        if self.last.is_none_or(|last| now.duration_since(last) > 2 * LAST_RETRY) {
            self.wait = FIRST_RETRY;
        }
        let at = now + self.wait;
        (self.wait, self.last) = ((2 * self.wait).min(LAST_RETRY), Some(now));
        at
    }
}

impl Doer {
    /// Makes the account's default VPC if it has none yet. The site must be up.
    pub async fn new(
        account: Arc<Account>,
        machines: machines::Site,
        site: Site,
        clusters: Arc<dyn Clusters>,
        door: Server,
    ) -> Result<Arc<Self>, Ec2Error> {
        let pool = machines.public_addresses()?.pool;
        account.change(|context| genesis::default_vpc(context, pool_of(pool))).await?;
        Ok(Arc::new(Self {
            account,
            machines,
            site,
            clusters,
            door,
            state: Mutex::default(),
            applying: tokio::sync::Mutex::default(),
            look: Notify::new(),
            failed: Notify::new(),
            released: Notify::new(),
        }))
    }

    /// Looks again soon: a cluster answers that did not.
    pub fn look(&self) {
        self.look.notify_one();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs until told to stop; machines go on.
    pub async fn run(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        let mut retries = Retries { wait: FIRST_RETRY, last: None };
        let mut seen = None;
        loop {
            let account = self.account.snapshot();
            // When nothing was said, only machines may have changed.
            let is_news = seen != Some(account.revision());
            let is_done = !is_news || self.bring_vpcs().await;
            seen = is_done.then_some(account.revision());
            let next = instances::pass(&self, &account).map(|at| self.until(at));
            let retry = (!is_done).then(|| retries.next(Instant::now()));
            if !self.wait(&account, next, retry, &mut retries, &mut stop).await {
                break;
            }
        }
        for (_, listeners) in std::mem::take(&mut self.state().listening) {
            listeners.iter().for_each(AbortHandle::abort);
        }
        if tokio::time::timeout(END_PATIENCE, self.rest()).await.is_err() {
            warn!("a machine was still being started or stopped when the daemon ended");
        }
    }

    /// Waits for reason for another look; false: it is time to stop.
    async fn wait(
        &self,
        account: &Snapshot,
        next: Option<Instant>,
        mut retry: Option<Instant>,
        retries: &mut Retries,
        stop: &mut watch::Receiver<bool>,
    ) -> bool {
        let mut changed = pin!(self.changed(account));
        loop {
            let at = next.into_iter().chain(retry).min();
            tokio::select! {
                // A sender that is gone means the same as one that says stop.
                _ = stop.wait_for(|stop| *stop) => return false,
                () = &mut changed => return true,
                () = self.look.notified() => return true,
                () = self.failed.notified() => retry = retry.or(Some(retries.next(Instant::now()))),
                () = tokio::time::sleep_until(at.unwrap_or_else(Instant::now)), if at.is_some() => return true,
            }
        }
    }

    /// When a time of the account's clock comes.
    fn until(&self, at: Time) -> Instant {
        let micros = at.as_micros().saturating_sub(self.account.now().as_micros());
        Instant::now() + Duration::from_micros(micros.max(0).unsigned_abs())
    }

    /// Waits until something is newer than in the snapshot: an instance, or a cluster whose VPC is new.
    async fn changed(&self, account: &Snapshot) {
        match self.account.store().watch(None, account.revision()) {
            // An end of the log is news, too.
            Ok(mut watch) => drop(watch.next().await),
            // Of an account that is closed there is no more news.
            Err(_) => std::future::pending().await,
        }
    }

    /// Makes VPCs what they should be. False if something is to be tried again.
    async fn bring_vpcs(&self) -> bool {
        let _turn = self.applying.lock().await;
        let account = self.account.snapshot();
        let mut is_done = true;
        for config in vpcs::wanted(&account) {
            let id = config.id.clone();
            if let Err(failure) = self.apply(config).await {
                warn!(vpc = id, %failure, "the VPC could not be made what it should be");
                is_done = false;
            }
        }
        if let Err(failure) = self.remove_vpcs(&account).await {
            warn!(%failure, "VPCs that were deleted could not be removed");
            is_done = false;
        }
        is_done
    }

    /// Makes a VPC what the account says now; nothing if there is none of that id.
    pub async fn bring_vpc(&self, id: &str) -> Result<(), Ec2Error> {
        let _turn = self.applying.lock().await;
        match vpcs::wanted_one(&self.account.snapshot(), id) {
            Some(config) => self.apply(config).await,
            None => Ok(()),
        }
    }

    async fn apply(&self, config: VpcConfig) -> Result<(), Ec2Error> {
        if self.state().applied.get(&config.id) == Some(&config) {
            return Ok(());
        }
        let (machines, wanted) = (self.machines.clone(), config.clone());
        let vpc = tokio::task::spawn_blocking(move || machines.apply_vpc(&wanted)).await??;
        let id = config.id.clone();
        self.state().applied.insert(id.clone(), config);
        if !self.state().listening.contains_key(&id) {
            let listeners = self.listen(&id, vpc.ns())?;
            self.state().listening.insert(id, listeners);
        }
        Ok(())
    }

    /// Opens the metadata service, and what pods ask, in a VPC.
    fn listen(&self, vpc: &str, ns: &machines::NetNs) -> Result<Vec<AbortHandle>, Ec2Error> {
        let metadata = metadata::Service::new(self.account.clone(), vpc);
        let listener = listener(vpc, ns, machines::METADATA.into())?;
        let mut tasks = self.open_door(vpc, ns)?;
        tasks.push(tokio::spawn(metadata.serve(listener)).abort_handle());
        Ok(tasks)
    }

    /// Opens the door for AWS in a VPC, and the agent of its nodes.
    fn open_door(&self, vpc: &str, ns: &machines::NetNs) -> Result<Vec<AbortHandle>, Ec2Error> {
        let agent = agent::Service::new(self.account.clone(), vpc);
        let listener_of_agent = listener(vpc, ns, machines::POD_IDENTITY.into())?;
        let mut tasks = vec![tokio::spawn(agent.serve(listener_of_agent)).abort_handle()];
        for port in machines::AWS_DOOR_PORTS {
            let (door, listener) = (self.door.clone(), listener(vpc, ns, (machines::AWS_DOOR, port).into())?);
            tasks.push(tokio::spawn(async move { door.serve(listener).await }).abort_handle());
        }
        Ok(tasks)
    }

    /// Removes the routers of VPCs that the account no longer has.
    async fn remove_vpcs(&self, account: &Snapshot) -> Result<(), Ec2Error> {
        let wanted: BTreeSet<String> = vpcs::wanted(account).into_iter().map(|vpc| vpc.id).collect();
        let machines = self.machines.clone();
        let known = tokio::task::spawn_blocking(move || machines.vpcs()).await??;
        for vpc in known.into_iter().filter(|vpc| !wanted.contains(&vpc.id)) {
            {
                let mut state = self.state();
                state.applied.remove(&vpc.id);
                state.listening.remove(&vpc.id).iter().flatten().for_each(AbortHandle::abort);
            }
            let (machines, id) = (self.machines.clone(), vpc.id.clone());
            tokio::task::spawn_blocking(move || machines.delete_vpc(&id)).await??;
            info!(vpc = vpc.id, "the VPC is removed");
        }
        Ok(())
    }
}

/// A listener in a VPC's router.
fn listener(
    vpc: &str,
    ns: &machines::NetNs,
    address: SocketAddr,
) -> Result<tokio::net::TcpListener, Ec2Error> {
    let failed = |why: String| Ec2Error::Listen { address, vpc: vpc.to_owned(), why };
    let listener = netns::tcp_listener(ns, address).map_err(|error| failed(error.to_string()))?;
    listener.set_nonblocking(true).map_err(|error| failed(error.to_string()))?;
    tokio::net::TcpListener::from_std(listener).map_err(|error| failed(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_again_is_tried_later_and_a_new_trouble_soon() {
        let mut retries = Retries { wait: FIRST_RETRY, last: None };
        let mut now = Instant::now();
        let mut waits = Vec::new();
        for _ in 0..9 {
            let at = retries.next(now);
            waits.push((at - now).as_millis());
            now = at;
        }
        assert_eq!(waits, [500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000]);
        let later = now + 3 * LAST_RETRY;
        assert_eq!(retries.next(later), later + FIRST_RETRY);
    }
}
