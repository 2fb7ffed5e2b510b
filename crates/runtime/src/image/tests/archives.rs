//! Archives of other tools, and what the store makes of them.

use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;

use serde_json::json;

use super::*;
use crate::image::archive::{ImportError, ImportOptions};
use crate::image::store::StoreError;

fn two_layers() -> Vec<Vec<u8>> {
    vec![tarball(&[dir("etc"), file("etc/a", "1")]), tarball(&[file("etc/.wh.a", ""), file("etc/b", "2")])]
}

fn run() -> serde_json::Value {
    json!({"Cmd": ["/bin/b"], "Entrypoint": null, "Env": ["A=b"], "User": "7:8", "WorkingDir": "/w", "StopSignal": "SIGINT", "Volumes": {"/v": {}}})
}

fn names(store: &Store) -> Vec<String> {
    store.list().unwrap().into_iter().map(|image| image.name).collect()
}

#[test]
fn docker_archives_are_imported_however_compressed() {
    let archive = docker_archive(&["app:1", "quay.io/x/app:2"], &two_layers(), run());
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&archive).unwrap();
    let zstd = ruzstd::encoding::compress_to_vec(&archive[..], ruzstd::encoding::CompressionLevel::Fastest);
    let mut digests = Vec::new();
    for packed in [archive, gzip.finish().unwrap(), zstd] {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        store.import(&packed[..], &ImportOptions::default()).unwrap();
        assert_eq!(names(&store), ["docker.io/library/app:1", "quay.io/x/app:2"]);
        let image = store.get("app:1").unwrap().unwrap();
        let config = &image.config;
        assert_eq!((config.cmd.as_slice(), config.user.as_str()), (&["/bin/b".to_string()][..], "7:8"));
        assert_eq!(
            (config.working_dir.as_str(), config.stop_signal.as_str(), &config.volumes[0][..]),
            ("/w", "SIGINT", "/v")
        );
        assert_eq!(config.id, image.id.to_string());
        assert_eq!(config.reference, format!("docker.io/library/app@{}", image.digest));
        let prepared = store.prepare(&image, "n/c").unwrap();
        let seen: Vec<_> = prepared.layers.iter().map(|layer| listing(layer)).collect();
        assert_eq!(seen, [vec!["etc/", "etc/a = 1"], vec!["etc/", "etc/a special", "etc/b = 2"]]);
        // The archives of unpacked layers are gone, the documents stay, and nothing is left to collect.
        assert_eq!(fs::read_dir(dir.path().join("blobs/sha256")).unwrap().count(), 2);
        assert_eq!(store.collect(&[]).unwrap(), Default::default());
        digests.push(image.digest);
    }
    assert!(digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");
}

#[test]
fn an_image_is_found_by_every_name_it_has() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let image = &store
        .import(&docker_archive(&["app:1"], &two_layers(), run())[..], &ImportOptions::default())
        .unwrap()[0];
    let (id, digest) = (image.id, image.digest);
    for name in [
        "app:1".to_string(),
        "docker.io/library/app:1".to_string(),
        id.to_string(),
        id.hex(),
        format!("app@{digest}"),
        format!("app:other@{digest}"),
    ] {
        assert_eq!(store.get(&name).unwrap().as_ref(), Some(image), "{name}");
    }
    for name in ["app", "app:2", "Not a name", &format!("other@{digest}"), &digest.hex()] {
        assert_eq!(store.get(name).unwrap(), None, "{name}");
    }
    store.tag(image, &"quay.io/copy:x".parse().unwrap()).unwrap();
    assert_eq!(names(&store), ["docker.io/library/app:1", "quay.io/copy:x"]);
    assert!(store.remove(&id.to_string()).unwrap());
    assert!(!store.remove("app:1").unwrap());
    assert_eq!(names(&store), [""; 0]);
}

