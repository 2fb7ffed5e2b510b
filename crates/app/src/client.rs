//! The command line's side: finds or starts the daemon, asks it, and keeps the kubeconfig.

use std::io::{BufRead, BufReader, IsTerminal, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use files::FileError;

use crate::admin::{Ask, ClusterStatus, Told, UpRequest};
use crate::cli::{self, Delete, Format, Listing, Named, Status, Up};
use crate::daemon::{Daemon, DaemonError};
use crate::exit;
use crate::kubeconfig::{self, Context, KubeconfigError};
use crate::output::{self, Screen};
use crate::owner::Owner;
use crate::pki::Pair;
use crate::profile::{self, ProfileError};
use crate::progress::Progress;
use crate::site::{self, ContextRecord, Site};

/// How long a daemon that was just started may take to open its door.
const DOOR_PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Kubeconfig(#[from] KubeconfigError),
    #[error(transparent)]
    Profile(#[from] ProfileError),
    #[error("no AWS endpoint runs here: it does while a cluster is up, `ekso up` starts one")]
    NoAccount,
    #[error(transparent)]
    Daemon(#[from] DaemonError),
    #[error("{0} needs root: run it with sudo")]
    NotRoot(&'static str),
    #[error("find the current folder: {0}")]
    Folder(std::io::Error),
    #[error(
        "root lacks {0} here: run ekso on the host itself, or in a container that is privileged; `ekso doctor` says more"
    )]
    FewRights(String),
    #[error("start the daemon: {0}")]
    Spawn(std::io::Error),
    #[error("the daemon did not come up; the end of its log, {log}:\n{tail}")]
    NotUp { log: PathBuf, tail: String },
    #[error("the daemon was just stopping: try again")]
    Gone,
    #[error("talk to the daemon: {0}")]
    Talk(std::io::Error),
    #[error("{message}")]
    Failed { message: String, code: u8 },
    #[error("there is no cluster named {name}: {instead}")]
    NoCluster { name: String, instead: String },
    #[error("print as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

impl ClientError {
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Failed { code, .. } => *code,
            Self::NoCluster { .. } | Self::NoAccount => exit::NO_CLUSTER,
            Self::Daemon(failure) => failure.exit_code(),
            Self::FewRights(_) | Self::NotRoot(_) => exit::MACHINE_LACKS,
            _ => exit::FAILED,
        }
    }
}

fn need_root(what: &'static str) -> Result<(), ClientError> {
    if rustix::process::geteuid().is_root() { Ok(()) } else { Err(ClientError::NotRoot(what)) }
}

/// Before anything is made: a container may leave root with half of its rights.
fn need_rights() -> Result<(), ClientError> {
    let missing = machines::doctor::missing_capabilities();
    if missing.is_empty() { Ok(()) } else { Err(ClientError::FewRights(missing.join(", "))) }
}

pub fn up(args: &Up, screen: &Screen) -> Result<(), ClientError> {
    need_root("ekso up")?;
    need_rights()?;
    let since = Instant::now();
    let site = Site::open(&args.cluster.site.data_dir)?;
    let request = UpRequest {
        name: args.cluster.name.clone(),
        nodes: args.nodes,
        api_port: args.api_port,
        registries: args.registries.clone(),
        place: args.place.clone().absolute().map_err(ClientError::Folder)?,
        files: args.files.clone().absolute().map_err(ClientError::Folder)?,
        without: args.without.clone(),
        aws: args.aws.wanted(),
    };
    let what = Ask::Up(Box::new(request));
    let asked = match ask(open_door(&site)?, &what, screen) {
        // Its successor is asked instead.
        Err(ClientError::Gone) => ask(open_door(&site)?, &what, screen),
        other => other,
    };
    let clusters = asked.map_err(|failure| with_a_way_in(failure, &site, args))?;
    let Some(cluster) = clusters.first() else { return Ok(()) };
    let path = merge_context(&site, cluster, args.kubeconfig.as_deref())?;
    screen.step("cluster is up", u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX));
    screen.say(&format!("\nContext \"{}\" is in {}", cluster.context, path.display()));
    // Without its profile the cluster is up all the same.
    match write_profile(&site, &args.aws) {
        Ok(Some(record)) => {
            let path = record.files.config.display();
            screen.say(&format!(
                "AWS profile \"{}\" is in {path}: `ekso aws` shows what is there",
                record.profile
            ));
            if std::env::var_os("AWS_CA_BUNDLE").is_some() {
                screen.say(
                    "AWS_CA_BUNDLE is set here and hides the profile's own: unset it to use the profile",
                );
            }
        }
        Ok(None) => {}
        Err(failure) => screen.error(&format!("the AWS profile was not written: {failure}")),
    }
    screen.next("Try:", "kubectl get nodes");
    Ok(())
}

