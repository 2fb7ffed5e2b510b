//! The command line: what can be said, in one place. Help, completions and parsing come from it.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::account;
use crate::admin::AwsRequest;
use crate::etcd::Place;
use crate::registries::Registries;
use crate::server_files::{Flag, ServerFiles};
use crate::site;

/// Kubernetes on one Linux machine, from one command.
#[derive(Debug, Parser)]
#[command(name = "ekso", version, arg_required_else_help = true, max_term_width = 100)]
#[command(
    after_help = "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 there is no such cluster, 4 the machine lacks something (see `ekso doctor`)."
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start or resume a cluster and select it in the kubeconfig
    Up(Up),
    /// Stop a cluster and keep its data
    Down(Named),
    /// Remove a cluster without trace: processes, namespaces, mounts, data, kubeconfig context
    Delete(Delete),
    /// List clusters
    List(Listing),
    /// Show what runs, where, and how big it is
    Status(Status),
    /// Show the AWS endpoint, what is in the account, and an example
    Aws(Listing),
    /// Show what the running clusters would cost on EKS
    Cost(Listing),
    /// Say why something is allowed or refused
    #[command(subcommand)]
    Why(Why),
    /// Bring images to the nodes
    #[command(subcommand)]
    Image(Image),
    /// Run a control plane in the foreground: for several hosts, or under a supervisor
    Server(Server),
    /// Run this host as a node of a cluster
    Node(Node),
    /// Check what this machine lacks, each finding with its mend
    Doctor(Doctor),
    /// Print a systemd unit that brings clusters back after a reboot
    SystemdUnit(Site),
    /// Print completions for a shell
    Completion { shell: clap_complete::Shell },
}

/// Where a site's data is.
#[derive(Clone, Debug, Args)]
pub struct Site {
    /// Folder of all clusters, images and machines
    #[arg(long, value_name = "DIR", env = "EKSO_DATA_DIR", default_value = site::DEFAULT_DATA_DIR)]
    pub data_dir: PathBuf,
}

#[derive(Clone, Debug, Args)]
pub struct Named {
    /// Name of the cluster
    #[arg(long, default_value = "dev", value_parser = site::cluster_name)]
    pub name: String,
    #[command(flatten)]
    pub site: Site,
}

#[derive(Debug, Args)]
pub struct Up {
    #[command(flatten)]
    pub cluster: Named,
    /// How many nodes the cluster should have [default: 1, or what it had]
    #[arg(long, value_parser = clap::value_parser!(u16).range(0..=250))]
    pub nodes: Option<u16>,
    /// Where to put the context [default: $KUBECONFIG, or ~/.kube/config of the user behind sudo]
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Stay in the foreground until interrupted
    #[arg(long)]
    pub foreground: bool,
    /// Port of the API on the loopback address; 0 takes a free one [default: 6443 if free]
    #[arg(long, value_name = "PORT")]
    pub api_port: Option<u16>,
    #[command(flatten)]
    pub registries: Registries,
    #[command(flatten)]
    pub place: Place,
    #[command(flatten)]
    pub files: ServerFiles,
    /// Take off what this flag gave the cluster before; the state itself is not touched
    #[arg(long, value_name = "FLAG", value_enum)]
    pub without: Vec<Flag>,
    #[command(flatten)]
    pub aws: Aws,
}

/// The AWS endpoint that every site has, and the profile for it.
#[derive(Clone, Debug, Args)]
pub struct Aws {
    /// Port of the AWS endpoint on the loopback address; 0 takes a free one [default: 4566 if free]
    #[arg(long, value_name = "PORT")]
    pub aws_port: Option<u16>,
    /// Region of the AWS account; it stays what it was first [default: us-east-1]
    #[arg(long, value_name = "REGION", value_parser = account::region_name)]
    pub aws_region: Option<String>,
    /// Where to put the profile "ekso" [default: ~/.aws/config of the user behind sudo]
    #[arg(long, value_name = "FILE", env = "AWS_CONFIG_FILE")]
    pub aws_config: Option<PathBuf>,
    /// Where to put its keys [default: ~/.aws/credentials of the user behind sudo]
    #[arg(long, value_name = "FILE", env = "AWS_SHARED_CREDENTIALS_FILE")]
    pub aws_credentials: Option<PathBuf>,
}

