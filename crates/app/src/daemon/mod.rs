//! The daemon of a site: keeps its clusters and machines as they were asked to be, and answers the command line.

mod account;
mod answer;
mod control_plane;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use files::FileError;
use futures_util::future::join_all;
use rustix::fs::{FlockOperation, flock};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Mutex, mpsc, watch};
use tokio::task::JoinHandle;
use tracing::{error, info, warn};

use crate::account::{AccountError, Running};
use crate::admin::Told;
use crate::cluster::ClusterError;
use crate::control_planes::{Closed, ControlPlanes};
use crate::progress::Progress;
use crate::server_files::ServerFilesError;
use crate::site::{self, ClusterSpec, Site};
use crate::turns::Turns;
use crate::{ec2, eks, exit, nodes};

pub(crate) use control_plane::{free_port, open_public_door};

use account::Following;

/// How long a daemon may take to finish after it was told to stop.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);
/// A request line of the command line.
const LINE_LIMIT: usize = 64 << 10;

#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("another daemon runs in {0}")]
    Busy(PathBuf),
    #[error(transparent)]
    Account(#[from] AccountError),
    #[error("no AWS endpoint runs here: it does while a cluster is up, `ekso up` starts one")]
    NoAccount,
    #[error(transparent)]
    ServerFiles(#[from] ServerFilesError),
    /// What `ekso why` cannot tell.
    #[error("{0}")]
    Question(String),
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error("{0}")]
    Machines(#[from] machines::Error),
    /// As `ekso doctor` says it.
    #[error("{0}")]
    Lacks(String),
    #[error("the API's port {port} on 127.0.0.1 cannot be used: {source}; choose another with --api-port")]
    Port { port: u16, source: io::Error },
    #[error(
        "no port is free for the API on 127.0.0.1: {0}; end what uses them, or widen net.ipv4.ip_local_port_range"
    )]
    NoPort(io::Error),
    #[error("listen inside the VPC: {0}")]
    Inside(String),
    #[error("there is no cluster named {0}: `ekso list` shows those there are")]
    NoCluster(String),
    #[error("the cluster {0} was stopped meanwhile")]
    Stopped(String),
    #[error("the cluster {0} is being deleted: try again when it is gone from `aws eks list-clusters`")]
    Going(String),
    #[error(transparent)]
    Closed(#[from] Closed),
    #[error(transparent)]
    Enter(#[from] eks::EnterError),
    #[error("the control plane of {0} has no network interfaces in the account")]
    NoPlace(String),
    #[error("{0}")]
    Nodes(#[from] nodes::NodesError),
    /// A command line of another version than the daemon.
    #[error(
        "the daemon does not understand this command ({0}): `ekso down` and `ekso up` bring both to one version"
    )]
    Unintelligible(serde_json::Error),
    /// Why it was not started with the files that were asked for.
    #[error("the cluster {name} runs on with the files that it had: {failure}")]
    Files { name: String, failure: Box<DaemonError> },
    #[error(transparent)]
    Ec2(#[from] ec2::Ec2Error),
    #[error("a worker ended: {0}")]
    Worker(#[from] tokio::task::JoinError),
}

impl DaemonError {
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::NoCluster(_) | Self::NoAccount => exit::NO_CLUSTER,
            Self::Lacks(_) | Self::Machines(_) => exit::MACHINE_LACKS,
            _ => exit::FAILED,
        }
    }
}

/// One site, held by this process alone.
pub struct Daemon {
    pub(crate) site: Site,
    pub(crate) machines: machines::Site,
    pub(crate) clusters: ControlPlanes,
    /// Of the command line's clusters while they are brought to what they should be, nodes included.
    starting: Turns,
    account: Mutex<Option<Running>>,
    keeper: Mutex<Option<JoinHandle<()>>>,
    /// Who makes true what the account says of EC2.
    ec2: Mutex<Option<Following>>,
    /// Whether the site's network was made in this life of the daemon.
    network_is_up: Mutex<bool>,
    /// Held as long as the daemon lives; the kernel lets go of it whatever happens.
    _lock: File,
}

impl Daemon {
    /// Takes hold of a site.
    pub fn open(site: Site) -> Result<Arc<Self>, DaemonError> {
        let path = site.dir.join("daemon.lock");
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(|error| FileError::new("open", &path, error))?;
        hold(&lock).map_err(|_| DaemonError::Busy(site.dir.clone()))?;
        let machines = machines::Site::open(&site.id, site.dir.join("vpc"))?;
        Ok(Arc::new(Self {
            site,
            machines,
            clusters: ControlPlanes::default(),
            starting: Turns::default(),
            account: Mutex::default(),
            keeper: Mutex::default(),
            ec2: Mutex::default(),
            network_is_up: Mutex::default(),
            _lock: lock,
        }))
    }

