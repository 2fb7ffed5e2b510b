//! Removes what nothing refers to, and says how much room is taken.
//!
//! Content is safe when a record, a lease, an operation under way or the caller names it.
//! Operations declare use under the shared lock and look afterwards whether the content is there; the collector
//! decides and hides under the exclusive lock. So content that an operation saw stays until it is over.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::digest::Digest;
use super::lock::{self, Hold, Lock};
use super::store::{At, LayerFile, Store, StoreError, remove_tree};

/// What a collection removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    pub blobs: u64,
    pub layers: u64,
    /// Unfinished files and directories of processes that died.
    pub leftovers: u64,
    /// Of blobs and of the content of layers.
    pub bytes: u64,
}

/// What the store takes of the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub blob_bytes: u64,
    /// Content of files in unpacked layers.
    pub layer_bytes: u64,
    /// Files and directories of both.
    pub inodes: u64,
}

impl Usage {
    pub fn bytes(&self) -> u64 {
        self.blob_bytes + self.layer_bytes
    }
}

#[derive(Default)]
struct Marks {
    blobs: BTreeSet<Digest>,
    layers: BTreeSet<Digest>,
    /// Ids of operations whose process lives.
    live: BTreeSet<String>,
}

impl Store {
    /// Removes unreferenced blobs and layers. `in_use` are chain ids that running containers have, beyond those leased.
    pub fn collect(&self, in_use: &[Digest]) -> Result<Collected, StoreError> {
        let operation = self.begin()?;
        let tmp = self.dir().join("tmp");
        let mut collected = Collected::default();
        let mut doomed = Vec::new();
        {
            let _guard = Lock::take(&self.store_lock(), Hold::Exclusive)?;
            let mut marks = self.marks()?;
            marks.layers.extend(in_use);
            for digest in digests_in(&self.dir().join("blobs/sha256"))?.difference(&marks.blobs) {
                collected.bytes += remove_blob(&self.blob_path(digest))?;
                collected.blobs += 1;
            }
            for chain_id in digests_in(&self.dir().join("layers"))?.difference(&marks.layers) {
                // The size is for the report; a damaged layer goes like any other.
                collected.bytes += self.layer_file(chain_id).map_or(0, |layer| layer.bytes);
                collected.layers += 1;
                // Out of sight at once; the long work of deleting is done without the lock.
                let (path, hidden) = (self.layer_dir(chain_id), operation.temporary(&tmp));
                fs::rename(&path, &hidden).at("renaming", &path)?;
                doomed.push(hidden);
            }
            for name in names_in(&tmp)? {
                let owner = name.split('.').next().unwrap_or_default();
                if !marks.live.contains(owner) {
                    collected.leftovers += 1;
                    doomed.push(tmp.join(name));
                }
            }
        }
        for path in doomed {
            remove_tree(&path)?;
        }
        Ok(collected)
    }

    /// Removes those of `blobs` that are of no more use: layers that were unpacked.
    pub(super) fn drop_blobs(&self, blobs: &[Digest]) -> Result<(), StoreError> {
        let _guard = Lock::take(&self.store_lock(), Hold::Exclusive)?;
        let marks = self.marks()?;
        for digest in blobs.iter().filter(|digest| !marks.blobs.contains(digest)) {
            remove_blob(&self.blob_path(digest))?;
        }
        Ok(())
    }

    pub fn usage(&self) -> Result<Usage, StoreError> {
        let mut usage = Usage::default();
        for digest in digests_in(&self.dir().join("blobs/sha256"))? {
            // It may be collected meanwhile.
            if let Ok(metadata) = fs::metadata(self.blob_path(&digest)) {
                usage.blob_bytes += metadata.len();
                usage.inodes += 1;
            }
        }
        for chain_id in digests_in(&self.dir().join("layers"))? {
            if let Ok(layer) = self.layer_file(&chain_id) {
                usage.layer_bytes += layer.bytes;
                usage.inodes += layer.inodes;
            }
        }
        Ok(usage)
    }

    fn marks(&self) -> Result<Marks, StoreError> {
        let mut marks = Marks::default();
        // Operations first: one that ends after this look has written its record or lease before the looks below.
        let operations = self.dir().join("operations");
        for name in names_in(&operations)? {
            let path = operations.join(&name);
            if !lock::is_held(&path)? {
                // Of a process that died; its owner is not in the middle of making it, which takes the shared lock.
                remove_blob(&path)?;
                continue;
            }
            marks.live.insert(name);
            // Lines may name blobs or layers; a digest of one is never that of the other by chance.
            let used: Vec<Digest> = read_lines(&path)?.iter().filter_map(|line| line.parse().ok()).collect();
            marks.blobs.extend(&used);
            marks.layers.extend(&used);
        }
        for image in self.list()? {
            marks.blobs.extend(image.documents);
            marks.blobs.insert(image.id);
            for layer in image.layers {
                marks.layers.insert(layer.chain_id);
                if self.options().keep_layer_blobs || !self.has_layer(&layer.chain_id) {
                    marks.blobs.insert(layer.blob);
                }
            }
        }
        for lease in self.leases()? {
            marks.layers.extend(lease.layers);
        }
        Ok(marks)
    }

    fn layer_file(&self, chain_id: &Digest) -> Result<LayerFile, StoreError> {
        let path = self.layer_dir(chain_id).join("layer.json");
        let bytes = fs::read(&path).at("reading", &path)?;
        serde_json::from_slice(&bytes).map_err(|error| StoreError::Corrupt { path, why: error.to_string() })
    }
}

fn read_lines(path: &Path) -> Result<Vec<String>, StoreError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(text.lines().map(str::to_string).collect()),
        // Its operation ended just now.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).at("reading", path),
    }
}

/// The size of what was removed; 0 if it was gone.
fn remove_blob(path: &PathBuf) -> Result<u64, StoreError> {
    let bytes = fs::metadata(path).map_or(0, |metadata| metadata.len());
    match fs::remove_file(path) {
        Ok(()) => Ok(bytes),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error).at("removing", path),
    }
}

fn names_in(dir: &Path) -> Result<Vec<String>, StoreError> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).at("listing", dir)? {
        names.push(entry.at("listing", dir)?.file_name().to_string_lossy().into_owned());
    }
    Ok(names)
}

/// The entries of a directory that are digests; others are not ours to touch.
fn digests_in(dir: &Path) -> Result<BTreeSet<Digest>, StoreError> {
    Ok(names_in(dir)?.iter().filter_map(|name| Digest::from_hex(name)).collect())
}
