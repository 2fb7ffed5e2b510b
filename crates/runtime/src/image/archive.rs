//! Imports archives of images: an OCI layout (tar or directory), and what `docker save` and `podman save` write.
//! Which it is, and how it is compressed, is told from the content.
//!
//! Every file of an archive becomes a blob while it streams by, because its table of contents may come last.
//! What turns out to be of no use is dropped at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use serde::Deserialize;

use super::decode::{self, Compression, Decoder};
use super::digest::{Digest, HashingReader};
use super::limits::Limits;
use super::lock::Operation;
use super::manifest::{
    self, Descriptor, Document, Manifest, ManifestError, OCI_CONFIG, OCI_LAYER_TAR, OCI_MANIFEST, Platform,
};
use super::reference::{InvalidReference, Reference};
use super::store::{At, Image, Resolved, Store, StoreError};
use super::tarball::{self, Kind, Tar, TarError};

/// Files in an archive; a large one has some hundred.
const MAX_MEMBERS: u64 = 100_000;
/// Indexes within indexes.
const MAX_NESTING: usize = 4;
/// Containerd's and Docker's annotation with an image's full name.
const FULL_NAME: &str = "io.containerd.image.name";
/// The specification's; writers put a tag, or a full name.
const REF_NAME: &str = "org.opencontainers.image.ref.name";

#[derive(Clone, Debug, Default)]
pub struct ImportOptions {
    /// For images that the archive does not name: a reference, or a repository that gets their tags.
    pub name: Option<String>,
    /// `None`: this machine's.
    pub platform: Option<Platform>,
    pub pinned: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Archive(#[from] TarError),
    #[error("{what}: {source}")]
    Manifest { what: String, source: ManifestError },
    #[error(transparent)]
    Name(#[from] InvalidReference),
    #[error(
        "neither an OCI layout (oci-layout and index.json) nor an archive of docker save (manifest.json); a root filesystem is imported as a folder"
    )]
    Unrecognised,
    #[error("{what} is not in the archive")]
    Missing { what: String },
    #[error("{path}: {why}")]
    Malformed { path: String, why: String },
    #[error("the archive has no image for {0}")]
    Nothing(Platform),
}

impl Store {
    /// Imports all images of an archive, under all their names, and returns the records.
    /// One without a name is recorded by its id. Nothing is recorded unless every image is good.
    pub fn import(&self, archive: impl Read, options: &ImportOptions) -> Result<Vec<Image>, ImportError> {
        let operation = self.begin()?;
        let mut blobs = BTreeSet::new();
        let source = self.take_members(&operation, archive, &mut blobs).map(Source::Archive);
        self.import_from(operation, source, blobs, options)
    }

