//! `ekso node`: this host, or machine, as a node.

use std::collections::BTreeMap;
use std::path::PathBuf;

use files::FileError;
use serde_json::{Value, json};

use crate::cli;
use crate::process::{self, StartError};
use crate::shape::{CLUSTER_DOMAIN, KUBELET_PORT, Shape, git_version};
use crate::site::Site;

const MAX_PODS: u32 = 110;

#[derive(Debug, thiserror::Error)]
pub enum NodeCommandError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Node(#[from] node::NodeError),
    #[error("ekso node needs root: run it with sudo")]
    NotRoot,
    #[error("the host has no address to be reached at: name one with --node-ip")]
    NoAddress,
    #[error("{0} is not a label: write KEY=VALUE")]
    Label(String),
    #[error("{0} is not a taint: write KEY=VALUE:EFFECT or KEY:EFFECT")]
    Taint(String),
}

pub fn run(args: &cli::Node) -> Result<(), NodeCommandError> {
    if !rustix::process::geteuid().is_root() {
        return Err(NodeCommandError::NotRoot);
    }
    process::log();
    let config = config(args)?;
    process::block_on(async {
        let mut stop = process::stop_signal()?;
        tokio::select! {
            result = node::run(config) => Ok(result?),
            // A sender that is gone means the same as one that says stop. Pods go on running.
            _ = stop.wait_for(|stop| *stop) => Ok(()),
        }
    })
}

/// `key=value:NoSchedule` as a taint of a Node.
fn taint(text: &str) -> Option<Value> {
    let (rest, effect) = text.rsplit_once(':')?;
    let (key, value) = rest.split_once('=').unwrap_or((rest, ""));
    let is_effect = matches!(effect, "NoSchedule" | "PreferNoSchedule" | "NoExecute");
    let mut taint = json!({"key": key, "effect": effect});
    if !value.is_empty() {
        taint["value"] = value.into();
    }
    (is_effect && !key.is_empty()).then_some(taint)
}

fn config(args: &cli::Node) -> Result<node::Config, NodeCommandError> {
    let token = match (&args.token, &args.token_file) {
        (Some(token), _) => Some(token.clone()),
        (None, Some(path)) => {
            files::read(path)?.map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned())
        }
        (None, None) => None,
    };
    let labels = args
        .labels
        .iter()
        .map(|text| {
            let (key, value) = text.split_once('=').ok_or_else(|| NodeCommandError::Label(text.clone()))?;
            Ok((key.to_owned(), value.to_owned()))
        })
        .collect::<Result<BTreeMap<_, _>, NodeCommandError>>()?;
    let root_dir = args.root_dir.clone().unwrap_or_else(|| args.site.data_dir.join("node"));
    let image_dir = match &args.image_dir {
        Some(dir) => dir.clone(),
        None => Site::open(&args.site.data_dir)?.images(),
    };
    let taints = args
        .taints
        .iter()
        .map(|text| taint(text).ok_or_else(|| NodeCommandError::Taint(text.clone())))
        .collect::<Result<Vec<_>, NodeCommandError>>()?;
    let shape = Shape::default();
    let host = rustix::system::uname().nodename().to_string_lossy().to_lowercase();
    Ok(node::Config {
        name: args.name.clone().unwrap_or(host),
        server: args.server.clone(),
        token,
        ip: args.node_ip.or_else(node::own_address).ok_or(NodeCommandError::NoAddress)?,
        external_ip: args.external_ip,
        cpu_milli: args.cpu_milli,
        memory_bytes: args.memory_bytes,
        max_pods: args.max_pods.unwrap_or(MAX_PODS),
        only_pod: args.only_pod.clone(),
        run_dir: PathBuf::from("/run/ekso-node"),
        image_dir,
        logs_dir: PathBuf::from("/var/log/pods"),
        root_dir,
        cgroup_root: "kubelet".into(),
        cluster_dns: args.cluster_dns.unwrap_or_else(|| shape.dns_ip().into()),
        cluster_domain: CLUSTER_DOMAIN.into(),
        pod_cidr: args.pod_cidr,
        cluster_cidrs: match args.cluster_cidr.as_slice() {
            [] => vec![shape.pods],
            told => told.to_vec(),
        },
        kubelet_port: KUBELET_PORT,
        labels,
        taints,
        version: git_version(args.minor.unwrap_or(shape.minor)),
        provider_id: args.provider_id.clone().unwrap_or_default(),
        registries: args.registries.of_node(),
    })
}
