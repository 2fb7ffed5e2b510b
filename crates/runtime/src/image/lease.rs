//! Root filesystems handed out to containers. A lease keeps layers from the collector across restarts of every process,
//! because containers outlive those too.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::PathBuf;

use plan::node::ImageConfig;
use serde::{Deserialize, Serialize};

use super::digest::Digest;
use super::store::{At, Image, Store, StoreError, read_all, to_json};

/// A root filesystem's parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepared {
    /// Overlayfs lower directories, lowest first (the mount option wants them reversed). Never write to them.
    pub layers: Vec<PathBuf>,
    pub config: ImageConfig,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct LeaseFile {
    pub(super) holder: String,
    pub(super) layers: Vec<Digest>,
}

impl Store {
    /// Hands out an image's layers and keeps them until `release(holder)`, across restarts of every process.
    /// The holder is any string unique in the site: the id of a container with its node's.
    pub fn prepare(&self, image: &Image, holder: &str) -> Result<Prepared, StoreError> {
        let mut prepared = self.prepare_all(std::slice::from_ref(image), holder)?;
        prepared.pop().ok_or_else(|| StoreError::Corrupt {
            path: self.lease_path(holder),
            why: "one image was asked for, and none given".into(),
        })
    }

    /// As [`prepare`](Self::prepare), of several images for one holder: a container's own and those it mounts.
    pub fn prepare_all(&self, images: &[Image], holder: &str) -> Result<Vec<Prepared>, StoreError> {
        let operation = self.begin()?;
        for layer in images.iter().flat_map(|image| &image.layers) {
            operation.uses(&layer.chain_id)?;
            operation.uses(&layer.blob)?;
        }
        for image in images {
            for (index, layer) in image.layers.iter().enumerate() {
                if !self.has_layer(&layer.chain_id) && !self.has_blob(&layer.blob) {
                    return Err(StoreError::LayerMissing { image: image.name.clone(), layer: layer.diff_id });
                }
                self.ensure_layer(&operation, layer, &image.layers[..index])?;
            }
        }
        let lease = LeaseFile {
            holder: holder.to_string(),
            layers: images.iter().flat_map(|image| &image.layers).map(|layer| layer.chain_id).collect(),
        };
        let path = self.lease_path(holder);
        let temporary = operation.temporary(&self.dir().join("tmp"));
        // Not waiting for the disk, which costs more than all the rest: no holder runs on when the machine loses power.
        fs::write(&temporary, to_json(&lease)).at("writing", &temporary)?;
        fs::rename(&temporary, &path).at("renaming to", &path)?;
        let layers = |image: &Image| {
            image.layers.iter().map(|layer| self.layer_dir(&layer.chain_id).join("fs")).collect()
        };
        Ok(images
            .iter()
            .map(|image| Prepared { layers: layers(image), config: image.config.clone() })
            .collect())
    }

    /// Gives back what `prepare` handed out; of an unknown holder nothing is known, and that is fine.
    pub fn release(&self, holder: &str) -> Result<(), StoreError> {
        let path = self.lease_path(holder);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).at("removing", &path),
            _ => Ok(()),
        }
    }

    /// Gives back everything of holders that begin with `prefix`: of a node that is no more.
    pub fn release_all(&self, prefix: &str) -> Result<usize, StoreError> {
        let mut released = 0;
        for lease in self.leases()?.iter().filter(|lease| lease.holder.starts_with(prefix)) {
            self.release(&lease.holder)?;
            released += 1;
        }
        Ok(released)
    }

    /// Who holds layers.
    pub fn holders(&self) -> Result<Vec<String>, StoreError> {
        let mut holders: Vec<String> = self.leases()?.into_iter().map(|lease| lease.holder).collect();
        holders.sort();
        Ok(holders)
    }

    /// The layers that holders have.
    pub fn held_layers(&self) -> Result<BTreeSet<Digest>, StoreError> {
        Ok(self.leases()?.into_iter().flat_map(|lease| lease.layers).collect())
    }

    pub(super) fn leases(&self) -> Result<Vec<LeaseFile>, StoreError> {
        read_all(&self.dir().join("leases"))
    }

    fn lease_path(&self, holder: &str) -> PathBuf {
        self.dir().join("leases").join(format!("{}.json", Digest::of(holder.as_bytes()).hex()))
    }
}
