//! Tests with real parts need root, and `apt-get install docker-registry skopeo busybox-static`.

mod archives;
mod hostile;
mod layers;
mod processes;
mod registry;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tar::{EntryType, Header};

use super::digest::Digest;
use super::store::{Options, Store};

/// A member of an archive, as its bytes. Names go in unchecked, as an attacker would write them.
pub(super) fn member(kind: EntryType, name: &str, link: &str, mode: u32, content: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    if name.len() > 100 {
        out.extend(special(EntryType::GNULongName, name.as_bytes()));
    }
    if link.len() > 100 {
        out.extend(special(EntryType::GNULongLink, link.as_bytes()));
    }
    let mut header = Header::new_gnu();
    let short = |text: &str| text.as_bytes()[..text.len().min(100)].to_vec();
    header.as_old_mut().name[..short(name).len()].copy_from_slice(&short(name));
    header.as_old_mut().linkname[..short(link).len()].copy_from_slice(&short(link));
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1_000_000_000);
    header.set_size(content.len() as u64);
    if matches!(kind, EntryType::Char | EntryType::Block) {
        header.set_device_major(1).unwrap();
        header.set_device_minor(3).unwrap();
    }
    finish(&mut out, header, content);
    out
}

pub(super) fn special(kind: EntryType, content: &[u8]) -> Vec<u8> {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(content.len() as u64);
    let mut out = Vec::new();
    finish(&mut out, header, content);
    out
}

fn finish(out: &mut Vec<u8>, mut header: Header, content: &[u8]) {
    header.set_cksum();
    out.extend(header.as_bytes());
    out.extend(content);
    out.resize(out.len().next_multiple_of(512), 0);
}

pub(super) fn file(name: &str, content: &str) -> Vec<u8> {
    member(EntryType::Regular, name, "", 0o644, content.as_bytes())
}

pub(super) fn dir(name: &str) -> Vec<u8> {
    member(EntryType::Directory, name, "", 0o755, b"")
}

pub(super) fn symlink(name: &str, target: &str) -> Vec<u8> {
    member(EntryType::Symlink, name, target, 0o777, b"")
}

pub(super) fn hard_link(name: &str, target: &str) -> Vec<u8> {
    member(EntryType::Link, name, target, 0o644, b"")
}

/// PAX records for the member that follows.
pub(super) fn pax(records: &[(&str, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (key, value) in records {
        let rest = key.len() + value.len() + 3;
        let mut length = rest + 1;
        while length != rest + length.to_string().len() {
            length = rest + length.to_string().len();
        }
        body.extend(format!("{length} {key}=").bytes());
        body.extend(*value);
        body.push(b'\n');
    }
    special(EntryType::XHeader, &body)
}

pub(super) fn tarball(members: &[Vec<u8>]) -> Vec<u8> {
    let mut out = members.concat();
    out.extend([0; 1024]);
    out
}

/// What `docker save` wrote before it learnt OCI: `manifest.json` last, a directory for each layer.
pub(super) fn docker_archive(tags: &[&str], layers: &[Vec<u8>], run: serde_json::Value) -> Vec<u8> {
    let (config, _) = config_of(layers, run);
    let config_name = format!("{}.json", Digest::of(&config).hex());
    let mut members = vec![member(EntryType::Regular, &config_name, "", 0o644, &config)];
    let mut names = Vec::new();
    for (index, layer) in layers.iter().enumerate() {
        names.push(format!("{index}/layer.tar"));
        members.push(dir(&format!("{index}/")));
        members.push(member(EntryType::Regular, &names[index], "", 0o644, layer));
    }
    let list = serde_json::json!([{"Config": config_name, "RepoTags": tags, "Layers": names}]);
    members.push(file("manifest.json", &list.to_string()));
    tarball(&members)
}

/// An image's configuration, and its diff ids.
pub(super) fn config_of(layers: &[Vec<u8>], run: serde_json::Value) -> (Vec<u8>, Vec<Digest>) {
    let diff_ids: Vec<Digest> = layers.iter().map(|layer| Digest::of(layer)).collect();
    let host = super::Platform::host();
    let config = serde_json::json!({
        "architecture": host.architecture, "os": "linux", "config": run, "created": "2026-01-02T03:04:05Z",
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    (config.to_string().into_bytes(), diff_ids)
}

pub(super) fn keep_blobs(dir: &Path) -> Store {
    Store::open_with(dir, Options { keep_layer_blobs: true, ..Options::default() }).unwrap()
}

/// Paths below a directory with what they are, in order.
pub(super) fn listing(dir: &Path) -> Vec<String> {
    fn walk(dir: &Path, below: &Path, out: &mut Vec<String>) {
        let mut names: Vec<_> =
            fs::read_dir(dir.join(below)).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        for name in names {
            let inside = below.join(name);
            let path = dir.join(&inside);
            let kind = fs::symlink_metadata(&path).unwrap().file_type();
            let shown = inside.display();
            if kind.is_dir() {
                out.push(format!("{shown}/"));
                walk(dir, &inside, out);
            } else if kind.is_symlink() {
                out.push(format!("{shown} -> {}", fs::read_link(&path).unwrap().display()));
            } else if kind.is_file() {
                out.push(format!("{shown} = {}", String::from_utf8_lossy(&fs::read(&path).unwrap())));
            } else {
                out.push(format!("{shown} special"));
            }
        }
    }
    let mut out = Vec::new();
    walk(dir, Path::new(""), &mut out);
    out
}

/// A small root filesystem with Debian's static busybox.
pub(super) fn busybox(dir: &Path) -> PathBuf {
    let root = dir.join("rootfs");
    for part in ["bin", "etc", "tmp"] {
        fs::create_dir_all(root.join(part)).unwrap();
    }
    fs::copy("/bin/busybox", root.join("bin/busybox")).expect("apt-get install busybox-static");
    std::os::unix::fs::symlink("busybox", root.join("bin/sh")).unwrap();
    fs::hard_link(root.join("bin/busybox"), root.join("bin/echo")).unwrap();
    fs::write(root.join("etc/passwd"), "root:x:0:0::/:/bin/sh\n").unwrap();
    fs::set_permissions(root.join("tmp"), std::os::unix::fs::PermissionsExt::from_mode(0o1777)).unwrap();
    root
}

pub(super) fn skopeo(arguments: &[&str]) {
    let output = Command::new("skopeo")
        .arg("--insecure-policy")
        .args(arguments)
        .output()
        .expect("apt-get install skopeo");
    assert!(output.status.success(), "skopeo {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}
