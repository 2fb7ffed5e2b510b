//! The log under a disk that fails: at every point, in every way.

use std::collections::BTreeMap;
use std::sync::Arc;

use object::{Draft, Key, Resource, Revision, Snapshot, body};

use crate::disk::Disk;
use crate::embedded::frame::{self, Kind, Read};
use crate::embedded::log::{LOG, id_of};
use crate::embedded::recover::recover;
use crate::embedded::writer::Writer;
use crate::embedded::{OpenError, Options};
use crate::faults::{FaultDisk, Keep, Random};
use crate::hub::{Hub, Window};
use crate::{Commit, CommitError, Op, Precondition, Put, StoreError, Transaction};

const RESOURCES: [Resource; 2] = [Resource::new("pods"), Resource::new("deployments.apps")];

/// Small files and frequent snapshots, so that a short run meets every kind of change to the folder.
fn options() -> Options {
    Options {
        file_bytes: 8 << 10,
        snapshot_bytes: 12 << 10,
        window: Window { age: None, ..Window::default() },
        ..Options::default()
    }
}

struct Open {
    writer: Writer,
    hub: Arc<Hub>,
}

impl Open {
    fn on(disk: &FaultDisk) -> Result<Self, OpenError> {
        let options = options();
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let recovered = recover(&shared, &options)?;
        let hub = recovered.hub.clone();
        Ok(Self { writer: Writer::new(shared, recovered, &options), hub })
    }

    /// A batch, and then a snapshot if one is due; both in this thread, so that a run is its seed.
    fn batch(&mut self, batch: Vec<Transaction>) -> Vec<Result<Commit, CommitError>> {
        let answers = self.writer.commit(batch);
        if let Some(job) = self.writer.due_snapshot() {
            // A snapshot that fails leaves the log as it was; the next one is tried later.
            let _ = job.run();
        }
        answers
    }
}

fn draft(key: Key, random: &mut Random) -> Draft {
    let filling = "x".repeat(random.below(2000));
    let value = random.below(3).to_string();
    let text = serde_json::json!({"apiVersion": "v1", "kind": "X", "metadata": {"name": &*key.name, "labels": {"v": value}}, "data": filling});
    Draft::read(key, [value.into()].into(), body::encode(&text)).expect("a draft")
}

/// Up to four transactions on few keys, some of which must fail.
fn random_batch(now: &Snapshot, random: &mut Random) -> Vec<Transaction> {
    let mut batch = Vec::new();
    for _ in 0..=random.below(4) {
        let mut ops: Vec<Op> = Vec::new();
        for _ in 0..=random.below(3) {
            let key = Key::new(RESOURCES[random.below(2)], "ns", format!("n{}", random.below(5)));
            if ops.iter().any(|op| op.key == key) {
                continue;
            }
            let precondition = match (random.below(4), now.get(&key)) {
                (0, Some(object)) => Precondition::At(object.revision),
                (1, None) => Precondition::Absent,
                (2, _) if random.chance(30) => Precondition::At(1_000_000),
                _ => Precondition::Unchecked,
            };
            let put = match random.below(4) {
                0 => Put::Delete,
                1 if random.chance(20) => Put::Nothing,
                _ => Put::Object(draft(key.clone(), random)),
            };
            ops.push(Op { key, precondition, put });
        }
        batch.push(Transaction { ops });
    }
    batch
}

type Contents = BTreeMap<Key, (Revision, Vec<u8>, String, Option<String>)>;

/// All that a state consists of, to be compared.
fn contents(state: &Snapshot) -> (Revision, Contents) {
    let mut all = Contents::new();
    for (_, table) in state.tables() {
        for object in table.iter() {
            let label = object.meta.label("v").map(str::to_owned);
            all.insert(
                object.key.clone(),
                (object.revision, object.body.to_vec(), object.fields[0].to_string(), label),
            );
        }
    }
    (state.revision(), all)
}

/// What watchers were told: one line an event.
fn told(hub: &Arc<Hub>, from: Revision) -> Vec<String> {
    let mut watch = hub.watch(None, from).expect("a watch");
    let mut lines = Vec::new();
    loop {
        let events = watch.take().expect("events");
        if events.is_empty() {
            return lines;
        }
        lines.extend(
            events.iter().map(|event| format!("{} {:?} {}", event.revision, event.change, event.key())),
        );
    }
}

/// A run up to a power cut: what was acknowledged, and what the batch in flight would have made of it.
struct Run {
    disk: FaultDisk,
    acknowledged: Snapshot,
    attempted: Snapshot,
    events: Vec<String>,
    attempted_events: Vec<String>,
}

