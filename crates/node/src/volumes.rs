//! Volumes on the node's disk: `<pods>/<uid>/volumes/<name>`.
//!
//! Files of a ConfigMap, Secret or projection change all at once, as a reader sees them: they stand in a folder of their own, `..data`
//! points at it, and replacing that link is the change.
//!
//! ```text
//! volumes/config/..2f1c9a/app.yaml      the files
//! volumes/config/..data -> ..2f1c9a
//! volumes/config/app.yaml -> ..data/app.yaml
//! ```

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt, PermissionsExt, chown, lchown, symlink};
use std::path::{Component, Path, PathBuf};

use plan::pod::{HostPathKind, Volume, VolumeSource};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

/// A file with its bytes at hand: tokens have been fetched.
pub struct Content {
    pub path: String,
    pub mode: u32,
    pub uid: Option<u32>,
    pub bytes: Vec<u8>,
}

#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    #[error("MountVolume.SetUp failed for volume \"{volume}\" : {operation} {path}: {source}")]
    SetUp { volume: String, operation: &'static str, path: PathBuf, source: io::Error },
    /// Upstream's words for a local volume whose folder nobody has made.
    #[error(
        "MountVolume.NewMounter initialization failed for volume \"{volume}\" : path {path:?} does not exist"
    )]
    NoLocalPath { volume: String, path: PathBuf },
}

/// Brings one volume to what it should be. `files` are the contents of a `Files` source.
pub fn set_up(volumes_dir: &Path, volume: &Volume, files: &[Content]) -> Result<(), VolumeError> {
    let path = volumes_dir.join(&volume.name);
    let failed = |operation: &'static str, path: &Path| {
        let (volume, path) = (volume.name.clone(), path.to_owned());
        move |source| VolumeError::SetUp { volume, operation, path, source }
    };
    match &volume.source {
        VolumeSource::HostPath { path, kind } => {
            host_path(path, *kind).map_err(failed("hostPath type check failed:", path))
        }
        VolumeSource::Local { volume, path } if !path.exists() => {
            Err(VolumeError::NoLocalPath { volume: volume.clone(), path: path.clone() })
        }
        VolumeSource::Local { path, .. } => local(path, volume.fs_group).map_err(failed("use", path)),
        VolumeSource::EmptyDir { in_memory, size_limit_bytes } => {
            make_dir(&path, 0o777).map_err(failed("make", &path))?;
            if *in_memory && !is_mount(&path) {
                let size = size_limit_bytes.map_or(String::new(), |bytes| format!("size={bytes}"));
                let options = std::ffi::CString::new(size).unwrap_or_default();
                mount("tmpfs", &path, "tmpfs", MountFlags::NODEV | MountFlags::NOSUID, options.as_c_str())
                    .map_err(|error| failed("mount memory on", &path)(error.into()))?;
            }
            own(&path, volume.fs_group, 0o777).map_err(failed("set the owner of", &path))
        }
        VolumeSource::Files(_) => {
            make_dir(&path, 0o777).map_err(failed("make", &path))?;
            write_files(&path, files, volume.fs_group).map_err(failed("write files in", &path))
        }
    }
}

/// Unmounts and removes everything of a pod.
pub fn tear_down(pod_dir: &Path) -> io::Result<()> {
    let volumes = pod_dir.join("volumes");
    for entry in fs::read_dir(&volumes).into_iter().flatten().flatten() {
        if is_mount(&entry.path()) {
            unmount(entry.path(), UnmountFlags::DETACH)?;
        }
    }
    match fs::remove_dir_all(pod_dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn make_dir(path: &Path, mode: u32) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o755).create(path)?;
    fs::set_permissions(path, Permissions::from_mode(mode))
}

/// A mount point's device differs from its parent's.
fn is_mount(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let device = |path: &Path| fs::symlink_metadata(path).map(|meta| meta.dev()).ok();
    path.parent().is_some_and(|parent| device(path) != device(parent))
}

fn own(path: &Path, group: Option<u32>, mode: u32) -> io::Result<()> {
    let Some(group) = group else { return Ok(()) };
    chown(path, None, Some(group))?;
    // New files in it belong to the group as well.
    fs::set_permissions(path, Permissions::from_mode(mode | 0o2070))
}

/// A folder that somebody prepared; with an fsGroup it is that group's, and all that is in it.
fn local(path: &Path, group: Option<u32>) -> io::Result<()> {
    let found = fs::metadata(path)?;
    if !found.is_dir() {
        return Err(io::Error::other("a local volume is a folder here; devices are not mounted"));
    }
    group.map_or(Ok(()), |group| own_all(path, group))
}

/// The group may do what the owner may (`SetVolumeOwnership`). Links are changed, never followed.
fn own_all(path: &Path, group: u32) -> io::Result<()> {
    lchown(path, None, Some(group))?;
    let found = fs::symlink_metadata(path)?;
    if found.is_symlink() {
        return Ok(());
    }
    let mode = found.permissions().mode();
    let shared = if found.is_dir() { 0o2770 } else { 0o660 };
    fs::set_permissions(path, Permissions::from_mode(mode | shared))?;
    if found.is_dir() {
        for entry in fs::read_dir(path)? {
            own_all(&entry?.path(), group)?;
        }
    }
    Ok(())
}