#[test]
fn a_folder_becomes_the_same_image_each_time() {
    let dir = tempfile::tempdir().unwrap();
    let root = busybox(dir.path());
    rustix::fs::setxattr(root.join("etc/passwd"), "user.note", b"x", rustix::fs::XattrFlags::empty())
        .unwrap();
    std::os::unix::fs::chown(root.join("etc/passwd"), Some(3_000_000), Some(5)).unwrap();
    fs::create_dir_all(root.join("long").join("n".repeat(120))).unwrap();
    fs::write(root.join("long").join("n".repeat(120)).join("m".repeat(120)), "deep").unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(root.join("tmp/socket")).unwrap();
    let words = |words: &[&str]| words.iter().map(ToString::to_string).collect::<Vec<_>>();
    let import = |at: &str| {
        let store = Store::open(dir.path().join(at)).unwrap();
        let image = store.import_rootfs(&root, &words(&["/bin/sh"]), &words(&["-c", "ls"]), "box").unwrap();
        (store.clone(), image.clone(), store.prepare(&image, "c").unwrap())
    };
    let (_, first, prepared) = import("one");
    let (_, second, _) = import("two");
    assert_eq!((first.digest, &first.layers), (second.digest, &second.layers));
    assert_eq!(first.name, "docker.io/library/box:latest");
    assert_eq!(
        (prepared.config.entrypoint, prepared.config.cmd),
        (words(&["/bin/sh"]), words(&["-c", "ls"]))
    );
    fs::remove_file(root.join("tmp/socket")).unwrap();
    assert_eq!(listing(&prepared.layers[0]), listing(&root));
    let stat = |path: &str| fs::metadata(prepared.layers[0].join(path)).unwrap();
    assert_eq!((stat("etc/passwd").uid(), stat("etc/passwd").gid()), (3_000_000, 5));
    assert_eq!(stat("bin/echo").ino(), stat("bin/busybox").ino());
    assert_eq!(stat("tmp").mode() & 0o7777, 0o1777);
    let mut value = [0; 8];
    assert_eq!(
        rustix::fs::getxattr(prepared.layers[0].join("etc/passwd"), "user.note", &mut value[..]),
        Ok(1)
    );
    let ran = std::process::Command::new(prepared.layers[0].join("bin/echo")).arg("hello").output().unwrap();
    assert_eq!(ran.stdout, b"hello\n");
}

#[test]
fn skopeos_archives_are_imported() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let saved = docker_archive(&["app:1"], &two_layers(), run());
    fs::write(at("saved.tar"), &saved).unwrap();
    let from = format!("docker-archive:{}", at("saved.tar"));
    skopeo(&["copy", &from, &format!("oci:{}:quay.io/a/app:v2", at("layout"))]);
    skopeo(&["copy", "--dest-compress-format", "zstd", &from, &format!("oci:{}:v3", at("zstd"))]);
    skopeo(&["copy", &from, &format!("oci-archive:{}:v4", at("layout.tar"))]);
    skopeo(&["copy", &from, &format!("docker-archive:{}:app:v5", at("again.tar"))]);
    let cases = [
        ("layout", None, "quay.io/a/app:v2"),
        ("zstd", Some("app"), "docker.io/library/app:v3"),
        ("layout.tar", Some("r.io/app:x"), "r.io/app:x"),
        ("again.tar", None, "docker.io/library/app:v5"),
    ];
    let store = Store::open(dir.path().join("store")).unwrap();
    for (path, name, want) in cases {
        let options = ImportOptions { name: name.map(str::to_string), ..ImportOptions::default() };
        let images = store
            .import_path(&dir.path().join(path), &options)
            .unwrap_or_else(|error| panic!("{path}: {error}"));
        assert_eq!(images.iter().map(|image| image.name.as_str()).collect::<Vec<_>>(), [want], "{path}");
        assert_eq!(images[0].config.env, ["A=b"], "{path}");
    }
    // Four forms of one image: the layers are unpacked once.
    assert_eq!(fs::read_dir(store.dir().join("layers")).unwrap().count(), 2);
    // Without a name it is known by its id.
    let unnamed = store.import_path(&dir.path().join("layout.tar"), &ImportOptions::default()).unwrap();
    assert_eq!(unnamed[0].name, unnamed[0].id.to_string());
}