impl Aws {
    pub fn wanted(&self) -> AwsRequest {
        AwsRequest { port: self.aws_port, region: self.aws_region.clone() }
    }
}

#[derive(Debug, Args)]
pub struct Delete {
    #[command(flatten)]
    pub cluster: Named,
    /// Every cluster, those of the AWS API too, and the AWS account
    #[arg(long, conflicts_with = "name")]
    pub all: bool,
    /// The kubeconfig that the context was put in [default: the one that `up` used]
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Listing {
    #[command(flatten)]
    pub site: Site,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Debug, Args)]
pub struct Status {
    #[command(flatten)]
    pub cluster: Named,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Clone, Copy, Debug, Args)]
pub struct Output {
    /// How to print it
    #[arg(long, short, value_enum, default_value_t = Format::Text)]
    pub output: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people
    Text,
    /// For scripts
    Json,
}

#[derive(Debug, Subcommand)]
pub enum Image {
    /// Import an OCI layout or a `docker save` archive (FILE, a folder, or `-`), or any folder as an image
    Import(ImageImport),
    /// List images
    List(Listing),
    /// Remove images by name
    Remove {
        #[command(flatten)]
        cluster: Named,
        #[arg(required = true)]
        images: Vec<String>,
    },
}

#[derive(Debug, Args)]
pub struct ImageImport {
    #[command(flatten)]
    pub cluster: Named,
    /// Make an image of this folder; then the argument is its NAME:TAG
    #[arg(long, value_name = "DIR")]
    pub rootfs: Option<PathBuf>,
    /// What containers of the image run, with --rootfs: `args` of a pod go behind it
    #[arg(long, requires = "rootfs")]
    pub entrypoint: Option<String>,
    /// What they run, or behind --entrypoint the arguments of that, with --rootfs: `args` of a pod take its place
    #[arg(long, requires = "rootfs")]
    pub cmd: Option<String>,
    /// FILE, folder or `-`; NAME:TAG with --rootfs
    #[arg(value_name = "FILE|NAME:TAG")]
    pub source: String,
}

#[derive(Debug, Subcommand)]
pub enum Why {
    /// Whether a user or role of the AWS account may do something, and which policy says so
    Aws(WhyAws),
}

#[derive(Debug, Args)]
pub struct WhyAws {
    /// What is to be done: eks:CreateCluster
    #[arg(value_name = "SERVICE:ACTION")]
    pub action: String,
    /// With what: an ARN
    #[arg(long, value_name = "ARN")]
    pub resource: Option<String>,
    /// By whom: an ARN, or user/NAME or role/NAME of the account
    #[arg(long, value_name = "ARN", default_value = "user/admin")]
    pub principal: String,
    /// Under which condition; a key with several values has commas between them
    #[arg(long = "condition", value_name = "KEY=VALUE", value_parser = condition)]
    pub conditions: Vec<(String, Vec<String>)>,
    #[command(flatten)]
    pub listing: Listing,
}

impl WhyAws {
    pub fn question(&self) -> aws::iam::Question {
        aws::iam::Question {
            principal: self.principal.clone(),
            action: self.action.clone(),
            resource: self.resource.clone().unwrap_or_default(),
            keys: self.conditions.clone(),
        }
    }
}

/// `aws:TagKeys=team,cost`
fn condition(text: &str) -> Result<(String, Vec<String>), String> {
    let (key, values) = text.split_once('=').ok_or("write it as KEY=VALUE: aws:SourceIp=203.0.113.7")?;
    Ok((key.to_owned(), values.split(',').map(str::to_owned).collect()))
}

/// A feature that is switched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// CBOR is read and written at the API.
    Cbor(bool),
}

/// `CBORServingAndStorage=true`
fn feature(text: &str) -> Result<Feature, String> {
    let (name, switch) = text.split_once('=').ok_or("write it as NAME=true or NAME=false")?;
    let switch = switch.parse().map_err(|_| format!("{switch} is neither true nor false"))?;
    match name {
        "CBORServingAndStorage" => Ok(Feature::Cbor(switch)),
        _ => Err(format!("{name} cannot be switched here: CBORServingAndStorage is all there is")),
    }
}