/// A cluster whose nodes failed is there to be looked at: its context is made all the same, and the failure says so.
fn with_a_way_in(failure: ClientError, site: &Site, args: &Up) -> ClientError {
    let ClientError::Failed { message, code } = failure else { return failure };
    let context = || {
        let clusters =
            run_or_ask(site, &Ask::Status { name: Some(args.cluster.name.clone()) }, &Screen::new());
        let cluster = clusters.ok()?.into_iter().find(|cluster| cluster.is_running())?;
        let path = merge_context(site, &cluster, args.kubeconfig.as_deref()).ok()?;
        Some(format!("The API answers: context \"{}\" is in {}", cluster.context, path.display()))
    };
    match context() {
        Some(told) => ClientError::Failed { message: format!("{message}\n{told}"), code },
        None => ClientError::Failed { message, code },
    }
}

/// Puts the cluster's context into the kubeconfig.
///
/// It is selected when a person asked, or a file was named, or nothing was selected; a script does not change what is selected.
fn merge_context(site: &Site, cluster: &ClusterStatus, path: Option<&Path>) -> Result<PathBuf, ClientError> {
    let owner = Owner::current();
    let known = site.context(&cluster.name)?;
    let path = match (path, &known) {
        (Some(path), _) => std::path::absolute(path).map_err(|error| FileError::new("find", path, error))?,
        (None, _) => kubeconfig::default_path(&owner)?,
    };
    let pki = site.cluster_dir(&cluster.name).join("pki");
    let read = |name: &str| -> Result<String, FileError> {
        let bytes = files::read(&pki.join(name))?.unwrap_or_default();
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let admin = Pair { certificate: read("admin.crt")?, key: read("admin.key")? };
    let ca_pem = read("ca.crt")?;
    let context =
        Context { name: &cluster.context, server: &cluster.endpoint, ca_pem: &ca_pem, admin: &admin };
    let is_person = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
    let was_named = known.as_ref().is_none_or(|known| known.path != path) && path_is_given(&path, &owner);
    let previous = kubeconfig::merge(&path, &owner, &context, is_person || was_named)?;
    let kept = known.filter(|known| known.path == path).and_then(|known| known.previous);
    site.save_context(&cluster.name, &ContextRecord { path: path.clone(), previous: previous.or(kept) })?;
    Ok(path)
}

/// Puts the site's AWS profile where it was asked for, or where it was.
fn write_profile(site: &Site, args: &cli::Aws) -> Result<Option<profile::Record>, ProfileError> {
    let Some(access) = site.access()? else { return Ok(None) };
    let owner = Owner::current();
    let known = site.profile()?;
    let place = match &known {
        Some(known) if args.aws_config.is_none() && args.aws_credentials.is_none() => known.files.clone(),
        _ => profile::files(args.aws_config.as_deref(), args.aws_credentials.as_deref(), &owner)?,
    };
    if let Some(elsewhere) = known.filter(|known| known.files != place) {
        profile::remove(site, &owner, &elsewhere)?;
    }
    let record = profile::write(site, &owner, &place, &access, &site.aws_authorities()?)?;
    site.save_profile(record.clone())?;
    Ok(Some(record))
}

/// Whether somebody named this file, by the option or the environment.
fn path_is_given(path: &Path, owner: &Owner) -> bool {
    let usual = owner.home.as_ref().map(|home| home.join(".kube/config"));
    usual.is_none_or(|usual| usual != path)
}

pub fn down(args: &Named, screen: &Screen) -> Result<(), ClientError> {
    need_root("ekso down")?;
    let site = existing(args)?;
    run_or_ask(&site, &Ask::Down { name: args.name.clone() }, screen).map(drop)
}

pub fn delete(args: &Delete, screen: &Screen) -> Result<(), ClientError> {
    need_root("ekso delete")?;
    let named = &args.cluster;
    let (site, names, what) = if args.all {
        let Some(site) = Site::find(&named.site.data_dir)? else { return Ok(()) };
        let names = site.clusters()?.into_iter().map(|spec| spec.name).collect();
        (site, names, Ask::DeleteAll)
    } else {
        (existing(named)?, vec![named.name.clone()], Ask::Delete { name: named.name.clone() })
    };
    // Read before it is gone.
    let contexts = names.iter().map(|name| Ok((name, site.context(name)?)));
    let contexts: Vec<_> = contexts.collect::<Result<_, FileError>>()?;
    let profile = site.profile()?;
    run_or_ask(&site, &what, screen)?;
    let owner = Owner::current();
    // The account goes with the last cluster.
    if let Some(profile) = profile.filter(|_| !site.aws().exists()) {
        profile::remove(&site, &owner, &profile)?;
    }
    for (name, record) in contexts {
        let (path, previous) = record.map_or((None, None), |record| (Some(record.path), record.previous));
        if let Some(path) = args.kubeconfig.clone().or(path) {
            kubeconfig::remove(&path, &owner, &site::context_name(name), previous.as_deref())?;
        }
    }
    Ok(())
}

/// The site of a cluster that must exist.
fn existing(args: &Named) -> Result<Site, ClientError> {
    let site = Site::find(&args.site.data_dir)?;
    let clusters = site.as_ref().map_or_else(|| Ok(Vec::new()), Site::clusters)?;
    let others: Vec<&str> = clusters.iter().map(|spec| spec.name.as_str()).collect();
    match site.filter(|_| others.contains(&&*args.name)) {
        Some(site) => Ok(site),
        None => {
            let name = args.name.clone();
            let instead = match &*others {
                [] => format!("`ekso up --name {name}` makes one"),
                others => format!("choose with --name, there are: {}", others.join(", ")),
            };
            Err(ClientError::NoCluster { name, instead })
        }
    }
}

pub fn list(args: &Listing, screen: &Screen) -> Result<(), ClientError> {
    need_root("ekso list")?;
    let clusters = match Site::find(&args.site.data_dir)? {
        Some(site) => run_or_ask(&site, &Ask::Status { name: None }, screen)?,
        None => Vec::new(),
    };
    match args.output.output {
        Format::Json => println!("{}", serde_json::to_string_pretty(&clusters)?),
        Format::Text if clusters.is_empty() => screen.next("No clusters. Make one:", "sudo ekso up"),
        Format::Text => println!("{}", output::cluster_list(&clusters)),
    }
    Ok(())
}

pub fn status(args: &Status, screen: &Screen) -> Result<(), ClientError> {
    need_root("ekso status")?;
    let site = existing(&args.cluster)?;
    let name = Some(args.cluster.name.clone());
    let clusters = run_or_ask(&site, &Ask::Status { name }, screen)?;
    for cluster in &clusters {
        match args.output.output {
            Format::Json => println!("{}", serde_json::to_string_pretty(cluster)?),
            Format::Text => println!("{}", output::cluster_status(cluster)),
        }
    }
    Ok(())
}

pub fn aws(args: &Listing, screen: &Screen) -> Result<(), ClientError> {
    need_root("ekso aws")?;
    let site = Site::find(&args.site.data_dir)?.ok_or(ClientError::NoAccount)?;
    let door = UnixStream::connect(site.socket()).map_err(|_| ClientError::NoAccount)?;
    let mut status = None;
    ask_and(door, &Ask::Account, |told| match told {
        Told::Account(told) => status = Some(told),
        other => screen.told(&other),
    })?;
    let mut status = status.ok_or(ClientError::NoAccount)?;
    status.profile = site.profile()?.map(|record| record.profile).unwrap_or_default();
    match args.output.output {
        Format::Json => println!("{}", serde_json::to_string_pretty(&status)?),
        Format::Text => println!("{}", output::account_status(&status)),
    }
    Ok(())
}

/// What it would all cost on AWS.
pub fn cost(args: &Listing, screen: &Screen) -> Result<(), ClientError> {
    need_root("ekso cost")?;
    let site = Site::find(&args.site.data_dir)?.ok_or(ClientError::NoAccount)?;
    let door = UnixStream::connect(site.socket()).map_err(|_| ClientError::NoAccount)?;
    let mut bill = None;
    ask_and(door, &Ask::Cost, |told| match told {
        Told::Costs(told) => bill = Some(told),
        other => screen.told(&other),
    })?;
    let bill = bill.ok_or(ClientError::NoAccount)?;
    match args.output.output {
        Format::Json => println!("{}", serde_json::to_string_pretty(&bill)?),
        Format::Text => println!("{}", output::bill(&bill)),
    }
    Ok(())
}

/// Whether somebody may do something in the AWS account, and what decided it.
pub fn why_aws(args: &cli::WhyAws, screen: &Screen) -> Result<(), ClientError> {
    need_root("ekso why")?;
    let site = Site::find(&args.listing.site.data_dir)?.ok_or(ClientError::NoAccount)?;
    let door = UnixStream::connect(site.socket()).map_err(|_| ClientError::NoAccount)?;
    let mut explanation = None;
    ask_and(door, &Ask::Why(args.question()), |told| match told {
        Told::Because(told) => explanation = Some(told),
        other => screen.told(&other),
    })?;
    let explanation = explanation.ok_or(ClientError::NoAccount)?;
    match args.listing.output.output {
        Format::Json => println!("{}", serde_json::to_string_pretty(&explanation)?),
        Format::Text => println!("{}", output::explanation(&explanation)),
    }
    Ok(())
}

/// Asks the daemon if one runs, and does it here otherwise: stopping and removing need no daemon.
fn run_or_ask(site: &Site, what: &Ask, screen: &Screen) -> Result<Vec<ClusterStatus>, ClientError> {
    if let Ok(door) = UnixStream::connect(site.socket()) {
        match ask(door, what, screen) {
            Err(ClientError::Gone) => {}
            other => return other,
        }
    }
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ClientError::Spawn)?;
    runtime.block_on(async {
        let daemon = Daemon::open(site.clone())?;
        let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
        let result = daemon.answer(what.clone(), &Progress::to(tell)).await;
        while let Ok(message) = told.try_recv() {
            screen.told(&message);
        }
        Ok(result?)
    })
}