fn run(seed: u64, batches: usize, cut_at: Option<usize>) -> Run {
    let disk = FaultDisk::default();
    disk.state().cut_at = cut_at;
    let mut random = Random(seed);
    let mut fresh = Snapshot::default();
    fresh.advance(1);
    let mut run = Run {
        disk,
        acknowledged: fresh.clone(),
        attempted: fresh,
        events: Vec::new(),
        attempted_events: Vec::new(),
    };
    let mut open = match Open::on(&run.disk) {
        Ok(open) => open,
        Err(_) if cut_at.is_some() => return run,
        Err(error) => panic!("an empty folder does not open: {error}"),
    };
    for _ in 0..batches {
        let batch = random_batch(&run.acknowledged, &mut random);
        // The same batch in memory: the oracle.
        let mut expected = run.acknowledged.clone();
        let mut events = Vec::new();
        let mut answers = Vec::new();
        for transaction in batch.clone() {
            let checked = crate::apply::check(&expected, &transaction);
            answers.push(checked.is_ok());
            if checked.is_ok() {
                let commit = crate::apply::perform(&mut expected, transaction);
                events.extend(
                    commit
                        .events
                        .iter()
                        .map(|event| format!("{} {:?} {}", event.revision, event.change, event.key())),
                );
            }
        }
        let got = open.batch(batch);
        let refused = got.iter().any(|answer| matches!(answer, Err(CommitError::Store(_))));
        if refused {
            assert!(run.disk.state().cut_at.is_some(), "seed {seed}: refused with power on: {got:?}");
            assert!(
                got.iter().all(|answer| matches!(answer, Err(CommitError::Store(_)))),
                "a batch is answered as one"
            );
            assert_eq!(
                contents(&open.hub.snapshot()),
                contents(&run.acknowledged),
                "what was refused is not seen"
            );
            run.attempted = expected;
            run.attempted_events = events;
            return run;
        }
        assert_eq!(got.iter().map(Result::is_ok).collect::<Vec<_>>(), answers, "seed {seed}");
        assert_eq!(contents(&open.hub.snapshot()), contents(&expected), "seed {seed}");
        run.acknowledged = expected.clone();
        run.attempted = expected;
        run.events.extend(events);
    }
    run
}

/// Opens what a power cut left, compares, writes once more, and opens again.
fn check_restart(run: &Run, keep: Option<Keep>, case: &str, random: &mut Random) {
    let mut disk = match keep {
        Some(keep) => run.disk.after_power_cut(keep, random),
        None => run.disk.after_process_death(),
    };
    // A start may be cut off too.
    if random.chance(50) {
        disk.state().cut_at = Some(1 + random.below(6));
        let _ = Open::on(&disk);
        disk = disk.after_power_cut(Keep::Some, random);
    }
    let mut open = Open::on(&disk).unwrap_or_else(|error| panic!("{case}: {error}"));
    let found = open.hub.snapshot();
    let happened = contents(&found) == contents(&run.attempted);
    assert!(
        happened || contents(&found) == contents(&run.acknowledged),
        "{case}: another state at {}",
        found.revision()
    );
    let mut events = run.events.clone();
    if happened {
        events.extend(run.attempted_events.iter().cloned());
    }
    let floor = open.hub.compacted();
    let revision =
        |line: &String| line.split(' ').next().and_then(|text| text.parse::<u64>().ok()).expect("a revision");
    events.retain(|line| revision(line) > floor);
    assert_eq!(told(&open.hub, floor), events, "{case}: what a watch resumes with");
    assert!(floor == 0 || open.hub.watch(None, floor - 1).is_err(), "{case}: before the floor");
    let key = Key::new(RESOURCES[0], "ns", "after");
    let answer = open.batch(vec![Op::create(draft(key, random)).into()]).remove(0);
    assert_eq!(answer.expect("a commit after the restart").revision, found.revision() + 1, "{case}");
    let after = open.hub.snapshot();
    // A watch that reads on misses nothing.
    assert_eq!(
        told(&open.hub, found.revision()),
        [format!("{} Created pods ns/after", after.revision())],
        "{case}"
    );
    drop(open);
    let disk = disk.after_power_cut(Keep::Some, random);
    let again = Open::on(&disk).unwrap_or_else(|error| panic!("{case}, again: {error}"));
    assert_eq!(contents(&again.hub.snapshot()), contents(&after), "{case}, again");
}

