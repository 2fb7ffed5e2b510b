//! The store: records of images by name, unpacked layers by chain id, blobs by digest.
//!
//! ```text
//! version              the form of what follows
//! lock                 see lock.rs
//! locks/               stripes: what is being fetched or unpacked
//! operations/          one locked file for each operation under way
//! tmp/                 <operation>.<n>: unfinished files and directories
//! blobs/sha256/<hex>
//! layers/<hex>/fs      an overlayfs lower directory; layer.json beside it
//! images/<hex>.json    a record; the hash of its name
//! leases/<hex>.json    layers of a container; the hash of its holder
//! ```
//!
//! Everything but `operations` and `tmp` appears by a rename, whole and flushed, so there is nothing to recover after a crash.
//! All methods block; call them from threads that may.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use plan::node::ImageConfig;
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use super::blob::{sync_parent, write_whole};
use super::digest::Digest;
use super::layer::{self, UnpackError};
use super::limits::Limits;
use super::lock::{Lock, Operation};
use super::manifest::{Config, Manifest, Platform};
use super::reference::Reference;
use super::tree;

const FORM: &str = "1\n";

/// What went wrong in the folder of the images.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("image store: {op} {path}: {source}")]
    Io { op: &'static str, path: PathBuf, source: io::Error },
    #[error("image store: {path}: {why}")]
    Corrupt { path: PathBuf, why: String },
    #[error("content has the digest {found}, wanted {wanted}")]
    Digest { wanted: Digest, found: Digest },
    #[error("unpacking layer {layer}: {source}")]
    Unpack { layer: Digest, source: UnpackError },
    #[error("image {image:?} lacks the layer {layer}: pull or import it again")]
    LayerMissing { image: String, layer: Digest },
}

/// Adds what was done to which path to an error of the system.
pub(super) trait At<T> {
    fn at(self, op: &'static str, path: &Path) -> Result<T, StoreError>;
}

impl<T, E: Into<io::Error>> At<T> for Result<T, E> {
    fn at(self, op: &'static str, path: &Path) -> Result<T, StoreError> {
        self.map_err(|error| StoreError::Io { op, path: path.to_path_buf(), source: error.into() })
    }
}

/// How a store keeps its images, and what it refuses to unpack.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Keep compressed layers once they are unpacked: needed to push or export, and about 40 % more disk.
    pub keep_layer_blobs: bool,
    pub limits: Limits,
}

/// A content store in a directory. Clones share nothing but the directory, like other processes.
#[derive(Clone, Debug)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    options: Options,
}

/// A record: what a name stands for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// A complete reference, or the id of an image that came without a name.
    pub name: String,
    /// Digest of the configuration: the image's identity on a node.
    pub id: Digest,
    /// What the name resolved to: an index or a manifest.
    pub digest: Digest,
    /// The blobs from `digest` down to the manifest of this platform.
    pub documents: Vec<Digest>,
    pub platform: Platform,
    /// Lowest first.
    pub layers: Vec<Layer>,
    pub config: ImageConfig,
    /// Manifest, configuration and layers as transferred, which is the size that kubelets report.
    pub size_bytes: u64,
    /// RFC 3339, as the image's maker said.
    pub created: Option<String>,
    /// Never removed by the kubelet's collection of images.
    pub pinned: bool,
    /// When the record was written: milliseconds since 1970.
    pub added_ms: u64,
}

/// A layer of an image: the archive as it came, and what it unpacks to (OCI image specification, config and layers).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// Digest of the decompressed archive.
    pub diff_id: Digest,
    /// Of this layer over those below it; names the directory.
    pub chain_id: Digest,
    /// Digest of the archive as transferred.
    pub blob: Digest,
    pub size_bytes: u64,
}

/// What is kept beside an unpacked layer.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct LayerFile {
    pub(super) diff_id: Digest,
    pub(super) bytes: u64,
    pub(super) inodes: u64,
}

/// A complete image about to be recorded.
pub(super) struct Resolved {
    pub(super) digest: Digest,
    pub(super) documents: Vec<Digest>,
    pub(super) manifest_bytes: u64,
    pub(super) manifest: Manifest,
    pub(super) config: Config,
}

