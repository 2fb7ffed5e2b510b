//! A real process on a real folder, killed again and again at any instruction.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use object::{Draft, Key, Resource, body};
use store::disk::FolderError;
use store::{Embedded, Op, OpenError, Options, Precondition, Put, Store};

const PODS: Resource = Resource::new("pods");
const FOLDER: &str = "STORE_KILL_FOLDER";

/// Small, so that files change and snapshots are written often.
fn options() -> Options {
    Options { file_bytes: 64 << 10, snapshot_bytes: 128 << 10, ..Options::default() }
}

#[tokio::test]
async fn a_killed_process_loses_nothing_that_it_acknowledged() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut acknowledged = BTreeMap::new();
    for round in 0..8 {
        run_and_kill(folder.path(), 300 + round * 37, &mut acknowledged);
        let store = Embedded::open(folder.path(), options()).expect("it opens");
        let now = store.snapshot();
        for (name, revision) in &acknowledged {
            let held = now.find(PODS, "ns", name).map_or(0, |object| object.revision);
            assert!(
                held >= *revision,
                "round {round}: {name} was acknowledged at {revision}, and is at {held}"
            );
        }
        store.close().await;
    }
}

/// Lets the other process write until it has acknowledged so much, and kills it. Notes what it said up to its end.
fn run_and_kill(folder: &Path, lines: usize, acknowledged: &mut BTreeMap<String, u64>) {
    let mut child = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "the_process_that_is_killed", "--ignored", "--nocapture"])
        .env(FOLDER, folder)
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut said = BufReader::new(child.stdout.take().expect("what it says")).lines().map_while(Result::ok);
    let mut note = |line: String| {
        let Some((name, revision)) = line.strip_prefix("ack ").and_then(|line| line.split_once(' ')) else {
            return false;
        };
        acknowledged.insert(name.to_owned(), revision.parse().expect("a revision"));
        true
    };
    let mut heard = 0;
    while heard < lines {
        heard += usize::from(note(said.next().expect("it writes until it is killed")));
    }
    match Embedded::open(folder, options()) {
        Err(OpenError::Folder(FolderError::Locked { pid, .. })) => assert_eq!(pid, child.id().to_string()),
        other => panic!("the folder is in use: {:?}", other.err()),
    }
    child.kill().expect("it is killed");
    for line in said {
        note(line);
    }
    child.wait().expect("it has ended");
}

#[tokio::test]
#[ignore = "started, and killed, by the test above"]
async fn the_process_that_is_killed() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let store = Embedded::open(Path::new(&folder), options()).expect("it opens");
    let write = async |writer: usize| {
        for nth in 0.. {
            let name = format!("pod-{writer}-{}", nth % 20);
            let text = serde_json::json!({"metadata": {"name": name}, "data": "x".repeat(nth * 97 % 3000)});
            let key = Key::new(PODS, "ns", name.as_str());
            let draft = Draft::read(key.clone(), [].into(), body::encode(&text)).expect("a draft");
            let op = Op { key, precondition: Precondition::Unchecked, put: Put::Object(draft) };
            let commit = store.commit(op.into()).await.expect("committed");
            // One write a line, past the buffer: what was said before the end is heard.
            std::io::stdout()
                .write_all(format!("ack {name} {}\n", commit.revision).as_bytes())
                .expect("said");
        }
    };
    tokio::join!(write(0), write(1), write(2), write(3));
}
