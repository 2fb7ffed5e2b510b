//! Images: the archive that they come in, and the layers in it.

use std::sync::LazyLock;

use runtime::image::{ImportOptions, Store};
use tempfile::TempDir;

/// In memory where there is such a place.
static FOLDER: LazyLock<Option<TempDir>> = LazyLock::new(|| tempfile::tempdir().ok());

fn import(archive: &[u8]) {
    assert!(FOLDER.is_some(), "there is a folder for images");
    let Some(store) = FOLDER.as_ref().and_then(|folder| Store::open(folder.path()).ok()) else { return };
    let Ok(images) = store.import(archive, &ImportOptions::default()) else { return };
    for image in images {
        let _ = store.prepare(&image, "hostile").and_then(|_| store.release("hostile"));
        let _ = store.remove(&image.name);
    }
    let _ = store.collect(&[]);
}

pub fn archive(bytes: &[u8]) {
    import(bytes);
}

// A member: its type, then the lengths of its name, its link and its content, and these.
pub const LAYERS: &[&[u8]] = &[
    b"5\x01\0\0d0\x03\0\x02d/fhi2\x03\x04\0d/l/etc0\x0a\0\x01d/l/passwdx",
    b"1\x01\x0c\0h../../outside0\x0b\0\x01../../../upx",
    b"0\x05\0\0.wh.f0\x0c\0\0.wh..wh..opq3\x03\0\0dev6\x04\0\0fifo",
    b"x\x01\0\x11p17 path=../../up\n0\x01\0\x01ax",
    b"L\x01\0\x05lnamed0\x01\0\x01ax",
];

/// The one layer of a good archive: members as the bytes say.
pub fn layer(bytes: &[u8]) {
    let mut tar = Vec::new();
    let mut rest = bytes;
    while let [kind, name, link, content, more @ ..] = rest {
        let take = |length: &u8, from: usize| {
            let end = (from + usize::from(*length)).min(more.len());
            (from.min(end)..end, end)
        };
        let (name, at) = take(name, 0);
        let (link, at) = take(link, at);
        let (content, at) = take(content, at);
        member(&mut tar, *kind, &more[name], &more[link], &more[content]);
        rest = &more[at..];
    }
    tar.resize(tar.len() + 1024, 0);
    let digest = ring::digest::digest(&ring::digest::SHA256, &tar);
    let digest: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","config":{{}},"rootfs":{{"type":"layers","diff_ids":["sha256:{digest}"]}}}}"#
    );
    let manifest = r#"[{"Config":"config.json","RepoTags":["hostile:1"],"Layers":["layer.tar"]}]"#;
    let mut archive = Vec::new();
    let members: [(&[u8], &[u8]); 3] =
        [(b"manifest.json", manifest.as_bytes()), (b"config.json", config.as_bytes()), (b"layer.tar", &tar)];
    for (name, content) in members {
        member(&mut archive, b'0', name, b"", content);
    }
    archive.resize(archive.len() + 1024, 0);
    import(&archive);
}

/// A member of a tar archive, as POSIX has it.
fn member(archive: &mut Vec<u8>, kind: u8, name: &[u8], link: &[u8], content: &[u8]) {
    let mut head = [0_u8; 512];
    let mut put = |at: usize, room: usize, text: &[u8]| {
        let length = text.len().min(room);
        head[at..at + length].copy_from_slice(&text[..length]);
    };
    put(0, 100, name);
    put(100, 8, b"0000644\0");
    put(108, 8, b"0000000\0");
    put(116, 8, b"0000000\0");
    put(124, 12, format!("{:011o}\0", content.len()).as_bytes());
    put(136, 12, b"00000000000\0");
    put(148, 8, b"        ");
    put(156, 1, &[kind]);
    put(157, 100, link);
    put(257, 8, b"ustar\x0000");
    let sum: u32 = head.iter().map(|&byte| u32::from(byte)).sum();
    head[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    archive.extend_from_slice(&head);
    archive.extend_from_slice(content);
    archive.resize(archive.len().next_multiple_of(512), 0);
}
