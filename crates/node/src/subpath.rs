//! A volume's subPath, resolved so that no link in the volume leads out of it.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, mkdirat, openat2};
use rustix::io::Errno;

/// The real path of `subpath` in `base`; folders that are missing are made, as upstream does.
///
/// The path is read back from the descriptor that was opened inside the root, so it holds no link any more. A container that shares the
/// volume and moves folders about can still race the mount that follows: it then sees what it moved there, which lies in its own volume.
pub fn resolve(base: &Path, subpath: &str) -> io::Result<PathBuf> {
    let parts: Vec<&OsStr> = Path::new(subpath)
        .components()
        .map(|part| match part {
            Component::Normal(name) => Ok(name),
            _ => Err(io::Error::other(format!("subPath {subpath:?} is not a path below the volume"))),
        })
        .collect::<io::Result<_>>()?;
    let root = open(CWD, base, ResolveFlags::empty())?;
    let mut reached = PathBuf::new();
    for (index, name) in parts.iter().enumerate() {
        let parent =
            if index == 0 { open(&root, Path::new("."), IN_ROOT)? } else { open(&root, &reached, IN_ROOT)? };
        reached.push(name);
        match open(&root, &reached, IN_ROOT) {
            Err(error) if error.raw_os_error() == Some(Errno::NOENT.raw_os_error()) => {
                mkdirat(&parent, *name, Mode::from_raw_mode(0o755))?;
            }
            other => drop(other?),
        }
    }
    let target = if reached.as_os_str().is_empty() { root } else { open(&root, &reached, IN_ROOT)? };
    std::fs::read_link(format!("/proc/self/fd/{}", target.as_raw_fd()))
}

const IN_ROOT: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);

fn open(at: impl rustix::fd::AsFd, path: &Path, resolve: ResolveFlags) -> io::Result<OwnedFd> {
    Ok(openat2(at, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn no_link_leads_out_of_the_volume() {
        let dir = tempfile::tempdir().expect("a folder");
        let base = dir.path().canonicalize().expect("a path");
        symlink("/etc", base.join("out")).expect("linked");
        symlink("real", base.join("in")).expect("linked");
        std::fs::create_dir(base.join("real")).expect("made");
        assert_eq!(resolve(&base, "a/b").expect("made"), base.join("a/b"));
        assert_eq!(resolve(&base, "in").expect("found"), base.join("real"));
        assert_eq!(resolve(&base, "").expect("found"), base);
        let led = resolve(&base, "out");
        assert!(led.is_err() || led.expect("checked").starts_with(&base));
        assert!(resolve(&base, "../x").is_err());
    }
}