#[test]
fn a_power_cut_at_any_point_loses_nothing_acknowledged_and_halves_nothing() {
    for seed in 1..=2 {
        let whole = run(seed, 30, None);
        let changes = whole.disk.state().changes;
        assert!(
            whole.disk.list().expect("files").iter().any(|(name, _)| name.starts_with("snapshot-")),
            "the run is long enough"
        );
        for cut in 1..=changes {
            let run = run(seed, 30, Some(cut));
            let mut random = Random(seed * 1_000_003 + cut as u64);
            let power_cuts = [Keep::Nothing, Keep::Everything, Keep::Some, Keep::Some].map(Some);
            // A process that died before names were synced leaves most to the next one.
            let deaths = if run.disk.state().names_are_synced() { 1 } else { 30 };
            for keep in power_cuts.into_iter().chain((0..deaths).map(|_| None)) {
                check_restart(
                    &run,
                    keep,
                    &format!("seed {seed}, cut {cut} of {changes}, {keep:?} kept"),
                    &mut random,
                );
            }
        }
    }
}

/// (name, offset, end) of the last batch on the disk.
fn last_batch(disk: &FaultDisk) -> (String, usize, usize) {
    let mut last = None;
    let mut names: Vec<_> =
        disk.list().expect("files").into_iter().filter(|(name, _)| id_of(name, LOG).is_some()).collect();
    names.sort();
    for (name, len) in names {
        let file = disk.open(&name).expect("a file");
        let mut at = 0;
        while let Read::Frame(frame) = frame::read(&*file, at, len).expect("a frame") {
            if frame.kind == Kind::Batch {
                last = Some((name.clone(), at as usize, frame.next as usize));
            }
            at = frame.next;
        }
    }
    last.expect("a batch")
}

#[test]
fn damage_is_reported_with_its_place_and_never_dropped() {
    let run = run(7, 40, None);
    let mut random = Random(99);
    let intact = run.disk.after_power_cut(Keep::Everything, &mut random);
    let (last, from, to) = last_batch(&intact);
    let files: Vec<_> = intact.list().expect("files");
    let (mut reported, mut harmless) = (0, 0);
    for _ in 0..3000 {
        let disk = intact.after_power_cut(Keep::Everything, &mut random);
        let (name, len) = &files[random.below(files.len())];
        let at = random.below(*len as usize);
        let bit = random.below(8);
        let zeros = random.chance(30);
        let end = if zeros { (at + 64).min(*len as usize) } else { at + 1 };
        // What hits the last batch looks like a write that was cut off; only the end mark of an orderly stop can tell.
        if *name == last && at < to && end > from {
            continue;
        }
        disk.with_contents(
            name,
            |contents| {
                if zeros { contents[at..end].fill(0) } else { contents[at] ^= 1 << bit }
            },
        );
        match Open::on(&disk) {
            Ok(open) => {
                assert_eq!(
                    contents(&open.hub.snapshot()),
                    contents(&run.acknowledged),
                    "{name} at {at}, {zeros}"
                );
                harmless += 1;
            }
            Err(OpenError::Corrupt { path, offset, .. }) => {
                assert!(path.ends_with(name.as_str()), "{path} for {name}");
                assert!((offset as usize) < end, "{offset} for {at}..{end}");
                reported += 1;
            }
            Err(other) => panic!("{name} at {at}: {other}"),
        }
    }
    assert!(reported > 500, "{reported} reported, {harmless} harmless");
}

#[test]
fn after_an_orderly_stop_even_the_last_batch_is_vouched_for() {
    let mut random = Random(5);
    let disk = FaultDisk::default();
    let mut open = Open::on(&disk).expect("open");
    for name in ["a", "b"] {
        let answers =
            open.batch(vec![Op::create(draft(Key::new(RESOURCES[0], "ns", name), &mut random)).into()]);
        assert!(answers[0].is_ok());
    }
    open.writer.end();
    let (name, from, to) = last_batch(&disk);
    assert_eq!(
        contents(
            &Open::on(&disk.after_power_cut(Keep::Nothing, &mut random)).expect("intact").hub.snapshot()
        )
        .0,
        3
    );
    for at in from..to {
        let disk = disk.after_power_cut(Keep::Nothing, &mut random);
        // Padding carries nothing.
        if disk.with_contents(&name, |contents| std::mem::replace(&mut contents[at], 0xAA)) == 0
            && at >= to - 8
        {
            continue;
        }
        let error = Open::on(&disk).err().unwrap_or_else(|| panic!("{at} of {from}..{to} went unseen"));
        assert!(matches!(&error, OpenError::Corrupt { offset, .. } if *offset == from as u64), "{error}");
    }
}

