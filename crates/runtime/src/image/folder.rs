//! A folder becomes an image of one layer. The same folder gives the same digests: entries are sorted, and nothing
//! but the content, names, modes, owners, whole seconds of times, attributes and hard links goes in.

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use tar::{Builder, EntryType, Header};

use super::archive::{ImportError, resolve_made};
use super::manifest::{
    Config, Descriptor, Manifest, OCI_CONFIG, OCI_LAYER_TAR, OCI_MANIFEST, Platform, RootFs, RunConfig,
};
use super::reference::Reference;
use super::store::{At, Image, Store, StoreError, to_json};
use super::tree;

/// What `docker build` gives an image from scratch.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

impl Store {
    /// Imports `dir` as an image for this machine that runs `entrypoint` and behind it `cmd`, which a pod's `args` replace; either may be
    /// empty. Sockets and marks of overlayfs are left out.
    pub fn import_rootfs(
        &self,
        dir: &Path,
        entrypoint: &[String],
        cmd: &[String],
        name: &str,
    ) -> Result<Image, ImportError> {
        let name: Reference = name.parse()?;
        let operation = self.begin()?;
        let mut blobs = BTreeSet::new();
        let mut blob = self.new_blob(&operation)?;
        write_folder(dir, &mut blob)?;
        let (layer, size) = (blob.digest(), blob.bytes);
        operation.uses(&layer)?;
        if !self.has_blob(&layer) {
            blob.keep(self, &layer)?;
            blobs.insert(layer);
        }
        let platform = Platform::host();
        let config = to_json(&Config {
            created: Some("1970-01-01T00:00:00Z".to_string()),
            architecture: platform.architecture,
            os: platform.os,
            variant: platform.variant,
            config: Some(RunConfig {
                // As `docker build` leaves out what was not said: the same folder and words make the same image as before.
                entrypoint: (!entrypoint.is_empty()).then(|| entrypoint.to_vec()),
                cmd: Some(cmd.to_vec()),
                env: Some(vec![PATH.to_string()]),
                ..RunConfig::default()
            }),
            rootfs: RootFs { kind: "layers".to_string(), diff_ids: vec![layer] },
        });
        let config = Descriptor::new(OCI_CONFIG, self.put_bytes(&operation, &config)?, config.len() as u64);
        let layers = vec![Descriptor::new(OCI_LAYER_TAR, layer, size)];
        let manifest = Manifest { schema_version: 2, media_type: OCI_MANIFEST.to_string(), config, layers };
        let resolved = resolve_made(self, &operation, manifest, &mut blobs)
            .map_err(|error| error.about("the new image"))?;
        for layer in &resolved.layers() {
            self.ensure_layer(&operation, layer, &[])?;
        }
        let mut images = self.record(&operation, &[name], &resolved, false)?;
        drop(operation);
        self.drop_blobs(&blobs.into_iter().collect::<Vec<_>>())?;
        images.pop().ok_or(ImportError::Unrecognised)
    }
}

fn write_folder(dir: &Path, out: impl Write) -> Result<(), StoreError> {
    let mut folder = Folder { tar: Builder::new(out), root: dir.to_path_buf(), links: HashMap::new() };
    let metadata = fs::metadata(dir).at("reading", dir)?;
    if !metadata.is_dir() {
        return Err(io::Error::from(io::ErrorKind::NotADirectory)).at("reading", dir);
    }
    folder.entry(Path::new("./"), dir, &metadata)?;
    folder.children(Path::new(""))?;
    folder.tar.finish().at("packing", dir)
}

struct Folder<W: Write> {
    tar: Builder<W>,
    root: PathBuf,
    /// The first name of a file that has several, by device and inode.
    links: HashMap<(u64, u64), PathBuf>,
}