#[test]
fn broken_archives_leave_nothing_behind() {
    let layers = two_layers();
    let good = docker_archive(&["app:1"], &layers, run());
    let (config, _) = config_of(&[layers[0].clone(), b"other".to_vec()], run());
    let list = |layers: &[&str]| json!([{"Config": "c", "RepoTags": ["a:1"], "Layers": layers}]).to_string();
    let with = |list: String| {
        tarball(&[
            member(tar::EntryType::Regular, "c", "", 0o644, &config),
            member(tar::EntryType::Regular, "0", "", 0o644, &layers[0]),
            member(tar::EntryType::Regular, "1", "", 0o644, &layers[1]),
            file("manifest.json", &list),
        ])
    };
    let loops = tarball(&[symlink("manifest.json", "b"), symlink("b", "manifest.json")]);
    let lie = tarball(&[file(&format!("blobs/sha256/{}", "0".repeat(64)), "x")]);
    let cases = [
        ("neither an OCI layout", tarball(&[file("bin/sh", "")])),
        ("neither an OCI layout", b"".to_vec()),
        ("neither an OCI layout", loops),
        ("its content has the digest sha256:", lie),
        ("ends in the middle of", good[..good.len() / 2 + 100].to_vec()),
        ("it describes 2 layers, the manifest has 1", with(list(&["0"]))),
        ("2 is not in the archive", with(list(&["0", "2"]))),
        ("its configuration says", with(list(&["0", "1"]))),
        ("couldn't parse image name \"a b\"", docker_archive(&["a b"], &layers, run())),
        ("manifest.json: expected ident", tarball(&[file("manifest.json", "nonsense")])),
        ("only files belong", tarball(&[member(tar::EntryType::Fifo, "f", "", 0, b"")])),
    ];
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    for (want, archive) in cases {
        let error = store.import(&archive[..], &ImportOptions::default()).expect_err(want).to_string();
        assert!(error.contains(want), "wanted {want:?}, got {error}");
        assert_eq!(names(&store), [""; 0], "{want}");
        assert_eq!(fs::read_dir(dir.path().join("blobs/sha256")).unwrap().count(), 0, "{want}");
    }
    store.collect(&[]).unwrap();
    for part in ["layers", "tmp", "images"] {
        assert_eq!(fs::read_dir(dir.path().join(part)).unwrap().count(), 0, "{part}");
    }
    let other =
        ImportOptions { platform: Some(crate::image::Platform::new("riscv64")), ..ImportOptions::default() };
    let error = store.import(&good[..], &other).unwrap_err();
    assert!(matches!(error, ImportError::Manifest { .. }), "{error}");
    assert!(error.to_string().contains("no match for platform in manifest: wanted linux/riscv64"), "{error}");
}

#[test]
fn collection_keeps_what_is_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let one = docker_archive(&["one"], &two_layers(), run());
    let two = docker_archive(&["two"], &[two_layers().remove(0), tarball(&[file("c", "3")])], run());
    let one = store.import(&one[..], &ImportOptions::default()).unwrap().remove(0);
    let two = store.import(&two[..], &ImportOptions::default()).unwrap().remove(0);
    let usage = store.usage().unwrap();
    assert_eq!((usage.layer_bytes, fs::read_dir(dir.path().join("layers")).unwrap().count()), (3, 3));
    store.prepare(&one, "node-a/c1").unwrap();
    store.prepare(&one, "node-b/c1").unwrap();
    store.remove("one").unwrap();
    store.remove("two").unwrap();
    // Documents go; of layers only the one that neither a lease nor the caller has.
    let shared = two.layers[0].chain_id;
    assert_eq!(shared, one.layers[0].chain_id);
    let collected = store.collect(&[]).unwrap();
    assert_eq!((collected.blobs, collected.layers), (4, 1));
    assert!(store.has_layer(&one.layers[1].chain_id) && store.has_layer(&shared));
    assert!(matches!(store.prepare(&two, "c"), Err(StoreError::LayerMissing { .. })));
    store.release("node-a/c1").unwrap();
    assert_eq!(store.collect(&[]).unwrap().layers, 0);
    assert_eq!(store.holders().unwrap(), ["node-b/c1"]);
    assert_eq!(store.release_all("node-b/").unwrap(), 1);
    assert_eq!(store.collect(&[shared]).unwrap().layers, 1);
    assert_eq!(store.collect(&[]).unwrap().layers, 1);
    assert_eq!(store.usage().unwrap(), Default::default());
}