fn host_path(path: &Path, kind: HostPathKind) -> io::Result<()> {
    let found = fs::metadata(path);
    let must_be = |holds: fn(&fs::FileType) -> bool, name: &str| match &found {
        Ok(meta) if holds(&meta.file_type()) => Ok(()),
        _ => Err(io::Error::other(format!("{} is not a {name}", path.display()))),
    };
    match kind {
        // Upstream makes a missing path a folder through its runtime.
        HostPathKind::Unchecked | HostPathKind::DirectoryOrCreate if found.is_err() => {
            DirBuilder::new().recursive(true).mode(0o755).create(path)
        }
        HostPathKind::Unchecked => Ok(()),
        HostPathKind::DirectoryOrCreate | HostPathKind::Directory => {
            must_be(fs::FileType::is_dir, "directory")
        }
        HostPathKind::FileOrCreate if found.is_err() => {
            OpenOptions::new().write(true).create_new(true).mode(0o644).open(path).map(drop)
        }
        HostPathKind::FileOrCreate | HostPathKind::File => must_be(fs::FileType::is_file, "file"),
        HostPathKind::Socket => must_be(fs::FileType::is_socket, "socket"),
        HostPathKind::CharDevice => must_be(fs::FileType::is_char_device, "character device"),
        HostPathKind::BlockDevice => must_be(fs::FileType::is_block_device, "block device"),
    }
}

fn write_files(dir: &Path, files: &[Content], group: Option<u32>) -> io::Result<()> {
    let old = fs::read_link(dir.join("..data")).ok();
    let name = unused_name(dir)?;
    let fresh = dir.join(&name);
    make_dir(&fresh, 0o755)?;
    for file in files {
        write_file(&fresh, file, group)?;
    }
    let link = dir.join("..data_tmp");
    // Of a write that a crash cut short; mostly there is none. One that stays is told by what follows.
    let _ = fs::remove_file(&link);
    symlink(&name, &link)?;
    fs::rename(&link, dir.join("..data"))?;
    let tops: BTreeSet<&str> = files.iter().filter_map(|file| file.path.split('/').next()).collect();
    for top in &tops {
        let visible = dir.join(top);
        if fs::symlink_metadata(&visible).is_err() {
            symlink(Path::new("..data").join(top), &visible)?;
        }
    }
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(text) = name.to_str() else { continue };
        if !text.starts_with("..") && !tops.contains(text) {
            fs::remove_file(entry.path())?;
        }
    }
    if let Some(old) = old.filter(|old| old.file_name().is_some() && *old != name) {
        fs::remove_dir_all(dir.join(old))?;
    }
    Ok(())
}

/// A name for the folder behind `..data`: the next number that is not taken.
fn unused_name(dir: &Path) -> io::Result<PathBuf> {
    (1..u32::MAX)
        .map(|number| PathBuf::from(format!("..{number}")))
        .find(|name| fs::symlink_metadata(dir.join(name)).is_err())
        .ok_or_else(|| io::Error::other("no free name"))
}

fn write_file(dir: &Path, file: &Content, group: Option<u32>) -> io::Result<()> {
    let relative = Path::new(&file.path);
    if !relative.components().all(|part| matches!(part, Component::Normal(_))) {
        return Err(io::Error::other(format!("{} leaves the volume", file.path)));
    }
    let path = dir.join(relative);
    if let Some(parent) = path.parent().filter(|parent| *parent != dir) {
        DirBuilder::new().recursive(true).mode(0o755).create(parent)?;
    }
    let mut out = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
    out.write_all(&file.bytes)?;
    if file.uid.is_some() || group.is_some() {
        chown(&path, file.uid, group)?;
    }
    let mode = if group.is_some() { file.mode | 0o040 } else { file.mode };
    fs::set_permissions(&path, Permissions::from_mode(mode))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(path: &str, text: &str) -> Content {
        Content { path: path.into(), mode: 0o644, uid: None, bytes: text.into() }
    }

    #[test]
    fn files_change_all_at_once_and_old_ones_go() {
        let dir = tempfile::tempdir().expect("a folder");
        let read = |name: &str| fs::read_to_string(dir.path().join(name)).ok();
        write_files(dir.path(), &[content("a", "1"), content("sub/b", "1")], None).expect("written");
        assert_eq!((read("a").as_deref(), read("sub/b").as_deref()), (Some("1"), Some("1")));
        write_files(dir.path(), &[content("a", "2"), content("c", "2")], None).expect("written again");
        assert_eq!((read("a").as_deref(), read("sub/b"), read("c").as_deref()), (Some("2"), None, Some("2")));
        let folders = fs::read_dir(dir.path())
            .expect("listed")
            .flatten()
            .filter(|entry| entry.path().is_dir() && !entry.path().is_symlink());
        assert_eq!(folders.count(), 1, "the old content is gone");
        assert!(write_files(dir.path(), &[content("../x", "3")], None).is_err());
    }
}
