//! What stacked layers look like through the kernel's overlayfs.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use tar::EntryType;

use super::*;
use crate::image::layer::unpack;
use crate::image::limits::Limits;

/// Unpacks layers over each other; the directories, lowest first.
fn stack(dir: &Path, layers: &[Vec<u8>]) -> Vec<PathBuf> {
    let mut lowers = Vec::new();
    for (index, layer) in layers.iter().enumerate() {
        let into = dir.join(format!("{index}"));
        fs::create_dir(&into).unwrap();
        unpack(&layer[..], &lowers, &into, &Limits::default())
            .unwrap_or_else(|error| panic!("layer {index}: {error}"));
        lowers.push(into);
    }
    lowers
}

/// Looks at the merged tree, in a mount namespace that goes with the thread.
fn merged<T: Send>(dir: &Path, lowers: &[PathBuf], look: impl FnOnce(&Path) -> T + Send) -> T {
    let at = dir.join("merged");
    let empty = dir.join("empty");
    fs::create_dir_all(&at).unwrap();
    // Overlayfs wants two layers at least.
    fs::create_dir_all(&empty).unwrap();
    let names: Vec<String> =
        lowers.iter().rev().chain([&empty]).map(|path| path.display().to_string()).collect();
    let options = std::ffi::CString::new(format!("lowerdir={}", names.join(":"))).unwrap();
    let run = || {
        // SAFETY: only this thread's view of mounts changes, and it touches nothing else afterwards.
        unsafe { unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::FS) }.unwrap();
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
        mount("overlay", &at, "overlay", MountFlags::RDONLY, options.as_c_str()).unwrap();
        look(&at)
    };
    std::thread::scope(|scope| scope.spawn(run).join().unwrap())
}

fn check(layers: &[Vec<Vec<u8>>], want: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let layers: Vec<Vec<u8>> = layers.iter().map(|members| tarball(members)).collect();
    let lowers = stack(dir.path(), &layers);
    assert_eq!(merged(dir.path(), &lowers, listing), want);
}

#[test]
fn layers_cover_delete_and_merge() {
    let base = || {
        vec![dir("d"), file("d/x", "1"), file("d/y", "1"), dir("d/s"), file("d/s/z", "1"), file("top", "1")]
    };
    check(&[base()], &["d/", "d/s/", "d/s/z = 1", "d/x = 1", "d/y = 1", "top = 1"]);
    check(&[base(), vec![file("d/x", "2")]], &["d/", "d/s/", "d/s/z = 1", "d/x = 2", "d/y = 1", "top = 1"]);
    check(&[base(), vec![file("d/.wh.x", ""), file(".wh.top", "")]], &["d/", "d/s/", "d/s/z = 1", "d/y = 1"]);
    check(&[base(), vec![file(".wh.d", "")]], &["top = 1"]);
    check(&[base(), vec![file("d/.wh..wh..opq", ""), file("d/new", "2")]], &["d/", "d/new = 2", "top = 1"]);
    // The mark counts whatever its place in the archive.
    check(&[base(), vec![file("d/new", "2"), file("d/.wh..wh..opq", "")]], &["d/", "d/new = 2", "top = 1"]);
    check(&[base(), vec![file(".wh.d", ""), dir("d"), file("d/new", "2")]], &["d/", "d/new = 2", "top = 1"]);
    check(&[base(), vec![dir("d"), file("d/new", "2"), file(".wh.d", "")]], &["d/", "d/new = 2", "top = 1"]);
    // A deletion inside a directory that is then hidden whole, or of what never was, leaves no mark to be seen.
    check(
        &[base(), vec![file("d/.wh.x", ""), file("d/s/.wh.z", ""), file("d/.wh..wh..opq", "")]],
        &["d/", "d/s/", "top = 1"],
    );
    check(&[vec![dir("e"), file("e/.wh.x", ""), file(".wh.y", "")]], &["e/"]);
    check(&[base(), vec![file("d", "2")]], &["d = 2", "top = 1"]);
    check(&[base(), vec![file("d", "2")], vec![dir("d"), file("d/n", "3")]], &["d/", "d/n = 3", "top = 1"]);
    check(&[base(), vec![file(".wh.d", "")], vec![file("d/n", "3")]], &["d/", "d/n = 3", "top = 1"]);
}

#[test]
fn symlinks_and_hard_links_reach_into_lower_layers() {
    let usr = || vec![dir("usr"), dir("usr/lib"), file("usr/lib/a", "1"), symlink("lib", "usr/lib")];
    check(
        &[usr(), vec![file("lib/b", "2")]],
        &["lib -> usr/lib", "usr/", "usr/lib/", "usr/lib/a = 1", "usr/lib/b = 2"],
    );
    check(
        &[usr(), vec![hard_link("c", "lib/a")]],
        &["c = 1", "lib -> usr/lib", "usr/", "usr/lib/", "usr/lib/a = 1"],
    );
    // A link that was deleted leads nowhere.
    check(
        &[usr(), vec![file(".wh.lib", "")], vec![file("lib/b", "3")]],
        &["lib/", "lib/b = 3", "usr/", "usr/lib/", "usr/lib/a = 1"],
    );
}