    /// Imports a file as `import` does, or a directory that is an OCI layout or an unpacked `docker save`.
    pub fn import_path(&self, path: &Path, options: &ImportOptions) -> Result<Vec<Image>, ImportError> {
        if !path.is_dir() {
            return self.import(File::open(path).at("opening", path)?, options);
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(path, flags, Mode::empty()).at("opening", path)?;
        let operation = self.begin()?;
        self.import_from(operation, Ok(Source::Dir(path.to_path_buf(), dir)), BTreeSet::new(), options)
    }

    fn import_from(
        &self,
        operation: Operation,
        source: Result<Source, ImportError>,
        mut blobs: BTreeSet<Digest>,
        options: &ImportOptions,
    ) -> Result<Vec<Image>, ImportError> {
        let platform = options.platform.clone().unwrap_or_else(Platform::host);
        let recorded = source.and_then(|source| {
            let mut importer =
                Importer { store: self, operation: &operation, source, platform, blobs: BTreeSet::new() };
            let found = importer.images(options);
            blobs.append(&mut importer.blobs);
            self.record_all(&operation, found?, options.pinned)
        });
        // The blobs of a failed import go at once too: an archive may be larger than the room that is left.
        drop(operation);
        self.drop_blobs(&blobs.into_iter().collect::<Vec<_>>())?;
        recorded
    }

    fn record_all(
        &self,
        operation: &Operation,
        found: Vec<Named>,
        pinned: bool,
    ) -> Result<Vec<Image>, ImportError> {
        for image in &found {
            let layers = image.resolved.layers();
            for (index, layer) in layers.iter().enumerate() {
                self.ensure_layer(operation, layer, &layers[..index])?;
            }
        }
        let mut images = Vec::new();
        for image in &found {
            images.extend(self.record(operation, &image.names, &image.resolved, pinned)?);
        }
        Ok(images)
    }

    /// Stores every file of an archive as a blob; those that were not in the store are added to `blobs`.
    fn take_members(
        &self,
        operation: &Operation,
        archive: impl Read,
        blobs: &mut BTreeSet<Digest>,
    ) -> Result<Members, ImportError> {
        let limits = Limits { entries: MAX_MEMBERS, ..self.options().limits.clone() };
        let beginning = |source| TarError::Read { entry: "the beginning".to_string(), source };
        let mut tar = Tar::new(Decoder::new(archive, &limits).map_err(beginning)?, &limits);
        let mut members = Members::default();
        while let Some(entry) = tar.next()? {
            let name = String::from_utf8_lossy(&entry.name).into_owned();
            let name = plain_path("", &name);
            match entry.kind {
                Kind::File => {
                    let mut blob = self.new_blob(operation)?;
                    io::copy(&mut tar.content(), &mut blob)
                        .map_err(|source| TarError::Read { entry: tarball::shown(&entry.name), source })?;
                    if blob.bytes != entry.size {
                        return Err(TarError::Truncated(entry.shown()).into());
                    }
                    let (digest, size) = (blob.digest(), blob.bytes);
                    let named = name.strip_prefix("blobs/sha256/").and_then(Digest::from_hex);
                    if named.is_some_and(|named| named != digest) {
                        return Err(ImportError::Malformed {
                            path: name,
                            why: format!("its content has the digest {digest}"),
                        });
                    }
                    operation.uses(&digest)?;
                    if !self.has_blob(&digest) {
                        blob.keep(self, &digest)?;
                        blobs.insert(digest);
                    }
                    members.files.insert(name, (digest, size));
                }
                Kind::Symlink => {
                    let parent = name.rsplit_once('/').map_or("", |(parent, _)| parent);
                    let target = plain_path(parent, &String::from_utf8_lossy(&entry.link));
                    members.links.insert(name, target);
                }
                Kind::HardLink => {
                    members.links.insert(name, plain_path("", &String::from_utf8_lossy(&entry.link)));
                }
                Kind::Directory => {}
                _ => {
                    return Err(ImportError::Malformed {
                        path: name,
                        why: "only files belong in an archive of images".into(),
                    });
                }
            }
        }
        Ok(members)
    }
}

/// A path within the archive without `.` and `..`, from the directory `base`. It is a key and never opened.
fn plain_path(base: &str, path: &str) -> String {
    let base = if path.starts_with('/') { "" } else { base };
    let mut parts: Vec<&str> = Vec::new();
    for part in base.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[derive(Default)]
struct Members {
    files: BTreeMap<String, (Digest, u64)>,
    links: BTreeMap<String, String>,
}

impl Members {
    fn find(&self, path: &str) -> Option<(Digest, u64)> {
        let mut path = path.to_string();
        // Links of old archives point at files; a longer chain is a loop.
        for _ in 0..8 {
            if let Some(found) = self.files.get(&path) {
                return Some(*found);
            }
            path = self.links.get(&path)?.clone();
        }
        None
    }
}

enum Source {
    Archive(Members),
    Dir(PathBuf, OwnedFd),
}

struct Named {
    names: Vec<Reference>,
    resolved: Resolved,
}

/// An entry of Docker's `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

struct Importer<'a> {
    store: &'a Store,
    operation: &'a Operation,
    source: Source,
    platform: Platform,
    /// Stored by this import.
    blobs: BTreeSet<Digest>,
}

impl Importer<'_> {
    fn images(&mut self, options: &ImportOptions) -> Result<Vec<Named>, ImportError> {
        let saved = match self.document("manifest.json")? {
            Some(bytes) => serde_json::from_slice::<Vec<Saved>>(&bytes).map_err(|error| {
                ImportError::Malformed { path: "manifest.json".into(), why: error.to_string() }
            })?,
            None => Vec::new(),
        };
        let index = match self.document("oci-layout")? {
            Some(_) => self.document("index.json")?,
            None => None,
        };
        let mut found = match index {
            Some(index) => self.oci_layout(&index, &saved, options)?,
            None if saved.is_empty() => return Err(ImportError::Unrecognised),
            None => saved.iter().map(|image| self.saved(image)).collect::<Result<Vec<_>, _>>()?,
        };
        if found.is_empty() {
            return Err(ImportError::Nothing(self.platform.clone()));
        }
        if let ([image], Some(name)) = (found.as_mut_slice(), &options.name)
            && image.names.is_empty()
        {
            image.names.push(name.parse()?);
        }
        Ok(found)
    }

