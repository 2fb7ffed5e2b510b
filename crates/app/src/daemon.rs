//! The daemon of a site: keeps its clusters and machines as they were asked to be, and answers the command line.

use std::fs::{File, OpenOptions};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use ::account::Account;
use aws::eks::VpcConfig;
use files::FileError;
use futures_util::future::join_all;
use machines::{doctor, netns};
use object::Snapshot;
use rustix::fs::{FlockOperation, flock};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Mutex, mpsc, watch};
use tokio::task::JoinHandle;
use tracing::{error, info, warn};

use crate::account::{self, AccountError};
use crate::admin::{Ask, AwsRequest, ClusterStatus, Told, UpRequest};
use crate::cluster::{API_PORT, Cluster, ClusterError, Setup};
use crate::control_planes::{Closed, ControlPlanes, Turn};
use crate::doors::Doors;
use crate::eks::{self, Keeper};
use crate::etcd::Place;
use crate::server_files::{ServerFiles, ServerFilesError};
use crate::shape::NEWEST;
use crate::site::{self, ClusterSpec, Site};
use crate::turns::Turns;
use crate::{census, ec2, exit, nodes};

/// Of the API on loopback, if it is free.
const FIRST_PORT: u16 = 6443;
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
    account: Mutex<Option<account::Running>>,
    keeper: Mutex<Option<JoinHandle<()>>>,
    /// Who makes true what the account says of EC2.
    ec2: Mutex<Option<Following>>,
    /// Whether the site's network was made in this life of the daemon.
    network_is_up: Mutex<bool>,
    /// Held as long as the daemon lives; the kernel lets go of it whatever happens.
    _lock: File,
}

/// A task that follows the account until it is told to stop.
struct Following {
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
            let insecure_registries = daemon.site.cluster(name).ok()??.insecure_registries;
            let token = match cluster.join_token(nodes::TOKEN_SECONDS, Some(node)).await {
                Ok(token) => token,
                Err(failure) => {
                    warn!(cluster = name, %failure, "no token for a node that joins");
                    return None;
                }
            };
            let (server, shape) = (*cluster.inside.first()?, &cluster.shape);
            let (dns, minor) = (shape.dns_ip().into(), shape.minor);
            Some(ec2::Join { server, token, dns, minor, insecure_registries })
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

/// Tells whoever waits what is being done.
#[derive(Clone)]
pub struct Progress(Option<mpsc::UnboundedSender<Told>>);

impl Progress {
    pub fn to(listener: mpsc::UnboundedSender<Told>) -> Self {
        Self(Some(listener))
    }

    pub fn none() -> Self {
        Self(None)
    }

    pub fn doing(&self, what: &str) {
        self.tell(Told::Doing { what: what.to_owned() });
    }

    pub fn step(&self, what: impl Into<String>, since: Instant) {
        let millis = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.tell(Told::Step { what: what.into(), millis });
    }

    fn tell(&self, told: Told) {
        if let Some(listener) = &self.0 {
            // Nobody listening any more does not stop the work.
            let _ = listener.send(told);
        }
    }
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
        let _ = std::fs::remove_file(&path);
        self.close().await;
        self.stop_account().await;
        Ok(())
    }

