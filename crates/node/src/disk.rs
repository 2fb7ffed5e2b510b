//! How much of the disk files take: by walking, since there are no project quotas to ask.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use plan::pod::DiskUse;

use crate::clock;

/// Where a pod's files are.
pub struct Places {
    pub volumes: BTreeMap<String, PathBuf>,
    /// By container: its changes to the image, and its logs.
    pub containers: BTreeMap<String, Vec<PathBuf>>,
}

pub fn measure(places: &Places) -> DiskUse {
    let volumes = places.volumes.iter().map(|(name, path)| (name.clone(), used_bytes(path)));
    let containers = places.containers.iter().map(|(name, paths)| {
        let total = paths.iter().map(|path| used_bytes(path)).sum();
        (name.clone(), total)
    });
    DiskUse { volumes: volumes.collect(), containers: containers.collect(), at: clock::now() }
}

/// Blocks of everything at and below a path, other file systems left out and links not followed. What goes meanwhile
/// counts nothing.
fn used_bytes(path: &Path) -> u64 {
    fs::symlink_metadata(path).map_or(0, |root| walk(path, root.dev()).unwrap_or(0))
}

fn walk(path: &Path, device: u64) -> io::Result<u64> {
    let found = fs::symlink_metadata(path)?;
    if found.dev() != device {
        return Ok(0);
    }
    let mut bytes = found.blocks().saturating_mul(512);
    if found.is_dir() {
        for entry in fs::read_dir(path)?.flatten() {
            bytes = bytes.saturating_add(walk(&entry.path(), device).unwrap_or(0));
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_counted_and_links_are_not_followed() {
        let dir = tempfile::tempdir().expect("a folder");
        let empty = used_bytes(dir.path());
        fs::create_dir(dir.path().join("in")).expect("made");
        fs::write(dir.path().join("in/file"), vec![1; 100_000]).expect("written");
        fs::hard_link(dir.path().join("in/file"), dir.path().join("again")).expect("linked");
        std::os::unix::fs::symlink("/usr", dir.path().join("out")).expect("linked");
        let used = used_bytes(dir.path()) - empty;
        assert!((100_000..1 << 20).contains(&used), "{used}");
        assert_eq!(used_bytes(&dir.path().join("none")), 0);
    }
}