    fn oci_layout(
        &mut self,
        index: &[u8],
        saved: &[Saved],
        options: &ImportOptions,
    ) -> Result<Vec<Named>, ImportError> {
        let fail = |source| ImportError::Manifest { what: "index.json".into(), source };
        let Document::Index(entries) = manifest::parse(index, "").map_err(fail)? else {
            return Err(ImportError::Malformed {
                path: "index.json".into(),
                why: "it is not an index".into(),
            });
        };
        let mut found: Vec<Named> = Vec::new();
        let mut other_platform = None;
        for entry in &entries {
            let resolved = match self.resolve(entry, 0) {
                Ok(resolved) => resolved,
                // An index may hold one image for each of several platforms.
                Err(ImportError::Manifest {
                    source: source @ (ManifestError::NoPlatform { .. } | ManifestError::Artifact(_)),
                    what,
                }) => {
                    other_platform = Some(ImportError::Manifest { source, what });
                    continue;
                }
                Err(error) => return Err(error),
            };
            let mut names = entry_names(entry, options)?;
            if names.is_empty() {
                names = self.saved_names(saved, &resolved.manifest.config.digest)?;
            }
            match found.iter_mut().find(|image| image.resolved.digest == resolved.digest) {
                Some(image) => image.names.extend(names),
                None => found.push(Named { names, resolved }),
            }
        }
        match other_platform {
            Some(error) if found.is_empty() => Err(error),
            _ => Ok(found),
        }
    }

    /// Names that Docker's list has for the configuration.
    fn saved_names(&self, saved: &[Saved], config: &Digest) -> Result<Vec<Reference>, ImportError> {
        let image = saved.iter().find(|image| image.config.contains(&config.hex()));
        let tags = image.and_then(|image| image.repo_tags.as_deref()).unwrap_or_default();
        Ok(tags.iter().map(|tag| tag.parse()).collect::<Result<_, InvalidReference>>()?)
    }

    fn resolve(&mut self, entry: &Descriptor, nesting: usize) -> Result<Resolved, ImportError> {
        let what = entry.digest.to_string();
        let fail = |source| ImportError::Manifest { what: what.clone(), source };
        let bytes = self.blob(&entry.digest)?;
        match manifest::parse(&bytes, &entry.media_type).map_err(fail)? {
            Document::Manifest(manifest) => {
                let config =
                    manifest::parse_config(&self.blob(&manifest.config.digest)?, &manifest).map_err(fail)?;
                manifest::check_platform(&config, &self.platform).map_err(fail)?;
                let manifest_bytes = bytes.len() as u64;
                let resolved = Resolved {
                    digest: entry.digest,
                    documents: vec![entry.digest],
                    manifest_bytes,
                    manifest,
                    config,
                };
                self.fetch_layers(&resolved)?;
                Ok(resolved)
            }
            Document::Index(_) if nesting >= MAX_NESTING => Err(ImportError::Malformed {
                path: what,
                why: format!("more than {MAX_NESTING} indexes within each other"),
            }),
            Document::Index(entries) => {
                let mut result =
                    Err(ImportError::Missing { what: format!("the image of {what} for {}", self.platform) });
                // Docker lists platforms whose content it did not save.
                for candidate in manifest::for_platform(&entries, &self.platform).map_err(fail)? {
                    result = self.resolve(candidate, nesting + 1);
                    if !matches!(result, Err(ImportError::Missing { .. } | ImportError::Manifest { .. })) {
                        break;
                    }
                }
                let mut resolved = result?;
                resolved.digest = entry.digest;
                resolved.documents.insert(0, entry.digest);
                Ok(resolved)
            }
        }
    }

    fn saved(&mut self, image: &Saved) -> Result<Named, ImportError> {
        let missing = |what: &str| ImportError::Missing { what: what.to_string() };
        let (config_digest, config_size) =
            self.member(&image.config)?.ok_or_else(|| missing(&image.config))?;
        let mut layers = Vec::new();
        for path in &image.layers {
            let (digest, size) = self.member(path)?.ok_or_else(|| missing(path))?;
            let mut head = [0; 4];
            let count = self
                .store
                .open_blob(&digest)?
                .read(&mut head)
                .at("reading", &self.store.blob_path(&digest))?;
            let media_type = match decode::sniff(&head[..count]) {
                Compression::None => OCI_LAYER_TAR.to_string(),
                Compression::Gzip => format!("{OCI_LAYER_TAR}+gzip"),
                Compression::Zstd => format!("{OCI_LAYER_TAR}+zstd"),
            };
            layers.push(Descriptor::new(&media_type, digest, size));
        }
        let config = Descriptor::new(OCI_CONFIG, config_digest, config_size);
        let manifest = Manifest { schema_version: 2, media_type: OCI_MANIFEST.into(), config, layers };
        let resolved = resolve_made(self.store, self.operation, manifest, &mut self.blobs)
            .map_err(|error| error.about(&image.config))?;
        manifest::check_platform(&resolved.config, &self.platform)
            .map_err(|source| ImportError::Manifest { what: image.config.clone(), source })?;
        let tags = image.repo_tags.as_deref().unwrap_or_default();
        let names = tags.iter().map(|tag| tag.parse()).collect::<Result<_, InvalidReference>>()?;
        Ok(Named { names, resolved })
    }

