//! Which objects of a table carry a label: looked up instead of looked for.
//!
//! Nobody pays who does not ask. The first question about a label goes through the table and keeps what it finds; later ones first take in
//! what was changed since, which writers write down as long as somebody asks:
//!
//! ```text
//! app=web ─► known: version 7, asked: version 9 ─► changed since: a/two ─► postings of "app": (web, a/one) (web, a/two) ─► their objects in 9
//! ```
//!
//! This is a memory and no state: all versions of a table share one, and what is found does not depend on what it held before.
//!
//! The other way, postings in the snapshot itself, would make every write of every object pay for each of its labels.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{BEHIND, BETWEEN, Objects, Table};
use crate::Object;
use crate::selector::{LabelSelector, Operator, Requirement};

/// So many objects are gone through as fast as their postings are read, and need no memory besides.
const FEW: usize = 256;
/// Going through an object costs a fraction of finding it by its path.
const SCANS_PER_LOOKUP: usize = 4;
/// Labels that are remembered of one table. Of more, the one that nobody has asked for longest is forgotten.
const MOST_KEYS: usize = 16;
/// The known version holds objects that are gone: until they are so many bytes, or an eighth of the table.
const HELD_BYTES: usize = 4 << 20;
/// So many changes are written down, or an eighth of the objects. Whoever asks behind more of them goes through the table again.
const HELD_CHANGES: usize = 4096;

/// What is known of the labels of a table, for all of its versions.
#[derive(Debug, Default)]
pub(super) struct Labels {
    /// Changes are written down.
    is_asked: AtomicBool,
    changes: Mutex<Changes>,
    known: Mutex<Known>,
}

/// What was changed since the version that is known.
#[derive(Debug, Default)]
struct Changes {
    steps: Vec<Step>,
    /// Bytes of the bodies that they did away with.
    gone: usize,
}

/// One change: what it made of which version.
#[derive(Debug)]
struct Step {
    from: u64,
    to: u64,
    path: Arc<str>,
    gone: usize,
}

#[derive(Debug, Default)]
struct Known {
    /// The version that the postings are of.
    version: u64,
    objects: Objects,
    keys: Vec<Postings>,
    questions: u64,
}

/// The objects that carry a label, by its value and their paths.
#[derive(Debug)]
struct Postings {
    key: Box<str>,
    /// The number of the last question about it.
    asked: u64,
    entries: BTreeSet<(Arc<str>, Arc<str>)>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Labels {
    /// To be called when an object of a table was changed, with the version that it was of and the bytes that are gone.
    pub(super) fn changed(&self, table: &Table, from: u64, path: &Arc<str>, gone: usize) {
        if !self.is_asked.load(Ordering::Relaxed) {
            return;
        }
        let mut changes = lock(&self.changes);
        changes.gone += gone;
        changes.steps.push(Step { from, to: table.version, path: path.clone(), gone });
        if changes.gone > HELD_BYTES.max(table.bytes / 8)
            || changes.steps.len() > HELD_CHANGES.max(table.len() / 8)
        {
            *changes = Changes::default();
            self.is_asked.store(false, Ordering::Relaxed);
            // Whoever asks just now brings it up to date.
            if let Ok(mut known) = self.known.try_lock() {
                *known = Known::default();
            }
        }
    }

    /// The paths of the objects that differ between the known version and a later one. None: that is not known.
    fn paths_changed(&self, known: u64, table: &Table) -> Option<BTreeSet<Arc<str>>> {
        let mut paths = BTreeSet::new();
        if known == table.version {
            return Some(paths);
        }
        let mut changes = lock(&self.changes);
        let last = changes.steps.iter().rposition(|step| step.to == table.version)?;
        // Backwards, since snapshots may go different ways: only what led here counts.
        let mut at = table.version;
        for step in changes.steps[..=last].iter().rev() {
            if step.to == at {
                paths.insert(step.path.clone());
                at = step.from;
            }
            if at == known {
                break;
            }
        }
        let gone: usize = changes.steps.drain(..=last).map(|step| step.gone).sum();
        changes.gone -= gone;
        (at == known).then_some(paths)
    }

    /// The paths behind `after` of the objects that one of the requirements leaves, in their order. None: going through the namespace
    /// costs no more.
    pub(super) fn candidates(
        &self,
        table: &Table,
        namespace: &str,
        labels: &LabelSelector,
        after: &str,
    ) -> Option<Vec<Arc<str>>> {
        let useful: Vec<&Requirement> = labels.0.iter().filter(|one| names_carriers(one)).collect();
        if useful.is_empty() || useful.len() > MOST_KEYS || is_few(table, namespace) {
            return None;
        }
        let mut known = lock(&self.known);
        // Older versions are rarely asked about; going back and forth would cost more.
        if known.version > table.version {
            return None;
        }
        match self.paths_changed(known.version, table) {
            Some(paths) => known.follow(table, &paths),
            None => known.keys.clear(),
        }
        known.objects = table.objects.clone();
        known.version = table.version;
        self.is_asked.store(true, Ordering::Relaxed);
        for requirement in &useful {
            known.learn(&requirement.key);
        }
        let of = |one: &Requirement| known.keys.iter().find(|held| held.key == one.key);
        let postings: Vec<_> = useful.iter().filter_map(|one| Some((*one, of(one)?))).collect();
        // All are counted a little further until one comes to its end.
        let mut limit = FEW / SCANS_PER_LOOKUP;
        loop {
            for (requirement, postings) in &postings {
                if postings.are_at_most(limit, requirement, namespace) {
                    return Some(postings.behind(requirement, namespace, after));
                }
            }
            // The namespace has come to its end first.
            table.range(namespace, None).nth(limit * SCANS_PER_LOOKUP)?;
            limit *= SCANS_PER_LOOKUP;
        }
    }
}

fn is_few(table: &Table, namespace: &str) -> bool {
    table.len() <= FEW || (!namespace.is_empty() && table.range(namespace, None).nth(FEW).is_none())
}

/// Whether a requirement holds only of objects that carry its label.
fn names_carriers(requirement: &Requirement) -> bool {
    matches!(requirement.operator, Operator::In | Operator::Exists | Operator::Gt | Operator::Lt)
}

impl Known {
    /// Takes in what differs in a later version.
    fn follow(&mut self, table: &Table, paths: &BTreeSet<Arc<str>>) {
        for path in paths {
            let (before, after) = (self.objects.get(path), table.objects.get(path));
            self.keys.iter_mut().for_each(|postings| postings.change(path, before, after));
        }
    }