impl Resolved {
    pub(super) fn layers(&self) -> Vec<Layer> {
        let mut chain: Option<Digest> = None;
        let mut layers = Vec::new();
        for (diff_id, blob) in self.config.rootfs.diff_ids.iter().zip(&self.manifest.layers) {
            let chain_id = chain.map_or(*diff_id, |below| below.chain(diff_id));
            chain = Some(chain_id);
            layers.push(Layer { diff_id: *diff_id, chain_id, blob: blob.digest, size_bytes: blob.size });
        }
        layers
    }
}

impl Store {
    /// Opens a store, making it if the directory is empty or absent. Content is readable by root alone.
    pub fn open(dir: impl Into<PathBuf>) -> Result<Store, StoreError> {
        Store::open_with(dir, Options::default())
    }

    pub fn open_with(dir: impl Into<PathBuf>, options: Options) -> Result<Store, StoreError> {
        let dir = dir.into();
        for part in ["locks", "operations", "tmp", "blobs/sha256", "layers", "images", "leases"] {
            let path = dir.join(part);
            fs::create_dir_all(&path).at("creating", &path)?;
        }
        // Layers hold set-user-id programs of any vintage: nobody but root may reach them.
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        fs::set_permissions(&dir, private).at("changing the mode of", &dir)?;
        let store = Store { inner: Arc::new(Inner { dir, options }) };
        store.check_form()?;
        Ok(store)
    }

    fn check_form(&self) -> Result<(), StoreError> {
        let path = self.dir().join("version");
        match fs::read_to_string(&path) {
            Ok(form) if form == FORM => Ok(()),
            Ok(form) => {
                let why =
                    format!("the store has form {:?}, this program knows {:?}", form.trim(), FORM.trim());
                Err(StoreError::Corrupt { path, why })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let operation = self.begin()?;
                write_whole(&path, &operation.temporary(&self.dir().join("tmp")), FORM.as_bytes())
            }
            Err(error) => Err(error).at("reading", &path),
        }
    }

    pub fn dir(&self) -> &Path {
        &self.inner.dir
    }

    pub(super) fn options(&self) -> &Options {
        &self.inner.options
    }

    pub(super) fn store_lock(&self) -> PathBuf {
        self.dir().join("lock")
    }

    pub(super) fn begin(&self) -> Result<Operation, StoreError> {
        Operation::begin(&self.dir().join("operations"), &self.store_lock())
    }

    pub(super) fn stripe(&self, what: &str, digest: &Digest) -> Result<Lock, StoreError> {
        Lock::stripe(&self.dir().join("locks"), what, digest)
    }

    // Images

    /// All records, by name.
    pub fn list(&self) -> Result<Vec<Image>, StoreError> {
        let mut images: Vec<Image> = read_all(&self.dir().join("images"))?;
        images.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(images)
    }

    /// Finds an image by any reference to it, or by its id with or without `sha256:`.
    /// `repository@digest` finds it under every tag of that repository.
    pub fn get(&self, name: &str) -> Result<Option<Image>, StoreError> {
        if let Some(id) = as_id(name) {
            return Ok(self.list()?.into_iter().find(|image| image.id == id));
        }
        let Ok(reference) = name.parse::<Reference>() else { return Ok(None) };
        let path = self.record_path(&reference.to_string());
        if let Some(image) = read_json(&path)? {
            return Ok(Some(image));
        }
        let Some(digest) = reference.digest else { return Ok(None) };
        Ok(self.list()?.into_iter().find(|image| {
            let same_repository = image
                .name
                .parse::<Reference>()
                .is_ok_and(|other| other.repository() == reference.repository());
            same_repository && (image.digest == digest || image.documents.contains(&digest))
        }))
    }