    /// Serves the command line until told to stop, with the clusters that should be up.
    pub async fn run(self: Arc<Self>, stop: watch::Receiver<bool>) -> Result<(), DaemonError> {
        let path = self.site.socket();
        let failed = |operation| {
            let path = path.clone();
            move |error| FileError::new(operation, &path, error)
        };
        // We hold the site's lock, so a socket here is a dead daemon's.
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).map_err(failed("listen on"))?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).map_err(failed("guard"))?;
        info!(site = self.site.id, dir = %self.site.dir.display(), "the daemon runs");
        // Until it is done, which is when its last node is Ready, the daemon listens already.
        let (resuming, resumed) = watch::channel(false);
        let daemon = self.clone();
        tokio::spawn(async move {
            daemon.resume().await;
            resuming.send_replace(true);
        });
        let (empty, mut is_empty) = watch::channel(false);
        let mut stopped = stop.clone();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = stopped.wait_for(|stop| *stop) => break,
                _ = is_empty.wait_for(|empty| *empty) => break,
            };
            match accepted {
                // The door's mode says the same; this holds whatever becomes of the file.
                Ok((stream, _)) if !stream.peer_cred().is_ok_and(|peer| is_trusted(peer.uid())) => {
                    warn!("a caller that is neither root nor this daemon's user was refused");
                }
                Ok((stream, _)) => {
                    let (daemon, empty, mut resumed) = (self.clone(), empty.clone(), resumed.clone());
                    tokio::spawn(async move {
                        daemon.converse(stream).await;
                        // What is still to be resumed has no turn yet. A sender that is gone means that nothing is.
                        let _ = resumed.wait_for(|done| *done).await;
                        if daemon.clusters.are_none().await {
                            empty.send_replace(true);
                        }
                    });
                }
                Err(failure) => warn!(%failure, "a caller could not be answered"),
            }
        }
        // One that stays is found to be a dead daemon's by the next.
        let _ = std::fs::remove_file(&path);
        self.close().await;
        self.stop_account().await;
        Ok(())
    }

    /// Lets nobody begin anything any more, and stops what runs.
    async fn close(&self) {
        // Who follows the account goes first: it would start again what is stopped.
        self.stop_following().await;
        let running = self.clusters.close().await;
        if !running.is_empty() {
            info!(clusters = running.len(), "stopping the control planes; their nodes go on");
        }
        join_all(running.values().map(|cluster| cluster.stop())).await;
    }

    /// Starts again what was up.
    async fn resume(self: &Arc<Self>) {
        let specs = match self.site.clusters() {
            Ok(specs) => specs,
            Err(failure) => return error!(%failure, "the clusters of the site cannot be read"),
        };
        let specs: Vec<ClusterSpec> = specs.into_iter().filter(|spec| spec.up).collect();
        if !specs.is_empty()
            && let Err(failure) = self.reopen_account().await
        {
            error!(%failure, "the AWS account, in which the clusters are, could not be opened");
        }
        let resume = async |spec: ClusterSpec| match self.start(&spec.name, &Progress::none()).await {
            // The keeper goes on with its end; or it is this daemon's.
            Ok(()) | Err(DaemonError::Going(_) | DaemonError::Closed(_)) => {}
            Err(failure) => error!(cluster = spec.name, %failure, "the cluster could not be resumed"),
        };
        join_all(specs.into_iter().map(resume)).await;
    }

    async fn converse(self: &Arc<Self>, stream: UnixStream) {
        let (read, mut write) = stream.into_split();
        let mut line = String::new();
        let mut reader = BufReader::new(tokio::io::AsyncReadExt::take(read, LINE_LIMIT as u64));
        if reader.read_line(&mut line).await.is_err() {
            return;
        }
        let (tell, mut told) = mpsc::unbounded_channel();
        let progress = Progress::to(tell.clone());
        let daemon = self.clone();
        let work = tokio::spawn(async move {
            let result = match serde_json::from_str(&line) {
                Ok(ask) => daemon.answer(ask, &progress).await,
                Err(wrong) => Err(DaemonError::Unintelligible(wrong)),
            };
            let end = match result {
                Ok(clusters) => Told::Done { clusters },
                Err(failure) => Told::Failed { code: failure.exit_code(), message: failure.to_string() },
            };
            // A caller that has gone away needs no end.
            let _ = tell.send(end);
        });
        while let Some(message) = told.recv().await {
            let Ok(mut text) = serde_json::to_vec(&message) else { break };
            text.push(b'\n');
            // A caller that has gone away does not stop the work.
            if write.write_all(&text).await.is_err() {
                break;
            }
        }
        if let Err(panic) = work.await {
            error!(%panic, "a request of the command line ended badly");
        }
    }

    async fn bring_network_up(&self) -> Result<(), DaemonError> {
        let mut is_up = self.network_is_up.lock().await;
        if !*is_up {
            let site = self.machines.clone();
            tokio::task::spawn_blocking(move || site.up()).await??;
            *is_up = true;
        }
        Ok(())
    }

    /// Removes the site, with whatever is in it, once it is [closed](Self::close). Can be repeated.
    async fn end(&self) -> Result<(), DaemonError> {
        self.stop_account().await;
        *self.network_is_up.lock().await = false;
        let machines = self.machines.clone();
        tokio::task::spawn_blocking(move || machines.delete()).await??;
        Ok(site::remove(&self.site.dir)?)
    }

    /// Whether there is no cluster any more, nor one that has just been asked for.
    async fn is_empty(&self) -> Result<bool, DaemonError> {
        let is_awaited = self.account().await.is_some_and(|(account, _)| eks::is_any_created(&account));
        Ok(!is_awaited && self.site.clusters()?.is_empty())
    }
}

/// Takes the site's lock. A daemon that is just stopping holds it a little longer than its door is open.
fn hold(lock: &File) -> rustix::io::Result<()> {
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        match flock(lock, FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(10));
            }
            other => return other,
        }
    }
}

fn is_trusted(uid: u32) -> bool {
    uid == 0 || uid == rustix::process::geteuid().as_raw()
}