    /// Opens the site's AWS account if it is not open.
    async fn open_account(
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
        let running = account::Running::start(&self.site, &self.machines, wanted).await?;
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

    async fn follow_ec2(self: &Arc<Self>, running: &account::Running) -> Result<(), DaemonError> {
        let clusters = Arc::new(Joining(Arc::downgrade(self)));
        let (account, machines) = (running.account.clone(), self.machines.clone());
        let doer = ec2::Doer::new(account, machines, self.site.clone(), clusters, running.server()).await?;
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(doer.clone().run(stopped));
        *self.ec2.lock().await = Some(Following { doer, stop, task });
        Ok(())
    }

    /// From here on what happens in the account has no effect.
    async fn stop_following(&self) {
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

    async fn stop_account(&self) {
        // Whoever is just opening it has it followed, too.
        let mut held = self.account.lock().await;
        self.stop_following().await;
        if let Some(running) = held.take() {
            running.stop().await;
        }
    }

    /// Opens the account that there was. That somebody else has taken its port is no reason for clusters to stay down.
    async fn reopen_account(self: &Arc<Self>) -> Result<(), DaemonError> {
        let opened = self.open_account(&AwsRequest::default(), &Progress::none()).await;
        let Err(DaemonError::Account(failure @ AccountError::Port { .. })) = opened else { return opened };
        warn!(%failure, "the AWS endpoint answers at another port: `ekso up` tells the profile");
        let anywhere = AwsRequest { port: Some(0), ..AwsRequest::default() };
        self.open_account(&anywhere, &Progress::none()).await
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
        let progress = Progress(Some(tell.clone()));
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

    pub async fn answer(
        self: &Arc<Self>,
        ask: Ask,
        progress: &Progress,
    ) -> Result<Vec<ClusterStatus>, DaemonError> {
        match ask {
            Ask::Up(request) => {
                let (spec, is_new) = self.wish(&request).await?;
                let started = match self.found(is_new && spec.nodes > 0, doctor::AT_ONCE).await? {
                    Some(lacks) => Err(DaemonError::Lacks(lacks)),
                    None => match self.open_account(&request.aws, progress).await {
                        Ok(()) => self.start(&spec.name, progress).await,
                        Err(failure) => Err(failure),
                    },
                };
                if let Err(failure) = started {
                    // One that never ran is not left behind half-made. One whose nodes failed is: their logs say why.
                    if is_new && self.clusters.get(&spec.name).is_none() {
                        return Err(self.undo(&spec, failure).await);
                    }
                    return Err(failure);
                }
                self.status(Some(&spec.name)).await
            }
            Ask::Down { name } => {
                let turn = self.clusters.turn(&name).await?;
                self.down(&turn, progress).await?;
                Ok(Vec::new())
            }
            Ask::Delete { name } => {
                if self.site.cluster(&name)?.is_none() {
                    return Err(DaemonError::NoCluster(name));
                }
                // What of it the account knows goes with it; one that cannot be opened is no reason to keep the cluster.
                if let Err(failure) = self.open_account(&AwsRequest::default(), progress).await {
                    warn!(cluster = name, %failure, "the account still knows of the cluster");
                }
                self.delete(&name, progress).await?;
                Ok(Vec::new())
            }
            Ask::DeleteAll => {
                if let Err(failure) = self.open_account(&AwsRequest::default(), progress).await {
                    warn!(%failure, "everything goes without the account's word");
                }
                // Somebody may ask for another while these go.
                while let Some(spec) = self.site.clusters()?.first() {
                    self.remove(&spec.name, progress).await?;
                }
                self.close().await;
                self.end().await?;
                Ok(Vec::new())
            }
            Ask::Account => {
                let running = self.account.lock().await;
                let status = running.as_ref().ok_or(DaemonError::NoAccount)?.status().await?;
                progress.tell(Told::Account(status));
                Ok(Vec::new())
            }
            Ask::Why(question) => {
                let running = self.account.lock().await;
                let told = running.as_ref().ok_or(DaemonError::NoAccount)?.why(&question);
                progress.tell(Told::Because(told.map_err(DaemonError::Question)?));
                Ok(Vec::new())
            }
            Ask::Cost => {
                let (account, _) = self.account().await.ok_or(DaemonError::NoAccount)?;
                let objects = |name: &str| Some(self.clusters.get(name)?.gate.store().snapshot());
                let state = account.snapshot();
                let bill = aws::cost::bill(&state, &account.identity.region, account.now(), &objects);
                progress.tell(Told::Costs(bill));
                Ok(Vec::new())
            }
            Ask::Status { name } => self.status(name.as_deref()).await,
        }
    }

    /// What of these checks finds this host unfit, each with its mend; if it is to be asked at all.
    async fn found(&self, ask: bool, checks: &'static [&'static str]) -> Result<Option<String>, DaemonError> {
        if !ask {
            return Ok(None);
        }
        let site = self.machines.clone();
        let examined = tokio::task::spawn_blocking(move || {
            doctor::examine_some(&doctor::Subject { site: &site }, checks)
        });
        let mut findings = examined.await?;
        findings.retain(|finding| finding.level == doctor::Level::Error);
        let lines = findings.iter().map(|finding| format!("{}; mend: {}", finding.what, finding.mend));
        Ok((!findings.is_empty()).then(|| lines.collect::<Vec<_>>().join("\n")))
    }

    /// Removes what was made of a cluster that could not be started, and says why as well as it can be known.
    async fn undo(&self, spec: &ClusterSpec, failure: DaemonError) -> DaemonError {
        let is_the_host = matches!(failure, DaemonError::Machines(_) | DaemonError::Inside(_));
        let lacks = self.found(is_the_host, &["links", "namespaces", "nftables", "pool", "root"]).await;
        if let Err(left) = self.delete(&spec.name, &Progress::none()).await {
            error!(cluster = spec.name, %left, "what was half-made could not be removed");
        }
        match lacks {
            Ok(Some(lacks)) => DaemonError::Lacks(format!("{failure}\n{lacks}")),
            _ => failure,
        }
    }

    /// Writes down what a cluster should be, and gives that, and whether it is a new one.
    async fn wish(&self, request: &UpRequest) -> Result<(ClusterSpec, bool), DaemonError> {
        let _turn = self.clusters.turn(&request.name).await?;
        if let Some((account, _)) = self.account().await {
            refuse_going(&account, &request.name)?;
        }
        let is_new = self.site.cluster(&request.name)?.is_none();
        let spec = self.spec_for(request)?;
        self.site.save(&spec)?;
        Ok((spec, is_new))
    }

    /// What the cluster should be: what it was, with what was asked for now.
    fn spec_for(&self, request: &UpRequest) -> Result<ClusterSpec, DaemonError> {
        let known = self.site.cluster(&request.name)?;
        let is_new = known.is_none();
        let mut spec = known.unwrap_or_else(|| ClusterSpec {
            name: request.name.clone(),
            nodes: 1,
            api_port: 0,
            up: true,
            insecure_registries: Vec::new(),
            minor: NEWEST,
            services: None,
            pods: None,
            issuer: None,
            place: Place::default(),
            files: ServerFiles::default(),
        });
        spec.up = true;
        spec.nodes = request.nodes.unwrap_or(spec.nodes);
        if !request.insecure_registries.is_empty() {
            spec.insecure_registries.clone_from(&request.insecure_registries);
        }
        if request.place.store.is_some() {
            spec.place.clone_from(&request.place);
        }
        let before = std::mem::take(&mut spec.files);
        let kept = request.without.iter().fold(before.clone(), |kept, flag| kept.without(*flag));
        spec.files = request.files.clone().or(kept);
        if spec.files != before {
            // What is wrong with them is told before anything is stopped or written down.
            spec.files.check(&before, &spec.shape().issuer)?;
        }
        match request.api_port {
            Some(0) => spec.api_port = free_port(0)?,
            Some(port) => spec.api_port = port,
            None if is_new => spec.api_port = free_port(FIRST_PORT).or_else(|_| free_port(0))?,
            None => {}
        }
        Ok(spec)
    }

    /// Brings a cluster to what it should be, from wherever it is.
    async fn start(self: &Arc<Self>, name: &str, progress: &Progress) -> Result<(), DaemonError> {
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

    async fn bring_network_up(&self) -> Result<(), DaemonError> {
        let mut is_up = self.network_is_up.lock().await;
        if !*is_up {
            let site = self.machines.clone();
            tokio::task::spawn_blocking(move || site.up()).await??;
            *is_up = true;
        }
        Ok(())
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

    async fn down(&self, turn: &Turn<'_>, progress: &Progress) -> Result<(), DaemonError> {
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
    async fn delete(&self, name: &str, progress: &Progress) -> Result<(), DaemonError> {
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
    async fn remove(&self, name: &str, progress: &Progress) -> Result<(), DaemonError> {
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

    async fn status(&self, name: Option<&str>) -> Result<Vec<ClusterStatus>, DaemonError> {
        let mut all = Vec::new();
        let memory_bytes = census::memory_bytes(self.machines.id());
        for spec in self.site.clusters()? {
            if name.is_none_or(|name| name == spec.name) {
                let cluster = self.clusters.get(&spec.name);
                all.push(census::status(&self.site, memory_bytes, &spec, cluster.as_deref()));
            }
        }
        match name {
            Some(name) if all.is_empty() => Err(DaemonError::NoCluster(name.to_owned())),
            _ => Ok(all),
        }
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

/// One that was told to go, by whoever, is not brought back.
fn refuse_going(account: &Account, name: &str) -> Result<(), DaemonError> {
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

fn is_trusted(uid: u32) -> bool {
    uid == 0 || uid == rustix::process::geteuid().as_raw()
}

/// A port of the loopback address that nobody listens on now; `wanted`, unless that is zero.
pub(crate) fn free_port(wanted: u16) -> Result<u16, DaemonError> {
    let listener = match wanted {
        0 => TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(DaemonError::NoPort)?,
        port => listen(port)?,
    };
    Ok(listener.local_addr().map_err(DaemonError::NoPort)?.port())
}

/// How long a daemon that was just started may take to open its door.
pub const DOOR_PATIENCE: Duration = Duration::from_secs(20);
