//! A site: one data folder, one daemon, any number of clusters.
//!
//! ```text
//! /var/lib/ekso            0700
//!   site.json              the site's id, which every name on the host carries
//!   ekso.sock              the daemon's door, for root only
//!   daemon.log
//!   images/                content store of all nodes
//!   machines/              what the machines keep
//!   clusters/dev/
//!     cluster.json         what was asked for
//!     kubeconfig.json      where its context was put, and what was selected before
//!     pki/  store/
//! ```

use std::path::{Path, PathBuf};

use files::FileError;
use serde::{Deserialize, Serialize};

use crate::pki;

pub const DEFAULT_DATA_DIR: &str = "/var/lib/ekso";

/// A data folder.
#[derive(Clone, Debug)]
pub struct Site {
    pub id: String,
    pub dir: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct Record {
    id: String,
}

/// What a cluster was asked to be: kept, so that a crash or a reboot changes nothing about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterSpec {
    pub name: String,
    pub nodes: u16,
    pub api_port: u16,
    /// Its place in the VPC: the port of its API inside, and its numbers, come from it.
    pub index: u16,
    /// Whether it should be running.
    pub up: bool,
    #[serde(default)]
    pub insecure_registries: Vec<String>,
    /// `etcd://…`; the data folder otherwise.
    #[serde(default)]
    pub store: Option<String>,
}

/// Where a cluster's context went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContextRecord {
    pub path: PathBuf,
    /// The context that was selected before.
    pub previous: Option<String>,
}

impl Site {
    /// Opens the folder, making it a site if it is none.
    pub fn open(dir: &Path) -> Result<Self, FileError> {
        files::make_dir(dir)?;
        let dir = dir.canonicalize().map_err(|error| FileError::new("find", dir, error))?;
        let path = dir.join("site.json");
        if let Some(Record { id }) = files::read_json(&path)? {
            return Ok(Self { id, dir });
        }
        let id = pki::random_word(6);
        files::write_json(&path, &Record { id: id.clone() })?;
        Ok(Self { id, dir })
    }

    /// The site in a folder, if there is one.
    pub fn find(dir: &Path) -> Result<Option<Self>, FileError> {
        let Ok(dir) = dir.canonicalize() else { return Ok(None) };
        let record: Option<Record> = files::read_json(&dir.join("site.json"))?;
        Ok(record.map(|Record { id }| Self { id, dir }))
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.join("ekso.sock")
    }

    pub fn log(&self) -> PathBuf {
        self.dir.join("daemon.log")
    }

    pub fn images(&self) -> PathBuf {
        self.dir.join("images")
    }

    pub fn cluster_dir(&self, name: &str) -> PathBuf {
        self.dir.join("clusters").join(name)
    }

    pub fn cluster(&self, name: &str) -> Result<Option<ClusterSpec>, FileError> {
        files::read_json(&self.cluster_dir(name).join("cluster.json"))
    }

    pub fn save(&self, spec: &ClusterSpec) -> Result<(), FileError> {
        let dir = self.cluster_dir(&spec.name);
        files::make_dir(&dir)?;
        files::write_json(&dir.join("cluster.json"), spec)
    }

    /// All clusters of the site, by name.
    pub fn clusters(&self) -> Result<Vec<ClusterSpec>, FileError> {
        let dir = self.dir.join("clusters");
        let entries = match std::fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(FileError::new("list", &dir, error)),
        };
        let mut all = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|error| FileError::new("list", &dir, error))?;
            if let Some(spec) = files::read_json(&entry.path().join("cluster.json"))? {
                all.push(spec);
            }
        }
        all.sort_by(|a: &ClusterSpec, b| a.name.cmp(&b.name));
        Ok(all)
    }

    pub fn context(&self, name: &str) -> Result<Option<ContextRecord>, FileError> {
        files::read_json(&self.cluster_dir(name).join("kubeconfig.json"))
    }

    pub fn save_context(&self, name: &str, record: &ContextRecord) -> Result<(), FileError> {
        files::write_json(&self.cluster_dir(name).join("kubeconfig.json"), record)
    }
}

/// The name of a cluster: a DNS label that leaves room for the names made of it.
pub fn cluster_name(text: &str) -> Result<String, String> {
    let bytes = text.as_bytes();
    let letters =
        bytes.iter().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-');
    let ends = bytes.first().is_some_and(u8::is_ascii_lowercase) && bytes.last() != Some(&b'-');
    if letters && ends && bytes.len() <= 40 {
        return Ok(text.to_owned());
    }
    Err("use lower-case letters, digits and '-', starting with a letter, at most 40 characters".into())
}

/// The context of a cluster in a kubeconfig.
pub fn context_name(cluster: &str) -> String {
    format!("ekso-{cluster}")
}
