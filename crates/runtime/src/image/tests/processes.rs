//! Several processes at one store, some of them killed. The processes are this test program, started again.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Barrier};

use serde_json::json;

use super::*;
use crate::image::archive::ImportOptions;
use crate::image::store::StoreError;

const STORE: &str = "EKSO_TEST_IMAGE_STORE";

/// The other process: imports what comes on its standard input, and says what became of it.
#[test]
#[ignore = "run by the tests below in a process of its own"]
fn import_from_standard_input() {
    let Some(dir) = std::env::var_os(STORE) else { return };
    let store = Store::open(PathBuf::from(dir)).unwrap();
    println!("ready");
    let result = store.import(std::io::stdin(), &ImportOptions::default());
    println!(
        "result {}",
        result.map_or_else(|error| error.to_string(), |images| images[0].digest.to_string())
    );
}

struct Importer {
    child: Child,
    out: BufReader<std::process::ChildStdout>,
}

impl Importer {
    fn start(store: &Path) -> Importer {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "image::tests::processes::import_from_standard_input",
                "--ignored",
                "--nocapture",
            ])
            .env(STORE, store)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let mut importer = Importer { child, out };
        importer.wait_for("ready");
        importer
    }

    fn wait_for(&mut self, word: &str) -> String {
        let mut line = String::new();
        loop {
            line.clear();
            assert_ne!(self.out.read_line(&mut line).unwrap(), 0, "the process ended without {word:?}");
            if let Some(at) = line.find(word) {
                return line[at + word.len()..].trim().to_string();
            }
        }
    }
}

impl Drop for Importer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Many files, so that an import takes a while; incompressible by repetition alone.
fn archive() -> Vec<u8> {
    let files = |layer: u32| {
        let text =
            |i: u32| (0..2000u32).map(|n| (n * 7919 + i * 104_729 + layer).to_string()).collect::<String>();
        tarball(&(0..60).map(|i| file(&format!("l{layer}/{i}"), &text(i))).collect::<Vec<_>>())
    };
    docker_archive(&["many"], &[files(0), files(1), files(2)], json!({}))
}

fn assert_whole(dir: &Path) {
    let store = Store::open(dir).unwrap();
    let image = store.get("many").unwrap().expect("the image is there");
    let prepared = store.prepare(&image, "check").unwrap();
    for layer in &prepared.layers {
        assert_eq!(listing(layer).len(), 61, "{}", layer.display());
    }
    store.release("check").unwrap();
    store.collect(&[]).unwrap();
    for part in ["tmp", "operations"] {
        assert_eq!(fs::read_dir(dir.join(part)).unwrap().count(), 0, "{part}");
    }
    assert_eq!(fs::read_dir(dir.join("layers")).unwrap().count(), 3);
}

#[test]
fn two_processes_import_one_image_while_another_collects() {
    let dir = tempfile::tempdir().unwrap();
    let archive = archive();
    let mut importers = [Importer::start(dir.path()), Importer::start(dir.path())];
    let start = Arc::new(Barrier::new(importers.len() + 1));
    std::thread::scope(|scope| {
        let mut imports = Vec::new();
        for importer in &mut importers {
            let (start, archive) = (start.clone(), &archive);
            imports.push(scope.spawn(move || {
                start.wait();
                importer.child.stdin.take().unwrap().write_all(archive).unwrap();
                importer.wait_for("result ")
            }));
        }
        start.wait();
        let store = Store::open(dir.path()).unwrap();
        while imports.iter().any(|import| !import.is_finished()) {
            store.collect(&[]).unwrap();
        }
        for import in imports {
            let result = import.join().unwrap();
            assert!(result.starts_with("sha256:"), "{result}");
        }
    });
    drop(importers);
    assert_whole(dir.path());
}

#[test]
fn a_killed_import_leaves_a_store_that_works() {
    let archive = archive();
    // While members stream in, at the last byte, and while layers are unpacked.
    for part in [archive.len() / 3, archive.len() - 2048, archive.len()] {
        let dir = tempfile::tempdir().unwrap();
        let mut importer = Importer::start(dir.path());
        let mut input = importer.child.stdin.take().unwrap();
        input.write_all(&archive[..part]).unwrap();
        if part == archive.len() {
            drop(input);
            // Until an unfinished or a finished layer shows.
            let unpacking = || {
                let is_dir =
                    |entry: std::io::Result<fs::DirEntry>| entry.is_ok_and(|entry| entry.path().is_dir());
                fs::read_dir(dir.path().join("tmp")).unwrap().any(is_dir)
                    || fs::read_dir(dir.path().join("layers")).unwrap().count() > 0
            };
            while !unpacking() {
                assert_eq!(importer.child.try_wait().unwrap(), None, "it ended without unpacking");
                std::thread::yield_now();
            }
        }
        importer.child.kill().unwrap();
        importer.child.wait().unwrap();
        let store = Store::open(dir.path()).unwrap();
        for image in store.list().unwrap() {
            store.prepare(&image, "c").unwrap();
        }
        store.release("c").unwrap();
        store.collect(&[]).unwrap();
        store.import(&archive[..], &ImportOptions::default()).unwrap();
        assert_whole(dir.path());
    }
}

#[test]
fn a_store_of_another_form_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    Store::open(dir.path()).unwrap();
    fs::write(dir.path().join("version"), "2\n").unwrap();
    let error = Store::open(dir.path()).unwrap_err();
    assert!(
        matches!(error, StoreError::Corrupt { .. }) && error.to_string().contains("has form \"2\""),
        "{error}"
    );
    let mut left = String::new();
    fs::File::open(dir.path().join("version")).unwrap().read_to_string(&mut left).unwrap();
    assert_eq!(left, "2\n");
}