#[derive(Debug, Args)]
pub struct Server {
    #[command(flatten)]
    pub cluster: Named,
    /// Address of the API: loopback unless told
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<std::net::SocketAddr>,
    /// Names and addresses that nodes and clients may use for this server, besides the listening one
    #[arg(long, value_name = "NAME")]
    pub advertise: Vec<String>,
    #[command(flatten)]
    pub place: Place,
    #[command(flatten)]
    pub files: ServerFiles,
    /// Features to switch, as upstream names them; known is CBORServingAndStorage [default: off], of which CBOR is served and not stored
    #[arg(long, value_name = "NAME=BOOL", value_delimiter = ',', value_parser = feature)]
    pub feature_gates: Vec<Feature>,
    /// Run the clusters of this data folder for `ekso up`; started by it
    #[arg(long, hide = true)]
    pub daemon: bool,
}

#[derive(Clone, Debug, Args)]
pub struct Node {
    /// URL of the API server
    #[arg(long, value_name = "URL")]
    pub server: String,
    /// The join token that `ekso server` printed; it also pins the cluster's authority
    #[arg(long, env = "EKSO_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// A file that holds the token, instead of --token
    #[arg(long, value_name = "FILE", conflicts_with = "token")]
    pub token_file: Option<PathBuf>,
    /// Name of the node [default: the host's name]
    #[arg(long)]
    pub name: Option<String>,
    #[command(flatten)]
    pub site: Site,
    /// Folder of the node's own state [default: node in the data folder]
    #[arg(long, value_name = "DIR")]
    pub root_dir: Option<PathBuf>,
    /// Folder of images [default: those of the data folder, which `ekso image import` brings]
    #[arg(long, value_name = "DIR")]
    pub image_dir: Option<PathBuf>,
    /// Address of the node in the cluster [default: of the interface with the default route]
    #[arg(long)]
    pub node_ip: Option<std::net::IpAddr>,
    /// Address by which others reach the node's ports
    #[arg(long)]
    pub external_ip: Option<std::net::IpAddr>,
    /// Addresses of this node's pods, which the network leads here [default: a block that the cluster gives]
    #[arg(long, value_name = "RANGE")]
    pub pod_cidr: Option<plan::net::Cidr>,
    /// Addresses that pods reach under their own [default: 10.244.0.0/16]
    #[arg(long, value_name = "RANGE")]
    pub cluster_cidr: Vec<plan::net::Cidr>,
    /// Labels of the node, KEY=VALUE
    #[arg(long = "label", value_name = "KEY=VALUE")]
    pub labels: Vec<String>,
    /// Taints that the node registers with, KEY=VALUE:EFFECT
    #[arg(long = "taint", value_name = "KEY=VALUE:EFFECT")]
    pub taints: Vec<String>,
    /// Address of the cluster's DNS [default: of a cluster with the default ranges]
    #[arg(long, value_name = "IP")]
    pub cluster_dns: Option<std::net::IpAddr>,
    /// How many pods the node takes [default: 110]
    #[arg(long)]
    pub max_pods: Option<u32>,
    /// The only pod that may run here, by its UID: every other one is refused
    #[arg(long, value_name = "UID")]
    pub only_pod: Option<String>,
    /// Processors that the node shows, in thousandths [default: the host's]
    #[arg(long)]
    pub cpu_milli: Option<u64>,
    /// Memory that the node shows [default: the host's]
    #[arg(long)]
    pub memory_bytes: Option<u64>,
    /// How the cloud names this machine
    #[arg(long, value_name = "ID")]
    pub provider_id: Option<String>,
    /// The minor version of Kubernetes that the node says it has
    #[arg(long, value_name = "MINOR", hide = true)]
    pub minor: Option<u8>,
    #[command(flatten)]
    pub registries: Registries,
}

#[derive(Debug, Args)]
pub struct Doctor {
    #[command(flatten)]
    pub site: Site,
    #[command(flatten)]
    pub output: Output,
}