/// A connection to the daemon, which is started if none runs.
fn open_door(site: &Site) -> Result<UnixStream, ClientError> {
    if let Ok(door) = UnixStream::connect(site.socket()) {
        return Ok(door);
    }
    let log_path = site.log();
    let log = std::fs::OpenOptions::new().create(true).append(true).open(&log_path);
    let log = log.map_err(|error| FileError::new("open", &log_path, error))?;
    let start = log.metadata().map_or(0, |meta| meta.len());
    let errors = log.try_clone().map_err(ClientError::Spawn)?;
    let mut command = Command::new("/proc/self/exe");
    command.args(["server", "--daemon", "--data-dir"]).arg(&site.dir);
    command.stdin(Stdio::null()).stdout(log).stderr(errors).current_dir("/");
    // Of its own session, so that the terminal's interrupts and end do not reach it.
    // SAFETY: setsid is async-signal-safe and touches no memory of ours.
    unsafe {
        command.pre_exec(|| rustix::process::setsid().map(drop).map_err(Into::into));
    }
    let mut child = command.spawn().map_err(ClientError::Spawn)?;
    let deadline = Instant::now() + DOOR_PATIENCE;
    while Instant::now() < deadline {
        if let Ok(door) = UnixStream::connect(site.socket()) {
            return Ok(door);
        }
        if child.try_wait().map_err(ClientError::Spawn)?.is_some() {
            break;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let text = std::fs::read(&log_path).unwrap_or_default();
    let new = text.get(usize::try_from(start).unwrap_or(0)..).unwrap_or_default();
    let tail = String::from_utf8_lossy(new).trim().to_owned();
    Err(ClientError::NotUp { log: log_path, tail })
}

fn ask(door: UnixStream, what: &Ask, screen: &Screen) -> Result<Vec<ClusterStatus>, ClientError> {
    ask_and(door, what, |told| screen.told(&told))
}

/// Asks, and hears what is told before the end.
fn ask_and(
    door: UnixStream,
    what: &Ask,
    mut hear: impl FnMut(Told),
) -> Result<Vec<ClusterStatus>, ClientError> {
    let mut line = serde_json::to_vec(what)?;
    line.push(b'\n');
    let mut has_begun = false;
    // A door that closes before a word is said is that of a daemon that has just stopped: it has not heard of this.
    let closed = |has_begun, error| if has_begun { ClientError::Talk(error) } else { ClientError::Gone };
    (&door).write_all(&line).map_err(|error| closed(has_begun, error))?;
    for line in BufReader::new(&door).lines() {
        let told: Told = serde_json::from_str(&line.map_err(|error| closed(has_begun, error))?)?;
        has_begun = true;
        match told {
            Told::Done { clusters } => return Ok(clusters),
            Told::Failed { message, code } => return Err(ClientError::Failed { message, code }),
            other => hear(other),
        }
    }
    Err(closed(has_begun, std::io::ErrorKind::UnexpectedEof.into()))
}
