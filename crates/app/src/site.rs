//! A site: one data folder, one daemon, any number of clusters.
//!
//! ```text
//! /var/lib/ekso            0700
//!   site.json              the site's id, which every name on the host carries
//!   ekso.sock              the daemon's door, for root only
//!   daemon.log
//!   aws/                   the AWS account: see account.rs
//!   images/                what was imported, for all clusters
//!   instances/             what instances are handed
//!   machines/              what the machines keep
//!   clusters/dev/
//!     cluster.json         what was asked for
//!     kubeconfig.json      where its context was put, and what was selected before
//!     images/              content store of its nodes
//!     pki/  store/
//! ```

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use files::FileError;
use serde::{Deserialize, Serialize};

use crate::etcd::Place;
use crate::owner::Owner;
use crate::pki;
use crate::registries::Registries;
use crate::server_files::ServerFiles;
use crate::shape::{NEWEST, Shape};

pub const DEFAULT_DATA_DIR: &str = "/var/lib/ekso";

/// The file that makes a folder a site.
pub const RECORD: &str = "site.json";

/// The file that makes a folder of a site a cluster's.
const CLUSTER: &str = "cluster.json";

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
    /// Whether it should be running.
    pub up: bool,
    #[serde(flatten)]
    pub registries: Registries,
    #[serde(flatten)]
    pub place: Place,
    #[serde(default)]
    pub files: ServerFiles,
    /// 36 of 1.36.
    #[serde(default = "newest")]
    pub minor: u8,
    /// The addresses of services, of pods, and the issuer of their tokens, where they are not the usual ones.
    #[serde(default)]
    pub services: Option<String>,
    #[serde(default)]
    pub pods: Option<String>,
    #[serde(default)]
    pub issuer: Option<String>,
}

fn newest() -> u8 {
    NEWEST
}

impl ClusterSpec {
    pub fn shape(&self) -> Shape {
        let usual = Shape::default();
        let range = |text: &Option<String>| text.as_deref().and_then(|text| text.parse().ok());
        Shape {
            minor: self.minor,
            services: range(&self.services).unwrap_or(usual.services),
            pods: range(&self.pods).unwrap_or(usual.pods),
            issuer: self.issuer.clone().unwrap_or(usual.issuer),
        }
    }
}

/// Where a cluster's context went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContextRecord {
    pub path: PathBuf,
    /// The context that was selected before.
    pub previous: Option<String>,
}