    /// Forgets a name, or by an id all names of that image; false if there was none.
    /// Content goes with the next collection, and not while containers hold it.
    pub fn remove(&self, name: &str) -> Result<bool, StoreError> {
        let names: Vec<String> = match as_id(name) {
            Some(id) => {
                self.list()?.into_iter().filter(|image| image.id == id).map(|image| image.name).collect()
            }
            None => self.get(name)?.into_iter().map(|image| image.name).collect(),
        };
        for name in &names {
            let path = self.record_path(name);
            match fs::remove_file(&path) {
                Ok(()) => sync_parent(&path)?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error).at("removing", &path),
            }
        }
        Ok(!names.is_empty())
    }

    /// Gives an image a further name, as `docker tag` does.
    pub fn tag(&self, image: &Image, name: &Reference) -> Result<Image, StoreError> {
        let operation = self.begin()?;
        self.protect(&operation, image)?;
        let mut image = image.clone();
        image.name = name.to_string();
        image.config.reference = name.with_digest(&image.digest);
        self.write_record(&operation, &image)?;
        Ok(image)
    }

    /// Marks an image as one that the kubelet must not collect, or takes the mark away.
    pub fn set_pinned(&self, image: &Image, pinned: bool) -> Result<(), StoreError> {
        let operation = self.begin()?;
        self.protect(&operation, image)?;
        self.write_record(&operation, &Image { pinned, ..image.clone() })
    }

    fn record_path(&self, name: &str) -> PathBuf {
        self.dir().join("images").join(format!("{}.json", Digest::of(name.as_bytes()).hex()))
    }

    pub(super) fn write_record(&self, operation: &Operation, image: &Image) -> Result<(), StoreError> {
        let path = self.record_path(&image.name);
        write_whole(&path, &operation.temporary(&self.dir().join("tmp")), &to_json(image))
    }

    fn protect(&self, operation: &Operation, image: &Image) -> Result<(), StoreError> {
        for digest in image.documents.iter().chain([&image.id]) {
            operation.uses(digest)?;
        }
        for layer in &image.layers {
            operation.uses(&layer.chain_id)?;
            operation.uses(&layer.blob)?;
        }
        match image.layers.iter().find(|layer| !self.has_layer(&layer.chain_id)) {
            Some(layer) => Err(StoreError::LayerMissing { image: image.name.clone(), layer: layer.diff_id }),
            None => Ok(()),
        }
    }

    /// Records an image whose layers are unpacked under each of `names`; under its id if there are none.
    pub(super) fn record(
        &self,
        operation: &Operation,
        names: &[Reference],
        from: &Resolved,
        pinned: bool,
    ) -> Result<Vec<Image>, StoreError> {
        let layers = from.layers();
        let size_bytes = from.manifest_bytes
            + from.manifest.config.size
            + layers.iter().map(|layer| layer.size_bytes).sum::<u64>();
        let id = from.manifest.config.digest;
        let config = &from.config;
        let unnamed = Image {
            name: id.to_string(),
            id,
            digest: from.digest,
            documents: from.documents.clone(),
            platform: Platform {
                os: config.os.clone(),
                architecture: config.architecture.clone(),
                variant: config.variant.clone(),
            },
            layers,
            config: run_config(config, id),
            size_bytes,
            created: config.created.clone(),
            pinned,
            added_ms: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_millis() as u64),
        };
        if names.is_empty() {
            self.write_record(operation, &unnamed)?;
            return Ok(vec![unnamed]);
        }
        let mut images = Vec::new();
        for name in names {
            let mut image = Image { name: name.to_string(), ..unnamed.clone() };
            image.config.reference = name.with_digest(&from.digest);
            self.write_record(operation, &image)?;
            images.push(image);
        }
        Ok(images)
    }

    // Layers

    pub(super) fn layer_dir(&self, chain_id: &Digest) -> PathBuf {
        self.dir().join("layers").join(chain_id.hex())
    }

    pub(super) fn has_layer(&self, chain_id: &Digest) -> bool {
        self.layer_dir(chain_id).is_dir()
    }

    /// Makes sure that a layer is unpacked; those below it (lowest first) must be.
    pub(super) fn ensure_layer(
        &self,
        operation: &Operation,
        layer: &Layer,
        below: &[Layer],
    ) -> Result<(), StoreError> {
        operation.uses(&layer.chain_id)?;
        if self.has_layer(&layer.chain_id) {
            return Ok(());
        }
        let _stripe = self.stripe("layer", &layer.chain_id)?;
        if self.has_layer(&layer.chain_id) {
            return Ok(());
        }
        let tmp = self.dir().join("tmp");
        let unfinished = operation.temporary(&tmp);
        let result = self.unpack_to(&unfinished, layer, below);
        if result.is_err() {
            // The collector takes what stays.
            let _ = remove_tree(&unfinished);
        }
        result
    }

    fn unpack_to(&self, unfinished: &Path, layer: &Layer, below: &[Layer]) -> Result<(), StoreError> {
        let root = unfinished.join("fs");
        fs::create_dir_all(&root).at("creating", &root)?;
        let lowers: Vec<PathBuf> =
            below.iter().map(|lower| self.layer_dir(&lower.chain_id).join("fs")).collect();
        let blob = self.open_blob(&layer.blob)?;
        let unpack_error = |source| StoreError::Unpack { layer: layer.blob, source };
        let unpacked = layer::unpack(blob, &lowers, &root, &self.options().limits).map_err(unpack_error)?;
        if unpacked.diff_id != layer.diff_id {
            return Err(unpack_error(UnpackError::DiffId { wanted: layer.diff_id, found: unpacked.diff_id }));
        }
        let file = LayerFile { diff_id: layer.diff_id, bytes: unpacked.bytes, inodes: unpacked.inodes };
        let beside = unfinished.join("layer.json");
        fs::write(&beside, to_json(&file)).at("writing", &beside)?;
        // One flush of the file system is far cheaper than one for each of many thousand files.
        let dir =
            rustix::fs::open(unfinished, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        rustix::fs::syncfs(dir.at("opening", unfinished)?).at("flushing", unfinished)?;
        let path = self.layer_dir(&layer.chain_id);
        fs::rename(unfinished, &path).at("renaming to", &path)?;
        sync_parent(&path)
    }
}