#[test]
fn a_disk_that_lies_about_a_sync_is_found_out_by_the_next_batch() {
    let mut random = Random(3);
    let disk = FaultDisk::default();
    let mut open = Open::on(&disk).expect("open");
    for (at, name) in ["a", "b", "c"].into_iter().enumerate() {
        disk.state().lying_sync = at == 1;
        let batch = vec![Op::create(draft(Key::new(RESOURCES[0], "ns", name), &mut random)).into()];
        assert!(open.batch(batch)[0].is_ok());
    }
    let error =
        Open::on(&disk.after_power_cut(Keep::Nothing, &mut random)).err().expect("batch 2 is not there");
    assert!(matches!(error, OpenError::Corrupt { .. }), "{error}");
}

fn create(open: &mut Open, name: &str, random: &mut Random) -> Result<Commit, CommitError> {
    open.batch(vec![Op::create(draft(Key::new(RESOURCES[0], "ns", name), random)).into()]).remove(0)
}

#[test]
fn after_a_failed_sync_nothing_is_acknowledged_until_the_state_is_safe_elsewhere() {
    // Every pattern of failure in six syncs.
    for pattern in 1..64_u64 {
        let mut random = Random(pattern);
        let disk = FaultDisk::default();
        let mut open = Open::on(&disk).expect("open");
        create(&mut open, "a", &mut random).expect("a good disk");
        disk.state().failing_syncs = (0..6).map(|at| pattern & (1 << at) != 0).collect();
        for name in ["b", "c", "d"] {
            let before = contents(&open.hub.snapshot());
            match create(&mut open, name, &mut random) {
                Ok(_) => {}
                Err(CommitError::Store(StoreError::Io { .. } | StoreError::Unavailable(_))) => {
                    assert_eq!(contents(&open.hub.snapshot()), before);
                }
                Err(other) => panic!("{other}"),
            }
            let acknowledged = open.hub.snapshot();
            for keep in [Keep::Nothing, Keep::Everything, Keep::Some] {
                let again = Open::on(&disk.after_power_cut(keep, &mut random));
                let again = again.unwrap_or_else(|error| panic!("{pattern:06b}, {name}, {keep:?}: {error}"));
                let again = again.hub.snapshot();
                // What was refused may have happened after all, but only as the next revision.
                let more = again.revision() - acknowledged.revision();
                assert!(more <= 1, "{pattern:06b}, {name}, {keep:?}");
                for object in acknowledged.list(RESOURCES[0], "") {
                    assert_eq!(again.get(&object.key).map(|held| held.revision), Some(object.revision));
                }
            }
        }
        disk.state().failing_syncs.clear();
        create(&mut open, "last", &mut random).expect("the disk is good again");
        let state = contents(&open.hub.snapshot());
        for keep in [Keep::Nothing, Keep::Everything, Keep::Some] {
            let again = Open::on(&disk.after_power_cut(keep, &mut random)).expect("open again");
            assert_eq!(contents(&again.hub.snapshot()), state);
        }
    }
}

#[test]
fn a_full_disk_refuses_and_recovers() {
    let mut random = Random(11);
    let disk = FaultDisk::default();
    disk.state().capacity = Some(9 << 10);
    let mut open = Open::on(&disk).expect("open");
    let mut made = 0;
    let error = loop {
        match create(&mut open, &format!("n{made}"), &mut random) {
            Ok(_) => made += 1,
            Err(error) => break error,
        }
    };
    assert!(
        matches!(&error, CommitError::Store(StoreError::Full { path }) if path.contains("log-")),
        "{error}"
    );
    assert!(made > 0);
    let before = contents(&open.hub.snapshot());
    for keep in [Keep::Nothing, Keep::Everything, Keep::Some] {
        let again = Open::on(&disk.after_power_cut(keep, &mut random)).expect("open again");
        assert_eq!(contents(&again.hub.snapshot()), before);
    }
    disk.state().capacity = None;
    create(&mut open, "late", &mut random).expect("there is room again");
    // A write that stops half-way for want of space is written over by the next.
    for short in [0, 10, 100] {
        disk.state().short_write = Some(short);
        let name = format!("short{short}");
        let error = create(&mut open, &name, &mut random).expect_err("no room");
        assert!(matches!(error, CommitError::Store(StoreError::Full { .. })), "{error}");
        create(&mut open, &name, &mut random).expect("there is room again");
    }
    let state = contents(&open.hub.snapshot());
    let again = Open::on(&disk.after_power_cut(Keep::Some, &mut random)).expect("open again");
    assert_eq!(contents(&again.hub.snapshot()), state);
}