#[test]
fn kept_blobs_bring_a_lost_layer_back() {
    let dir = tempfile::tempdir().unwrap();
    let store = keep_blobs(dir.path());
    let archive = docker_archive(&["app"], &two_layers(), run());
    let image = store.import(&archive[..], &ImportOptions::default()).unwrap().remove(0);
    fs::remove_dir_all(store.layer_dir(&image.layers[1].chain_id)).unwrap();
    let prepared = store.prepare(&image, "c").unwrap();
    assert_eq!(listing(&prepared.layers[1]), ["etc/", "etc/a special", "etc/b = 2"]);
}

#[test]
fn a_multi_platform_archive_of_new_docker_is_imported() {
    let layers = two_layers();
    let (config, _) = config_of(&layers, run());
    let mut members = vec![file("oci-layout", r#"{"imageLayoutVersion": "1.0.0"}"#)];
    let mut add = |media_type: &str, bytes: &[u8]| {
        let digest = Digest::of(bytes);
        members.push(member(
            tar::EntryType::Regular,
            &format!("blobs/sha256/{}", digest.hex()),
            "",
            0o644,
            bytes,
        ));
        json!({"mediaType": media_type, "digest": digest, "size": bytes.len()})
    };
    let layers: Vec<_> =
        layers.iter().map(|layer| add("application/vnd.oci.image.layer.v1.tar", layer)).collect();
    let config_digest = Digest::of(&config);
    let config = add("application/vnd.oci.image.config.v1+json", &config);
    let manifest = json!({"schemaVersion": 2, "config": config, "layers": layers}).to_string();
    let mut here = add("application/vnd.oci.image.manifest.v1+json", manifest.as_bytes());
    here["platform"] = json!({"os": "linux", "architecture": crate::image::Platform::host().architecture});
    // Docker lists platforms whose content it leaves out.
    let mut absent = json!({"mediaType": here["mediaType"], "digest": Digest::of(b"absent"), "size": 1});
    absent["platform"] = json!({"os": "linux", "architecture": "s390x"});
    let inner = json!({"schemaVersion": 2, "manifests": [absent, here]}).to_string();
    let mut inner = add("application/vnd.oci.image.index.v1+json", inner.as_bytes());
    let digest = inner["digest"].as_str().unwrap().to_string();
    let config_path = format!("blobs/sha256/{}", config_digest.hex());
    let list = json!([{"Config": config_path, "RepoTags": ["tagged:9"], "Layers": []}]).to_string();
    let named = json!({"io.containerd.image.name": "docker.io/library/app:7", "org.opencontainers.image.ref.name": "7"});
    for (annotations, want) in [(named, "docker.io/library/app:7"), (json!({}), "docker.io/library/tagged:9")]
    {
        inner["annotations"] = annotations;
        let index = json!({"schemaVersion": 2, "manifests": [inner]}).to_string();
        let archive =
            tarball(&[&members[..], &[file("index.json", &index), file("manifest.json", &list)]].concat());
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let images = store.import(&archive[..], &ImportOptions::default()).unwrap();
        assert_eq!((images[0].name.as_str(), images[0].digest.to_string()), (want, digest.clone()));
        assert_eq!(images[0].documents.len(), 2);
        store.prepare(&images[0], "c").unwrap();
    }
}