    /// Makes sure that layers that are not unpacked yet can be.
    fn fetch_layers(&mut self, resolved: &Resolved) -> Result<(), ImportError> {
        for layer in resolved.layers() {
            self.operation.uses(&layer.chain_id)?;
            if !self.store.has_layer(&layer.chain_id) {
                self.fetch(&layer.blob)?;
            }
        }
        Ok(())
    }

    /// Brings a blob from the source into the store, if it is not there.
    fn fetch(&mut self, digest: &Digest) -> Result<(), ImportError> {
        self.operation.uses(digest)?;
        if self.store.has_blob(digest) {
            return Ok(());
        }
        let path = format!("blobs/sha256/{}", digest.hex());
        match self.member(&path)? {
            Some((found, _)) if found == *digest => Ok(()),
            Some((found, _)) => Err(StoreError::Digest { wanted: *digest, found }.into()),
            None => Err(ImportError::Missing { what: path }),
        }
    }

    fn blob(&mut self, digest: &Digest) -> Result<Vec<u8>, ImportError> {
        self.fetch(digest)?;
        Ok(self.store.read_blob(digest, manifest::DOCUMENT_BYTES)?)
    }

    fn document(&mut self, path: &str) -> Result<Option<Vec<u8>>, ImportError> {
        match self.member(path)? {
            Some((digest, _)) => Ok(Some(self.store.read_blob(&digest, manifest::DOCUMENT_BYTES)?)),
            None => Ok(None),
        }
    }

    /// A file of the source as a blob of the store, with its size.
    fn member(&mut self, path: &str) -> Result<Option<(Digest, u64)>, ImportError> {
        let (base, dir) = match &self.source {
            Source::Archive(members) => return Ok(members.find(&plain_path("", path))),
            Source::Dir(base, dir) => (base, dir),
        };
        let shown = base.join(path);
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        // A FIFO must not stop us.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = match rustix::fs::openat2(dir, path, flags, Mode::empty(), resolve) {
            Ok(file) => File::from(file),
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(errno).at("opening", &shown)?,
        };
        if !file.metadata().at("reading", &shown)?.is_file() {
            return Err(ImportError::Malformed { path: path.to_string(), why: "it is not a file".into() });
        }
        let mut content = HashingReader::new(file.take(self.store.options().limits.file_bytes));
        let mut blob = self.store.new_blob(self.operation)?;
        io::copy(&mut content, &mut blob).at("copying", &shown)?;
        let (digest, size) = content.finish();
        self.operation.uses(&digest)?;
        if !self.store.has_blob(&digest) {
            blob.keep(self.store, &digest)?;
            self.blobs.insert(digest);
        }
        Ok(Some((digest, size)))
    }
}

/// The names that an index's entry carries.
fn entry_names(entry: &Descriptor, options: &ImportOptions) -> Result<Vec<Reference>, ImportError> {
    if let Some(full) = entry.annotations.get(FULL_NAME) {
        return Ok(vec![full.parse()?]);
    }
    let Some(name) = entry.annotations.get(REF_NAME) else { return Ok(Vec::new()) };
    if name.contains(['/', ':']) {
        return Ok(vec![name.parse()?]);
    }
    match &options.name {
        // A bare tag of a repository that the caller names.
        Some(base) if !base.rsplit('/').next().unwrap_or(base).contains([':', '@']) => {
            Ok(vec![format!("{base}:{name}").parse()?])
        }
        Some(full) => Ok(vec![full.parse()?]),
        None => Ok(Vec::new()),
    }
}

/// What went wrong with an image whose manifest was made here.
pub(super) enum MadeError {
    Store(StoreError),
    Manifest(ManifestError),
}

impl MadeError {
    pub(super) fn about(self, what: &str) -> ImportError {
        match self {
            MadeError::Store(error) => error.into(),
            MadeError::Manifest(source) => ImportError::Manifest { what: what.to_string(), source },
        }
    }
}

/// Stores a manifest that was made here, whose configuration is in the store.
pub(super) fn resolve_made(
    store: &Store,
    operation: &Operation,
    manifest: Manifest,
    blobs: &mut BTreeSet<Digest>,
) -> Result<Resolved, MadeError> {
    let config =
        store.read_blob(&manifest.config.digest, manifest::DOCUMENT_BYTES).map_err(MadeError::Store)?;
    let config = manifest::parse_config(&config, &manifest).map_err(MadeError::Manifest)?;
    let bytes = super::store::to_json(&manifest);
    let digest = store.put_bytes(operation, &bytes).map_err(MadeError::Store)?;
    blobs.insert(digest);
    Ok(Resolved { digest, documents: vec![digest], manifest_bytes: bytes.len() as u64, manifest, config })
}