#[test]
fn implied_directories_look_as_they_do_below() {
    let dir = tempfile::tempdir().unwrap();
    let mut tmp = member(EntryType::Directory, "tmp", "", 0o1777, b"");
    tmp.splice(
        0..0,
        pax(&[("uid", b"7"), ("gid", b"8"), ("SCHILY.xattr.user.k", b"v"), ("mtime", b"1234.5")]),
    );
    let lowers = stack(dir.path(), &[tarball(&[tmp]), tarball(&[file("tmp/x", "1"), file("new/x", "1")])]);
    let (tmp, new) =
        (fs::metadata(lowers[1].join("tmp")).unwrap(), fs::metadata(lowers[1].join("new")).unwrap());
    assert_eq!(
        (tmp.mode() & 0o7777, tmp.uid(), tmp.gid(), tmp.mtime(), tmp.mtime_nsec()),
        (0o1777, 7, 8, 1234, 500_000_000)
    );
    let mut value = [0; 8];
    assert_eq!(rustix::fs::getxattr(lowers[1].join("tmp"), "user.k", &mut value[..]), Ok(1));
    assert_eq!((new.mode() & 0o7777, new.uid()), (0o755, 0));
}

#[test]
fn attributes_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    // cap_net_raw+ep as the kernel stores it.
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let mut ping = member(EntryType::Regular, "ping", "", 0o4755, b"x");
    ping.splice(
        0..0,
        pax(&[("uid", b"1000"), ("gid", b"2000"), ("SCHILY.xattr.security.capability", &capability)]),
    );
    let fifo = member(EntryType::Fifo, "fifo", "", 0o622, b"");
    let lowers = stack(dir.path(), &[tarball(&[ping, fifo, symlink("s", "ping"), hard_link("h", "ping")])]);
    let ping = fs::metadata(lowers[0].join("ping")).unwrap();
    assert_eq!(
        (ping.mode() & 0o7777, ping.uid(), ping.gid(), ping.mtime()),
        (0o4755, 1000, 2000, 1_000_000_000)
    );
    assert_eq!(ping.nlink(), 2);
    assert_eq!(fs::symlink_metadata(lowers[0].join("s")).unwrap().mtime(), 1_000_000_000);
    assert_eq!(fs::metadata(lowers[0].join("fifo")).unwrap().permissions().mode() & 0o7777, 0o622);
    let mut value = [0; 64];
    assert_eq!(rustix::fs::getxattr(lowers[0].join("ping"), "security.capability", &mut value[..]), Ok(20));
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Node {
    File(String),
    Dir { opaque: bool },
    Deleted,
}

/// A layer of distinct paths, each of whose directories it names, in any order that has parents first.
fn any_layer() -> impl Strategy<Value = BTreeMap<String, Node>> {
    let path = proptest::collection::vec(prop_oneof![Just("a"), Just("b"), Just("c")], 1..4);
    let node = prop_oneof![
        any::<u8>().prop_map(|n| Node::File(n.to_string())),
        any::<bool>().prop_map(|opaque| Node::Dir { opaque }),
        Just(Node::Deleted),
    ];
    proptest::collection::vec((path, node), 1..8).prop_map(|entries| {
        let mut layer = BTreeMap::new();
        for (path, node) in entries {
            for end in 1..path.len() {
                let parent = layer.entry(path[..end].join("/")).or_insert(Node::Dir { opaque: false });
                if !matches!(parent, Node::Dir { .. }) {
                    *parent = Node::Dir { opaque: true };
                }
            }
            layer.entry(path.join("/")).or_insert(node);
        }
        layer
    })
}

fn is_below(path: &str, dir: &str) -> bool {
    path.strip_prefix(dir).is_some_and(|rest| rest.starts_with('/'))
}

/// The specification's words: deletions are of what lies below, then the layer's own entries come.
fn apply(tree: &mut BTreeMap<String, Node>, layer: &BTreeMap<String, Node>) {
    for (path, node) in layer {
        let replaces = match node {
            Node::Dir { opaque } => *opaque || !matches!(tree.get(path), Some(Node::Dir { .. })),
            Node::File(_) | Node::Deleted => true,
        };
        if replaces {
            tree.retain(|other, _| other != path && !is_below(other, path));
        }
    }
    for (path, node) in layer.iter().filter(|(_, node)| **node != Node::Deleted) {
        tree.insert(path.clone(), node.clone());
    }
}

fn to_members(layer: &BTreeMap<String, Node>, marks_first: bool) -> Vec<u8> {
    let (mut plain, mut marks) = (Vec::new(), Vec::new());
    for (path, node) in layer {
        let (parent, name) =
            path.rsplit_once('/').map_or(("", path.as_str()), |(parent, name)| (parent, name));
        match node {
            Node::File(content) => plain.push(file(path, content)),
            Node::Dir { opaque } => {
                plain.push(dir(path));
                if *opaque {
                    marks.push(file(&format!("{path}/.wh..wh..opq"), ""));
                }
            }
            Node::Deleted => marks.push(file(&format!("{parent}/.wh.{name}"), "")),
        }
    }
    tarball(&if marks_first { [marks, plain].concat() } else { [plain, marks].concat() })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn overlayfs_shows_what_the_specification_says(
        layers in proptest::collection::vec((any_layer(), any::<bool>()), 1..5),
    ) {
        let mut tree = BTreeMap::new();
        for (layer, _) in &layers {
            apply(&mut tree, layer);
        }
        let want: Vec<String> = tree
            .iter()
            .map(|(path, node)| match node {
                Node::File(content) => format!("{path} = {content}"),
                _ => format!("{path}/"),
            })
            .collect();
        let dir = tempfile::tempdir().unwrap();
        // An opaque mark before its directory would stand in a place that the layers below decide; writers put it after.
        let archives: Vec<Vec<u8>> = layers.iter().map(|(layer, first)| {
            let only_deletions = !layer.values().any(|node| *node == Node::Dir { opaque: true });
            to_members(layer, *first && only_deletions && layer.keys().all(|path| !path.contains('/')))
        }).collect();
        let lowers = stack(dir.path(), &archives);
        let mut found = merged(dir.path(), &lowers, listing);
        let mut want = want;
        found.sort();
        want.sort();
        prop_assert_eq!(found, want);
    }
}