fn run_config(config: &Config, id: Digest) -> ImageConfig {
    let run = config.config.clone().unwrap_or_default();
    ImageConfig {
        id: id.to_string(),
        reference: String::new(),
        entrypoint: run.entrypoint.unwrap_or_default(),
        cmd: run.cmd.unwrap_or_default(),
        env: run.env.unwrap_or_default(),
        user: run.user.unwrap_or_default(),
        working_dir: run.working_dir.unwrap_or_default(),
        stop_signal: run.stop_signal.unwrap_or_default(),
        volumes: run.volumes.unwrap_or_default().into_iter().map(|(path, _)| path).collect(),
    }
}

fn as_id(name: &str) -> Option<Digest> {
    name.parse().ok().or_else(|| Digest::from_hex(name))
}

pub(super) fn to_json<T: Serialize>(value: &T) -> Vec<u8> {
    // Only maps with keys that are not strings fail, and there are none.
    serde_json::to_vec_pretty(value).unwrap_or_default()
}

/// `None` if there is no such file.
fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Option<T>, StoreError> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| {
            let why = format!("{error}; remove the file, and pull or import what it was");
            StoreError::Corrupt { path: path.to_path_buf(), why }
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).at("reading", path),
    }
}

/// Every `.json` file of a directory. One removed meanwhile is passed over, and so is one without a byte: a lease that the
/// machine had no time to write before it lost power.
pub(super) fn read_all<T: serde::de::DeserializeOwned>(dir: &Path) -> Result<Vec<T>, StoreError> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).at("listing", dir)? {
        let path = entry.at("listing", dir)?.path();
        let is_empty = fs::metadata(&path).is_ok_and(|file| file.len() == 0);
        if path.extension().is_some_and(|extension| extension == "json") && !is_empty {
            all.extend(read_json(&path)?);
        }
    }
    Ok(all)
}

pub(super) fn remove_tree(path: &Path) -> Result<(), StoreError> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::open(parent, flags, Mode::empty()).at("opening", parent)?;
    tree::remove_at(&dir, name.as_encoded_bytes()).at("removing", path)
}