    /// Goes through the known version for a label, unless that was done.
    fn learn(&mut self, key: &str) {
        self.questions += 1;
        if let Some(known) = self.keys.iter_mut().find(|known| *known.key == *key) {
            known.asked = self.questions;
            return;
        }
        if self.keys.len() >= MOST_KEYS
            && let Some(oldest) = (0..self.keys.len()).min_by_key(|&at| self.keys[at].asked)
        {
            self.keys.swap_remove(oldest);
        }
        let mut values: BTreeSet<Arc<str>> = BTreeSet::new();
        let mut entries = Vec::new();
        for (path, object) in &self.objects {
            let Some(value) = object.meta.label(key) else { continue };
            let value = values.get(value).cloned().unwrap_or_else(|| {
                let value: Arc<str> = value.into();
                values.insert(value.clone());
                value
            });
            entries.push((value, path.clone()));
        }
        let entries = entries.into_iter().collect();
        self.keys.push(Postings { key: key.into(), asked: self.questions, entries });
    }
}

impl Postings {
    fn change(&mut self, path: &Arc<str>, before: Option<&Arc<Object>>, after: Option<&Arc<Object>>) {
        let before = before.and_then(|object| object.meta.label(&self.key));
        let after = after.and_then(|object| object.meta.label(&self.key));
        if before == after {
            return;
        }
        if let Some(before) = before {
            self.entries.remove(&(before.into(), path.clone()));
        }
        if let Some(after) = after {
            // The text of a value is shared by all that carry it.
            let after: Arc<str> = after.into();
            let same = self.entries.range((after.clone(), "".into())..).next();
            let value = same.filter(|(value, _)| *value == after).map_or(after, |(value, _)| value.clone());
            self.entries.insert((value, path.clone()));
        }
    }

    /// Whether so few entries have to be read for a requirement.
    fn are_at_most(&self, limit: usize, requirement: &Requirement, namespace: &str) -> bool {
        match requirement.operator {
            Operator::In => self.of_values(&requirement.values, namespace).take(limit + 1).count() <= limit,
            _ => self.entries.len() <= limit,
        }
    }

    /// The paths of the objects of a namespace (of all, if it is empty) that have one of the values: value by value.
    fn of_values<'a>(
        &'a self,
        values: &'a [Box<str>],
        namespace: &str,
    ) -> impl Iterator<Item = &'a Arc<str>> + use<'a> {
        let (first, behind): (Arc<str>, _) = match namespace {
            "" => ("".into(), None),
            _ => ([namespace, BETWEEN].concat().into(), Some([namespace, BEHIND].concat())),
        };
        values.iter().flat_map(move |value| {
            let behind = behind.clone();
            let found = self.entries.range((Arc::from(&**value), first.clone())..);
            let found = found.take_while(move |(held, path)| {
                **held == **value && behind.as_ref().is_none_or(|behind| **path < **behind)
            });
            found.map(|(_, path)| path)
        })
    }

    /// The paths behind one of the objects of a namespace that a requirement may hold of, in their order.
    fn behind(&self, requirement: &Requirement, namespace: &str, after: &str) -> Vec<Arc<str>> {
        let is_behind = |path: &&Arc<str>| ***path > *after;
        let mut paths: Vec<Arc<str>> = match requirement.operator {
            Operator::In => {
                self.of_values(&requirement.values, namespace).filter(is_behind).cloned().collect()
            }
            _ => {
                let prefix = [namespace, BETWEEN].concat();
                let is_within = |path: &&Arc<str>| namespace.is_empty() || path.starts_with(&prefix);
                let all = self.entries.iter().map(|(_, path)| path);
                all.filter(is_within).filter(is_behind).cloned().collect()
            }
        };
        // Already so, if there was one value.
        paths.sort_unstable();
        paths
    }
}