impl<W: Write> Folder<W> {
    fn children(&mut self, below: &Path) -> Result<(), StoreError> {
        let dir = self.root.join(below);
        let mut names = Vec::new();
        for entry in fs::read_dir(&dir).at("listing", &dir)? {
            names.push(entry.at("listing", &dir)?.file_name());
        }
        names.sort();
        for name in names {
            let inside = below.join(&name);
            let path = self.root.join(&inside);
            let metadata = fs::symlink_metadata(&path).at("reading", &path)?;
            self.entry(&inside, &path, &metadata)?;
            if metadata.is_dir() {
                self.children(&inside)?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, inside: &Path, path: &Path, metadata: &Metadata) -> Result<(), StoreError> {
        let kind = metadata.file_type();
        let whiteout = kind.is_char_device() && metadata.rdev() == 0;
        if kind.is_socket() || whiteout {
            return Ok(());
        }
        let mut header = Header::new_gnu();
        header.set_mode(metadata.mode() & 0o7777);
        header.set_uid(metadata.uid().into());
        header.set_gid(metadata.gid().into());
        header.set_mtime(u64::try_from(metadata.mtime()).unwrap_or(0));
        header.set_size(0);
        if !metadata.is_dir() && metadata.nlink() > 1 {
            let first = self
                .links
                .entry((metadata.dev(), metadata.ino()))
                .or_insert_with(|| inside.to_path_buf())
                .clone();
            if first != inside {
                header.set_entry_type(EntryType::Link);
                return self.tar.append_link(&mut header, inside, first).at("packing", path);
            }
        }
        if kind.is_symlink() {
            header.set_entry_type(EntryType::Symlink);
            let target = fs::read_link(path).at("reading", path)?;
            return self.tar.append_link(&mut header, inside, target).at("packing", path);
        }
        if kind.is_file() || kind.is_dir() {
            return self.with_content(header, inside, path, metadata);
        }
        header.set_entry_type(if kind.is_fifo() {
            EntryType::Fifo
        } else if kind.is_block_device() {
            EntryType::Block
        } else {
            EntryType::Char
        });
        header.set_device_major(rustix::fs::major(metadata.rdev())).at("packing", path)?;
        header.set_device_minor(rustix::fs::minor(metadata.rdev())).at("packing", path)?;
        self.tar.append_data(&mut header, inside, io::empty()).at("packing", path)
    }

    /// A file or a directory, with its extended attributes.
    fn with_content(
        &mut self,
        mut header: Header,
        inside: &Path,
        path: &Path,
        metadata: &Metadata,
    ) -> Result<(), StoreError> {
        let nofollow = rustix::fs::OFlags::NOFOLLOW.bits() as i32;
        let file = File::options().read(true).custom_flags(nofollow).open(path).at("opening", path)?;
        let mut records = Vec::new();
        for (name, value) in tree::xattrs(&file).at("reading the attributes of", path)? {
            let name = String::from_utf8_lossy(&name).into_owned();
            records.push((format!("SCHILY.xattr.{name}"), value));
        }
        if !records.is_empty() {
            let records = records.iter().map(|(name, value)| (name.as_str(), value.as_slice()));
            self.tar.append_pax_extensions(records).at("packing", path)?;
        }
        if metadata.is_dir() {
            header.set_entry_type(EntryType::Directory);
            let mut name = inside.as_os_str().as_bytes().to_vec();
            if !name.ends_with(b"/") {
                name.push(b'/');
            }
            let name = Path::new(std::ffi::OsStr::from_bytes(&name));
            return self.tar.append_data(&mut header, name, io::empty()).at("packing", path);
        }
        header.set_entry_type(EntryType::Regular);
        header.set_size(metadata.len());
        // A file that grows is cut; one that shrinks would shift all that follows.
        let exact = Exact { inner: file.take(metadata.len()), left: metadata.len() };
        self.tar.append_data(&mut header, inside, exact).at("packing", path)
    }
}

/// Fails if the file turns out shorter than it was.
struct Exact<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Exact<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        if n == 0 && self.left > 0 && !buf.is_empty() {
            return Err(io::Error::other("the file shrank while it was read"));
        }
        self.left -= n as u64;
        Ok(n)
    }
}