impl Site {
    /// Opens the folder, making it a site if it is none. It must be nobody else's: keys and the processes' own binary paths are in it,
    /// and what it holds is removed with the last cluster.
    pub fn open(dir: &Path) -> Result<Self, FileError> {
        files::make_dir(dir)?;
        let dir = dir.canonicalize().map_err(|error| FileError::new("find", dir, error))?;
        refuse_other_owner(&dir)?;
        let path = dir.join(RECORD);
        if let Some(Record { id }) = files::read_json(&path)? {
            refuse_writable(&dir)?;
            return Ok(Self { id, dir });
        }
        refuse_foreign(&dir)?;
        // Below it are pods' secrets and programs with the set-user-ID bit, each as the pod wants it.
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o700))
            .map_err(|error| FileError::new("guard", &dir, error))?;
        // What somebody put there just before it was shut.
        refuse_foreign(&dir)?;
        let id = pki::random_word(6);
        files::write_json(&path, &Record { id: id.clone() })?;
        Ok(Self { id, dir })
    }

    /// The site in a folder, if there is one.
    pub fn find(dir: &Path) -> Result<Option<Self>, FileError> {
        let Ok(dir) = dir.canonicalize() else { return Ok(None) };
        let record: Option<Record> = files::read_json(&dir.join(RECORD))?;
        Ok(record.map(|Record { id }| Self { id, dir }))
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.join("ekso.sock")
    }

    pub fn log(&self) -> PathBuf {
        self.dir.join("daemon.log")
    }

    /// The images that were imported, for every cluster. No machine sees this folder: each cluster's has copies of what is here.
    pub fn images(&self) -> PathBuf {
        self.dir.join("images")
    }

    /// What the machines of a cluster share, and may write to: root in one can change what the others run, and nothing of other clusters.
    /// (A read-only bind of one folder for all would be no boundary: root in a machine can make it writable again.)
    pub fn cluster_images(&self, cluster: &str) -> PathBuf {
        self.cluster_dir(cluster).join("images")
    }

    pub fn cluster_dir(&self, name: &str) -> PathBuf {
        self.dir.join("clusters").join(name)
    }

    pub fn cluster(&self, name: &str) -> Result<Option<ClusterSpec>, FileError> {
        files::read_json(&self.cluster_dir(name).join(CLUSTER))
    }

    pub fn save(&self, spec: &ClusterSpec) -> Result<(), FileError> {
        let dir = self.cluster_dir(&spec.name);
        files::make_dir(&dir)?;
        files::write_json(&dir.join(CLUSTER), spec)
    }

    /// Removes all that is kept of a cluster. Its record goes last, so that a removal that a crash has stopped is seen, and can be
    /// repeated. Absent is fine.
    pub fn remove_cluster(&self, name: &str) -> Result<(), FileError> {
        let dir = self.cluster_dir(name);
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |error| FileError::new("remove", &path, error)
        };
        let entries = match std::fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(FileError::new("list", &dir, error)),
        };
        for entry in entries {
            let entry = entry.map_err(failed(&dir))?;
            let (path, kind) = (entry.path(), entry.file_type().map_err(failed(&dir))?);
            if entry.file_name() == CLUSTER {
                continue;
            }
            let removed =
                if kind.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
            removed.map_err(failed(&path))?;
        }
        std::fs::remove_dir_all(&dir).map_err(failed(&dir))
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
            if let Some(spec) = files::read_json(&entry.path().join(CLUSTER))? {
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

fn refused(dir: &Path, kind: std::io::ErrorKind, why: String) -> Result<(), FileError> {
    Err(FileError::new("use the data folder", dir, std::io::Error::new(kind, why)))
}

/// A folder that another user can change is no place for keys, nor for what root runs.
fn refuse_other_owner(dir: &Path) -> Result<(), FileError> {
    let owner = dir.metadata().map_err(|error| FileError::new("look at", dir, error))?.uid();
    if [0, rustix::process::geteuid().as_raw(), Owner::current().uid].contains(&owner) {
        return Ok(());
    }
    let why = format!("it belongs to user {owner}: chown it, or choose another with --data-dir");
    refused(dir, std::io::ErrorKind::PermissionDenied, why)
}

/// Whatever was opened to others since it became a site may hold what they put there.
fn refuse_writable(dir: &Path) -> Result<(), FileError> {
    let mode = dir.metadata().map_err(|error| FileError::new("look at", dir, error))?.mode() & 0o7777;
    if mode & 0o022 == 0 {
        return Ok(());
    }
    let why = format!(
        "others may write into it (mode {mode:04o}): look at what is there, then make it 0700 with chmod"
    );
    refused(dir, std::io::ErrorKind::PermissionDenied, why)
}

/// What is in a folder before it becomes a site is somebody else's, whatever its name. A file system's own folder, what a crash
/// left of the record and the folder of `ekso node` on this host are no reason to refuse.
fn refuse_foreign(dir: &Path) -> Result<(), FileError> {
    let failed = |error| FileError::new("list", dir, error);
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let name = name.to_string_lossy();
        if !matches!(&*name, "lost+found" | "node") && !name.starts_with("site.new-") {
            let why = format!(
                "it holds {name:?} and is no data folder of ekso: choose an empty one with --data-dir"
            );
            return refused(dir, std::io::ErrorKind::DirectoryNotEmpty, why);
        }
    }
    Ok(())
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

/// What a site makes in its folder, besides [`RECORD`].
const MADE: &[&str] =
    &["aws", "clusters", "daemon.lock", "daemon.log", "ekso.sock", "images", "instances", "vpc"];

/// All that Ekso made in the folder, and the folder itself if nothing else is in it and we may: it can be a mount point.
/// What somebody else put there stays. The site's record goes last, so that a removal that stopped can be repeated.
pub fn remove(dir: &Path) -> Result<(), FileError> {
    for name in MADE.iter().chain([&RECORD]) {
        let path = dir.join(name);
        let removed = match path.symlink_metadata() {
            Ok(kind) if kind.is_dir() => std::fs::remove_dir_all(&path),
            Ok(_) => std::fs::remove_file(&path),
            Err(error) => Err(error),
        };
        match removed {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(FileError::new("remove", &path, error));
            }
            _ => {}
        }
    }
    match std::fs::remove_dir(dir) {
        Err(error)
            if matches!(
                error.kind(),
                std::io::ErrorKind::ResourceBusy
                    | std::io::ErrorKind::DirectoryNotEmpty
                    | std::io::ErrorKind::ReadOnlyFilesystem
            ) =>
        {
            Ok(())
        }
        other => other.map_err(|error| FileError::new("remove", dir, error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(prepare: impl FnOnce(&Path), expected: Option<&str>) {
        let dir = tempfile::tempdir().expect("a folder");
        let dir = dir.path().join("data");
        std::fs::create_dir(&dir).expect("made");
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o700)).expect("guarded");
        prepare(&dir);
        let refused = Site::open(&dir).err().map(|error| error.to_string());
        match (&refused, expected) {
            (None, None) => {
                assert!(dir.join(RECORD).exists());
                let mode = dir.metadata().expect("metadata").permissions().mode();
                assert_eq!(mode & 0o777, 0o700);
            }
            (Some(text), Some(part)) => {
                assert!(text.contains(part), "{text}");
                assert!(!dir.join(RECORD).exists(), "half-made");
            }
            _ => panic!("{refused:?} instead of {expected:?}"),
        }
    }

    #[test]
    fn a_cluster_is_removed_and_nothing_else() {
        let dir = tempfile::tempdir().expect("a folder");
        let site = Site::open(dir.path()).expect("a site");
        let text = r#"{"name": "shop", "nodes": 0, "api_port": 6443, "up": false}"#;
        let spec: ClusterSpec = serde_json::from_str(text).expect("a cluster");
        site.save(&spec).expect("saved");
        let own = site.cluster_dir("shop");
        std::fs::create_dir_all(own.join("store")).expect("made");
        std::fs::write(own.join("store/1.log"), "").expect("written");
        std::os::unix::fs::symlink(dir.path(), own.join("elsewhere")).expect("linked");
        site.remove_cluster("shop").expect("removed");
        assert!(dir.path().join(RECORD).exists(), "a link is no way out");
        assert!(!own.exists() && site.clusters().expect("listed").is_empty());
        site.remove_cluster("shop").expect("gone already");
    }

    #[test]
    fn only_an_empty_folder_of_ones_own_becomes_a_site() {
        let mode = |mode| {
            move |dir: &Path| {
                std::fs::set_permissions(dir, std::fs::Permissions::from_mode(mode)).expect("chmod");
            }
        };
        check(|_| {}, None);
        check(|dir| std::fs::create_dir(dir.join("lost+found")).expect("made"), None);
        check(|dir| std::fs::write(dir.join("site.new-7"), "").expect("written"), None);
        check(|dir| std::fs::create_dir(dir.join("images")).expect("made"), Some("holds \"images\""));
        check(mode(0o755), None);
        check(mode(0o1777), None);
        let dir = tempfile::tempdir().expect("a folder");
        Site::open(dir.path()).expect("a site");
        mode(0o770)(dir.path());
        let refused = Site::open(dir.path()).expect_err("others may write").to_string();
        assert!(refused.contains("mode 0770"), "{refused}");
        if rustix::process::geteuid().is_root() {
            let give = |dir: &Path| std::os::unix::fs::chown(dir, Some(4711), None).expect("chown");
            check(give, Some("belongs to user 4711"));
        }
    }

    #[test]
    fn removal_leaves_what_others_put_there() {
        let dir = tempfile::tempdir().expect("a folder");
        let outside = tempfile::tempdir().expect("a folder");
        std::fs::write(outside.path().join("theirs"), "kept").expect("written");
        let site = dir.path().join("site");
        Site::open(&site).expect("a site");
        std::fs::create_dir_all(site.join("clusters/dev/pki")).expect("made");
        std::os::unix::fs::symlink(outside.path(), site.join("images")).expect("linked");
        std::fs::create_dir(site.join("holiday")).expect("made");
        std::fs::write(site.join("holiday/photo"), "kept").expect("written");

        remove(&site).expect("removed");
        let left: Vec<_> = std::fs::read_dir(&site)
            .expect("listed")
            .map(|entry| entry.expect("an entry").file_name())
            .collect();
        assert_eq!(left, ["holiday"]);
        assert_eq!(std::fs::read_to_string(outside.path().join("theirs")).expect("read"), "kept");

        std::fs::remove_dir_all(site.join("holiday")).expect("removed");
        remove(&site).expect("removed again");
        assert!(!site.exists());
    }
}
