//! Archives that try to leave their root, fill the disk or confuse the kernel.

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use tar::EntryType;

use super::*;
use crate::image::layer::{UnpackError, Unpacked, unpack};
use crate::image::limits::{Devices, Limits};

/// A directory to unpack into, beside one that must not change.
struct Jail {
    dir: tempfile::TempDir,
}

impl Jail {
    fn new() -> Jail {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("root")).unwrap();
        fs::create_dir(dir.path().join("outside")).unwrap();
        fs::write(dir.path().join("outside/canary"), "alive").unwrap();
        Jail { dir }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn unpack(&self, archive: &[u8], limits: &Limits) -> Result<Unpacked, UnpackError> {
        unpack(archive, &[], &self.path().join("root"), limits)
    }

    fn assert_untouched(&self, what: &str) {
        assert_eq!(listing(&self.path().join("outside")), ["canary = alive"], "{what}");
        let names: Vec<_> =
            fs::read_dir(self.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names.len(), 2, "{what}: {names:?}");
    }
}

#[test]
fn hostile_archives_are_refused_with_the_entry_named() {
    let deep = "d/".repeat(300);
    let long = "n".repeat(256);
    let path = "x/".repeat(2048);
    let limits = Limits {
        total_bytes: 64 << 10,
        file_bytes: 16 << 10,
        entries: 50,
        xattr_bytes: 1 << 10,
        header_bytes: 8 << 10,
        devices: Devices::Refuse,
        ..Limits::default()
    };
    let big = "b".repeat(17 << 10);
    let mut sparse = member(EntryType::GNUSparse, "sparse", "", 0o644, b"");
    sparse.truncate(512);
    let mut null = member(EntryType::Regular, "null", "", 0o644, b"");
    null.splice(0..0, pax(&[("path", b"a\0b")]));
    let mut bad_checksum = file("checksum", "x");
    bad_checksum[0] = b'X';
    let cases: Vec<(&str, Vec<Vec<u8>>)> = vec![
        (r#""../outside/x": the name leads out of the root"#, vec![file("../outside/x", "gotcha")]),
        (r#""a/../../outside/x": the name leads out"#, vec![file("a/../../outside/x", "gotcha")]),
        (r#""/..": the name leads out"#, vec![dir("/..")]),
        (
            r#""../outside/canary": the name leads out"#,
            vec![member(EntryType::Directory, "../outside/canary", "", 0, b"")],
        ),
        (r#""h": the name leads out"#, vec![hard_link("h", "../outside/canary")]),
        (r#""h": a hard link to a file that is not there"#, vec![hard_link("h", "/outside/canary")]),
        (
            r#""h": a hard link to a file that is not there"#,
            vec![symlink("l", "../outside"), hard_link("h", "l/canary")],
        ),
        (r#""h": a hard link to a directory"#, vec![dir("d"), hard_link("h", "d")]),
        (r#""h": a hard link to the root"#, vec![hard_link("h", "/")]),
        (r#""f/x": "f" on the way is not a directory"#, vec![file("f", ""), file("f/x", "")]),
        (
            r#""a/x": more than 40 symbolic links"#,
            vec![symlink("a", "b"), symlink("b", "a"), file("a/x", "")],
        ),
        (r#"directories deep"#, vec![dir(&deep)]),
        (r#"a name of more than 255 bytes"#, vec![file(&long, "")]),
        (r#"the length of the path is over the limit of 4095"#, vec![file(&path, "")]),
        (r#""a\0b": a zero byte in the name"#, vec![null]),
        (
            r#""dev/sda": device nodes are not allowed"#,
            vec![member(EntryType::Block, "dev/sda", "", 0o666, b"")],
        ),
        (r#"a deletion of nothing"#, vec![file("a/.wh...", "")]),
        (r#"a deletion of nothing"#, vec![file(".wh.", "")]),
        (r#"only a directory can be the root"#, vec![symlink("./", "outside")]),
        (r#""big": the size of a file is over the limit of 16384"#, vec![file("big", &big)]),
        (
            r#"the number of entries is over the limit of 50"#,
            (0..60).map(|i| file(&format!("{i}"), "")).collect(),
        ),
        (
            r#"the unpacked size is over the limit of 65536"#,
            (0..40).map(|i| file(&format!("{i}"), &big[..4096])).collect(),
        ),
        (
            r#""x": the size of extended attributes is over"#,
            vec![pax(&[("SCHILY.xattr.user.a", &big.as_bytes()[..2000])]), file("x", "")],
        ),
        (
            r#"the size of an extended header is over the limit"#,
            vec![special(EntryType::GNULongName, big.as_bytes())],
        ),
        (
            r#"the size of an extended header is over the limit"#,
            vec![special(EntryType::XHeader, big.as_bytes())],
        ),
        (
            r#"damaged header after "ok": PAX records"#,
            vec![file("ok", ""), special(EntryType::XHeader, b"99 nonsense")],
        ),
        (r#"damaged header after "ok": wrong checksum"#, vec![file("ok", ""), bad_checksum]),
        (r#""sparse": sparse files are not supported"#, vec![sparse]),
        (r#""owner": the owner is not a user id"#, vec![pax(&[("uid", b"4294967296")]), file("owner", "")]),
        (r#""m": unknown type of entry"#, vec![member(EntryType::new(b'M'), "m", "", 0, b"")]),
    ];
    for (want, members) in cases {
        let jail = Jail::new();
        match jail.unpack(&tarball(&members), &limits) {
            Ok(_) => panic!("{want}: it was unpacked: {:?}", listing(&jail.path().join("root"))),
            Err(error) => assert!(error.to_string().contains(want), "wanted {want:?}, got {error}"),
        }
        jail.assert_untouched(want);
    }
}

#[test]
fn links_are_followed_inside_the_root_only() {
    let cases: Vec<(Vec<Vec<u8>>, &[&str])> = vec![
        (
            vec![symlink("l", "../../outside"), file("l/x", "1")],
            &["l -> ../../outside", "outside/", "outside/x = 1"],
        ),
        (
            vec![symlink("l", "/outside"), file("l/canary", "1")],
            &["l -> /outside", "outside/", "outside/canary = 1"],
        ),
        (vec![file("/etc/x", "1")], &["etc/", "etc/x = 1"]),
        (vec![file("./a//b/./c", "1")], &["a/", "a/b/", "a/b/c = 1"]),
        // A link is replaced, not written through.
        (vec![symlink("canary", "../outside/canary"), file("canary", "1")], &["canary = 1"]),
        (vec![symlink("d", "../outside"), dir("d"), file("d/x", "1")], &["d/", "d/x = 1"]),
        (vec![file("f", "1"), hard_link("h", "f"), file("f", "2")], &["f = 2", "h = 1"]),
        (vec![file("f", "1"), hard_link("f", "f")], &["f = 1"]),
        (
            vec![symlink("s", "/outside/canary"), hard_link("h", "s")],
            &["h -> /outside/canary", "s -> /outside/canary"],
        ),
        (vec![dir("d"), file("d/x", "1"), file("d", "2")], &["d = 2"]),
        (vec![member(EntryType::Char, "dev/null", "", 0o666, b""), file("x", "1")], &["dev/", "x = 1"]),
        (vec![file(".wh..wh.aufs", ""), file("x", "1")], &["x = 1"]),
    ];
    for (members, want) in cases {
        let jail = Jail::new();
        jail.unpack(&tarball(&members), &Limits::default())
            .unwrap_or_else(|error| panic!("{want:?}: {error}"));
        assert_eq!(listing(&jail.path().join("root")), want);
        jail.assert_untouched(&format!("{want:?}"));
    }
}

#[test]
fn overlayfs_attributes_do_not_get_in() {
    let jail = Jail::new();
    let records: &[(&str, &[u8])] = &[
        ("SCHILY.xattr.trusted.overlay.redirect", b"/outside"),
        ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
        ("SCHILY.xattr.user.overlay.opaque", b"y"),
        ("SCHILY.xattr.security.selinux", b"x"),
        ("SCHILY.xattr.user.kept", b"1"),
    ];
    jail.unpack(&tarball(&[pax(records), dir("d")]), &Limits::default()).unwrap();
    let mut buffer = [0; 1024];
    let length = rustix::fs::listxattr(jail.path().join("root/d"), &mut buffer[..]).unwrap();
    assert_eq!(&buffer[..length], b"user.kept\0");
}

#[test]
fn a_forged_deletion_is_refused_even_where_devices_are_allowed() {
    let mut forged = member(EntryType::Char, "d", "", 0o666, b"");
    forged[329..345].copy_from_slice(b"0000000\x000000000\x00");
    let sum: u32 = forged[..512]
        .iter()
        .enumerate()
        .map(|(i, b)| if (148..156).contains(&i) { 32 } else { u32::from(*b) })
        .sum();
    forged[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let limits = Limits { devices: Devices::Allow, ..Limits::default() };
    let error = Jail::new().unpack(&tarball(&[forged]), &limits).unwrap_err().to_string();
    assert!(error.contains("overlayfs's mark of a deletion"), "{error}");
    let jail = Jail::new();
    jail.unpack(&tarball(&[member(EntryType::Char, "null", "", 0o666, b"")]), &limits).unwrap();
    assert_eq!(listing(&jail.path().join("root")), ["null special"]);
}

/// Names that meet each other, and ways out.
fn any_name() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        Just("a"),
        Just("b"),
        Just("outside"),
        Just(".."),
        Just(""),
        Just("canary"),
        Just(".wh.a"),
        Just(".wh..wh..opq")
    ];
    proptest::collection::vec(part, 1..5).prop_map(|parts| parts.join("/"))
}

fn any_member() -> impl Strategy<Value = Vec<u8>> {
    let kinds = prop_oneof![
        Just(EntryType::Regular),
        Just(EntryType::Directory),
        Just(EntryType::Symlink),
        Just(EntryType::Link),
        Just(EntryType::Fifo),
    ];
    (kinds, any_name(), any_name()).prop_map(|(kind, name, link)| member(kind, &name, &link, 0o755, b""))
}

proptest! {
    #[test]
    fn nothing_outside_changes(members in proptest::collection::vec(any_member(), 1..12)) {
        let jail = Jail::new();
        // Most fail; none may have an effect outside.
        let _ = jail.unpack(&tarball(&members), &Limits::default());
        jail.assert_untouched("after a random archive");
    }

    #[test]
    fn damage_is_an_error_or_harmless(
        members in proptest::collection::vec(any_member(), 1..6),
        flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut archive = tarball(&members);
        for (at, value) in flips {
            let at = at.index(archive.len());
            archive[at] = value;
            // A header with a right checksum gets further.
            let start = at / 512 * 512;
            let mut header = tar::Header::new_old();
            header.as_mut_bytes().copy_from_slice(&archive[start..start + 512]);
            header.set_cksum();
            archive[start..start + 512].copy_from_slice(header.as_bytes());
        }
        archive.truncate(cut.index(archive.len()) + 1);
        let jail = Jail::new();
        let _ = jail.unpack(&archive, &Limits { total_bytes: 1 << 20, ..Limits::default() });
        jail.assert_untouched("after a damaged archive");
    }
}
